//! The leave-one-out distance along what the theory says it depends on, and scores along the steps.

use std::collections::BTreeMap;

use evenkeel_common::stats::Sample;

use super::super::chart::{Chart, Scale};
use super::super::figures::count;
use super::{Data, Figure, HEIGHT, cell, label, legend};
use crate::export::{CurveAt, ExportError, GroupPoint, PlotLine, Plots};

/// Parts that a continuous axis is cut into.
const BINS: usize = 8;
const DISTANCE: &str = "mean leave-one-out distance ‖ŵ − ŵ⁽ⁱ⁾‖";

/// Along the training set size.
pub(super) fn by_samples(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let title = "Leave-one-out distance against training set size";
    by_axis(plots, ("loo-samples", title, "training set size n"), |point| Some(f64::from(point.samples)), "")
}

/// Along the margin, at one training set size: the distance depends on both.
pub(super) fn by_margin(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    let points = plots.lines.iter().flat_map(|line| line.points.iter());
    points.filter(|point| point.margin.is_some()).for_each(|p| *sizes.entry(p.samples).or_default() += 1);
    let Some((size, _)) = sizes.iter().max_by_key(|(_, groups)| **groups) else { return Ok(None) };
    let title = format!("Leave-one-out distance against margin, n = {}", count((*size).into()));
    let axis = "hard margin γ (distance units of the features)";
    let only =
        if sizes.len() > 1 { " Datasets of one size alone: the distance depends on n as well." } else { "" };
    let at = *size;
    by_axis(plots, ("loo-margin", &title, axis), move |p| p.margin.filter(|_| p.samples == at), only)
}

/// Median and quartiles of the leave-one-out distance along an axis of the datasets, on log-log axes.
fn by_axis(
    plots: &Plots<'_>,
    (slug, title, axis): (&'static str, &str, &str),
    get: impl Fn(&GroupPoint) -> Option<f64>,
    note: &str,
) -> Result<Option<Figure>, ExportError> {
    let positive = |value: &f64| *value > 0.0 && value.is_finite();
    // Only families of datasets whose axis has more than one value: a lone value tells nothing of the axis.
    let mut ends: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for point in plots.lines.iter().flat_map(|line| line.points.iter()) {
        if let Some(x) = get(point).filter(positive) {
            let (low, high) = ends.entry(point.family).or_insert((x, x));
            (*low, *high) = (low.min(x), high.max(x));
        }
    }
    let varies = |family: usize| ends.get(&family).is_some_and(|(low, high)| high / low > 1.1);
    let pairs = |line: &PlotLine<'_>| -> Vec<(f64, f64)> {
        let shown = line.points.iter().filter(|point| varies(point.family));
        shown.filter_map(|p| get(p).filter(positive).zip(p.loo_mean.filter(positive))).collect()
    };
    let lines: Vec<(usize, Vec<Quartiles>)> = plots
        .lines
        .iter()
        .map(|line| along(pairs(line)))
        .enumerate()
        .filter(|(_, line)| line.len() > 1)
        .collect();
    let caption = format!(
        "Lines join medians over datasets, bands span the quartiles. Both axes are logarithmic: a power law is a straight line, \
         and its exponent the slope that is fitted above.{note}"
    );
    lines_figure(plots, (slug, title), (axis, DISTANCE), true, &lines, caption)
}

/// x, median, first and third quartile.
type Quartiles = (f64, f64, f64, f64);

/// Quartiles at each value of x if these are few, else in parts of equal count at their median x.
fn along(mut pairs: Vec<(f64, f64)>) -> Vec<Quartiles> {
    pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
    for pair in &pairs {
        match parts.last_mut() {
            Some(part) if part.first().is_some_and(|first| first.0 == pair.0) => part.push(*pair),
            _ => parts.push(vec![*pair]),
        }
    }
    if parts.len() > 2 * BINS {
        let size = pairs.len().div_ceil(BINS).max(1);
        parts = pairs.chunks(size).map(<[_]>::to_vec).collect();
    }
    parts.into_iter().filter_map(quartiles).collect()
}

fn quartiles(part: Vec<(f64, f64)>) -> Option<Quartiles> {
    let xs: Sample = part.iter().map(|(x, _)| *x).collect();
    let y = part.iter().map(|(_, y)| *y).collect::<Sample>().summary()?;
    Some((xs.quantile(0.5)?, y.median, y.q1, y.q3))
}

/// The distance while the heads train, or the training loss where there is none.
pub(super) fn by_steps(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let distances =
        plots.lines.iter().any(|line| line.curves.iter().flatten().any(|point| point.loo_mean > 0.0));
    let (names, axis): (_, _) = if distances {
        (("loo-steps", "Leave-one-out distance over training"), DISTANCE)
    } else {
        (("loss-steps", "Training loss over training"), "training loss (nats)")
    };
    let lines = over_steps(plots, |point| {
        Some(if distances { point.loo_mean } else { point.train_loss }).filter(|v| *v > 0.0)
    });
    let caption =
        "Lines join medians over trials at the recorded steps, bands span the quartiles.".to_owned();
    lines_figure(plots, names, ("training steps t", axis), true, &lines, caption)
}

/// The score while models train: the band is what seeds and datasets make of it.
pub(super) fn scores_by_steps(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let lines = over_steps(plots, |point| Some(point.score).filter(|v| v.is_finite()));
    let what = if plots.datasets == 1 { "seeds" } else { "trials (seeds and datasets)" };
    let caption = format!("Lines join medians over {what} at the recorded steps, bands span the quartiles.");
    let names = ("score-steps", "Score over training");
    lines_figure(plots, names, ("training steps t", "score on the test set"), false, &lines, caption)
}

fn over_steps(plots: &Plots<'_>, get: impl Fn(&CurveAt) -> Option<f64>) -> Vec<(usize, Vec<Quartiles>)> {
    let curve = |line: &PlotLine<'_>| -> Vec<Quartiles> {
        let mut steps: BTreeMap<u32, Sample> = BTreeMap::new();
        for point in line.curves.iter().flatten().filter(|point| point.step > 0) {
            if let Some(value) = get(point) {
                steps.entry(point.step).or_default().push(value);
            }
        }
        let quartiles = |(step, values): (u32, Sample)| {
            let numbers = values.summary()?;
            Some((f64::from(step), numbers.median, numbers.q1, numbers.q3))
        };
        steps.into_iter().filter_map(quartiles).collect()
    };
    plots.lines.iter().map(curve).enumerate().filter(|(_, line)| line.len() > 1).collect()
}

fn lines_figure(
    plots: &Plots<'_>,
    (slug, title): (&'static str, &str),
    (x_title, y_title): (&str, &str),
    log: bool,
    lines: &[(usize, Vec<Quartiles>)],
    caption: String,
) -> Result<Option<Figure>, ExportError> {
    let points = || lines.iter().flat_map(|(_, line)| line.iter());
    let x = Scale::of(points().map(|point| point.0), true);
    let values = points().flat_map(|point| [point.1, point.2, point.3]);
    let y = if log { Scale::of(values, true) } else { Scale::tight(values) };
    let (Some(x), Some(y)) = (x, y) else { return Ok(None) };
    let x = x.with_ticks(points().map(|point| point.0).collect());
    let shown: Vec<usize> = lines.iter().map(|(line, _)| *line).collect();
    let (x, y) = ((x, x_title), Some((y, y_title)));
    let drawing = Chart::draw(title, HEIGHT, x, y, &legend(plots, &shown), |chart| {
        lines.iter().try_for_each(|(line, points)| chart.band(*line, points))?;
        lines.iter().try_for_each(|(line, points)| chart.line(*line, points))
    })?;
    let mut data = Data::new(["strategy", "x", "median", "q1", "q3"]);
    for (line, points) in lines {
        points.iter().for_each(|(x, median, q1, q3)| {
            data.push([label(plots, *line).to_owned(), cell(*x), cell(*median), cell(*q1), cell(*q3)]);
        });
    }
    Ok(Some(Figure { slug, title: title.to_owned(), drawing, caption, legend: shown, data }))
}
