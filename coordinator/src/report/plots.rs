//! The pictures of the report, each with what it shows in words.

use std::collections::BTreeMap;

use evenkeel_common::stats::{Sample, quantile};

use super::chart::{Chart, Scale};
use super::figures::{clip, count};
use crate::export::{ExportError, GroupPoint, PlotLine, Plots};

/// Lines that a picture has at most: the colours of the page.
pub(super) const COLORS: usize = 8;
/// Dots of a row, so that the page stays small.
const DOTS: usize = 160;
/// Parts that a continuous axis is cut into.
const BINS: usize = 8;
const HEIGHT: u32 = 640;

/// A picture and what it shows.
pub(super) struct Figure {
    pub title: &'static str,
    pub svg: String,
    pub caption: String,
    /// Lines that it shows.
    pub shown: Vec<usize>,
    /// Whether the rows are labelled in the picture.
    pub labelled: bool,
}

/// The pictures that the sweep's axes and measures allow.
pub(super) fn figures(plots: &Plots<'_>) -> Result<Vec<Figure>, ExportError> {
    let spread = spread(plots)?;
    let by_samples =
        by_axis(plots, "Leave-one-out distance against training set size", "training set size n", |point| {
            Some(f64::from(point.samples))
        })?;
    let by_margin = by_axis(
        plots,
        "Leave-one-out distance against margin",
        "hard margin γ (distance units of the features)",
        |point| point.margin,
    )?;
    Ok([spread, by_samples, by_margin, over_steps(plots)?].into_iter().flatten().collect())
}

fn spread(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let (title, axis) = ("Spread of the score over seeds", "standard deviation of the score within a group");
    let values = |line: &PlotLine<'_>| {
        line.points.iter().filter_map(|point| point.score_sd).collect::<Sample>().sorted()
    };
    let rows: Vec<(usize, Vec<f64>)> =
        plots.lines.iter().map(values).enumerate().filter(|(_, values)| !values.is_empty()).collect();
    let Some(scale) = Scale::of(rows.iter().flat_map(|(_, values)| values.iter().copied()), false) else {
        return Ok(None);
    };
    let height = 108 + 112 * rows.len() as u32;
    let svg = Chart::draw(title, height, (scale, axis), None, |chart| {
        for (place, (line, values)) in rows.iter().enumerate() {
            let top = 112 * place as i32;
            let label = plots.lines.get(*line).map_or("", |line| line.label);
            chart.row_label(&clip(label, 48), top + 4)?;
            let step = values.len().div_ceil(DOTS).max(1);
            for (k, value) in values.iter().step_by(step).enumerate() {
                // Spread over the row so that equal values can be told apart: a golden-ratio sequence.
                let jitter = (k as f64 * 0.618_034).fract() * 44.0 - 22.0;
                chart.dot(*line, *value, top + 72 + jitter as i32)?;
            }
            let at = |p| quantile(values, p).unwrap_or(0.0);
            chart.horizontal_box(*line, [at(0.05), at(0.25), at(0.5), at(0.75), at(0.95)], top + 72)?;
        }
        Ok(())
    })?;
    let groups = rows.iter().map(|(_, values)| values.len()).max().unwrap_or(0) as u64;
    let caption = format!(
        "Every dot is a group: one dataset, trained again and again with nothing but the seed changed. The box spans the \
         quartiles around the median, whiskers the 5th to the 95th percentile; of up to {} groups a row, at most {} dots \
         are drawn. Further left is more stable.",
        count(groups),
        DOTS
    );
    Ok(Some(Figure {
        title,
        svg,
        caption,
        shown: rows.iter().map(|(line, _)| *line).collect(),
        labelled: true,
    }))
}

/// Median and quartiles of the leave-one-out distance along an axis of the datasets, on log-log axes.
fn by_axis(
    plots: &Plots<'_>,
    title: &'static str,
    axis: &str,
    get: fn(&GroupPoint) -> Option<f64>,
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
    let caption = "Lines join medians over datasets, bands span the quartiles. Both axes are logarithmic: a power law is a \
                   straight line, and its exponent the slope that is fitted above.";
    lines_figure(title, (axis, "mean leave-one-out distance ‖ŵ − ŵ⁽ⁱ⁾‖"), &lines, caption)
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

/// What happens while the heads train, when checkpoints were recorded.
fn over_steps(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let distances = plots.lines.iter().any(|line| line.curves.iter().flatten().any(|point| point.1 > 0.0));
    let curve = |line: &PlotLine<'_>| -> Vec<Quartiles> {
        let mut steps: BTreeMap<u32, Sample> = BTreeMap::new();
        for (step, distance, loss) in line.curves.iter().flatten() {
            let value = if distances { *distance } else { *loss };
            if *step > 0 && value > 0.0 {
                steps.entry(*step).or_default().push(value);
            }
        }
        let quartiles = |(step, values): (u32, Sample)| {
            let numbers = values.summary()?;
            Some((f64::from(step), numbers.median, numbers.q1, numbers.q3))
        };
        steps.into_iter().filter_map(quartiles).collect()
    };
    let lines: Vec<(usize, Vec<Quartiles>)> =
        plots.lines.iter().map(curve).enumerate().filter(|(_, line)| line.len() > 1).collect();
    let (title, axis) = if distances {
        ("Leave-one-out distance over training", "mean leave-one-out distance ‖ŵ − ŵ⁽ⁱ⁾‖")
    } else {
        ("Training loss over training", "training loss (nats)")
    };
    let caption = "Lines join medians over trials at the recorded steps, bands span the quartiles.";
    lines_figure(title, ("training steps t", axis), &lines, caption)
}

fn lines_figure(
    title: &'static str,
    (x_title, y_title): (&str, &str),
    lines: &[(usize, Vec<Quartiles>)],
    caption: &str,
) -> Result<Option<Figure>, ExportError> {
    let points = || lines.iter().flat_map(|(_, line)| line.iter());
    let x = Scale::of(points().map(|point| point.0), true);
    let y = Scale::of(points().flat_map(|point| [point.1, point.2, point.3]), true);
    let (Some(x), Some(y)) = (x, y) else { return Ok(None) };
    let x = x.with_ticks(points().map(|point| point.0).collect());
    let svg = Chart::draw(title, HEIGHT, (x, x_title), Some((y, y_title)), |chart| {
        lines.iter().try_for_each(|(line, points)| chart.band(*line, points))?;
        lines.iter().try_for_each(|(line, points)| chart.line(*line, points))
    })?;
    let shown = lines.iter().map(|(line, _)| *line).collect();
    Ok(Some(Figure { title, svg, caption: caption.to_owned(), shown, labelled: false }))
}
