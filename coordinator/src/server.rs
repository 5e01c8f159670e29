//! A coordinator: leadership, driver, gRPC and HTTP put together. The same for `evenkeel run` and `evenkeel coordinator`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::runtime::etcd::EtcdConfig;
use evenkeel_proto::{DESCRIPTORS, MAX_MESSAGE_BYTES, v1};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::driver::{self, CommandError, DriverEnd, DriverHandle, DriverParts};
use crate::leadership::{Leadership, LeadershipError};
use crate::membership::{Embedded, Etcd, Membership};
use crate::rpc::SweepRpc;
use crate::store::{Sequence, Store, StoreError};

/// What a coordinator is started with. The caller owns the sockets, so that tests bind port 0.
pub struct ServerConfig {
    /// Where results go.
    pub store: Store,
    /// gRPC.
    pub grpc: TcpListener,
    /// HTTP, if wanted.
    pub http: Option<TcpListener>,
    /// etcd, if there is one.
    pub etcd: Option<EtcdConfig>,
    /// What the election says of the leader: where clients reach it.
    pub advertise: String,
}

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// etcd does not answer.
    #[error("etcd at {endpoints} does not answer: {source}")]
    Etcd {
        /// Its members.
        endpoints: String,
        /// What happened.
        source: etcd_client::Error,
    },
    /// Leadership.
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sweeps of the store.
    #[error(transparent)]
    Load(#[from] CommandError),
    /// A socket.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Stopped before it led.
    #[error("stopped before it led")]
    Stopped,
}

/// A coordinator that leads.
pub struct Server {
    /// Its driver.
    pub driver: DriverHandle,
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    leadership: Arc<Leadership>,
    running: JoinHandle<DriverEnd>,
    serving: Vec<JoinHandle<()>>,
    stop_driver: CancellationToken,
    stop_serving: CancellationToken,
}

/// Why a coordinator ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEnd {
    /// Its lease in etcd is lost or could be.
    LeadershipLost,
    /// Another leader writes under its epoch.
    Fenced,
    /// Its driver died.
    Died,
}

impl Server {
    /// Starts: waits for leadership, loads what the store has, serves.
    ///
    /// # Errors
    /// When etcd or the store does not answer, or `stop` comes first.
    pub async fn start(config: ServerConfig, stop: &CancellationToken) -> Result<Self, StartError> {
        let stop_serving = CancellationToken::new();
        let mut serving = Vec::new();
        let (leading, leads) = watch::channel(None);
        if let Some(listener) = config.http {
            let until = stop_serving.clone();
            serving.push(tokio::spawn(async move {
                let app = crate::http::router(leads);
                let served = axum::serve(listener, app).with_graceful_shutdown(until.cancelled_owned()).await;
                if let Err(error) = served {
                    tracing::error!(%error, "http server ended");
                }
            }));
        }
        let embedded = Embedded::default();
        let (membership, leadership): (Box<dyn Membership>, _) = match &config.etcd {
            None => (Box::new(embedded.clone()), Leadership::alone(&config.store).await?),
            Some(etcd) => {
                let client = etcd
                    .connect()
                    .await
                    .map_err(|source| StartError::Etcd { endpoints: etcd.endpoints.join(","), source })?;
                tracing::info!(cluster = %etcd.cluster, "standing for election");
                let campaign = Leadership::campaign(etcd, &client, &config.advertise);
                let won = stop.run_until_cancelled(campaign).await.ok_or(StartError::Stopped)??;
                (Box::new(Etcd::new(etcd.clone(), client)), won)
            }
        };
        let epoch = leadership.epoch();
        tracing::info!(epoch, store = config.store.location(), "leading");

        let stop_driver = CancellationToken::new();
        let (members, member_inbox) = mpsc::channel(256);
        let parts = DriverParts {
            epoch,
            store: config.store.clone(),
            sequence: Arc::new(Sequence::new(epoch)),
            membership: member_inbox,
        };
        let (driver, running) = driver::start(parts, stop_driver.clone());
        let count = driver.load_all().await?;
        tracing::info!(sweeps = count, "store loaded");
        // Only now: what workers hand over for a sweep that is not loaded would be taken for nobody's.
        tokio::spawn(membership.follow(members, stop_driver.clone()));
        leading.send_replace(Some(driver.clone()));

        let grpc = config.grpc.local_addr()?;
        let registry = config.etcd.is_none().then_some(embedded);
        serving.push(serve_grpc(config.grpc, driver.clone(), registry, stop_serving.clone()).await);
        Ok(Self {
            driver,
            grpc,
            leadership: Arc::new(leadership),
            running,
            serving,
            stop_driver,
            stop_serving,
        })
    }

    /// Completes when it can no longer lead. It has to be stopped then.
    pub async fn ended(&mut self) -> ServerEnd {
        tokio::select! {
            () = self.leadership.lost() => {
                // Not a moment longer than the lease: no drain, no last write.
                self.running.abort();
                ServerEnd::LeadershipLost
            }
            end = &mut self.running => match end {
                Ok(DriverEnd::Fenced(_)) => ServerEnd::Fenced,
                Ok(DriverEnd::Stopped) | Err(_) => ServerEnd::Died,
            },
        }
    }

    /// Writes what was delivered, ends all streams and gives leadership back.
    pub async fn stop(self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        self.stop_driver.cancel();
        if !self.running.is_finished() {
            let _ = self.running.await;
        }
        drop(self.driver);
        self.stop_serving.cancel();
        for task in self.serving {
            let abort = task.abort_handle();
            if tokio::time::timeout(PATIENCE, task).await.is_err() {
                abort.abort();
            }
        }
        if let Ok(leadership) = Arc::try_unwrap(self.leadership) {
            leadership.resign().await;
        }
    }
}

async fn serve_grpc(
    listener: TcpListener,
    driver: DriverHandle,
    registry: Option<Embedded>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let sweeps = v1::sweep_service_server::SweepServiceServer::new(SweepRpc::new(driver))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    health_reporter.set_serving::<v1::sweep_service_server::SweepServiceServer<SweepRpc>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let mut router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .tcp_nodelay(true)
        .add_service(health)
        .add_service(sweeps)
        .add_optional_service(registry.map(v1::membership_service_server::MembershipServiceServer::new));
    match reflection {
        Ok(reflection) => router = router.add_service(reflection),
        Err(error) => tracing::error!(%error, "no server reflection"),
    }
    tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await {
            tracing::error!(%error, "grpc server ended");
        }
    })
}
