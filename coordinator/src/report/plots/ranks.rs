//! Strategies ranked over datasets.

use super::super::chart::{Chart, Scale};
use super::super::figures::{clip, count, significant};
use super::{BELOW, Data, Figure, LABELLED, ROW, cell};
use crate::export::{ExportError, Plots, Ranks, Summary};

/// By how much the score varies over seeds.
pub(super) fn by_spread(plots: &Plots<'_>, summary: &Summary) -> Result<Option<Figure>, ExportError> {
    figure(plots, summary, "score_sd", "ranks-spread", "Ranks by spread over seeds", "1 = varies least")
}

/// By the score itself.
pub(super) fn by_score(plots: &Plots<'_>, summary: &Summary) -> Result<Option<Figure>, ExportError> {
    figure(plots, summary, "score_mean", "ranks-score", "Ranks by mean score", "1 = scores best")
}

/// Mean ranks with half a critical difference on either side: strategies whose lines do not overlap differ.
fn figure(
    plots: &Plots<'_>,
    summary: &Summary,
    by: &str,
    slug: &'static str,
    title: &str,
    best: &str,
) -> Result<Option<Figure>, ExportError> {
    let found = summary.ranks.iter().find(|ranks| ranks.by == by).filter(|ranks| ranks.mean_ranks.len() > 2);
    let Some((ranks, difference)) = found.and_then(|ranks| Some((ranks, ranks.critical_difference?))) else {
        return Ok(None);
    };
    let half = difference / 2.0;
    let place = |label: &str| plots.lines.iter().position(|line| line.label == label);
    let mut rows: Vec<(usize, &str, f64)> = ranks
        .mean_ranks
        .iter()
        .filter_map(|of| Some((place(&of.label)?, of.label.as_str(), of.rank)))
        .collect();
    rows.sort_by(|a, b| a.2.total_cmp(&b.2));
    let Some(scale) = Scale::tight(rows.iter().flat_map(|(_, _, rank)| [rank - half, rank + half])) else {
        return Ok(None);
    };
    let mut data = Data::new(["strategy", "mean_rank", "critical_difference"]);
    rows.iter().for_each(|(_, label, rank)| data.push([(*label).to_owned(), cell(*rank), cell(difference)]));
    let axis = format!("mean rank over {} datasets, {best}", count(ranks.datasets));
    let height = BELOW + ROW as u32 * rows.len() as u32;
    let drawing = Chart::draw(title, height, (scale, &axis), None, LABELLED, |chart| {
        for (row, (line, label, rank)) in rows.iter().enumerate() {
            let top = ROW * row as i32;
            chart.row_label(&format!("{}: {}", clip(label, 40), significant(*rank, 3)), top + 4)?;
            chart.interval(*line, [rank - half, *rank, rank + half], top + 76)?;
        }
        Ok(())
    })?;
    Ok(Some(Figure {
        slug,
        title: title.to_owned(),
        drawing,
        caption: caption(ranks, difference),
        legend: Vec::new(),
        data,
    }))
}

fn caption(ranks: &Ranks, difference: f64) -> String {
    format!(
        "Strategies are ranked on each dataset. Friedman's test that all ranks are the same: χ² = {}, p = {}. Lines are one \
         critical difference long ({}, Nemenyi, level 0.05): strategies whose lines do not overlap differ (Demšar 2006).",
        significant(ranks.statistic, 3),
        significant(ranks.p, 2),
        significant(difference, 3)
    )
}
