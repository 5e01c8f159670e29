//! Whether all that is known agrees with itself.

use std::collections::BTreeSet;

use roaring::RoaringTreemap;

use evenkeel_common::id::SweepId;

use super::ids::{PackId, WorkerId};
use super::pack::Pack;
use super::sweep::{Sweep, SweepState};
use super::worker::Worker;
use super::{Core, TrialSet};

impl Core {
    /// Checks every invariant. For tests: the time is linear in all that is known.
    ///
    /// # Panics
    /// When one does not hold, with what is wrong and where.
    pub fn sanity_check(&self) {
        for (id, sweep) in &self.sweeps {
            self.check_places(id, sweep);
            check_queue(id, sweep);
            check_state(id, sweep);
            self.check_deliveries(id, sweep);
        }
        for (id, pack) in &self.packs {
            self.check_pack(*id, pack);
        }
        for (id, worker) in &self.workers {
            self.check_worker(id, worker);
        }
        let listed: usize = self.workers.values().map(|worker| worker.packs.len()).sum();
        assert_eq!(
            listed,
            self.packs.len(),
            "workers list {listed} packs, in flight are {}",
            self.packs.len()
        );
        assert!(self.actions.is_empty(), "{} actions were not returned", self.actions.len());
        assert!(self.virtual_time.is_finite(), "virtual time is {}", self.virtual_time);
        if let Some(deadline) = self.next_deadline() {
            assert!(deadline > self.now, "the deadline {deadline:?} is over: it is {:?}", self.now);
        }
    }

    /// Every trial is in exactly one place.
    fn check_places(&self, id: &SweepId, sweep: &Sweep) {
        let mut places = Vec::new();
        let mut unseen = RoaringTreemap::new();
        unseen.insert_range(sweep.cursor..sweep.total);
        unseen -= &sweep.ahead;
        places.push(("ahead of the cursor".to_owned(), unseen));
        places.push(("returned".to_owned(), sweep.returned.clone()));
        for (index, part) in sweep.parts.iter().enumerate() {
            places.push((format!("part {index}"), part.trials.to_bitmap()));
        }
        let mut running = 0;
        for (pack_id, pack) in self.packs.iter().filter(|(_, pack)| pack.sweep == *id) {
            // Twins run the same trials: the elder stands for both.
            if pack.twin.is_none_or(|twin| *pack_id < twin) {
                running += pack.open.len();
                places.push((format!("pack {pack_id}"), pack.open.to_bitmap()));
            }
        }
        places.push(("awaiting".to_owned(), sweep.awaiting.clone()));
        places.push(("done".to_owned(), sweep.done.clone()));

        let mut seen = RoaringTreemap::new();
        for (place, members) in &places {
            if !seen.is_disjoint(members) {
                let twice = (&seen & members).min();
                let first = places.iter().find(|(_, others)| !others.is_disjoint(members));
                let other = first.map_or("", |(name, _)| name.as_str());
                panic!("{id}: trial {twice:?} is in {place} and in {other} or another place before it");
            }
            seen |= members;
        }
        if let Some(last) = seen.max() {
            assert!(last < sweep.total, "{id}: there is no trial {last}, only {}", sweep.total);
        }
        if seen.len() != sweep.total {
            let missing = (0..sweep.total).find(|trial| !seen.contains(*trial));
            panic!(
                "{id}: {} of {} trials are nowhere, like {missing:?}",
                sweep.total - seen.len(),
                sweep.total
            );
        }
        assert_eq!(sweep.running(), running, "{id}: the count of running trials disagrees with the packs");
        let sum = sweep.pending() + running + sweep.awaiting.len() + sweep.done.len();
        assert_eq!(sum, sweep.total, "{id}: the counts do not add up");
    }

    fn check_deliveries(&self, id: &SweepId, sweep: &Sweep) {
        for ((worker, pack), trials) in &sweep.deliveries {
            assert!(!trials.is_empty(), "{id}: the delivery of {pack} by {worker} was not acknowledged");
            let astray = trials.difference_bitmap(&sweep.awaiting);
            assert!(
                astray.is_empty(),
                "{id}: the delivery of {pack} by {worker} waits for {:?}, which do not await the store",
                astray.ranges()
            );
        }
        let packs = self.packs.values().filter(|pack| pack.sweep == *id).count();
        if matches!(sweep.state, SweepState::Cancelled) {
            assert_eq!(packs, 0, "{id}: it is cancelled and has packs in flight");
        }
    }

    fn check_pack(&self, id: PackId, pack: &Pack) {
        assert!(id.0 < self.next_pack, "pack {id} is from the future");
        assert!(self.sweeps.contains_key(&pack.sweep), "pack {id}: no sweep {}", pack.sweep);
        let Some(worker) = self.workers.get(&pack.worker) else {
            panic!("pack {id}: no worker {}", pack.worker);
        };
        let listed = worker.packs.iter().filter(|other| **other == id).count();
        assert_eq!(listed, 1, "pack {id}: worker {} lists it {listed} times", pack.worker);
        assert!(!pack.trials.is_empty(), "pack {id} is empty");
        let count = pack.trials.len();
        assert!(count <= self.config.max_pack_trials.max(1), "pack {id} has {count} trials");
        let astray = pack.open.difference(&pack.trials);
        assert!(astray.is_empty(), "pack {id} waits for {:?}, which are not its own", astray.ranges());
        assert!(pack.cost.is_finite() && pack.cost > 0.0, "pack {id} costs {}", pack.cost);
        assert!(pack.expected.is_finite(), "pack {id} is expected to take {}", pack.expected);
        assert!((0.0..=1.0).contains(&pack.fraction), "pack {id} is done by {}", pack.fraction);
        assert!(pack.dispatched_at <= self.now, "pack {id} was dispatched in the future");
        let Some(twin_id) = pack.twin else { return };
        let Some(twin) = self.packs.get(&twin_id) else {
            panic!("pack {id}: its twin {twin_id} is not in flight");
        };
        assert_eq!(twin.twin, Some(id), "pack {id}: its twin {twin_id} has another one");
        assert_eq!(twin.sweep, pack.sweep, "pack {id}: its twin {twin_id} is of another sweep");
        assert_ne!(twin.worker, pack.worker, "pack {id}: its twin {twin_id} is on the same worker");
        assert_eq!(twin.open, pack.open, "pack {id}: its twin {twin_id} waits for other trials");
        assert!(!pack.open.is_empty(), "packs {id} and {twin_id}: nobody wants their trials any more");
    }

    fn check_worker(&self, id: &WorkerId, worker: &Worker) {
        assert!(worker.slots >= 1, "worker {id} has no slot");
        let most = worker.slots as usize * self.config.packs_per_slot.max(1) as usize;
        assert!(worker.packs.len() <= most, "worker {id} has {} packs, not {most}", worker.packs.len());
        let distinct: BTreeSet<&PackId> = worker.packs.iter().collect();
        assert_eq!(distinct.len(), worker.packs.len(), "worker {id} lists a pack twice");
        for pack in &worker.packs {
            let owner = self.packs.get(pack).map(|pack| &pack.worker);
            assert_eq!(owner, Some(id), "worker {id} lists pack {pack}, which is not its own");
        }
        let speed = worker.speed();
        assert!(speed.is_finite() && speed > 0.0, "worker {id} has a speed of {speed}");
        if let Some(until) = worker.standing.until {
            assert!(until > self.now, "worker {id} is in quarantine until {until:?}, which is over");
        }
        assert!(!self.remembered.contains_key(id), "worker {id} is there and remembered as gone");
    }
}

/// The cursor and what is around it.
fn check_queue(id: &SweepId, sweep: &Sweep) {
    let cursor = sweep.cursor;
    assert!(cursor <= sweep.total, "{id}: the cursor {cursor} is beyond {}", sweep.total);
    assert!(!sweep.ahead.contains(cursor), "{id}: the cursor {cursor} is on a trial that does not wait");
    assert!(sweep.ahead.min().is_none_or(|min| min >= cursor), "{id}: trials ahead are behind the cursor");
    assert!(sweep.returned.max().is_none_or(|max| max < cursor), "{id}: returned trials are ahead");
    let mut settled = &sweep.done | &sweep.awaiting;
    settled.remove_range(0..cursor);
    assert!(settled == sweep.ahead, "{id}: the trials ahead are not those delivered ahead of the cursor");
    for (index, part) in sweep.parts.iter().enumerate() {
        assert!(!part.trials.is_empty(), "{id}: part {index} is empty");
        assert!(part.trials.last() < Some(cursor), "{id}: part {index} is ahead of the cursor");
        assert!(part.open_at >= part.ready_at, "{id}: part {index} is open before it is ready");
        check_ranges(id, &part.trials);
    }
}

fn check_ranges(id: &SweepId, trials: &TrialSet) {
    for pair in trials.ranges().windows(2) {
        if let [a, b] = pair {
            assert!(a.end < b.start, "{id}: the ranges {a:?} and {b:?} are not apart");
        }
    }
}

fn check_state(id: &SweepId, sweep: &Sweep) {
    let (done, counted) = (sweep.done.len(), sweep.counts.total());
    assert_eq!(done, counted, "{id}: {done} trials are done, {counted} are counted");
    assert!(sweep.priority >= 1, "{id}: its priority is 0");
    assert!(sweep.max_attempts >= 1, "{id}: its trials have no attempt");
    assert!(sweep.pass.is_finite() && sweep.pass >= 0.0, "{id}: its pass is {}", sweep.pass);
    match sweep.state {
        SweepState::Running | SweepState::Paused => {
            assert!(!sweep.finished, "{id}: it is finished and {}", sweep.state);
            assert!(done < sweep.total, "{id}: all trials are durable and it is {}", sweep.state);
        }
        SweepState::Completed => {
            assert!(sweep.finished, "{id}: it is completed and not finished");
            assert_eq!(done, sweep.total, "{id}: it is completed with {done} trials");
        }
        SweepState::Cancelled => {
            let awaiting = sweep.awaiting.len();
            assert_eq!(
                sweep.finished,
                awaiting == 0,
                "{id}: it is cancelled and {awaiting} trials await the store"
            );
        }
    }
}
