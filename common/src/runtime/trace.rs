//! Traces: what took how long, over all processes that took part.
//!
//! A span is plain data until it is known whether anybody wants to see it; then it is handed to the exporter. Nothing is made
//! where no exporter was started ([`is_on`]).

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::time::SystemTime;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{
    FutureExt as _, Link, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, ContextGuard, InstrumentationScope, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};

use crate::id::ContentHash;

/// The name of the header, or of the metadata, that carries a [`TraceContext`].
pub const TRACEPARENT: &str = "traceparent";

static PROCESSOR: OnceLock<Box<dyn SpanProcessor>> = OnceLock::new();

/// Spans go to this processor from now on. False when there is one already.
pub(super) fn start(processor: Box<dyn SpanProcessor>) -> bool {
    PROCESSOR.set(processor).is_ok()
}

/// The processor that spans go to.
pub(super) fn processor() -> Option<&'static dyn SpanProcessor> {
    PROCESSOR.get().map(Box::as_ref)
}

/// Whether spans go anywhere.
#[must_use]
pub fn is_on() -> bool {
    PROCESSOR.get().is_some()
}

/// Names a span across processes ([W3C Trace Context](https://www.w3.org/TR/trace-context/)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
}

impl TraceContext {
    /// The first span of a new trace.
    #[must_use]
    pub fn root() -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace: ids.new_trace_id(), span: ids.new_span_id(), sampled: true }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: RandomIdGenerator::default().new_span_id(), ..self }
    }

    /// The span of this trace that stands for something with a name: the same for all who ask, before and after a failover.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let hash = ContentHash::of(format!("span\0{:032x}\0{name}", self.trace).as_bytes()).to_hex();
        let id = hash.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).filter(|id| *id != 0);
        Self { span: SpanId::from(id.unwrap_or(1)), ..self }
    }

    /// From the value of a header; none when it is not one.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let carrier = Carrier(Some(traceparent.to_owned()));
        Self::of(
            TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &carrier)
                .span()
                .span_context(),
        )
    }

    fn of(context: &SpanContext) -> Option<Self> {
        context.is_valid().then(|| Self {
            trace: context.trace_id(),
            span: context.span_id(),
            sampled: context.is_sampled(),
        })
    }

    /// What is being worked on here and now.
    #[must_use]
    pub fn current() -> Option<Self> {
        Context::map_current(|context| Self::of(context.span().span_context()))
    }

    /// The trace, as backends search for it: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span)
    }

    /// Whether it is certain that somebody wants to see it; what fails is shown in any case.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.sampled
    }

    /// The same, sampled or not.
    #[must_use]
    pub fn with_sampled(self, sampled: bool) -> Self {
        Self { sampled, ..self }
    }

    /// This is worked on until the guard is dropped: log lines name it.
    #[must_use]
    pub fn attach(self) -> ContextGuard {
        self.context().attach()
    }

    /// The future works on this: its log lines name it.
    pub fn within<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        future.with_context(self.context())
    }

    fn context(self) -> Context {
        Context::new().with_remote_span_context(self.span_context())
    }

    fn span_context(self) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        SpanContext::new(self.trace, self.span, flags, true, TraceState::default())
    }
}

/// As the header has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut carrier = Carrier(None);
        TraceContextPropagator::new().inject_context(&self.context(), &mut carrier);
        f.write_str(carrier.0.as_deref().unwrap_or_default())
    }
}

/// One header.
struct Carrier(Option<String>);

impl Extractor for Carrier {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.as_deref().filter(|_| key == TRACEPARENT)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Some(value);
        }
    }
}

/// Something that took time, complete.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name in the trace.
    pub context: TraceContext,
    /// What it is a part of.
    pub parent: Option<TraceContext>,
    /// Which side of what it is.
    pub kind: SpanKind,
    /// What it is called.
    pub name: Cow<'static, str>,
    /// Its begin.
    pub start: SystemTime,
    /// Its end.
    pub end: SystemTime,
    /// What is known of it.
    pub attributes: Vec<KeyValue>,
    /// What it follows from, without being a part of it.
    pub links: Vec<TraceContext>,
    /// How it failed, if it did.
    pub error: Option<String>,
}

impl Span {
    /// One that begins now, and ends at once unless told otherwise.
    #[must_use]
    pub fn begin(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        context: TraceContext,
        parent: Option<TraceContext>,
    ) -> Self {
        let now = SystemTime::now();
        let name = name.into();
        Self {
            context,
            parent,
            kind,
            name,
            start: now,
            end: now,
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        }
    }

    /// Says something of it.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<opentelemetry::Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// How it failed.
    #[must_use]
    pub fn failed(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// It ends now, and is shown.
    pub fn finish(mut self) {
        self.end = SystemTime::now();
        self.emit();
    }

    /// Hands it to the exporter, which never waits: one too many is dropped and counted.
    pub fn emit(self) {
        let Some(processor) = PROCESSOR.get() else { return };
        let mut links = SpanLinks::default();
        links.links = self.links.iter().map(|link| Link::with_context(link.span_context())).collect();
        let own = self.context;
        processor.on_end(SpanData {
            span_context: SpanContext::new(
                own.trace,
                own.span,
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: self.parent.map_or(SpanId::INVALID, |parent| parent.span),
            parent_span_is_remote: self.parent.is_some(),
            span_kind: self.kind,
            name: self.name,
            start_time: self.start,
            end_time: self.end.max(self.start),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: InstrumentationScope::builder("evenkeel")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
    }
}

/// Whether a pack took much longer than it should have: then it is shown whatever was decided when it was sent out. Work that is
/// over within seconds is never slow.
#[must_use]
pub fn is_slow(seconds: f64, expected_seconds: f64) -> bool {
    /// Guesses of short packs are rough.
    const LEAST: f64 = 5.0;
    const TIMES: f64 = 3.0;
    seconds > (expected_seconds.max(0.0) * TIMES).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_written_and_read_as_w3c_has_it() {
        // The example of the specification.
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(text).expect("context");
        assert_eq!(context.to_string(), text);
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id(), "b7ad6b7169203331");
        assert!(context.is_sampled());
        let unsampled = context.with_sampled(false).to_string();
        assert!(
            unsampled.ends_with("-00") && !TraceContext::parse(&unsampled).expect("context").is_sampled()
        );
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "a secret",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_named_span_is_the_same_for_all_who_ask() {
        let root = TraceContext::root();
        assert_ne!(root, TraceContext::root());
        let later = TraceContext::parse(&root.to_string()).expect("context");
        assert_eq!(root.named("a sweep"), later.child().named("a sweep"));
        assert_ne!(root.named("a sweep").span, root.named("another").span);
        assert_eq!(root.child().trace, root.trace);
    }

    #[test]
    fn what_is_worked_on_is_known_until_it_ends() {
        assert_eq!(TraceContext::current(), None);
        let root = TraceContext::root();
        {
            let _outer = root.attach();
            let _inner = root.child().attach();
            assert_eq!(TraceContext::current().map(|context| context.trace), Some(root.trace));
        }
        assert_eq!(TraceContext::current(), None);
    }

    #[test]
    fn only_what_takes_far_longer_than_it_should_is_slow() {
        assert!(!is_slow(4.9, 0.1) && is_slow(5.1, 0.1));
        assert!(!is_slow(29.0, 10.0) && is_slow(31.0, 10.0));
        assert!(is_slow(6.0, f64::NAN) && !is_slow(1e9, f64::INFINITY));
    }
}
