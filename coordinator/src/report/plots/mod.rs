//! The pictures of the report, each with what it shows in words and as data.
//!
//! | module | draws |
//! |---|---|
//! | `scores` | how scores scatter over seeds: violins, and the spread of each group |
//! | `ratios` | variance ratios with their intervals |
//! | `ranks` | strategies ranked over datasets |
//! | `seeds` | a heat map of seeds and datasets |
//! | `theory` | distances beside their bounds |
//! | `live` | what the coordinator's page shows while a sweep runs |
//! | `axes` | the leave-one-out distance along n, γ and the steps |

mod axes;
pub(crate) mod live;
mod ranks;
mod ratios;
mod scores;
mod seeds;
mod theory;

use super::chart::Drawing;
use crate::export::{ExportError, Plots, Summary};

/// Lines that a picture has at most: the colours of the page.
pub(crate) const COLORS: usize = 8;
/// Dots of a row, so that the page stays small.
const DOTS: usize = 160;
/// Height of a picture with two axes.
const HEIGHT: u32 = 640;
/// Height of a row of a picture with one axis, and of what is below the rows.
const ROW: i32 = 112;
const BELOW: u32 = 108;

/// A picture and what it shows.
pub(crate) struct Figure {
    /// Name of its files.
    pub slug: &'static str,
    pub title: String,
    pub drawing: Drawing,
    pub caption: String,
    /// Lines that it shows and the page names.
    pub legend: Vec<usize>,
    pub data: Data,
}

/// What a picture is drawn from.
pub(crate) struct Data {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Data {
    fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.to_vec());
    }

    /// As CSV with a header.
    ///
    /// # Errors
    /// When a row has another number of cells than the header.
    pub fn csv(&self) -> Result<String, ExportError> {
        let failed = |error: &dyn std::fmt::Display| ExportError::Plot(error.to_string());
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.header).map_err(|error| failed(&error))?;
        self.rows.iter().try_for_each(|row| writer.write_record(row)).map_err(|error| failed(&error))?;
        let bytes = writer.into_inner().map_err(|error| failed(&error))?;
        String::from_utf8(bytes).map_err(|error| failed(&error))
    }
}

/// A number as data: all its digits; empty where there is none.
fn cell(value: impl Into<Option<f64>>) -> String {
    value.into().filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string())
}

/// Name of a line.
fn label<'a>(plots: &Plots<'a>, line: usize) -> &'a str {
    plots.lines.get(line).map_or("", |line| line.label)
}

/// What a file's legend names.
fn legend<'a>(plots: &Plots<'a>, lines: &[usize]) -> Vec<(usize, &'a str)> {
    lines.iter().filter_map(|line| Some((*line, plots.lines.get(*line)?.label))).collect::<Vec<_>>()
}

/// No legend: rows are labelled in the picture.
const LABELLED: &[(usize, &str)] = &[];

/// The pictures that the sweep's axes and measures allow.
pub(crate) fn figures(plots: &Plots<'_>, summary: &Summary) -> Result<Vec<Figure>, ExportError> {
    let all = [
        scores::violins(plots)?,
        ratios::forest(plots, summary)?,
        scores::spread(plots)?,
        ranks::by_spread(plots, summary)?,
        ranks::by_score(plots, summary)?,
        seeds::heat(plots)?,
        theory::bound(plots)?,
        theory::support_bound(plots)?,
        axes::by_samples(plots)?,
        axes::by_margin(plots)?,
        axes::by_steps(plots)?,
        axes::scores_by_steps(plots)?,
    ];
    Ok(all.into_iter().flatten().collect())
}
