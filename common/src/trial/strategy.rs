//! A strategy, resolved.

use serde::Serialize;

use crate::spec::{ChildMode, Optimizer, Precision, Reduction, Schedule, SeedControls, Select, Setting};

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

impl Default for FullConfig {
    /// Plain fine-tuning by the recipe of Mosbach, Andriushchenko, Klakow 2021: what a spec gets that says nothing else.
    fn default() -> Self {
        Self {
            epochs: None,
            batch_size: 16,
            accumulation: 1,
            schedule: Schedule::Linear,
            warmup: 0.1,
            clip: 1.0,
            dropout: None,
            precision: Precision::Fp32,
            length_buckets: true,
            gradient_checkpointing: false,
            evaluate_every: None,
            select: Select::Last,
            patience: None,
            mmr: None,
            surt: None,
            l2_sp: None,
            mixout: None,
            lnsr: None,
            child_tuning: None,
            reinit: None,
            llrd: None,
            lora: None,
        }
    }
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
    /// Plain head tuning: gradient descent without bias or penalty.
    #[must_use]
    pub fn head(steps: u32, learning_rate: f64) -> Self {
        Self {
            name: "head".to_owned(),
            setting: Setting::Head,
            steps,
            learning_rate,
            optimizer: Optimizer::Gd,
            momentum: 0.0,
            weight_decay: 0.0,
            bias: false,
            init_std: 0.02,
            data_perturbation: 0.0,
            heads: 1,
            reduction: Reduction::Mean,
            checkpoints: Vec::new(),
            seed_controls: SeedControls::default(),
            full: None,
        }
    }

    /// Plain full fine-tuning by AdamW; `steps` is 0 where `full` counts epochs.
    #[must_use]
    pub fn full(steps: u32, learning_rate: f64, full: FullConfig) -> Self {
        Self {
            name: "full".to_owned(),
            setting: Setting::Full,
            optimizer: Optimizer::Adamw,
            weight_decay: 0.01,
            bias: true,
            full: Some(full),
            ..Self::head(steps, learning_rate)
        }
    }

    /// The canonical form, which ids and results hold.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
