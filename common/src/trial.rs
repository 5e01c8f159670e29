//! One trial, resolved: plain values in place of axes, its id, and what it costs.

use serde::Serialize;

use crate::id::{ContentHash, TrialId};
use crate::spec::{
    ChildMode, LeaveOneOut, Optimizer, Pooling, Precision, Reduction, Schedule, SeedControls, Select, Setting,
};
use crate::text::Metric;

/// A dataset with every axis resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetConfig {
    /// Drawn.
    Synthetic(SyntheticConfig),
    /// Read from a file.
    Features(FeaturesConfig),
    /// Texts.
    Text(TextConfig),
}

/// One synthetic dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyntheticConfig {
    /// The distribution and its parameters.
    #[serde(flatten)]
    pub generator: GeneratorConfig,
    /// Training set size n.
    pub samples: u32,
    /// Features d.
    pub features: u32,
    /// Classes C.
    pub classes: u32,
    /// Test set size.
    pub test_samples: u32,
    /// Which of the independent draws.
    pub instance: u32,
}

/// A distribution with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "generator", rename_all = "snake_case")]
pub enum GeneratorConfig {
    /// Linearly separable with margin at least `margin`.
    Separable {
        /// γ.
        margin: f64,
        /// Standard deviation orthogonal to the separating direction.
        noise: f64,
        /// Bound B on the norm of a point.
        max_norm: f64,
    },
    /// scikit-learn's `make_classification`.
    Classification {
        /// Informative features.
        informative: u32,
        /// Redundant features.
        redundant: u32,
        /// Repeated features.
        repeated: u32,
        /// Clusters of each class.
        clusters_per_class: u32,
        /// Half the side of the hypercube.
        class_sep: f64,
        /// Share of random labels.
        flip_y: f64,
        /// Corners of a hypercube, not of a random polytope.
        hypercube: bool,
    },
    /// One Gaussian a class.
    Blobs {
        /// Standard deviation.
        cluster_std: f64,
        /// Centres lie in [−v, v].
        center_box: f64,
    },
}

/// One split of a feature file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeaturesConfig {
    /// Path as the spec has it; data are identified by `content`, not by it.
    #[serde(skip)]
    pub path: String,
    /// BLAKE3 of the file (and of the labels file), hex.
    pub content: String,
    /// Class column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// File of classes, for `.npy`.
    #[serde(skip)]
    pub labels: Option<String>,
    /// Columns left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// Shift and scale by the training set.
    pub standardize: bool,
    /// Share held out.
    pub test_fraction: f64,
    /// Training set size asked for; `None` takes all that the split leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// Which of the independent splits.
    pub instance: u32,
    /// Training set size n that results.
    #[serde(skip)]
    pub train_rows: u32,
    /// Features d.
    #[serde(skip)]
    pub features: u32,
    /// Classes C.
    #[serde(skip)]
    pub classes: u32,
}

/// One split of a dataset of texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextConfig {
    /// Path as the spec has it; data are identified by `content`, not by it.
    #[serde(skip)]
    pub path: String,
    /// BLAKE3 of its files, hex.
    pub content: String,
    /// The official task; none for an own file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Columns of an own file: text, second text, class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<(String, Option<String>, String)>,
    /// Share held out as test set; none where the test set is a file of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// Share held out as validation set.
    pub validation_fraction: f64,
    /// Training set size asked for; `None` takes all that the splits leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// Most test rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_samples: Option<u32>,
    /// Which of the independent splits.
    pub instance: u32,
    /// Most tokens of an input.
    pub max_length: u32,
    /// The score.
    pub metric: Metric,
    /// Whether malformed rows are passed over.
    #[serde(skip)]
    pub skip_malformed: bool,
    /// Training set size n that results.
    #[serde(skip)]
    pub train_rows: u32,
    /// About how many rows it is tested on.
    #[serde(skip)]
    pub test_rows: u32,
    /// Classes C.
    #[serde(skip)]
    pub classes: u32,
    /// About how many tokens an input has.
    #[serde(skip)]
    pub mean_tokens: u32,
    /// Rows that were passed over.
    #[serde(skip)]
    pub skipped: u32,
}

impl DatasetConfig {
    /// (n, d, C) of the training set; d is 0 for texts, whose features are the model's.
    #[must_use]
    pub fn shape(&self) -> (u32, u32, u32) {
        match self {
            Self::Synthetic(c) => (c.samples, c.features, c.classes),
            Self::Features(c) => (c.train_rows, c.features, c.classes),
            Self::Text(c) => (c.train_rows, 0, c.classes),
        }
    }

    /// What its trials are scored by.
    #[must_use]
    pub fn metric(&self) -> Metric {
        match self {
            Self::Synthetic(_) | Self::Features(_) => Metric::Accuracy,
            Self::Text(c) => c.metric,
        }
    }

    /// The canonical form, which ids and results hold.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Synthetic(config) => serde_json::to_string(config),
            Self::Features(config) => serde_json::to_string(config),
            Self::Text(config) => serde_json::to_string(config),
        }
        .unwrap_or_default()
    }
}

/// An encoder, resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// Features as they are.
    Identity,
    /// A pre-trained transformer.
    Huggingface(PretrainedConfig),
}

/// A pre-trained transformer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PretrainedConfig {
    /// Path or name as the spec has it; the model is identified by `content`, not by it.
    #[serde(skip)]
    pub path: String,
    /// BLAKE3 of its files, hex.
    pub content: String,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Size of its output vectors.
    #[serde(skip)]
    pub hidden: u32,
    /// Layers.
    #[serde(skip)]
    pub layers: u32,
    /// Weights a token is multiplied with.
    #[serde(skip)]
    pub layer_weights: u64,
}

impl ModelConfig {
    /// The canonical form, which ids hold.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A strategy with every axis resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StrategyConfig {
    /// Its name. Not part of the id: the same training under another name is the same trial.
    #[serde(skip)]
    pub name: String,
    /// What is trained.
    pub setting: Setting,
    /// Steps t.
    pub steps: u32,
    /// Step size η.
    pub learning_rate: f64,
    /// Optimiser.
    pub optimizer: Optimizer,
    /// Momentum coefficient; 0 unless the optimiser is `momentum` or `sgd`.
    pub momentum: f64,
    /// λ of (λ/2)‖w‖², or AdamW's decoupled decay.
    pub weight_decay: f64,
    /// Whether there is a bias.
    pub bias: bool,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
    /// Share of the training set left out by seed.
    pub data_perturbation: f64,
    /// Heads H of the Multi-Head Loss; 1 is plain training.
    pub heads: u32,
    /// How the heads' losses become one.
    pub reduction: Reduction,
    /// Steps recorded beside the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<u32>,
    /// What the seed controls.
    pub seed_controls: SeedControls,
    /// What only full fine-tuning has.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullConfig>,
}

/// The part of a strategy that only full fine-tuning has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FullConfig {
    /// Passes over the training set; none when `steps` says how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
    /// Examples of a step.
    pub batch_size: u32,
    /// Parts a step's examples are processed in.
    pub accumulation: u32,
    /// Course of the step size.
    pub schedule: Schedule,
    /// Share of the steps over which it rises.
    pub warmup: f64,
    /// Greatest norm of the gradient; 0 for any.
    pub clip: f64,
    /// Dropout probability in place of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Number format of the passes.
    pub precision: Precision,
    /// Whether batches gather texts of similar length.
    pub length_buckets: bool,
    /// Whether layers are computed again on the way back: changes memory, not results, so it is not part of the id.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
    /// Steps between evaluations; a tenth of all if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u32>,
    /// Which weights are the result.
    pub select: Select,
    /// Evaluations without a rise before the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// α of the Maximal Margin Regularizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mmr: Option<f64>,
    /// Self Unsupervised Re-Training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surt: Option<SurtConfig>,
    /// λ and λ_head of L2-SP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2_sp: Option<(f64, f64)>,
    /// p of mixout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixout: Option<f64>,
    /// Layerwise noise stability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lnsr: Option<LnsrConfig>,
    /// Child-Tuning: mode and p.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child_tuning: Option<(ChildMode, f64)>,
    /// Layers that start anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reinit: Option<u32>,
    /// Factor of the step size from a layer to the one below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llrd: Option<f64>,
    /// Rank and α of low-rank adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<(u32, f64)>,
}

/// Self Unsupervised Re-Training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SurtConfig {
    /// Passes over the training texts.
    pub epochs: u32,
    /// Peak step size.
    pub learning_rate: f64,
    /// Share of tokens to be guessed.
    pub mask: f64,
}

/// Layerwise Noise Stability Regularization.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LnsrConfig {
    /// λ.
    pub lambda: f64,
    /// The layer after which noise is added; 0 is the embeddings.
    pub layer: u32,
    /// Standard deviation of the noise.
    pub sigma: f64,
}

impl FullConfig {
    /// Optimisation steps for n training rows; `steps` is what the strategy asks for when `epochs` does not.
    #[must_use]
    pub fn total_steps(&self, n: u32, steps: u32) -> u32 {
        self.epochs.map_or(steps, |epochs| epochs.saturating_mul(n.div_ceil(self.batch_size.max(1)).max(1)))
    }

    /// Optimisation steps of the phase without labels.
    #[must_use]
    pub fn surt_steps(&self, n: u32) -> u32 {
        self.surt.map_or(0, |surt| surt.epochs.saturating_mul(n.div_ceil(self.batch_size.max(1)).max(1)))
    }

    /// Steps between evaluations of a run of `total` steps.
    #[must_use]
    pub fn evaluation_steps(&self, total: u32) -> u32 {
        self.evaluate_every.unwrap_or(total.div_ceil(10)).max(1)
    }
}

impl StrategyConfig {
    /// The canonical form, which ids and results hold.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What every trial of a sweep shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SweepSettings {
    /// Seed of everything that is drawn.
    pub sweep_seed: u64,
    /// Leave-one-out refits.
    pub leave_one_out: Option<LeaveOneOut>,
    /// Whether γ is solved for.
    pub exact_margin: bool,
    /// Whether predictions are kept.
    #[serde(skip)]
    pub predictions: bool,
}

/// One trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its number in the grid.
    pub index: u64,
    /// Its dataset.
    pub dataset: DatasetConfig,
    /// Name of the dataset.
    pub dataset_name: String,
    /// Its encoder.
    pub model: ModelConfig,
    /// Name of the encoder.
    pub model_name: String,
    /// Its strategy.
    pub strategy: StrategyConfig,
    /// Its seed.
    pub seed: u64,
    /// What it shares with the sweep.
    pub settings: SweepSettings,
}

impl Trial {
    /// The id: a hash of what is computed, the same in every sweep that computes it.
    #[must_use]
    pub fn id(&self) -> TrialId {
        trial_id(
            &self.dataset.to_json(),
            &self.model.to_json(),
            &self.strategy.to_json(),
            self.seed,
            &self.settings,
        )
    }

    /// (n, d, C): training set size, features that the head sees, classes.
    #[must_use]
    pub fn shape(&self) -> (u32, u32, u32) {
        let (n, d, classes) = self.dataset.shape();
        match &self.model {
            ModelConfig::Identity => (n, d, classes),
            ModelConfig::Huggingface(model) => (n, model.hidden, classes),
        }
    }

    /// Floating-point operations of training, leave-one-out refits included.
    #[must_use]
    pub fn flops(&self) -> f64 {
        trial_flops(&self.dataset, &self.model, &self.strategy, self.settings.leave_one_out)
    }
}

/// Distance of a `separable` point from the origin along its class direction that makes the hard margin `margin`:
/// the margin itself for two classes, γ·(C − 1)/√C for C classes on a simplex (margin of Crammer & Singer 2001 in
/// Frobenius norm).
#[must_use]
pub fn separable_offset(margin: f64, classes: u32) -> f64 {
    let c = f64::from(classes);
    if classes <= 2 { margin } else { margin * (c - 1.0) / libm::sqrt(c) }
}

/// The id of a trial from the canonical forms of its parts.
#[must_use]
pub fn trial_id(dataset: &str, model: &str, strategy: &str, seed: u64, settings: &SweepSettings) -> TrialId {
    let settings = serde_json::to_string(settings).unwrap_or_default();
    let mut bytes = Vec::with_capacity(dataset.len() + strategy.len() + 160);
    for part in [dataset, model, strategy, &seed.to_string(), &settings] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    let hash = ContentHash::of(&bytes).0;
    TrialId(std::array::from_fn(|i| hash[i]))
}

/// Number of refits a trial of n samples makes.
#[must_use]
pub fn refits(samples: u32, leave_one_out: Option<LeaveOneOut>) -> u32 {
    match leave_one_out {
        None => 0,
        Some(LeaveOneOut::All) => samples,
        Some(LeaveOneOut::Count(count)) => count.min(samples),
    }
}

/// Operations of a trial: [`training_flops`] of a head, or [`tuning_flops`] of an encoder.
#[must_use]
pub fn trial_flops(
    dataset: &DatasetConfig,
    model: &ModelConfig,
    strategy: &StrategyConfig,
    leave_one_out: Option<LeaveOneOut>,
) -> f64 {
    let (n, d, classes) = dataset.shape();
    match (model, dataset, &strategy.full) {
        (ModelConfig::Huggingface(model), DatasetConfig::Text(text), Some(full)) => {
            tuning_flops(text, model, full, strategy.steps, leave_one_out)
        }
        (ModelConfig::Huggingface(model), ..) => {
            training_flops(n, model.hidden, classes, strategy, leave_one_out)
        }
        (ModelConfig::Identity, ..) => training_flops(n, d, classes, strategy, leave_one_out),
    }
}

/// Operations of full fine-tuning: a token costs two operations a weight on the way forward and twice that on the way back,
/// and attention 4·L·d a layer; evaluations go forward only. Texts are counted at their mean length.
#[must_use]
pub fn tuning_flops(
    text: &TextConfig,
    model: &PretrainedConfig,
    full: &FullConfig,
    steps: u32,
    leave_one_out: Option<LeaveOneOut>,
) -> f64 {
    let tokens = f64::from(text.mean_tokens.min(text.max_length));
    let forward = tokens
        * (2.0 * model.layer_weights as f64
            + 4.0 * tokens * f64::from(model.hidden) * f64::from(model.layers));
    let total = full.total_steps(text.train_rows, steps);
    let evaluations = f64::from(total.div_ceil(full.evaluation_steps(total)).max(1));
    let batch = f64::from(full.batch_size);
    let passes = if full.lnsr.is_some() { 2.0 } else { 1.0 };
    let trained = 3.0 * passes * batch * f64::from(total);
    let relearned = 3.0 * batch * f64::from(full.surt_steps(text.train_rows));
    // Refits go through every phase, and are not evaluated.
    let runs = 1.0 + f64::from(refits(text.train_rows, leave_one_out));
    let evaluated = evaluations * f64::from(text.test_rows) + f64::from(text.train_rows);
    BASE_FLOPS + forward * (runs * (relearned + trained) + evaluated)
}

/// Operations of a head: each step multiplies by X and by its transpose (4·n·d a column), or by the Gram
/// matrix when that is smaller (2·n² a column); a head is one column for two classes and C columns for more.
/// A constant stands for what a trial costs beside its steps.
#[must_use]
pub fn training_flops(
    n: u32,
    d: u32,
    classes: u32,
    strategy: &StrategyConfig,
    leave_one_out: Option<LeaveOneOut>,
) -> f64 {
    let (n_f, d_f) = (f64::from(n), f64::from(d));
    let columns = if classes == 2 { 1.0 } else { f64::from(classes) }
        * f64::from(strategy.heads)
        * (1.0 + f64::from(refits(n, leave_one_out)));
    let gram = n < 2 * d && strategy.optimizer != Optimizer::Adam;
    let step = if gram { 2.0 * n_f * n_f } else { 4.0 * n_f * d_f };
    BASE_FLOPS + columns * (f64::from(strategy.steps) * step + 4.0 * n_f * d_f)
}

/// About 10 µs at 100 GFLOP/s: deriving ids, initial weights and metrics of one trial.
const BASE_FLOPS: f64 = 1e6;
