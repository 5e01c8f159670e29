//! Variance ratios with their intervals.

use super::super::chart::{Chart, Scale};
use super::super::figures::{clip, ratio};
use super::{BELOW, Data, Figure, LABELLED, ROW, cell};
use crate::export::{ExportError, LineSummary, Plots, Summary};

/// A row for each strategy beside the baseline, which is the line at 1.
pub(super) fn forest(plots: &Plots<'_>, summary: &Summary) -> Result<Option<Figure>, ExportError> {
    let position = |line: &LineSummary| plots.lines.iter().position(|shown| shown.label == line.label);
    let rows: Vec<(usize, &LineSummary, f64)> = summary
        .strategies
        .iter()
        .filter(|line| !line.is_baseline)
        .filter_map(|line| Some((position(line)?, line, line.variance_ratio.filter(|ratio| *ratio > 0.0)?)))
        .collect();
    let ends = rows.iter().flat_map(|(_, line, middle)| {
        [Some(*middle), line.variance_ratio_ci_low, line.variance_ratio_ci_high]
    });
    let Some(scale) = Scale::of(ends.flatten().chain([1.0]), true).filter(|_| !rows.is_empty()) else {
        return Ok(None);
    };
    let mut data =
        Data::new(["strategy", "variance_ratio", "ci_low", "ci_high", "varies_less", "varies_more", "p"]);
    for (_, line, middle) in &rows {
        data.push([
            line.label.clone(),
            cell(*middle),
            cell(line.variance_ratio_ci_low),
            cell(line.variance_ratio_ci_high),
            line.less_varied_pairs.to_string(),
            line.more_varied_pairs.to_string(),
            cell(line.signed_rank_p),
        ]);
    }
    let title = "Variance beside the baseline";
    let axis = format!("variance of the score over seeds, that of {} = 1", clip(&summary.baseline, 20));
    let height = BELOW + ROW as u32 * rows.len() as u32;
    let drawing = Chart::draw(title, height, (scale, &axis), None, LABELLED, |chart| {
        chart.upright(1.0)?;
        for (place, (line, of, middle)) in rows.iter().enumerate() {
            let top = ROW * place as i32;
            chart.row_label(&format!("{}: {}", clip(&of.label, 32), ratio(of)), top + 4)?;
            // Without an interval there is a mark alone.
            let known = of.variance_ratio_ci_low.is_some();
            let low = of.variance_ratio_ci_low.unwrap_or(*middle);
            let high = of.variance_ratio_ci_high.unwrap_or(if known { f64::INFINITY } else { *middle });
            chart.interval(*line, [low, *middle, high], top + 76)?;
        }
        Ok(())
    })?;
    let zero: Vec<&str> = summary
        .strategies
        .iter()
        .filter(|line| !line.is_baseline && line.variance_ratio == Some(0.0))
        .map(|line| line.label.as_str())
        .collect();
    let steady = match zero.is_empty() {
        true => String::new(),
        false => format!(" Not drawn, as their score did not vary at all: {}.", zero.join(", ")),
    };
    let caption = format!(
        "Marks are ratios of variances, both averaged over the same datasets; lines are 95 % intervals (BCa bootstrap over seeds, \
         the datasets being given). Left of the line at 1 a strategy is more stable than the baseline, and an interval that holds \
         1 does not tell them apart.{steady}"
    );
    Ok(Some(Figure {
        slug: "variance-ratios",
        title: title.to_owned(),
        drawing,
        caption,
        legend: Vec::new(),
        data,
    }))
}
