//! A scheduler under test, with the actions it ordered and that nobody asked for yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;

use super::super::*;

/// Units per second of a worker of these tests, as it says and as it is measured.
pub const SPEED: f64 = 1e6;

/// A grid whose trials all cost the same and come in affinity groups of the same size.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub total: u64,
    pub cost: f64,
    pub group: u64,
}

impl SweepShape for Grid {
    fn total(&self) -> u64 {
        self.total
    }

    fn cost(&self, _: u64) -> f64 {
        self.cost
    }

    fn group_end(&self, trial: u64) -> u64 {
        ((trial / self.group + 1) * self.group).min(self.total)
    }

    fn run_end(&self, _: u64) -> u64 {
        self.total
    }
}

/// `total` trials of `seconds` of work each on a worker of [`SPEED`].
pub fn grid(total: u64, seconds: f64) -> Grid {
    Grid { total, cost: seconds * SPEED, group: total.max(1) }
}

pub fn sweep_id(name: &str) -> SweepId {
    SweepId::parse(name).expect("a valid id")
}

pub fn set(ranges: &[std::ops::Range<u64>]) -> TrialSet {
    TrialSet::from_ranges(ranges.iter().cloned())
}

pub fn completed(count: u64) -> StatusCounts {
    StatusCounts { completed: count, ..StatusCounts::default() }
}

/// A dispatch that was ordered.
#[derive(Clone, Debug)]
pub struct Sent {
    pub worker: WorkerId,
    pub sweep: SweepId,
    pub pack: PackId,
    pub attempt: u32,
    pub trials: TrialSet,
    pub cost: f64,
}

pub struct TestEnv {
    pub core: Core,
    pub now: Duration,
    pub actions: VecDeque<Action>,
}

impl TestEnv {
    pub fn new() -> TestEnv {
        TestEnv::with(CoreConfig::default())
    }

    pub fn with(config: CoreConfig) -> TestEnv {
        TestEnv { core: Core::new(config), now: Duration::ZERO, actions: VecDeque::new() }
    }

    /// No packs wait behind others, which makes scenarios easier to follow.
    pub fn without_queues() -> TestEnv {
        TestEnv::with(CoreConfig { packs_per_slot: 1, ..CoreConfig::default() })
    }

    pub fn send(&mut self, event: Event) -> &mut TestEnv {
        self.actions.extend(self.core.handle(event, self.now));
        self.core.sanity_check();
        self
    }

    pub fn add(&mut self, name: &str, grid: Grid) -> &mut TestEnv {
        self.add_with(name, grid, 1, 3, RoaringTreemap::new())
    }

    pub fn add_with(
        &mut self,
        name: &str,
        grid: Grid,
        priority: u32,
        max_attempts: u32,
        done: RoaringTreemap,
    ) -> &mut TestEnv {
        let (sweep, counts) = (sweep_id(name), completed(done.len()));
        self.send(Event::SweepAdded { sweep, shape: Arc::new(grid), priority, max_attempts, done, counts })
    }

    /// A worker whose speed is known: its first pack is sent and reported back, if there is work.
    pub fn join(&mut self, name: &str, slots: u32) -> &mut TestEnv {
        self.send(Event::WorkerJoined { worker: name.into(), slots, prior_speed: SPEED })
    }

    pub fn gone(&mut self, name: &str, reason: GoneReason) -> &mut TestEnv {
        self.send(Event::WorkerGone { worker: name.into(), reason })
    }

    pub fn wait(&mut self, seconds: f64) -> &mut TestEnv {
        self.now += Duration::from_secs_f64(seconds);
        self.send(Event::Tick)
    }

    /// Waits until the time the scheduler asked for.
    pub fn wait_for_deadline(&mut self) -> &mut TestEnv {
        self.now = self.core.next_deadline().expect("a deadline");
        self.send(Event::Tick)
    }

    pub fn results(&mut self, sent: &Sent, trials: &TrialSet) -> &mut TestEnv {
        self.send(Event::ResultsReceived {
            worker: sent.worker.clone(),
            sweep: sent.sweep.clone(),
            pack: sent.pack,
            trials: trials.clone(),
        })
    }

    pub fn durable(&mut self, sweep: &str, trials: &TrialSet) -> &mut TestEnv {
        let counts = completed(trials.len());
        self.send(Event::ResultsDurable { sweep: sweep_id(sweep), trials: trials.clone(), counts })
    }

    pub fn end(&mut self, sent: &Sent) -> &mut TestEnv {
        let (worker, pack) = (sent.worker.clone(), sent.pack);
        self.send(Event::PackFinished { worker, pack, seconds_busy: sent.cost / SPEED })
    }

    /// All results of a pack arrive and it ends, in the time it should take.
    pub fn finish(&mut self, sent: &Sent) -> &mut TestEnv {
        self.results(sent, &sent.trials.clone());
        self.expect_persist(&sent.trials.clone());
        self.end(sent)
    }

    pub fn fail(&mut self, sent: &Sent, kind: FailureKind) -> &mut TestEnv {
        let (worker, pack) = (sent.worker.clone(), sent.pack);
        self.send(Event::PackFailed { worker, pack, kind, message: format!("{kind}!") })
    }

    fn next_action(&mut self, wanted: &str) -> Action {
        self.actions.pop_front().unwrap_or_else(|| panic!("{wanted} was expected, there is no action"))
    }

    /// The next action, which has to be a dispatch.
    pub fn expect_dispatch(&mut self) -> Sent {
        match self.next_action("a dispatch") {
            Action::Dispatch { worker, sweep, pack, attempt, trials, cost, .. } => {
                Sent { worker, sweep, pack, attempt, trials, cost }
            }
            other => panic!("a dispatch was expected, not {other:?}"),
        }
    }

    /// The next action, which has to be a dispatch of these trials to this worker.
    pub fn expect_dispatch_of(&mut self, worker: &str, trials: &TrialSet) -> Sent {
        let sent = self.expect_dispatch();
        assert_eq!(sent.worker.as_str(), worker, "{sent:?}");
        assert_eq!(sent.trials, *trials, "{sent:?}");
        sent
    }

    pub fn expect_persist(&mut self, wanted: &TrialSet) -> &mut TestEnv {
        match self.next_action("a persist") {
            Action::Persist { trials, .. } => assert_eq!(trials, *wanted),
            other => panic!("a persist was expected, not {other:?}"),
        }
        self
    }

    pub fn expect_acknowledge(&mut self, worker: &str, wanted: PackId) -> &mut TestEnv {
        match self.next_action("an acknowledgement") {
            Action::Acknowledge { worker: to, pack, .. } => {
                assert_eq!((to.as_str(), pack), (worker, wanted));
            }
            other => panic!("an acknowledgement was expected, not {other:?}"),
        }
        self
    }

    pub fn expect_cancel(&mut self, sent: &Sent) -> &mut TestEnv {
        let wanted = Action::Cancel { worker: sent.worker.clone(), pack: sent.pack };
        assert_eq!(self.next_action("a cancel"), wanted);
        self
    }

    /// The next action, which has to record a trial as failed: its attempts and kind.
    pub fn expect_failed(&mut self, wanted: u64) -> (u32, FailureKind) {
        match self.next_action("a failed trial") {
            Action::RecordFailed { trial, attempts, kind, .. } => {
                assert_eq!(trial, wanted);
                (attempts, kind)
            }
            other => panic!("a failed trial was expected, not {other:?}"),
        }
    }

    pub fn expect_quarantine(&mut self, wanted: &str) -> Duration {
        match self.next_action("a quarantine") {
            Action::QuarantineWorker { worker, until } => {
                assert_eq!(worker.as_str(), wanted);
                until
            }
            other => panic!("a quarantine was expected, not {other:?}"),
        }
    }

    pub fn expect_finish(&mut self, sweep: &str, wanted: SweepState) -> &mut TestEnv {
        let action = self.next_action("the end of a sweep");
        assert_eq!(action, Action::FinishSweep { sweep: sweep_id(sweep), state: wanted });
        self
    }

    pub fn assert_no_more_actions(&mut self) -> &mut TestEnv {
        assert!(self.actions.is_empty(), "more actions than expected: {:?}", self.actions);
        self
    }

    /// Drops what is ordered so far and returns the dispatches of it.
    pub fn drain_dispatches(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(action) = self.actions.pop_front() {
            if matches!(action, Action::Dispatch { .. }) {
                self.actions.push_front(action);
                sent.push(self.expect_dispatch());
            }
        }
        sent
    }

    pub fn sweep(&self, name: &str) -> SweepStatus {
        self.core.find_sweep(&sweep_id(name)).expect("the sweep")
    }

    pub fn worker(&self, name: &str) -> WorkerStatus {
        self.core.workers().find(|worker| worker.id.as_str() == name).expect("the worker")
    }
}
