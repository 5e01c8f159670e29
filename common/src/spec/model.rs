//! The shape of a spec. Field comments become the descriptions of the JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::axis::{Axis, Scalar};

/// A stability sweep: every dataset × model × strategy × seed is one trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Version of this format.
    #[serde(rename = "apiVersion")]
    pub api_version: ApiVersion,
    /// Name of the sweep: lower-case letters, digits and dashes, at most 60.
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What to train on.
    pub datasets: Vec<DatasetSpec>,
    /// What turns inputs into features.
    #[serde(default = "identity_only")]
    pub models: Vec<ModelSpec>,
    /// How to train.
    pub strategies: Vec<StrategySpec>,
    /// How many seeds, or which.
    pub seeds: Seeds,
    /// Seed of everything that is drawn: another value repeats the whole study on other draws.
    #[serde(default)]
    pub sweep_seed: u64,
    /// Which stability measures to take beside the spread over seeds.
    #[serde(default)]
    pub stability: StabilitySpec,
    /// Strategy (by name) that the others are compared with; the first one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// What to do with trials that fail.
    #[serde(default)]
    pub retries: RetriesSpec,
    /// Share of the cluster relative to other sweeps (1 to 1000).
    #[serde(default = "one")]
    pub priority: u32,
    /// Whether to keep every trial's predictions on the test set.
    #[serde(default)]
    pub predictions: bool,
}

fn one() -> u32 {
    1
}

fn identity_only() -> Vec<ModelSpec> {
    vec![ModelSpec { encoder: Encoder::Identity }]
}

/// Version of the spec format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[serde(rename = "evenkeel/v1")]
    V1,
}

/// Seeds 0 to n − 1, or a list of seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Seeds {
    /// How many.
    Count(u64),
    /// Which.
    List(Vec<u64>),
}

impl<'de> Deserialize<'de> for Seeds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SeedsVisitor;
        impl<'de> serde::de::Visitor<'de> for SeedsVisitor {
            type Value = Seeds;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("how many seeds (a whole number), or a list of seeds")
            }
            fn visit_u64<E>(self, v: u64) -> Result<Seeds, E> {
                Ok(Seeds::Count(v))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Seeds, A::Error> {
                let mut seeds = Vec::new();
                while let Some(seed) = seq.next_element()? {
                    seeds.push(seed);
                }
                Ok(Seeds::List(seeds))
            }
        }
        deserializer.deserialize_any(SeedsVisitor)
    }
}

impl Seeds {
    /// Number of seeds.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Count(count) => *count,
            Self::List(list) => list.len() as u64,
        }
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The seed at a position.
    #[must_use]
    pub fn get(&self, position: u64) -> Option<u64> {
        match self {
            Self::Count(count) => (position < *count).then_some(position),
            Self::List(list) => usize::try_from(position).ok().and_then(|i| list.get(i)).copied(),
        }
    }
}

/// Where training data comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "a spec holds a handful of them")]
pub enum DatasetSpec {
    /// Drawn from a distribution.
    Synthetic(SyntheticSpec),
    /// Read from a file of feature vectors.
    Features(FeaturesSpec),
}

/// A family of synthetic datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticSpec {
    /// Name in results; the generator's name if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which distribution.
    pub generator: Generator,
    /// Size n of the training set.
    pub samples: Axis<u32>,
    /// Number d of features.
    pub features: Axis<u32>,
    /// Number C of classes.
    #[serde(default = "two")]
    pub classes: Axis<u32>,
    /// Size of the held-out test set.
    #[serde(default = "five_hundred")]
    pub test_samples: Axis<u32>,
    /// Independent draws of each configuration.
    #[serde(default = "one")]
    pub instances: u32,
    /// `separable`: least distance γ of every point from the decision boundary (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Axis<f64>>,
    /// `separable`: standard deviation of the noise orthogonal to the separating direction (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Axis<f64>>,
    /// `separable`: bound B on the norm of a point (default a + 1.5 √d, with a the margin for two classes, margin·(C − 1)/√C for C).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<Axis<f64>>,
    /// `classification`: features that carry the class (default 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub informative: Option<Axis<u32>>,
    /// `classification`: random linear combinations of the informative features (default 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redundant: Option<Axis<u32>>,
    /// `classification`: copies of informative and redundant features (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Axis<u32>>,
    /// `classification`: clusters of each class (default 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters_per_class: Option<Axis<u32>>,
    /// `classification`: half the side of the hypercube whose corners are the cluster centres (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_sep: Option<Axis<f64>>,
    /// `classification`: share of labels drawn at random (default 0.01).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip_y: Option<Axis<f64>>,
    /// `classification`: whether clusters sit on corners of a hypercube, not of a random polytope (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypercube: Option<Axis<bool>>,
    /// `blobs`: standard deviation of a blob (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_std: Option<Axis<f64>>,
    /// `blobs`: centres are uniform in [−v, v] in each coordinate (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub center_box: Option<Axis<f64>>,
}

fn two() -> Axis<u32> {
    Axis::One(2)
}
fn five_hundred() -> Axis<u32> {
    Axis::One(500)
}

/// A synthetic distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Generator {
    /// Linearly separable with a known margin.
    Separable,
    /// The semantics of scikit-learn's `make_classification`.
    Classification,
    /// One Gaussian blob a class.
    Blobs,
}

impl Generator {
    /// Its name in specs and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Separable => "separable",
            Self::Classification => "classification",
            Self::Blobs => "blobs",
        }
    }
}

/// A dataset of feature vectors in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeaturesSpec {
    /// Name in results; the file's name without endings if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// File: `.csv`, `.parquet` or `.npy`, also with `.gz` (relative to the spec's folder).
    pub path: String,
    /// Column that holds the class (CSV and Parquet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// File of the classes (`.npy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Columns to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// Whether to shift and scale features to mean 0 and standard deviation 1 on the training set.
    #[serde(default = "yes")]
    pub standardize: bool,
    /// Share of the rows held out as test set, stratified by class.
    #[serde(default = "one_fifth")]
    pub test_fraction: Axis<f64>,
    /// Size of the training set (a stratified part of what the split leaves); all of it if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Axis<u32>>,
    /// Independent splits.
    #[serde(default = "one")]
    pub instances: u32,
}

fn yes() -> bool {
    true
}
fn one_fifth() -> Axis<f64> {
    Axis::One(0.2)
}

/// What turns an input into a feature vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The encoder.
    pub encoder: Encoder,
}

/// Kinds of encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoder {
    /// Features as they are.
    Identity,
}

/// A way to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StrategySpec {
    /// Name in results.
    pub name: String,
    /// What is trained.
    pub setting: Setting,
    /// Full-batch optimisation steps t.
    pub steps: Axis<u32>,
    /// Step size η.
    pub learning_rate: Axis<f64>,
    /// Optimiser.
    #[serde(default = "gradient_descent")]
    pub optimizer: Axis<Optimizer>,
    /// Momentum coefficient of the `momentum` optimiser (default 0.9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<Axis<f64>>,
    /// λ of the penalty (λ/2)‖w‖², not applied to the bias.
    #[serde(default = "zero")]
    pub weight_decay: Axis<f64>,
    /// Whether the head has a bias (trained as the weight of a constant feature 1).
    #[serde(default = "no")]
    pub bias: Axis<bool>,
    /// Standard deviation of the initial weights.
    #[serde(default = "bert_initializer_range")]
    pub init_std: Axis<f64>,
    /// Share of the training set that each seed leaves out at random.
    #[serde(default = "zero")]
    pub data_perturbation: Axis<f64>,
    /// Multi-Head Loss (Fu, So, Collier 2023): several heads trained together, averaged for prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mhloss: Option<MhLossSpec>,
    /// Maximal Margin Regularizer (Fu, So, Collier 2023); needs trainable features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmr: Option<MmrSpec>,
    /// Steps at which losses, score and leave-one-out distance are recorded beside the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<u32>,
    /// What the seed of a trial controls.
    #[serde(default)]
    pub seed_controls: SeedControls,
}

fn gradient_descent() -> Axis<Optimizer> {
    Axis::One(Optimizer::Gd)
}
fn zero() -> Axis<f64> {
    Axis::One(0.0)
}
fn no() -> Axis<bool> {
    Axis::One(false)
}
/// `initializer_range` of BERT's heads (Devlin et al. 2019).
fn bert_initializer_range() -> Axis<f64> {
    Axis::One(0.02)
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Head tuning: a linear head on fixed features.
    Head,
    /// Full fine-tuning: encoder and head.
    Full,
}

/// Full-batch optimisers of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Gradient descent.
    Gd,
    /// Gradient descent with heavy-ball momentum (Polyak 1964), in PyTorch's form v ← μv + g, w ← w − ηv.
    Momentum,
    /// Adam (Kingma & Ba 2015) with β = (0.9, 0.999), ε = 1e-8 and bias correction.
    Adam,
}

impl Scalar for Optimizer {
    const EXPECTED: &'static str = "one of `gd`, `momentum`, `adam`";
    fn from_f64(_: f64) -> Option<Self> {
        None
    }
}

/// Multi-Head Loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MhLossSpec {
    /// Number H of heads.
    pub heads: Axis<u32>,
    /// Whether the loss is the mean over heads (the paper's; divides each head's step by H) or the sum.
    #[serde(default)]
    pub reduction: Reduction,
}

/// How the losses of several heads become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Mean over heads.
    #[default]
    Mean,
    /// Sum over heads: each head trains as it would alone.
    Sum,
}

/// Maximal Margin Regularizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MmrSpec {
    /// Its weight α.
    pub alpha: Axis<f64>,
}

/// Which sources of randomness follow the trial's seed; the others follow the sweep's seed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeedControls {
    /// Initial weights of the head.
    #[serde(default = "yes")]
    pub initialization: bool,
    /// Which samples `data_perturbation` leaves out.
    #[serde(default = "yes")]
    pub data_perturbation: bool,
}

impl Default for SeedControls {
    fn default() -> Self {
        Self { initialization: true, data_perturbation: true }
    }
}

/// Stability measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StabilitySpec {
    /// Leave-one-out refits of each trial: how many sampled points, or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_one_out: Option<LeaveOneOut>,
    /// Whether to solve for the exact hard margin γ of each training set.
    #[serde(default = "yes")]
    pub exact_margin: bool,
}

impl Default for StabilitySpec {
    fn default() -> Self {
        Self { leave_one_out: None, exact_margin: true }
    }
}

/// How many points are left out, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(with = "LeaveOneOutForm")]
pub enum LeaveOneOut {
    /// This many, sampled without replacement (all when the training set is smaller).
    Count(u32),
    /// Every point of the training set.
    All,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only describes the JSON Schema")]
enum LeaveOneOutForm {
    Count(u32),
    All(AllForm),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only describes the JSON Schema")]
enum AllForm {
    All,
}

impl Serialize for LeaveOneOut {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for LeaveOneOut {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountOrAll;
        impl serde::de::Visitor<'_> for CountOrAll {
            type Value = LeaveOneOut;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number of points to leave out, or `all`")
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<LeaveOneOut, E> {
                u32::try_from(v).map(LeaveOneOut::Count).map_err(|_| E::custom("too large"))
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<LeaveOneOut, E> {
                if v == "all" {
                    Ok(LeaveOneOut::All)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(v), &self))
                }
            }
        }
        deserializer.deserialize_any(CountOrAll)
    }
}

/// What to do with trials that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesSpec {
    /// Attempts of a trial that fails alone before it is recorded as `failed` (1 to 100).
    #[serde(default = "three")]
    pub max_attempts: u32,
}

fn three() -> u32 {
    3
}

impl Default for RetriesSpec {
    fn default() -> Self {
        Self { max_attempts: 3 }
    }
}
