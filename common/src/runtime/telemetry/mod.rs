//! What the programs tell of themselves: log lines, and traces, metrics and logs by OTLP where the standard variables of
//! OpenTelemetry name a receiver (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin).
//!
//! Exporting never holds anything up: what cannot be sent is dropped.

mod convert;
mod metrics;
mod settings;

pub use settings::{Signal, TelemetryError};

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanProcessor as _};
use prometheus_client::registry::Registry;

use super::logging::{self, LogFormat};
use super::trace;
use std::sync::Arc;

/// Longest time that the end of a program waits for a receiver.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Sends the spans that are left, for a second at most: for a program that ends without coming to the end of `main`.
pub fn flush_traces() {
    if let Some(processor) = trace::processor() {
        let _ = processor.shutdown_with_timeout(FLUSH_WITHIN / 2);
    }
}

/// Which program it is.
#[derive(Clone, Debug)]
pub struct Service {
    /// `service.name`: `evenkeel-coordinator`, `evenkeel-worker` or `evenkeel`. `OTEL_SERVICE_NAME` overrides it.
    pub name: &'static str,
    /// `service.instance.id`.
    pub instance: String,
}

/// What was started; to be shut down at the end of the program.
#[derive(Debug)]
pub struct Telemetry {
    resource: Resource,
    logs: Option<SdkLoggerProvider>,
    metrics: Option<metrics::Pusher>,
}

impl Telemetry {
    /// Starts logging, and exporting where that is configured. Within a runtime, once a process.
    ///
    /// # Errors
    /// When the configuration cannot be followed.
    pub fn start(service: &Service, filter: &str, format: LogFormat) -> Result<Self, TelemetryError> {
        let resource = Resource::builder()
            .with_attributes([
                KeyValue::new("service.namespace", "evenkeel"),
                KeyValue::new("service.instance.id", service.instance.clone()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let resource = settings::named(resource, service.name);
        let provider = match settings::wanted(Signal::Logs)? {
            false => None,
            true => {
                let exporter =
                    LogExporter::builder().build().map_err(|e| settings::failed(Signal::Logs, &e))?;
                let provider = SdkLoggerProvider::builder();
                Some(provider.with_resource(resource.clone()).with_batch_exporter(exporter).build())
            }
        };
        let bridge: Option<OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>> =
            provider.as_ref().map(OpenTelemetryTracingBridge::new);
        logging::start(filter, format, bridge);
        if settings::wanted(Signal::Traces)? {
            let exporter =
                SpanExporter::builder().build().map_err(|e| settings::failed(Signal::Traces, &e))?;
            let mut processor = BatchSpanProcessor::builder(exporter).build();
            processor.set_resource(&resource);
            trace::start(Box::new(processor));
        }
        Ok(Self { resource, logs: provider, metrics: None })
    }

    /// Sends these metrics from time to time (`OTEL_METRIC_EXPORT_INTERVAL`), where that is configured.
    ///
    /// # Errors
    /// When the configuration cannot be followed.
    pub fn push_metrics(&mut self, registry: Arc<Registry>) -> Result<(), TelemetryError> {
        if settings::wanted(Signal::Metrics)? {
            self.metrics = Some(metrics::Pusher::start(&self.resource, registry)?);
        }
        Ok(())
    }

    /// Sends what is left, for two seconds at most.
    pub async fn shutdown(self) {
        if let Some(metrics) = self.metrics {
            let _ = tokio::time::timeout(FLUSH_WITHIN, metrics.stop()).await;
        }
        let logs = self.logs;
        let flush = tokio::task::spawn_blocking(move || {
            if let Some(processor) = trace::processor() {
                let _ = processor.shutdown_with_timeout(FLUSH_WITHIN);
            }
            if let Some(logs) = logs {
                let _ = logs.shutdown_with_timeout(FLUSH_WITHIN);
            }
        });
        let _ = tokio::time::timeout(FLUSH_WITHIN, flush).await;
    }
}
