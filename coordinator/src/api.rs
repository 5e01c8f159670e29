//! What the JSON API and `--json` say: one set of types, so that both print the same.

use std::collections::BTreeMap;

use evenkeel_proto::v1;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// What went wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Error {
    /// In words, with what to do about it where that is known.
    pub error: String,
}

/// How a sweep stands.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SweepStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `running`, `paused`, `completed` or `cancelled`.
    pub state: &'static str,
    /// Trials of its grid.
    pub trials: u64,
    /// Durable trials that trained to the end.
    pub completed: u64,
    /// Durable trials that left the numbers.
    pub diverged: u64,
    /// Durable trials that could not be run.
    pub failed: u64,
    /// Trials that are with workers.
    pub running: u64,
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub submitted_ms: i64,
    /// Time spent running, in seconds.
    pub seconds: f64,
    /// Its share relative to other sweeps.
    pub priority: u32,
    /// Durable trials per second over the last seconds.
    pub trials_per_second: f64,
    /// Time to its end at this rate, in seconds; none while nothing moves.
    pub seconds_left: Option<f64>,
    /// Workers that take packs.
    pub workers: u32,
    /// Why nothing moves, when something stops it.
    pub notice: Option<String>,
    /// The newest point of the curve of each long trial that is training.
    pub training: Vec<TrainingPoint>,
    /// Its trace: 32 hexadecimal digits; none where nobody traces.
    pub trace_id: Option<String>,
    /// Where people look at it, if the coordinator was told.
    pub trace_url: Option<String>,
}

impl SweepStatus {
    /// Durable trials.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.completed + self.diverged + self.failed
    }

    /// Whether it has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.state, "completed" | "cancelled")
    }
}

impl From<&v1::SweepStatus> for SweepStatus {
    fn from(status: &v1::SweepStatus) -> Self {
        let state = match status.state() {
            v1::SweepState::Running => "running",
            v1::SweepState::Paused => "paused",
            v1::SweepState::Completed => "completed",
            v1::SweepState::Cancelled => "cancelled",
            v1::SweepState::Unspecified => "unknown",
        };
        let left = status.total.saturating_sub(status.completed + status.diverged + status.failed);
        let rate = status.trials_per_second;
        Self {
            id: status.sweep_id.clone(),
            name: status.name.clone(),
            state,
            trials: status.total,
            completed: status.completed,
            diverged: status.diverged,
            failed: status.failed,
            running: status.running,
            submitted_ms: status.submitted_ms,
            seconds: status.seconds,
            priority: status.priority,
            trials_per_second: rate,
            seconds_left: (state == "running" && rate > 0.0).then(|| left as f64 / rate),
            workers: status.workers,
            notice: (!status.notice.is_empty()).then(|| status.notice.clone()),
            training: status.training.iter().map(TrainingPoint::from).collect(),
            trace_id: Some(status.trace_id.clone()).filter(|id| !id.is_empty()),
            trace_url: Some(status.trace_url.clone()).filter(|url| !url.is_empty()),
        }
    }
}

/// A point of the curve of a trial that trains.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TrainingPoint {
    /// The trial.
    pub trial: u64,
    /// Steps done.
    pub step: u32,
    /// Steps there will be.
    pub steps: u32,
    /// Training loss in nats; none when it is no number.
    pub train_loss: Option<f64>,
    /// Score on the test set; none where it was not measured.
    pub score: Option<f64>,
}

impl From<&v1::TrialSample> for TrainingPoint {
    fn from(sample: &v1::TrialSample) -> Self {
        Self {
            trial: sample.trial,
            step: sample.step,
            steps: sample.steps,
            train_loss: finite(sample.train_loss),
            score: finite(sample.score),
        }
    }
}

/// A number that JSON has.
#[must_use]
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// All sweeps.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Sweeps {
    /// By id.
    pub sweeps: Vec<SweepStatus>,
}

/// A sweep that was submitted.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Submitted {
    /// How it stands.
    #[serde(flatten)]
    pub status: SweepStatus,
    /// Whether it is new: the same spec has the same id, and is not run twice.
    pub created: bool,
}

/// A worker.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WorkerStatus {
    /// Its id.
    pub id: String,
    /// Where it serves.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Its device.
    pub device: String,
    /// Packs it runs at once.
    pub slots: u32,
    /// `ready`, `connecting`, `draining`, `quarantined` or `refused`.
    pub state: String,
    /// Why it is not ready; empty when it is.
    pub reason: String,
    /// Packs it has.
    pub packs: u32,
    /// The sweep of its newest pack.
    pub sweep: Option<String>,
    /// Measured speed of a slot, in floating-point operations per second.
    pub flops_per_second: Option<f64>,
    /// Packs it gave up since this coordinator knows it.
    pub failures: u32,
    /// Trials it delivered that counted, since this coordinator knows it.
    pub trials_done: u64,
}

impl From<&v1::WorkerStatus> for WorkerStatus {
    fn from(worker: &v1::WorkerStatus) -> Self {
        Self {
            id: worker.id.clone(),
            address: worker.address.clone(),
            version: worker.version.clone(),
            device: worker.device.clone(),
            slots: worker.slots,
            state: worker.state.clone(),
            reason: worker.reason.clone(),
            packs: worker.packs,
            sweep: (!worker.sweep_id.is_empty()).then(|| worker.sweep_id.clone()),
            flops_per_second: (worker.speed > 0.0).then_some(worker.speed),
            failures: worker.failures,
            trials_done: worker.trials_done,
        }
    }
}

/// All workers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Workers {
    /// By id.
    pub workers: Vec<WorkerStatus>,
}

/// A worker that was told to leave.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Draining {
    /// The worker: it finishes what it runs and leaves.
    pub draining: String,
}

/// A trial in brief. Named as the columns of `results.parquet` and `execution.parquet` are.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TrialRow {
    /// Its number in the grid.
    pub trial_index: u64,
    /// Name of its dataset.
    pub dataset: String,
    /// Name of its model.
    pub model: String,
    /// Name of its strategy.
    pub strategy: String,
    /// Its seed.
    pub seed: u64,
    /// `completed`, `diverged`, `failed`, `running` (with a worker) or `waiting`.
    pub status: &'static str,
    /// Its score on the test set.
    pub score: Option<f64>,
    /// Its mean leave-one-out distance.
    pub loo_mean: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
    /// Which attempt gave the result.
    pub attempt: Option<u32>,
    /// Its worker.
    pub worker: Option<String>,
    /// The worker's device.
    pub device: Option<String>,
    /// Start of its pack, in milliseconds since the Unix epoch.
    pub started_ms: Option<i64>,
    /// Its share of the pack's duration, in seconds.
    pub duration_s: Option<f64>,
}

/// Trials in the order of their numbers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Trials {
    /// Those that were asked for, at most `limit`.
    pub trials: Vec<TrialRow>,
    /// What to ask `after` for more; none when there are no more.
    pub next: Option<u64>,
    /// How much of the sweep's durable results was looked at, from 0 to 1.
    pub read: f64,
}

/// Everything that is known of a trial.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Trial {
    /// In brief.
    #[serde(flatten)]
    pub row: TrialRow,
    /// The sweep.
    pub sweep: String,
    /// Its id, the same wherever it runs.
    pub trial_id: String,
    /// The dataset with every axis resolved.
    pub dataset_config: Value,
    /// The model.
    pub model_config: Value,
    /// The strategy with every axis resolved.
    pub strategy_config: Value,
    /// What was measured, by the names of the columns of `results.parquet`.
    pub measures: BTreeMap<&'static str, f64>,
    /// How far each group of parameters moved, of encoders.
    pub distances: Option<Value>,
    /// Its curve.
    pub curve: Vec<CurvePoint>,
    /// Whether it trains now, so that the curve goes on.
    pub training: bool,
}

/// A point of a trial's curve; none stands for what was not measured.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CurvePoint {
    /// Steps done.
    pub step: u32,
    /// Training loss in nats.
    pub train_loss: Option<f64>,
    /// Loss on the test set in nats.
    pub eval_loss: Option<f64>,
    /// Score on the test set.
    pub score: Option<f64>,
    /// Mean leave-one-out distance.
    pub loo_mean: Option<f64>,
}

/// The stability of a sweep as far as its results are durable: what the plots of the page show.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Live {
    /// The sweep.
    pub sweep: String,
    /// How much of its durable results is in these figures, from 0 to 1. Ask again while it is below 1.
    pub read: f64,
    /// Why these figures are not up to date, when the store gave no answer or is damaged.
    pub problem: Option<String>,
    /// Trials that are in these figures.
    pub trials: u64,
    /// One a strategy, or one a point of its axes while they are few.
    pub lines: Vec<LiveLine>,
    /// Errors of failed trials, the most frequent first.
    pub failures: Vec<LiveFailure>,
    /// Failed trials whose error is not listed.
    pub unlisted_failures: u64,
    /// Trials that train, with their curves.
    pub training: Vec<LiveCurve>,
}

/// A strategy, or one of its points, so far.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct LiveLine {
    /// Name, and what sets the point apart.
    pub label: String,
    /// Name of the strategy.
    pub strategy: String,
    /// Trained to the end.
    pub completed: u64,
    /// Left the numbers.
    pub diverged: u64,
    /// Could not be run.
    pub failed: u64,
    /// Mean score over completed trials.
    pub score_mean: Option<f64>,
    /// Standard deviation of the score over completed trials.
    pub score_sd: Option<f64>,
    /// Standard deviation of the score over seeds, pooled over groups: `score_sd_pooled` of `summary.json`.
    pub score_seed_sd: Option<f64>,
    /// Mean over completed trials of the mean leave-one-out distance.
    pub loo_mean: Option<f64>,
    /// Some trials, picked by a hash of their numbers.
    pub sample: Vec<LiveDot>,
}

/// A trial of a sample.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct LiveDot {
    /// Its number.
    pub trial: u64,
    /// Its score.
    pub score: f64,
    /// Its mean leave-one-out distance.
    pub loo_mean: Option<f64>,
}

/// Trials that failed for the same reason.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LiveFailure {
    /// The reason.
    pub error: String,
    /// How many.
    pub trials: u64,
    /// The first of them.
    pub first_trial: u64,
}

/// The curve of a trial that trains.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LiveCurve {
    /// The trial.
    pub trial: u64,
    /// Steps there will be.
    pub steps: u32,
    /// Its points.
    pub points: Vec<CurvePoint>,
}

/// How much there is to do: what autoscalers ask.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Queue {
    /// Trials of running sweeps that were not sent out.
    pub trials: u64,
    /// Trials that were sent out and are not durable.
    pub running: u64,
    /// Workers that take packs.
    pub workers: usize,
}

/// How the coordinator does.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Health {
    /// Whether this coordinator leads; another does where not.
    pub leading: bool,
    /// Who leads, if it is another and known.
    pub leader: Option<String>,
    /// The epoch it leads in.
    pub epoch: Option<u64>,
    /// Where results go.
    pub store: String,
    /// Why the store takes no results, if so.
    pub store_stalled: Option<String>,
    /// Trials that were delivered and are not durable yet.
    pub backlog_trials: u64,
    /// Sweeps that have not ended.
    pub sweeps: usize,
    /// Workers that take packs.
    pub workers_ready: usize,
    /// All workers.
    pub workers: usize,
    /// Version of the program.
    pub version: &'static str,
    /// Version of the protocol that workers and clients have to speak.
    pub protocol_version: u32,
    /// Version of the store's format.
    pub format_version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_has_no_numbers_for_is_null_and_nothing_is_left_out() {
        let sample = v1::TrialSample { trial: 3, step: 5, steps: 10, train_loss: 0.5, score: f64::NAN };
        let status = v1::SweepStatus {
            state: v1::SweepState::Running.into(),
            total: 10,
            completed: 4,
            trials_per_second: 2.0,
            training: vec![sample],
            ..v1::SweepStatus::default()
        };
        let json = serde_json::to_value(SweepStatus::from(&status)).expect("json");
        assert_eq!(json["seconds_left"], 3.0);
        assert_eq!(json["notice"], Value::Null);
        assert_eq!(json["training"][0]["score"], Value::Null);
        assert_eq!(json["training"][0]["train_loss"], 0.5);
    }
}
