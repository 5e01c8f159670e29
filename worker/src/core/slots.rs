//! Which pack runs on which slot, and which wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Names a pack: numbers are unique within the epoch of the coordinator that dispatched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackKey {
    /// Epoch of the coordinator.
    pub epoch: u64,
    /// Its number.
    pub pack: u64,
}

/// Tells a running pack to stop; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    const LEAVE: u8 = 1;
    const CANCEL: u8 = 2;

    /// Nobody wants it any more.
    pub fn cancel(&self) {
        self.0.fetch_max(Self::CANCEL, Ordering::Relaxed);
    }

    /// The worker leaves: what is done so far is wanted, by whoever goes on with it.
    pub fn leave(&self) {
        self.0.fetch_max(Self::LEAVE, Ordering::Relaxed);
    }

    /// Whether to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Whether to stop because the worker leaves.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::LEAVE
    }
}

/// A pack to run; `W` is the work itself.
#[derive(Debug)]
pub struct Job<W> {
    /// Its name.
    pub key: PackKey,
    /// Set when it is to be stopped.
    pub stop: Stop,
    /// What is to be done.
    pub work: W,
}

/// Packs that wait and slots that run.
#[derive(Debug)]
pub struct Slots<W> {
    waiting: VecDeque<Job<W>>,
    running: BTreeMap<usize, (PackKey, Stop)>,
    idle: Vec<usize>,
    closed: bool,
}

impl<W> Slots<W> {
    /// `count` idle slots.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            idle: (0..count).rev().collect(),
            closed: false,
        }
    }

    /// Takes a pack in, unless the slots are closed; a pack that is known is not taken twice.
    ///
    /// # Errors
    /// The work, when the slots are closed.
    pub fn push(&mut self, key: PackKey, work: W) -> Result<(), W> {
        if self.closed {
            return Err(work);
        }
        let known = self.waiting.iter().any(|job| job.key == key)
            || self.running.values().any(|(running, _)| *running == key);
        if !known {
            self.waiting.push_back(Job { key, stop: Stop::default(), work });
        }
        Ok(())
    }

    /// The next pack and the slot to run it on, if both are there.
    pub fn start_next(&mut self) -> Option<(usize, Job<W>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let slot = self.idle.pop()?;
        let job = self.waiting.pop_front()?;
        self.running.insert(slot, (job.key, job.stop.clone()));
        Some((slot, job))
    }

    /// A slot is through with its pack.
    pub fn finish(&mut self, slot: usize) {
        if self.running.remove(&slot).is_some() {
            self.idle.push(slot);
        }
    }

    /// Stops a pack: one that waits is handed back, one that runs is told.
    pub fn cancel(&mut self, key: PackKey) -> Option<Job<W>> {
        for (running, stop) in self.running.values() {
            if *running == key {
                stop.cancel();
            }
        }
        let position = self.waiting.iter().position(|job| job.key == key)?;
        self.waiting.remove(position)
    }

    /// Stops everything that an earlier coordinator wanted and that does not run yet: its successor plans anew.
    pub fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Takes no more packs; hands back those that wait.
    pub fn close(&mut self) -> Vec<Job<W>> {
        self.closed = true;
        self.waiting.drain(..).collect()
    }

    /// Tells all that run to stop, because the worker leaves.
    pub fn leave(&self) {
        self.running.values().for_each(|(_, stop)| stop.leave());
    }

    /// Packs that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Packs that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pack: u64) -> PackKey {
        PackKey { epoch: 1, pack }
    }

    #[test]
    fn packs_run_in_order_on_free_slots() {
        let mut slots = Slots::new(1);
        for pack in [1, 2, 2] {
            slots.push(key(pack), pack).expect("open");
        }
        let (slot, job) = slots.start_next().expect("job");
        assert_eq!((job.key, slots.waiting()), (key(1), 1));
        assert!(slots.start_next().is_none(), "there is one slot");
        slots.finish(slot);
        assert_eq!(slots.start_next().map(|(_, job)| job.key), Some(key(2)));
    }

    #[test]
    fn a_cancelled_pack_is_handed_back_or_told() {
        let mut slots = Slots::new(1);
        slots.push(key(1), ()).expect("open");
        slots.push(key(2), ()).expect("open");
        let (_, running) = slots.start_next().expect("job");
        assert!(slots.cancel(key(1)).is_none());
        assert!(running.stop.is_set());
        assert_eq!(slots.cancel(key(2)).map(|job| job.key), Some(key(2)));
        assert_eq!(slots.waiting(), 0);
    }

    #[test]
    fn a_pack_that_nobody_wants_is_not_handed_on_by_a_worker_that_leaves() {
        let mut slots = Slots::new(2);
        slots.push(key(1), ()).expect("open");
        slots.push(key(2), ()).expect("open");
        let jobs: Vec<_> = std::iter::from_fn(|| slots.start_next()).map(|(_, job)| job).collect();
        assert!(slots.cancel(key(1)).is_none());
        slots.leave();
        assert_eq!(jobs.iter().map(|job| job.stop.is_leaving()).collect::<Vec<_>>(), [false, true]);
        assert!(jobs.iter().all(|job| job.stop.is_set()));
    }

    #[test]
    fn closed_slots_take_nothing() {
        let mut slots = Slots::new(1);
        slots.push(key(1), 1).expect("open");
        assert_eq!(slots.close().len(), 1);
        assert_eq!(slots.push(key(2), 2), Err(2));
    }
}
