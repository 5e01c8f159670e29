//! What a strategy may hold: fields of its setting, ranges, and combinations that can work.

use super::validate::{Bound, Check, filled, number, optional, real, whole};
use super::{Optimizer, Problem, Setting, StrategySpec};

/// Checks one strategy.
pub(super) fn check_strategy(s: &StrategySpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    check_setting(s, path)?;
    optional(&s.steps, |a| whole(&at("steps"), a, u32::from(s.setting == Setting::Full), 100_000_000))?;
    real(&at("learning_rate"), &s.learning_rate, Bound::Above(0.0), 1e6)?;
    optional(&s.optimizer, |a| filled(&at("optimizer"), a))?;
    optional(&s.bias, |a| filled(&at("bias"), a))?;
    optional(&s.weight_decay, |a| real(&at("weight_decay"), a, Bound::From(0.0), 1e6))?;
    real(&at("init_std"), &s.init_std, Bound::From(0.0), 1e3)?;
    real(&at("data_perturbation"), &s.data_perturbation, Bound::From(0.0), 0.9)?;
    if let Some(momentum) = &s.momentum {
        real(&at("momentum"), momentum, Bound::From(0.0), 0.999_999)?;
        let takes = |optimizer: &Optimizer| matches!(optimizer, Optimizer::Momentum | Optimizer::Sgd);
        if !s.optimizer.as_ref().is_some_and(|axis| axis.values().iter().any(takes)) {
            let wanted = if s.setting == Setting::Head { "momentum" } else { "sgd" };
            let message = format!("has no effect without `optimizer: {wanted}`");
            return Err(Problem::field(at("momentum"), message));
        }
    }
    if let Some(mhloss) = &s.mhloss {
        whole(&at("mhloss.heads"), &mhloss.heads, 1, 100_000)?;
    }
    let least_steps = s.steps.as_ref().map_or(0, |steps| steps.values().iter().copied().min().unwrap_or(0));
    if let Some(late) = s.checkpoints.iter().find(|t| **t == 0 || **t > least_steps) {
        return Err(Problem::field(at("checkpoints"), format!("found {late}"))
            .allowed(format!("steps from 1 to the fewest steps of this strategy, {least_steps}")));
    }
    if s.checkpoints.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Problem::field(at("checkpoints"), "must rise from one to the next"));
    }
    if s.setting == Setting::Full { check_full(s, path) } else { Ok(()) }
}

/// Fields and optimisers that belong to the other setting.
fn check_setting(s: &StrategySpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    let known = match s.setting {
        Setting::Head => &[Optimizer::Gd, Optimizer::Momentum, Optimizer::Adam][..],
        Setting::Full => &[Optimizer::Adamw, Optimizer::Sgd],
    };
    let optimizers = s.optimizer.as_ref().map_or(&[][..], |axis| axis.values());
    if let Some(other) = optimizers.iter().find(|optimizer| !known.contains(optimizer)) {
        let names: Vec<String> =
            known.iter().map(|optimizer| format!("`{}`", format!("{optimizer:?}").to_lowercase())).collect();
        let setting = if s.setting == Setting::Head { "head" } else { "full" };
        let message = format!("found `{}` with `setting: {setting}`", format!("{other:?}").to_lowercase());
        return Err(Problem::field(at("optimizer"), message).allowed(names.join(", ")));
    }
    if s.setting == Setting::Full {
        if !s.checkpoints.is_empty() {
            return Err(Problem::field(at("checkpoints"), "is for `setting: head`; use `evaluate_every`"));
        }
        return match (&s.steps, &s.epochs) {
            (Some(_), Some(_)) => {
                Err(Problem::field(at("epochs"), "and `steps` both say how long to train; leave one out"))
            }
            _ => Ok(()),
        };
    }
    if s.mmr.is_some() {
        return Err(Problem::field(
            at("mmr"),
            "cannot work with `setting: head`: the regulariser depends on the features alone, and with a frozen encoder \
             its gradient is zero, so it would change nothing",
        ));
    }
    if s.steps.is_none() {
        return Err(Problem::field(at("steps"), "is missing: `setting: head` takes a number of steps"));
    }
    let only_full = [
        ("epochs", s.epochs.is_some()),
        ("batch_size", s.batch_size.is_some()),
        ("accumulation", s.accumulation.is_some()),
        ("schedule", s.schedule.is_some()),
        ("warmup", s.warmup.is_some()),
        ("clip", s.clip.is_some()),
        ("dropout", s.dropout.is_some()),
        ("precision", s.precision.is_some()),
        ("length_buckets", s.length_buckets.is_some()),
        ("gradient_checkpointing", s.gradient_checkpointing.is_some()),
        ("evaluate_every", s.evaluate_every.is_some()),
        ("select", s.select.is_some()),
        ("early_stopping", s.early_stopping.is_some()),
        ("surt", s.surt.is_some()),
        ("l2_sp", s.l2_sp.is_some()),
        ("mixout", s.mixout.is_some()),
        ("lnsr", s.lnsr.is_some()),
        ("child_tuning", s.child_tuning.is_some()),
        ("reinit", s.reinit.is_some()),
        ("llrd", s.llrd.is_some()),
        ("lora", s.lora.is_some()),
    ];
    match only_full.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Problem::field(
            at(field),
            "is for `setting: full`: head tuning trains a linear head on fixed features, all samples in each step",
        )),
        None => Ok(()),
    }
}

fn check_full(s: &StrategySpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    optional(&s.epochs, |a| whole(&at("epochs"), a, 1, 100_000))?;
    optional(&s.batch_size, |a| whole(&at("batch_size"), a, 1, 65_536))?;
    optional(&s.accumulation, |a| whole(&at("accumulation"), a, 1, 65_536))?;
    optional(&s.schedule, |a| filled(&at("schedule"), a))?;
    optional(&s.warmup, |a| real(&at("warmup"), a, Bound::From(0.0), 1.0))?;
    optional(&s.clip, |a| real(&at("clip"), a, Bound::From(0.0), 1e9))?;
    optional(&s.dropout, |a| real(&at("dropout"), a, Bound::From(0.0), 0.95))?;
    optional(&s.precision, |a| filled(&at("precision"), a))?;
    optional(&s.evaluate_every, |steps| number(&at("evaluate_every"), *steps, 1, 100_000_000))?;
    optional(&s.early_stopping, |stop| number(&at("early_stopping.patience"), stop.patience, 1, 1_000_000))?;
    if let Some(mmr) = &s.mmr {
        real(&at("mmr.alpha"), &mmr.alpha, Bound::From(0.0), 1e6)?;
    }
    if let Some(surt) = &s.surt {
        whole(&at("surt.epochs"), &surt.epochs, 1, 100_000)?;
        real(&at("surt.learning_rate"), &surt.learning_rate, Bound::Above(0.0), 1e6)?;
        real(&at("surt.mask"), &surt.mask, Bound::Above(0.0), 0.9)?;
    }
    if let Some(l2_sp) = &s.l2_sp {
        real(&at("l2_sp.lambda"), &l2_sp.lambda, Bound::From(0.0), 1e6)?;
        real(&at("l2_sp.head"), &l2_sp.head, Bound::From(0.0), 1e6)?;
    }
    if let Some(mixout) = &s.mixout {
        real(&at("mixout.p"), &mixout.p, Bound::From(0.0), 0.99)?;
    }
    if let Some(lnsr) = &s.lnsr {
        real(&at("lnsr.lambda"), &lnsr.lambda, Bound::From(0.0), 1e6)?;
        whole(&at("lnsr.layer"), &lnsr.layer, 0, 1000)?;
        real(&at("lnsr.sigma"), &lnsr.sigma, Bound::Above(0.0), 1e3)?;
    }
    if let Some(child) = &s.child_tuning {
        filled(&at("child_tuning.mode"), &child.mode)?;
        real(&at("child_tuning.p"), &child.p, Bound::Above(0.0), 1.0)?;
    }
    if let Some(reinit) = &s.reinit {
        whole(&at("reinit.layers"), &reinit.layers, 0, 1000)?;
    }
    if let Some(llrd) = &s.llrd {
        real(&at("llrd.decay"), &llrd.decay, Bound::Above(0.0), 1.0)?;
    }
    if let Some(lora) = &s.lora {
        whole(&at("lora.rank"), &lora.rank, 1, 4096)?;
        optional(&lora.alpha, |a| real(&at("lora.alpha"), a, Bound::Above(0.0), 1e6))?;
    }
    check_combinations(s, path)
}

/// Methods that cannot work together, each with its reason.
fn check_combinations(s: &StrategySpec, path: &str) -> Check {
    let refuse = |field: &str, reason: &str| Err(Problem::field(format!("{path}.{field}"), reason));
    if s.lnsr.is_some() && s.gradient_checkpointing == Some(true) {
        return refuse(
            "gradient_checkpointing",
            "cannot work with `lnsr`, whose gradient flows through two passes that are kept at once",
        );
    }
    if s.lora.is_some() {
        let moves = "cannot work with `lora`, which keeps the encoder's own weights where they are";
        for (field, given) in [
            ("l2_sp", s.l2_sp.is_some()),
            ("mixout", s.mixout.is_some()),
            ("child_tuning", s.child_tuning.is_some()),
            ("reinit", s.reinit.is_some()),
        ] {
            if given {
                return refuse(field, moves);
            }
        }
    }
    Ok(())
}
