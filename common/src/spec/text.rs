//! Datasets of text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::axis::Axis;
use super::model::{one, one_fifth};
use crate::text::Metric;

/// A dataset of texts: the official files of a known task, or a file of your own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Name in results; the task's (or the file's) if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A GLUE or SuperGLUE task (`glue/rte`, `superglue/cb`, …) in the layout of its official files. Left out for a file of
    /// your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The task's folder, or your own `.csv`, `.tsv`, `.jsonl` or `.parquet` (relative to the spec's folder).
    pub path: String,
    /// Own file: column or key of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Own file: column or key of a second text, for pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// Own file: column or key of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Own file: another file of the same form to test on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Own file without `test`: share of the rows held out as test set, stratified by class.
    #[serde(default = "one_fifth")]
    pub test_fraction: Axis<f64>,
    /// Share of the training rows held out to choose checkpoints by, stratified by class (Fu, So, Collier 2023 cut 90/10).
    #[serde(default = "one_tenth")]
    pub validation_fraction: Axis<f64>,
    /// Size of the training set (a stratified part of what the splits leave); all of it if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Axis<u32>>,
    /// Most test rows (a random part of the test set; whole groups where answers belong together); all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_samples: Option<u32>,
    /// Independent splits.
    #[serde(default = "one")]
    pub instances: u32,
    /// Most tokens of an input; longer ones are cut, and counted in the results. At most what the model takes.
    #[serde(default = "tokens")]
    pub max_length: Axis<u32>,
    /// The score; the task's official one (accuracy for your own) if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Whether rows that cannot be read are passed over (and counted) instead of refused.
    #[serde(default)]
    pub skip_malformed: bool,
}

fn one_tenth() -> Axis<f64> {
    Axis::One(0.1)
}
fn tokens() -> Axis<u32> {
    Axis::One(128)
}
