//! Pictures of a sweep that runs: what the coordinator's page shows.

use evenkeel_common::stats::{Sample, quantile};

use super::super::chart::{Chart, Scale};
use super::super::figures::clip;
use super::scores::{density, dots};
use super::{BELOW, COLORS, ROW};
use crate::export::ExportError;

/// Height of a picture of curves.
const HEIGHT: u32 = 480;
/// Longest label of a row.
const LABEL: usize = 48;

/// A row of a picture: its label and its values.
pub(crate) type Row<'a> = (&'a str, Vec<f64>);

/// Rows that there is something to draw of, each with its place and its values in order.
fn rows<'a>(rows: &'a [Row<'a>], least: usize) -> Vec<(usize, &'a str, Vec<f64>)> {
    let sorted = |values: &Vec<f64>| values.iter().copied().collect::<Sample>().sorted();
    let all = rows.iter().enumerate().map(|(line, (label, values))| (line % COLORS, *label, sorted(values)));
    all.filter(|(.., values)| values.len() >= least).collect()
}

fn height(rows: usize) -> u32 {
    BELOW + ROW as u32 * u32::try_from(rows).unwrap_or(0)
}

/// How the scores of each line spread: violins. None while there is nothing to show.
pub(crate) fn scores(lines: &[Row<'_>]) -> Result<Option<String>, ExportError> {
    let rows = rows(lines, 2);
    let Some(scale) = Scale::tight(rows.iter().flat_map(|(.., values)| values.iter().copied())) else {
        return Ok(None);
    };
    let title = "Scores of each strategy";
    let drawn = Chart::inline(title, height(rows.len()), (scale, "score of a trial"), None, |chart| {
        for (place, (line, label, values)) in rows.iter().enumerate() {
            let top = ROW * place as i32;
            chart.row_label(&clip(label, LABEL), top + 4)?;
            chart.violin(*line, &density(values), top + 74, 32)?;
            dots(chart, *line, values, top + 74, 10.0)?;
        }
        Ok(())
    });
    drawn.map(Some)
}

/// How the leave-one-out distances of each line spread: boxes. None while there is nothing to show.
pub(crate) fn distances(lines: &[Row<'_>]) -> Result<Option<String>, ExportError> {
    let rows = rows(lines, 1);
    let values = || rows.iter().flat_map(|(.., values)| values.iter().copied());
    let (least, most) = values().fold((f64::INFINITY, 0.0_f64), |(l, m), v| (l.min(v), m.max(v)));
    // Over several powers of ten the small ones would be a heap at zero.
    let log = least > 0.0 && most / least > 100.0;
    let Some(scale) = Scale::of(values(), log) else { return Ok(None) };
    let (title, axis) =
        ("Leave-one-out distances of each strategy", "mean leave-one-out distance of a trial");
    let drawn = Chart::inline(title, height(rows.len()), (scale, axis), None, |chart| {
        for (place, (line, label, values)) in rows.iter().enumerate() {
            let top = ROW * place as i32;
            chart.row_label(&clip(label, LABEL), top + 4)?;
            dots(chart, *line, values, top + 72, 22.0)?;
            let at = |p| quantile(values, p).unwrap_or(0.0);
            chart.horizontal_box(*line, [at(0.05), at(0.25), at(0.5), at(0.75), at(0.95)], top + 72)?;
        }
        Ok(())
    });
    drawn.map(Some)
}

/// Curves along the steps of training, one a line. None where no line has a point.
pub(crate) fn curves(
    title: &str,
    axis: &str,
    lines: &[Vec<(f64, f64)>],
) -> Result<Option<String>, ExportError> {
    let points = || lines.iter().flatten().filter(|(_, y)| y.is_finite());
    let scales = Scale::tight(points().map(|(x, _)| *x)).zip(Scale::tight(points().map(|(_, y)| *y)));
    let Some((x, y)) = scales else { return Ok(None) };
    let drawn = Chart::inline(title, HEIGHT, (x, "steps"), Some((y, axis)), |chart| {
        lines.iter().enumerate().filter(|(_, points)| !points.is_empty()).try_for_each(|(line, points)| {
            let finite: Vec<(f64, f64)> = points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
            chart.curve(line % COLORS, &finite)
        })
    });
    drawn.map(Some)
}
