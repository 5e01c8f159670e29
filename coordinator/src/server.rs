//! A coordinator: leadership, driver, gRPC and HTTP put together. The same for `evenkeel run` and `evenkeel coordinator`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::runtime::etcd::{EtcdConfig, EtcdLink};
use evenkeel_common::runtime::net::{Listen, Network};
use evenkeel_common::runtime::tls::{Tls, incoming};
use evenkeel_proto::{DESCRIPTORS, MAX_MESSAGE_BYTES, v1};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic_health::server::HealthReporter;

use crate::access::{Access, Role};
use crate::calls::Calls;
use crate::driver::{self, CommandError, DriverEnd, DriverHandle, DriverParts, TraceConfig};
use crate::housekeeping::compact_ended;
use crate::http::Site;
use crate::leadership::Leadership;
use crate::limits::{Limits, Throttle};
use crate::live::Live;
use crate::lookout::{Known, LOOK_EVERY, Lookout};
use crate::membership::{Embedded, Etcd, Membership};
use crate::metrics::{Exposition, Metrics};
use crate::relay::{Arrivals, Relay, Relaying};
use crate::rpc::SweepRpc;
use crate::seat::Seat;
use crate::store::{Sequence, Store, StoreError};

/// What a coordinator is started with. The caller owns the sockets, so that tests bind port 0.
pub struct ServerConfig<L = TcpListener> {
    /// Where results go.
    pub store: Store,
    /// gRPC.
    pub grpc: L,
    /// HTTP, if wanted.
    pub http: Option<TcpListener>,
    /// etcd, if there is one.
    pub etcd: Option<EtcdConfig>,
    /// What the election says of the leader: where clients reach it.
    pub advertise: String,
    /// Who may do what.
    pub access: Access,
    /// How much of it.
    pub limits: Limits,
    /// How what is served, and what is sent to workers, is encrypted.
    pub tls: Tls,
    /// How long after its end a sweep is compacted, if at all.
    pub compact_after: Option<Duration>,
    /// What is traced, where an exporter was started.
    pub traces: TraceConfig,
    /// How old a connection of a client may become, if that is limited.
    pub connection_age: Option<Duration>,
}

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sweeps of the store.
    #[error(transparent)]
    Load(#[from] CommandError),
    /// A socket.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Leadership was gone before it began.
    #[error("leadership was lost while the store was being loaded")]
    LostWhileLoading,
}

/// A coordinator that serves: it stands by until it leads.
pub struct Server {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    store: Store,
    election: Option<EtcdLink>,
    advertise: String,
    registry: Embedded,
    tls: Tls,
    compact_after: Option<Duration>,
    traces: TraceConfig,
    metrics: Metrics,
    exposition: Exposition,
    network: Network,
    leads: watch::Sender<Option<DriverHandle>>,
    serving: Vec<JoinHandle<()>>,
    stop_serving: CancellationToken,
}

/// Why a coordinator leads no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TermEnd {
    /// Its lease in etcd is lost or could be.
    LeadershipLost,
    /// Another leader writes under its epoch.
    Fenced,
    /// Its driver died.
    Died,
}

impl Server {
    /// Serves from now on; what needs a leader is refused until it leads.
    ///
    /// # Errors
    /// When a socket is not one.
    pub async fn open<L: Listen>(config: ServerConfig<L>) -> Result<Self, StartError> {
        let stop_serving = CancellationToken::new();
        let (leads, leading) = watch::channel(None);
        let election = config.etcd.map(EtcdLink::new);
        let mut serving = Vec::new();
        let metrics = Metrics::default();
        let (grpc, network) = (config.grpc.address()?, config.grpc.network());
        let known = match election.clone() {
            Some(election) => {
                let (advertise, tls) = (config.advertise.clone(), config.tls.clone());
                let (network, leads) = (network.clone(), leading.clone());
                Lookout { election, advertise, tls, network, leads }.start(stop_serving.clone())
            }
            None => watch::channel(Known::default()).1,
        };
        let seat = Seat::new(leading.clone(), config.store.clone(), known);
        let relay = Relay::new(seat.clone(), config.access.clone());
        let throttle = Throttle::new(config.limits);
        let rpc = SweepRpc::new(seat.clone(), config.access.clone(), config.limits, throttle.clone());
        let live = Live::new(config.store.clone());
        let exposition = metrics.exposition(leading, live.clone());
        let mut page = None;
        if let Some(listener) = config.http {
            let (exposition, seat, relay) = (exposition.clone(), seat.clone(), relay.clone());
            let (rpc, throttle, access) = (rpc.clone(), throttle.clone(), config.access.clone());
            let app = crate::http::router(Site { rpc, seat, relay, access, throttle, live, exposition });
            page = Some(app.clone());
            let until = stop_serving.clone();
            serving.push(tokio::spawn(async move {
                let served = axum::serve(listener, app).with_graceful_shutdown(until.cancelled_owned()).await;
                if let Err(error) = served {
                    tracing::error!(%error, "http server ended");
                }
            }));
        }
        let registry = Embedded::default();
        let served = Served {
            rpc,
            seat,
            relay,
            page: Arrivals(page),
            throttle,
            registry: election.is_none().then(|| registry.clone()),
            access: config.access,
            calls: Calls::new(metrics.clone()),
            connection_age: config.connection_age,
        };
        serving.push(serve_grpc(config.grpc, served, config.tls.clone(), stop_serving.clone()).await);
        Ok(Self {
            grpc,
            store: config.store,
            election,
            advertise: config.advertise,
            registry,
            tls: config.tls,
            compact_after: config.compact_after,
            traces: config.traces,
            metrics,
            exposition,
            network,
            leads,
            serving,
            stop_serving,
        })
    }

    /// Its metrics.
    #[must_use]
    pub fn exposition(&self) -> Arc<Registry> {
        self.exposition.registry()
    }

    /// Waits for leadership, loads what the store has, and leads.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn lead(&self) -> Result<Term, StartError> {
        let (membership, leadership): (Box<dyn Membership>, _) = match &self.election {
            None => (Box::new(self.registry.clone()), Leadership::alone(&self.store).await?),
            Some(etcd) => {
                tracing::info!(cluster = %etcd.config().cluster, "standing for election");
                let won = Leadership::campaign(etcd, &self.advertise).await;
                (Box::new(Etcd::new(etcd.clone())), won)
            }
        };
        let epoch = leadership.epoch();
        tracing::info!(epoch, store = self.store.location(), "leading");

        let stop_driver = CancellationToken::new();
        let (members, member_inbox) = mpsc::channel(256);
        let sequence = Arc::new(Sequence::new(epoch));
        let parts = DriverParts {
            epoch,
            tls: self.tls.clone(),
            network: self.network.clone(),
            store: self.store.clone(),
            sequence: sequence.clone(),
            metrics: self.metrics.clone(),
            traces: self.traces.clone(),
            membership: member_inbox,
        };
        let (driver, running) = driver::start(parts, stop_driver.clone());
        let metrics = self.metrics.clone();
        let term = Term { driver, leads: self.leads.clone(), leadership, running, stop_driver, metrics };
        // Loading may take longer than a lease: who loses it meanwhile must not go on.
        let loaded = tokio::select! {
            biased;
            loaded = term.driver.load_all() => loaded.map_err(StartError::from),
            () = term.leadership.lost() => Err(StartError::LostWhileLoading),
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                term.running.abort();
                term.stop().await;
                return Err(error);
            }
        };
        tracing::info!(sweeps = loaded, "store loaded");
        // Only now: what workers hand over for a sweep that is not loaded would be taken for nobody's.
        tokio::spawn(membership.follow(members, term.stop_driver.clone()));
        if let Some(after) = self.compact_after {
            let work = compact_ended(term.driver.clone(), self.store.clone(), sequence, after);
            let stop = term.stop_driver.clone();
            tokio::spawn(async move { stop.run_until_cancelled(work).await });
        }
        self.metrics.term_began();
        self.leads.send_replace(Some(term.driver.clone()));
        Ok(term)
    }

    /// Ends all streams and stops serving.
    pub async fn close(self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        self.stop_serving.cancel();
        for task in self.serving {
            let abort = task.abort_handle();
            if tokio::time::timeout(PATIENCE, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// A coordinator's time as leader.
pub struct Term {
    /// Its driver.
    pub driver: DriverHandle,
    leads: watch::Sender<Option<DriverHandle>>,
    leadership: Leadership,
    running: JoinHandle<DriverEnd>,
    stop_driver: CancellationToken,
    metrics: Metrics,
}

impl Term {
    /// Completes when it can no longer lead. It has to be stopped then.
    pub async fn ended(&mut self) -> TermEnd {
        tokio::select! {
            biased;
            () = self.leadership.lost() => {
                // Not a moment longer than the lease: no drain, no last write.
                self.running.abort();
                self.stop_driver.cancel();
                self.metrics.lease_lost();
                TermEnd::LeadershipLost
            }
            end = &mut self.running => match end {
                Ok(DriverEnd::Fenced(_)) => TermEnd::Fenced,
                Ok(DriverEnd::Stopped) | Err(_) => TermEnd::Died,
            },
        }
    }

    /// Writes what was delivered, unless leadership is lost before that is done, and gives it back.
    pub async fn stop(mut self) {
        self.leads.send_replace(None);
        self.stop_driver.cancel();
        if !self.running.is_finished() {
            tokio::select! {
                biased;
                () = self.leadership.lost() => self.running.abort(),
                _ = &mut self.running => {}
            }
        }
        self.leadership.resign().await;
    }
}

/// What gRPC is served from.
struct Served {
    rpc: SweepRpc,
    seat: Seat,
    relay: Relay,
    page: Arrivals,
    throttle: Throttle,
    registry: Option<Embedded>,
    access: Access,
    calls: Calls,
    connection_age: Option<Duration>,
}

/// Calls at once of one connection; watching is one.
const MAX_STREAMS: u32 = 1024;

/// Keeps the health of the service up to date: it is well where [`Seat::ready`] says so. The program as a whole always is.
async fn tell_health(reporter: HealthReporter, seat: Seat) {
    type Sweeps = v1::sweep_service_server::SweepServiceServer<SweepRpc>;
    let mut told = None;
    loop {
        let ready = seat.ready().is_ok();
        if told.replace(ready) != Some(ready) {
            match ready {
                true => reporter.set_serving::<Sweeps>().await,
                false => reporter.set_not_serving::<Sweeps>().await,
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn serve_grpc<L: Listen>(
    listener: L,
    Served { rpc, seat, relay, page, throttle, registry, access, calls, connection_age }: Served,
    tls: Tls,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let sweeps = v1::sweep_service_server::SweepServiceServer::new(rpc)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let told = stop.clone();
    tokio::spawn(async move { told.run_until_cancelled(tell_health(health_reporter, seat)).await });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let sweeps = Relaying { here: sweeps, relay };
    let sweeps = InterceptedService::new(sweeps, move |call| throttle.check_call(&call).map(|()| call));
    let registry = registry.map(|registry| {
        let check = move |call: tonic::Request<()>| access.check_call(&call, Role::Worker).map(|()| call);
        v1::membership_service_server::MembershipServiceServer::with_interceptor(registry, check)
    });
    let mut server = tonic::transport::Server::builder();
    if let Some(age) = connection_age {
        server = server.max_connection_age(age);
    }
    let mut router = server
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(MAX_STREAMS)
        .layer(page)
        .layer(calls)
        .add_service(health)
        .add_service(sweeps)
        .add_optional_service(registry);
    match reflection {
        Ok(reflection) => router = router.add_service(reflection),
        Err(error) => tracing::error!(%error, "no server reflection"),
    }
    tokio::spawn(async move {
        let connections = incoming(listener, tls);
        if let Err(error) = router.serve_with_incoming_shutdown(connections, stop.cancelled_owned()).await {
            tracing::error!(%error, "grpc server ended");
        }
    })
}
