//! The worker's part of the trace of a pack: its execution, and some of its trials.

use std::time::{Instant, SystemTime};

use evenkeel_common::failure::FailureKind;
use evenkeel_common::results::{Status, TrialOutcome};
use evenkeel_common::runtime::trace::{self, Span, SpanKind, TraceContext, is_slow};

use crate::core::PackKey;

/// Trials of a pack that are shown; a pack may have thousands that train as columns of one matrix.
const TRIALS: usize = 32;
/// And of those that did not complete.
const UNUSUAL: usize = 32;

/// What a pack's trace needs, as it came with the pack.
#[derive(Clone, Copy, Debug)]
pub struct PackOrigin {
    /// The span that sent it out.
    pub context: TraceContext,
    /// When it came.
    pub received: Instant,
    /// How long it should take from then on, in seconds.
    pub expected_seconds: f64,
}

/// A pack that is executed.
#[derive(Debug)]
pub struct PackSpan {
    span: Span,
    origin: PackOrigin,
    retried: bool,
    trials: Vec<Span>,
    unusual: usize,
    omitted: u64,
}

impl PackSpan {
    /// The execution of a pack begins.
    #[must_use]
    pub fn begin(origin: PackOrigin, key: PackKey, attempt: u32, sweep: &str, worker: &str) -> Self {
        let parent = origin.context;
        let span = Span::begin("pack.execute", SpanKind::Consumer, parent.child(), Some(parent))
            .with("sweep.id", sweep.to_owned())
            .with("pack.id", key.pack.cast_signed())
            .with("worker.id", worker.to_owned())
            .with("attempt", i64::from(attempt))
            .with("pack.expected_seconds", origin.expected_seconds)
            .with("pack.waited_seconds", origin.received.elapsed().as_secs_f64());
        Self { span, origin, retried: attempt > 1, trials: Vec::new(), unusual: 0, omitted: 0 }
    }

    /// Log lines name it until this is dropped.
    #[must_use]
    pub fn attach(&self) -> impl Drop + use<> {
        self.span.context.attach()
    }

    /// Trials ended, all of them since `start`.
    pub fn trials(&mut self, outcomes: &[TrialOutcome], start: SystemTime) {
        if !trace::is_on() {
            return;
        }
        for outcome in outcomes {
            let completed = outcome.status == Status::Completed;
            let room =
                if completed { self.trials.len() - self.unusual < TRIALS } else { self.unusual < UNUSUAL };
            if !room {
                self.omitted += 1;
                continue;
            }
            self.unusual += usize::from(!completed);
            let context = self.span.context.child();
            let mut span = Span::begin("trial", SpanKind::Internal, context, Some(self.span.context))
                .with("trial.index", outcome.trial_index.cast_signed())
                .with("trial.status", outcome.status.name());
            if let Some(score) = outcome.measures.score {
                span = span.with("trial.score", score);
            }
            span.error.clone_from(&outcome.error);
            span.start = start;
            self.trials.push(span);
        }
    }

    /// The pack ended. Shows it if somebody wants to see it, and says whether.
    pub fn finish(self, failure: Option<(FailureKind, &str)>) -> bool {
        let sick =
            failure.filter(|(kind, _)| !matches!(kind, FailureKind::Cancelled | FailureKind::WorkerDraining));
        let slow = is_slow(self.origin.received.elapsed().as_secs_f64(), self.origin.expected_seconds);
        if !trace::is_on() || !(self.origin.context.is_sampled() || self.retried || sick.is_some() || slow) {
            return false;
        }
        self.trials.into_iter().for_each(Span::emit);
        let mut span = self.span.with("slow", slow).with("trials.omitted", self.omitted.cast_signed());
        if let Some((kind, _)) = failure {
            span = span.with("failure.kind", kind.as_str());
        }
        span.error = sick.map(|(kind, message)| format!("{kind}: {message}"));
        span.finish();
        true
    }
}
