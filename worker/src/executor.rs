//! One operating-system thread a slot: tensors live and die there, only plain data leaves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use evenkeel_common::failure::FailureKind;
use evenkeel_common::results::{
    self, ExecutionRecord, Measures, Status, TestOutputs, TrialOutcome, TrialRecord,
};
use evenkeel_common::runtime::now_ms;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::artifacts::Artifacts;
use crate::core::{Job, PackKey, Stop};
use crate::device::Device;
use crate::engine::{EngineError, PackWatch, Sample};
use crate::spans::{PackOrigin, PackSpan};
use crate::sweeps::OpenSweep;
use crate::workbench::Workbench;

/// Results travel in batches: of this many trials, or what there is after this long.
const BATCH_TRIALS: usize = 4096;
const BATCH_BYTES: usize = 32 << 20;
/// Most bytes of outputs that are kept of a trial: a message holds several.
const MOST_OUTPUT_BYTES: usize = 64 << 20;
const BATCH_AGE: Duration = Duration::from_millis(200);
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What a pack consists of.
#[derive(Debug)]
pub struct PackWork {
    /// Its sweep.
    pub sweep: Arc<OpenSweep>,
    /// Which execution of these trials this is.
    pub attempt: u32,
    /// Its trials, as (first, count).
    pub ranges: Vec<(u64, u64)>,
    /// Where it comes from in its trace, if it is traced.
    pub origin: Option<Box<PackOrigin>>,
}

/// What a slot reports.
#[derive(Debug)]
pub enum Report {
    /// The slot can run packs.
    Ready,
    /// The slot cannot run packs at all.
    Broken(String),
    /// A pack of a sweep is under way; new points of its trials' curves.
    Progress(PackKey, Arc<OpenSweep>, f64, Vec<Sample>),
    /// Results of some of its trials, as an Arrow IPC stream.
    Results(PackKey, Arc<OpenSweep>, Bytes),
    /// A pack is through.
    Finished {
        /// The slot.
        slot: usize,
        /// The pack.
        key: PackKey,
        /// How long it took.
        busy: Duration,
        /// Trials it delivered.
        trials: u64,
        /// Whether its part of the trace was shown.
        traced: bool,
    },
    /// A pack was given up.
    Failed {
        /// The slot.
        slot: usize,
        /// The pack.
        key: PackKey,
        /// Why.
        kind: FailureKind,
        /// In words.
        message: String,
        /// The device is unusable until the process starts anew.
        poisoned: bool,
    },
}

/// A slot's thread, or what stands in for it.
#[derive(Debug)]
pub struct Executor {
    jobs: mpsc::Sender<Job<PackWork>>,
}

impl Executor {
    /// Starts the thread of a slot, which opens the device.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        slot: usize,
        device: Device,
        worker: String,
        artifacts: Arc<Artifacts>,
        reports: mpsc::Sender<Report>,
    ) -> std::io::Result<Self> {
        let (jobs, mut inbox) = mpsc::channel::<Job<PackWork>>(1);
        std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
            let description = device.describe();
            let mut engine = match Workbench::new(device, artifacts) {
                Ok(engine) => engine,
                Err(error) => {
                    let _ = reports.blocking_send(Report::Broken(error.to_string()));
                    return;
                }
            };
            if reports.blocking_send(Report::Ready).is_err() {
                return;
            }
            while let Some(job) = inbox.blocking_recv() {
                let report = run(&mut engine, slot, &job, &worker, &description, &reports);
                if reports.blocking_send(report).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self::over(jobs))
    }

    /// A slot whose packs are run by whoever receives them, one at a time.
    #[must_use]
    pub fn over(jobs: mpsc::Sender<Job<PackWork>>) -> Self {
        Self { jobs }
    }

    /// Hands a pack to the thread, which must be idle.
    ///
    /// # Errors
    /// The pack, when the thread is gone.
    pub fn start_pack(&self, job: Job<PackWork>) -> Result<(), Job<PackWork>> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Closed(job) => job,
        })
    }
}

fn run(
    engine: &mut Workbench,
    slot: usize,
    job: &Job<PackWork>,
    worker: &str,
    device: &str,
    reports: &mpsc::Sender<Report>,
) -> Report {
    let began = Instant::now();
    let PackWork { sweep, attempt, ranges, origin } = &job.work;
    let mut span = origin
        .as_deref()
        .map(|origin| PackSpan::begin(*origin, job.key, *attempt, sweep.id.as_str(), worker));
    let _within = span.as_ref().map(PackSpan::attach);
    let failed = |span: Option<PackSpan>, kind, message: String, poisoned| {
        if kind != FailureKind::Cancelled {
            tracing::warn!(sweep.id = %sweep.id, pack.id = job.key.pack, kind = %kind, reason = %message, "pack failed");
        }
        span.map(|span| span.finish(Some((kind, &message))));
        Report::Failed { slot, key: job.key, kind, message, poisoned }
    };
    if job.stop.is_set() {
        return failed(span, FailureKind::Cancelled, "stopped before it began".to_owned(), false);
    }
    let grid = &sweep.grid;
    let indices =
        ranges.iter().flat_map(|(first, count)| *first..first.saturating_add(*count).min(grid.len()));
    let trials: Vec<_> = indices.filter_map(|index| grid.trial(index)).collect();
    let execution = ExecutionRecord {
        attempt: *attempt,
        worker: worker.to_owned(),
        device: device.to_owned(),
        started_ms: now_ms(),
        duration_s: 0.0,
    };
    let mut delivery = Delivery {
        key: job.key,
        sweep,
        execution,
        stop: &job.stop,
        reports,
        records: Vec::new(),
        bytes: 0,
        sent: 0,
        since: Instant::now(),
        since_wall: SystemTime::now(),
        span: span.as_mut(),
        batch_began: Instant::now(),
        progress: Instant::now(),
        fraction: 0.0,
        samples: Vec::new(),
        broken: None,
    };
    // A panic in one pack must not take the process and the other slots with it.
    let ended = catch_unwind(AssertUnwindSafe(|| engine.run(&trials, sweep.as_ref(), &mut delivery)));
    delivery.flush();
    let sent = delivery.sent;
    if let Some(message) = delivery.broken {
        return failed(span, FailureKind::Transient, message, false);
    }
    match ended {
        Ok(Ok(())) => {
            let busy = began.elapsed();
            let traced = span.is_some_and(|span| span.finish(None));
            Report::Finished { slot, key: job.key, busy, trials: sent, traced }
        }
        Ok(Err(EngineError::Cancelled)) if job.stop.is_leaving() => failed(
            span,
            FailureKind::WorkerDraining,
            "the worker leaves before it can be through".to_owned(),
            false,
        ),
        Ok(Err(error)) => {
            let poisoned = matches!(error, EngineError::Device(_));
            failed(span, error.kind(), error.to_string(), poisoned)
        }
        Err(panic) => {
            let message = format!("the engine panicked: {}", panic_text(&*panic));
            failed(span, FailureKind::Transient, message, false)
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Gathers outcomes into batches and sends them off.
struct Delivery<'a> {
    key: PackKey,
    sweep: &'a Arc<OpenSweep>,
    execution: ExecutionRecord,
    stop: &'a Stop,
    reports: &'a mpsc::Sender<Report>,
    records: Vec<TrialRecord>,
    /// Of their outputs.
    bytes: usize,
    sent: u64,
    /// When the last outcomes came: the time since is shared by the next ones.
    since: Instant,
    since_wall: SystemTime,
    span: Option<&'a mut PackSpan>,
    batch_began: Instant,
    progress: Instant,
    fraction: f64,
    /// Points of curves that were not told yet.
    samples: Vec<Sample>,
    broken: Option<String>,
}

impl Delivery<'_> {
    fn flush(&mut self) {
        self.batch_began = Instant::now();
        self.bytes = 0;
        if self.records.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.records);
        match results::encode(&records).and_then(|batch| results::to_ipc(&batch)) {
            Ok(bytes) => {
                self.sent += records.len() as u64;
                let _ =
                    self.reports.blocking_send(Report::Results(self.key, self.sweep.clone(), bytes.into()));
            }
            Err(error) => self.broken = Some(format!("results cannot be encoded: {error}")),
        }
    }
}

/// An outcome whose outputs fit into a message: a trial that says more about its test set has failed, once and for all.
fn bounded(outcome: TrialOutcome) -> TrialOutcome {
    let bytes = outcome.outputs.bytes();
    if bytes <= MOST_OUTPUT_BYTES {
        return outcome;
    }
    let most = MOST_OUTPUT_BYTES >> 20;
    TrialOutcome {
        status: Status::Failed,
        error: Some(format!(
            "its predictions take {} MiB, and at most {most} MiB are kept of a trial: test on fewer examples \
             (`test_samples`), or keep classes alone (`predictions: true`)",
            bytes >> 20
        )),
        trial_index: outcome.trial_index,
        measures: Measures::default(),
        distances: None,
        curve: Vec::new(),
        outputs: TestOutputs::default(),
    }
}

impl PackWatch for Delivery<'_> {
    fn is_cancelled(&self) -> bool {
        self.stop.is_set()
    }

    fn is_leaving(&self) -> bool {
        self.stop.is_leaving()
    }

    fn progress(&mut self, fraction: f64) {
        self.fraction = fraction;
        if self.progress.elapsed() >= PROGRESS_EVERY {
            self.progress = Instant::now();
            let samples = std::mem::take(&mut self.samples);
            // Dropped when the queue is full: the next one says more.
            let _ = self.reports.try_send(Report::Progress(self.key, self.sweep.clone(), fraction, samples));
        }
    }

    fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    fn deliver(&mut self, outcomes: Vec<TrialOutcome>) {
        if !self.samples.is_empty() {
            // Before the results: a curve that comes after its trial's end would stay for ever.
            let samples = std::mem::take(&mut self.samples);
            let report = Report::Progress(self.key, self.sweep.clone(), self.fraction, samples);
            let _ = self.reports.blocking_send(report);
        }
        let each = self.since.elapsed().as_secs_f64() / outcomes.len().max(1) as f64;
        self.since = Instant::now();
        if let Some(span) = &mut self.span {
            span.trials(&outcomes, self.since_wall);
            self.since_wall = SystemTime::now();
        }
        for outcome in outcomes {
            let outcome = bounded(outcome);
            self.bytes += outcome.outputs.bytes();
            let execution = ExecutionRecord { duration_s: each, ..self.execution.clone() };
            self.records.push(TrialRecord { outcome, execution });
            if self.bytes >= BATCH_BYTES {
                self.flush();
            }
        }
        if self.records.len() >= BATCH_TRIALS || self.batch_began.elapsed() >= BATCH_AGE {
            self.flush();
        }
    }
}
