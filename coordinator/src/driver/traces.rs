//! Which packs are traced, which attempt follows which, and the spans of sweeps and of what is written.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use evenkeel_common::id::SweepId;
use evenkeel_common::runtime::trace::{self, Span, SpanKind, TraceContext};
use tokio::time::Instant;

use super::{SweepEntry, TraceView};
use crate::core::TrialSet;
use crate::store::{LoadedSweep, StoredState};

/// Packs that failed and whose trials did not go out again yet; older ones are forgotten.
const GIVEN_UP: usize = 256;

/// What is traced, and where people look at it.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// How many ordinary packs a minute are traced; those that fail, run again or are slow always are.
    pub packs_per_minute: u32,
    /// Where a trace is shown, with [`TraceConfig::PLACE`] in the place of its id.
    pub url: Option<String>,
}

impl TraceConfig {
    /// Stands for the id in a URL.
    pub const PLACE: &str = "{trace_id}";

    /// A trace as users see it.
    pub(super) fn view(&self, context: TraceContext) -> TraceView {
        let id = context.trace_id();
        let url = self.url.as_ref().map(|url| url.replace(Self::PLACE, &id));
        TraceView { id, url }
    }
}

impl Default for TraceConfig {
    /// One a second.
    fn default() -> Self {
        Self { packs_per_minute: 60, url: None }
    }
}

/// How many ordinary packs are traced: so many a minute, whatever the size of the sweep.
#[derive(Debug)]
pub(super) struct Budget {
    per_minute: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// So many a minute, and those of a minute at once.
    pub fn new(per_minute: u32, now: Instant) -> Self {
        let per_minute = f64::from(per_minute);
        Self { per_minute, left: per_minute, at: now }
    }

    /// Whether there is one left.
    pub fn take(&mut self, now: Instant) -> bool {
        let minutes = now.saturating_duration_since(self.at).as_secs_f64() / 60.0;
        self.at = now;
        self.left = (self.left + minutes * self.per_minute).min(self.per_minute);
        let some = self.left >= 1.0;
        self.left -= f64::from(u8::from(some));
        some
    }
}

/// Packs whose trials run again: what the next attempt is linked to.
#[derive(Debug, Default)]
pub(super) struct GivenUp(VecDeque<(SweepId, TrialSet, TraceContext)>);

impl GivenUp {
    pub fn note(&mut self, sweep: SweepId, trials: TrialSet, context: TraceContext) {
        if self.0.len() >= GIVEN_UP {
            self.0.pop_front();
        }
        self.0.push_back((sweep, trials, context));
    }

    /// The packs that held any of these trials before.
    pub fn links(&mut self, sweep: &SweepId, trials: &TrialSet) -> Vec<TraceContext> {
        let mut links = Vec::new();
        self.0.retain_mut(|(of, left, context)| {
            if of == sweep && left.overlaps(trials) {
                links.push(*context);
                left.remove(trials);
            }
            !left.is_empty()
        });
        links
    }
}

/// Where a sweep stands in its trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct SweepTrace {
    /// Its span: the same for every coordinator that leads it.
    pub context: TraceContext,
    /// The call that submitted it.
    parent: Option<TraceContext>,
    /// It ended before: its span was shown.
    shown: bool,
}

impl SweepTrace {
    /// Of a sweep that is in the store; none where nobody traces, or its submitter did not want it.
    pub fn of(loaded: &LoadedSweep) -> Option<Self> {
        if !trace::is_on() {
            return None;
        }
        let parent = loaded.record.traceparent.as_deref().and_then(TraceContext::parse);
        if parent.is_some_and(|parent| !parent.is_sampled()) {
            return None;
        }
        let trace = parent.unwrap_or_else(TraceContext::root);
        let shown =
            matches!(loaded.state, StoredState::Completed | StoredState::Cancelled) || loaded.reopened;
        Some(Self { context: trace.named(&loaded.record.sweep_id.to_string()), parent, shown })
    }
}

impl SweepEntry {
    /// Shows the span of a sweep that has ended.
    pub(super) fn show_trace(&mut self, id: &SweepId) {
        let Some(trace) = self.trace.as_mut().filter(|trace| !trace.shown) else { return };
        trace.shown = true;
        let (spec, counts) = (self.sweep.grid.spec(), self.counts);
        let mut span = Span::begin("sweep", SpanKind::Internal, trace.context, trace.parent)
            .with("sweep.id", id.to_string())
            .with("sweep.name", spec.name.clone())
            .with("trials", self.sweep.grid.len().cast_signed())
            .with("trials.completed", counts.completed.cast_signed())
            .with("trials.diverged", counts.diverged.cast_signed())
            .with("trials.failed", counts.failed.cast_signed());
        let submitted = u64::try_from(self.submitted_ms).unwrap_or(0);
        span.start = SystemTime::UNIX_EPOCH + Duration::from_millis(submitted);
        if self.state == StoredState::Cancelled {
            span = span.with("cancelled", true);
        } else if counts.failed > 0 {
            span = span.failed(format!("{} trials failed", counts.failed));
        }
        span.emit();
    }

    /// Shows that results were written, if that was remarkable or `budget` allows.
    pub(super) fn show_put(&self, id: &SweepId, put: Put, budget: &mut Budget) {
        let Some(trace) = self.trace else { return };
        if !(put.attempts > 1 || put.took > Put::SLOW || budget.take(Instant::now())) {
            return;
        }
        let context = trace.context.child();
        let mut span = Span::begin("store.put", SpanKind::Client, context, Some(trace.context))
            .with("sweep.id", id.to_string())
            .with("trials", put.trials.cast_signed())
            .with("bytes", i64::try_from(put.bytes).unwrap_or(i64::MAX))
            .with("attempt", i64::from(put.attempts));
        span.start = span.end.checked_sub(put.took).unwrap_or(span.end);
        span.emit();
    }
}

/// Results that became durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put {
    pub trials: u64,
    pub bytes: usize,
    pub attempts: u32,
    pub took: Duration,
}

impl Put {
    /// From here on it is shown in any case.
    const SLOW: Duration = Duration::from_secs(2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ordinary_packs_so_many_a_minute_are_traced() {
        let start = Instant::now();
        let mut budget = Budget::new(6, start);
        let taken = |budget: &mut Budget, second: u64| {
            (0..100).filter(|_| budget.take(start + Duration::from_secs(second))).count()
        };
        assert_eq!(taken(&mut budget, 0), 6);
        assert_eq!(taken(&mut budget, 5), 0);
        assert_eq!(taken(&mut budget, 15), 1);
        assert_eq!(taken(&mut budget, 3600), 6);
        let mut none = Budget::new(0, start);
        assert_eq!(taken(&mut none, 3600), 0);
    }

    #[test]
    fn a_pack_is_linked_to_every_earlier_one_that_held_its_trials_and_each_trial_once() {
        let sweep = |name: &str| SweepId::parse(&format!("{name}-0123456789")).expect("id");
        let (context, later) = (TraceContext::root(), TraceContext::root());
        let mut given_up = GivenUp::default();
        let trials = |range| TrialSet::from_ranges([range]);
        given_up.note(sweep("a"), trials(0..10), context);
        given_up.note(sweep("a"), trials(10..20), later);
        assert!(given_up.links(&sweep("b"), &trials(0..20)).is_empty());
        assert_eq!(given_up.links(&sweep("a"), &trials(0..5)), [context]);
        assert_eq!(given_up.links(&sweep("a"), &trials(5..20)), [context, later]);
        assert!(given_up.links(&sweep("a"), &trials(0..20)).is_empty());
        for pack in 0..1000 {
            given_up.note(sweep("a"), trials(pack..pack + 1), context);
        }
        assert_eq!(given_up.0.len(), GIVEN_UP);
    }
}
