//! What users may ask of the driver.

use std::sync::Arc;

use evenkeel_common::id::SweepId;
use evenkeel_common::runtime::now_ms;
use evenkeel_common::runtime::trace::{self, TraceContext};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::snapshot::Rate;
use super::traces::SweepTrace;
use super::training::Training;
use super::{Driver, Snapshot, SweepEntry, SweepView, WorkerState};
use crate::core::{Event, PackStatus, WorkerId};
use crate::dispatch::LinkCommand;
use crate::store::{LoadedSweep, Store, StoreError, StoredState, data_path};
use crate::submission::{Shape, Sweep};

/// A change of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stop it for good.
    Cancel,
    /// Stop dispatching for a while.
    Pause,
    /// Go on after a pause or a cancellation.
    Resume,
    /// Run failed trials again.
    Retry,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such sweep.
    #[error("there is no sweep {id}; `evenkeel list` shows those there are")]
    UnknownSweep {
        /// What was asked for.
        id: SweepId,
    },
    /// No such worker.
    #[error("there is no worker {id}; `evenkeel workers` shows those there are")]
    UnknownWorker {
        /// What was asked for.
        id: WorkerId,
    },
    /// Not in this state.
    #[error("sweep {id} is {state}: {reason}")]
    NotNow {
        /// The sweep.
        id: SweepId,
        /// How it stands.
        state: &'static str,
        /// Why it cannot be.
        reason: &'static str,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The driver has ended.
    #[error("the coordinator is stopping")]
    Stopping,
}

type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A command to the driver.
pub enum Command {
    /// Take a sweep that is in the store.
    Add {
        /// The sweep.
        sweep: Arc<Sweep>,
        /// What the store knows of it.
        loaded: Box<LoadedSweep>,
        /// How it stands then.
        reply: Reply<()>,
    },
    /// Change a sweep, after the change was made durable.
    Change {
        /// The sweep.
        id: SweepId,
        /// How.
        change: Change,
        /// Whether it is durable already.
        durable: bool,
        /// When it is done.
        reply: Reply<()>,
    },
    /// Let a worker leave.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// When it was told.
        reply: Reply<()>,
    },
    /// Let workers write other log lines.
    LogFilter {
        /// As in `RUST_LOG`.
        filter: String,
        /// Of these; of all if none.
        workers: Vec<WorkerId>,
        /// How many were told.
        reply: Reply<usize>,
    },
    /// Forget a sweep that has ended and is in the store no longer.
    Forget {
        /// Which.
        id: SweepId,
        /// When that is done.
        reply: Reply<()>,
    },
    /// Tell which trials of a sweep are in flight.
    InFlight {
        /// Which sweep.
        id: SweepId,
        /// Its packs.
        reply: Reply<Vec<PackStatus>>,
    },
    /// Publish a snapshot now.
    Refresh {
        /// When that is done.
        reply: Reply<()>,
    },
}

/// A handle to the driver; clones share it.
#[derive(Clone)]
pub struct DriverHandle {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    store: Store,
    epoch: u64,
}

impl DriverHandle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        store: Store,
        epoch: u64,
    ) -> Self {
        Self { commands, snapshot, store, epoch }
    }

    /// The store results are in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The epoch of this leader.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Follows snapshots.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// How a sweep stands.
    #[must_use]
    pub fn find_sweep(&self, id: &SweepId) -> Option<SweepView> {
        self.snapshot().sweeps.iter().find(|sweep| sweep.id == *id).cloned()
    }

    /// Makes a sweep durable and starts it, or attaches to it when it is known. Returns its status and whether it is new.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn submit(&self, sweep: Sweep) -> Result<(SweepView, bool), CommandError> {
        let id = sweep.id.clone();
        if let Some(view) = self.find_sweep(&id) {
            let ended = matches!(view.state, StoredState::Completed | StoredState::Cancelled);
            let stored = self.store.read_sweep(&id).await;
            if !(ended && matches!(stored, Err(StoreError::Missing { .. }))) {
                return Ok((view, false));
            }
            // It was deleted since (`evenkeel gc`): it begins anew.
            self.ask(|reply| Command::Forget { id: id.clone(), reply }).await?;
        }
        for (hash, bytes) in &sweep.files {
            self.store.create_if_absent(&data_path(hash), bytes.clone()).await?;
        }
        let mut record = sweep.record(now_ms());
        // Its trace begins with the call that submitted it.
        record.traceparent = trace::is_on()
            .then(|| TraceContext::current().unwrap_or_else(TraceContext::root))
            .map(|context| context.to_string());
        let created = self.store.create_sweep(&record).await?;
        let loaded = self.store.load_sweep(&id).await?;
        self.add(Arc::new(sweep), loaded).await?;
        Ok((self.find_sweep(&id).ok_or(CommandError::Stopping)?, created))
    }

    /// Loads every sweep of the store. One that is damaged is reported and left out.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn load_all(&self) -> Result<usize, CommandError> {
        let mut count = 0;
        for id in self.store.sweep_ids().await? {
            match self.load(&id).await {
                Ok(()) => count += 1,
                Err(CommandError::Store(
                    error @ (StoreError::Corrupt { .. } | StoreError::Missing { .. }),
                )) => {
                    tracing::error!(sweep.id = %id, %error, "sweep left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    async fn load(&self, id: &SweepId) -> Result<(), CommandError> {
        let loaded = self.store.load_state(id).await?;
        let sweep = Sweep::from_store(&self.store, &loaded.record).await?;
        self.add(Arc::new(sweep), loaded).await
    }

    async fn add(&self, sweep: Arc<Sweep>, loaded: LoadedSweep) -> Result<(), CommandError> {
        self.ask(|reply| Command::Add { sweep, loaded: Box::new(loaded), reply }).await
    }

    /// Changes a sweep.
    ///
    /// # Errors
    /// When there is none, it is not in a state for that, or the store does not take the change.
    pub async fn change(&self, id: &SweepId, change: Change) -> Result<SweepView, CommandError> {
        let view = self.find_sweep(id).ok_or_else(|| CommandError::UnknownSweep { id: id.clone() })?;
        let ended = matches!(view.state, StoredState::Completed | StoredState::Cancelled);
        if (change == Change::Retry && view.state == StoredState::Completed)
            || (change == Change::Resume && view.state == StoredState::Cancelled)
        {
            // The scheduler has let go of it: load it anew, as a later coordinator would.
            self.reopen(id, change).await?;
        } else if ended || !allowed(view.state, change) {
            let (state, reason) = (state_name(view.state), refusal(change));
            if !(change == Change::Cancel && view.state == StoredState::Cancelled) {
                return Err(CommandError::NotNow { id: id.clone(), state, reason });
            }
        } else {
            self.ask(|reply| Command::Change { id: id.clone(), change, durable: false, reply }).await?;
        }
        self.find_sweep(id).ok_or(CommandError::Stopping)
    }

    async fn reopen(&self, id: &SweepId, change: Change) -> Result<(), CommandError> {
        self.ask(|reply| Command::Change { id: id.clone(), change, durable: false, reply }).await?;
        let sweep = Sweep::from_store(&self.store, &self.store.read_sweep(id).await?).await?;
        let loaded = self.store.load_sweep(id).await?;
        self.add(Arc::new(sweep), loaded).await
    }

    /// Lets a worker finish what it runs and leave.
    ///
    /// # Errors
    /// When there is no such worker.
    pub async fn drain_worker(&self, worker: WorkerId) -> Result<(), CommandError> {
        self.ask(|reply| Command::Drain { worker, reply }).await
    }

    /// Lets these workers write other log lines, or all if none is named. Gives how many were told.
    ///
    /// # Errors
    /// When there is no such worker.
    pub async fn set_log_filter(
        &self,
        filter: String,
        workers: Vec<WorkerId>,
    ) -> Result<usize, CommandError> {
        self.ask(|reply| Command::LogFilter { filter, workers, reply }).await
    }

    /// The packs of a sweep in flight.
    ///
    /// # Errors
    /// When the driver has ended.
    pub async fn in_flight(&self, id: &SweepId) -> Result<Vec<PackStatus>, CommandError> {
        self.ask(|reply| Command::InFlight { id: id.clone(), reply }).await
    }

    /// Waits until the snapshot holds everything that happened until now.
    ///
    /// # Errors
    /// When the driver has ended.
    pub async fn refresh(&self) -> Result<(), CommandError> {
        self.ask(|reply| Command::Refresh { reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)?
    }
}

fn allowed(state: StoredState, change: Change) -> bool {
    match change {
        Change::Cancel => true,
        Change::Pause => matches!(state, StoredState::Running | StoredState::Paused),
        Change::Resume => matches!(state, StoredState::Running | StoredState::Paused),
        Change::Retry => false,
    }
}

fn refusal(change: Change) -> &'static str {
    match change {
        Change::Cancel => "there is nothing left to cancel",
        Change::Pause => "only a running sweep can be paused",
        Change::Resume => "only a paused or cancelled sweep can be resumed",
        Change::Retry => "failed trials are tried again once the sweep has completed",
    }
}

/// The name of a state.
#[must_use]
pub fn state_name(state: StoredState) -> &'static str {
    match state {
        StoredState::Running => "running",
        StoredState::Paused => "paused",
        StoredState::Completed => "completed",
        StoredState::Cancelled => "cancelled",
    }
}

impl Driver {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Add { sweep, loaded, reply } => {
                self.add(sweep, *loaded);
                self.publish();
                let _ = reply.send(Ok(()));
            }
            Command::Change { id, change, durable: false, reply } => self.make_durable(id, change, reply),
            Command::Change { id, change, durable: true, reply } => {
                self.apply(&id, change);
                self.publish();
                let _ = reply.send(Ok(()));
            }
            Command::Drain { worker, reply } => {
                let known = self.workers.contains_key(&worker);
                if known {
                    self.order(&worker, LinkCommand::Drain);
                    if let Some(entry) = self.workers.get_mut(&worker) {
                        entry.state = WorkerState::Draining;
                    }
                    self.feed(Event::WorkerDraining { worker: worker.clone() });
                    self.publish();
                }
                let _ =
                    reply.send(if known { Ok(()) } else { Err(CommandError::UnknownWorker { id: worker }) });
            }
            Command::LogFilter { filter, workers, reply } => {
                let _ = reply.send(self.set_log_filter(&filter, workers));
            }
            Command::Forget { id, reply } => {
                self.sweeps.remove(&id);
                self.feed(Event::SweepRemoved { sweep: id });
                self.publish();
                let _ = reply.send(Ok(()));
            }
            Command::InFlight { id, reply } => {
                let _ = reply.send(Ok(self.core.packs_of(&id).collect()));
            }
            Command::Refresh { reply } => {
                self.publish();
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn add(&mut self, sweep: Arc<Sweep>, loaded: LoadedSweep) {
        let id = sweep.id.clone();
        if self.sweeps.get(&id).is_some_and(|entry| entry.scheduled) {
            return;
        }
        let ended = matches!(loaded.state, StoredState::Completed | StoredState::Cancelled);
        let running = loaded.state == StoredState::Running;
        let trace = SweepTrace::of(&loaded);
        let entry = SweepEntry {
            sweep: sweep.clone(),
            submitted_ms: loaded.record.submitted_ms,
            state: loaded.state,
            scheduled: !ended,
            counts: loaded.counts,
            failed: loaded.failed,
            seconds: loaded.seconds,
            running_since: running.then(Instant::now),
            rate: Rate::default(),
            training: Training::default(),
            trace,
        };
        let _within = entry.attach();
        let spec = sweep.grid.spec();
        let (priority, max_attempts) = (spec.priority, spec.retries.max_attempts);
        tracing::info!(sweep.id = %id, trials = sweep.grid.len(), done = loaded.counts.total(), "sweep added");
        self.sweeps.insert(id.clone(), entry);
        if ended {
            return;
        }
        self.feed(Event::SweepAdded {
            sweep: id.clone(),
            shape: Arc::new(Shape(sweep)),
            priority,
            max_attempts,
            done: loaded.done,
            counts: loaded.counts,
        });
        if loaded.state == StoredState::Paused {
            self.feed(Event::SweepPaused { sweep: id });
        }
    }

    /// Writes the transition, then comes back with the same command.
    fn make_durable(&mut self, id: SweepId, change: Change, reply: Reply<()>) {
        let Some(entry) = self.sweeps.get(&id) else {
            let _ = reply.send(Err(CommandError::UnknownSweep { id }));
            return;
        };
        let state = match change {
            Change::Cancel => StoredState::Cancelled,
            Change::Pause => StoredState::Paused,
            Change::Resume | Change::Retry => StoredState::Running,
        };
        let mut record = entry.state_record(state);
        // Results may still come: the counts are on record once it has ended.
        record.counts = None;
        record.retries_failed = change == Change::Retry;
        let (store, name, commands) = (self.store.clone(), self.sequence.next_name(), self.commands.clone());
        tokio::spawn(async move {
            match store.write_state(&id, &name, &record).await {
                Ok(()) => {
                    // If the driver has ended, the next one reads the transition.
                    let _ = commands.send(Command::Change { id, change, durable: true, reply }).await;
                }
                Err(error) => {
                    let _ = reply.send(Err(error.into()));
                }
            }
        });
    }

    fn apply(&mut self, id: &SweepId, change: Change) {
        let Some(entry) = self.sweeps.get_mut(id) else { return };
        let sweep = id.clone();
        match change {
            Change::Cancel => {
                entry.state = StoredState::Cancelled;
                entry.stop_clock();
                self.feed(Event::SweepCancelled { sweep });
            }
            Change::Pause => {
                entry.state = StoredState::Paused;
                entry.stop_clock();
                self.feed(Event::SweepPaused { sweep });
            }
            Change::Resume if entry.state == StoredState::Paused => {
                entry.state = StoredState::Running;
                entry.running_since = Some(Instant::now());
                self.feed(Event::SweepResumed { sweep });
            }
            Change::Resume | Change::Retry if entry.state != StoredState::Running => {
                entry.scheduled = false;
                self.feed(Event::SweepRemoved { sweep });
            }
            Change::Resume | Change::Retry => {}
        }
    }
}
