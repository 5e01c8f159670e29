//! What the summary and the report need, in bounded memory: totals of each line, and a thinned sample of groups
//! and curves for the plots.

use std::collections::BTreeMap;

use evenkeel_common::grid::{Coordinates, Grid};
use evenkeel_common::results::{CurvePoint, Status, TrialOutcome};
use evenkeel_common::stats::{FailedRuns, Pairs, Sample};

use super::groups::Group;
use super::measured;
use super::outputs::PartingMeans;
use super::pairs::Pair;
use super::points::{Lines, Points, number};
use super::ranks::{self, Row};
use super::theory::Theory;
use super::thin::Thinned;

/// Groups of a line that plots and slopes see at most.
const GROUPS: usize = 20_000;
/// Curves of a line that plots see at most.
const CURVES: usize = 500;
/// Lines that plots have at most: as many colours as can be told apart.
const PLOTTED: usize = 8;
/// Datasets of a line whose scores intervals are made from at most.
const RESAMPLED: usize = 2_000;
/// Runs of a line whose scores plots see at most.
const RUNS: usize = 4_000;
/// Datasets whose scores are shown seed by seed at most.
const BLOCKS: usize = 40;
/// Seeds that plots may name.
const SEEDS: u64 = 1_000;
/// Distinct errors that are kept.
const ERRORS: usize = 200;

/// A group as plots see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupPoint {
    /// Which entry of `datasets`: groups of one entry differ by its axes alone.
    pub family: usize,
    /// Training set size n.
    pub samples: u32,
    /// Hard margin γ, mean over seeds.
    pub margin: Option<f64>,
    /// Standard deviation of the score over seeds.
    pub score_sd: Option<f64>,
    /// Mean leave-one-out distance over seeds.
    pub loo_mean: Option<f64>,
    /// Its theoretical bound.
    pub bound: Option<f64>,
    /// The bound with the share of support vectors.
    pub support_bound: Option<f64>,
    /// Heads H.
    pub heads: u32,
    /// Groups whose distances may be compared along one axis, everything else being the same.
    pub alike: Alike,
}

/// Numbers of the families that a group belongs to: in each, one quantity varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alike {
    /// But for the size and the instance of the dataset.
    pub but_samples: u64,
    /// But for everything about the dataset except its entry and its shape: its margin varies.
    pub but_margin: u64,
    /// But for the number of heads.
    pub but_heads: u64,
}

impl Alike {
    fn of(group: &Group) -> Self {
        let (dataset, strategy) = (&group.dataset, &group.strategy);
        let shape = format!("{} {:?}", group.at.dataset, dataset.shape);
        let family = |of: u64| of.to_string();
        Self {
            but_samples: number(&[&family(dataset.family), &group.model, &strategy.json]),
            but_margin: number(&[&shape, &group.model, &strategy.json]),
            but_heads: number(&[&dataset.json, &group.model, &family(strategy.family)]),
        }
    }
}

/// A point of a trial's curve as plots see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveAt {
    /// Steps done.
    pub step: u32,
    /// Mean leave-one-out distance.
    pub loo_mean: f64,
    /// Training loss.
    pub train_loss: f64,
    /// Score on the test set.
    pub score: f64,
}

/// A trial's curve as plots see it.
pub type Curve = Vec<CurveAt>;

/// The scores of one dataset and model.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The dataset's name.
    pub dataset: String,
    /// Its canonical form.
    pub config: String,
    /// The model.
    pub model: String,
    /// Line, position of the seed, score.
    pub scores: Vec<(usize, u64, f64)>,
}

/// Totals of one line.
pub(super) struct LineTally {
    pub strategy: usize,
    pub label: String,
    /// Trials that the grid has of it.
    pub expected: u64,
    pub completed: u64,
    pub diverged: u64,
    pub failed: u64,
    pub score: Mean,
    pub loo: Mean,
    pub loo_max: Option<f64>,
    pub failed_runs: FailedRuns,
    /// Standard deviations of the score within groups: eight bytes a group.
    pub sds: Sample,
    /// Sum of squares within groups and its degrees of freedom.
    pub within: (f64, u64),
    /// Variances of the score in the pairs with the baseline: its own and the baseline's. Not their ratios: those of
    /// datasets on which the baseline does not vary at all do not exist, and leaving them out would favour whoever is
    /// compared.
    pub score_variances: (Sample, Sample),
    /// Standard deviation of the score minus that of the baseline, in each pair.
    pub sd_differences: Sample,
    /// Scores of the pairs, for the interval.
    pub scores: Thinned<Pairs>,
    pub loo_ratios: Sample,
    pub points: Thinned<GroupPoint>,
    pub curves: Thinned<Curve>,
    /// Score of a run, and the same less the mean of its group.
    pub runs: Thinned<(f64, f64)>,
    /// Runs whose curvature is known, and those of them where it is negative in some direction.
    pub curved: u64,
    pub not_convex: u64,
    /// How far seeds part in their outputs, over groups.
    pub parting: PartingMeans,
    /// Bounds beside what was measured.
    pub bounded: Bounded,
    /// The same with the share of support vectors.
    pub support_bounded: Bounded,
    /// Why groups have no bound, and how many for each reason.
    pub unbounded: BTreeMap<String, u64>,
}

/// How many groups keep to their bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounded {
    /// Groups with a bound and a measured distance.
    pub groups: u64,
    /// Those of them whose distance is at most the bound.
    pub held: u64,
    /// Those whose bound is below the greatest distance there can be: two directions are at most 2 apart.
    pub telling: u64,
}

impl Bounded {
    fn push(&mut self, bound: f64, measured: f64, most: f64) {
        self.groups += 1;
        self.held += u64::from(measured <= bound);
        self.telling += u64::from(bound < most);
    }
}

/// A running mean (Welford 1962); records arrive in one order, so its bits are always the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    count: u64,
    mean: f64,
}

impl Mean {
    pub fn push(&mut self, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.count += 1;
            self.mean += (value - self.mean) / self.count as f64;
        }
    }

    pub fn get(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }
}

/// Everything that is counted.
pub(super) struct Tally {
    pub lines: Vec<LineTally>,
    map: Lines,
    pub baseline: usize,
    /// Error text → how many trials, and the first.
    pub errors: BTreeMap<String, (u64, u64)>,
    /// Failed trials whose error is not among those kept.
    pub other_errors: u64,
    pub groups: u64,
    pub pairs: u64,
    /// Scores seed by seed.
    pub blocks: Thinned<Block>,
    /// What lines are ranked by, on datasets on which each has it.
    pub ranked: Thinned<Row>,
    /// The seeds.
    seeds: Vec<u64>,
    count: u64,
}

/// What the report's plots are made of: the baseline's lines, then others, as many as can be told apart.
pub struct Plots<'a> {
    /// The lines.
    pub lines: Vec<PlotLine<'a>>,
    /// Lines that are not shown.
    pub hidden: usize,
    /// Datasets and models: groups of one of these differ by their strategy.
    pub datasets: u64,
    /// Seeds of each group.
    pub seeds: u64,
    /// Scores seed by seed, of lines as numbered here.
    pub blocks: Thinned<Block>,
    names: &'a [u64],
}

impl Plots<'_> {
    /// The seed at a position.
    #[must_use]
    pub fn seed(&self, position: u64) -> u64 {
        usize::try_from(position).ok().and_then(|at| self.names.get(at)).copied().unwrap_or(position)
    }
}

/// One line of the plots.
pub struct PlotLine<'a> {
    /// Its name.
    pub label: &'a str,
    /// Its groups.
    pub points: &'a Thinned<GroupPoint>,
    /// Its curves.
    pub curves: &'a Thinned<Curve>,
    /// Scores of its runs, and the same less the mean of their group.
    pub runs: &'a Thinned<(f64, f64)>,
}

impl Tally {
    pub fn new(grid: &Grid, points: &Points) -> Self {
        let spec = grid.spec();
        let baseline = spec.strategies.iter().position(|s| s.name == spec.baseline_name()).unwrap_or(0);
        let each = grid.datasets().saturating_mul(spec.models.len() as u64).saturating_mul(grid.seeds());
        let line = |(strategy, label, points): &(usize, String, u64)| LineTally {
            strategy: *strategy,
            label: label.clone(),
            expected: each.saturating_mul(*points),
            completed: 0,
            diverged: 0,
            failed: 0,
            score: Mean::default(),
            loo: Mean::default(),
            loo_max: None,
            failed_runs: FailedRuns::default(),
            sds: Sample::default(),
            within: (0.0, 0),
            score_variances: Default::default(),
            sd_differences: Sample::default(),
            scores: Thinned::new(RESAMPLED),
            loo_ratios: Sample::default(),
            points: Thinned::new(GROUPS),
            curves: Thinned::new(CURVES),
            runs: Thinned::new(RUNS),
            curved: 0,
            not_convex: 0,
            parting: PartingMeans::default(),
            bounded: Bounded::default(),
            support_bounded: Bounded::default(),
            unbounded: BTreeMap::new(),
        };
        Self {
            lines: points.lines().all.iter().map(line).collect(),
            map: points.lines().clone(),
            baseline,
            errors: BTreeMap::new(),
            other_errors: 0,
            groups: 0,
            pairs: 0,
            blocks: Thinned::new(BLOCKS),
            ranked: Thinned::new(ranks::MOST),
            seeds: (0..grid.seeds().min(SEEDS)).filter_map(|at| spec.seeds.get(at)).collect(),
            count: grid.seeds(),
        }
    }

    fn line(&mut self, strategy: usize, point: u64) -> Option<&mut LineTally> {
        let line = self.map.of(strategy, point);
        self.lines.get_mut(line)
    }

    /// Counts a trial.
    pub fn push(&mut self, at: &Coordinates, outcome: &TrialOutcome) {
        if outcome.status == Status::Failed {
            let error = outcome.error.clone().unwrap_or_else(|| "no reason was recorded".to_owned());
            let room = self.errors.len() < ERRORS;
            match self.errors.get_mut(&error) {
                Some((count, _)) => *count += 1,
                None if room => {
                    self.errors.insert(error, (1, outcome.trial_index));
                }
                None => self.other_errors += 1,
            }
        }
        let Some(line) = self.line(at.strategy, at.strategy_point) else { return };
        let m = &outcome.measures;
        match outcome.status {
            Status::Completed => {
                line.completed += 1;
                line.failed_runs.push(m.accuracy, m.majority);
            }
            Status::Diverged => {
                line.diverged += 1;
                line.failed_runs.push_diverged();
            }
            Status::Failed => line.failed += 1,
        }
        if measured(outcome.status) {
            line.score.push(m.score);
            line.loo.push(m.loo_mean);
            line.curved += u64::from(m.least_curvature.is_some());
            line.not_convex += u64::from(m.least_curvature.is_some_and(|least| least < 0.0));
            line.loo_max = m.loo_max.into_iter().chain(line.loo_max).reduce(f64::max);
            if outcome.curve.len() > 1 {
                let at = |p: &CurvePoint| CurveAt {
                    step: p.step,
                    loo_mean: p.loo_mean,
                    train_loss: p.train_loss,
                    score: p.score,
                };
                line.curves.offer(outcome.trial_index, || outcome.curve.iter().map(at).collect());
            }
        }
    }

    /// Counts a group that is whole.
    pub fn end_group(&mut self, group: &Group) {
        self.groups += 1;
        let Some(line) = self.line(group.at.strategy, group.at.strategy_point) else { return };
        line.parting.push(&group.parting);
        let score_sd = group.score.as_ref().and_then(|numbers| numbers.sd);
        if let (Some(sd), Some(numbers)) = (score_sd, &group.score) {
            let degrees = numbers.count.saturating_sub(1);
            line.sds.push(sd);
            line.within = (line.within.0 + sd * sd * degrees as f64, line.within.1 + degrees);
            for (seed, score) in group.scores() {
                let number = group.index.wrapping_mul(group.expected).wrapping_add(seed);
                line.runs.offer(number, || (score, score - numbers.mean));
            }
        }
    }

    /// Counts a group's bound, and keeps the group for plots and slopes.
    pub fn theory(&mut self, group: &Group, theory: &Theory) {
        let Some(line) = self.line(group.at.strategy, group.at.strategy_point) else { return };
        if let Some(reason) = theory.reason() {
            *line.unbounded.entry(reason.to_owned()).or_default() += 1;
        }
        let measured = group.loo.as_ref().map(|numbers| numbers.mean);
        for (bound, counted) in
            [(theory.bound(), &mut line.bounded), (theory.support_bound(), &mut line.support_bounded)]
        {
            if let Some((bound, measured)) = bound.zip(measured) {
                // Distances of encoders are not of directions, and have no greatest one.
                let most = if theory.head().is_some() { 2.0 } else { f64::INFINITY };
                counted.push(bound, measured, most);
            }
        }
        line.points.offer(group.index, || GroupPoint {
            family: group.at.dataset,
            samples: group.dataset.shape.0,
            margin: group.margin.as_ref().map(|numbers| numbers.mean),
            score_sd: group.score.as_ref().and_then(|numbers| numbers.sd),
            loo_mean: measured,
            bound: theory.bound(),
            support_bound: theory.support_bound(),
            heads: group.strategy.config.heads,
            alike: Alike::of(group),
        });
    }

    /// Keeps the scores of the groups of one dataset and model.
    pub fn block(&mut self, held: &[Group]) {
        let Some(first) = held.first() else { return };
        let number = self.blocks.seen;
        // Of strategies that share a line, the first point.
        let mut known = BTreeMap::new();
        for group in held {
            let line = self.map.of(group.at.strategy, group.at.strategy_point);
            known.entry(line).or_insert(group);
        }
        let spread = |group: &&Group| group.score.and_then(|numbers| Some((numbers.sd?, numbers.mean)));
        let row: Option<Row> = known.values().map(spread).collect();
        if let Some(row) = row.filter(|row| row.len() == self.lines.len()) {
            self.ranked.offer(number, || row);
        }
        let scores = || {
            let of_line = |(line, group): (usize, &Group)| {
                group.scores().map(move |(seed, score)| (line, seed, score)).collect::<Vec<_>>()
            };
            known.into_iter().flat_map(of_line).collect()
        };
        self.blocks.offer(number, || Block {
            dataset: first.dataset.name.clone(),
            config: first.dataset.json.clone(),
            model: first.model.to_string(),
            scores: scores(),
        });
    }

    /// Counts a pair.
    pub fn pair(&mut self, pair: &Pair<'_>) {
        self.pairs += 1;
        let number = self.pairs;
        let (strategy, point) = (pair.group.at.strategy, pair.group.at.strategy_point);
        let Some(line) = self.line(strategy, point) else { return };
        if let Some((ours, theirs)) = pair.score.variances {
            line.score_variances.0.push(ours);
            line.score_variances.1.push(theirs);
            line.sd_differences.push(ours.sqrt() - theirs.sqrt());
            line.scores.offer(number, || pair.score.pairs.clone());
        }
        pair.loo.mean_ratio.into_iter().for_each(|ratio| line.loo_ratios.push(ratio));
    }

    /// What the plots show.
    pub fn plots(&self) -> Plots<'_> {
        let numbered = || self.lines.iter().enumerate();
        let ours = |line: &LineTally| line.strategy == self.baseline;
        let order: Vec<(usize, &LineTally)> = numbered()
            .filter(|(_, line)| ours(line))
            .chain(numbered().filter(|(_, line)| !ours(line)))
            .take(PLOTTED)
            .collect();
        let lines: Vec<PlotLine<'_>> = order
            .iter()
            .map(|(_, line)| PlotLine {
                label: &line.label,
                points: &line.points,
                curves: &line.curves,
                runs: &line.runs,
            })
            .collect();
        // Blocks number lines as the tally does.
        let place = |line: usize| order.iter().position(|(number, _)| *number == line);
        let mut blocks = self.blocks.clone();
        for (_, block) in &mut blocks.items {
            let scores = std::mem::take(&mut block.scores).into_iter();
            block.scores =
                scores.filter_map(|(line, seed, score)| Some((place(line)?, seed, score))).collect();
        }
        Plots {
            hidden: self.lines.len() - lines.len(),
            lines,
            datasets: blocks.seen,
            seeds: self.count,
            blocks,
            names: &self.seeds,
        }
    }
}
