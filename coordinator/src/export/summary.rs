//! What is said at the end: `summary.json`, the table on the terminal, and the words of the report.

use std::collections::BTreeMap;

use evenkeel_common::grid::Grid;
use evenkeel_common::id::SweepId;
use evenkeel_common::stats::{
    LEAST_SEEDS, Pairs, Sample, holm, mean_variance_ratio, seeds_needed, signed_rank, spearman,
};
use serde::Serialize;

use super::RunInfo;
use super::outputs::PartingSummary;
use super::ranks::{self, Ranks};
use super::slopes::{self, HeadsSlope, Of, Slope};
use super::tally::{GroupPoint, LineTally, Tally};

/// A sweep in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The sweep.
    pub sweep_id: String,
    /// Its name.
    pub name: String,
    /// Its description, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether every trial of the grid has a result.
    pub complete: bool,
    /// Trials of the grid.
    pub trials: u64,
    /// Trials that have a result.
    pub recorded: u64,
    /// Trained to the end.
    pub completed: u64,
    /// Became NaN or infinite.
    pub diverged: u64,
    /// Could not be run.
    pub failed: u64,
    /// Distinct training sets of the grid.
    pub datasets: u64,
    /// Seeds of each group.
    pub seeds: u64,
    /// Groups (dataset × model × strategy point) with a result.
    pub groups: u64,
    /// Name of the strategy that others are compared with.
    pub baseline: String,
    /// One line a strategy, or a strategy point while they are few.
    pub strategies: Vec<LineSummary>,
    /// Exponents of the mean leave-one-out distance in the number of heads, of strategies that vary it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slopes_heads: Vec<HeadsSlope>,
    /// Strategies ranked over datasets, by spread and by score.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<Ranks>,
    /// Errors of failed trials, the most frequent first.
    pub failures: Vec<Failure>,
    /// Failed trials whose error is not listed.
    pub unlisted_failures: u64,
    /// What is left out, and why.
    pub notes: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Workers that gave results.
    pub workers: Vec<String>,
    /// Their devices.
    pub devices: Vec<String>,
    /// How long it took, in seconds.
    pub wall_seconds: Option<f64>,
    /// When it was submitted, milliseconds since the Unix epoch.
    pub started_ms: Option<i64>,
    /// The command that ran it.
    pub command: Option<String>,
}

/// A strategy, or one of its points, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct LineSummary {
    /// Name, and what sets the point apart.
    pub label: String,
    /// Name of the strategy.
    pub strategy: String,
    /// Whether it is the baseline.
    pub is_baseline: bool,
    /// Trials of the grid.
    pub trials: u64,
    /// Trained to the end.
    pub completed: u64,
    /// Became NaN or infinite.
    pub diverged: u64,
    /// Could not be run.
    pub failed: u64,
    /// Mean score over completed trials.
    pub score_mean: Option<f64>,
    /// Standard deviation of the score over seeds: median over groups.
    pub score_sd_median: Option<f64>,
    /// The same pooled over groups: √(Σ (nᵢ − 1) sᵢ² / Σ (nᵢ − 1)).
    pub score_sd_pooled: Option<f64>,
    /// Mean over completed trials of the mean leave-one-out distance.
    pub loo_mean: Option<f64>,
    /// Greatest leave-one-out distance of all.
    pub loo_max: Option<f64>,
    /// Share of runs no better than the majority class or diverged.
    pub failed_run_rate: Option<f64>,
    /// Variance of the score over seeds relative to the baseline's, both averaged over the pairs.
    pub variance_ratio: Option<f64>,
    /// Lower end of its 95 % interval (BCa bootstrap over seeds, the datasets being given).
    pub variance_ratio_ci_low: Option<f64>,
    /// Upper end; none also where it is infinite.
    pub variance_ratio_ci_high: Option<f64>,
    /// Pairs that the variance ratio is known of.
    pub variance_ratio_pairs: u64,
    /// Pairs in which the score varies less than the baseline's.
    pub less_varied_pairs: u64,
    /// Pairs in which it varies more.
    pub more_varied_pairs: u64,
    /// p-value of Wilcoxon's signed-rank test over the pairs that standard deviations are the same, corrected for the
    /// number of strategies (Holm 1979).
    pub signed_rank_p: Option<f64>,
    /// Seeds that would show a variance ratio like this one on a single dataset, at level 0.05 with power 0.8.
    pub seeds_needed: Option<u64>,
    /// Mean leave-one-out distance relative to the baseline's, median over the pairs.
    pub loo_ratio: Option<f64>,
    /// Exponent of the mean leave-one-out distance in n.
    pub slope_samples: Option<Slope>,
    /// Exponent of its bound in n, over the same groups.
    pub bound_slope_samples: Option<Slope>,
    /// Exponent of the mean leave-one-out distance in the margin γ.
    pub slope_margin: Option<Slope>,
    /// Exponent of its bound in γ, over the same groups.
    pub bound_slope_margin: Option<Slope>,
    /// Exponent of a trial's mean leave-one-out distance in log log t / log t over its steps t.
    pub slope_rate: Option<Slope>,
    /// What differs between two seeds in predictions and representations.
    #[serde(flatten)]
    pub parting: PartingSummary,
    /// Groups with a theoretical bound and a measured leave-one-out distance.
    pub bounded_groups: u64,
    /// Those of them whose distance is at most the bound.
    pub bound_held: u64,
    /// Those whose bound says something: two directions are at most 2 apart.
    pub bound_telling: u64,
    /// Those whose distance is at most the bound with the share of support vectors.
    pub support_bound_held: u64,
    /// Those for which that bound says something.
    pub support_bound_telling: u64,
    /// Median of bound over measured distance.
    pub bound_ratio: Option<f64>,
    /// The same of the bound with the share of support vectors.
    pub support_bound_ratio: Option<f64>,
    /// Completed runs at whose end the Hessian has a negative eigenvalue; none where that was not looked at.
    pub not_convex_runs: Option<u64>,
    /// Rank correlation of bound and distance over groups (Spearman 1904).
    pub bound_spearman: Option<f64>,
    /// The same of the bound with the share of support vectors.
    pub support_bound_spearman: Option<f64>,
    /// Why other groups have no bound, and how many for each reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub no_bound: BTreeMap<String, u64>,
}

/// An error and how often it came.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The error.
    pub error: String,
    /// Trials that failed with it.
    pub trials: u64,
    /// The first of them.
    pub first_trial: u64,
}

impl Summary {
    /// The summary as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Puts the numbers together.
pub(super) fn summarize(
    grid: &Grid,
    sweep: &SweepId,
    tally: &Tally,
    left_out: Option<&str>,
    run: &RunInfo,
) -> Summary {
    let spec = grid.spec();
    let sum = |get: fn(&LineTally) -> u64| tally.lines.iter().map(get).sum::<u64>();
    let (completed, diverged, failed) = (sum(|l| l.completed), sum(|l| l.diverged), sum(|l| l.failed));
    let recorded = completed + diverged + failed;
    let mut failures: Vec<Failure> = tally
        .errors
        .iter()
        .map(|(error, (trials, first))| Failure {
            error: error.clone(),
            trials: *trials,
            first_trial: *first,
        })
        .collect();
    failures.sort_by(|a, b| b.trials.cmp(&a.trials).then(a.first_trial.cmp(&b.first_trial)));
    Summary {
        sweep_id: sweep.to_string(),
        name: spec.name.clone(),
        description: spec.description.clone(),
        complete: recorded == grid.len(),
        trials: grid.len(),
        recorded,
        completed,
        diverged,
        failed,
        datasets: grid.datasets(),
        seeds: grid.seeds(),
        groups: tally.groups,
        baseline: spec.baseline_name().to_owned(),
        strategies: corrected(line_summaries(tally, spec)),
        slopes_heads: slopes::in_heads(&tally.lines, spec),
        ranks: ranks::ranks(&tally.ranked, &tally.lines),
        failures,
        unlisted_failures: tally.other_errors,
        notes: notes(tally, spec, left_out),
        version: run.version.clone(),
        workers: run.workers.clone(),
        devices: run.devices.clone(),
        wall_seconds: run.wall_seconds,
        started_ms: run.started_ms,
        command: run.command.clone(),
    }
}

fn notes(tally: &Tally, spec: &evenkeel_common::spec::Spec, left_out: Option<&str>) -> Vec<String> {
    let mut notes: Vec<String> = left_out.map(str::to_owned).into_iter().collect();
    let thinned = tally.lines.iter().map(|line| line.points.share()).filter(|(kept, seen)| kept < seen);
    if let Some((kept, seen)) = thinned.max_by_key(|(_, seen)| *seen) {
        notes.push(format!(
            "plots and slopes use a sample of the groups, chosen by a hash of their number (at worst {kept} of {seen} \
             groups of a strategy); tables and all other numbers use every trial"
        ));
    }
    let resampled = tally.lines.iter().map(|line| line.scores.share()).filter(|(kept, seen)| kept < seen);
    if let Some((kept, seen)) = resampled.max_by_key(|(_, seen)| *seen) {
        notes.push(format!(
            "intervals of variance ratios are made from a sample of the datasets, chosen by a hash of their number (at \
             worst {kept} of {seen}); they are wider than those of all datasets would be"
        ));
    }
    if tally.pairs > 0 && spec.seeds.len() < LEAST_SEEDS as u64 {
        notes.push(format!(
            "variance ratios have no intervals: they need at least {LEAST_SEEDS} seeds, and there are {}",
            spec.seeds.len()
        ));
    }
    let skipped: u64 =
        tally.lines.iter().map(|line| line.curves.share()).map(|(kept, seen)| seen - kept).sum();
    if skipped > 0 {
        notes.push(format!(
            "the plot of curves leaves {skipped} trials out, chosen by a hash of their number"
        ));
    }
    notes
}

/// Lines whose p-values are corrected for how many there are.
fn corrected(mut lines: Vec<LineSummary>) -> Vec<LineSummary> {
    let p_values: Vec<f64> = lines.iter().filter_map(|line| line.signed_rank_p).collect();
    let mut adjusted = holm(&p_values).into_iter();
    for p in lines.iter_mut().filter_map(|line| line.signed_rank_p.as_mut()) {
        *p = adjusted.next().unwrap_or(*p);
    }
    lines
}

/// One a line, made beside one another: their bootstraps take a while.
fn line_summaries(tally: &Tally, spec: &evenkeel_common::spec::Spec) -> Vec<LineSummary> {
    let make = |line| line_summary(line, tally, spec);
    std::thread::scope(|scope| {
        let threads: Vec<_> = tally.lines.iter().map(|line| scope.spawn(move || make(line))).collect();
        let made = threads.into_iter().zip(&tally.lines);
        made.map(|(thread, line)| thread.join().unwrap_or_else(|_| make(line))).collect()
    })
}

fn line_summary(line: &LineTally, tally: &Tally, spec: &evenkeel_common::spec::Spec) -> LineSummary {
    let (squares, degrees) = line.within;
    let variance_ratio = ratio_of_means(&line.score_variances.0, &line.score_variances.1);
    let scores: Vec<Pairs> = line.scores.in_order().cloned().collect();
    let interval = mean_variance_ratio(&scores).and_then(|estimate| estimate.ci95);
    let differences = line.sd_differences.sorted();
    let signed = |sign: f64| differences.iter().filter(|difference| *difference * sign > 0.0).count() as u64;
    LineSummary {
        label: line.label.clone(),
        strategy: spec.strategies.get(line.strategy).map(|s| s.name.clone()).unwrap_or_default(),
        is_baseline: line.strategy == tally.baseline,
        trials: line.expected,
        completed: line.completed,
        diverged: line.diverged,
        failed: line.failed,
        score_mean: line.score.get(),
        score_sd_median: line.sds.quantile(0.5),
        score_sd_pooled: (degrees > 0).then(|| (squares / degrees as f64).sqrt()),
        loo_mean: line.loo.get(),
        loo_max: line.loo_max,
        failed_run_rate: line.failed_runs.rate(),
        variance_ratio,
        variance_ratio_ci_low: interval.map(|(low, _)| low).filter(|low| low.is_finite()),
        variance_ratio_ci_high: interval.map(|(_, high)| high).filter(|high| high.is_finite()),
        variance_ratio_pairs: line.score_variances.0.count(),
        less_varied_pairs: signed(-1.0),
        more_varied_pairs: signed(1.0),
        signed_rank_p: signed_rank(&differences).map(|test| test.p),
        seeds_needed: variance_ratio.and_then(|ratio| seeds_needed(ratio, 0.05, 0.8)),
        loo_ratio: line.loo_ratios.quantile(0.5),
        slope_samples: slopes::in_samples(line, Of::Measured),
        bound_slope_samples: slopes::in_samples(line, Of::Bound),
        slope_margin: slopes::in_margin(line, Of::Measured),
        bound_slope_margin: slopes::in_margin(line, Of::Bound),
        slope_rate: slopes::in_rate(line),
        parting: line.parting.summary(),
        bounded_groups: line.bounded.groups,
        bound_held: line.bounded.held,
        bound_telling: line.bounded.telling,
        support_bound_held: line.support_bounded.held,
        support_bound_telling: line.support_bounded.telling,
        bound_ratio: bound_ratio(line, |point| point.bound),
        support_bound_ratio: bound_ratio(line, |point| point.support_bound),
        not_convex_runs: (line.curved > 0).then_some(line.not_convex),
        bound_spearman: bound_spearman(line, |point| point.bound),
        support_bound_spearman: bound_spearman(line, |point| point.support_bound),
        no_bound: line.unbounded.clone(),
    }
}

fn bound_ratio(line: &LineTally, bound: impl Fn(&GroupPoint) -> Option<f64>) -> Option<f64> {
    let ratios = line.points.iter().filter_map(|point| Some(bound(point)? / point.loo_mean?));
    ratios.collect::<Sample>().quantile(0.5)
}

fn bound_spearman(line: &LineTally, bound: impl Fn(&GroupPoint) -> Option<f64>) -> Option<f64> {
    let pairs: Vec<_> = line.points.iter().filter_map(|point| bound(point).zip(point.loo_mean)).collect();
    spearman(&pairs).map(|correlation| correlation.rho)
}

fn ratio_of_means(ours: &Sample, theirs: &Sample) -> Option<f64> {
    let (ours, theirs) = (ours.summary()?.mean, theirs.summary()?.mean);
    (theirs > 0.0).then(|| ours / theirs)
}
