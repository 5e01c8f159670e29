//! What a trial costs, in floating-point operations.

use super::{DatasetConfig, FullConfig, ModelConfig, PretrainedConfig, StrategyConfig, TextConfig};
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
