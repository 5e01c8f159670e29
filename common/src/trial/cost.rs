//! What a trial costs, in floating-point operations.

use super::{
    DatasetConfig, FullConfig, GeneratorConfig, ModelConfig, StrategyConfig, SweepSettings, SyntheticConfig,
};
use crate::spec::{LeaveOneOut, Optimizer};

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
    settings: &SweepSettings,
) -> f64 {
    let (n, d, classes) = dataset.shape();
    let leave_one_out = settings.leave_one_out;
    match (model, &strategy.full) {
        (ModelConfig::Identity, _) | (_, None) => {
            training_flops(n, model.hidden().unwrap_or(d), classes, strategy, leave_one_out)
        }
        (_, Some(full)) => {
            let measured = if settings.curvature { CURVATURE_PASSES * f64::from(n.min(256)) } else { 0.0 };
            tuning_flops(dataset, model, full, strategy.steps, leave_one_out)
                + 3.0 * measured * forward_flops(dataset, model)
        }
    }
}

/// Operations of full fine-tuning: an example costs [`forward_flops`] on the way forward and twice that on the way back;
/// evaluations go forward only.
#[must_use]
pub fn tuning_flops(
    dataset: &DatasetConfig,
    model: &ModelConfig,
    full: &FullConfig,
    steps: u32,
    leave_one_out: Option<LeaveOneOut>,
) -> f64 {
    let forward = forward_flops(dataset, model);
    let (n, ..) = dataset.shape();
    let tested = match dataset {
        DatasetConfig::Synthetic(c) => f64::from(c.test_samples),
        DatasetConfig::Features(c) => {
            f64::from(c.train_rows) * c.test_fraction / (1.0 - c.test_fraction).max(0.01)
        }
        DatasetConfig::Text(c) => f64::from(c.test_rows),
    };
    let total = full.total_steps(n, steps);
    let evaluations = f64::from(total.div_ceil(full.evaluation_steps(total)).max(1));
    let batch = f64::from(full.batch_size);
    let passes = if full.lnsr.is_some() { 2.0 } else { 1.0 };
    let trained = 3.0 * passes * batch * f64::from(total);
    let relearned = 3.0 * batch * f64::from(full.surt_steps(n));
    // Refits go through every phase, and are not evaluated.
    let runs = 1.0 + f64::from(refits(n, leave_one_out));
    BASE_FLOPS + forward * (runs * (relearned + trained) + evaluations * tested + f64::from(n))
}

/// Operations of one example on its way forward: a token costs two a weight, and attention 4·L·d a layer. Texts are counted
/// at their mean length.
fn forward_flops(dataset: &DatasetConfig, model: &ModelConfig) -> f64 {
    let tokens = match dataset {
        DatasetConfig::Text(text) => f64::from(text.mean_tokens.min(text.max_length)),
        DatasetConfig::Synthetic(SyntheticConfig {
            generator: GeneratorConfig::TokenSequences { grammar, .. },
            ..
        }) => f64::from(grammar.length + 2),
        _ => 1.0,
    };
    let sequences = |weights: f64, hidden: u32, layers: u32| {
        tokens * (2.0 * weights + 4.0 * tokens * f64::from(hidden) * f64::from(layers))
    };
    match model {
        ModelConfig::Identity => 0.0,
        ModelConfig::Huggingface(m) => sequences(m.layer_weights as f64, m.hidden, m.layers),
        ModelConfig::Transformer(m) => {
            // Four products of attention and two of four times the width.
            let weights = 12.0 * f64::from(m.hidden) * f64::from(m.hidden) * f64::from(m.layers);
            sequences(weights, m.hidden, m.layers)
        }
        ModelConfig::Mlp(m) => {
            let (_, d, _) = dataset.shape();
            2.0 * f64::from(m.hidden) * (f64::from(d) + f64::from(m.hidden) * f64::from(m.layers))
        }
    }
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

/// Passes over a training point that estimating the constants of the bound for full fine-tuning takes.
const CURVATURE_PASSES: f64 = 50.0;
