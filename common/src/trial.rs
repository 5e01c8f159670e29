//! One trial, resolved: plain values in place of axes, its id, and what it costs.

use serde::Serialize;

use crate::id::{ContentHash, TrialId};
use crate::spec::{Encoder, LeaveOneOut, Optimizer, Reduction, SeedControls, Setting};

/// A dataset with every axis resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetConfig {
    /// Drawn.
    Synthetic(SyntheticConfig),
    /// Read from a file.
    Features(FeaturesConfig),
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

impl DatasetConfig {
    /// (n, d, C) of the training set.
    #[must_use]
    pub fn shape(&self) -> (u32, u32, u32) {
        match self {
            Self::Synthetic(c) => (c.samples, c.features, c.classes),
            Self::Features(c) => (c.train_rows, c.features, c.classes),
        }
    }

    /// The canonical form, which ids and results hold.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Synthetic(config) => serde_json::to_string(config),
            Self::Features(config) => serde_json::to_string(config),
        }
        .unwrap_or_default()
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
    /// Momentum coefficient; 0 unless the optimiser is `momentum`.
    pub momentum: f64,
    /// λ of (λ/2)‖w‖².
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
    pub encoder: Encoder,
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
        trial_id(&self.dataset.to_json(), self.encoder, &self.strategy.to_json(), self.seed, &self.settings)
    }

    /// Floating-point operations of training, leave-one-out refits included (see [`training_flops`]).
    #[must_use]
    pub fn flops(&self) -> f64 {
        let (n, d, c) = self.dataset.shape();
        training_flops(n, d, c, &self.strategy, self.settings.leave_one_out)
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
pub fn trial_id(
    dataset: &str,
    encoder: Encoder,
    strategy: &str,
    seed: u64,
    settings: &SweepSettings,
) -> TrialId {
    let encoder = serde_json::to_string(&encoder).unwrap_or_default();
    let settings = serde_json::to_string(settings).unwrap_or_default();
    let mut bytes = Vec::with_capacity(dataset.len() + strategy.len() + 160);
    for part in [dataset, &encoder, strategy, &seed.to_string(), &settings] {
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

/// Operations of a trial: each step multiplies by X and by its transpose (4·n·d a column), or by the Gram
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
