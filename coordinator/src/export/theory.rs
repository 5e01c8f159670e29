//! The bound of a group, beside what was measured.

use std::sync::Arc;

use evenkeel_common::spec::{Optimizer, Setting};
use evenkeel_common::theory::{DELTA, HeadBound, HeadConstants, LEAST_STEPS, head_bound, heads_factor};
use evenkeel_common::trial::StrategyConfig;

use super::groups::{Dual, Group};
use super::points::StrategyPoint;

/// A bound with what it was computed from.
#[derive(Clone, Debug)]
pub(super) struct Bounded {
    pub constants: HeadConstants,
    pub bound: HeadBound,
    /// The strategy whose distances C was estimated from: with several heads, the same with one head where there is one.
    pub constant_from: Arc<StrategyPoint>,
}

/// A group's bound, or why it has none.
#[derive(Clone, Debug)]
pub(super) struct Theory(pub Result<Bounded, String>);

impl Theory {
    /// Computes the bound of a group, given the groups of the same dataset and model.
    pub fn of(group: &Group, beside: &[Group]) -> Self {
        Self(bounded(group, beside))
    }

    /// The bound on the mean leave-one-out distance.
    pub fn bound(&self) -> Option<f64> {
        self.0.as_ref().ok().map(|bounded| bounded.bound.total())
    }

    /// The same with the share of support vectors.
    pub fn support_bound(&self) -> Option<f64> {
        self.0.as_ref().ok().map(|bounded| bounded.bound.with_support())
    }
}

fn bounded(group: &Group, beside: &[Group]) -> Result<Bounded, String> {
    let config = &group.strategy.config;
    applies(config)?;
    let margin = group
        .margin
        .as_ref()
        .map(|numbers| numbers.mean)
        .ok_or("the training set is not linearly separable, or its margin was not solved for")?;
    let Dual { dual_max, feature_norm, support } =
        group.dual.ok_or("its results come from a version that did not record the dual variables")?;
    let single = beside.iter().find(|other| config.heads > 1 && is_single(config, &other.strategy.config));
    let (from, factor) = match single {
        Some(single) => (single, heads_factor(config.heads, DELTA)),
        // Its own distances hold already what its heads bring.
        None => (group, 1.0),
    };
    let constants = HeadConstants {
        samples: group.dataset.shape.0,
        classes: group.dataset.shape.2,
        margin,
        feature_norm,
        dual_max,
        support,
        steps: config.steps,
        rate_constant: from.rate_constant.ok_or_else(|| no_constant(&from.strategy))?,
        heads_factor: factor,
    };
    let bound = head_bound(&constants).ok_or("its constants are not positive numbers")?;
    Ok(Bounded { constants, bound, constant_from: from.strategy.clone() })
}

/// Whether the bound speaks of such a training.
fn applies(config: &StrategyConfig) -> Result<(), String> {
    let reason = if config.setting != Setting::Head {
        "the constants of the bound for full fine-tuning were not estimated".to_owned()
    } else if config.optimizer != Optimizer::Gd {
        "the bound is for plain gradient descent".to_owned()
    } else if config.weight_decay != 0.0 {
        "the bound is for training without weight decay".to_owned()
    } else if config.data_perturbation != 0.0 {
        "every seed trains on points of its own".to_owned()
    } else if config.steps < LEAST_STEPS {
        format!("the bound is for {LEAST_STEPS} steps or more")
    } else {
        return Ok(());
    };
    Err(reason)
}

fn no_constant(strategy: &StrategyPoint) -> String {
    format!("no trial of {} has the distance of its direction to the hard-margin one", strategy.name)
}

/// Whether `other` is `ours` with one head.
fn is_single(ours: &StrategyConfig, other: &StrategyConfig) -> bool {
    let alike = StrategyConfig {
        name: ours.name.clone(),
        reduction: ours.reduction,
        checkpoints: ours.checkpoints.clone(),
        ..other.clone()
    };
    other.heads == 1 && alike == StrategyConfig { heads: 1, ..ours.clone() }
}
