//! Workers: who is registered, what their links report, what they are told.

use evenkeel_common::failure::FailureKind;
use evenkeel_common::runtime::trace::TraceContext;
use tokio::sync::mpsc;

use super::{CommandError, Delivery, Driver, WorkerState};
use crate::core::{Event, GoneReason, PackId, TrialSet, WorkerId};
use crate::dispatch::{LinkCommand, LinkEvent, LinkMessage};
use crate::membership::{MembershipEvent, WorkerRecord};

/// Pack numbers from here on stand for packs of earlier coordinators.
const FOREIGN_PACKS: u64 = 1 << 63;

/// A worker the driver knows.
pub(super) struct WorkerEntry {
    pub record: WorkerRecord,
    pub state: WorkerState,
    pub reason: String,
    pub generation: u64,
    pub commands: Option<mpsc::Sender<LinkCommand>>,
    pub failures: u32,
    pub trials_done: u64,
}

impl Driver {
    pub(super) fn order(&mut self, worker: &WorkerId, command: LinkCommand) {
        let Some(commands) = self.workers.get(worker).and_then(|entry| entry.commands.as_ref()) else {
            return;
        };
        if commands.try_send(command).is_err() {
            // The link is gone or stuck; its own report follows, or its pings will fail.
            tracing::debug!(worker.id = %worker, "order not taken by the link");
        }
    }

    pub(super) fn on_membership(&mut self, event: MembershipEvent) {
        self.links.on_membership(&event);
        match event {
            MembershipEvent::Up(record) => {
                let id = WorkerId::from(record.id.as_str());
                tracing::info!(worker.id = %id, address = %record.address, device = %record.device, "worker registered");
                self.workers
                    .entry(id)
                    .and_modify(|entry| entry.record = record.clone())
                    .or_insert_with(|| WorkerEntry::new(record));
            }
            MembershipEvent::Down(id) => {
                if let Some(entry) = self.workers.remove(&id) {
                    tracing::info!(worker.id = %id, "worker no longer registered");
                    self.packs.lost(&id);
                    if entry.commands.is_some() {
                        self.feed(Event::WorkerGone { worker: id, reason: entry.gone_reason() });
                    }
                }
            }
        }
        self.publish();
    }

    pub(super) fn on_link(&mut self, message: LinkMessage) {
        let LinkMessage { worker, generation, event, at } = message;
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        match event {
            LinkEvent::Up { hello, commands } => {
                entry.generation = generation;
                entry.commands = Some(commands);
                entry.state = WorkerState::Ready;
                entry.reason.clear();
                tracing::info!(worker.id = %worker, device = %hello.device, "worker ready");
                let (slots, prior_speed) = (hello.slots.clamp(1, 1024), hello.prior_speed);
                self.feed(Event::WorkerJoined { worker, slots, prior_speed });
            }
            LinkEvent::Refused { reason } => {
                if entry.reason != reason {
                    tracing::error!(worker.id = %worker, %reason, "worker refused");
                }
                entry.down(WorkerState::Refused, reason);
                self.feed(Event::WorkerGone { worker, reason: GoneReason::Lost });
            }
            LinkEvent::Down { reason } => {
                if entry.commands.is_some() {
                    tracing::warn!(worker.id = %worker, %reason, "worker lost");
                }
                let gone = entry.gone_reason();
                entry.down(WorkerState::Connecting, reason);
                self.packs.lost(&worker);
                self.feed(Event::WorkerGone { worker, reason: gone });
            }
            _ if generation != entry.generation => {}
            LinkEvent::Progress { pack, fraction, training } => {
                if let Some((sweep, samples)) = training
                    && let Some(entry) = self.sweeps.get_mut(&sweep)
                {
                    let total = entry.sweep.grid.len();
                    samples.into_iter().filter(|s| s.trial < total).for_each(|s| entry.training.add(s));
                }
                if let Some(pack) = self.own(pack) {
                    self.feed(Event::PackProgressed { worker, pack, fraction });
                }
            }
            LinkEvent::Results { sweep, pack, batches, rows } => {
                let pack = self.pack_id(pack);
                let trials: TrialSet = rows.iter().map(|(trial, _)| *trial).collect();
                self.delivery = Some(Delivery { batches, rows });
                self.feed(Event::ResultsReceived { worker, sweep, pack, trials });
                self.delivery = None;
            }
            LinkEvent::Finished { pack, seconds_busy, traced } => {
                if let Some(pack) = self.own(pack) {
                    self.packs.finished(pack, seconds_busy, traced);
                    self.feed(Event::PackFinished { worker, pack, seconds_busy });
                }
            }
            LinkEvent::Failed { pack, kind, message } => {
                entry.failures +=
                    u32::from(!matches!(kind, FailureKind::Cancelled | FailureKind::WorkerDraining));
                let own = self.own(pack);
                let _within = own.and_then(|pack| self.packs.context(pack)).map(TraceContext::attach);
                tracing::debug!(worker.id = %worker, kind = %kind, reason = %message, "pack failed");
                self.metrics.failed(kind);
                if let Some(pack) = own {
                    self.packs.failed(pack, kind, &message);
                    self.feed(Event::PackFailed { worker, pack, kind, message });
                }
            }
            LinkEvent::Draining => {
                entry.state = WorkerState::Draining;
                self.feed(Event::WorkerDraining { worker });
            }
        }
        self.metrics.heard(at.elapsed().as_secs_f64());
    }

    /// Tells workers what to log; all of them, if none is named.
    pub(super) fn set_log_filter(
        &mut self,
        filter: &str,
        named: Vec<WorkerId>,
    ) -> Result<usize, CommandError> {
        if let Some(id) = named.iter().find(|id| !self.workers.contains_key(id)) {
            return Err(CommandError::UnknownWorker { id: id.clone() });
        }
        let told = if named.is_empty() { self.workers.keys().cloned().collect() } else { named };
        for worker in &told {
            self.order(worker, LinkCommand::LogFilter { filter: filter.to_owned() });
        }
        Ok(told.len())
    }

    /// The pack of this coordinator that a worker speaks of, if it is one.
    fn own(&self, (epoch, pack): (u64, u64)) -> Option<PackId> {
        (epoch == self.epoch && pack < FOREIGN_PACKS).then_some(PackId(pack))
    }

    /// A number for any pack: those of earlier coordinators get one here, to be acknowledged by their own name.
    pub(super) fn pack_id(&mut self, name: (u64, u64)) -> PackId {
        if let Some(own) = self.own(name) {
            return own;
        }
        let next = PackId(FOREIGN_PACKS + self.foreign.len() as u64);
        let id = *self.foreign.entry(name).or_insert(next);
        self.foreign_names.insert(id, name);
        id
    }
}

impl WorkerEntry {
    fn new(record: WorkerRecord) -> Self {
        Self {
            record,
            state: WorkerState::Connecting,
            reason: String::new(),
            generation: 0,
            commands: None,
            failures: 0,
            trials_done: 0,
        }
    }

    fn gone_reason(&self) -> GoneReason {
        if self.state == WorkerState::Draining { GoneReason::Drained } else { GoneReason::Lost }
    }

    fn down(&mut self, state: WorkerState, reason: String) {
        self.commands = None;
        self.state = state;
        self.reason = reason;
    }
}
