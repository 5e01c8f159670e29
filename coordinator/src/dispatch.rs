//! One bidirectional stream per worker: assignments go down, results come up.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use evenkeel_common::PROTOCOL_VERSION;
use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;
use evenkeel_common::inputs::FileRecord;
use evenkeel_common::results::{self, Status};
use evenkeel_common::runtime::net::Network;
use evenkeel_common::runtime::tls::{DialError, Tls};
use evenkeel_common::runtime::trace::TraceContext;
use evenkeel_proto::v1::{self, work_request, work_response};
use evenkeel_proto::{CHUNK_BYTES, MAX_MESSAGE_BYTES};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::core::{TrialSet, WorkerId};
use crate::membership::{MembershipEvent, WorkerRecord};
use crate::submission::Sweep;

/// Time for a worker to take a connection and to answer a greeting.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A worker that does not answer pings for twice this long is gone.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Messages that wait on a stream; each is small but for the chunks of feature files.
const STREAM_DEPTH: usize = 16;
/// Orders that wait for a link: packs in flight, their cancellations and acknowledgements.
const LINK_DEPTH: usize = 4096;

/// An order to a worker.
#[derive(Debug)]
pub enum LinkCommand {
    /// Run a pack.
    Assign {
        /// The sweep, which the worker is told about first.
        sweep: Arc<Sweep>,
        /// The pack's number.
        pack: u64,
        /// Which execution of these trials this is.
        attempt: u32,
        /// The trials.
        trials: TrialSet,
        /// The span of this dispatch, where somebody traces.
        trace: Option<TraceContext>,
        /// How long it should take.
        expected_seconds: f64,
    },
    /// Stop a pack.
    Cancel {
        /// The pack's number.
        pack: u64,
    },
    /// Forget what a pack delivered.
    Acknowledge {
        /// Epoch of the coordinator that dispatched it.
        epoch: u64,
        /// The pack's number.
        pack: u64,
    },
    /// Take no more packs and leave.
    Drain,
    /// Write other log lines.
    LogFilter {
        /// As in `RUST_LOG`.
        filter: String,
    },
}

/// What a link reports.
#[derive(Debug)]
pub enum LinkEvent {
    /// The worker answered and takes orders.
    Up {
        /// What it says of itself.
        hello: v1::Hello,
        /// Where orders go.
        commands: mpsc::Sender<LinkCommand>,
    },
    /// A pack is under way.
    Progress {
        /// Epoch and number of the pack.
        pack: (u64, u64),
        /// From 0 to 1.
        fraction: f64,
        /// Its sweep, and new points of its trials' curves.
        training: Option<(SweepId, Vec<v1::TrialSample>)>,
    },
    /// Results came, read and checked.
    Results {
        /// The sweep.
        sweep: SweepId,
        /// Epoch and number of the pack.
        pack: (u64, u64),
        /// The rows.
        batches: Vec<RecordBatch>,
        /// Trial and status of each row.
        rows: Vec<(u64, Status)>,
    },
    /// A pack is through.
    Finished {
        /// Epoch and number of the pack.
        pack: (u64, u64),
        /// How long it occupied its slot.
        seconds_busy: f64,
        /// Whether the worker showed its part of the trace.
        traced: bool,
    },
    /// A pack was given up.
    Failed {
        /// Epoch and number of the pack.
        pack: (u64, u64),
        /// Why.
        kind: FailureKind,
        /// What the worker said.
        message: String,
    },
    /// The worker leaves.
    Draining,
    /// The worker cannot be used.
    Refused {
        /// Why.
        reason: String,
    },
    /// The stream is gone.
    Down {
        /// Why.
        reason: String,
    },
}

/// A report of one link. Those of an earlier generation of a worker's link are stale.
#[derive(Debug)]
pub struct LinkMessage {
    /// The worker.
    pub worker: WorkerId,
    /// Which of its connections.
    pub generation: u64,
    /// What happened.
    pub event: LinkEvent,
    /// When the link heard of it.
    pub at: Instant,
}

/// Keeps a link to every worker that membership knows.
#[derive(Debug)]
pub struct Links {
    epoch: u64,
    tls: Tls,
    network: Network,
    events: mpsc::Sender<LinkMessage>,
    open: BTreeMap<WorkerId, (WorkerRecord, CancellationToken)>,
    generations: Arc<AtomicU64>,
}

impl Links {
    /// No links yet; their reports will go to `events`.
    #[must_use]
    pub fn new(epoch: u64, tls: Tls, network: Network, events: mpsc::Sender<LinkMessage>) -> Self {
        Self { epoch, tls, network, events, open: BTreeMap::new(), generations: Arc::default() }
    }

    /// Follows membership: opens a link to who came, ends those of who left.
    pub fn on_membership(&mut self, event: &MembershipEvent) {
        match event {
            MembershipEvent::Up(record) => {
                let id = WorkerId::from(record.id.as_str());
                if let Some((known, link)) = self.open.get(&id) {
                    if known == record && !link.is_cancelled() {
                        return;
                    }
                    link.cancel();
                }
                let stop = CancellationToken::new();
                self.open.insert(id.clone(), (record.clone(), stop.clone()));
                let link = Link {
                    epoch: self.epoch,
                    tls: self.tls.clone(),
                    network: self.network.clone(),
                    worker: id,
                    address: record.address.clone(),
                    events: self.events.clone(),
                    generations: self.generations.clone(),
                };
                tokio::spawn(async move { stop.run_until_cancelled_owned(link.maintain()).await });
            }
            MembershipEvent::Down(id) => {
                if let Some((_, link)) = self.open.remove(id) {
                    link.cancel();
                }
            }
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for (_, link) in self.open.values() {
            link.cancel();
        }
    }
}

struct Link {
    epoch: u64,
    tls: Tls,
    network: Network,
    worker: WorkerId,
    address: String,
    events: mpsc::Sender<LinkMessage>,
    generations: Arc<AtomicU64>,
}

/// How a connection ended.
enum End {
    /// Try again.
    Broken(String),
    /// The worker speaks another protocol or follows a newer leader: trying again soon is useless.
    Refused(String),
    /// Nobody listens to the link any more.
    Unheard,
}

impl Link {
    /// Connects, and connects again after each break, until the caller drops the future.
    async fn maintain(self) {
        const FIRST_PAUSE: Duration = Duration::from_millis(100);
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);

        let mut pause = FIRST_PAUSE;
        loop {
            let generation = self.generations.fetch_add(1, Ordering::Relaxed);
            let report = |event| self.message(generation, event);
            let connected = Instant::now();
            let event = match self.serve(generation).await {
                End::Broken(reason) => LinkEvent::Down { reason },
                End::Refused(reason) => LinkEvent::Refused { reason },
                End::Unheard => return,
            };
            if matches!(event, LinkEvent::Refused { .. }) {
                pause = LONGEST_PAUSE;
            } else if connected.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            if self.events.send(report(event)).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn message(&self, generation: u64, event: LinkEvent) -> LinkMessage {
        LinkMessage { worker: self.worker.clone(), generation, event, at: Instant::now() }
    }

    async fn serve(&self, generation: u64) -> End {
        let (requests, outbox) = mpsc::channel::<v1::WorkRequest>(STREAM_DEPTH);
        let (mut inbox, hello) = match self.greet(&requests, outbox).await {
            Ok(connection) => connection,
            Err(end) => return end,
        };
        let (commands, mut orders) = mpsc::channel(LINK_DEPTH);
        let up = self.message(generation, LinkEvent::Up { hello, commands });
        if self.events.send(up).await.is_err() {
            return End::Unheard;
        }
        let send = async {
            let mut opened = HashSet::new();
            while let Some(command) = orders.recv().await {
                if let Err(end) = self.send(&requests, &mut opened, command).await {
                    return end;
                }
            }
            End::Broken("the coordinator closed the link".to_owned())
        };
        let receive = async {
            loop {
                let event = match inbox.message().await {
                    Ok(Some(response)) => match self.read(response) {
                        Ok(event) => event,
                        Err(reason) => return End::Broken(reason),
                    },
                    Ok(None) => return End::Broken("the worker closed the stream".to_owned()),
                    Err(status) => return ended_by(&status),
                };
                let message = self.message(generation, event);
                if self.events.send(message).await.is_err() {
                    return End::Unheard;
                }
            }
        };
        tokio::select! { biased; end = send => end, end = receive => end }
    }

    async fn greet(
        &self,
        requests: &mpsc::Sender<v1::WorkRequest>,
        outbox: mpsc::Receiver<v1::WorkRequest>,
    ) -> Result<(tonic::Streaming<v1::WorkResponse>, v1::Hello), End> {
        let broken = |error: &dyn std::fmt::Display| End::Broken(error.to_string());
        let dialled = dial(&self.address, &self.tls, &self.network).await;
        let channel = dialled.map_err(|error| broken(&error))?;
        let greeting = v1::Greeting {
            protocol_version: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.epoch,
        };
        requests
            .send(request(work_request::Message::Greeting(greeting)))
            .await
            .map_err(|error| broken(&error))?;
        let mut client = v1::worker_service_client::WorkerServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let answer = async {
            let mut inbox = client
                .work(ReceiverStream::new(outbox))
                .await
                .map_err(|status| ended_by(&status))?
                .into_inner();
            match inbox
                .message()
                .await
                .map_err(|status| ended_by(&status))?
                .and_then(|response| response.message)
            {
                Some(work_response::Message::Hello(hello)) => Ok((inbox, hello)),
                _ => Err(End::Broken("the worker did not answer the greeting".to_owned())),
            }
        };
        let (inbox, hello) = timeout(ANSWER_WITHIN, answer)
            .await
            .map_err(|_| End::Broken(format!("no answer within {} s", ANSWER_WITHIN.as_secs())))??;
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(End::Refused(other_protocol(hello.protocol_version, &hello.version)));
        }
        if hello.worker_id != self.worker.as_str() {
            return Err(End::Broken(format!("{} answered at {}", hello.worker_id, self.address)));
        }
        Ok((inbox, hello))
    }

    async fn send(
        &self,
        requests: &mpsc::Sender<v1::WorkRequest>,
        opened: &mut HashSet<SweepId>,
        command: LinkCommand,
    ) -> Result<(), End> {
        let send = async |message| {
            requests.send(request(message)).await.map_err(|_| End::Broken("the stream is closed".to_owned()))
        };
        match command {
            LinkCommand::Assign { sweep, pack, attempt, trials, trace, expected_seconds } => {
                if opened.insert(sweep.id.clone()) {
                    send(work_request::Message::SweepOpened(opening(&sweep))).await?;
                    for (name, bytes) in &sweep.files {
                        for chunk in chunks(name, bytes) {
                            send(work_request::Message::Data(chunk)).await?;
                        }
                    }
                }
                let trials = trials.ranges().iter();
                send(work_request::Message::Assignment(v1::Assignment {
                    sweep_id: sweep.id.to_string(),
                    epoch: self.epoch,
                    pack,
                    attempt,
                    trials: trials
                        .map(|r| v1::TrialRange { first: r.start, count: r.end - r.start })
                        .collect(),
                    traceparent: trace.map(|trace| trace.to_string()).unwrap_or_default(),
                    expected_seconds,
                }))
                .await
            }
            LinkCommand::Cancel { pack } => {
                send(work_request::Message::Cancellation(v1::Cancellation { epoch: self.epoch, pack })).await
            }
            LinkCommand::Acknowledge { epoch, pack } => {
                send(work_request::Message::Acknowledgement(v1::Acknowledgement { epoch, pack })).await
            }
            LinkCommand::Drain => send(work_request::Message::Drain(v1::Drain {})).await,
            LinkCommand::LogFilter { filter } => {
                send(work_request::Message::LogFilter(v1::LogFilter { filter })).await
            }
        }
    }

    fn read(&self, response: v1::WorkResponse) -> Result<LinkEvent, String> {
        let message = response.message.ok_or("the worker sent a message this version does not know")?;
        Ok(match message {
            work_response::Message::Hello(_) => return Err("the worker greeted twice".to_owned()),
            work_response::Message::Progress(p) => {
                let training = match p.samples.is_empty() {
                    true => None,
                    false => {
                        let sweep = SweepId::parse(&p.sweep_id).map_err(|error| error.to_string())?;
                        Some((sweep, p.samples))
                    }
                };
                let fraction = p.fraction.clamp(0.0, 1.0);
                LinkEvent::Progress { pack: (p.epoch, p.pack), fraction, training }
            }
            work_response::Message::Results(r) => {
                let sweep = SweepId::parse(&r.sweep_id).map_err(|error| error.to_string())?;
                let batches = results::batches_from_ipc(&r.records).map_err(|error| error.to_string())?;
                let mut rows = Vec::new();
                for batch in &batches {
                    rows.extend(results::trials_of(batch).map_err(|error| error.to_string())?);
                }
                LinkEvent::Results { sweep, pack: (r.epoch, r.pack), batches, rows }
            }
            work_response::Message::Finished(f) => LinkEvent::Finished {
                pack: (f.epoch, f.pack),
                seconds_busy: f.seconds_busy.max(0.0),
                traced: f.traced,
            },
            work_response::Message::Failed(f) => LinkEvent::Failed {
                pack: (f.epoch, f.pack),
                // A kind of a newer worker: trying again is what fits most.
                kind: FailureKind::from_name(&f.kind).unwrap_or(FailureKind::Transient),
                message: f.message,
            },
            work_response::Message::Draining(_) => LinkEvent::Draining,
        })
    }
}

/// What a worker or client of another protocol version is told.
#[must_use]
pub fn other_protocol(found: u32, version: &str) -> String {
    format!(
        "it speaks protocol {found} (evenkeel {version}), this coordinator speaks protocol {PROTOCOL_VERSION} (evenkeel {}); \
         run the same version on both sides",
        env!("CARGO_PKG_VERSION")
    )
}

fn ended_by(status: &tonic::Status) -> End {
    match status.code() {
        tonic::Code::FailedPrecondition | tonic::Code::PermissionDenied => {
            End::Refused(status.message().to_owned())
        }
        _ => End::Broken(status.message().to_owned()),
    }
}

/// Connects to `http://host:port`.
///
/// # Errors
/// When the address is malformed, nobody answers in time, or who answers is not trusted.
pub async fn connect(address: &str, tls: &Tls) -> Result<Channel, DialError> {
    dial(address, tls, &Network::default()).await
}

async fn dial(address: &str, tls: &Tls, network: &Network) -> Result<Channel, DialError> {
    let endpoint = tls
        .endpoint(address)?
        .connect_timeout(ANSWER_WITHIN)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        // Results of wide packs flow without waiting for window updates.
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20);
    Ok(network.connect(endpoint).await?)
}

fn request(message: work_request::Message) -> v1::WorkRequest {
    v1::WorkRequest { message: Some(message) }
}

fn opening(sweep: &Sweep) -> v1::SweepOpened {
    v1::SweepOpened {
        sweep_id: sweep.id.to_string(),
        spec_json: sweep.grid.spec().to_canonical_json(),
        inputs: sweep
            .inputs
            .iter()
            .map(|input| v1::InputData {
                info_json: serde_json::to_string(&input.info).unwrap_or_default(),
                files: input_files(&input.files),
            })
            .collect(),
    }
}

/// Files of an input as messages hold them.
pub fn input_files(files: &[FileRecord]) -> Vec<v1::InputFile> {
    files.iter().map(|file| v1::InputFile { role: file.role.clone(), hash: file.hash.clone() }).collect()
}

/// A file as chunks; an empty file is one empty chunk.
pub fn chunks<'a>(name: &'a str, bytes: &'a bytes::Bytes) -> impl Iterator<Item = v1::Chunk> + 'a {
    let count = bytes.len().div_ceil(CHUNK_BYTES).max(1);
    (0..count).map(move |i| v1::Chunk {
        name: name.to_owned(),
        data: bytes.slice(i * CHUNK_BYTES..((i + 1) * CHUNK_BYTES).min(bytes.len())),
        last: i + 1 == count,
    })
}
