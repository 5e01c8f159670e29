//! One trial, resolved: plain values in place of axes, its id, and what it costs.

mod cost;
mod strategy;

use serde::Serialize;

use crate::id::TrialId;
use crate::spec::{LeaveOneOut, Pooling, Predictions, PretrainSpec};
use crate::text::Metric;

pub use cost::{refits, training_flops, trial_flops, tuning_flops};
pub use strategy::{FullConfig, LnsrConfig, StrategyConfig, SurtConfig};

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
    /// Features d; 0 for sequences of tokens.
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
    /// Two interleaving half circles.
    Moons {
        /// Standard deviation of the noise.
        noise: f64,
    },
    /// A circle within a circle.
    Circles {
        /// Standard deviation of the noise.
        noise: f64,
        /// Radius of the inner circle.
        factor: f64,
    },
    /// Parity of signs.
    Xor {
        /// Features that carry the class.
        informative: u32,
        /// Standard deviation of the noise.
        noise: f64,
    },
    /// Labels from a random network.
    Teacher {
        /// Units of its hidden layer.
        units: u32,
        /// Share of random labels.
        flip_y: f64,
    },
    /// Sequences of tokens.
    TokenSequences {
        /// Where they come from.
        #[serde(flatten)]
        grammar: GrammarConfig,
        /// Share of random labels.
        flip_y: f64,
    },
}

/// A probabilistic grammar. Encoders are pre-trained on it, whatever the task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrammarConfig {
    /// Distinct tokens.
    pub vocabulary: u32,
    /// Mean number of tokens.
    pub length: u32,
    /// Topics.
    pub topics: u32,
    /// How much topics differ.
    pub topic_strength: f64,
}

impl GrammarConfig {
    /// The most tokens a sequence has, without the two that mark its ends.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.length + self.length / 2
    }
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
    /// (n, d, C) of the training set; d is 0 for texts and sequences of tokens, whose features are the model's.
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
    /// A small transformer, pre-trained here.
    Transformer(SmallConfig),
    /// A small multi-layer perceptron, pre-trained here.
    Mlp(SmallConfig),
}

/// A small encoder that is pre-trained here. Its input layer is the dataset's to decide.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SmallConfig {
    /// Layers.
    pub layers: u32,
    /// Width of the layers.
    pub hidden: u32,
    /// Heads of the attention; none for a perceptron.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_heads: Option<u32>,
    /// How token vectors become one; nothing for a perceptron.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Dropout probability.
    pub dropout: f64,
    /// How it is pre-trained.
    pub pretrain: PretrainSpec,
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
    /// Features it gives; none where features stay as they are.
    #[must_use]
    pub fn hidden(&self) -> Option<u32> {
        match self {
            Self::Identity => None,
            Self::Huggingface(model) => Some(model.hidden),
            Self::Transformer(model) | Self::Mlp(model) => Some(model.hidden),
        }
    }

    /// The canonical form, which ids hold.
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
    /// Whether the constants of the bound for full fine-tuning are estimated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub curvature: bool,
    /// What is kept of predictions.
    #[serde(skip)]
    pub predictions: Predictions,
    /// Of how many test examples a fine-tuned encoder's features are kept.
    #[serde(skip)]
    pub representations: u32,
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
        let (dataset, model) = (self.dataset.to_json(), self.model.to_json());
        TrialIds::new(&dataset, &model, &self.strategy.to_json(), &self.settings).of(self.seed)
    }

    /// (n, d, C): training set size, features that the head sees, classes.
    #[must_use]
    pub fn shape(&self) -> (u32, u32, u32) {
        let (n, d, classes) = self.dataset.shape();
        (n, self.model.hidden().unwrap_or(d), classes)
    }

    /// Floating-point operations of training, leave-one-out refits included.
    #[must_use]
    pub fn flops(&self) -> f64 {
        trial_flops(&self.dataset, &self.model, &self.strategy, &self.settings)
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

/// The ids of trials that differ by their seed alone: what they share is hashed once.
#[derive(Clone, Debug)]
pub struct TrialIds {
    shared: blake3::Hasher,
    /// The end of what is hashed, as it comes after the seed.
    settings: String,
}

impl TrialIds {
    /// From the canonical forms of a trial's parts.
    #[must_use]
    pub fn new(dataset: &str, model: &str, strategy: &str, settings: &SweepSettings) -> Self {
        let mut shared = blake3::Hasher::new();
        for part in [dataset, model, strategy] {
            shared.update(part.as_bytes()).update(&[0]);
        }
        Self { shared, settings: format!("\0{}\0", serde_json::to_string(settings).unwrap_or_default()) }
    }

    /// The id of the trial with a seed.
    #[must_use]
    pub fn of(&self, seed: u64) -> TrialId {
        let mut hasher = self.shared.clone();
        hasher.update(seed.to_string().as_bytes()).update(self.settings.as_bytes());
        let hash = hasher.finalize();
        TrialId(std::array::from_fn(|i| hash.as_bytes()[i]))
    }
}
