//! A trial's outcome as plain data.

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Trained to the end.
    Completed,
    /// The loss or the weights became NaN or infinite: a result, never retried.
    Diverged,
    /// Could not be run; `error` says why.
    Failed,
}

impl Status {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
        }
    }

    /// From its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Completed, Self::Diverged, Self::Failed].into_iter().find(|status| status.name() == name)
    }
}

/// The numbers of a trial. All `None` where they do not apply.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// The score on the test set by the dataset's metric: accuracy in [0, 1] unless the dataset is a text task with another.
    pub score: Option<f64>,
    /// Accuracy on the test set, in [0, 1].
    pub accuracy: Option<f64>,
    /// Accuracy on the training set, in [0, 1].
    pub train_accuracy: Option<f64>,
    /// Share of the most frequent class in the test set: what a constant prediction scores.
    pub majority: Option<f64>,
    /// Mean cross-entropy on the training set, in nats.
    pub train_loss: Option<f64>,
    /// Mean cross-entropy on the test set, in nats.
    pub eval_loss: Option<f64>,
    /// Exact hard margin γ of the training set (features as trained on, bias as a constant feature);
    /// none when it is not linearly separable, when that was not asked for or not found out, and for full fine-tuning.
    pub margin: Option<f64>,
    /// Smallest geometric margin of the trained head on the training set (negative if a point is misclassified).
    pub trained_margin: Option<f64>,
    /// ‖w_T − w_0‖.
    pub weight_distance: Option<f64>,
    /// ‖w_T‖.
    pub weight_norm: Option<f64>,
    /// ‖w_T/‖w_T‖ − ŵ/‖ŵ‖‖, distance of the direction to the hard-margin one.
    pub direction_residual: Option<f64>,
    /// Mean over refits of the distance with and without a point: of directions w/‖w‖ for head tuning, of all weights for
    /// full fine-tuning.
    pub loo_mean: Option<f64>,
    /// Greatest such distance.
    pub loo_max: Option<f64>,
    /// Standard error of `loo_mean`.
    pub loo_se: Option<f64>,
    /// Mean distance between raw weights.
    pub loo_raw_mean: Option<f64>,
    /// Greatest distance between raw weights.
    pub loo_raw_max: Option<f64>,
    /// Share of left-out points whose predicted class changed.
    pub loo_flip_rate: Option<f64>,
    /// Mean rise of the loss at the left-out point, in nats.
    pub loo_loss_change: Option<f64>,
    /// Number of refits.
    pub loo_count: Option<u32>,
    /// The score on the validation set.
    pub validation_score: Option<f64>,
    /// ‖w − w_0‖ over the encoder after the phase without labels (SURT) and before fine-tuning.
    pub surt_distance: Option<f64>,
    /// Mean distance between the mean features of two classes, on the training set: what MMR raises.
    pub class_distance: Option<f64>,
    /// Optimisation steps that were made, all phases together.
    pub trained_steps: Option<u32>,
    /// Inputs that were cut because they have more tokens than the model takes, of all sets.
    pub truncated: Option<u32>,
    /// Rows of the dataset that were passed over because they cannot be read.
    pub skipped_rows: Option<u32>,
    /// Greatest dual variable of the hard-margin problem of the training set; none when it is not linearly separable.
    pub dual_max: Option<f64>,
    /// B, greatest norm of a training point with its bias feature; none when the set is not linearly separable.
    pub feature_norm: Option<f64>,
    /// L of the bound for full fine-tuning: greatest norm of the gradient of one training example's loss.
    pub lipschitz: Option<f64>,
    /// β: greatest eigenvalue of the Hessian of the training loss at the end.
    pub smoothness: Option<f64>,
    /// μ: its least eigenvalue that is positive and clearly not zero.
    pub curvature: Option<f64>,
    /// The least eigenvalue that was found; below zero the loss is not convex there.
    pub least_curvature: Option<f64>,
    /// Support vectors of the hard-margin problem; none when the set is not linearly separable.
    pub support_vectors: Option<u32>,
}

/// One point of a trial's curve.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CurvePoint {
    /// Steps done.
    pub step: u32,
    /// Mean cross-entropy on the training set, in nats.
    pub train_loss: f64,
    /// Mean cross-entropy on the test set, in nats.
    pub eval_loss: f64,
    /// Score on the test set.
    pub score: f64,
    /// Mean leave-one-out distance of directions; NaN without refits.
    pub loo_mean: f64,
    /// Distance of the direction to the hard-margin one; NaN where that is unknown.
    pub direction_residual: f64,
}

/// What a trial says of the test set, as far as the sweep keeps it. Example i is the same one in all trials of a dataset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestOutputs {
    /// The predicted class of each example.
    pub classes: Option<Vec<u32>>,
    /// Natural logarithms of the class probabilities, C for each example, example by example.
    pub log_probabilities: Option<Vec<f32>>,
    /// What a fine-tuned encoder makes of the first examples: the features that its head sees.
    pub features: Option<Features>,
}

impl TestOutputs {
    /// Memory of the values, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let values = self.classes.as_ref().map_or(0, Vec::len)
            + self.log_probabilities.as_ref().map_or(0, Vec::len)
            + self.features.as_ref().map_or(0, |features| features.values.len());
        4 * values
    }
}

/// Features of examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// How many examples.
    pub examples: u32,
    /// As many features for each, example by example.
    pub values: Vec<f32>,
}

/// What a worker reports of one trial. Only what is deterministic.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialOutcome {
    /// Its number in the grid.
    pub trial_index: u64,
    /// How it ended.
    pub status: Status,
    /// Why it failed, when it did.
    pub error: Option<String>,
    /// Its numbers.
    pub measures: Measures,
    /// `weight_distance`, and the mean leave-one-out distance, by group of parameters, as JSON:
    /// `{"embeddings": {"moved": …, "loo": …}, "layer.0": …, "head": …}`.
    pub distances: Option<String>,
    /// Its curve, at the strategy's checkpoints and at the end.
    pub curve: Vec<CurvePoint>,
    /// What it says of the test set.
    pub outputs: TestOutputs,
}

/// How a trial was run: what is not deterministic, kept apart from results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecutionRecord {
    /// Which attempt gave the result, from 1.
    pub attempt: u32,
    /// Id of the worker.
    pub worker: String,
    /// Its device and CPU model.
    pub device: String,
    /// Start of its pack, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Its share of the pack's duration, in seconds.
    pub duration_s: f64,
}

/// A row of a segment: outcome and execution.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRecord {
    /// What was computed.
    pub outcome: TrialOutcome,
    /// How.
    pub execution: ExecutionRecord,
}
