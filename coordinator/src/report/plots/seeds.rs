//! A heat map of seeds and datasets.

use super::super::chart::{Chart, Scale};
use super::super::figures::{clip, count, significant};
use super::{BELOW, Data, Figure, LABELLED, cell, label};
use crate::export::{Block, ExportError, Plots};

/// Lines with a panel of their own.
const PANELS: usize = 4;
/// Seeds that are shown.
const SEEDS: u64 = 40;
/// Height of a dataset's row.
const CELL: i32 = 22;
/// Height of the panels' titles, and the room between panels.
const TITLES: i32 = 48;
const GAP: i32 = 16;

/// Scores beside the mean of their dataset: a row is a dataset, a column a seed, a panel a strategy.
pub(super) fn heat(plots: &Plots<'_>) -> Result<Option<Figure>, ExportError> {
    let panels = plots.lines.len().min(PANELS);
    let blocks: Vec<&Block> = plots.blocks.in_order().collect();
    let seeds = plots.seeds.min(SEEDS);
    let rows: Vec<Vec<(usize, u64, f64)>> =
        blocks.iter().map(|block| deviations(block, panels, seeds)).collect();
    let most = rows.iter().flatten().map(|(.., value)| value.abs()).fold(0.0, f64::max);
    let shape = most > 0.0 && seeds > 1 && panels > 0;
    let Some(scale) = Scale::of([0.0, 1.0].into_iter(), false).filter(|_| shape) else { return Ok(None) };
    let mut data = Data::new(["dataset", "dataset_config", "model", "strategy", "seed", "score_minus_mean"]);
    for (block, row) in blocks.iter().zip(&rows) {
        for (panel, seed, value) in row {
            let name = label(plots, *panel).to_owned();
            let seed = plots.seed(*seed).to_string();
            let (dataset, config, model) = (block.dataset.clone(), block.config.clone(), block.model.clone());
            data.push([dataset, config, model, name, seed, cell(*value)]);
        }
    }
    let title = "Seeds and datasets";
    let height = TITLES + CELL * rows.len() as i32 + BELOW as i32;
    let scale = scale.with_ticks(Vec::new());
    let axis = format!("columns: {} seeds; rows: {}", count(seeds), datasets(rows.len(), plots.datasets));
    let drawing = Chart::draw(title, height as u32, (scale, &axis), None, LABELLED, |chart| {
        let (left, right) = chart.ends();
        let width = (right - left - GAP * (panels as i32 - 1)) / panels as i32;
        let step = f64::from(width) / seeds as f64;
        for panel in 0..panels {
            let from = left + (width + GAP) * panel as i32;
            // About 17 units a letter.
            chart.label(&clip(label(plots, panel), (width / 18).max(3) as usize), (from, 4))?;
            chart.frame((from, TITLES), (from + width, TITLES + CELL * rows.len() as i32))?;
        }
        for (place, row) in rows.iter().enumerate() {
            let top = TITLES + CELL * place as i32;
            for (panel, seed, value) in row {
                let from = left + (width + GAP) * *panel as i32;
                let at = |k: u64| from + (step * k as f64).round() as i32;
                chart.cell(value / most, (at(*seed), top), (at(seed + 1), top + CELL))?;
            }
        }
        Ok(())
    })?;
    let others = match plots.lines.len().saturating_sub(panels) + plots.hidden {
        0 => String::new(),
        others => format!(" {} more are in the tables.", count(others as u64)),
    };
    let caption = format!(
        "A cell is a run: how much more (blue) or less (orange) than the mean of its dataset over the strategies shown it scored. \
         The strongest colour is {}; an empty cell has no score. A column of one colour is a lucky or unlucky seed, and paler is \
         more stable.{others}",
        significant(most, 2)
    );
    Ok(Some(Figure { slug: "seeds", title: title.to_owned(), drawing, caption, legend: Vec::new(), data }))
}

/// Line, seed, and the score less the mean of all scores shown of this dataset.
fn deviations(block: &Block, panels: usize, seeds: u64) -> Vec<(usize, u64, f64)> {
    let shown = || block.scores.iter().filter(|(line, seed, _)| *line < panels && *seed < seeds);
    let mean = shown().map(|(.., score)| score).sum::<f64>() / shown().count().max(1) as f64;
    shown().map(|(line, seed, score)| (*line, *seed, score - mean)).collect()
}

fn datasets(shown: usize, all: u64) -> String {
    if shown as u64 == all {
        format!("{} datasets", count(all))
    } else {
        format!("{shown} of {} datasets", count(all))
    }
}
