//! From points of a strategy's axes to plain values.

use super::resolve::{Digits, len_or_one, product};
use crate::spec::{Axis, Optimizer, Setting, StrategySpec};
use crate::trial::{FullConfig, LnsrConfig, StrategyConfig, SurtConfig};

/// Lengths of a strategy's axes, in the order [`resolve_strategy`] takes their digits.
pub(super) fn strategy_points(s: &StrategySpec) -> Option<u64> {
    product(&[
        len_or_one(&s.steps),
        s.learning_rate.len(),
        len_or_one(&s.optimizer),
        len_or_one(&s.momentum),
        len_or_one(&s.weight_decay),
        len_or_one(&s.bias),
        s.init_std.len(),
        s.data_perturbation.len(),
        s.mhloss.as_ref().map_or(1, |m| m.heads.len()),
        len_or_one(&s.epochs),
        len_or_one(&s.batch_size),
        len_or_one(&s.accumulation),
        len_or_one(&s.schedule),
        len_or_one(&s.warmup),
        len_or_one(&s.clip),
        len_or_one(&s.dropout),
        len_or_one(&s.precision),
        s.mmr.as_ref().map_or(1, |m| m.alpha.len()),
        s.surt.as_ref().map_or(1, |m| m.epochs.len()),
        s.surt.as_ref().map_or(1, |m| m.learning_rate.len()),
        s.surt.as_ref().map_or(1, |m| m.mask.len()),
        s.l2_sp.as_ref().map_or(1, |m| m.lambda.len()),
        s.l2_sp.as_ref().map_or(1, |m| m.head.len()),
        s.mixout.as_ref().map_or(1, |m| m.p.len()),
        s.lnsr.as_ref().map_or(1, |m| m.lambda.len()),
        s.lnsr.as_ref().map_or(1, |m| m.layer.len()),
        s.lnsr.as_ref().map_or(1, |m| m.sigma.len()),
        s.child_tuning.as_ref().map_or(1, |m| m.mode.len()),
        s.child_tuning.as_ref().map_or(1, |m| m.p.len()),
        s.reinit.as_ref().map_or(1, |m| m.layers.len()),
        s.llrd.as_ref().map_or(1, |m| m.decay.len()),
        s.lora.as_ref().map_or(1, |m| m.rank.len()),
        s.lora.as_ref().map_or(1, |m| len_or_one(&m.alpha)),
    ])
}

pub(super) fn resolve_strategy(s: &StrategySpec, point: u64) -> StrategyConfig {
    let mut digits = Digits(point);
    let steps = digits.take_or(&s.steps, 0);
    let learning_rate = digits.take(&s.learning_rate);
    let optimizer = digits.take_or(&s.optimizer, Optimizer::Gd);
    let momentum = s.momentum.as_ref().map(|axis| digits.take(axis));
    let weight_decay = digits.take_or(&s.weight_decay, 0.0);
    let bias = digits.take_or(&s.bias, false);
    let init_std = digits.take(&s.init_std);
    let data_perturbation = digits.take(&s.data_perturbation);
    let (heads, reduction) =
        s.mhloss.as_ref().map_or((1, Default::default()), |m| (digits.take(&m.heads), m.reduction));
    StrategyConfig {
        name: s.name.clone(),
        setting: s.setting,
        steps,
        learning_rate,
        optimizer,
        momentum: match optimizer {
            Optimizer::Momentum => momentum.unwrap_or(0.9),
            Optimizer::Sgd => momentum.unwrap_or(0.0),
            _ => 0.0,
        },
        weight_decay,
        bias,
        init_std,
        data_perturbation,
        heads,
        reduction,
        checkpoints: s.checkpoints.clone(),
        seed_controls: s.seed_controls,
        full: (s.setting == Setting::Full).then(|| resolve_full(s, &mut digits)),
    }
}

fn resolve_full(s: &StrategySpec, digits: &mut Digits) -> FullConfig {
    let default = FullConfig::default();
    FullConfig {
        epochs: s.epochs.as_ref().map(|axis| digits.take(axis)),
        batch_size: digits.take_or(&s.batch_size, default.batch_size),
        accumulation: digits.take_or(&s.accumulation, default.accumulation),
        schedule: digits.take_or(&s.schedule, default.schedule),
        warmup: digits.take_or(&s.warmup, default.warmup),
        clip: digits.take_or(&s.clip, default.clip),
        dropout: s.dropout.as_ref().map(|axis| digits.take(axis)),
        precision: digits.take_or(&s.precision, default.precision),
        length_buckets: s.length_buckets.unwrap_or(default.length_buckets),
        gradient_checkpointing: s.gradient_checkpointing.unwrap_or(default.gradient_checkpointing),
        evaluate_every: s.evaluate_every,
        select: s.select.unwrap_or(default.select),
        patience: s.early_stopping.as_ref().map(|stop| stop.patience),
        mmr: s.mmr.as_ref().map(|m| digits.take(&m.alpha)),
        surt: s.surt.as_ref().map(|m| SurtConfig {
            epochs: digits.take(&m.epochs),
            learning_rate: digits.take(&m.learning_rate),
            mask: digits.take(&m.mask),
        }),
        l2_sp: s.l2_sp.as_ref().map(|m| (digits.take(&m.lambda), digits.take(&m.head))),
        mixout: s.mixout.as_ref().map(|m| digits.take(&m.p)),
        lnsr: s.lnsr.as_ref().map(|m| LnsrConfig {
            lambda: digits.take(&m.lambda),
            layer: digits.take(&m.layer),
            sigma: digits.take(&m.sigma),
        }),
        child_tuning: s.child_tuning.as_ref().map(|m| (digits.take(&m.mode), digits.take(&m.p))),
        reinit: s.reinit.as_ref().map(|m| digits.take(&m.layers)),
        llrd: s.llrd.as_ref().map(|m| digits.take(&m.decay)),
        lora: s.lora.as_ref().map(|m| {
            let rank = digits.take(&m.rank);
            (rank, digits.take_or(&m.alpha, 2.0 * f64::from(rank)))
        }),
    }
}

/// The strategy points of an entry by what decides their cost, each with how many points it stands for.
///
/// The cost depends on steps, optimiser and heads for `head`, on nearly everything for `full`: points of the latter are
/// walked, up to a limit.
pub(super) fn cost_classes(s: &StrategySpec) -> Vec<(StrategyConfig, f64)> {
    let points = strategy_points(s).unwrap_or(0);
    if s.setting == Setting::Full {
        let walked = points.min(MOST_WALKED);
        let each = points as f64 / walked.max(1) as f64;
        return (0..walked).map(|point| (resolve_strategy(s, point), each)).collect();
    }
    let base = resolve_strategy(s, 0);
    let heads = s.mhloss.as_ref().map_or(vec![1], |m| m.heads.values().to_vec());
    let steps = s.steps.as_ref().map_or(&[0][..], Axis::values);
    let optimizers = s.optimizer.as_ref().map_or(&[Optimizer::Gd][..], Axis::values);
    let classes = steps.len() * optimizers.len() * heads.len();
    let each = points as f64 / classes.max(1) as f64;
    let mut out = Vec::new();
    for steps in steps {
        for optimizer in optimizers {
            for heads in &heads {
                let config =
                    StrategyConfig { steps: *steps, optimizer: *optimizer, heads: *heads, ..base.clone() };
                out.push((config, each));
            }
        }
    }
    out
}

/// Points of a `full` strategy that an estimate of the cost looks at.
const MOST_WALKED: u64 = 10_000;
