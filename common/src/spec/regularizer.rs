//! What a strategy adds to plain training. One struct a method, with its formula and source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::axis::{Axis, Scalar};

/// Multi-Head Loss (Fu, So, Collier 2023): (1/H) Σₕ loss of head h, each head with initial weights of its own; the weights
/// that predict are the mean over heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MhLossSpec {
    /// Number H of heads.
    pub heads: Axis<u32>,
    /// Whether the loss is the mean over heads (the paper's; divides each head's gradient by H, and so its
    /// step, except with Adam and AdamW, whose steps do not depend on the gradient's scale) or the sum.
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

/// Maximal Margin Regularizer (Fu, So, Collier 2023): α · the mean of 1 / (1 + ‖c_a − c_b‖) over pairs of classes of the
/// batch (of each part, with `accumulation`), with c_a the mean feature of class a.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MmrSpec {
    /// Its weight α.
    pub alpha: Axis<f64>,
}

/// Self Unsupervised Re-Training (Fu, So, Collier 2023): masked language modelling (Devlin et al. 2019) on the training
/// texts, before fine-tuning starts from the weights it gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SurtSpec {
    /// Passes over the training texts.
    #[serde(default = "one")]
    pub epochs: Axis<u32>,
    /// Peak step size.
    #[serde(default = "small_rate")]
    pub learning_rate: Axis<f64>,
    /// Share of the tokens that are to be guessed: of these 80 % are masked, 10 % replaced by a random token, 10 % left.
    #[serde(default = "fifteen_percent")]
    pub mask: Axis<f64>,
}

fn one() -> Axis<u32> {
    Axis::One(1)
}
fn small_rate() -> Axis<f64> {
    Axis::One(5e-5)
}
fn fifteen_percent() -> Axis<f64> {
    Axis::One(0.15)
}

/// L2-SP (Li, Grandvalet, Davoine 2018): (λ/2)‖w − w₀‖² over the encoder, (λ_head/2)‖w‖² over the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct L2SpSpec {
    /// λ, of the encoder.
    pub lambda: Axis<f64>,
    /// λ_head, of the head, which has no pre-trained weights.
    #[serde(default = "zero")]
    pub head: Axis<f64>,
}

fn zero() -> Axis<f64> {
    Axis::One(0.0)
}

/// Mixout (Lee, Cho, Kang 2020): in each step each weight of the encoder's linear layers is its value u before fine-tuning with
/// probability p, rescaled so that the expectation stays: (mask·u + (1 − mask)·w − p·u) / (1 − p).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixoutSpec {
    /// p.
    pub p: Axis<f64>,
}

/// Layerwise Noise Stability Regularization (Hua et al. 2021): λ · the mean over examples of ‖g(h + ξ) − g(h)‖², with h the
/// output of layer ℓ, g the layers above it and the pooling, and ξ Gaussian with standard deviation σ in each number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LnsrSpec {
    /// λ.
    pub lambda: Axis<f64>,
    /// ℓ, the layer after which noise is added; 0 is the embeddings.
    #[serde(default = "zero_layers")]
    pub layer: Axis<u32>,
    /// σ.
    #[serde(default = "small_noise")]
    pub sigma: Axis<f64>,
}

fn zero_layers() -> Axis<u32> {
    Axis::One(0)
}
fn small_noise() -> Axis<f64> {
    Axis::One(0.05)
}

/// Child-Tuning (Xu et al. 2021): gradients of the encoder's layers are masked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChildTuningSpec {
    /// How the mask is chosen.
    pub mode: Axis<ChildMode>,
    /// Share of the weights that learn.
    pub p: Axis<f64>,
}

/// How Child-Tuning chooses weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChildMode {
    /// Child-Tuning_F: at random, anew in each step; what is left of the gradient is divided by p.
    Free,
    /// Child-Tuning_D: once, those with the greatest Fisher information on the training set.
    Fisher,
}

impl Scalar for ChildMode {
    const EXPECTED: &'static str = "`free` or `fisher`";
    fn from_f64(_: f64) -> Option<Self> {
        None
    }
}

/// Re-initialisation (Zhang et al. 2021): the top layers (and the pooler) start from random weights instead of pre-trained
/// ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReinitSpec {
    /// How many layers, from the top.
    pub layers: Axis<u32>,
}

/// Layer-wise learning-rate decay (Howard & Ruder 2018): layer ℓ of L learns with η · decay^(L − ℓ), the embeddings with
/// η · decay^L, pooler and head with η.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LlrdSpec {
    /// The factor from a layer to the one below.
    pub decay: Axis<f64>,
}

/// LoRA (Hu et al. 2022): W + (α/r)·B·A with A [r, in] drawn at random and B [out, r] zero at first; only A, B and the head
/// are trained. Applied to the query and value projections of each layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraSpec {
    /// r.
    pub rank: Axis<u32>,
    /// α; 2r if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<Axis<f64>>,
}

/// Stops a run when the validation score has not risen for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingSpec {
    /// Evaluations without a rise before the run ends.
    pub patience: u32,
}
