//! What becomes of the trials of a pack that failed, and of the worker it failed on.

use std::time::Duration;

use evenkeel_common::failure::{Disposition, FailureKind};

use super::Core;
use super::SweepState;
use super::action::Action;
use super::event::GoneReason;
use super::ids::{PackId, WorkerId};
use super::pack::{Pack, seconds};
use super::sweep::History;
use super::trials::TrialSet;

/// After so many failures of a pack the culprit is searched for.
const STRIKES_TO_BISECT: u32 = 2;
/// After so many deaths of the workers that ran it, a pack is a suspect: one may be a coincidence.
const DEATHS_TO_SUSPECT: u32 = 2;
/// How long a pack waits for another worker than the one it failed on, where there is one.
const ELSEWHERE: Duration = Duration::from_secs(10);
/// How many workers that left with a record are remembered: names may be used up for ever.
const MAX_REMEMBERED: usize = 1_024;

impl Core {
    pub(super) fn on_worker_gone(&mut self, id: &WorkerId, reason: GoneReason) {
        let Some(worker) = self.workers.remove(id) else { return };
        let mut standing = worker.standing;
        standing.release(&self.config, self.now);
        self.remember(id, standing);
        for (place, pack_id) in worker.packs.into_iter().enumerate() {
            let Some(pack) = self.remove_pack(pack_id) else { continue };
            let ran = pack.started || place < worker.slots as usize;
            match reason {
                GoneReason::Crashed | GoneReason::Lost if ran => self.on_death(pack, reason),
                _ => self.requeue(pack),
            }
        }
    }

    fn remember(&mut self, id: &WorkerId, standing: super::worker::Standing) {
        if !standing.is_clean() {
            self.remembered.insert(id.clone(), standing);
            if self.remembered.len() > MAX_REMEMBERED {
                self.remembered.pop_first();
            }
        }
    }

    pub(super) fn on_pack_failed(&mut self, id: &WorkerId, pack: PackId, kind: FailureKind, message: String) {
        if self.packs.get(&pack).is_none_or(|pack| pack.worker != *id) {
            return;
        }
        if let Some(worker) = self.workers.get_mut(id) {
            // One that leaves would hand the next pack back as well.
            worker.draining |= kind == FailureKind::WorkerDraining;
        }
        if let Some(pack) = self.remove_pack(pack) {
            self.fail(pack, kind, message);
        }
    }

    /// Deals with a pack that failed and is in flight no more.
    pub(super) fn fail(&mut self, pack: Pack, kind: FailureKind, message: String) {
        self.blame_worker(&pack, kind);
        if let Some(twin) = pack.twin.and_then(|twin| self.packs.get_mut(&twin)) {
            twin.last_chance = true;
        }
        if kind.disposition() == Disposition::Requeue {
            self.requeue(pack);
            return;
        }
        let max_attempts = match self.sweeps.get(&pack.sweep) {
            Some(sweep) if is_wanted(&pack, sweep.state) => sweep.max_attempts,
            _ => return self.requeue(pack),
        };
        let alone = pack.open.len() == 1;
        let mut history = pack.history.clone();
        if kind != FailureKind::WorkerCrashed {
            history.deaths = 0;
        }
        if alone || kind.disposition() != Disposition::Halve {
            history.attempts = history.attempts.saturating_add(1);
            history.strikes = history.strikes.saturating_add(1);
        }
        if !alone && history.deaths >= DEATHS_TO_SUSPECT {
            history.strikes = history.strikes.max(STRIKES_TO_BISECT);
        }
        let hopeless = kind.disposition() == Disposition::Isolate || history.strikes >= max_attempts;
        match pack.open.first().filter(|_| alone) {
            Some(trial) if hopeless => self.record_failed(&pack, trial, history.attempts, kind, message),
            _ => self.retry(pack, history, kind),
        }
    }

    /// Puts the trials of a failed pack back: whole, or in halves if one of them is to be found out or
    /// they are too many.
    fn retry(&mut self, pack: Pack, mut history: History, kind: FailureKind) {
        let alone = pack.open.len() == 1;
        let halved = !alone
            && match kind.disposition() {
                Disposition::Halve | Disposition::Isolate => true,
                _ => history.strikes >= STRIKES_TO_BISECT,
            };
        let waits = match kind.disposition() {
            Disposition::Retry => true,
            // A single trial cannot be halved: the device may be fuller than it is at other times.
            Disposition::Halve => alone,
            _ => false,
        };
        let elsewhere = waits || kind == FailureKind::WorkerCrashed;
        history.suspect = elsewhere.then(|| pack.worker.clone());
        let strikes = history.strikes.max(1);
        let (first, second) = if halved { pack.open.split_half() } else { (pack.open, TrialSet::new()) };
        for trials in [first, second] {
            let mut history = history.clone();
            if halved {
                history.strikes = if trials.len() == 1 { 0 } else { history.strikes.min(1) };
            }
            let pause = if waits { self.back_off(strikes, &trials) } else { Duration::ZERO };
            let ready_at = self.now.saturating_add(pause);
            let open_at = if elsewhere { ready_at.saturating_add(ELSEWHERE) } else { ready_at };
            if let Some(sweep) = self.sweeps.get_mut(&pack.sweep) {
                sweep.park(trials, history, ready_at, open_at);
            }
        }
    }

    /// The pause after so many failures: doubles with each, and differs from pack to pack, or all packs
    /// that failed for the same reason would come back at the same moment.
    fn back_off(&self, strikes: u32, trials: &TrialSet) -> Duration {
        let doubled = self.config.retry_base.saturating_mul(1 << strikes.saturating_sub(1).min(20));
        let full = doubled.min(self.config.retry_max);
        let mut hash = trials.first().unwrap_or(0) ^ (u64::from(strikes) << 48) ^ (self.next_pack << 20);
        // The finaliser of SplitMix64 spreads neighbouring numbers.
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        let part = (hash >> 11) as f64 / (1_u64 << 53) as f64;
        seconds(full.as_secs_f64() * (0.5 + 0.5 * part))
    }

    fn record_failed(&mut self, pack: &Pack, trial: u64, attempts: u32, kind: FailureKind, message: String) {
        if let Some(sweep) = self.sweeps.get_mut(&pack.sweep) {
            sweep.awaiting.insert(trial);
            let sweep = pack.sweep.clone();
            self.actions.push(Action::RecordFailed { sweep, trial, attempts, kind, message });
        }
    }

    /// Deals with a pack whose worker died or was lost. To be lost once is nobody's fault. If it happens
    /// again to the same pack, it probably takes its workers down: from outside, a killed process looks
    /// like a lost one.
    fn on_death(&mut self, mut pack: Pack, reason: GoneReason) {
        let first = pack.history.deaths == 0;
        pack.history.deaths = pack.history.deaths.saturating_add(1);
        if reason == GoneReason::Lost && pack.history.deaths < DEATHS_TO_SUSPECT {
            self.requeue(pack);
            return;
        }
        let message = if first {
            format!("worker {} died while running it", pack.worker)
        } else {
            format!("worker {} died while running it, like another before", pack.worker)
        };
        self.fail(pack, FailureKind::WorkerCrashed, message);
    }

    /// Puts the trials of a pack back as they were, unless a twin still runs them.
    pub(super) fn requeue(&mut self, pack: Pack) {
        let Some(sweep) = self.sweeps.get_mut(&pack.sweep) else { return };
        if pack.twin.is_some() || pack.open.is_empty() {
            return;
        }
        if sweep.state == SweepState::Cancelled || pack.history == History::default() {
            sweep.give_back(&pack.open);
        } else {
            sweep.park(pack.open, pack.history, self.now, self.now);
        }
    }

    /// Takes a pack out of flight. Its `twin` says whether another execution of its trials goes on.
    pub(super) fn remove_pack(&mut self, id: PackId) -> Option<Pack> {
        let pack = self.packs.remove(&id)?;
        if let Some(worker) = self.workers.get_mut(&pack.worker) {
            worker.packs.retain(|other| *other != id);
        }
        if let Some(twin) = pack.twin.and_then(|twin| self.packs.get_mut(&twin)) {
            twin.twin = None;
        }
        Some(pack)
    }

    /// Stops a pack on its worker.
    pub(super) fn cancel_pack(&mut self, id: PackId) {
        if let Some(pack) = self.remove_pack(id) {
            self.actions.push(Action::Cancel { worker: pack.worker.clone(), pack: id });
            self.requeue(pack);
        }
    }

    /// Counts a failure against the worker, if it tells something about it: data and memory are the
    /// trials' matter, and so is a pack that had failed before.
    fn blame_worker(&mut self, pack: &Pack, kind: FailureKind) {
        let telling = matches!(kind, FailureKind::Transient | FailureKind::WorkerCrashed);
        if let Some(worker) = self.workers.get_mut(&pack.worker)
            && kind == FailureKind::OutOfMemory
        {
            worker.lower_limit(&pack.sweep, pack.trials.len());
        }
        if !telling || pack.history.attempts > 0 || pack.history.deaths > 1 {
            return;
        }
        let standing = match self.workers.get_mut(&pack.worker) {
            Some(worker) => &mut worker.standing,
            None => self.remembered.entry(pack.worker.clone()).or_default(),
        };
        if let Some(until) = standing.on_failure(&self.config, self.now) {
            self.actions.push(Action::QuarantineWorker { worker: pack.worker.clone(), until });
        }
    }
}

/// Whether the trials of a failed pack are to be tried again here at all.
fn is_wanted(pack: &Pack, state: SweepState) -> bool {
    state != SweepState::Cancelled && pack.twin.is_none() && !pack.open.is_empty()
}
