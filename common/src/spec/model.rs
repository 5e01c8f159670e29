//! The shape of a spec. Field comments become the descriptions of the JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::axis::Axis;
use super::encoder::{Encoder, ModelSpec};
use super::predictions::Predictions;
use super::strategy::StrategySpec;
use super::text::TextSpec;

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
    /// What to keep of every trial's predictions on the test set: `true` keeps classes, `probabilities` those and the
    /// probabilities of all classes.
    #[serde(default)]
    pub predictions: Predictions,
}

pub(super) fn one() -> u32 {
    1
}

fn identity_only() -> Vec<ModelSpec> {
    vec![ModelSpec::of(Encoder::Identity)]
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
    /// Read from files of text.
    Text(TextSpec),
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
    /// Number d of features. `moons` and `circles` have 2, `token_sequences` none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Axis<u32>>,
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
    /// Standard deviation of the noise: orthogonal to the separating direction for `separable` (default 1), on every
    /// coordinate for `moons` and `circles` (default 0.1) and `xor` (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Axis<f64>>,
    /// `separable`: bound B on the norm of a point (default a + 1.5 √d, with a the margin for two classes, margin·(C − 1)/√C for C).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<Axis<f64>>,
    /// `classification`, `xor`: features that carry the class (default 2).
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
    /// `classification`, `teacher`, `token_sequences`: share of labels drawn at random (default 0.01 for `classification`,
    /// else 0).
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
    /// `circles`: radius of the inner circle, the outer one's being 1 (default 0.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<Axis<f64>>,
    /// `teacher`: units of the hidden layer of the network that gives the labels (default 16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Axis<u32>>,
    /// `token_sequences`: distinct tokens of the grammar (default 64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Axis<u32>>,
    /// `token_sequences`: mean number of tokens; sequences have half to one and a half times as many (default 16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Axis<u32>>,
    /// `token_sequences`: topics of the grammar; a class is a random set of topics (default 8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<Axis<u32>>,
    /// `token_sequences`: how much topics differ in the phrases they prefer; 0 for not at all (default 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_strength: Option<Axis<f64>>,
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
    /// Two interleaving half circles (the semantics of scikit-learn's `make_moons`).
    Moons,
    /// A circle within a circle (the semantics of scikit-learn's `make_circles`).
    Circles,
    /// The parity of the signs of some features: no linear model does better than chance.
    Xor,
    /// Labels from a random network with one hidden layer.
    Teacher,
    /// Sequences of tokens from a probabilistic grammar, for `encoder: transformer`.
    TokenSequences,
}

impl Generator {
    /// Its name in specs and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Separable => "separable",
            Self::Classification => "classification",
            Self::Blobs => "blobs",
            Self::Moons => "moons",
            Self::Circles => "circles",
            Self::Xor => "xor",
            Self::Teacher => "teacher",
            Self::TokenSequences => "token_sequences",
        }
    }

    /// How many features its samples have where a spec does not say: 0 for sequences of tokens, which have none.
    #[must_use]
    pub fn features(self) -> Option<u32> {
        match self {
            Self::Moons | Self::Circles => Some(2),
            Self::TokenSequences => Some(0),
            Self::Separable | Self::Classification | Self::Blobs | Self::Xor | Self::Teacher => None,
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

pub(super) fn yes() -> bool {
    true
}
pub(super) fn one_fifth() -> Axis<f64> {
    Axis::One(0.2)
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
    /// Whether to estimate the constants of the bound for full fine-tuning at the end of each trial. That costs about as much
    /// as 48 epochs over at most 256 training points.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub curvature: bool,
    /// Of how many test examples the features of fine-tuned encoders are kept and compared between seeds (4 to 1024).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representations: Option<u32>,
}

impl Default for StabilitySpec {
    fn default() -> Self {
        Self { leave_one_out: None, exact_margin: true, curvature: false, representations: None }
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
