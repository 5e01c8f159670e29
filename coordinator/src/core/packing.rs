//! Forms a pack out of the trials of a sweep that wait.

use std::ops::Range;
use std::time::Duration;

use super::event::SweepShape;
use super::ids::WorkerId;
use super::sweep::{History, Sweep};
use super::trials::TrialSet;

/// How large a pack may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackSize {
    /// Work to aim at, in units.
    pub cost: f64,
    /// Work that trials with a history may have, so that they stay together.
    pub part_cost: f64,
    pub trials: u64,
}

/// For whom the pack is.
pub(super) struct Taker<'a> {
    pub worker: &'a WorkerId,
    /// The trial of this sweep that it was given last.
    pub last_trial: Option<u64>,
    /// Whether another worker could take what failed on this one.
    pub others: bool,
}

#[derive(Debug)]
pub(super) struct Taken {
    pub trials: TrialSet,
    pub cost: f64,
    pub history: History,
}

/// Costs come from outside: a broken one must neither stop nor fill a pack.
fn cost_of(shape: &dyn SweepShape, trial: u64) -> f64 {
    let cost = shape.cost(trial);
    if cost.is_finite() && cost > 0.0 { cost.min(1e30) } else { 1.0 }
}

fn run_end(shape: &dyn SweepShape, trial: u64) -> u64 {
    shape.run_end(trial).max(trial + 1)
}

fn cost_of_range(shape: &dyn SweepShape, range: Range<u64>) -> f64 {
    let (mut at, mut cost) = (range.start, 0.0);
    while at < range.end {
        let end = run_end(shape, at).min(range.end);
        cost += cost_of(shape, at) * (end - at) as f64;
        at = end;
    }
    cost
}

/// The start of the affinity group that `trial` is in, not below `floor`.
fn group_start(shape: &dyn SweepShape, floor: u64, trial: u64) -> u64 {
    let group = shape.group_end(trial);
    let (mut low, mut high) = (floor.min(trial), trial);
    while low < high {
        let middle = low + (high - low) / 2;
        if shape.group_end(middle) >= group { high = middle } else { low = middle + 1 }
    }
    low
}

/// A pack being formed.
struct Filling<'a> {
    shape: &'a dyn SweepShape,
    target: f64,
    room: u64,
    trials: TrialSet,
    cost: f64,
    full: bool,
}

impl<'a> Filling<'a> {
    fn new(shape: &'a dyn SweepShape, target: f64, room: u64) -> Filling<'a> {
        Filling { shape, target, room: room.max(1), trials: TrialSet::new(), cost: 0.0, full: false }
    }

    /// Adds as much of `range` as fits, and at least one trial to an empty pack.
    fn fill(&mut self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end && !self.full {
            let cost = cost_of(self.shape, at);
            let run = run_end(self.shape, at).min(range.end) - at;
            let fitting = ((self.target - self.cost) / cost).max(0.0) as u64;
            let least = u64::from(self.trials.is_empty());
            let count = fitting.max(least).min(run).min(self.room);
            self.trials.push(at..at + count);
            self.cost += cost * count as f64;
            self.room -= count;
            at += count;
            self.full = count < run || self.room == 0;
        }
    }

    /// Gives up the beginning of an affinity group at the end, if half of the pack or more is left.
    fn end_on_group(&mut self) {
        let Some(last) = self.trials.ranges().last().cloned() else { return };
        if !self.full || self.shape.group_end(last.end - 1) <= last.end {
            return;
        }
        let cut = group_start(self.shape, last.start, last.end - 1);
        let cost = cost_of_range(self.shape, cut..last.end);
        if cost <= self.cost / 2.0 {
            let (kept, _) = self.trials.split_at(self.trials.len() - (last.end - cut));
            if !kept.is_empty() {
                self.cost -= cost;
                self.trials = kept;
            }
        }
    }
}

impl Sweep {
    /// The mean cost of a trial that waits: of a sample, as nobody can look at 10 million of them for
    /// each pack.
    pub fn mean_pending_cost(&self) -> f64 {
        const SAMPLES: u64 = 8;
        let (from, to) = if self.cursor < self.total {
            (self.cursor, self.total - 1)
        } else {
            match (self.returned.min(), self.returned.max()) {
                (Some(min), Some(max)) => (min, max),
                _ => return 0.0,
            }
        };
        let step = (to - from) / SAMPLES;
        let sum: f64 = (0..SAMPLES).map(|sample| cost_of(self.shape.as_ref(), from + sample * step)).sum();
        sum / SAMPLES as f64
    }

    /// Takes the next trials out of the queue: those with a history first, because they decide how long
    /// the sweep takes, then those that came back, then new ones.
    pub fn take(&mut self, size: PackSize, taker: &Taker<'_>, now: Duration) -> Option<Taken> {
        self.take_part(size, taker, now).or_else(|| self.take_next(size, taker))
    }

    fn take_part(&mut self, size: PackSize, taker: &Taker<'_>, now: Duration) -> Option<Taken> {
        let index = self.parts.iter().position(|part| {
            let elsewhere = taker.others && part.history.suspect.as_ref() == Some(taker.worker);
            now >= if elsewhere { part.open_at } else { part.ready_at }
        })?;
        let shape = self.shape.as_ref();
        let part = self.parts.get_mut(index)?;
        let mut filling = Filling::new(shape, size.part_cost, size.trials);
        for range in part.trials.ranges() {
            filling.fill(range.clone());
        }
        let taken = Taken { trials: filling.trials, cost: filling.cost, history: part.history.clone() };
        part.trials.remove(&taken.trials);
        if part.trials.is_empty() {
            self.parts.remove(index);
        }
        Some(taken)
    }

    fn take_next(&mut self, size: PackSize, taker: &Taker<'_>) -> Option<Taken> {
        let shape = self.shape.clone();
        let mut filling = Filling::new(shape.as_ref(), size.cost, size.trials);
        self.fill_from_returned(&mut filling, taker.last_trial);
        self.fill_from_cursor(&mut filling);
        filling.end_on_group();
        let (trials, cost) = (filling.trials, filling.cost);
        trials.remove_from(&mut self.returned);
        let last = trials.last()?;
        if last >= self.cursor {
            self.move_cursor(last + 1);
        }
        Some(Taken { trials, cost, history: History::default() })
    }

    fn fill_from_returned(&self, filling: &mut Filling<'_>, last_trial: Option<u64>) {
        let Some(mut from) = self.returned.min() else { return };
        let mut members = self.returned.iter();
        if let Some(last) = last_trial.filter(|last| *last < self.total) {
            // Start in the group whose data the worker has at hand.
            let group = group_start(self.shape.as_ref(), from, last)..self.shape.group_end(last);
            let mut near = self.returned.iter();
            near.advance_to(group.start);
            if let Some(member) = near.next().filter(|member| *member < group.end) {
                from = member;
            }
        }
        members.advance_to(from);
        let mut members = members.peekable();
        while let Some(start) = members.next() {
            if filling.full {
                return;
            }
            let mut end = start + 1;
            while end - start < filling.room && members.next_if_eq(&end).is_some() {
                end += 1;
            }
            filling.fill(start..end);
        }
    }

    fn fill_from_cursor(&self, filling: &mut Filling<'_>) {
        let mut from = self.cursor;
        // What is ahead is the exception: members of it only split the range.
        let mut taken = self.ahead.iter();
        while from < self.total && !filling.full {
            let end = taken.next().unwrap_or(self.total);
            filling.fill(from..end);
            from = end + 1;
        }
    }
}
