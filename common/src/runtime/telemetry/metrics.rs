//! Sends metrics by OTLP from time to time.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_sdk::Resource;
use prometheus_client::encoding::prometheus_protobuf::encode;
use prometheus_client::registry::Registry;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::convert;
use super::settings::{self, Signal, Target, TelemetryError};

/// A task that sends until it is stopped.
#[derive(Debug)]
pub(super) struct Pusher {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Pusher {
    pub fn start(resource: &Resource, registry: Arc<Registry>) -> Result<Self, TelemetryError> {
        let target = settings::metrics_target()?;
        let way = Way::new(&target)?;
        let (stop, resource) = (CancellationToken::new(), resource.clone());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let started = nanoseconds();
            let mut complained = false;
            loop {
                let stopping = stopped.run_until_cancelled(tokio::time::sleep(target.every)).await.is_none();
                match encode(&registry) {
                    Ok(families) => {
                        let metrics = convert::metrics(&families, started, nanoseconds());
                        let request = convert::request(&resource, metrics);
                        let sent = tokio::time::timeout(target.timeout, way.send(request)).await;
                        let problem = match sent {
                            Ok(Ok(())) => None,
                            Ok(Err(reason)) => Some(reason),
                            Err(_) => Some("no answer in time".to_owned()),
                        };
                        if let Some(reason) = problem.as_ref().filter(|_| !complained) {
                            tracing::warn!(%reason, url = target.url, "metrics not sent; trying on without another word");
                        } else if problem.is_none() && complained {
                            tracing::info!("metrics are sent again");
                        }
                        complained = problem.is_some();
                    }
                    Err(error) => tracing::error!(%error, "metrics cannot be encoded"),
                }
                if stopping {
                    return;
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// Sends once more and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

enum Way {
    Http { client: reqwest::Client, url: String, headers: HeaderMap },
    Grpc { client: MetricsServiceClient<Channel>, metadata: MetadataMap },
}

impl Way {
    fn new(target: &Target) -> Result<Self, TelemetryError> {
        let failed = |error: &dyn std::fmt::Display| settings::failed(Signal::Metrics, error);
        let mut headers = HeaderMap::new();
        for (name, value) in &target.headers {
            let name = HeaderName::from_str(name).map_err(|error| failed(&error))?;
            let mut value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        if target.http {
            let client = reqwest::Client::builder().build().map_err(|error| failed(&error))?;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            return Ok(Self::Http { client, url: target.url.clone(), headers });
        }
        let mut endpoint = Endpoint::from_shared(target.url.clone()).map_err(|error| failed(&error))?;
        if target.url.starts_with("https:") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new()).map_err(|error| failed(&error))?;
        }
        let metadata = MetadataMap::from_headers(headers);
        Ok(Self::Grpc { client: MetricsServiceClient::new(endpoint.connect_lazy()), metadata })
    }

    async fn send(&self, message: ExportMetricsServiceRequest) -> Result<(), String> {
        match self {
            Self::Http { client, url, headers } => {
                let sent =
                    client.post(url).headers(headers.clone()).body(message.encode_to_vec()).send().await;
                let answer = sent.and_then(reqwest::Response::error_for_status);
                answer.map(drop).map_err(|error| error.to_string())
            }
            Self::Grpc { client, metadata } => {
                let mut request = tonic::Request::new(message);
                *request.metadata_mut() = metadata.clone();
                client.clone().export(request).await.map(drop).map_err(|status| status.to_string())
            }
        }
    }
}
