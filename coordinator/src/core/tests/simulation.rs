//! A cluster that goes wrong in every way it can, around a scheduler whose accounts are audited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;

use super::super::*;
use super::env::{Grid, SPEED, Sent, TestEnv, sweep_id};

/// What the store still has to write, and whether as failed.
type Rows = Vec<(SweepId, TrialSet, bool)>;

/// The audit of one sweep.
#[derive(Default)]
pub struct Account {
    pub total: u64,
    pub poison: RoaringTreemap,
    /// Ordered to be written, as results or as failed.
    pub ordered: RoaringTreemap,
    pub failed: RoaringTreemap,
    pub durable: RoaringTreemap,
    pub cancelled: bool,
    pub finished: Option<SweepState>,
}

pub struct Simulation {
    pub env: TestEnv,
    pub accounts: BTreeMap<SweepId, Account>,
    /// Packs that some worker believes to have, whether or not the scheduler agrees.
    flying: Vec<Sent>,
    store: Rows,
    delivered: BTreeMap<(WorkerId, PackId), RoaringTreemap>,
    log: Vec<Event>,
}

/// One of `items`, by any number.
fn pick<T>(items: &[T], number: u64) -> Option<(usize, &T)> {
    let index = number.checked_rem(items.len() as u64)? as usize;
    items.get(index).map(|item| (index, item))
}

/// A part of the trials, by any number.
fn part(trials: &TrialSet, number: u64) -> TrialSet {
    let (first, second) = trials.split_at(1 + number % trials.len().max(1));
    if number & 64 == 0 || second.is_empty() { first } else { second }
}

impl Simulation {
    pub fn new(config: CoreConfig) -> Simulation {
        Simulation {
            env: TestEnv::with(config),
            accounts: BTreeMap::new(),
            flying: Vec::new(),
            store: Vec::new(),
            delivered: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    pub fn add(&mut self, name: &str, grid: Grid, poison: RoaringTreemap) {
        let account = Account { total: grid.total, poison, ..Account::default() };
        self.accounts.insert(sweep_id(name), account);
        self.send(Event::SweepAdded {
            sweep: sweep_id(name),
            shape: Arc::new(grid),
            priority: 1,
            max_attempts: 2,
            done: RoaringTreemap::new(),
            counts: StatusCounts::default(),
        });
    }

    pub fn send(&mut self, event: Event) {
        self.log.push(event.clone());
        self.deliver(event);
    }

    fn deliver(&mut self, event: Event) {
        let paused = matches!(event, Event::StoreStalled);
        match &event {
            Event::ResultsReceived { worker, pack, trials, .. } => {
                *self.delivered.entry((worker.clone(), *pack)).or_default() |= trials.to_bitmap();
            }
            Event::SweepCancelled { sweep } => {
                if let Some(account) = self.accounts.get_mut(sweep) {
                    account.cancelled |= account.finished.is_none();
                }
            }
            _ => {}
        }
        self.env.send(event);
        while let Some(action) = self.env.actions.pop_front() {
            assert!(!paused || !matches!(action, Action::Dispatch { .. }), "dispatched while stalled");
            self.audit(action);
        }
    }

    fn audit(&mut self, action: Action) {
        match action {
            Action::Dispatch { worker, sweep, pack, attempt, trials, cost, .. } => {
                let account = &self.accounts[&sweep];
                assert!(trials.to_bitmap().is_disjoint(&account.ordered), "{trials:?} were delivered before");
                self.flying.push(Sent { worker, sweep, pack, attempt, trials, cost });
            }
            Action::Persist { sweep, trials, .. } => self.order(sweep, trials, false),
            Action::RecordFailed { sweep, trial, .. } => {
                self.order(sweep, TrialSet::from(trial..trial + 1), true);
            }
            Action::Acknowledge { worker, sweep, pack } => {
                let account = &self.accounts[&sweep];
                let delivered = &self.delivered[&(worker, pack)];
                let wanted = delivered & &account.ordered;
                assert!(wanted.is_subset(&account.durable), "{pack} was acknowledged too early");
                assert!(account.cancelled || wanted == *delivered, "{pack} was acknowledged and not written");
            }
            Action::FinishSweep { sweep, state } => {
                let account = self.accounts.get_mut(&sweep).expect("a known sweep");
                assert_eq!(account.finished.replace(state), None, "{sweep} ended twice");
                assert_eq!(account.durable, account.ordered, "{sweep} ended with rows on their way");
            }
            Action::Cancel { .. } | Action::QuarantineWorker { .. } => {}
        }
    }

    fn order(&mut self, sweep: SweepId, trials: TrialSet, failed: bool) {
        let account = self.accounts.get_mut(&sweep).expect("a known sweep");
        let members = trials.to_bitmap();
        assert!(members.is_disjoint(&account.ordered), "{sweep}: {trials:?} are written twice");
        account.ordered |= &members;
        if failed {
            account.failed |= &members;
        }
        self.store.push((sweep, trials, failed));
    }

    /// Writes what waits for the store, or only an entry of it.
    pub fn flush(&mut self, which: Option<u64>) {
        let rows = match which {
            None => std::mem::take(&mut self.store),
            Some(number) => match pick(&self.store, number) {
                Some((index, _)) => vec![self.store.remove(index)],
                None => return,
            },
        };
        for (sweep, trials, failed) in rows {
            let account = self.accounts.get_mut(&sweep).expect("a known sweep");
            let members = trials.to_bitmap();
            assert!(members.is_disjoint(&account.durable), "{sweep}: {trials:?} are durable twice");
            account.durable |= members;
            let count = trials.len();
            let counts = if failed {
                StatusCounts { failed: count, ..StatusCounts::default() }
            } else {
                StatusCounts { completed: count / 2, diverged: count - count / 2, failed: 0 }
            };
            self.send(Event::ResultsDurable { sweep, trials, counts });
        }
    }

    fn results(&mut self, sent: &Sent, trials: &TrialSet) {
        // No execution of a poison trial ever yields a result.
        let poison = &self.accounts[&sent.sweep].poison;
        let (worker, sweep, pack) = (sent.worker.clone(), sent.sweep.clone(), sent.pack);
        let trials = trials.difference_bitmap(poison);
        if !trials.is_empty() {
            self.send(Event::ResultsReceived { worker, sweep, pack, trials });
        }
    }

    fn fail(&mut self, sent: &Sent, kind: FailureKind) {
        let (worker, pack) = (sent.worker.clone(), sent.pack);
        self.send(Event::PackFailed { worker, pack, kind, message: kind.to_string() });
    }

    /// Runs a pack to its end, which is a failure if it has a poison trial.
    fn run(&mut self, sent: &Sent, kind: FailureKind) {
        let poisoned = !sent.trials.to_bitmap().is_disjoint(&self.accounts[&sent.sweep].poison);
        if poisoned {
            return self.fail(sent, kind);
        }
        self.results(sent, &sent.trials.clone());
        let (worker, pack) = (sent.worker.clone(), sent.pack);
        self.send(Event::PackFinished { worker, pack, seconds_busy: sent.cost / SPEED });
    }

    pub fn join(&mut self, name: String) {
        self.send(Event::WorkerJoined { worker: name.into(), slots: 2, prior_speed: SPEED });
    }

    /// Something happens; `code` says what and `number` to whom.
    pub fn disturb(&mut self, code: u8, number: u64) {
        let worker = format!("w{}", number % 4);
        let chosen = pick(&self.flying, number).map(|(index, sent)| (index, sent.clone()));
        let sweep =
            pick(&self.accounts.keys().cloned().collect::<Vec<_>>(), number).map(|(_, id)| id.clone());
        let kinds = FailureKind::ALL;
        let kind = pick(&kinds, number / 7).map_or(FailureKind::Transient, |(_, kind)| *kind);
        match (code % 16, chosen, sweep) {
            (0, ..) => self.join(worker),
            (1, ..) => {
                let reasons = [GoneReason::Lost, GoneReason::Drained, GoneReason::Crashed];
                let reason = pick(&reasons, number / 4).map_or(GoneReason::Lost, |(_, reason)| *reason);
                self.send(Event::WorkerGone { worker: worker.into(), reason });
            }
            (2 | 3, Some((_, sent)), _) => self.results(&sent, &part(&sent.trials, number)),
            (4..=6, Some((index, sent)), _) => {
                self.flying.remove(index);
                self.run(&sent, kind);
            }
            (7, Some((index, sent)), _) => {
                self.flying.remove(index);
                self.fail(&sent, kind);
            }
            (8, Some((index, sent)), _) => {
                // It ends without all of its results, which may come later, or never.
                let (worker, pack) = (sent.worker.clone(), sent.pack);
                self.send(Event::PackFinished { worker, pack, seconds_busy: 0.1 });
                if number & 8 == 0 {
                    self.flying.remove(index);
                }
            }
            (9, Some((_, sent)), _) => {
                let (worker, pack) = (sent.worker.clone(), sent.pack);
                self.send(Event::PackProgressed { worker, pack, fraction: number as f64 / 1e19 });
            }
            (10, ..) => {
                // Anything may be delivered a second time.
                if let Some((_, event)) = pick(&self.log, number) {
                    self.deliver(event.clone());
                }
            }
            (11, ..) => self.flush(Some(number)),
            (12, ..) => self.send(if number & 1 == 0 { Event::StoreStalled } else { Event::StoreRecovered }),
            (13, _, Some(sweep)) => self.send(match number % 3 {
                0 => Event::SweepPaused { sweep },
                _ => Event::SweepResumed { sweep },
            }),
            (14, ..) if number.is_multiple_of(8) => {
                self.send(Event::WorkerDraining { worker: worker.into() })
            }
            (15, _, Some(sweep)) if sweep.as_str() == "doomed" && number.is_multiple_of(8) => {
                self.send(Event::SweepCancelled { sweep });
            }
            _ => {
                self.env.now += Duration::from_millis(number % 4_000);
                self.send(Event::Tick);
            }
        }
    }

    /// All trouble ends; two good workers run what is left. Fails if that takes for ever.
    pub fn run_to_the_end(&mut self, kind: FailureKind) {
        self.send(Event::StoreRecovered);
        for worker in 0..4 {
            let (worker, reason) = (format!("w{worker}").into(), GoneReason::Drained);
            self.send(Event::WorkerGone { worker, reason });
        }
        for sweep in self.accounts.keys().cloned().collect::<Vec<_>>() {
            self.send(Event::SweepResumed { sweep });
        }
        self.join("good-1".into());
        self.join("good-2".into());
        for _ in 0..20_000 {
            while let Some(sent) = self.flying.pop() {
                self.run(&sent, kind);
            }
            self.flush(None);
            if self.flying.is_empty() {
                if self.accounts.values().all(|account| account.finished.is_some()) {
                    return;
                }
                self.env.now = self.env.core.next_deadline().expect("a deadline, as work is left");
                self.send(Event::Tick);
            }
        }
        panic!("the sweeps never end");
    }

    /// Every trial has exactly one row, or the sweep was cancelled.
    pub fn settle_accounts(&self) {
        for (id, account) in &self.accounts {
            let sweep = self.env.core.find_sweep(id).expect("a known sweep");
            assert_eq!(sweep.counts.total(), account.durable.len());
            assert_eq!(sweep.counts.failed, account.failed.len());
            assert_eq!(sweep.awaiting, 0);
            if account.finished == Some(SweepState::Completed) {
                assert_eq!(account.durable.len(), account.total);
                assert!(account.poison.is_subset(&account.failed), "{id}: a poison trial has a result");
            }
        }
    }
}
