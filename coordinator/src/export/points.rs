//! Names and canonical forms of dataset and strategy points, each resolved once and not for every trial.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use evenkeel_common::grid::{Coordinates, Grid};
use evenkeel_common::spec::Reduction;
use evenkeel_common::trial::{DatasetConfig, StrategyConfig};

/// A dataset with its axes resolved.
#[derive(Clone, Debug)]
pub(super) struct DatasetPoint {
    /// Its name.
    pub name: String,
    /// Its canonical form.
    pub json: String,
    /// (n, d, C) of the training set, as the model gives it to the head.
    pub shape: (u32, u32, u32),
    /// What its trials are scored by.
    pub metric: &'static str,
    /// Number of its family: datasets that differ by their size and instance alone.
    pub family: u64,
}

/// A model.
#[derive(Clone, Debug)]
pub(super) struct ModelPoint {
    /// Its name.
    pub name: Arc<str>,
    /// Its canonical form.
    pub json: String,
}

/// A strategy with its axes resolved.
#[derive(Clone, Debug)]
pub(super) struct StrategyPoint {
    /// Its name.
    pub name: String,
    /// Its canonical form.
    pub json: String,
    /// Everything about it.
    pub config: StrategyConfig,
    /// Number of its family: strategies that differ by their number of heads alone.
    pub family: u64,
}

impl StrategyPoint {
    fn new(config: StrategyConfig) -> Self {
        let single = StrategyConfig { heads: 1, reduction: Reduction::Mean, ..config.clone() };
        Self {
            json: config.to_json(),
            name: config.name.clone(),
            family: number(&[&single.to_json()]),
            config,
        }
    }
}

/// A number for some words, the same for the same words within this process.
pub(super) fn number(words: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    hasher.finish()
}

/// A dataset's canonical form without its size and instance.
fn family(dataset: &DatasetConfig) -> u64 {
    let mut form: serde_json::Value = serde_json::from_str(&dataset.to_json()).unwrap_or_default();
    if let Some(fields) = form.as_object_mut() {
        ["samples", "test_samples", "instance"].iter().for_each(|field| {
            fields.remove(*field);
        });
    }
    number(&[&form.to_string()])
}

/// What a trial's number stands for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub dataset: Arc<DatasetPoint>,
    pub model: Arc<ModelPoint>,
    pub strategy: Arc<StrategyPoint>,
    pub seed: u64,
}

/// Strategy points that are remembered; they come back with each dataset.
const REMEMBERED: usize = 1 << 16;
/// Most strategy points that get a line each in tables and plots; with more, each strategy has one.
const MOST_LINES: u64 = 20;

/// Resolved points, and which line of a table or plot a strategy point belongs to.
pub(super) struct Points {
    /// The last one, with its entry, point and model.
    dataset: Option<((usize, u64, usize), Arc<DatasetPoint>)>,
    strategies: HashMap<(usize, u64), Arc<StrategyPoint>>,
    models: Vec<Option<Arc<ModelPoint>>>,
    lines: Lines,
}

/// Lines of tables and plots: a strategy point each while they are few, else a strategy each.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// Strategy entry, label and number of points of each line.
    pub all: Vec<(usize, String, u64)>,
    /// First line of each strategy.
    first: Vec<usize>,
    by_point: bool,
}

impl Lines {
    /// The lines of a grid.
    pub fn new(grid: &Grid) -> Self {
        lines(grid)
    }

    pub fn of(&self, strategy: usize, point: u64) -> usize {
        let first = self.first.get(strategy).copied().unwrap_or(0);
        if self.by_point { first + usize::try_from(point).unwrap_or(0) } else { first }
    }
}

impl Points {
    pub fn new(grid: &Grid) -> Self {
        let spec = grid.spec();
        Self {
            dataset: None,
            strategies: HashMap::new(),
            models: vec![None; spec.models.len()],
            lines: lines(grid),
        }
    }

    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Resolves a trial; none when it is not in the grid.
    pub fn place(&mut self, grid: &Grid, at: &Coordinates, index: u64) -> Option<Place> {
        let key = (at.dataset, at.dataset_point, at.model);
        let dataset = match &self.dataset {
            Some((known, dataset)) if *known == key => dataset.clone(),
            _ => {
                let trial = grid.trial(index)?;
                let point = DatasetPoint {
                    json: trial.dataset.to_json(),
                    shape: trial.shape(),
                    metric: trial.dataset.metric().name(),
                    family: family(&trial.dataset),
                    name: trial.dataset_name,
                };
                self.dataset.insert((key, Arc::new(point))).1.clone()
            }
        };
        let key = (at.strategy, at.strategy_point);
        let strategy = match self.strategies.get(&key) {
            Some(strategy) => strategy.clone(),
            None => {
                if self.strategies.len() >= REMEMBERED {
                    self.strategies.clear();
                }
                let strategy = Arc::new(StrategyPoint::new(grid.trial(index)?.strategy));
                self.strategies.insert(key, strategy.clone());
                strategy
            }
        };
        let model = match self.models.get_mut(at.model)? {
            Some(model) => model.clone(),
            empty => {
                let trial = grid.trial(index)?;
                let point = ModelPoint { json: trial.model.to_json(), name: trial.model_name.into() };
                empty.insert(Arc::new(point)).clone()
            }
        };
        Some(Place { dataset, model, strategy, seed: grid.spec().seeds.get(at.seed)? })
    }
}

/// A strategy point of the first dataset and model.
fn at(strategy: usize, strategy_point: u64) -> Coordinates {
    Coordinates { dataset: 0, dataset_point: 0, model: 0, strategy, strategy_point, seed: 0 }
}

/// Number of points of a strategy, by bisection: points below it are in the grid, others are not.
fn count_points(grid: &Grid, strategy: usize) -> u64 {
    let (mut low, mut high) = (0, grid.len());
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if grid.index(&at(strategy, middle - 1)).is_some() {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

fn lines(grid: &Grid) -> Lines {
    let spec = grid.spec();
    let counts: Vec<u64> = (0..spec.strategies.len()).map(|strategy| count_points(grid, strategy)).collect();
    let by_point = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count)) <= MOST_LINES;
    let mut lines = Lines { all: Vec::new(), first: Vec::new(), by_point };
    for (strategy, (entry, count)) in spec.strategies.iter().zip(counts).enumerate() {
        lines.first.push(lines.all.len());
        if by_point && count > 1 {
            for label in labels(grid, strategy, count, &entry.name) {
                lines.all.push((strategy, label, 1));
            }
        } else {
            lines.all.push((strategy, entry.name.clone(), count));
        }
    }
    lines
}

/// Names of a strategy's points: the strategy's, and what differs between them.
fn labels(grid: &Grid, strategy: usize, count: u64, name: &str) -> Vec<String> {
    let config = |point| {
        let trial = grid.index(&at(strategy, point)).and_then(|index| grid.trial(index))?;
        match serde_json::to_value(&trial.strategy).ok()? {
            serde_json::Value::Object(fields) => Some(fields),
            _ => None,
        }
    };
    let configs: Vec<_> = (0..count).map(|point| config(point).unwrap_or_default()).collect();
    let differs =
        |key: &str| configs.iter().any(|other| other.get(key) != configs.first().and_then(|c| c.get(key)));
    let named = |config: &serde_json::Map<String, serde_json::Value>| {
        let fields = config.iter().filter(|(key, _)| differs(key)).map(|(key, value)| match value.as_str() {
            Some(text) => format!("{key}={text}"),
            None => format!("{key}={value}"),
        });
        format!("{name} ({})", fields.collect::<Vec<_>>().join(", "))
    };
    configs.iter().map(named).collect()
}
