//! What users see: a copy of the state, made a few times a second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::SweepId;
use tokio::time::Instant;

use super::Driver;
use super::training::TrainingView;
use crate::core::StatusCounts;
use crate::membership::WorkerRecord;
use crate::store::StoredState;

/// State of everything at a moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Sweeps, by id.
    pub sweeps: Vec<SweepView>,
    /// Workers, by id.
    pub workers: Vec<WorkerView>,
    /// Trials that were delivered and are not durable.
    pub awaiting: u64,
    /// Why nothing is written, when the store is away.
    pub stalled: Option<String>,
    /// Whether all sweeps of the store are loaded.
    pub loaded: bool,
}

/// A sweep.
#[derive(Clone, Debug)]
pub struct SweepView {
    /// Its id.
    pub id: SweepId,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: StoredState,
    /// Trials of its grid.
    pub total: u64,
    /// Durable ones by how they ended.
    pub counts: StatusCounts,
    /// Trials in flight.
    pub running: u64,
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub submitted_ms: i64,
    /// Time spent running, in seconds.
    pub seconds: f64,
    /// Its share relative to others.
    pub priority: u32,
    /// Durable trials per second over the last seconds.
    pub trials_per_second: f64,
    /// Why nothing moves, if something stops it.
    pub notice: Option<String>,
    /// Curves of long trials that are training.
    pub training: Vec<TrainingView>,
    /// Its trace, where it is traced.
    pub trace: Option<TraceView>,
}

impl Snapshot {
    /// Trials of running sweeps that were not sent out: what more workers could begin with.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.running().map(SweepView::waiting).sum()
    }

    /// Trials of running sweeps that were sent out.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.running().map(|sweep| sweep.running).sum()
    }

    fn running(&self) -> impl Iterator<Item = &SweepView> {
        self.sweeps.iter().filter(|sweep| sweep.state == StoredState::Running)
    }
}

impl SweepView {
    /// Trials that were not sent out.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.total.saturating_sub(self.counts.total() + self.running)
    }
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceView {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// Where people look at it, if that is known.
    pub url: Option<String>,
}

/// How a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Registered, but not (or no longer) connected.
    Connecting,
    /// Takes packs.
    Ready,
    /// Leaves.
    Draining,
    /// Failed often and gets nothing for a while.
    Quarantined,
    /// Cannot be used.
    Refused,
}

impl WorkerState {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
        }
    }
}

/// A worker.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// What it registered.
    pub record: WorkerRecord,
    /// How it stands.
    pub state: WorkerState,
    /// Why it is not ready.
    pub reason: String,
    /// Packs in flight.
    pub packs: u32,
    /// Sweep of its newest pack.
    pub sweep: Option<SweepId>,
    /// Measured speed, in floating-point operations per second and slot.
    pub speed: Option<f64>,
    /// Packs it gave up.
    pub failures: u32,
    /// Trials it delivered that counted.
    pub trials_done: u64,
}

/// Trials per second over a sliding window.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    const WINDOW: Duration = Duration::from_secs(5);

    pub fn add(&mut self, count: u64) {
        self.samples.push_back((Instant::now(), count));
        self.forget();
    }

    fn forget(&mut self) {
        while self.samples.front().is_some_and(|(at, _)| at.elapsed() > Self::WINDOW) {
            self.samples.pop_front();
        }
    }

    pub fn per_second(&mut self, running_for: f64) -> f64 {
        self.forget();
        let sum: u64 = self.samples.iter().map(|(_, count)| count).sum();
        sum as f64 / running_for.clamp(0.5, Self::WINDOW.as_secs_f64())
    }
}

impl Driver {
    /// Shows users the state as it is now.
    pub(super) fn publish(&mut self) {
        let ready = self.workers.values().filter(|worker| worker.state == WorkerState::Ready).count();
        let mut awaiting = 0;
        let running: std::collections::HashMap<SweepId, u64> = self
            .core
            .sweeps()
            .map(|view| {
                awaiting += view.awaiting;
                (view.id, view.running)
            })
            .collect();
        let stalled = self.stalled.clone();
        let sweeps = self.sweeps.iter_mut().map(|(id, entry)| {
            let notice = match (&stalled, entry.state) {
                (Some(reason), StoredState::Running) => Some(format!("the store takes no results: {reason}")),
                (None, StoredState::Running) if ready == 0 => Some("no worker is ready".to_owned()),
                _ => None,
            };
            let seconds = entry.seconds();
            if entry.state != StoredState::Running {
                entry.training.clear();
            }
            SweepView {
                id: id.clone(),
                name: entry.sweep.grid.spec().name.clone(),
                state: entry.state,
                total: entry.sweep.grid.len(),
                counts: entry.counts,
                running: running.get(id).copied().unwrap_or(0),
                submitted_ms: entry.submitted_ms,
                seconds,
                priority: entry.sweep.grid.spec().priority,
                trials_per_second: entry.rate.per_second(seconds),
                notice,
                training: entry.training.views(),
                trace: entry.trace.map(|trace| self.traces.view(trace.context)),
            }
        });
        let sweeps = sweeps.collect();
        let now = self.started.elapsed();
        let workers = self.workers.iter().map(|(id, entry)| {
            let view = self.core.workers().find(|view| view.id == *id);
            let quarantined =
                view.as_ref().and_then(|view| view.quarantined_until).filter(|until| *until > now);
            let (state, reason) = match quarantined {
                Some(until) => {
                    let left = (until - now).as_secs_f64();
                    (WorkerState::Quarantined, format!("failed often; gets packs again in {left:.0} s"))
                }
                None => (entry.state, entry.reason.clone()),
            };
            WorkerView {
                record: entry.record.clone(),
                state,
                reason,
                packs: view.as_ref().map_or(0, |view| u32::try_from(view.packs).unwrap_or(u32::MAX)),
                sweep: view.as_ref().and_then(|view| view.sweep.clone()),
                speed: view.as_ref().and_then(|view| view.measured_speed),
                failures: entry.failures,
                trials_done: entry.trials_done,
            }
        });
        let workers = workers.collect();
        self.snapshots.send_replace(Arc::new(Snapshot { sweeps, workers, awaiting, stalled, loaded: true }));
    }
}
