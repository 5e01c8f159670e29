//! Distances beside their bounds.

use super::super::chart::{Chart, Scale};
use super::super::figures::count;
use super::{Data, Figure, HEIGHT, cell, label, legend};
use crate::export::{ExportError, GroupPoint, PlotLine, Plots};

/// The greatest distance of two directions.
const MOST_APART: f64 = 2.0;
/// Dots of a line at most.
const MOST: usize = 400;

/// The bound of the theory.
pub(super) fn bound(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let caption = "Every dot is a group; below the diagonal the bound holds. For head tuning it says nothing right of the line at \
                   2, as two directions are at most 2 apart.";
    beside(plots, "bound", "Leave-one-out distance beside its bound", caption, |point| point.bound)
}

/// The bound with the share of support vectors.
pub(super) fn support_bound(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let caption = "The same with the second term of the bound weighted by the share of points that are support vectors: without \
                   another point the limit of training does not move.";
    let title = "Leave-one-out distance beside the bound with support vectors";
    beside(plots, "support-bound", title, caption, |point| point.support_bound)
}

fn beside(
    plots: &Plots<'_>,
    slug: &'static str,
    title: &str,
    caption: &str,
    get: fn(&GroupPoint) -> Option<f64>,
) -> Result<Option<Figure>, ExportError> {
    let positive = |value: &f64| *value > 0.0 && value.is_finite();
    let pairs = |line: &PlotLine<'_>| -> Vec<(f64, f64)> {
        let pair = |p: &GroupPoint| get(p).filter(positive).zip(p.loo_mean.filter(positive));
        line.points.in_order().filter_map(pair).collect()
    };
    let lines: Vec<(usize, Vec<(f64, f64)>)> =
        plots.lines.iter().map(pairs).enumerate().filter(|(_, pairs)| !pairs.is_empty()).collect();
    let all = || lines.iter().flat_map(|(_, pairs)| pairs.iter());
    // A piece of the diagonal is shown, too, and of directions the greatest distance there is.
    let heads = plots.lines.iter().flat_map(|line| line.points.iter()).any(|p| p.support_bound.is_some());
    let apart = heads.then_some(MOST_APART);
    let least = all().map(|p| p.0).chain(apart).fold(f64::INFINITY, f64::min);
    let x = Scale::of(all().map(|p| p.0).chain(apart), true);
    let Some((x, y)) = x.zip(Scale::of(all().map(|p| p.1), true)) else { return Ok(None) };
    let y = y.including(1.5 * least);
    let mut data = Data::new(["strategy", "bound", "measured"]);
    for (line, pairs) in &lines {
        pairs.iter().for_each(|(bound, measured)| {
            data.push([label(plots, *line).to_owned(), cell(*bound), cell(*measured)]);
        });
    }
    let shown: Vec<usize> = lines.iter().map(|(line, _)| *line).collect();
    let axes = ("bound on the mean leave-one-out distance", "measured mean leave-one-out distance");
    let drawing =
        Chart::draw(title, HEIGHT, (x, axes.0), Some((y, axes.1)), &legend(plots, &shown), |chart| {
            apart.map_or(Ok(()), |apart| chart.upright(apart))?;
            chart.diagonal()?;
            lines.iter().try_for_each(|(line, pairs)| {
                pairs
                    .iter()
                    .take(MOST)
                    .try_for_each(|(bound, measured)| chart.point(*line, *bound, *measured))
            })
        })?;
    let most = lines.iter().map(|(_, pairs)| pairs.len()).max().unwrap_or(0);
    let caption = if most > MOST {
        format!("{caption} At most {MOST} of {} groups of a strategy are drawn.", count(most as u64))
    } else {
        caption.to_owned()
    };
    Ok(Some(Figure { slug, title: title.to_owned(), drawing, caption, legend: shown, data }))
}
