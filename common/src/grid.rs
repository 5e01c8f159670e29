//! The grid as a lazy mixed-radix index space: trial number ⇄ coordinates in constant time and memory.
//!
//! Datasets vary slowest and seeds fastest, so that trials that share a dataset are neighbours (a pack is a
//! range of numbers) and the seeds of one group are contiguous (`group = number / seeds`).

use std::sync::Arc;

use crate::inputs::{InputInfo, Place, places};
use crate::spec::Spec;
use crate::trial::{SweepSettings, Trial, trial_flops};

mod resolve;
mod strategy;

pub use resolve::{TextSplit, dataset_name, model_name, test_rows, text_split};
use resolve::{check_samples, dataset_points, resolve_dataset, resolve_model, shape_classes};
use strategy::{cost_classes, resolve_strategy, strategy_points};

/// A grid that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GridError {
    /// Too many trials to number.
    #[error("the grid has more than 2^63 trials; shorten an axis, `instances` or `seeds`")]
    TooLarge,
    /// Files were not all read, or are others than the spec's.
    #[error("the spec names {expected} inputs in files, but {found} that fit were read")]
    MissingInfo {
        /// How many the spec has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A training set size that the file cannot give.
    #[error(
        "datasets[{dataset}].{kind}.samples: found {asked}, but {path} leaves only {available} training rows after the split"
    )]
    TooFewRows {
        /// `features` or `text`.
        kind: &'static str,
        /// Position of the dataset.
        dataset: usize,
        /// Its file.
        path: String,
        /// Rows asked for.
        asked: u32,
        /// Rows there are.
        available: u32,
    },
}

/// The coordinates of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// Which entry of `datasets`.
    pub dataset: usize,
    /// Which point of that entry's axes.
    pub dataset_point: u64,
    /// Which entry of `models`.
    pub model: usize,
    /// Which entry of `strategies`.
    pub strategy: usize,
    /// Which point of that entry's axes.
    pub strategy_point: u64,
    /// Which seed, by position.
    pub seed: u64,
}

/// A lazy grid of trials.
#[derive(Clone, Debug)]
pub struct Grid {
    spec: Arc<Spec>,
    /// One an entry of `datasets`, and one an entry of `models`; none where there is no file.
    infos: Arc<Infos>,
    /// Exclusive end of each dataset entry in trial numbers.
    dataset_ends: Vec<u64>,
    /// Exclusive end of each strategy entry in points.
    strategy_ends: Vec<u64>,
    seeds: u64,
    /// Trials of one dataset point: models × strategy points × seeds.
    per_point: u64,
}

#[derive(Debug)]
struct Infos {
    datasets: Vec<Option<InputInfo>>,
    models: Vec<Option<InputInfo>>,
}

impl Grid {
    /// Builds the grid of a spec; `infos` has one entry per [`places`] of the spec, in that order.
    ///
    /// # Errors
    /// When there are more than 2^63 trials, or files do not fit the spec.
    pub fn new(spec: Arc<Spec>, infos: &[InputInfo]) -> Result<Self, GridError> {
        let limit = |value: Option<u64>| value.filter(|v| *v <= 1 << 63).ok_or(GridError::TooLarge);
        let infos = place_infos(&spec, infos)?;
        let seeds = spec.seeds.len();
        let mut strategy_ends = Vec::with_capacity(spec.strategies.len());
        let mut points = 0u64;
        for strategy in &spec.strategies {
            points = limit(strategy_points(strategy).and_then(|n| points.checked_add(n)))?;
            strategy_ends.push(points);
        }
        let per_point =
            limit(points.checked_mul(spec.models.len() as u64).and_then(|n| n.checked_mul(seeds)))?;
        let mut dataset_ends = Vec::with_capacity(spec.datasets.len());
        let mut total = 0u64;
        for dataset in &spec.datasets {
            let trials = dataset_points(dataset).and_then(|n| n.checked_mul(per_point));
            total = limit(trials.and_then(|n| total.checked_add(n)))?;
            dataset_ends.push(total);
        }
        Ok(Self { spec, infos: Arc::new(infos), dataset_ends, strategy_ends, seeds, per_point })
    }

    /// Number of trials.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.dataset_ends.last().copied().unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The spec it was built from.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Number of seeds: the trials of one group.
    #[must_use]
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    /// Number of dataset points: distinct training sets.
    #[must_use]
    pub fn datasets(&self) -> u64 {
        self.len() / self.per_point.max(1)
    }

    /// What every trial shares.
    #[must_use]
    pub fn settings(&self) -> SweepSettings {
        SweepSettings {
            sweep_seed: self.spec.sweep_seed,
            leave_one_out: self.spec.stability.leave_one_out,
            exact_margin: self.spec.stability.exact_margin,
            curvature: self.spec.stability.curvature,
            predictions: self.spec.predictions,
            representations: self.spec.stability.representations.unwrap_or(0),
        }
    }

    /// The coordinates of a trial number; `None` past the end.
    #[must_use]
    pub fn coordinates(&self, index: u64) -> Option<Coordinates> {
        let dataset = self.dataset_ends.partition_point(|end| *end <= index);
        let start = if index < self.len() { start_of(&self.dataset_ends, dataset) } else { return None };
        let offset = index - start;
        let (dataset_point, rest) = (offset / self.per_point, offset % self.per_point);
        let (seed, rest) = (rest % self.seeds, rest / self.seeds);
        let points = self.strategy_ends.last().copied().unwrap_or(1);
        let (model, point) = (rest / points, rest % points);
        let strategy = self.strategy_ends.partition_point(|end| *end <= point);
        Some(Coordinates {
            dataset,
            dataset_point,
            model: usize::try_from(model).ok()?,
            strategy,
            strategy_point: point - start_of(&self.strategy_ends, strategy),
            seed,
        })
    }

    /// The number of a trial from its coordinates; `None` when they are not in the grid.
    #[must_use]
    pub fn index(&self, at: &Coordinates) -> Option<u64> {
        let points = self.strategy_ends.last().copied()?;
        let strategy_point = start_of(&self.strategy_ends, at.strategy).checked_add(at.strategy_point)?;
        if strategy_point >= *self.strategy_ends.get(at.strategy)?
            || at.seed >= self.seeds
            || at.model >= self.spec.models.len()
        {
            return None;
        }
        let within = (at.model as u64 * points + strategy_point) * self.seeds + at.seed;
        let index = start_of(&self.dataset_ends, at.dataset)
            .checked_add(at.dataset_point.checked_mul(self.per_point)?)?
            .checked_add(within)?;
        (index < *self.dataset_ends.get(at.dataset)?).then_some(index)
    }

    /// The trial of a number, resolved; `None` past the end.
    #[must_use]
    pub fn trial(&self, index: u64) -> Option<Trial> {
        let at = self.coordinates(index)?;
        let dataset = self.spec.datasets.get(at.dataset)?;
        let model = self.spec.models.get(at.model)?;
        Some(Trial {
            index,
            dataset: resolve_dataset(
                dataset,
                self.infos.datasets.get(at.dataset)?.as_ref(),
                at.dataset_point,
            )?,
            dataset_name: dataset_name(dataset),
            model: resolve_model(model, self.infos.models.get(at.model)?.as_ref())?,
            model_name: model_name(model),
            strategy: resolve_strategy(self.spec.strategies.get(at.strategy)?, at.strategy_point),
            seed: self.spec.seeds.get(at.seed)?,
            settings: self.settings(),
        })
    }

    /// Exclusive end of the trials that share this trial's dataset.
    #[must_use]
    pub fn dataset_end(&self, index: u64) -> u64 {
        let dataset = self.dataset_ends.partition_point(|end| *end <= index);
        let start = start_of(&self.dataset_ends, dataset);
        ((index - start) / self.per_point.max(1) + 1) * self.per_point + start
    }

    /// Exclusive end of the trials that differ from this one by their seed alone.
    #[must_use]
    pub fn group_end(&self, index: u64) -> u64 {
        // Every dataset entry starts at a multiple of the seeds.
        (index / self.seeds.max(1) + 1) * self.seeds
    }

    /// Operations of one trial (see [`training_flops`]).
    #[must_use]
    pub fn flops(&self, index: u64) -> f64 {
        self.trial(index).map_or(0.0, |trial| trial.flops())
    }

    /// Operations of the whole grid, without walking it: axes that do not change the cost are multiplied out.
    #[must_use]
    pub fn total_flops(&self) -> f64 {
        let settings = self.settings();
        let strategies: Vec<_> = self.spec.strategies.iter().flat_map(cost_classes).collect();
        let models = self.spec.models.iter().zip(&self.infos.models);
        let models: Vec<_> = models.filter_map(|(model, info)| resolve_model(model, info.as_ref())).collect();
        let datasets = self.spec.datasets.iter().zip(&self.infos.datasets);
        let mut total = 0.0;
        for (dataset, count) in datasets.flat_map(|(dataset, info)| shape_classes(dataset, info.as_ref())) {
            for (strategy, points) in &strategies {
                for model in &models {
                    total += count * points * trial_flops(&dataset, model, strategy, &settings);
                }
            }
        }
        total * self.seeds as f64
    }
}

fn start_of(ends: &[u64], entry: usize) -> u64 {
    entry.checked_sub(1).and_then(|previous| ends.get(previous)).copied().unwrap_or(0)
}

fn place_infos(spec: &Spec, infos: &[InputInfo]) -> Result<Infos, GridError> {
    let expected = places(spec).count();
    let mut placed =
        Infos { datasets: vec![None; spec.datasets.len()], models: vec![None; spec.models.len()] };
    let mut found = 0;
    for (place, info) in places(spec).zip(infos) {
        let slot = match place {
            Place::Dataset(at) => placed.datasets.get_mut(at),
            Place::Model(at) => placed.models.get_mut(at),
        };
        if let Some(slot) = slot {
            *slot = Some(info.clone());
            found += usize::from(resolve::fits(spec, place, info));
        }
    }
    if found != expected || infos.len() != expected {
        return Err(GridError::MissingInfo { expected, found: found.min(infos.len()) });
    }
    for (at, (dataset, info)) in spec.datasets.iter().zip(&placed.datasets).enumerate() {
        check_samples(at, dataset, info.as_ref())?;
    }
    Ok(placed)
}

#[cfg(test)]
mod tests;
