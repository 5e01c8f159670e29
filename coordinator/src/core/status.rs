//! What the scheduler shows of itself.

use std::time::Duration;

use roaring::RoaringTreemap;

use evenkeel_common::id::SweepId;

use super::Core;
use super::event::StatusCounts;
use super::ids::WorkerId;
use super::sweep::{Sweep, SweepState};
use super::trials::TrialSet;
use super::worker::Worker;

/// Where a sweep stands. Its trials add up: `counts.total() + awaiting + running + pending == total`.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepStatus {
    /// The sweep.
    pub id: SweepId,
    /// Its state.
    pub state: SweepState,
    /// Its share of the cluster, relative to that of others.
    pub priority: u32,
    /// All its trials.
    pub total: u64,
    /// The durable ones, by how they ended.
    pub counts: StatusCounts,
    /// Trials that wait, be it for the end of a pause after a failure. In a cancelled sweep: those that
    /// never ran to the end.
    pub pending: u64,
    /// Trials in flight.
    pub running: u64,
    /// Trials that are delivered and not durable yet.
    pub awaiting: u64,
}

/// What is known about a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// The worker.
    pub id: WorkerId,
    /// How many packs it runs at once.
    pub slots: u32,
    /// How many packs it has, with those that wait behind others.
    pub packs: usize,
    /// Its speed in units per second and slot, once it was measured.
    pub measured_speed: Option<f64>,
    /// How many failures were put down to it rather than to the trials.
    pub failures: u32,
    /// Until when it gets no packs because it fails often.
    pub quarantined_until: Option<Duration>,
    /// Whether it is leaving.
    pub draining: bool,
    /// The sweep it works on.
    pub sweep: Option<SweepId>,
}

/// A pack in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct PackStatus {
    /// The worker that has it.
    pub worker: WorkerId,
    /// Whether the worker said that it works on it.
    pub started: bool,
    /// Trials that it has not delivered.
    pub trials: TrialSet,
}

impl Core {
    /// The packs of a sweep in flight.
    pub fn packs_of<'a>(&'a self, sweep: &'a SweepId) -> impl Iterator<Item = PackStatus> + 'a {
        self.packs.values().filter(move |pack| pack.sweep == *sweep).map(|pack| PackStatus {
            worker: pack.worker.clone(),
            started: pack.started,
            trials: pack.open.clone(),
        })
    }

    /// All sweeps that were added, by id.
    pub fn sweeps(&self) -> impl Iterator<Item = SweepStatus> + '_ {
        self.sweeps.iter().map(|(id, sweep)| sweep_status(id, sweep))
    }

    /// One of them.
    pub fn find_sweep(&self, id: &SweepId) -> Option<SweepStatus> {
        self.sweeps.get_key_value(id).map(|(id, sweep)| sweep_status(id, sweep))
    }

    /// The trials of a sweep that are durable.
    pub fn find_done(&self, id: &SweepId) -> Option<&RoaringTreemap> {
        self.sweeps.get(id).map(|sweep| &sweep.done)
    }

    /// All workers that are there, by id.
    pub fn workers(&self) -> impl Iterator<Item = WorkerStatus> + '_ {
        self.workers.iter().map(|(id, worker)| self.worker_status(id, worker))
    }

    /// How many packs are in flight.
    pub fn packs_in_flight(&self) -> usize {
        self.packs.len()
    }

    /// Whether dispatch waits for the store.
    pub fn waits_for_store(&self) -> bool {
        let awaiting: u64 = self.sweeps.values().map(|sweep| sweep.awaiting.len()).sum();
        self.stalled || awaiting >= self.config.max_awaiting.max(1)
    }

    fn worker_status(&self, id: &WorkerId, worker: &Worker) -> WorkerStatus {
        let current = worker.packs.first().and_then(|pack| self.packs.get(pack));
        WorkerStatus {
            id: id.clone(),
            slots: worker.slots,
            packs: worker.packs.len(),
            measured_speed: worker.measured_speed(),
            failures: worker.standing.failures,
            quarantined_until: worker.standing.until,
            draining: worker.draining,
            sweep: current.map(|pack| pack.sweep.clone()),
        }
    }
}

fn sweep_status(id: &SweepId, sweep: &Sweep) -> SweepStatus {
    SweepStatus {
        id: id.clone(),
        state: sweep.state,
        priority: sweep.priority,
        total: sweep.total,
        counts: sweep.counts,
        pending: sweep.pending(),
        running: sweep.running(),
        awaiting: sweep.awaiting.len(),
    }
}
