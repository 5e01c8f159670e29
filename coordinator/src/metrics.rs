//! Every metric of a coordinator: what happened is counted as it happens, what is the case is read when somebody asks.
//!
//! Names follow OpenMetrics: seconds, bytes and ratios, counters end in `_total`. docs/observability.md lists them.

use std::fmt;
use std::sync::Arc;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::results::Status;
use evenkeel_common::runtime::trace::TraceContext;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::api::LiveLine;
use crate::core::StatusCounts;
use crate::driver::{DriverHandle, Snapshot, SweepView, WorkerState, state_name};
use crate::live::Live;
use crate::store::StoredState;

/// The media type of what [`Metrics::text`] gives.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Sweeps with series of their own: those that go on, and the newest of those that ended.
const MOST_SWEEPS: usize = 100;

/// Running sweeps whose results are told, and lines of theirs.
const MOST_LIVE: usize = 20;
const MOST_LINES: usize = 500;

type Label = [(&'static str, &'static str); 1];

/// How a pack left the coordinator's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackEnd {
    /// The worker was through with it.
    Finished,
    /// The worker gave it up.
    Failed,
    /// The worker went away with it.
    Lost,
}

/// Counts what happens; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    trials: Family<Label, Counter>,
    packs: Family<Label, Counter>,
    failures: Family<Label, Counter>,
    retries: Counter,
    quarantines: Counter,
    pack: Traced,
    wait: Seconds,
    event: Micros,
    segment: Seconds,
    segment_failures: Counter,
    calls: CallSeconds,
    terms: Counter,
    lease_losses: Counter,
}

/// A histogram from 1 ms to about an hour.
#[derive(Clone, Debug)]
struct Seconds(Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.001, 2.0, 22)))
    }
}

/// A histogram from 1 µs to about half a minute.
#[derive(Clone, Debug)]
struct Micros(Histogram);

impl Default for Micros {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(1e-6, 4.0, 13)))
    }
}

/// One for each method and status.
#[derive(Clone, Debug)]
struct CallSeconds(Family<CallLabels, Histogram, fn() -> Histogram>);

type CallLabels = [(&'static str, String); 2];

impl Default for CallSeconds {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Seconds::default().0))
    }
}

/// The same, with a trace as an example in each bucket.
#[derive(Clone, Debug)]
struct Traced(HistogramWithExemplars<Vec<(&'static str, String)>>);

impl Default for Traced {
    fn default() -> Self {
        Self(HistogramWithExemplars::new(exponential_buckets(0.001, 2.0, 22)))
    }
}

impl Metrics {
    /// Trials became durable.
    pub fn durable(&self, counts: StatusCounts) {
        for (status, count) in [
            (Status::Completed, counts.completed),
            (Status::Diverged, counts.diverged),
            (Status::Failed, counts.failed),
        ] {
            self.trials.get_or_create(&[("outcome", status.name())]).inc_by(count);
        }
    }

    /// A pack went out; `attempt` counts from one.
    pub fn dispatched(&self, attempt: u32) {
        if attempt > 1 {
            self.retries.inc();
        }
    }

    /// A pack is off the books, so many seconds after it went out.
    ///
    /// Where its trace is shown, it is an example of its kind.
    pub fn pack_ended(&self, end: PackEnd, seconds: f64, trace: Option<TraceContext>) {
        let name = match end {
            PackEnd::Finished => "finished",
            PackEnd::Failed => "failed",
            PackEnd::Lost => "lost",
        };
        self.packs.get_or_create(&[("outcome", name)]).inc();
        if end == PackEnd::Finished {
            let labels =
                |trace: TraceContext| vec![("trace_id", trace.trace_id()), ("span_id", trace.span_id())];
            self.pack.0.observe(seconds, trace.map(labels), None);
        }
    }

    /// Seconds that a pack spent on its way and in its worker's queue.
    pub fn pack_waited(&self, seconds: f64) {
        self.wait.0.observe(seconds);
    }

    /// What a worker reported was acted on, so many seconds after it came.
    pub fn heard(&self, seconds: f64) {
        self.event.0.observe(seconds);
    }

    /// A worker gave a pack up.
    pub fn failed(&self, kind: FailureKind) {
        self.failures.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// A worker gets nothing for a while.
    pub fn quarantined(&self) {
        self.quarantines.inc();
    }

    /// A segment became durable, so many seconds after it was due, retries included.
    pub fn segment_written(&self, seconds: f64) {
        self.segment.0.observe(seconds);
    }

    /// The store did not take a segment.
    pub fn segment_refused(&self) {
        self.segment_failures.inc();
    }

    /// A call was answered, so many seconds after it came.
    pub fn called(&self, method: &str, code: &str, seconds: f64) {
        let labels = [("rpc_method", method.to_owned()), ("rpc_response_status_code", code.to_owned())];
        self.calls.0.get_or_create(&labels).observe(seconds);
    }

    /// This coordinator begins to lead.
    pub fn term_began(&self) {
        self.terms.inc();
    }

    /// It leads no longer, because its lease is lost.
    pub fn lease_lost(&self) {
        self.lease_losses.inc();
    }

    /// All that can be asked for, `driver` being there while this coordinator leads.
    #[must_use]
    pub fn exposition(&self, driver: watch::Receiver<Option<DriverHandle>>, live: Live) -> Exposition {
        let mut registry = Registry::with_prefix("evenkeel");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that answers", build);
        let r = &mut registry;
        r.register("trials", "Trials that became durable, by outcome", self.trials.clone());
        r.register(
            "packs",
            "Packs that left the books: finished, given up by a worker, or lost with it",
            self.packs.clone(),
        );
        r.register("pack_failures", "Packs that workers gave up, by kind of failure", self.failures.clone());
        r.register(
            "pack_retries",
            "Packs sent out that hold trials of an earlier attempt",
            self.retries.clone(),
        );
        r.register("quarantines", "Pauses of workers that failed often", self.quarantines.clone());
        r.register_with_unit(
            "pack",
            "From sending a pack out to its end",
            Unit::Seconds,
            self.pack.0.clone(),
        );
        r.register_with_unit(
            "pack_wait",
            "The part of it that a pack was on its way or waited for a slot",
            Unit::Seconds,
            self.wait.0.clone(),
        );
        r.register_with_unit(
            "event",
            "From hearing what a worker reports to having acted on it",
            Unit::Seconds,
            self.event.0.clone(),
        );
        r.register_with_unit(
            "segment",
            "From handing results to the store to their being durable, retries included",
            Unit::Seconds,
            self.segment.0.clone(),
        );
        r.register(
            "segment_failures",
            "Attempts to write results that the store refused",
            self.segment_failures.clone(),
        );
        r.register_with_unit(
            "rpc_server_call_duration",
            "Calls of clients and workers until they were answered, by method and status",
            Unit::Seconds,
            self.calls.0.clone(),
        );
        r.register("leader_terms", "Times this process began to lead", self.terms.clone());
        r.register("lease_losses", "Times it stopped because its lease was lost", self.lease_losses.clone());
        registry.register_collector(Box::new(Now(driver, live)));
        Exposition(Arc::new(registry))
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Exposition(Arc<Registry>);

impl Exposition {
    /// The metrics themselves.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.0.clone()
    }

    /// In the text format of OpenMetrics.
    ///
    /// # Errors
    /// When it cannot be formatted.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// What is the case.
struct Now(watch::Receiver<Option<DriverHandle>>, Live);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let driver = self.0.borrow().clone();
        let gauges = &mut Gauges(&mut encoder);
        gauges.one("leader", "Whether this coordinator leads.", u8::from(driver.is_some()).into())?;
        let Some(driver) = driver else { return Ok(()) };
        gauges.one("leader_epoch", "The epoch it leads in.", driver.epoch() as f64)?;
        let now = driver.snapshot();
        gauges.of_store(&now)?;
        gauges.of_sweeps(&now.sweeps)?;
        gauges.of_stability(&now.sweeps, &self.1)?;
        gauges.of_workers(&now)
    }
}

struct Gauges<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Gauges<'_, '_> {
    fn one(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn many<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        rows.try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
    }

    fn of_store(&mut self, now: &Snapshot) -> fmt::Result {
        let stalled = u8::from(now.stalled.is_some()).into();
        self.one("store_stalled", "Whether the store takes no results.", stalled)?;
        let backlog = now.awaiting as f64;
        self.one("store_backlog_trials", "Trials that were delivered and are not durable.", backlog)?;
        self.one("queue_trials", "Trials of running sweeps that were not sent out.", now.waiting() as f64)
    }

    fn of_sweeps(&mut self, sweeps: &[SweepView]) -> fmt::Result {
        let states =
            [StoredState::Running, StoredState::Paused, StoredState::Completed, StoredState::Cancelled];
        let count = |state| sweeps.iter().filter(|sweep| sweep.state == state).count() as f64;
        let by_state = states.map(|state| ([("state", state_name(state))], count(state)));
        self.many("sweeps", "Sweeps by state.", None, by_state)?;

        let shown = shown(sweeps);
        let trials = shown.iter().flat_map(|sweep| {
            let counts = sweep.counts;
            let states = [
                ("completed", counts.completed),
                ("diverged", counts.diverged),
                ("failed", counts.failed),
                ("running", sweep.running),
                ("waiting", sweep.waiting()),
            ];
            states.map(|(state, count)| ([("sweep", sweep.id.as_str()), ("state", state)], count as f64))
        });
        self.many("sweep_trials", "Trials of a sweep by state.", None, trials)?;
        let going = || shown.iter().filter(|sweep| sweep.state == StoredState::Running);
        let id = |sweep: &&&SweepView| [("sweep", sweep.id.as_str().to_owned())];
        self.many(
            "sweep_trials_per_second",
            "Trials of a running sweep that became durable, over the last seconds.",
            None,
            going().map(|sweep| (id(&sweep), sweep.trials_per_second)),
        )?;
        let left = |sweep: &&&SweepView| sweep.total.saturating_sub(sweep.counts.total()) as f64;
        self.many(
            "sweep_remaining",
            "Time to the end of a running sweep at its present rate.",
            Some(&Unit::Seconds),
            going()
                .filter(|sweep| sweep.trials_per_second > 0.0)
                .map(|sweep| (id(&sweep), left(&sweep) / sweep.trials_per_second)),
        )?;
        self.many(
            "sweep_running",
            "Time that a sweep ran.",
            Some(&Unit::Seconds),
            shown.iter().map(|sweep| (id(&sweep), sweep.seconds)),
        )
    }

    /// What is known of the results of running sweeps; what is new is read in the background, for the next scrape.
    fn of_stability(&mut self, sweeps: &[SweepView], live: &Live) -> fmt::Result {
        let running = shown(sweeps).into_iter().filter(|sweep| sweep.state == StoredState::Running);
        let lines: Vec<(&str, LiveLine)> = running
            .take(MOST_LIVE)
            .flat_map(|sweep| live.known(&sweep.id).into_iter().map(|line| (sweep.id.as_str(), line)))
            .take(MOST_LINES)
            .collect();
        let of = |value: fn(&LiveLine) -> Option<f64>| {
            lines.iter().filter_map(move |(sweep, line)| {
                Some(([("sweep", *sweep), ("strategy", line.label.as_str())], value(line)?))
            })
        };
        self.many(
            "sweep_score_mean",
            "Mean score of the completed trials of a running sweep.",
            None,
            of(|line| line.score_mean),
        )?;
        self.many(
            "sweep_score_seed_sd",
            "Standard deviation of their score over seeds, pooled over datasets.",
            None,
            of(|line| line.score_seed_sd),
        )?;
        self.many("sweep_loo_mean", "Their mean leave-one-out distance.", None, of(|line| line.loo_mean))
    }

    fn of_workers(&mut self, now: &Snapshot) -> fmt::Result {
        let states = [
            WorkerState::Ready,
            WorkerState::Connecting,
            WorkerState::Draining,
            WorkerState::Quarantined,
            WorkerState::Refused,
        ];
        let count = |state| now.workers.iter().filter(|worker| worker.state == state).count() as f64;
        let by_state = states.map(|state| ([("state", state.name())], count(state)));
        self.many("workers", "Workers by state.", None, by_state)?;
        let of = |value: fn(&crate::driver::WorkerView) -> Option<f64>| {
            now.workers.iter().filter_map(move |worker| {
                value(worker).map(|value| ([("worker", worker.record.id.as_str())], value))
            })
        };
        self.many("fleet_slots", "Slots of a worker.", None, of(|w| Some(w.record.slots.into())))?;
        self.many(
            "fleet_packs",
            "Packs that a worker has: one runs in each slot, one waits.",
            None,
            of(|w| Some(w.packs.into())),
        )?;
        self.many("fleet_flops_per_second", "Measured speed of a slot.", None, of(|w| w.speed))?;
        self.many(
            "fleet_quarantined",
            "Whether a worker failed often and gets nothing for a while.",
            None,
            of(|w| Some(u8::from(w.state == WorkerState::Quarantined).into())),
        )?;
        self.many(
            "fleet_failed_packs",
            "Packs that a worker gave up since this coordinator knows it.",
            None,
            of(|w| Some(w.failures.into())),
        )?;
        self.many(
            "fleet_trials",
            "Trials of a worker that counted since this coordinator knows it.",
            None,
            of(|w| Some(w.trials_done as f64)),
        )
    }
}

/// A store keeps sweeps for ever; series are not free.
fn shown(sweeps: &[SweepView]) -> Vec<&SweepView> {
    let goes_on = |sweep: &SweepView| matches!(sweep.state, StoredState::Running | StoredState::Paused);
    let mut order: Vec<&SweepView> = sweeps.iter().collect();
    order.sort_by_key(|sweep| (!goes_on(sweep), std::cmp::Reverse(sweep.submitted_ms)));
    order.truncate(MOST_SWEEPS);
    order
}
