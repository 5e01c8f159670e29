//! Says that this worker is there: in etcd under a lease, or to the coordinator by heartbeats.

use std::time::Duration;

use evenkeel_common::runtime::WorkerRecord;
use evenkeel_common::runtime::etcd::{EtcdError, EtcdLink, Session};
use evenkeel_common::runtime::secret::Bearer;
use evenkeel_common::runtime::tls::{Tls, chain};
use evenkeel_proto::v1;
use evenkeel_proto::v1::membership_service_client::MembershipServiceClient;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::metrics::Metrics;

/// Between attempts while nobody answers.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a worker registers.
#[derive(Clone, Debug)]
pub enum Registry {
    /// A cluster's etcd.
    Etcd(EtcdLink),
    /// A coordinator.
    Coordinator(Box<Place>),
}

/// A coordinator, and how it is reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its URL.
    pub url: String,
    /// What is shown to it.
    pub bearer: Bearer,
    /// How the connection is encrypted.
    pub tls: Tls,
}

/// Why registration ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Keeps the worker registered until stopped, then leaves at once.
///
/// # Errors
/// When the coordinator refuses this worker for good (another protocol version, no token of its).
pub async fn keep(
    registry: Registry,
    record: WorkerRecord,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), Refused> {
    match registry {
        Registry::Etcd(etcd) => {
            in_etcd(&etcd, &record, &metrics, &stop).await;
            Ok(())
        }
        Registry::Coordinator(place) => at_coordinator(&place, &record, &metrics, &stop).await,
    }
}

async fn in_etcd(etcd: &EtcdLink, record: &WorkerRecord, metrics: &Metrics, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match session(etcd, record).await {
            Ok(session) => {
                tracing::info!(cluster = %etcd.config().cluster, "registered in etcd");
                metrics.registered();
                if stop.run_until_cancelled(session.lost()).await.is_none() {
                    session.close().await;
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "not registered in etcd, trying again"),
        }
        etcd.forget().await;
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

async fn session(etcd: &EtcdLink, record: &WorkerRecord) -> Result<Session, EtcdError> {
    let failed = |source| etcd.config().failed(source);
    let mut client = etcd.client().await?;
    let session = Session::open(client.clone()).await.map_err(failed)?;
    let key = format!("{}{}", etcd.config().workers_prefix(), record.id);
    let value = serde_json::to_vec(record).unwrap_or_default();
    let options = etcd_client::PutOptions::new().with_lease(session.lease());
    client.put(key, value, Some(options)).await.map_err(failed)?;
    Ok(session)
}

type Client = MembershipServiceClient<InterceptedService<Channel, Bearer>>;

async fn at_coordinator(
    place: &Place,
    record: &WorkerRecord,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), Refused> {
    /// Attempts in vain between two lines about it; the first ones are those while a coordinator starts.
    const SAY_EVERY: u32 = 25;
    let url = &place.url;
    let mut in_vain = 0_u32;
    let mut client: Option<Client> = None;
    let mut told = false;
    while !stop.is_cancelled() {
        let renewed = stop.run_until_cancelled(register(place, &mut client, record)).await;
        let pause = match renewed {
            None => break,
            Some(Ok(lease)) => {
                if !told {
                    tracing::info!(coordinator = url, "registered");
                    metrics.registered();
                    told = true;
                }
                in_vain = 0;
                lease / 3
            }
            Some(Err(status)) if is_final(status.code()) => {
                return Err(Refused(format!(
                    "the coordinator at {url} refuses this worker: {}",
                    status.message()
                )));
            }
            Some(Err(status)) => {
                in_vain = in_vain.wrapping_add(1);
                if told || in_vain % SAY_EVERY == SAY_EVERY / 5 {
                    tracing::warn!(
                        coordinator = url,
                        error = status.message(),
                        "registration not renewed, trying again"
                    );
                }
                told = false;
                client = None;
                // Soon, because a coordinator that starts beside this worker is about to listen.
                PAUSE / 5
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    if let Some(mut client) = client {
        let request = v1::DeregisterRequest { worker_id: record.id.clone() };
        let _ = tokio::time::timeout(PAUSE, client.deregister(request)).await;
    }
    Ok(())
}

/// Whether the same question would get the same answer.
fn is_final(code: Code) -> bool {
    matches!(code, Code::FailedPrecondition | Code::Unauthenticated | Code::PermissionDenied)
}

async fn register(
    place: &Place,
    client: &mut Option<Client>,
    record: &WorkerRecord,
) -> Result<Duration, tonic::Status> {
    let client = match client {
        Some(client) => client,
        None => {
            let endpoint = place
                .tls
                .endpoint(&place.url)
                .map_err(|error| {
                    tonic::Status::failed_precondition(format!("its address cannot be used: {error}"))
                })?
                .connect_timeout(PAUSE * 3)
                .timeout(PAUSE * 3);
            let channel =
                endpoint.connect().await.map_err(|error| tonic::Status::unavailable(chain(&error)))?;
            client.insert(MembershipServiceClient::with_interceptor(channel, place.bearer.clone()))
        }
    };
    let worker = v1::WorkerRecord {
        id: record.id.clone(),
        address: record.address.clone(),
        protocol_version: record.protocol_version,
        version: record.version.clone(),
        slots: record.slots,
        device: record.device.clone(),
        started_ms: record.started_ms,
    };
    let answer = client.register(v1::RegisterRequest { worker: Some(worker) }).await?.into_inner();
    Ok(Duration::from_millis(answer.lease_ms.clamp(300, 600_000)))
}
