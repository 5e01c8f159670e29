//! `WorkerService`: the stream on which a coordinator gives orders.

use std::pin::Pin;
use std::time::Duration;

use evenkeel_common::PROTOCOL_VERSION;
use evenkeel_common::runtime::net::Listen;
use evenkeel_common::runtime::tls::{Peer, Tls, incoming};
use evenkeel_proto::v1::{self, work_request};
use evenkeel_proto::{DESCRIPTORS, MAX_MESSAGE_BYTES};
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::hub::Input;

/// Time for a coordinator to greet.
const GREETING_WITHIN: Duration = Duration::from_secs(5);
/// Responses that wait on a stream.
const STREAM_DEPTH: usize = 16;

/// The service over the worker's loop.
#[derive(Clone, Debug)]
pub struct WorkerRpc {
    hub: mpsc::Sender<Input>,
    /// The name that a certificate has to hold.
    orders_from: String,
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::WorkResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::worker_service_server::WorkerService for WorkerRpc {
    type WorkStream = Responses;

    async fn work(
        &self,
        request: Request<Streaming<v1::WorkRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        if peer.is_certified() && !peer.has_name(&self.orders_from) {
            tracing::warn!(peer = ?peer.address, "orders refused: the certificate is none of a coordinator's");
            return Err(Status::permission_denied(format!(
                "this worker takes orders from those whose certificate is for the name {}: that of this caller is not \
                 (`evenkeel certs` makes one that is, and --coordinator-name of the worker asks for another name)",
                self.orders_from
            )));
        }
        let mut inbox = request.into_inner();
        let first = tokio::time::timeout(GREETING_WITHIN, inbox.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no greeting came"))??;
        let Some(work_request::Message::Greeting(greeting)) = first.and_then(|request| request.message)
        else {
            return Err(Status::invalid_argument("a coordinator has to greet first"));
        };
        if greeting.protocol_version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "the coordinator speaks protocol {} (evenkeel {}), this worker speaks protocol {PROTOCOL_VERSION} \
                 (evenkeel {}); run the same version on both sides",
                greeting.protocol_version,
                greeting.version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        let stopping = |_| Status::unavailable("the worker is stopping");
        let (responses, outbox) = mpsc::channel(STREAM_DEPTH);
        let (reply, answer) = oneshot::channel();
        let hub = self.hub.clone();
        hub.send(Input::Greeted { greeting, responses, reply }).await.map_err(|_| stopping(()))?;
        let stream = answer.await.map_err(|_| stopping(()))??;
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbox.message().await {
                if hub.send(Input::Ordered(stream, message)).await.is_err() {
                    return;
                }
            }
            let _ = hub.send(Input::Closed(stream)).await;
        });
        Ok(Response::new(ReceiverStream::new(outbox).boxed()))
    }
}

/// Serves until the task is dropped.
///
/// # Errors
/// When the socket fails.
pub async fn serve<L: Listen>(
    listener: L,
    tls: Tls,
    orders_from: String,
    hub: mpsc::Sender<Input>,
) -> Result<(), tonic::transport::Error> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let worker = v1::worker_service_server::WorkerServiceServer::new(WorkerRpc { hub, orders_from })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    health_reporter.set_serving::<v1::worker_service_server::WorkerServiceServer<WorkerRpc>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let mut router = tonic::transport::Server::builder()
        // A coordinator that is gone without a word is noticed, so that its successor's stream is not the only sign.
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(health)
        .add_service(worker);
    match reflection {
        Ok(reflection) => router = router.add_service(reflection),
        Err(error) => tracing::error!(%error, "no server reflection"),
    }
    router.serve_with_incoming(incoming(listener, tls)).await
}
