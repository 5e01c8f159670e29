//! How the leave-one-out distance depends on what the theory says it depends on: slopes on log-log axes, fitted within families of
//! groups that are alike in everything else.

use std::collections::BTreeMap;

use evenkeel_common::spec::Spec;
use evenkeel_common::stats::ols_within;
use evenkeel_common::theory::rate;
use serde::Serialize;

use super::tally::{CurveAt, GroupPoint, LineTally};

/// Least ratio of the greatest to the least x of a family: within less, noise decides the slope.
const LEAST_SPREAD: f64 = 1.1;

/// Slope of a line on log-log axes, fitted within families.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Slope {
    /// The slope.
    pub slope: f64,
    /// Lower end of its 95 % confidence interval.
    pub ci_low: Option<f64>,
    /// Upper end.
    pub ci_high: Option<f64>,
    /// Groups it is fitted to; for a slope over steps, points of curves.
    pub groups: u64,
}

/// The slope in the number of heads of one strategy.
#[derive(Clone, Debug, Serialize)]
pub struct HeadsSlope {
    /// The strategy.
    pub strategy: String,
    /// Its slope.
    #[serde(flatten)]
    pub slope: Slope,
    /// That of its bound.
    pub bound: Option<Slope>,
}

/// What a slope is of.
#[derive(Clone, Copy)]
pub(super) enum Of {
    /// The measured distance.
    Measured,
    /// Its bound.
    Bound,
}

impl Of {
    fn get(self, point: &GroupPoint) -> Option<f64> {
        // Both of the same groups, so that they can be compared.
        match self {
            Self::Measured => point.loo_mean,
            Self::Bound => point.loo_mean.and(point.bound),
        }
    }
}

/// log ε on log n: groups alike but for the size and the instance of their dataset.
pub(super) fn in_samples(line: &LineTally, of: Of) -> Option<Slope> {
    of_groups(of, [line].into_iter(), |p| p.alike.but_samples, |p| Some(f64::from(p.samples)))
}

/// log ε on log γ: groups whose datasets have the same entry and shape.
pub(super) fn in_margin(line: &LineTally, of: Of) -> Option<Slope> {
    of_groups(of, [line].into_iter(), |p| p.alike.but_margin, |p| p.margin)
}

/// log ε on log H, of every strategy that varies it.
pub(super) fn in_heads(lines: &[LineTally], spec: &Spec) -> Vec<HeadsSlope> {
    let of_entry = |entry, of| {
        let lines = lines.iter().filter(move |line| line.strategy == entry);
        of_groups(of, lines, |p| p.alike.but_heads, |p| Some(f64::from(p.heads)))
    };
    let named = spec.strategies.iter().enumerate();
    named
        .filter_map(|(entry, strategy)| {
            Some(HeadsSlope {
                strategy: strategy.name.clone(),
                slope: of_entry(entry, Of::Measured)?,
                bound: of_entry(entry, Of::Bound),
            })
        })
        .collect()
}

/// log ε(t) on log(log log t / log t): each trial is a family.
pub(super) fn in_rate(line: &LineTally) -> Option<Slope> {
    let point = |at: &CurveAt| Some((rate(at.step)?, at.loo_mean));
    fit(line.curves.iter().map(|curve| curve.iter().filter_map(point).collect()))
}

fn of_groups<'a>(
    of: Of,
    lines: impl Iterator<Item = &'a LineTally>,
    family: impl Fn(&GroupPoint) -> u64,
    x: impl Fn(&GroupPoint) -> Option<f64>,
) -> Option<Slope> {
    let mut families: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for point in lines.flat_map(|line| line.points.iter()) {
        if let Some(xy) = x(point).zip(of.get(point)) {
            families.entry(family(point)).or_default().push(xy);
        }
    }
    fit(families.into_values())
}

/// The slope of the logarithms within families.
fn fit(families: impl Iterator<Item = Vec<(f64, f64)>>) -> Option<Slope> {
    let positive = |value: f64| value > 0.0 && value.is_finite();
    let logs = |family: Vec<(f64, f64)>| {
        let family: Vec<_> = family.into_iter().filter(|(x, y)| positive(*x) && positive(*y)).collect();
        let xs = || family.iter().map(|(x, _)| *x);
        let spread = xs().reduce(f64::max).zip(xs().reduce(f64::min)).map_or(1.0, |(high, low)| high / low);
        let logs = family.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
        (spread > LEAST_SPREAD).then_some(logs)
    };
    let families: Vec<Vec<(f64, f64)>> = families.filter_map(logs).collect();
    let line = ols_within(&families)?;
    let interval = line.slope_ci95?;
    Some(Slope { slope: line.slope, ci_low: Some(interval.0), ci_high: Some(interval.1), groups: line.count })
}
