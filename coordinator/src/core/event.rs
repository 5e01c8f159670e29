//! What happened: the inputs of the scheduler.

use std::fmt;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::ids::{PackId, WorkerId};
use super::trials::TrialSet;
use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;

/// All the scheduler knows about a sweep's grid. Answers must not change while the sweep lives.
pub trait SweepShape: Send + Sync {
    /// The number of trials: they are numbered from 0.
    fn total(&self) -> u64;
    /// The work of one trial, in units (floating-point operations).
    fn cost(&self, trial: u64) -> f64;
    /// The end (exclusive) of the affinity group of `trial`: the consecutive trials that share data.
    fn group_end(&self, trial: u64) -> u64;
    /// The end (exclusive) of the consecutive trials from `trial` on that cost the same as it.
    fn run_end(&self, trial: u64) -> u64;
}

/// Trials by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Trials with a score.
    pub completed: u64,
    /// Trials whose loss became NaN or infinite: a scientific outcome.
    pub diverged: u64,
    /// Trials given up after their attempts.
    pub failed: u64,
}

impl StatusCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.completed.saturating_add(self.diverged).saturating_add(self.failed)
    }
}

/// Why a worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneReason {
    /// Its lease expired, its stream broke or its heartbeat stopped: nothing is known about its packs.
    Lost,
    /// It left in good order.
    Drained,
    /// Its process is known to have died: whatever it was running is a suspect.
    Crashed,
}

/// Something that happened outside.
#[derive(Clone)]
pub enum Event {
    /// A sweep was submitted, or loaded from the store. Ignored if the id is known already.
    SweepAdded {
        /// The sweep.
        sweep: SweepId,
        /// Its grid.
        shape: Arc<dyn SweepShape>,
        /// Its share of the cluster, relative to that of others. 0 counts as 1.
        priority: u32,
        /// How often a trial may fail before it is recorded as failed. 0 counts as 1.
        max_attempts: u32,
        /// The trials that are durable already.
        done: RoaringTreemap,
        /// How those ended.
        counts: StatusCounts,
    },
    /// The user paused a sweep: packs in flight go on, no more are dispatched.
    SweepPaused {
        /// The sweep.
        sweep: SweepId,
    },
    /// The user resumed a paused sweep.
    SweepResumed {
        /// The sweep.
        sweep: SweepId,
    },
    /// The user cancelled a sweep.
    SweepCancelled {
        /// The sweep.
        sweep: SweepId,
    },
    /// A sweep that has ended is to be forgotten: it will be added anew, as the store has it by then.
    SweepRemoved {
        /// The sweep.
        sweep: SweepId,
    },
    /// The user wants trials that are recorded as failed to be tried again. Ignored if it names more
    /// trials than have failed.
    FailedRetried {
        /// The sweep.
        sweep: SweepId,
        /// The failed trials.
        trials: RoaringTreemap,
    },
    /// A worker is ready for packs. One that is known already counts as lost first.
    WorkerJoined {
        /// The worker.
        worker: WorkerId,
        /// How many packs it runs at once.
        slots: u32,
        /// A guess of its speed, in units per second and slot, until it is measured.
        prior_speed: f64,
    },
    /// A worker is no longer there.
    WorkerGone {
        /// The worker.
        worker: WorkerId,
        /// Why.
        reason: GoneReason,
    },
    /// A worker wants no more packs.
    WorkerDraining {
        /// The worker.
        worker: WorkerId,
    },
    /// A pack is under way.
    PackProgressed {
        /// The worker.
        worker: WorkerId,
        /// The pack.
        pack: PackId,
        /// How much of its work is done, from 0 to 1.
        fraction: f64,
    },
    /// Results of trials arrived. They count once they are durable.
    ResultsReceived {
        /// The worker that offers them.
        worker: WorkerId,
        /// The sweep.
        sweep: SweepId,
        /// The pack they were part of; it need not be known here.
        pack: PackId,
        /// The trials.
        trials: TrialSet,
    },
    /// A worker is through with a pack. All its results were received before.
    PackFinished {
        /// The worker.
        worker: WorkerId,
        /// The pack.
        pack: PackId,
        /// How long it occupied its slot.
        seconds_busy: f64,
    },
    /// A worker gave a pack up. Results that were received before count.
    PackFailed {
        /// The worker.
        worker: WorkerId,
        /// The pack.
        pack: PackId,
        /// What kind of failure.
        kind: FailureKind,
        /// What it said, for the record.
        message: String,
    },
    /// Rows are in a segment: they count now.
    ResultsDurable {
        /// The sweep.
        sweep: SweepId,
        /// The trials of the rows.
        trials: TrialSet,
        /// How they ended.
        counts: StatusCounts,
    },
    /// The store does not take more: dispatch pauses.
    StoreStalled,
    /// The store works again.
    StoreRecovered,
    /// The time that [`Core::next_deadline`](super::Core::next_deadline) named has come.
    Tick,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::SweepAdded { sweep, .. } => write!(f, "SweepAdded({sweep})"),
            Event::SweepPaused { sweep } => write!(f, "SweepPaused({sweep})"),
            Event::SweepResumed { sweep } => write!(f, "SweepResumed({sweep})"),
            Event::SweepCancelled { sweep } => write!(f, "SweepCancelled({sweep})"),
            Event::SweepRemoved { sweep } => write!(f, "SweepRemoved({sweep})"),
            Event::FailedRetried { sweep, trials } => write!(f, "FailedRetried({sweep}, {})", trials.len()),
            Event::WorkerJoined { worker, slots, .. } => write!(f, "WorkerJoined({worker}, {slots})"),
            Event::WorkerGone { worker, reason } => write!(f, "WorkerGone({worker}, {reason:?})"),
            Event::WorkerDraining { worker } => write!(f, "WorkerDraining({worker})"),
            Event::PackProgressed { worker, pack, .. } => write!(f, "PackProgressed({worker}, {pack})"),
            Event::ResultsReceived { worker, sweep, pack, trials } => {
                write!(f, "ResultsReceived({worker}, {sweep}, {pack}, {:?})", trials.ranges())
            }
            Event::PackFinished { worker, pack, .. } => write!(f, "PackFinished({worker}, {pack})"),
            Event::PackFailed { worker, pack, kind, .. } => {
                write!(f, "PackFailed({worker}, {pack}, {kind})")
            }
            Event::ResultsDurable { sweep, trials, .. } => {
                write!(f, "ResultsDurable({sweep}, {:?})", trials.ranges())
            }
            Event::StoreStalled => f.write_str("StoreStalled"),
            Event::StoreRecovered => f.write_str("StoreRecovered"),
            Event::Tick => f.write_str("Tick"),
        }
    }
}
