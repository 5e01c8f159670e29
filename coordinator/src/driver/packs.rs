//! Packs on their way: when each went out and what became of it, for metrics and traces.

use std::collections::BTreeMap;
use std::time::SystemTime;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::id::SweepId;
use evenkeel_common::runtime::trace::{Span, SpanKind, TraceContext, is_slow};
use tokio::time::Instant;

use super::traces::{Budget, GivenUp};
use crate::core::{PackId, TrialSet, WorkerId};
use crate::metrics::{Metrics, PackEnd};

/// A pack that goes out.
pub(super) struct Sending<'a> {
    pub pack: PackId,
    pub worker: &'a WorkerId,
    pub sweep: &'a SweepId,
    /// The span of the sweep, where it is traced.
    pub parent: Option<TraceContext>,
    pub attempt: u32,
    pub trials: &'a TrialSet,
    pub expected_seconds: f64,
}

/// The packs that are out; as many as the scheduler has in flight, and those whose cancellation was not answered.
pub(super) struct PacksOut {
    metrics: Metrics,
    out: BTreeMap<PackId, Out>,
    /// Packs whose trials are to run again.
    given_up: GivenUp,
    budget: Budget,
}

struct Out {
    worker: WorkerId,
    since: Instant,
    expected_seconds: f64,
    traced: Option<Traced>,
}

/// What a pack's span needs at its end.
struct Traced {
    span: Span,
    sweep: SweepId,
    trials: TrialSet,
}

/// How a pack ended.
enum End<'a> {
    Finished { traced: bool },
    Failed { kind: FailureKind, message: &'a str },
    Lost,
}

impl PacksOut {
    /// None is out; of those that are neither special nor sick so many a minute are traced.
    pub fn new(metrics: Metrics, traced_per_minute: u32) -> Self {
        let budget = Budget::new(traced_per_minute, Instant::now());
        Self { metrics, out: BTreeMap::new(), given_up: GivenUp::default(), budget }
    }

    /// The pack goes out. Gives the context of its span, where it is traced.
    pub fn sent(&mut self, sending: &Sending<'_>) -> Option<TraceContext> {
        let Sending { pack, worker, attempt, expected_seconds, .. } = *sending;
        self.metrics.dispatched(attempt);
        let traced = sending.parent.map(|parent| self.begin(sending, parent));
        let context = traced.as_ref().map(|traced| traced.span.context);
        let (worker, since) = (worker.clone(), Instant::now());
        self.out.insert(pack, Out { worker, since, expected_seconds, traced });
        context
    }

    fn begin(&mut self, sending: &Sending<'_>, parent: TraceContext) -> Traced {
        let Sending { pack, worker, sweep, attempt, trials, expected_seconds, .. } = *sending;
        let links = self.given_up.links(sweep, trials);
        // What runs again is always shown.
        let sampled = attempt > 1 || !links.is_empty() || self.budget.take(Instant::now());
        let context = parent.child().with_sampled(sampled);
        let mut span = Span::begin("pack.dispatch", SpanKind::Producer, context, Some(parent))
            .with("sweep.id", sweep.to_string())
            .with("pack.id", pack.0.cast_signed())
            .with("worker.id", worker.to_string())
            .with("attempt", i64::from(attempt))
            .with("trials", trials.len().cast_signed())
            .with("pack.expected_seconds", expected_seconds);
        if let (Some(first), Some(last)) = (trials.first(), trials.last()) {
            span = span.with("trial.first", first.cast_signed()).with("trial.last", last.cast_signed());
        }
        span.links = links;
        Traced { span, sweep: sweep.clone(), trials: trials.clone() }
    }

    /// The span of a pack, for log lines about it.
    pub fn context(&self, pack: PackId) -> Option<TraceContext> {
        self.out.get(&pack).and_then(|out| out.traced.as_ref()).map(|traced| traced.span.context)
    }

    /// `busy` is the part that the worker worked on it, in seconds, as it says; `traced` whether it showed its part.
    pub fn finished(&mut self, pack: PackId, busy: f64, traced: bool) {
        let Some(out) = self.out.remove(&pack) else { return };
        let waited = (out.since.elapsed().as_secs_f64() - busy).max(0.0);
        self.metrics.pack_waited(waited);
        self.end(out, &End::Finished { traced });
    }

    /// The worker gave it up.
    pub fn failed(&mut self, pack: PackId, kind: FailureKind, message: &str) {
        if let Some(out) = self.out.remove(&pack) {
            self.end(out, &End::Failed { kind, message });
        }
    }

    /// Its worker is gone.
    pub fn lost(&mut self, worker: &WorkerId) {
        let lost: Vec<PackId> =
            self.out.iter().filter(|(_, out)| out.worker == *worker).map(|(pack, _)| *pack).collect();
        for out in lost.iter().filter_map(|pack| self.out.remove(pack)).collect::<Vec<_>>() {
            self.end(out, &End::Lost);
        }
    }

    fn end(&mut self, out: Out, end: &End<'_>) {
        let seconds = out.since.elapsed().as_secs_f64();
        let outcome = match end {
            End::Finished { .. } => PackEnd::Finished,
            End::Failed { .. } => PackEnd::Failed,
            End::Lost => PackEnd::Lost,
        };
        let shown = out.traced.and_then(|traced| {
            let context = traced.span.context;
            let slow = is_slow(seconds, out.expected_seconds);
            self.show(traced, end, slow).then_some(context)
        });
        self.metrics.pack_ended(outcome, seconds, shown);
    }

    /// Shows the span of a pack if somebody wants to see it, and says whether.
    fn show(&mut self, Traced { mut span, sweep, trials }: Traced, end: &End<'_>, slow: bool) -> bool {
        let (outcome, error, runs_again) = match end {
            End::Finished { .. } => ("finished", None, false),
            End::Failed { kind: FailureKind::Cancelled, .. } => ("cancelled", None, false),
            End::Failed { kind: FailureKind::WorkerDraining, .. } => ("handed back", None, true),
            End::Failed { kind, message } => ("failed", Some(format!("{kind}: {message}")), true),
            End::Lost => ("lost", Some("the worker is gone".to_owned()), true),
        };
        if runs_again {
            self.given_up.note(sweep, trials, span.context);
        }
        // The worker decides whether a pack that it finished was slow: both parts are shown, or none.
        let wanted = match end {
            End::Finished { traced } => *traced || span.context.is_sampled(),
            _ => error.is_some() || span.context.is_sampled(),
        };
        if wanted {
            span = span.with("outcome", outcome).with("slow", slow);
            span.error = error;
            span.end = SystemTime::now();
            span.emit();
        }
        wanted
    }
}
