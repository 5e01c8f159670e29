//! Groups: the seeds of one configuration.

use std::sync::Arc;

use evenkeel_common::grid::{Coordinates, Grid};
use evenkeel_common::results::{Measures, Status, TrialOutcome};
use evenkeel_common::stats::{FailedRuns, Sample, Summary as Numbers};
use evenkeel_common::theory::{FullConstants, full_bound, rate_constant};

use super::outputs::{Outputs, Parting};
use super::pairs::{Block, Comparing};
use super::points::{DatasetPoint, Place, Points, StrategyPoint};
use super::tables::Tables;
use super::tally::Tally;
use super::theory::Theory;
use super::{ExportError, measured};

/// Most trials of one dataset and model that are held to be compared: 4 Mi trials of 40 bytes.
const MOST_HELD: u64 = 4 << 20;
/// Most pairs of strategy and baseline points on one dataset and model.
const MOST_PAIRS: u64 = 1 << 20;

/// Numbers of runs whose best score is told.
pub(super) const EXPECTED_MAX: [u32; 4] = [2, 5, 10, 20];

/// A seed's numbers, as far as pairs need them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    pub position: u64,
    pub score: Option<f64>,
    pub loo: Option<f64>,
}

/// What the hard-margin problem of a training set says beside its margin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dual {
    /// Its greatest dual variable.
    pub dual_max: f64,
    /// B, the greatest norm of a point.
    pub feature_norm: f64,
    /// Its support vectors.
    pub support: u32,
}

impl Dual {
    fn of(m: &Measures) -> Option<Self> {
        Some(Self { dual_max: m.dual_max?, feature_norm: m.feature_norm?, support: m.support_vectors? })
    }
}

/// Means over seeds of what the bound for full fine-tuning is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct FullTheory {
    /// L.
    pub lipschitz: Option<f64>,
    /// β.
    pub smoothness: Option<f64>,
    /// μ.
    pub curvature: Option<f64>,
    /// The mean of the seeds' bounds.
    pub bound: f64,
}

/// The trials that differ by their seed alone, with their statistics.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub index: u64,
    pub at: Coordinates,
    pub dataset: Arc<DatasetPoint>,
    pub model: Arc<str>,
    pub strategy: Arc<StrategyPoint>,
    /// Seeds that the spec has.
    pub expected: u64,
    pub completed: u64,
    pub diverged: u64,
    pub failed: u64,
    pub failed_runs: FailedRuns,
    pub margin: Option<Numbers>,
    pub score: Option<Numbers>,
    pub loo: Option<Numbers>,
    pub loo_max: Option<f64>,
    /// Means over seeds.
    pub flip_rate: Option<f64>,
    pub weight_distance: Option<f64>,
    /// How far the seeds part in their outputs, where these are kept.
    pub parting: Parting,
    /// The expected greatest score of as many runs as [`EXPECTED_MAX`] says; none of more than there are.
    pub expected_max: [Option<f64>; EXPECTED_MAX.len()],
    /// What the bound needs to know of the training set.
    pub dual: Option<Dual>,
    /// C of the first term of the bound.
    pub rate_constant: Option<f64>,
    /// Means over seeds of the constants of the bound for full fine-tuning, and of the bound itself.
    pub full: Option<FullTheory>,
    seeds: Vec<Seed>,
}

impl Group {
    /// Trials that there are of it.
    pub fn recorded(&self) -> u64 {
        self.completed + self.diverged + self.failed
    }

    /// Its completed trials, by the position of their seed.
    pub fn seeds(&self) -> &[Seed] {
        &self.seeds
    }

    /// Position of the seed and score of its completed trials.
    pub fn scores(&self) -> impl Iterator<Item = (u64, f64)> {
        self.seeds.iter().filter_map(|seed| Some((seed.position, seed.score?)))
    }
}

/// A group whose trials still arrive.
struct Open {
    group: Group,
    samples: [Sample; 5],
    /// L, β, μ, and the bound they give.
    constants: [Sample; 4],
    outputs: Outputs,
}

impl Open {
    fn new(index: u64, at: &Coordinates, place: &Place, expected: u64) -> Self {
        let group = Group {
            index,
            at: *at,
            dataset: place.dataset.clone(),
            model: place.model.name.clone(),
            strategy: place.strategy.clone(),
            expected,
            completed: 0,
            diverged: 0,
            failed: 0,
            failed_runs: FailedRuns::default(),
            margin: None,
            score: None,
            loo: None,
            loo_max: None,
            flip_rate: None,
            weight_distance: None,
            parting: Parting::default(),
            expected_max: [None; EXPECTED_MAX.len()],
            dual: None,
            rate_constant: None,
            full: None,
            seeds: Vec::new(),
        };
        Self {
            group,
            samples: Default::default(),
            constants: Default::default(),
            outputs: Outputs::default(),
        }
    }

    fn push(&mut self, at: &Coordinates, outcome: &TrialOutcome) {
        let (group, m) = (&mut self.group, &outcome.measures);
        match outcome.status {
            Status::Completed => {
                group.completed += 1;
                group.failed_runs.push(m.accuracy, m.majority);
            }
            Status::Diverged => {
                group.diverged += 1;
                group.failed_runs.push_diverged();
            }
            Status::Failed => group.failed += 1,
        }
        if !measured(outcome.status) {
            return;
        }
        let values = [m.score, m.loo_mean, m.margin, m.loo_flip_rate, m.weight_distance];
        for (sample, value) in self.samples.iter_mut().zip(values) {
            value.into_iter().for_each(|value| sample.push(value));
        }
        let constants = |m: &Measures| {
            Some(FullConstants {
                samples: group.dataset.shape.0,
                lipschitz: m.lipschitz?,
                smoothness: m.smoothness?,
                curvature: m.curvature?,
                distance: m.weight_distance?,
            })
        };
        if let Some(of) = constants(m)
            && let Some(bound) = full_bound(&of)
        {
            let values = [of.lipschitz, of.smoothness, of.curvature, bound];
            self.constants.iter_mut().zip(values).for_each(|(sample, value)| sample.push(value));
        }
        self.outputs.push(&outcome.outputs);
        group.loo_max = m.loo_max.into_iter().chain(group.loo_max).reduce(f64::max);
        group.dual = Dual::of(m).or(group.dual);
        let residuals = outcome.curve.iter().map(|point| (point.step, point.direction_residual));
        group.rate_constant =
            rate_constant(residuals).into_iter().chain(group.rate_constant).reduce(f64::max);
        group.seeds.push(Seed { position: at.seed, score: m.score, loo: m.loo_mean });
    }

    fn close(self) -> Group {
        let scores = &self.samples[0];
        let expected_max =
            EXPECTED_MAX.map(|k| scores.expected_max(k).filter(|_| u64::from(k) <= scores.count()));
        let parting = self.outputs.close(self.group.dataset.shape.2);
        let [score, loo, margin, flips, distance] = self.samples.map(|sample| sample.summary());
        let mean = |numbers: Option<Numbers>| numbers.map(|numbers| numbers.mean);
        let (flip_rate, weight_distance) = (mean(flips), mean(distance));
        let [lipschitz, smoothness, curvature, bound] = self.constants.map(|sample| mean(sample.summary()));
        let full = bound.map(|bound| FullTheory { lipschitz, smoothness, curvature, bound });
        Group { full, score, loo, margin, flip_rate, weight_distance, parting, expected_max, ..self.group }
    }
}

/// The group whose trials arrive, and the groups of its dataset and model that are still to be compared.
pub(super) struct Groups {
    open: Option<Open>,
    /// Dataset entry, dataset point and model of the groups held.
    block: Option<(usize, u64, usize)>,
    held: Vec<Group>,
    comparing: Comparing,
    seeds: u64,
    /// Why nothing is compared, if so.
    left_out: Option<String>,
}

impl Groups {
    pub fn new(grid: &Grid, points: &Points) -> Self {
        let spec = grid.spec();
        let baseline = spec.strategies.iter().position(|s| s.name == spec.baseline_name()).unwrap_or(0);
        let count = |ours: bool| {
            let lines = points.lines().all.iter().filter(|(entry, ..)| (*entry == baseline) == ours);
            lines.fold(0u64, |sum, (_, _, points)| sum.saturating_add(*points))
        };
        let (base, others) = (count(true), count(false));
        let pairs = base.saturating_mul(others);
        let held = base.saturating_add(others).saturating_mul(grid.seeds());
        let left_out = (pairs > 0 && (pairs > MOST_PAIRS || held > MOST_HELD)).then(|| {
            format!(
                "strategies were not compared: {others} points against {base} of the baseline, with {} seeds each, \
                 are more than the {MOST_PAIRS} pairs and {MOST_HELD} trials a dataset that are compared",
                grid.seeds()
            )
        });
        Self {
            open: None,
            block: None,
            held: Vec::new(),
            comparing: Comparing::start(baseline),
            seeds: grid.seeds(),
            left_out,
        }
    }

    pub fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }

    /// Adds a trial; the group before is returned when this one begins another.
    pub fn push(&mut self, at: &Coordinates, place: &Place, outcome: &TrialOutcome) -> Option<Group> {
        let index = outcome.trial_index / self.seeds.max(1);
        let ended = match &self.open {
            Some(open) if open.group.index == index => None,
            _ => self.open.replace(Open::new(index, at, place, self.seeds)),
        };
        if let Some(open) = &mut self.open {
            open.push(at, outcome);
        }
        ended.map(Open::close)
    }

    /// The last group.
    pub fn take(&mut self) -> Option<Group> {
        self.open.take().map(Open::close)
    }

    /// Holds a group until those of its dataset and model are there.
    pub fn keep(&mut self, group: &Group, tables: &mut Tables, tally: &mut Tally) -> Result<(), ExportError> {
        if self.left_out.is_some() {
            let theory = Theory::of(group, &[]);
            tally.theory(group, &theory);
            return tables.theory(group, &theory);
        }
        let block = (group.at.dataset, group.at.dataset_point, group.at.model);
        if self.block != Some(block) {
            self.end_block(tables, tally)?;
            self.block = Some(block);
        }
        self.held.push(group.clone());
        Ok(())
    }

    /// Compares the groups held, and lets them go.
    pub fn end_block(&mut self, tables: &mut Tables, tally: &mut Tally) -> Result<(), ExportError> {
        let held = std::mem::take(&mut self.held);
        tally.block(&held);
        for group in &held {
            let theory = Theory::of(group, &held);
            tally.theory(group, &theory);
            tables.theory(group, &theory)?;
        }
        self.comparing.submit(held)?;
        while let Some(block) = self.comparing.try_next() {
            note(&block, tables, tally)?;
        }
        Ok(())
    }

    /// Ends the last block, and waits for all comparisons.
    pub fn finish(&mut self, tables: &mut Tables, tally: &mut Tally) -> Result<(), ExportError> {
        self.end_block(tables, tally)?;
        while let Some(block) = self.comparing.next()? {
            note(&block, tables, tally)?;
        }
        Ok(())
    }
}

fn note(block: &Block, tables: &mut Tables, tally: &mut Tally) -> Result<(), ExportError> {
    block.pairs().try_for_each(|pair| {
        tally.pair(&pair);
        tables.comparison(&pair)
    })
}
