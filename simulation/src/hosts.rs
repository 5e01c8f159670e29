//! What runs on the simulated hosts: etcd, coordinators, workers and a user, each the real program but for its engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_common::PROTOCOL_VERSION;
use evenkeel_common::runtime::WorkerRecord;
use evenkeel_common::runtime::etcd::{Credentials, EtcdConfig, EtcdLink};
use evenkeel_common::runtime::objects::Objects;
use evenkeel_common::runtime::tls::Tls;
use evenkeel_coordinator::access::Access;
use evenkeel_coordinator::limits::Limits;
use evenkeel_coordinator::server::{Server, ServerConfig, StartError, TermEnd};
use evenkeel_coordinator::store::Store;
use evenkeel_proto::v1;
use evenkeel_proto::v1::sweep_service_client::SweepServiceClient;
use evenkeel_worker::executor::Executor;
use evenkeel_worker::hub::{Hub, Input, Patience};
use evenkeel_worker::metrics::Metrics;
use evenkeel_worker::registration::{self, Registry};
use object_store::memory::InMemory;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::engine::{SPEC, Script, Slot};
use crate::etcd::{Etcd, PORT};
use crate::network::{Listener, network};
use crate::oracle::Oracle;
use crate::random::stream;
use crate::store::{SimulatedStore, Weather};
use crate::wire::{Odds, Wire};

/// Name of the election.
pub const ELECTION: &str = "/evenkeel/simulated/leader";
/// Port of coordinators.
const COORDINATOR_PORT: u16 = 7070;
/// Port of workers.
const WORKER_PORT: u16 = 7071;
/// How long a worker that is told to leave goes on.
const GRACE: Duration = Duration::from_secs(5);
/// How long the user waits for an answer, and between two questions.
const PATIENCE: Duration = Duration::from_secs(4);

/// What all hosts share.
#[derive(Clone)]
pub struct World {
    /// The seed of everything.
    pub seed: u64,
    /// Who leads, who is there.
    pub etcd: Etcd,
    /// What is durable.
    pub objects: Arc<InMemory>,
    /// How the store is.
    pub weather: Weather,
    /// The observer.
    pub oracle: Oracle,
    /// How engines behave.
    pub script: Script,
    /// How messages fare.
    pub odds: Odds,
    /// Whether leases run out at the right time.
    pub strict: bool,
    /// How often each host was started, and what tells its process to leave.
    lives: Arc<Mutex<BTreeMap<String, (u32, CancellationToken)>>>,
}

impl World {
    /// The start of a run.
    #[must_use]
    pub fn new(seed: u64, rate: f64, script: Script, odds: Odds) -> Self {
        Self {
            seed,
            etcd: Etcd::new(rate),
            objects: Arc::default(),
            weather: Weather::new(stream(seed, "store")),
            oracle: Oracle::default(),
            script,
            odds,
            // A lease that runs out a tenth too early is what its holder reckons with.
            strict: rate <= 1.1,
            lives: Arc::default(),
        }
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<String, (u32, CancellationToken)>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process starts on a host: its name, and what tells it to leave.
    fn begin(&self, host: &str) -> (String, CancellationToken) {
        let mut lives = self.lives();
        let (count, told) = lives.entry(host.to_owned()).or_default();
        *count += 1;
        *told = CancellationToken::new();
        let (life, told) = (format!("{host}-{count}"), told.clone());
        drop(lives);
        self.oracle.note(&life, "starts");
        (life, told)
    }

    /// Tells the process of a host to leave, as SIGTERM does.
    pub fn terminate(&self, host: &str) {
        if let Some((_, told)) = self.lives().get(host) {
            told.cancel();
        }
    }

    fn etcd_config() -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![format!("http://etcd:{PORT}")],
            cluster: "simulated".to_owned(),
            credentials: Credentials::default(),
            network: network(),
        }
    }

    /// A coordinator, as `evenkeel coordinator` runs it.
    ///
    /// # Errors
    /// None that is expected: what the real program ends with is noted, and whoever supervises it starts it again.
    pub async fn coordinator(self, host: String) -> turmoil::Result {
        let (life, told) = self.begin(&host);
        let objects = self.objects.clone();
        let (weather, oracle) = (self.weather.clone(), self.oracle.clone());
        let store = SimulatedStore::new(objects, weather, oracle, self.etcd.clone(), self.strict, &life);
        let config = ServerConfig {
            store: Store::from(Objects::over(Arc::new(store), "simulated")),
            grpc: Listener::bind(COORDINATOR_PORT).await?,
            http: None,
            etcd: Some(Self::etcd_config()),
            advertise: address(&host),
            access: Access::open(),
            limits: Limits::NONE,
            tls: Tls::default(),
            traces: Default::default(),
            compact_after: Some(Duration::from_secs(3)),
        };
        let end = match Server::open(config).await {
            Ok(server) => {
                let end = self.terms(&life, &server, &told).await;
                server.close().await;
                end
            }
            Err(error) => error.to_string(),
        };
        self.oracle.note(&life, format!("ends: {end}"));
        Ok(())
    }

    /// Stands by and leads by turns.
    async fn terms(&self, life: &str, server: &Server, told: &CancellationToken) -> String {
        const PAUSE: Duration = Duration::from_secs(1);
        loop {
            let Some(led) = told.run_until_cancelled(server.lead()).await else { return "told to".into() };
            let end = match led {
                Ok(mut term) => {
                    self.oracle.note(life, format!("leads {}", term.driver.epoch()));
                    let end = told.run_until_cancelled(term.ended()).await;
                    self.oracle.note(life, format!("leads no longer: {end:?}"));
                    term.stop().await;
                    match end {
                        None => return "told to".to_owned(),
                        Some(end) => end,
                    }
                }
                Err(StartError::LostWhileLoading | StartError::Store(_) | StartError::Load(_)) => {
                    TermEnd::LeadershipLost
                }
                Err(error) => return error.to_string(),
            };
            if end != TermEnd::LeadershipLost {
                self.oracle.broken(format!("{life} ends: {end:?}"));
                return format!("{end:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A worker, as `evenkeel-worker` runs it, with a script for an engine.
    ///
    /// # Errors
    /// When its port is taken.
    pub async fn worker(self, host: String, slots: u32) -> turmoil::Result {
        let (life, told) = self.begin(&host);
        let mut draws = stream(self.seed, &life);
        let record = WorkerRecord {
            id: life.clone(),
            address: format!("http://{host}:{WORKER_PORT}"),
            protocol_version: PROTOCOL_VERSION,
            version: "0".to_owned(),
            slots,
            device: "script".to_owned(),
            started_ms: 0,
        };
        let (reports, report_inbox) = mpsc::channel(64);
        let executors = (0..slots as usize)
            .map(|number| {
                let (jobs, inbox) = mpsc::channel(1);
                let slot = Slot {
                    number,
                    life: life.clone(),
                    skew_ms: draws.below(7_200_000) as i64 - 3_600_000,
                    script: self.script.clone(),
                    draws: stream(self.seed, &format!("{life}/{number}")),
                    oracle: self.oracle.clone(),
                };
                tokio::spawn(slot.serve(inbox, reports.clone()));
                Executor::over(jobs)
            })
            .collect();
        let (inputs, heard) = mpsc::channel(64);
        let (to_hub, hub_inbox) = mpsc::channel(64);
        let (life_, oracle) = (life.clone(), self.oracle.clone());
        tokio::spawn(Wire { life: life_, odds: self.odds, draws, oracle }.relay(heard, to_hub.clone()));
        let (hub, _status) =
            Hub::new(record.clone(), executors, Patience { grace: GRACE, idle: None }, Metrics::default());
        let mut hub = tokio::spawn(hub.run(hub_inbox, report_inbox));
        let listener = Listener::bind(WORKER_PORT).await?;
        tokio::spawn(evenkeel_worker::rpc::serve(listener, Tls::default(), String::new(), inputs));
        let stop = CancellationToken::new();
        let registry = Registry::Etcd(EtcdLink::new(Self::etcd_config()));
        let registration =
            tokio::spawn(registration::keep(registry, record, Metrics::default(), stop.clone()));
        let end = match told.run_until_cancelled(&mut hub).await {
            Some(end) => end,
            None => {
                let _ = to_hub.send(Input::Drain).await;
                hub.await
            }
        };
        stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), registration).await;
        self.oracle.note(&life, format!("ends: {end:?}"));
        Ok(())
    }

    /// A user who submits the sweep and waits until it has completed, as far as coordinators say.
    ///
    /// # Errors
    /// Never.
    pub async fn user(self, coordinators: Vec<String>) -> turmoil::Result {
        let mut turn = 0;
        let mut sweep = None;
        loop {
            let host = &coordinators[turn % coordinators.len()];
            turn += 1;
            let asked = tokio::time::timeout(PATIENCE, ask(host, sweep.clone())).await;
            match asked.unwrap_or_else(|_| Err("no answer".into())) {
                Ok(status) => {
                    if sweep.is_none() {
                        self.oracle.note("user", format!("submitted {} to {host}", status.sweep_id));
                    }
                    sweep = Some(status.sweep_id.clone());
                    if status.state() == v1::SweepState::Completed {
                        let done = status.completed + status.diverged + status.failed;
                        self.oracle.note("user", format!("{host} says completed, {done} trials"));
                        if done != status.total {
                            self.oracle.broken(format!("completed with {done} of {} trials", status.total));
                        }
                        return Ok(());
                    }
                }
                Err(error) => self.oracle.note("user", format!("{host}: {error}")),
            }
            tokio::time::sleep(PATIENCE / 4).await;
        }
    }
}

/// Where a coordinator is reached.
#[must_use]
pub fn address(host: &str) -> String {
    format!("http://{host}:{COORDINATOR_PORT}")
}

/// Submits the sweep, or asks how it stands.
async fn ask(
    host: &str,
    sweep: Option<String>,
) -> Result<v1::SweepStatus, Box<dyn std::error::Error + Send + Sync>> {
    let channel: Channel = network().connect(Endpoint::from_shared(address(host))?).await?;
    let mut client = SweepServiceClient::new(channel);
    if let Some(sweep_id) = sweep {
        return Ok(client.get_sweep(v1::GetSweepRequest { sweep_id }).await?.into_inner());
    }
    let spec = v1::SubmitSpec {
        protocol_version: PROTOCOL_VERSION,
        spec: SPEC.to_owned(),
        file: "simulated.yaml".to_owned(),
        inputs: Vec::new(),
    };
    let message = v1::SubmitRequest { message: Some(v1::submit_request::Message::Spec(spec)) };
    let submitted = client.submit(tokio_stream::once(message)).await?.into_inner();
    submitted.status.ok_or_else(|| "no status".into())
}
