//! What came back: which results are new, what is acknowledged, when a sweep is finished.

use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;

use super::action::Action;
use super::event::StatusCounts;
use super::ids::{PackId, WorkerId};
use super::pack::Pack;
use super::trials::TrialSet;
use super::{Core, SweepState};

impl Core {
    pub(super) fn on_results_received(
        &mut self,
        worker: WorkerId,
        id: SweepId,
        pack: PackId,
        trials: &TrialSet,
    ) {
        let Some(sweep) = self.sweeps.get_mut(&id) else {
            // All sweeps of the store are added before workers are served: nobody will ever want these.
            self.actions.push(Action::Acknowledge { worker, sweep: id, pack });
            return;
        };
        let undone = trials.below(sweep.total).difference_bitmap(&sweep.done);
        let fresh = undone.difference_bitmap(&sweep.awaiting);
        let (fresh, waiting) = if sweep.state == SweepState::Cancelled {
            // Only what was delivered before counts.
            (TrialSet::new(), undone.difference(&fresh))
        } else {
            (fresh, undone)
        };
        if waiting.is_empty() {
            let key = (worker, pack);
            // An earlier part of the same delivery may still be on its way into the store.
            if !sweep.deliveries.contains_key(&key) {
                self.actions.push(Action::Acknowledge { worker: key.0, sweep: id, pack });
            }
            return;
        }
        fresh.insert_into(&mut sweep.awaiting);
        let delivery = sweep.deliveries.entry((worker.clone(), pack)).or_default();
        *delivery = delivery.union(&waiting);
        if !fresh.is_empty() {
            let own = |found: &&Pack| found.worker == worker && found.sweep == id;
            let deliverer = self.packs.get(&pack).filter(own).map(|_| pack);
            let trials = fresh.clone();
            self.actions.push(Action::Persist { sweep: id.clone(), pack, worker, trials });
            self.settle(&id, &fresh, deliverer);
        }
    }

    /// Takes trials that are delivered out of wherever they wait or run. Packs of which nothing is wanted
    /// any more are cancelled, except the one that delivered: it ends by itself.
    fn settle(&mut self, id: &SweepId, fresh: &TrialSet, deliverer: Option<PackId>) {
        let mut rest = fresh.clone();
        let mut touched: Vec<PackId> = Vec::new();
        // Nearly always they belong to the pack that they came with, and to its twin.
        if let Some(pack) = deliverer.and_then(|pack| self.packs.get(&pack)) {
            touched.extend(deliverer);
            touched.extend(pack.twin);
            rest.remove(&pack.open);
        }
        if !rest.is_empty() {
            if let Some(sweep) = self.sweeps.get_mut(id) {
                sweep.withdraw(&rest);
            }
            let others = self.packs.iter().filter(|(_, pack)| pack.sweep == *id && pack.open.overlaps(&rest));
            touched.extend(others.map(|(id, _)| *id));
        }
        for pack_id in touched {
            let Some(pack) = self.packs.get_mut(&pack_id) else { continue };
            pack.open.remove(fresh);
            if pack.open.is_empty() && deliverer != Some(pack_id) {
                self.learn_from_loser(pack_id);
                self.cancel_pack(pack_id);
            }
        }
    }

    /// A straggler that is cancelled never reports how long it took, so its worker would stay as fast as
    /// it was believed to be.
    fn learn_from_loser(&mut self, id: PackId) {
        let Some(pack) = self.packs.get(&id) else { return };
        let elapsed = self.now.saturating_sub(pack.dispatched_at).as_secs_f64();
        if elapsed > pack.expected.max(self.config.min_pack_seconds) {
            let cost = pack.cost;
            if let Some(worker) = self.workers.get_mut(&pack.worker) {
                worker.measure(cost, elapsed);
                worker.probed = true;
            }
        }
    }

    pub(super) fn on_results_durable(&mut self, id: &SweepId, trials: &TrialSet, counts: StatusCounts) {
        let Some(sweep) = self.sweeps.get_mut(id) else { return };
        let trials = trials.below(sweep.total);
        let unexpected = sweep.mark_durable(&trials, counts);
        let mut complete = Vec::new();
        for (key, delivery) in &mut sweep.deliveries {
            if delivery.remove(&trials) && delivery.is_empty() {
                complete.push(key.clone());
            }
        }
        for key in complete {
            sweep.deliveries.remove(&key);
            let (worker, pack) = key;
            self.actions.push(Action::Acknowledge { worker, sweep: id.clone(), pack });
        }
        if !unexpected.is_empty() {
            self.settle(id, &unexpected, None);
        }
    }

    pub(super) fn on_pack_finished(&mut self, id: &WorkerId, pack: PackId, seconds_busy: f64) {
        if self.packs.get(&pack).is_none_or(|pack| pack.worker != *id) {
            return;
        }
        let Some(pack) = self.remove_pack(pack) else { return };
        if let Some(worker) = self.workers.get_mut(id) {
            worker.measure(pack.cost, seconds_busy);
            worker.probed = true;
            if pack.open.is_empty() {
                worker.standing.on_success();
                worker.raise_limit(&pack.sweep, pack.trials.len());
            }
        }
        if !pack.open.is_empty() {
            self.fail(pack, FailureKind::Transient, "results never came".to_owned());
        }
    }

    /// Ends the sweeps for which nothing is left to do.
    pub(super) fn finish_sweeps(&mut self) {
        for (id, sweep) in &mut self.sweeps {
            if sweep.finished {
                continue;
            }
            if sweep.state == SweepState::Cancelled {
                sweep.finished = sweep.awaiting.is_empty();
            } else if sweep.done.len() == sweep.total {
                sweep.finished = true;
                sweep.state = SweepState::Completed;
            }
            if sweep.finished {
                for worker in self.workers.values_mut() {
                    worker.forget_sweep(id);
                }
                self.actions.push(Action::FinishSweep { sweep: id.clone(), state: sweep.state });
            }
        }
    }
}
