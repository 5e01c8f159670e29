//! The bound of a group, beside what was measured.

use std::sync::Arc;

use evenkeel_common::spec::{Optimizer, Setting};
use evenkeel_common::theory::{DELTA, HeadBound, HeadConstants, LEAST_STEPS, head_bound, heads_factor};
use evenkeel_common::trial::StrategyConfig;

use super::groups::{Dual, FullTheory, Group};
use super::points::StrategyPoint;

/// A bound for head tuning with what it was computed from.
#[derive(Clone, Debug)]
pub(super) struct HeadTheory {
    pub constants: HeadConstants,
    pub bound: HeadBound,
    /// The strategy whose distances C was estimated from: with several heads, the same with one head where there is one.
    pub constant_from: Arc<StrategyPoint>,
}

/// A group's bound, or why it has none.
#[derive(Clone, Debug)]
pub(super) enum Theory {
    /// Of head tuning.
    Head(HeadTheory),
    /// Of full fine-tuning.
    Full(FullTheory),
    /// None, and why.
    None(String),
}

impl Theory {
    /// Computes the bound of a group, given the groups of the same dataset and model.
    pub fn of(group: &Group, beside: &[Group]) -> Self {
        if group.strategy.config.setting == Setting::Full {
            return full(group);
        }
        head(group, beside).map_or_else(Self::None, Self::Head)
    }

    /// The bound on the mean leave-one-out distance.
    pub fn bound(&self) -> Option<f64> {
        match self {
            Self::Head(head) => Some(head.bound.total()),
            Self::Full(full) => Some(full.bound),
            Self::None(_) => None,
        }
    }

    /// The same with the share of support vectors; for head tuning alone.
    pub fn support_bound(&self) -> Option<f64> {
        self.head().map(|head| head.bound.with_support())
    }

    /// What the bound for head tuning is made of.
    pub fn head(&self) -> Option<&HeadTheory> {
        if let Self::Head(head) = self { Some(head) } else { None }
    }

    /// What the bound for full fine-tuning is made of.
    pub fn full(&self) -> Option<&FullTheory> {
        if let Self::Full(full) = self { Some(full) } else { None }
    }

    /// Why there is no bound.
    pub fn reason(&self) -> Option<&str> {
        if let Self::None(reason) = self { Some(reason) } else { None }
    }
}

fn full(group: &Group) -> Theory {
    match group.full {
        Some(full) => Theory::Full(full),
        None => Theory::None(
            "the constants of the bound for full fine-tuning were not estimated (`stability: {curvature: true}`), or no positive \
             curvature was found"
                .to_owned(),
        ),
    }
}

fn head(group: &Group, beside: &[Group]) -> Result<HeadTheory, String> {
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
    Ok(HeadTheory { constants, bound, constant_from: from.strategy.clone() })
}

/// Whether the bound for head tuning speaks of such a training.
fn applies(config: &StrategyConfig) -> Result<(), String> {
    let reason = if config.optimizer != Optimizer::Gd {
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
