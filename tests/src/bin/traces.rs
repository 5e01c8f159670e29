//! Receives spans by OTLP (gRPC) and shows them with the page of Jaeger, all in memory: for `make observe`.
//!
//! `traces PAGE RECEIVER`, each an address such as 127.0.0.1:16686 and 127.0.0.1:4317.

use anyhow::Context as _;
use otlp_embedded::proto::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use otlp_embedded::proto::common::v1::any_value::Value;
use otlp_embedded::proto::common::v1::{AnyValue, KeyValue};
use otlp_embedded::{Config, TraceService, TraceServiceImpl, TraceServiceServer, ui_app};
use tonic::{Request, Response, Status};

/// Traces that are kept. Their size is not limited: what the receiver counts of it falls below zero after some hundred spans of one
/// trace, and it then throws everything away.
const TRACES: u32 = 1000;
const BYTES: usize = usize::MAX;

/// Adds what Jaeger shows as tags and the receiver leaves out: kinds, errors and links.
struct Tagged(TraceServiceImpl);

fn tag(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

#[tonic::async_trait]
impl TraceService for Tagged {
    async fn export(
        &self,
        mut request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
        const ERROR: i32 = 2;
        let scopes = request.get_mut().resource_spans.iter_mut().flat_map(|spans| &mut spans.scope_spans);
        for span in scopes.flat_map(|scope| &mut scope.spans) {
            let kind = usize::try_from(span.kind).ok().and_then(|kind| KINDS.get(kind)).copied();
            span.attributes
                .push(tag("span.kind", Value::StringValue(kind.unwrap_or("unspecified").to_owned())));
            if let Some(status) = span.status.clone().filter(|status| status.code == ERROR) {
                span.attributes.push(tag("error", Value::BoolValue(true)));
                span.attributes.push(tag("otel.status_description", Value::StringValue(status.message)));
            }
            for (number, link) in span.links.iter().enumerate() {
                let id: String = link.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
                span.attributes.push(tag(&format!("link.{number}.span_id"), Value::StringValue(id)));
            }
        }
        self.0.export(request).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: traces PAGE RECEIVER, each an address such as 127.0.0.1:16686 and 127.0.0.1:4317";
    let (page, receiver) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let state = otlp_embedded::State::new(Config { max_length: TRACES, max_memory_usage: BYTES });
    let listener = tokio::net::TcpListener::bind(&page).await.with_context(|| page.clone())?;
    let app = ui_app(state.clone(), "/");
    let service = TraceServiceServer::new(Tagged(TraceServiceImpl::new(state)));
    let receiving = tonic::transport::Server::builder().add_service(service).serve(receiver.parse()?);
    tokio::try_join!(async { axum::serve(listener, app).await.context("the page") }, async {
        receiving.await.context("the receiver")
    },)?;
    Ok(())
}
