//! The table on the terminal.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width};

use super::figures::{clip, count, maybe, percent, ratio};
use crate::export::{LineSummary, Summary};

/// A rule below the header, and nothing else.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─'));
/// Longest label that is not broken into lines.
const LABEL: usize = 36;

/// One row a strategy (or a strategy point, while they are few). Fits the terminal, or `width` columns.
/// Columns that say nothing of this sweep are left out.
#[must_use]
pub fn render(summary: &Summary, width: Option<u16>) -> String {
    let lines = &summary.strategies;
    let column = |title: &str, shown: bool, cell: &dyn Fn(&LineSummary) -> String| {
        shown.then(|| (title.to_owned(), lines.iter().map(cell).collect::<Vec<String>>()))
    };
    let some = |get: fn(&LineSummary) -> Option<f64>| lines.iter().any(|line| get(line).is_some());
    let columns: Vec<(String, Vec<String>)> = [
        column("strategy", true, &|line| clip(&line.label, LABEL)),
        column("trials", true, &|line| match line.completed + line.diverged + line.failed {
            recorded if recorded == line.trials => count(recorded),
            recorded => format!("{} of {}", count(recorded), count(line.trials)),
        }),
        column("diverged", summary.diverged > 0, &|line| count(line.diverged)),
        column("failed", summary.failed > 0, &|line| count(line.failed)),
        column("mean score", true, &|line| maybe(line.score_mean, 4)),
        column("SD over seeds", true, &|line| maybe(line.score_sd_pooled, 2)),
        column("failed runs", true, &|line| line.failed_run_rate.map_or_else(|| "–".to_owned(), percent)),
        column("mean LOO", some(|line| line.loo_mean), &|line| maybe(line.loo_mean, 3)),
        column("max LOO", some(|line| line.loo_max), &|line| maybe(line.loo_max, 3)),
        column("variance ratio", some(|line| line.variance_ratio), &|line| {
            if line.is_baseline { "baseline".to_owned() } else { ratio(line) }
        }),
    ]
    .into_iter()
    .flatten()
    .collect();

    let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
    let row = |at: usize| columns.iter().filter_map(|(_, cells)| cells.get(at).cloned()).collect();
    plain(&titles, &(0..lines.len()).map(row).collect::<Vec<Vec<String>>>(), width)
}

/// A table whose first column is text and whose others are numbers. Fits the terminal, or `width` columns.
pub(crate) fn plain(titles: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(titles);
    rows.iter().for_each(|row| {
        table.add_row(row);
    });
    for (position, title) in titles.iter().enumerate() {
        let Some(column) = table.column_mut(position) else { continue };
        if position > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
        // Titles break between words, cells not at all; a cell has a space on either side.
        let cells = rows.iter().filter_map(|row| row.get(position)).map(String::as_str);
        let least = title.split(' ').chain(cells).map(|word| word.chars().count()).max().unwrap_or(0) + 2;
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
            u16::try_from(least).unwrap_or(20),
        )));
    }
    table.to_string()
}
