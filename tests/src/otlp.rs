//! A receiver of OTLP, by gRPC and by HTTP, that keeps what it is sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tonic::{Request, Response, Status};

/// What was received of one kind, with the name of the service that sent it.
type Kept<T> = Arc<Mutex<Vec<(String, T)>>>;

/// What was received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    spans: Kept<Span>,
    metrics: Kept<Metric>,
    logs: Kept<LogRecord>,
}

fn all<T: Clone>(kept: &Kept<T>) -> Vec<(String, T)> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn service(resource: Option<&Resource>) -> String {
    resource.and_then(|resource| text(&resource.attributes, "service.name")).unwrap_or_default()
}

/// The value of an attribute, as text.
#[must_use]
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(value) => value.to_string(),
        any_value::Value::DoubleValue(value) => value.to_string(),
        any_value::Value::BoolValue(value) => value.to_string(),
        other => format!("{other:?}"),
    })
}

/// Bytes of an id as hexadecimal digits.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Received {
    /// All spans, each with the name of its service.
    #[must_use]
    pub fn spans(&self) -> Vec<(String, Span)> {
        all(&self.spans)
    }

    /// All states of metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, Metric)> {
        all(&self.metrics)
    }

    /// All log records.
    #[must_use]
    pub fn logs(&self) -> Vec<(String, LogRecord)> {
        all(&self.logs)
    }

    fn take_spans(&self, request: ExportTraceServiceRequest) {
        let mut kept = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_spans {
            let name = service(of_resource.resource.as_ref());
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            kept.extend(spans.map(|span| (name.clone(), span)));
        }
    }

    fn take_metrics(&self, request: ExportMetricsServiceRequest) {
        let mut kept = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_metrics {
            let name = service(of_resource.resource.as_ref());
            let metrics = of_resource.scope_metrics.into_iter().flat_map(|of_scope| of_scope.metrics);
            kept.extend(metrics.map(|metric| (name.clone(), metric)));
        }
    }

    fn take_logs(&self, request: ExportLogsServiceRequest) {
        let mut kept = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_logs {
            let name = service(of_resource.resource.as_ref());
            let logs = of_resource.scope_logs.into_iter().flat_map(|of_scope| of_scope.log_records);
            kept.extend(logs.map(|log| (name.clone(), log)));
        }
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_spans(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take_metrics(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take_logs(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

/// A receiver that runs until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    /// Where it takes OTLP by gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP by HTTP.
    pub http: SocketAddr,
    /// What it was sent.
    pub received: Received,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Receiver {
    /// Starts one on ports of its own.
    ///
    /// # Errors
    /// When there are no threads or ports.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let received = Received::default();
        let (grpc, http) = runtime.block_on(async {
            let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
            anyhow::Ok((bind().await?, bind().await?))
        })?;
        let addresses = (grpc.local_addr()?, http.local_addr()?);
        let router = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(MetricsServiceServer::new(received.clone()))
            .add_service(LogsServiceServer::new(received.clone()));
        let app = Router::new()
            .route("/v1/traces", post(http_traces))
            .route("/v1/metrics", post(http_metrics))
            .route("/v1/logs", post(http_logs))
            .with_state(received.clone());
        runtime.spawn(router.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(grpc)));
        runtime.spawn(async move { axum::serve(http, app).await });
        Ok(Self { grpc: addresses.0, http: addresses.1, received, runtime: Some(runtime) })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

async fn http_traces(State(received): State<Received>, body: Bytes) -> Result<(), axum::http::StatusCode> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| axum::http::StatusCode::BAD_REQUEST)?;
    received.take_spans(request);
    Ok(())
}

async fn http_metrics(State(received): State<Received>, body: Bytes) -> Result<(), axum::http::StatusCode> {
    let request =
        ExportMetricsServiceRequest::decode(body).map_err(|_| axum::http::StatusCode::BAD_REQUEST)?;
    received.take_metrics(request);
    Ok(())
}

async fn http_logs(State(received): State<Received>, body: Bytes) -> Result<(), axum::http::StatusCode> {
    let request = ExportLogsServiceRequest::decode(body).map_err(|_| axum::http::StatusCode::BAD_REQUEST)?;
    received.take_logs(request);
    Ok(())
}
