//! What is to be done: the outputs of the scheduler.

use std::time::Duration;

use super::ids::{PackId, WorkerId};
use super::sweep::SweepState;
use super::trials::TrialSet;
use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;

/// An order to the driver. Orders are carried out in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a pack to a worker.
    Dispatch {
        /// The worker.
        worker: WorkerId,
        /// The sweep.
        sweep: SweepId,
        /// The new pack.
        pack: PackId,
        /// Which execution of these trials this is, from 1; requeued ones are not counted.
        attempt: u32,
        /// The trials.
        trials: TrialSet,
        /// Their work, in units.
        cost: f64,
        /// How long that should take from now on, with what is ahead of it, in seconds.
        expected_seconds: f64,
    },
    /// Tell a worker to stop a pack, whose slot is free for the next one from now on.
    Cancel {
        /// The worker.
        worker: WorkerId,
        /// The pack.
        pack: PackId,
    },
    /// Write the rows of these trials, and of no others, of the results just received.
    Persist {
        /// The sweep.
        sweep: SweepId,
        /// The pack the results came with.
        pack: PackId,
        /// The worker they came from.
        worker: WorkerId,
        /// The trials that are new.
        trials: TrialSet,
    },
    /// Tell a worker that it may forget what it delivered for a pack, if it is still there.
    Acknowledge {
        /// The worker.
        worker: WorkerId,
        /// The sweep.
        sweep: SweepId,
        /// The pack.
        pack: PackId,
    },
    /// Write a `failed` row for a trial. It counts once it is reported durable.
    RecordFailed {
        /// The sweep.
        sweep: SweepId,
        /// The trial.
        trial: u64,
        /// How many attempts it was charged.
        attempts: u32,
        /// How the last one failed.
        kind: FailureKind,
        /// What the worker said about it.
        message: String,
    },
    /// A worker gets no packs for a while. For information.
    QuarantineWorker {
        /// The worker.
        worker: WorkerId,
        /// Until when, on the clock of the events.
        until: Duration,
    },
    /// Nothing is left to do for a sweep: all trials are durable, or it is cancelled and what had been
    /// delivered is durable.
    FinishSweep {
        /// The sweep.
        sweep: SweepId,
        /// [`SweepState::Completed`] or [`SweepState::Cancelled`].
        state: SweepState,
    },
}
