//! The table on the terminal.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

use super::figures::{clip, count, maybe, percent};
use crate::export::Summary;

/// One row a strategy (or a strategy point, while they are few). Fits the terminal, or `width` columns.
#[must_use]
pub fn render(summary: &Summary, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    // Columns that say nothing of this sweep are left out.
    let any = |has: fn(&crate::export::LineSummary) -> bool| summary.strategies.iter().any(has);
    let (loo, ratio) = (any(|line| line.loo_mean.is_some()), any(|line| line.variance_ratio.is_some()));
    let mut header = vec!["strategy", "trials", "diverged", "failed", "mean score", "SD over seeds", "failed runs"];
    if loo {
        header.extend(["mean LOO", "max LOO"]);
    }
    if ratio {
        header.push("variance ratio");
    }
    let columns = header.len();
    table.set_header(header.into_iter().map(Cell::new));
    for line in &summary.strategies {
        let recorded = line.completed + line.diverged + line.failed;
        let trials = match line.trials {
            all if all == recorded => count(all),
            all => format!("{} of {}", count(recorded), count(all)),
        };
        let mut row = vec![
            clip(&line.label, 40),
            trials,
            count(line.diverged),
            count(line.failed),
            maybe(line.score_mean, 4),
            maybe(line.score_sd_pooled, 2),
            line.failed_run_rate.map_or_else(|| "–".to_owned(), percent),
        ];
        if loo {
            row.extend([maybe(line.loo_mean, 3), maybe(line.loo_max, 3)]);
        }
        if ratio {
            row.push(if line.is_baseline { "baseline".to_owned() } else { maybe(line.variance_ratio, 3) });
        }
        table.add_row(row);
    }
    for position in 1..columns {
        if let Some(column) = table.column_mut(position) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}
