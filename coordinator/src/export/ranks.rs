//! Strategies ranked on each dataset, and whether their ranks differ.

use evenkeel_common::stats::{friedman, nemenyi_critical_difference};
use serde::Serialize;

use super::tally::LineTally;
use super::thin::Thinned;

/// Datasets that ranks are taken over at most.
pub(super) const MOST: usize = 20_000;

/// One dataset's numbers: of every line the standard deviation of the score over seeds, and its mean.
pub(super) type Row = Vec<(f64, f64)>;

/// Strategies ranked by one quantity over datasets (Demšar 2006).
#[derive(Clone, Debug, Serialize)]
pub struct Ranks {
    /// What they are ranked by, rank 1 being the best: `score_sd` (least) or `score_mean` (greatest).
    pub by: &'static str,
    /// Datasets (and models) on which every strategy has a value.
    pub datasets: u64,
    /// Friedman's χ², corrected for ties.
    pub statistic: f64,
    /// p-value that all ranks are the same in the mean.
    pub p: f64,
    /// Mean ranks that differ by more than this differ at the level 0.05 (Nemenyi 1963).
    pub critical_difference: Option<f64>,
    /// Mean rank of each strategy, in the order of `strategies`.
    pub mean_ranks: Vec<MeanRank>,
}

/// A strategy's mean rank.
#[derive(Clone, Debug, Serialize)]
pub struct MeanRank {
    /// Its label.
    pub label: String,
    /// Mean over datasets.
    pub rank: f64,
}

/// Ranks by spread and by score; empty where fewer than two strategies or datasets can be ranked.
pub(super) fn ranks(rows: &Thinned<Row>, lines: &[LineTally]) -> Vec<Ranks> {
    let by = |by: &'static str, get: fn(&(f64, f64)) -> f64| {
        let blocks: Vec<Vec<f64>> = rows.in_order().map(|row| row.iter().map(get).collect()).collect();
        let test = friedman(&blocks)?;
        let named = lines.iter().zip(&test.ranks);
        Some(Ranks {
            by,
            datasets: test.blocks,
            statistic: test.statistic,
            p: test.p,
            critical_difference: nemenyi_critical_difference(lines.len(), test.blocks),
            mean_ranks: named
                .map(|(line, rank)| MeanRank { label: line.label.clone(), rank: *rank })
                .collect(),
        })
    };
    [by("score_sd", |(sd, _)| *sd), by("score_mean", |(_, mean)| -mean)].into_iter().flatten().collect()
}
