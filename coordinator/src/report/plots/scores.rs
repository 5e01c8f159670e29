//! How scores scatter over seeds.

use evenkeel_common::stats::{Sample, quantile};

use super::super::chart::{Chart, Scale};
use super::super::figures::{clip, count};
use super::{BELOW, DOTS, Data, Figure, LABELLED, ROW, cell, label};
use crate::export::{ExportError, PlotLine, Plots};

/// Points at which a density is drawn.
const GRID: usize = 64;

/// A violin for each line: the scores themselves where there is one dataset, else their distance from the mean of their group.
pub(super) fn violins(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let alone = plots.datasets == 1;
    let values = |line: &PlotLine<'_>| {
        let value = |run: &(f64, f64)| if alone { run.0 } else { run.1 };
        line.runs.iter().map(value).collect::<Sample>().sorted()
    };
    let rows: Vec<(usize, Vec<f64>)> =
        plots.lines.iter().map(values).enumerate().filter(|(_, values)| values.len() > 1).collect();
    let Some(scale) = Scale::tight(rows.iter().flat_map(|(_, values)| values.iter().copied())) else {
        return Ok(None);
    };
    let (title, axis, what) = if alone {
        ("Scores", "score of a run", "The score of every seed.")
    } else {
        (
            "Scatter of the score over seeds",
            "score of a run minus the mean of its group",
            "Every run beside the mean of its group, the runs that differ by their seed alone.",
        )
    };
    let mut data = Data::new(["strategy", "value"]);
    for (line, values) in &rows {
        values.iter().for_each(|value| data.push([label(plots, *line).to_owned(), cell(*value)]));
    }
    let height = BELOW + ROW as u32 * rows.len() as u32;
    let drawing = Chart::draw(title, height, (scale, axis), None, LABELLED, |chart| {
        for (place, (line, values)) in rows.iter().enumerate() {
            let top = ROW * place as i32;
            chart.row_label(&clip(label(plots, *line), 48), top + 4)?;
            chart.violin(*line, &density(values), top + 74, 32)?;
            dots(chart, *line, values, top + 74, 10.0)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{what} The shape is a kernel density (Gaussian, Silverman's bandwidth), each as high as the others; of each row at most \
         {DOTS} dots are drawn. Narrower is more stable."
    );
    Ok(Some(Figure { slug: "scores", title: title.to_owned(), drawing, caption, legend: Vec::new(), data }))
}

/// Gaussian kernel density of sorted values, scaled to a greatest width of 1, with the bandwidth 0.9·min(SD, IQR/1.34)·n^(−1/5)
/// (Silverman 1986, eq. 3.31).
pub(super) fn density(values: &[f64]) -> Vec<(f64, f64)> {
    let at = |p| quantile(values, p).unwrap_or(0.0);
    let sd = values.iter().copied().collect::<Sample>().variance().unwrap_or(0.0).sqrt();
    let iqr = (at(0.75) - at(0.25)) / 1.34;
    let scale = if iqr > 0.0 { sd.min(iqr) } else { sd };
    let bandwidth = 0.9 * scale * (values.len() as f64).powf(-0.2);
    let (low, high) = (at(0.0), at(1.0));
    if bandwidth <= 0.0 || !bandwidth.is_finite() {
        return vec![(low, 0.0), (low, 1.0), (low, 0.0)];
    }
    // Cut at the ends of the data: there is no run beyond.
    let step = (high - low) / (GRID - 1) as f64;
    let width = |x: f64| values.iter().map(|v| (-0.5 * ((x - v) / bandwidth).powi(2)).exp()).sum::<f64>();
    let points: Vec<(f64, f64)> = (0..GRID).map(|k| low + step * k as f64).map(|x| (x, width(x))).collect();
    let most = points.iter().map(|(_, width)| *width).fold(0.0, f64::max);
    points.into_iter().map(|(x, width)| (x, width / most)).collect()
}

/// Dots of a row, spread over its height so that equal values can be told apart: a golden-ratio sequence.
pub(super) fn dots(
    chart: &Chart<'_>,
    line: usize,
    values: &[f64],
    y: i32,
    half: f64,
) -> Result<(), ExportError> {
    let step = values.len().div_ceil(DOTS).max(1);
    for (k, value) in values.iter().step_by(step).enumerate() {
        let jitter = ((k as f64 * 0.618_034).fract() * 2.0 - 1.0) * half;
        chart.dot(line, *value, y + jitter as i32)?;
    }
    Ok(())
}

/// The standard deviation of each group.
pub(super) fn spread(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let (title, axis) = ("Spread of the score over seeds", "standard deviation of the score within a group");
    let values = |line: &PlotLine<'_>| {
        line.points.iter().filter_map(|point| point.score_sd).collect::<Sample>().sorted()
    };
    let rows: Vec<(usize, Vec<f64>)> =
        plots.lines.iter().map(values).enumerate().filter(|(_, values)| !values.is_empty()).collect();
    let Some(scale) = Scale::of(rows.iter().flat_map(|(_, values)| values.iter().copied()), false) else {
        return Ok(None);
    };
    let mut data = Data::new(["strategy", "score_sd"]);
    for (line, values) in &rows {
        values.iter().for_each(|value| data.push([label(plots, *line).to_owned(), cell(*value)]));
    }
    let height = BELOW + ROW as u32 * rows.len() as u32;
    let drawing = Chart::draw(title, height, (scale, axis), None, LABELLED, |chart| {
        for (place, (line, values)) in rows.iter().enumerate() {
            let top = ROW * place as i32;
            chart.row_label(&clip(label(plots, *line), 48), top + 4)?;
            dots(chart, *line, values, top + 72, 22.0)?;
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
    Ok(Some(Figure { slug: "spread", title: title.to_owned(), drawing, caption, legend: Vec::new(), data }))
}

#[cfg(test)]
mod tests {
    use super::density;

    #[test]
    fn a_density_has_its_peak_where_the_values_are() {
        let mut values: Vec<f64> = (0..100).map(|k| 0.5 + 0.001 * f64::from(k)).collect();
        values.extend([0.9, 0.95]);
        let points = density(&values);
        let peak = points.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("points");
        assert!((0.5..0.6).contains(&peak.0) && peak.1 == 1.0, "{peak:?}");
        assert_eq!((points[0].0, points[points.len() - 1].0), (0.5, 0.95));
        // Equal values are a line.
        assert!(density(&[0.3, 0.3, 0.3]).iter().all(|(x, _)| *x == 0.3));
    }
}
