//! The worker's one loop: the coordinator's orders go to slots, their reports go to the coordinator.
//!
//! Architecture invariant: results leave the outbox only when a coordinator has acknowledged their pack. It does so whenever
//! everything it has received of the pack is durable: what is on its way at that moment is on a stream that lives, and if
//! that breaks, those trials run again.

use std::time::Duration;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::runtime::trace::TraceContext;
use evenkeel_common::runtime::{WorkerRecord, set_log_filter};
use evenkeel_proto::v1::{self, work_request, work_response};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::core::{Outbox, PackKey, Slots};
use crate::executor::{Executor, PackWork, Report};
use crate::metrics::Metrics;
use crate::spans::PackOrigin;
use crate::sweeps::Sweeps;

/// Part of the grace period after which a worker that leaves hands back what it still runs; the rest is for checkpoints.
const HAND_BACK: f64 = 0.5;
/// No pack is started while more results than this wait for acknowledgement, in bytes.
const OUTBOX_LIMIT: usize = 256 << 20;
/// A guess of a slot's speed until the coordinator has measured it, in floating-point operations per second.
const CPU_PRIOR: f64 = 2.0e10;
const GPU_PRIOR: f64 = 2.0e12;

/// What the loop hears.
#[derive(Debug)]
pub enum Input {
    /// A coordinator greets on a new stream.
    Greeted {
        /// What it says.
        greeting: v1::Greeting,
        /// Where answers go.
        responses: mpsc::Sender<Result<v1::WorkResponse, Status>>,
        /// The stream's number, or why it is refused.
        reply: oneshot::Sender<Result<u64, Status>>,
    },
    /// An order on a stream.
    Ordered(u64, v1::WorkRequest),
    /// A stream is gone.
    Closed(u64),
    /// The process is to leave: finish what runs, hand back the rest.
    Drain,
}

/// What the rest of the process sees of the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStatus {
    /// Slots that can run packs.
    pub ready_slots: usize,
    /// Packs that run.
    pub running: usize,
    /// Packs that wait.
    pub waiting: usize,
    /// Results that wait for acknowledgement, in bytes.
    pub outbox_bytes: usize,
    /// Whether a coordinator is connected.
    pub connected: bool,
}

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum HubEnd {
    /// It was asked to and everything is handed over.
    Drained,
    /// It was asked to, and time ran out before everything was acknowledged.
    GraceOver,
    /// The device is unusable until the process starts anew.
    Poisoned(String),
}

/// How long a worker stays.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long to finish packs when it is to leave.
    pub grace: Duration,
    /// After how long without work it leaves by itself, if it does.
    pub idle: Option<Duration>,
}

struct Stream {
    number: u64,
    epoch: u64,
    responses: mpsc::Sender<Result<v1::WorkResponse, Status>>,
}

/// The loop's state.
pub struct Hub {
    record: WorkerRecord,
    executors: Vec<Executor>,
    slots: Slots<PackWork>,
    outbox: Outbox,
    sweeps: Sweeps,
    stream: Option<Stream>,
    streams: u64,
    seen_epoch: u64,
    status: watch::Sender<HubStatus>,
    metrics: Metrics,
    draining: Option<Instant>,
    hand_back: Option<Instant>,
    idle_until: Option<Instant>,
    patience: Patience,
}

impl Hub {
    /// A loop over these slots.
    #[must_use]
    pub fn new(
        record: WorkerRecord,
        executors: Vec<Executor>,
        patience: Patience,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<HubStatus>) {
        let (status, watch) = watch::channel(HubStatus::default());
        let slots = Slots::new(executors.len());
        let hub = Self {
            record,
            executors,
            slots,
            outbox: Outbox::default(),
            sweeps: Sweeps::default(),
            stream: None,
            streams: 0,
            seen_epoch: 0,
            status,
            metrics,
            draining: None,
            hand_back: None,
            idle_until: None,
            patience,
        };
        (hub, watch)
    }

    /// Runs until drained or broken.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut reports: mpsc::Receiver<Report>,
    ) -> HubEnd {
        loop {
            self.watch_idle();
            let end = tokio::select! {
                biased;
                () = grace_over(self.draining) => Some(HubEnd::GraceOver),
                () = grace_over(self.hand_back) => { self.hand_back(); None }
                () = grace_over(self.idle_until) => { self.leave_idle().await; None }
                Some(input) = inputs.recv() => { self.on_input(input).await; None }
                Some(report) = reports.recv() => self.on_report(report).await,
            };
            self.start_packs().await;
            self.show();
            if let Some(end) = end {
                return end;
            }
            if self.draining.is_some()
                && self.slots.running() == 0
                && (self.outbox.is_empty() || self.stream.is_none())
            {
                return if self.outbox.is_empty() { HubEnd::Drained } else { HubEnd::GraceOver };
            }
        }
    }

    async fn on_input(&mut self, input: Input) {
        match input {
            Input::Greeted { greeting, responses, reply } => {
                self.on_greeting(&greeting, responses, reply).await
            }
            Input::Closed(number) => {
                if self.stream.as_ref().is_some_and(|stream| stream.number == number) {
                    tracing::info!("coordinator disconnected");
                    self.stream = None;
                    // What waits was given back to the queue by the coordinator; what runs goes on, its results count.
                    self.slots.forget_waiting();
                }
            }
            Input::Ordered(number, request) => {
                let epoch =
                    self.stream.as_ref().filter(|stream| stream.number == number).map(|stream| stream.epoch);
                if let (Some(epoch), Some(message)) = (epoch, request.message) {
                    self.on_order(epoch, message).await;
                }
            }
            Input::Drain => self.drain().await,
        }
    }

    async fn on_greeting(
        &mut self,
        greeting: &v1::Greeting,
        responses: mpsc::Sender<Result<v1::WorkResponse, Status>>,
        reply: oneshot::Sender<Result<u64, Status>>,
    ) {
        if greeting.epoch < self.seen_epoch {
            let message =
                format!("this worker follows epoch {}, epoch {} is over", self.seen_epoch, greeting.epoch);
            let _ = reply.send(Err(Status::failed_precondition(message)));
            return;
        }
        tracing::info!(epoch = greeting.epoch, unacknowledged = self.outbox.bytes(), "coordinator connected");
        self.seen_epoch = greeting.epoch;
        self.streams += 1;
        self.slots.forget_waiting();
        self.stream = Some(Stream { number: self.streams, epoch: greeting.epoch, responses });
        let _ = reply.send(Ok(self.streams));
        let prior_speed = if self.record.device.starts_with("cuda") { GPU_PRIOR } else { CPU_PRIOR };
        self.send(work_response::Message::Hello(v1::Hello {
            protocol_version: self.record.protocol_version,
            version: self.record.version.clone(),
            worker_id: self.record.id.clone(),
            slots: self.record.slots,
            device: self.record.device.clone(),
            prior_speed,
        }))
        .await;
        let kept: Vec<_> = self
            .outbox
            .iter()
            .map(|(key, sweep, bytes)| results(key, sweep.to_string(), bytes.clone()))
            .collect();
        for message in kept {
            self.send(message).await;
        }
        if self.draining.is_some() {
            self.send(work_response::Message::Draining(v1::Draining {})).await;
        }
    }

    async fn on_order(&mut self, epoch: u64, message: work_request::Message) {
        match message {
            work_request::Message::Greeting(_) => tracing::warn!("the coordinator greeted twice"),
            work_request::Message::SweepOpened(opened) => {
                let id = opened.sweep_id.clone();
                if let Err(error) = self.sweeps.open(opened) {
                    tracing::error!(sweep.id = %id, %error, "sweep not understood");
                }
            }
            work_request::Message::Data(chunk) => {
                if let Err(error) = self.sweeps.receive(chunk) {
                    tracing::error!(%error, "file not usable");
                }
            }
            work_request::Message::Assignment(assignment) => self.on_assignment(epoch, assignment).await,
            work_request::Message::Cancellation(c) => {
                let key = PackKey { epoch: c.epoch, pack: c.pack };
                if self.slots.cancel(key).is_some() {
                    self.fail(key, FailureKind::Cancelled, "stopped before it began".to_owned()).await;
                }
            }
            work_request::Message::Acknowledgement(a) => {
                self.outbox.acknowledge(PackKey { epoch: a.epoch, pack: a.pack });
            }
            work_request::Message::Drain(_) => self.drain().await,
            work_request::Message::LogFilter(v1::LogFilter { filter }) => match set_log_filter(&filter) {
                Ok(()) => tracing::info!(filter, "log filter changed"),
                Err(reason) => tracing::warn!(%reason, "log filter not changed"),
            },
        }
    }

    async fn on_assignment(&mut self, epoch: u64, assignment: v1::Assignment) {
        let key = PackKey { epoch: assignment.epoch, pack: assignment.pack };
        if assignment.epoch != epoch {
            tracing::warn!(
                epoch = assignment.epoch,
                stream.epoch = epoch,
                "assignment of another epoch refused"
            );
            return;
        }
        let Some(sweep) = self.sweeps.find(&assignment.sweep_id) else {
            let message = format!("sweep {} is not known here", assignment.sweep_id);
            self.fail(key, FailureKind::Transient, message).await;
            return;
        };
        let ranges = assignment.trials.iter().map(|range| (range.first, range.count)).collect();
        let origin = TraceContext::parse(&assignment.traceparent).map(|context| {
            let (received, expected_seconds) = (std::time::Instant::now(), assignment.expected_seconds);
            Box::new(PackOrigin { context, received, expected_seconds })
        });
        let work = PackWork { sweep, attempt: assignment.attempt, ranges, origin };
        if self.slots.push(key, work).is_err() {
            self.fail(key, FailureKind::WorkerDraining, "the worker is leaving".to_owned()).await;
        }
    }

    async fn on_report(&mut self, report: Report) -> Option<HubEnd> {
        match report {
            Report::Ready => self.status.send_modify(|status| status.ready_slots += 1),
            Report::Broken(reason) => return Some(HubEnd::Poisoned(reason)),
            Report::Progress(key, sweep, fraction, samples) => {
                let sample = |s: crate::engine::Sample| v1::TrialSample {
                    trial: s.trial,
                    step: s.step,
                    steps: s.steps,
                    train_loss: s.train_loss,
                    score: s.score,
                };
                self.send(work_response::Message::Progress(v1::PackProgress {
                    epoch: key.epoch,
                    pack: key.pack,
                    fraction,
                    samples: samples.into_iter().map(sample).collect(),
                    sweep_id: sweep.id.to_string(),
                }))
                .await;
            }
            Report::Results(key, sweep, records) => {
                self.outbox.keep(key, &sweep.id, records.clone());
                self.send(results(key, sweep.id.to_string(), records)).await;
            }
            Report::Finished { slot, key, busy, trials, traced } => {
                self.slots.finish(slot);
                self.metrics.finished(busy, trials);
                self.send(work_response::Message::Finished(v1::PackFinished {
                    epoch: key.epoch,
                    pack: key.pack,
                    seconds_busy: busy.as_secs_f64(),
                    traced,
                }))
                .await;
            }
            Report::Failed { slot, key, kind, message, poisoned } => {
                self.slots.finish(slot);
                self.metrics.failed(kind);
                self.fail(key, kind, message.clone()).await;
                if poisoned {
                    return Some(HubEnd::Poisoned(message));
                }
            }
        }
        None
    }

    async fn drain(&mut self) {
        if self.draining.is_some() {
            return;
        }
        tracing::info!(running = self.slots.running(), waiting = self.slots.waiting(), "draining");
        let now = Instant::now();
        self.draining = Some(now + self.patience.grace);
        self.hand_back = Some(now + self.patience.grace.mul_f64(HAND_BACK));
        for job in self.slots.close() {
            self.fail(job.key, FailureKind::WorkerDraining, "the worker is leaving".to_owned()).await;
        }
        self.send(work_response::Message::Draining(v1::Draining {})).await;
    }

    /// Looks at the clock while there is nothing to do, where that is a reason to leave.
    fn watch_idle(&mut self) {
        let busy = self.slots.running() + self.slots.waiting() > 0 || !self.outbox.is_empty();
        self.idle_until = match self.patience.idle {
            Some(after) if !busy => self.idle_until.or_else(|| Some(Instant::now() + after)),
            _ => None,
        };
    }

    /// A pack that is on its way at this moment is given back to the coordinator.
    async fn leave_idle(&mut self) {
        tracing::info!(idle = ?self.patience.idle, "nothing to do, leaving");
        self.patience.idle = None;
        self.drain().await;
    }

    /// Stops what still runs while there is time to keep a checkpoint and to say so.
    fn hand_back(&mut self) {
        self.hand_back = None;
        if self.slots.running() > 0 {
            tracing::info!(running = self.slots.running(), "handing back what cannot finish in time");
            self.slots.leave();
        }
    }

    async fn start_packs(&mut self) {
        while self.outbox.bytes() <= OUTBOX_LIMIT {
            let Some((slot, job)) = self.slots.start_next() else { return };
            let key = job.key;
            let refused = match self.executors.get(slot) {
                Some(executor) => executor.start_pack(job).is_err(),
                None => true,
            };
            if refused {
                self.fail(key, FailureKind::Transient, format!("the thread of slot {slot} is gone")).await;
            }
        }
    }

    async fn fail(&mut self, key: PackKey, kind: FailureKind, message: String) {
        self.send(work_response::Message::Failed(v1::PackFailed {
            epoch: key.epoch,
            pack: key.pack,
            kind: kind.as_str().to_owned(),
            message,
        }))
        .await;
    }

    /// Sends to the coordinator, if one is connected; one that is not will be told what matters when it comes.
    async fn send(&mut self, message: work_response::Message) {
        if let Some(stream) = &self.stream
            && stream.responses.send(Ok(v1::WorkResponse { message: Some(message) })).await.is_err()
        {
            self.stream = None;
        }
    }

    fn show(&mut self) {
        let (running, waiting) = (self.slots.running(), self.slots.waiting());
        let (outbox_bytes, connected) = (self.outbox.bytes(), self.stream.is_some());
        self.status.send_if_modified(|status| {
            let before = *status;
            *status = HubStatus { running, waiting, outbox_bytes, connected, ..*status };
            before != *status
        });
    }
}

fn results(key: PackKey, sweep_id: String, records: bytes::Bytes) -> work_response::Message {
    work_response::Message::Results(v1::PackResults { sweep_id, epoch: key.epoch, pack: key.pack, records })
}

async fn grace_over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
