//! The scheduler: a state machine that is told what happened and answers what is to be done.
//!
//! It has no clock, no socket and no random source: the time is an argument, jitter is a hash. So every
//! rule of it is a plain unit test, and a failure seen once can be replayed from its events.
//!
//! | module | decides |
//! |---|---|
//! | [`event`], [`action`] | nothing: they are what goes in and what comes out |
//! | `sweep` | where each trial of a sweep is |
//! | `packing` | which trials make the next pack |
//! | `placement` | who gets it, how large it is, and which straggler gets a twin |
//! | `failures` | what becomes of the trials of a pack that failed or lost its worker |
//! | `results` | which results are new, what is acknowledged, when a sweep is finished |
//! | `worker`, `pack` | what is known about each |
//! | `check` | whether all of this agrees with itself |
//!
//! Invariant: a trial is in exactly one place (see `sweep`), whatever the network delivers: unknown ids,
//! doubled, late and missing events and broken numbers change nothing but the time a sweep takes.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_common::id::SweepId;

pub mod action;
mod check;
pub mod event;
mod failures;
mod ids;
mod pack;
mod packing;
mod placement;
mod results;
mod status;
mod sweep;
mod trials;
mod worker;

#[cfg(test)]
mod tests;

pub use action::Action;
pub use event::{Event, GoneReason, StatusCounts, SweepShape};
pub use ids::{PackId, WorkerId};
pub use status::{PackStatus, SweepStatus, WorkerStatus};
pub use sweep::SweepState;
pub use trials::TrialSet;

use pack::Pack;
use sweep::Sweep;
use worker::{Standing, Worker};

/// What may be tuned. The default is right for most clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct CoreConfig {
    /// How many packs a slot has in flight: the one that runs and those behind it, which hide the round
    /// trip.
    pub packs_per_slot: u32,
    /// How long a pack should take, in seconds.
    pub pack_seconds: f64,
    /// How short packs may become when a sweep ends, in seconds.
    pub min_pack_seconds: f64,
    /// How long the first pack of a worker should take if the guess of its speed is right, in seconds.
    pub probe_seconds: f64,
    /// How many trials a pack may have.
    pub max_pack_trials: u64,
    /// How many trials may be delivered and not durable yet before dispatch waits for the store.
    pub max_awaiting: u64,
    /// The pause after the first failure; it doubles with each further one.
    pub retry_base: Duration,
    /// The longest pause after a failure.
    pub retry_max: Duration,
    /// The shortest time after which a pack may count as a straggler.
    pub straggler_after: Duration,
    /// How many failures in a row take a worker out of rotation.
    pub quarantine_after: u32,
    /// How long the first time; it doubles with each further one.
    pub quarantine_base: Duration,
    /// How long at most.
    pub quarantine_max: Duration,
    /// The number of the first pack. Leaders that follow one another need ranges of their own, or a late
    /// message about an old pack would be taken for one about a new pack.
    pub first_pack: u64,
}

impl Default for CoreConfig {
    fn default() -> CoreConfig {
        CoreConfig {
            packs_per_slot: 2,
            pack_seconds: 1.5,
            min_pack_seconds: 0.15,
            probe_seconds: 0.1,
            max_pack_trials: 16_384,
            max_awaiting: 200_000,
            retry_base: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            straggler_after: Duration::from_secs(2),
            quarantine_after: 3,
            quarantine_base: Duration::from_secs(5),
            quarantine_max: Duration::from_secs(300),
            first_pack: 1,
        }
    }
}

/// The scheduler.
pub struct Core {
    config: CoreConfig,
    sweeps: BTreeMap<SweepId, Sweep>,
    workers: BTreeMap<WorkerId, Worker>,
    /// The packs in flight.
    packs: BTreeMap<PackId, Pack>,
    /// How workers that are gone behaved, in case they come back.
    remembered: BTreeMap<WorkerId, Standing>,
    next_pack: u64,
    /// Whether the store takes nothing.
    stalled: bool,
    /// The time of the last event.
    now: Duration,
    /// The pass of the sweep that was served last.
    virtual_time: f64,
    /// What the event at hand led to so far.
    actions: Vec<Action>,
}

impl Core {
    /// A scheduler that knows no sweep and no worker.
    pub fn new(config: CoreConfig) -> Core {
        Core {
            next_pack: config.first_pack,
            config,
            sweeps: BTreeMap::new(),
            workers: BTreeMap::new(),
            packs: BTreeMap::new(),
            remembered: BTreeMap::new(),
            stalled: false,
            now: Duration::ZERO,
            virtual_time: 0.0,
            actions: Vec::new(),
        }
    }

    /// Takes note of an event and returns what is to be done about it, in this order. `now` is the time
    /// since some fixed moment; one that is earlier than that of the event before counts as equal to it.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::SweepAdded { sweep, shape, priority, max_attempts, done, counts } => {
                self.on_sweep_added(sweep, Sweep::new(shape, priority, max_attempts, done, counts));
            }
            Event::SweepPaused { sweep } => self.on_sweep_paused(&sweep),
            Event::SweepResumed { sweep } => self.on_sweep_resumed(&sweep),
            Event::SweepCancelled { sweep } => self.on_sweep_cancelled(&sweep),
            Event::SweepRemoved { sweep } => self.on_sweep_removed(&sweep),
            Event::FailedRetried { sweep, trials } => self.on_failed_retried(&sweep, &trials),
            Event::WorkerJoined { worker, slots, prior_speed } => {
                self.on_worker_joined(worker, slots, prior_speed);
            }
            Event::WorkerGone { worker, reason } => self.on_worker_gone(&worker, reason),
            Event::WorkerDraining { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.draining = true;
                }
            }
            Event::PackProgressed { worker, pack, fraction } => {
                self.on_pack_progressed(&worker, pack, fraction);
            }
            Event::ResultsReceived { worker, sweep, pack, trials } => {
                self.on_results_received(worker, sweep, pack, &trials);
            }
            Event::PackFinished { worker, pack, seconds_busy } => {
                self.on_pack_finished(&worker, pack, seconds_busy);
            }
            Event::PackFailed { worker, pack, kind, message } => {
                self.on_pack_failed(&worker, pack, kind, message);
            }
            Event::ResultsDurable { sweep, trials, counts } => {
                self.on_results_durable(&sweep, &trials, counts);
            }
            Event::StoreStalled => self.stalled = true,
            Event::StoreRecovered => self.stalled = false,
            Event::Tick => {}
        }
        self.finish_sweeps();
        self.place();
        std::mem::take(&mut self.actions)
    }

    fn on_sweep_added(&mut self, id: SweepId, mut sweep: Sweep) {
        if self.sweeps.contains_key(&id) {
            return;
        }
        sweep.pass = self.entry_pass();
        self.sweeps.insert(id, sweep);
    }

    fn on_sweep_paused(&mut self, id: &SweepId) {
        if let Some(sweep) = self.sweeps.get_mut(id).filter(|sweep| sweep.state == SweepState::Running) {
            sweep.state = SweepState::Paused;
        }
    }

    fn on_sweep_resumed(&mut self, id: &SweepId) {
        let entry = self.entry_pass();
        if let Some(sweep) = self.sweeps.get_mut(id).filter(|sweep| sweep.state == SweepState::Paused) {
            sweep.state = SweepState::Running;
            sweep.pass = sweep.pass.max(entry);
        }
    }

    fn on_sweep_cancelled(&mut self, id: &SweepId) {
        let Some(sweep) = self.sweeps.get_mut(id).filter(|sweep| !sweep.finished) else { return };
        if sweep.state == SweepState::Cancelled {
            return;
        }
        sweep.state = SweepState::Cancelled;
        let packs: Vec<PackId> =
            self.packs.iter().filter(|(_, pack)| pack.sweep == *id).map(|(pack, _)| *pack).collect();
        for pack in packs {
            self.cancel_pack(pack);
        }
    }

    fn on_sweep_removed(&mut self, id: &SweepId) {
        let ended = |sweep: &Sweep| matches!(sweep.state, SweepState::Completed | SweepState::Cancelled);
        // Its packs are gone: a completed sweep has none in flight, those of a cancelled one were cancelled.
        if self.sweeps.get(id).is_some_and(ended) && !self.packs.values().any(|pack| pack.sweep == *id) {
            self.sweeps.remove(id);
        }
    }

    fn on_failed_retried(&mut self, id: &SweepId, trials: &roaring::RoaringTreemap) {
        let entry = self.entry_pass();
        let Some(sweep) = self.sweeps.get_mut(id) else { return };
        // What the user cancelled stays so.
        if sweep.state != SweepState::Cancelled && sweep.retry_failed(trials) {
            sweep.pass = sweep.pass.max(entry);
            if sweep.state == SweepState::Completed {
                sweep.state = SweepState::Running;
                sweep.finished = false;
            }
        }
    }

    /// Where a sweep that begins to take part starts: not behind the others, or it would shut them out
    /// until it has caught up.
    fn entry_pass(&self) -> f64 {
        let active = self.sweeps.values().filter(|sweep| sweep.is_active());
        active.map(|sweep| sweep.pass).min_by(f64::total_cmp).unwrap_or(self.virtual_time)
    }

    fn on_worker_joined(&mut self, id: WorkerId, slots: u32, prior_speed: f64) {
        self.on_worker_gone(&id, GoneReason::Lost);
        let standing = self.remembered.remove(&id).unwrap_or_default();
        self.workers.insert(id, Worker::new(slots, prior_speed, standing));
    }

    fn on_pack_progressed(&mut self, worker: &WorkerId, pack: PackId, fraction: f64) {
        let pack = self.packs.get_mut(&pack).filter(|pack| pack.worker == *worker);
        if let Some(pack) = pack.filter(|_| fraction.is_finite()) {
            pack.started = true;
            pack.fraction = pack.fraction.max(fraction.clamp(0.0, 1.0));
        }
    }
}
