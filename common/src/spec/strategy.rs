//! Strategies: how to train.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::axis::{Axis, Scalar};
use super::model::yes;
use super::regularizer::{
    ChildTuningSpec, EarlyStoppingSpec, L2SpSpec, LlrdSpec, LnsrSpec, LoraSpec, MhLossSpec, MixoutSpec,
    MmrSpec, ReinitSpec, SurtSpec,
};

/// A way to train.
///
/// `setting: head` trains a linear head on fixed features, all samples in each step. `setting: full` trains encoder and head
/// on mini-batches. A field that only the other setting knows is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StrategySpec {
    /// Name in results.
    pub name: String,
    /// What is trained.
    pub setting: Setting,
    /// Optimisation steps t. `head` needs it; `full` takes this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Axis<u32>>,
    /// `full`: passes over the training set (default 3 where `steps` is left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<Axis<u32>>,
    /// Step size η; its peak where a schedule changes it.
    pub learning_rate: Axis<f64>,
    /// Optimiser: `gd` (default), `momentum` or `adam` for `head`; `adamw` (default) or `sgd` for `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Axis<Optimizer>>,
    /// Momentum coefficient of `momentum` (default 0.9) and `sgd` (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<Axis<f64>>,
    /// `head`: λ of the penalty (λ/2)‖w‖², not applied to the bias (default 0). `full`: weight decay of the optimiser, not
    /// applied to biases and layer norms (default 0.01).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<Axis<f64>>,
    /// Whether the head has a bias (default false for `head`, where it is the weight of a constant feature 1, and true for
    /// `full`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<Axis<bool>>,
    /// Standard deviation of the initial weights of the head.
    #[serde(default = "bert_initializer_range")]
    pub init_std: Axis<f64>,
    /// Share of the training set that each seed leaves out at random.
    #[serde(default = "zero")]
    pub data_perturbation: Axis<f64>,
    /// `full`: examples of a step (default 16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<Axis<u32>>,
    /// `full`: parts a step's examples are processed in, to save memory (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accumulation: Option<Axis<u32>>,
    /// `full`: course of the step size after warm-up (default `linear`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Axis<Schedule>>,
    /// `full`: share of the steps over which the step size rises from 0 (default 0.1; Mosbach et al. 2021).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Axis<f64>>,
    /// `full`: greatest norm of the gradient (default 1; 0 clips nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<Axis<f64>>,
    /// `full`: dropout probability everywhere, in place of the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<Axis<f64>>,
    /// `full`: number format of forward and backward passes (default `fp32`); weights and moments stay fp32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Axis<Precision>>,
    /// `full`: whether batches gather texts of similar length, which saves padding (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_buckets: Option<bool>,
    /// `full`: whether each layer is computed again on the way back instead of kept, to save memory (default false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_checkpointing: Option<bool>,
    /// `full`: steps between two evaluations, recorded as the curve (default: a tenth of all steps).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u32>,
    /// `full`: which weights are the result (default `last`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// `full`: stops when the validation score no longer rises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStoppingSpec>,
    /// Multi-Head Loss (Fu, So, Collier 2023): several heads trained together, averaged for prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mhloss: Option<MhLossSpec>,
    /// Maximal Margin Regularizer (Fu, So, Collier 2023); needs trainable features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmr: Option<MmrSpec>,
    /// Self Unsupervised Re-Training (Fu, So, Collier 2023): first the encoder learns the task's own texts without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surt: Option<SurtSpec>,
    /// L2-SP (Li et al. 2018): a penalty on the distance to the pre-trained weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_sp: Option<L2SpSpec>,
    /// Mixout (Lee et al. 2020): weights fall back to their pre-trained values at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixout: Option<MixoutSpec>,
    /// Layerwise Noise Stability Regularization (Hua et al. 2021).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lnsr: Option<LnsrSpec>,
    /// Child-Tuning (Xu et al. 2021): only a part of the gradient is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_tuning: Option<ChildTuningSpec>,
    /// Re-initialisation of the top layers (Zhang et al. 2021).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reinit: Option<ReinitSpec>,
    /// Layer-wise learning-rate decay (Howard & Ruder 2018).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llrd: Option<LlrdSpec>,
    /// Low-rank adapters (Hu et al. 2022) in place of the encoder's own weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSpec>,
    /// `head`: steps at which losses, score and leave-one-out distance are recorded beside the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<u32>,
    /// What the seed of a trial controls.
    #[serde(default)]
    pub seed_controls: SeedControls,
}

impl StrategySpec {
    /// Writes out the defaults that depend on the setting, so that the canonical form shows them.
    pub(super) fn fill_defaults(&mut self) {
        fn fill<T>(field: &mut Option<T>, default: T) {
            field.get_or_insert(default);
        }
        match self.setting {
            Setting::Head => {
                fill(&mut self.optimizer, Axis::One(Optimizer::Gd));
                fill(&mut self.weight_decay, Axis::One(0.0));
                fill(&mut self.bias, Axis::One(false));
            }
            Setting::Full => {
                if self.steps.is_none() {
                    fill(&mut self.epochs, Axis::One(3));
                }
                fill(&mut self.optimizer, Axis::One(Optimizer::Adamw));
                fill(&mut self.weight_decay, Axis::One(0.01));
                fill(&mut self.bias, Axis::One(true));
                fill(&mut self.batch_size, Axis::One(16));
                fill(&mut self.accumulation, Axis::One(1));
                fill(&mut self.schedule, Axis::One(Schedule::Linear));
                fill(&mut self.warmup, Axis::One(0.1));
                fill(&mut self.clip, Axis::One(1.0));
                fill(&mut self.precision, Axis::One(Precision::Fp32));
                fill(&mut self.length_buckets, true);
                fill(&mut self.gradient_checkpointing, false);
                fill(&mut self.select, Select::Last);
            }
        }
    }
}

fn zero() -> Axis<f64> {
    Axis::One(0.0)
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

/// Optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Gradient descent on all samples (`head`).
    Gd,
    /// Gradient descent with heavy-ball momentum (Polyak 1964) on all samples (`head`), in PyTorch's form v ← μv + g, w ← w − ηv.
    Momentum,
    /// Adam (Kingma & Ba 2015) with β = (0.9, 0.999), ε = 1e-8 and bias correction, on all samples (`head`).
    Adam,
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019), β = (0.9, 0.999), ε = 1e-8 and bias correction, on
    /// mini-batches (`full`).
    Adamw,
    /// Stochastic gradient descent on mini-batches (`full`).
    Sgd,
}

macro_rules! word {
    ($type:ty, $expected:literal) => {
        impl Scalar for $type {
            const EXPECTED: &'static str = $expected;
            fn from_f64(_: f64) -> Option<Self> {
                None
            }
        }
    };
}

word!(Optimizer, "one of `gd`, `momentum`, `adam` (head), `adamw`, `sgd` (full)");
word!(Schedule, "one of `linear`, `cosine`, `constant`");
word!(Precision, "`fp32` or `bf16`");

/// Course of the step size after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Falls on a line to 0.
    Linear,
    /// Falls on half a cosine to 0 (Loshchilov & Hutter 2017).
    Cosine,
    /// Stays.
    Constant,
}

/// Number format of forward and backward passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16 weights and activations of the encoder; head and losses in fp32.
    Bf16,
}

/// Which weights are the result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// Those after the last step.
    Last,
    /// Those of the evaluation with the highest validation score, the earliest of equals.
    Best,
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
    /// `full`: order of the examples.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub data_order: bool,
    /// `full`: dropout masks, and the other draws of a strategy during training.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub dropout: bool,
}

/// Left out of the canonical form when it is the default, so that ids of head tuning stay what they were.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

impl Default for SeedControls {
    fn default() -> Self {
        Self { initialization: true, data_perturbation: true, data_order: true, dropout: true }
    }
}
