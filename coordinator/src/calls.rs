//! Calls that are answered: how long each took and how it ended, as a metric and as a span.
//!
//! After the [semantic conventions of OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/rpc/grpc/): a span is named by its
//! method, `evenkeel.v1.SweepService/Submit`. A call that answers with a stream ends when the stream begins.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use evenkeel_common::runtime::trace::{self, Span, SpanKind, TRACEPARENT, TraceContext};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::metrics::Metrics;
use crate::relay::Relayed;

/// What is served here, of all that is: health and reflection are none of it.
const OURS: &str = "/evenkeel.v1.";
/// Calls that change something: they are traced whoever asks. Others are if the caller's trace is.
const CHANGES: [&str; 4] = ["Submit", "ChangeSweep", "DrainWorker", "SetLogFilter"];

/// Counts and traces the calls of a service.
#[derive(Clone, Debug)]
pub struct Calls(Metrics);

impl Calls {
    /// Counted here.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(method) = request.uri().path().strip_prefix('/').filter(|_| is_ours(&request)) else {
            return Box::pin(self.inner.call(request));
        };
        let (method, began, metrics) = (method.to_owned(), Instant::now(), self.metrics.clone());
        let header = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let caller = header.and_then(TraceContext::parse);
        let context = caller.map_or_else(TraceContext::root, TraceContext::child);
        let span = trace::is_on().then(|| Span::begin(method.clone(), SpanKind::Server, context, caller));
        let answer = self.inner.call(request);
        Box::pin(context.within(async move {
            let response = answer.await?;
            let status = Status::from_header_map(response.headers());
            let code = status.as_ref().map_or(Code::Ok, Status::code);
            // The leader measures and shows what it answers: here that is counted alone.
            let relayed = response.extensions().get::<Relayed>().is_some();
            // Methods that there are: what callers ask for besides must not make a series each.
            match code {
                Code::Unimplemented => {}
                _ if relayed => metrics.relayed(&method, name(code)),
                _ => metrics.called(&method, name(code), began.elapsed().as_secs_f64()),
            }
            if let Some(span) = span.filter(|_| !relayed && is_wanted(&method, caller, code)) {
                let span = span
                    .with("rpc.system.name", "grpc")
                    .with("rpc.method", method)
                    .with("rpc.response.status_code", name(code));
                match status.filter(|_| is_our_fault(code)) {
                    Some(status) => span.failed(status.message().to_owned()).finish(),
                    None => span.finish(),
                }
            }
            Ok(response)
        }))
    }
}

fn is_ours<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with(OURS)
}

fn is_wanted(method: &str, caller: Option<TraceContext>, code: Code) -> bool {
    let changes = CHANGES.iter().any(|name| method.ends_with(&format!("/{name}")));
    match caller {
        Some(caller) => caller.is_sampled() || is_our_fault(code),
        None => (changes && code != Code::Unavailable) || is_our_fault(code),
    }
}

/// Failures of the server, as the conventions tell them from those of callers. `UNAVAILABLE` says that another leads: no failure.
fn is_our_fault(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::DataLoss)
}

/// A status code as OpenTelemetry writes it.
#[must_use]
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_or_fails_or_is_asked_in_a_trace_is_traced() {
        let (submit, list) = ("evenkeel.v1.SweepService/Submit", "evenkeel.v1.SweepService/ListSweeps");
        let caller = Some(TraceContext::root());
        let silent = caller.map(|caller| caller.with_sampled(false));
        assert!(is_wanted(submit, None, Code::Ok) && is_wanted(submit, None, Code::InvalidArgument));
        assert!(!is_wanted(list, None, Code::Ok) && !is_wanted(list, silent, Code::Ok));
        assert!(is_wanted(list, caller, Code::Ok) && is_wanted(list, silent, Code::Internal));
        assert!(!is_wanted(submit, None, Code::Unavailable), "clients ask again and again");
    }
}
