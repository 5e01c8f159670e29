//! The trials of one sweep: which wait, which came back, which are being made durable, which are done.
//!
//! A trial is in exactly one place: ahead of the cursor, in `returned`, in a part, in a pack in flight,
//! in `awaiting`, or in `done`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;

use super::event::{StatusCounts, SweepShape};
use super::ids::{PackId, WorkerId};
use super::trials::TrialSet;

/// Where a sweep stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SweepState {
    /// Its trials are dispatched.
    Running,
    /// Nothing more is dispatched until the user resumes it.
    Paused,
    /// All trials are durable.
    Completed,
    /// The user cancelled it.
    Cancelled,
}

impl fmt::Display for SweepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SweepState::Running => "running",
            SweepState::Paused => "paused",
            SweepState::Completed => "completed",
            SweepState::Cancelled => "cancelled",
        })
    }
}

/// What trials that travel together have been through.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    /// Attempts that were charged to them.
    pub attempts: u32,
    /// Those of the attempts that count in their present company: two bisect a pack, and a trial that
    /// is alone has `max_attempts`. A half starts with one, so that the search for a poison trial among
    /// n takes about log2(n) steps and not twice as many; a trial that became alone starts with none.
    pub strikes: u32,
    /// How many workers in a row were lost or died while running them.
    pub deaths: u32,
    /// Where they failed last.
    pub suspect: Option<WorkerId>,
}

/// Trials that wait together because of their history.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub trials: TrialSet,
    pub history: History,
    /// When they may go out again.
    pub ready_at: Duration,
    /// When even the worker they failed on may have them.
    pub open_at: Duration,
}

pub(super) struct Sweep {
    pub shape: Arc<dyn SweepShape>,
    pub total: u64,
    pub priority: u32,
    pub max_attempts: u32,
    pub state: SweepState,
    /// Whether `FinishSweep` was ordered.
    pub finished: bool,
    /// The first trial that was never dispatched nor delivered, or `total`.
    pub cursor: u64,
    /// The trials at or above the cursor that wait for nothing: a resume or an earlier leader's worker
    /// brought them.
    pub ahead: RoaringTreemap,
    /// The trials below the cursor that wait and have no history.
    pub returned: RoaringTreemap,
    pub parts: Vec<Part>,
    /// Delivered and not durable yet.
    pub awaiting: RoaringTreemap,
    pub done: RoaringTreemap,
    pub counts: StatusCounts,
    /// What is to be acknowledged: the trials of each delivery that are not durable yet.
    pub deliveries: BTreeMap<(WorkerId, PackId), TrialSet>,
    /// Virtual time of stride scheduling: dispatched cost over priority.
    pub pass: f64,
}

impl Sweep {
    pub fn new(
        shape: Arc<dyn SweepShape>,
        priority: u32,
        max_attempts: u32,
        mut done: RoaringTreemap,
        counts: StatusCounts,
    ) -> Sweep {
        // The end of a half-open range must fit.
        let total = shape.total().min(u64::MAX - 1);
        done.remove_range(total..);
        let counts = fitted(counts, done.len());
        let mut sweep = Sweep {
            shape,
            total,
            priority: priority.max(1),
            max_attempts: max_attempts.max(1),
            state: SweepState::Running,
            finished: false,
            cursor: 0,
            ahead: done.clone(),
            returned: RoaringTreemap::new(),
            parts: Vec::new(),
            awaiting: RoaringTreemap::new(),
            done,
            counts,
            deliveries: BTreeMap::new(),
            pass: 0.0,
        };
        sweep.move_cursor(0);
        sweep
    }

    /// Whether it takes part in the sharing of workers: any trial waits, be it in a back-off.
    pub fn is_active(&self) -> bool {
        self.state == SweepState::Running && self.has_pending()
    }

    fn has_pending(&self) -> bool {
        self.cursor < self.total || !self.returned.is_empty() || !self.parts.is_empty()
    }

    /// How many trials wait.
    pub fn pending(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|part| part.trials.len()).sum();
        (self.total - self.cursor - self.ahead.len()) + self.returned.len() + parts
    }

    /// How many trials are in flight: those that are nowhere else.
    pub fn running(&self) -> u64 {
        self.total - self.pending() - self.awaiting.len() - self.done.len()
    }

    /// Moves the cursor up to `to` and on to the next trial that waits.
    pub fn move_cursor(&mut self, to: u64) {
        let from = self.cursor;
        self.cursor = to.min(self.total);
        while self.cursor < self.total && self.ahead.contains(self.cursor) {
            self.cursor = run_of_members(&self.ahead, self.cursor, self.total);
        }
        if !self.ahead.is_empty() {
            self.ahead.remove_range(from..self.cursor);
        }
    }

    /// Puts trials that were in flight, or done, back into the queue.
    pub fn give_back(&mut self, trials: &TrialSet) {
        let (below, above) = (trials.below(self.cursor), trials.difference(&TrialSet::from(0..self.cursor)));
        below.insert_into(&mut self.returned);
        above.remove_from(&mut self.ahead);
    }

    /// Puts trials that were in flight back with their history.
    pub fn park(&mut self, trials: TrialSet, history: History, ready_at: Duration, open_at: Duration) {
        if !trials.is_empty() {
            self.parts.push(Part { trials, history, ready_at, open_at });
        }
    }

    /// Takes trials that need not run any more out of the queue, wherever they wait.
    pub fn withdraw(&mut self, trials: &TrialSet) {
        trials.remove_from(&mut self.returned);
        for part in &mut self.parts {
            part.trials.remove(trials);
        }
        self.parts.retain(|part| !part.trials.is_empty());
        let above = trials.difference(&TrialSet::from(0..self.cursor));
        if !above.is_empty() {
            above.insert_into(&mut self.ahead);
            self.move_cursor(self.cursor);
        }
    }

    /// Counts rows as durable. Returns those of them that nobody had delivered here.
    pub fn mark_durable(&mut self, trials: &TrialSet, counts: StatusCounts) -> TrialSet {
        let fresh = trials.difference_bitmap(&self.done);
        let counts = fitted(counts, fresh.len());
        self.counts.completed += counts.completed;
        self.counts.diverged += counts.diverged;
        self.counts.failed += counts.failed;
        let unexpected = if fresh.remove_from(&mut self.awaiting) == fresh.len() {
            TrialSet::new()
        } else {
            fresh.clone()
        };
        fresh.insert_into(&mut self.done);
        unexpected
    }

    /// Makes failed trials pending again. Returns whether there was any.
    pub fn retry_failed(&mut self, trials: &RoaringTreemap) -> bool {
        let known = trials & &self.done;
        if known.is_empty() || known.len() > self.counts.failed {
            return false;
        }
        self.counts.failed -= known.len();
        self.done -= &known;
        self.give_back(&TrialSet::from_bitmap(&known));
        true
    }
}

/// `counts` made to add up to `total`, in case the driver counted something twice.
fn fitted(counts: StatusCounts, total: u64) -> StatusCounts {
    let failed = counts.failed.min(total);
    let diverged = counts.diverged.min(total - failed);
    StatusCounts { completed: total - failed - diverged, diverged, failed }
}

/// The end of the run of members of `bitmap` that begins at its member `from`, at most `limit`.
fn run_of_members(bitmap: &RoaringTreemap, from: u64, limit: u64) -> u64 {
    let mut end = from + 1;
    let mut step = 1;
    // Gallop while the run goes on, then halve the step down to where it stops.
    while end < limit && bitmap.contains_range(end..limit.min(end + step)) {
        end = limit.min(end + step);
        step *= 2;
    }
    while step > 0 {
        if end < limit && end + step <= limit && bitmap.contains_range(end..end + step) {
            end += step;
        }
        step /= 2;
    }
    end
}
