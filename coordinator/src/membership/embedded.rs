//! The registry of a coordinator without etcd: workers renew their registration over gRPC.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::PROTOCOL_VERSION;
use evenkeel_proto::v1;
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Membership, MembershipEvent, WorkerRecord};
use crate::core::WorkerId;
use crate::dispatch::other_protocol;

/// For how long a registration holds.
const LEASE: Duration = Duration::from_secs(6);

enum Call {
    Register(WorkerRecord),
    Deregister(WorkerId),
}

/// The registry and its gRPC service; clones share it.
#[derive(Clone)]
pub struct Embedded {
    lease: Duration,
    calls: mpsc::Sender<Call>,
    inbox: Arc<std::sync::Mutex<Option<mpsc::Receiver<Call>>>>,
}

impl Default for Embedded {
    fn default() -> Self {
        Self::with_lease(LEASE)
    }
}

impl Membership for Embedded {
    fn follow(
        self: Box<Self>,
        events: mpsc::Sender<MembershipEvent>,
        stop: CancellationToken,
    ) -> futures::future::BoxFuture<'static, ()> {
        async move {
            let inbox = self.inbox.lock().ok().and_then(|mut inbox| inbox.take());
            let Some(inbox) = inbox else {
                tracing::error!("the embedded registry is followed already");
                return;
            };
            stop.run_until_cancelled(follow(inbox, events, self.lease)).await;
        }
        .boxed()
    }
}

async fn follow(mut inbox: mpsc::Receiver<Call>, events: mpsc::Sender<MembershipEvent>, lease: Duration) {
    let mut leases: HashMap<WorkerId, (WorkerRecord, Instant)> = HashMap::new();
    loop {
        let next = leases.values().map(|(_, until)| *until).min();
        let expiry = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        let mut news = Vec::new();
        tokio::select! {
            call = inbox.recv() => match call {
                Some(Call::Register(record)) => {
                    let id = WorkerId::from(record.id.as_str());
                    let known = leases.insert(id, (record.clone(), Instant::now() + lease));
                    if known.is_none_or(|(known, _)| known != record) {
                        news.push(MembershipEvent::Up(record));
                    }
                }
                Some(Call::Deregister(id)) => {
                    if leases.remove(&id).is_some() {
                        news.push(MembershipEvent::Down(id));
                    }
                }
                None => return,
            },
            () = expiry => {
                let now = Instant::now();
                leases.retain(|id, (_, until)| {
                    let alive = *until > now;
                    if !alive {
                        news.push(MembershipEvent::Down(id.clone()));
                    }
                    alive
                });
            }
        }
        for event in news {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl v1::membership_service_server::MembershipService for Embedded {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let worker =
            request.into_inner().worker.ok_or_else(|| Status::invalid_argument("`worker` is missing"))?;
        if worker.protocol_version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition(other_protocol(
                worker.protocol_version,
                &worker.version,
            )));
        }
        let record = WorkerRecord {
            id: worker.id,
            address: worker.address,
            protocol_version: worker.protocol_version,
            version: worker.version,
            slots: worker.slots,
            device: worker.device,
            started_ms: worker.started_ms,
        };
        record.check().map_err(Status::invalid_argument)?;
        self.call(Call::Register(record)).await?;
        let lease_ms = self.lease.as_millis() as u64;
        Ok(Response::new(v1::RegisterResponse { protocol_version: PROTOCOL_VERSION, lease_ms }))
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let id = WorkerId::from(request.into_inner().worker_id);
        self.call(Call::Deregister(id)).await?;
        Ok(Response::new(v1::DeregisterResponse {}))
    }
}

impl Embedded {
    fn with_lease(lease: Duration) -> Self {
        let (calls, inbox) = mpsc::channel(256);
        Self { lease, calls, inbox: Arc::new(std::sync::Mutex::new(Some(inbox))) }
    }

    async fn call(&self, call: Call) -> Result<(), Status> {
        self.calls.send(call).await.map_err(|_| Status::unavailable("the coordinator is stopping"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_proto::v1::membership_service_server::MembershipService as _;

    fn worker(protocol_version: u32) -> v1::WorkerRecord {
        v1::WorkerRecord {
            id: "w-1".into(),
            address: "http://127.0.0.1:7071".into(),
            protocol_version,
            version: "9.9.9".into(),
            slots: 1,
            device: "cpu".into(),
            started_ms: 0,
        }
    }

    #[tokio::test]
    async fn a_worker_of_another_protocol_is_refused_with_both_versions_named() {
        let request = v1::RegisterRequest { worker: Some(worker(7)) };
        let status = Embedded::default().register(Request::new(request)).await.expect_err("accepted");
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        let message = status.message();
        let ours = format!("protocol {PROTOCOL_VERSION} (evenkeel 0.");
        assert!(message.contains("protocol 7 (evenkeel 9.9.9)") && message.contains(&ours), "{message}");
    }

    #[tokio::test]
    async fn a_worker_that_does_not_renew_its_lease_is_gone() {
        let lease = Duration::from_millis(400);
        let registry = Embedded::with_lease(lease);
        let (events, mut inbox) = mpsc::channel(8);
        let following = tokio::spawn(Box::new(registry.clone()).follow(events, CancellationToken::new()));
        let register = || {
            registry.register(Request::new(v1::RegisterRequest { worker: Some(worker(PROTOCOL_VERSION)) }))
        };
        register().await.expect("register");
        assert!(matches!(inbox.recv().await, Some(MembershipEvent::Up(record)) if record.id == "w-1"));
        let start = Instant::now();
        tokio::time::sleep(lease / 2).await;
        register().await.expect("renew");
        assert_eq!(inbox.recv().await, Some(MembershipEvent::Down(WorkerId::from("w-1"))));
        assert!(start.elapsed() >= lease + lease / 2);
        following.abort();
    }
}
