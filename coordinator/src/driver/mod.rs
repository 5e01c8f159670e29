//! The one loop around the scheduler: what happened goes in, what is to be done comes out and is carried out.
//!
//! Architecture invariant: nothing is acknowledged before it is durable. The loop itself never waits: the store, the
//! network and users each have a task of their own and a bounded queue in between.

mod buffer;
mod command;
mod packs;
mod snapshot;
mod traces;
mod training;
mod workers;

pub use command::{Change, Command, CommandError, DriverHandle, state_name};
pub use snapshot::{Snapshot, SweepView, TraceView, WorkerState, WorkerView};
pub use traces::TraceConfig;
pub use training::{CurvePoint, TrainingView};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;
use evenkeel_common::results::{
    self, ExecutionRecord, Measures, Status, TestOutputs, TrialOutcome, TrialRecord,
};
use evenkeel_common::runtime::net::Network;
use evenkeel_common::runtime::now_ms;
use evenkeel_common::runtime::tls::Tls;
use evenkeel_common::runtime::trace::TraceContext;
use roaring::RoaringTreemap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::buffer::Buffers;
use self::packs::{PacksOut, Sending};
use self::snapshot::Rate;
use self::traces::{Budget, Put, SweepTrace};
use self::training::Training;
use self::workers::WorkerEntry;
use crate::core::{Action, Core, CoreConfig, Event, PackId, StatusCounts, SweepState, TrialSet, WorkerId};
use crate::dispatch::{LinkCommand, LinkMessage, Links};
use crate::membership::MembershipEvent;
use crate::metrics::Metrics;
use crate::store::{Segment, Sequence, StateRecord, Store, StoreError, StoredState, WriteEvent, Writer};
use crate::submission::Sweep;

/// Trials that may wait for the store: some 100 bytes each in Arrow, so that memory stays far below 200 MB.
const MAX_AWAITING: u64 = 100_000;
/// How often users see news.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);

/// A sweep the driver knows.
struct SweepEntry {
    sweep: Arc<Sweep>,
    submitted_ms: i64,
    state: StoredState,
    /// Known to the scheduler. A sweep that had ended when it was loaded is not.
    scheduled: bool,
    counts: StatusCounts,
    failed: RoaringTreemap,
    /// Time spent running before `running_since`, in seconds.
    seconds: f64,
    running_since: Option<Instant>,
    rate: Rate,
    training: Training,
    trace: Option<SweepTrace>,
}

/// Results that are being handled.
struct Delivery {
    batches: Vec<RecordBatch>,
    rows: Vec<(u64, Status)>,
}

/// What the driver is made of.
pub struct DriverParts {
    /// The leader's epoch.
    pub epoch: u64,
    /// How connections to workers are encrypted.
    pub tls: Tls,
    /// How workers are reached.
    pub network: Network,
    /// Where results go.
    pub store: Store,
    /// Names of what is written.
    pub sequence: Arc<Sequence>,
    /// Where what happens is counted.
    pub metrics: Metrics,
    /// What is traced.
    pub traces: TraceConfig,
    /// Who is alive.
    pub membership: mpsc::Receiver<MembershipEvent>,
}

/// The loop's state.
pub struct Driver {
    core: Core,
    epoch: u64,
    started: Instant,
    store: Store,
    sequence: Arc<Sequence>,
    sweeps: BTreeMap<SweepId, SweepEntry>,
    workers: BTreeMap<WorkerId, WorkerEntry>,
    links: Links,
    writer: Writer,
    buffers: Buffers,
    delivery: Option<Delivery>,
    metrics: Metrics,
    packs: PacksOut,
    /// What is written and traced without being remarkable.
    puts: Budget,
    traces: TraceConfig,
    foreign: BTreeMap<(u64, u64), PackId>,
    foreign_names: BTreeMap<PackId, (u64, u64)>,
    stalled: Option<String>,
    commands: mpsc::Sender<Command>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    fenced: Option<String>,
    /// Ends of sweeps that are being recorded; given up when the driver ends.
    recording: JoinSet<()>,
}

/// Why the driver ended.
#[derive(Debug, PartialEq, Eq)]
pub enum DriverEnd {
    /// It was asked to.
    Stopped,
    /// Another leader writes under the same epoch.
    Fenced(String),
}

/// Makes a driver and a handle to it, and starts the loop.
pub fn start(
    parts: DriverParts,
    stop: CancellationToken,
) -> (DriverHandle, tokio::task::JoinHandle<DriverEnd>) {
    let (commands, command_inbox) = mpsc::channel(64);
    let (link_events, link_inbox) = mpsc::channel(1024);
    let (write_events, write_inbox) = mpsc::channel(16);
    let (snapshots, snapshot) = watch::channel(Arc::default());
    let writer = Writer::start(parts.store.clone(), parts.sequence.clone(), write_events);
    let driver = Driver {
        core: Core::new(CoreConfig { max_awaiting: MAX_AWAITING, ..CoreConfig::default() }),
        epoch: parts.epoch,
        started: Instant::now(),
        store: parts.store.clone(),
        sequence: parts.sequence.clone(),
        sweeps: BTreeMap::new(),
        workers: BTreeMap::new(),
        links: Links::new(parts.epoch, parts.tls, parts.network, link_events),
        writer,
        buffers: Buffers::default(),
        delivery: None,
        packs: PacksOut::new(parts.metrics.clone(), parts.traces.packs_per_minute),
        puts: Budget::new(parts.traces.packs_per_minute, Instant::now()),
        traces: parts.traces,
        metrics: parts.metrics,
        foreign: BTreeMap::new(),
        foreign_names: BTreeMap::new(),
        stalled: None,
        commands: commands.clone(),
        snapshots,
        fenced: None,
        recording: JoinSet::new(),
    };
    let handle = DriverHandle::new(commands, snapshot, parts.store, parts.epoch);
    let inboxes = Inboxes {
        commands: command_inbox,
        links: link_inbox,
        writes: write_inbox,
        membership: parts.membership,
    };
    (handle, tokio::spawn(driver.run(inboxes, stop)))
}

struct Inboxes {
    commands: mpsc::Receiver<Command>,
    links: mpsc::Receiver<LinkMessage>,
    writes: mpsc::Receiver<WriteEvent>,
    membership: mpsc::Receiver<MembershipEvent>,
}

impl Driver {
    async fn run(mut self, mut inboxes: Inboxes, stop: CancellationToken) -> DriverEnd {
        let mut snapshot_due = tokio::time::interval(SNAPSHOT_EVERY);
        snapshot_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut members_over = false;
        loop {
            let core_due = self.core.next_deadline().map(|due| self.started + due);
            let due = [core_due, self.buffers.due()].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(event) = inboxes.writes.recv() => self.on_write(event),
                Some(command) = inboxes.commands.recv() => self.on_command(command),
                event = inboxes.membership.recv(), if !members_over => match event {
                    Some(event) => self.on_membership(event),
                    None => members_over = true,
                },
                Some(message) = inboxes.links.recv() => self.on_link(message),
                () = sleep_until(due), if due.is_some() => {
                    if core_due.is_some_and(|due| due <= Instant::now()) {
                        self.feed(Event::Tick);
                    }
                }
                _ = snapshot_due.tick() => self.publish(),
            }
            self.flush();
            if let Some(path) = self.fenced.take() {
                tracing::error!(%path, "another leader writes under this epoch; stopping");
                return DriverEnd::Fenced(path);
            }
        }
        self.drain(&mut inboxes.writes).await;
        DriverEnd::Stopped
    }

    /// Writes what was delivered, so that less is to be done again. What cannot be written soon is left: workers keep
    /// it, or it runs again.
    async fn drain(&mut self, writes: &mut mpsc::Receiver<WriteEvent>) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let until = Instant::now() + PATIENCE;
        while !self.buffers.is_settled() && self.stalled.is_none() {
            self.buffers.hurry();
            self.flush();
            match tokio::time::timeout_at(until, writes.recv()).await {
                Ok(Some(event)) => self.on_write(event),
                Ok(None) | Err(_) => break,
            }
        }
        let recorded = async { while self.recording.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(until, recorded).await;
        self.record_seconds().await;
        self.publish();
    }

    /// Keeps how long sweeps that go on later ran until now.
    async fn record_seconds(&mut self) {
        for (id, entry) in &self.sweeps {
            if entry.running_since.is_some() && entry.state == StoredState::Running && entry.scheduled {
                let record = entry.state_record(StoredState::Running);
                if let Err(error) = self.store.write_state(id, &self.sequence.next_name(), &record).await {
                    tracing::debug!(sweep.id = %id, %error, "running time not recorded");
                }
            }
        }
    }

    /// One event through the scheduler, and its orders carried out.
    fn feed(&mut self, event: Event) {
        for action in self.core.handle(event, self.started.elapsed()) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dispatch { worker, sweep, pack, attempt, trials, expected_seconds, .. } => {
                let Some(entry) = self.sweeps.get(&sweep) else { return };
                let parent = entry.trace.map(|trace| trace.context);
                let trace = self.packs.sent(&Sending {
                    pack,
                    worker: &worker,
                    sweep: &sweep,
                    parent,
                    attempt,
                    trials: &trials,
                    expected_seconds,
                });
                let _within = trace.map(TraceContext::attach);
                tracing::debug!(pack.id = pack.0, worker.id = %worker, trials = trials.len(), attempt, "pack dispatched");
                let (sweep, pack) = (entry.sweep.clone(), pack.0);
                let assign = LinkCommand::Assign { sweep, pack, attempt, trials, trace, expected_seconds };
                self.order(&worker, assign);
            }
            Action::Cancel { worker, pack } => self.order(&worker, LinkCommand::Cancel { pack: pack.0 }),
            Action::Acknowledge { worker, pack, .. } => {
                let (epoch, pack) = self.foreign_names.get(&pack).copied().unwrap_or((self.epoch, pack.0));
                self.order(&worker, LinkCommand::Acknowledge { epoch, pack });
            }
            Action::Persist { sweep, worker, trials, .. } => self.persist(&sweep, &worker, &trials),
            Action::RecordFailed { sweep, trial, attempts, kind, message } => {
                self.record_failed(&sweep, trial, attempts, kind, message);
            }
            Action::QuarantineWorker { worker, until } => {
                self.metrics.quarantined();
                let pause = until.saturating_sub(self.started.elapsed());
                tracing::warn!(worker.id = %worker, seconds = pause.as_secs_f64(), "worker fails often and gets no packs for a while");
            }
            Action::FinishSweep { sweep, state } => self.finish(&sweep, state),
        }
    }

    fn persist(&mut self, sweep: &SweepId, worker: &WorkerId, trials: &TrialSet) {
        let Some(delivery) = &self.delivery else { return };
        if let Some(entry) = self.workers.get_mut(worker) {
            entry.trials_done += trials.len();
        }
        let all = delivery.rows.len() as u64 == trials.len();
        // A trial that comes twice within one delivery counts once: its first row does.
        let mut seen = RoaringTreemap::new();
        if let Some(entry) = self.sweeps.get_mut(sweep) {
            delivery.rows.iter().for_each(|(trial, _)| entry.training.end(*trial));
        }
        for batch in &delivery.batches {
            let kept = if all {
                Ok(batch.clone())
            } else {
                results::filter(batch, |t| trials.contains(t) && seen.insert(t))
            };
            match kept {
                Ok(batch) => self.buffers.push(sweep, batch),
                Err(error) => tracing::error!(%error, "checked results cannot be filtered"),
            }
        }
        let rows = delivery.rows.iter().copied();
        self.buffers.note(sweep, rows.filter(|(trial, _)| all || trials.contains(*trial)));
    }

    fn record_failed(
        &mut self,
        sweep: &SweepId,
        trial: u64,
        attempts: u32,
        kind: FailureKind,
        message: String,
    ) {
        let _within = self.sweeps.get(sweep).and_then(SweepEntry::attach);
        tracing::warn!(sweep.id = %sweep, trial, attempts, kind = %kind, reason = %message, "trial given up");
        let record = TrialRecord {
            outcome: TrialOutcome {
                trial_index: trial,
                status: Status::Failed,
                error: Some(format!("{kind}: {message}")),
                measures: Measures::default(),
                distances: None,
                curve: Vec::new(),
                outputs: TestOutputs::default(),
            },
            execution: ExecutionRecord {
                attempt: attempts,
                started_ms: now_ms(),
                ..ExecutionRecord::default()
            },
        };
        match results::encode(&[record]) {
            Ok(batch) => {
                self.buffers.push(sweep, batch);
                self.buffers.note(sweep, [(trial, Status::Failed)].into_iter());
            }
            Err(error) => tracing::error!(%error, "a failed trial cannot be recorded"),
        }
    }

    fn finish(&mut self, sweep: &SweepId, state: SweepState) {
        const FIRST_PAUSE: Duration = Duration::from_millis(250);
        const LONGEST_PAUSE: Duration = Duration::from_secs(10);
        let Some(entry) = self.sweeps.get_mut(sweep) else { return };
        let state =
            if state == SweepState::Completed { StoredState::Completed } else { StoredState::Cancelled };
        entry.stop_clock();
        entry.state = state;
        let record = entry.state_record(state);
        entry.show_trace(sweep);
        let _within = entry.attach();
        tracing::info!(sweep.id = %sweep, state = ?state, trials = entry.counts.total(), failed = entry.counts.failed,
            seconds = record.seconds, "sweep ended");
        let (store, name, id) = (self.store.clone(), self.sequence.next_name(), sweep.clone());
        while self.recording.try_join_next().is_some() {}
        self.recording.spawn(async move {
            // Without this record the next coordinator counts the segments again, and until then those that stand by say
            // that the sweep is running.
            let mut pause = FIRST_PAUSE;
            while let Err(error) = store.write_state(&id, &name, &record).await {
                if matches!(error, StoreError::Exists { .. }) {
                    // An earlier attempt arrived although its answer did not.
                    return;
                }
                tracing::warn!(sweep.id = %id, %error, "end of sweep not recorded, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        self.publish();
    }

    fn on_write(&mut self, event: WriteEvent) {
        match event {
            WriteEvent::Written { segment, took, bytes, attempts } => {
                self.buffers.written(took);
                let Segment { sweep, trials, failed, counts, .. } = segment;
                tracing::debug!(sweep.id = %sweep, trials = trials.len(), ms = took.as_millis(), "segment durable");
                if let Some(entry) = self.sweeps.get_mut(&sweep) {
                    for range in failed.ranges() {
                        entry.failed.insert_range(range.clone());
                    }
                    entry.counts.completed += counts.completed;
                    entry.counts.diverged += counts.diverged;
                    entry.counts.failed += counts.failed;
                    entry.rate.add(counts.total());
                    let put = Put { trials: trials.len(), bytes, attempts, took };
                    entry.show_put(&sweep, put, &mut self.puts);
                }
                self.metrics.segment_written(took.as_secs_f64());
                self.metrics.durable(counts);
                self.feed(Event::ResultsDurable { sweep, trials, counts });
            }
            WriteEvent::Stalled { reason } => {
                self.metrics.segment_refused();
                if self.stalled.is_none() {
                    tracing::error!(%reason, store = self.store.location(),
                        "the store takes no results: dispatch pauses, nothing is acknowledged, writing is tried again");
                    self.feed(Event::StoreStalled);
                }
                self.stalled = Some(reason);
                self.publish();
            }
            WriteEvent::Recovered => {
                tracing::info!("the store takes results again");
                self.stalled = None;
                self.feed(Event::StoreRecovered);
            }
            WriteEvent::Fenced { path } => self.fenced = Some(path),
        }
    }

    /// Hands the writer what is due.
    fn flush(&mut self) {
        let idle = self.buffers.holds_all(&self.core);
        while let Some(segment) = self.buffers.next_due(idle) {
            if let Err(segment) = self.writer.try_write(segment) {
                self.buffers.give_back(segment);
                return;
            }
        }
    }
}

impl SweepEntry {
    /// Log lines name its trace until this is dropped.
    fn attach(&self) -> Option<impl Drop + use<>> {
        self.trace.map(|trace| trace.context.attach())
    }

    fn stop_clock(&mut self) {
        if let Some(since) = self.running_since.take() {
            self.seconds += since.elapsed().as_secs_f64();
        }
    }

    fn seconds(&self) -> f64 {
        self.seconds + self.running_since.map_or(0.0, |since| since.elapsed().as_secs_f64())
    }

    fn state_record(&self, state: StoredState) -> StateRecord {
        let ended = matches!(state, StoredState::Completed | StoredState::Cancelled);
        StateRecord {
            format_version: evenkeel_common::FORMAT_VERSION,
            state,
            at_ms: now_ms(),
            seconds: self.seconds(),
            counts: ended.then(|| self.counts.into()),
            retries_failed: false,
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
