//! Who gets which pack: fills free places with the work of the sweep whose turn it is, sizes packs, and
//! gives stragglers a twin.

use std::time::Duration;

use evenkeel_common::id::SweepId;

use super::action::Action;
use super::ids::{PackId, WorkerId};
use super::pack::Pack;
use super::packing::{PackSize, Taken, Taker};
use super::sweep::Sweep;
use super::worker::Worker;
use super::{Core, CoreConfig, SweepState};

/// How many times the work of a normal pack trials with a history may have, to stay together.
const PART_FACTOR: f64 = 4.0;
/// Packs queue behind others only while this many of the shortest ones are left for each slot: later, a
/// slot that becomes idle elsewhere is sooner there.
const QUEUE_FACTOR: f64 = 2.0;

/// More packs in flight hide nothing and make every failure dearer.
const MAX_PACKS_PER_SLOT: u32 = 16;
/// How many idle workers are looked at for each straggler: in a large cluster nearly all are idle at the
/// end, and any of the fastest will do.
const CANDIDATES: usize = 16;

/// The workers that may get packs now, as a whole.
struct Fleet {
    workers: usize,
    /// Units per second of all slots.
    speed: f64,
}

impl Core {
    /// The next moment at which [`Event::Tick`](super::Event::Tick) is due, if no other event comes
    /// before: the end of a pause, or a pack that becomes a straggler.
    pub fn next_deadline(&self) -> Option<Duration> {
        let pauses = self.workers.values().filter_map(|worker| worker.standing.until);
        let active = self.sweeps.values().filter(|sweep| sweep.state == SweepState::Running);
        let parts = active.flat_map(|sweep| &sweep.parts).flat_map(|part| [part.ready_at, part.open_at]);
        let ahead = pauses.chain(parts).filter(|at| *at > self.now).min();
        // While nothing is dispatched, what becomes ready has to wait for the store anyway.
        if self.waits_for_store() { None } else { [ahead, self.next_straggler()].into_iter().flatten().min() }
    }

    /// When the next pack becomes a straggler for a worker that has an idle slot.
    fn next_straggler(&self) -> Option<Duration> {
        let idle = self.idle_workers();
        let due =
            idle.iter().filter_map(|id| Some((id, self.workers.get(id)?.speed()))).flat_map(|(id, speed)| {
                let packs = self.packs.values().filter(move |pack| self.may_have_twin(pack, id));
                packs.map(move |pack| pack.overdue_at(speed, self.config.straggler_after))
            });
        due.filter(|at| *at > self.now).min()
    }

    /// Dispatches all that can be dispatched now.
    pub(super) fn place(&mut self) {
        for worker in self.workers.values_mut() {
            worker.standing.release(&self.config, self.now);
        }
        if self.waits_for_store() {
            return;
        }
        let eligible = || self.workers.values().filter(|worker| worker.is_eligible());
        let fleet = Fleet {
            workers: eligible().count(),
            speed: eligible().map(|worker| worker.speed() * f64::from(worker.slots)).sum(),
        };
        // Slots before queues: nothing waits behind a pack while a slot is idle.
        for depth in 1..=self.config.packs_per_slot.clamp(1, MAX_PACKS_PER_SLOT) {
            while self.place_round(depth, &fleet) {}
        }
        self.place_twins();
    }

    /// Gives a pack to each worker that has fewer than `depth` for each slot. Says whether any was given.
    fn place_round(&mut self, depth: u32, fleet: &Fleet) -> bool {
        let has_room = |worker: &Worker| {
            let room = worker.packs.len() < worker.slots as usize * depth as usize;
            // One pack tells the speed of a new worker; more of them would be guesses as well.
            room && worker.is_eligible() && (depth == 1 || worker.probed)
        };
        let takers: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| has_room(worker)).map(|(id, _)| id.clone()).collect();
        let mut placed = false;
        for taker in takers {
            placed |= self.place_on(&taker, depth > 1, fleet);
        }
        placed
    }

    fn place_on(&mut self, id: &WorkerId, queue: bool, fleet: &Fleet) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let mut turn: Vec<(f64, &SweepId)> = self
            .sweeps
            .iter()
            .filter_map(|(sweep_id, sweep)| sweep.is_active().then_some((sweep.pass, sweep_id)))
            .collect();
        turn.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        let turn: Vec<SweepId> = turn.into_iter().map(|(_, sweep_id)| sweep_id.clone()).collect();
        for sweep_id in turn {
            let Some(sweep) = self.sweeps.get_mut(&sweep_id) else { continue };
            let left = seconds_left(sweep, fleet);
            if queue && left <= QUEUE_FACTOR * self.config.min_pack_seconds {
                continue;
            }
            let size = pack_size(&self.config, worker, &sweep_id, left);
            let last_trial =
                worker.last.as_ref().filter(|(last, _)| *last == sweep_id).map(|(_, last)| *last);
            let taker = Taker { worker: id, last_trial, others: fleet.workers > 1 };
            if let Some(taken) = sweep.take(size, &taker, self.now) {
                self.virtual_time = sweep.pass;
                sweep.pass += taken.cost / f64::from(sweep.priority);
                self.dispatch(sweep_id, id.clone(), taken, None);
                return true;
            }
        }
        false
    }

    fn dispatch(&mut self, sweep: SweepId, id: WorkerId, taken: Taken, twin: Option<PackId>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let pack = PackId(self.next_pack);
        self.next_pack += 1;
        let queued =
            |id: &PackId| self.packs.get(id).map_or(0.0, |ahead| ahead.cost * (1.0 - ahead.fraction));
        let ahead: f64 =
            if worker.has_idle_slot() { 0.0 } else { worker.packs.iter().map(queued).sum::<f64>() };
        let expected = (taken.cost + ahead / f64::from(worker.slots)) / worker.speed();
        worker.packs.push(pack);
        worker.last = taken.trials.last().map(|last| (sweep.clone(), last));
        self.actions.push(Action::Dispatch {
            worker: id.clone(),
            sweep: sweep.clone(),
            pack,
            attempt: taken.history.attempts.saturating_add(1),
            trials: taken.trials.clone(),
            cost: taken.cost,
            expected_seconds: expected,
        });
        let pack_in_flight = Pack {
            sweep,
            worker: id,
            open: taken.trials.clone(),
            trials: taken.trials,
            cost: taken.cost,
            history: taken.history,
            dispatched_at: self.now,
            expected,
            started: false,
            fraction: 0.0,
            twin,
            last_chance: false,
        };
        self.packs.insert(pack, pack_in_flight);
        if let Some(straggler) = twin.and_then(|straggler| self.packs.get_mut(&straggler)) {
            straggler.twin = Some(pack);
        }
    }

    /// Runs stragglers a second time on slots for which nothing else is left.
    fn place_twins(&mut self) {
        let mut placed = true;
        while placed {
            placed = false;
            for id in self.idle_workers() {
                while let Some((straggler, pack)) = self.find_straggler(&id) {
                    let (trials, history) = (pack.open.clone(), pack.history.clone());
                    let taken = Taken { trials, cost: pack.open_cost(), history };
                    self.dispatch(pack.sweep.clone(), id.clone(), taken, Some(straggler));
                    placed = true;
                }
            }
        }
    }

    /// The fastest workers with an idle slot.
    fn idle_workers(&self) -> Vec<WorkerId> {
        let free = |worker: &Worker| worker.is_eligible() && worker.has_idle_slot();
        let mut idle: Vec<_> = self.workers.iter().filter(|(_, worker)| free(worker)).collect();
        idle.sort_by(|a, b| b.1.speed().total_cmp(&a.1.speed()).then_with(|| a.0.cmp(b.0)));
        idle.into_iter().take(CANDIDATES).map(|(id, _)| id.clone()).collect()
    }

    /// The pack that is most overdue, of those the worker may run as well.
    fn find_straggler(&self, id: &WorkerId) -> Option<(PackId, &Pack)> {
        let worker = self.workers.get(id).filter(|worker| worker.has_idle_slot())?;
        let overdue = self.packs.iter().filter(|(_, pack)| {
            self.may_have_twin(pack, id)
                && pack.overdue_at(worker.speed(), self.config.straggler_after) <= self.now
        });
        let lateness = |pack: &Pack| {
            let elapsed = self.now.saturating_sub(pack.dispatched_at).as_secs_f64();
            elapsed / pack.expected.max(1e-3)
        };
        overdue
            .map(|(id, pack)| (lateness(pack), *id, pack))
            .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)))
            .map(|(_, id, pack)| (id, pack))
    }

    fn may_have_twin(&self, pack: &Pack, taker: &WorkerId) -> bool {
        pack.twin.is_none()
            && !pack.last_chance
            && pack.worker != *taker
            && !pack.open.is_empty()
            && self.sweeps.get(&pack.sweep).is_some_and(|sweep| sweep.state == SweepState::Running)
    }
}

/// How long the fleet needs for what waits of a sweep, if it does nothing else.
fn seconds_left(sweep: &Sweep, fleet: &Fleet) -> f64 {
    sweep.pending() as f64 * sweep.mean_pending_cost() / fleet.speed.max(1.0)
}

/// Guided self-scheduling: a pack is half of the worker's share of what is left, so that all workers
/// become idle at about the same time, but neither longer nor shorter than is efficient.
fn pack_size(config: &CoreConfig, worker: &Worker, sweep: &SweepId, seconds_left: f64) -> PackSize {
    let seconds = if worker.probed {
        (seconds_left / 2.0).max(config.min_pack_seconds).min(config.pack_seconds)
    } else {
        config.probe_seconds
    };
    PackSize {
        cost: worker.speed() * seconds,
        part_cost: worker.speed() * config.pack_seconds * PART_FACTOR,
        trials: config.max_pack_trials.max(1).min(worker.trial_limit(sweep)),
    }
}
