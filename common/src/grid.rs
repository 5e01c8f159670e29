//! The grid as a lazy mixed-radix index space: trial number ⇄ coordinates in constant time and memory.
//!
//! Datasets vary slowest and seeds fastest, so that trials that share a dataset are neighbours (a pack is a
//! range of numbers) and the seeds of one group are contiguous (`group = number / seeds`).

use std::sync::Arc;

use crate::id::ContentHash;
use crate::spec::{
    Axis, DatasetSpec, FeaturesSpec, Generator, Optimizer, Scalar, Spec, StrategySpec, SyntheticSpec,
};
use crate::trial::{
    DatasetConfig, FeaturesConfig, GeneratorConfig, StrategyConfig, SweepSettings, SyntheticConfig, Trial,
    separable_offset, training_flops,
};

/// What is known of a feature file once it was read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FeatureInfo {
    /// Rows with a class.
    pub rows: u32,
    /// Features d.
    pub features: u32,
    /// Rows of each class, in class order.
    pub class_counts: Vec<u32>,
    /// BLAKE3 of the file's bytes (and then of the labels file's), hex.
    pub content: String,
}

/// A grid that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GridError {
    /// Too many trials to number.
    #[error("the grid has more than 2^63 trials; shorten an axis, `instances` or `seeds`")]
    TooLarge,
    /// Feature files were not all read.
    #[error("the spec names {expected} feature files, but {found} were read")]
    MissingInfo {
        /// How many the spec has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A training set size that the file cannot give.
    #[error(
        "datasets[{dataset}].features.samples: found {asked}, but {path} leaves only {available} training rows after the test split"
    )]
    TooFewRows {
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
    infos: Arc<Vec<Option<FeatureInfo>>>,
    /// Exclusive end of each dataset entry in trial numbers.
    dataset_ends: Vec<u64>,
    /// Exclusive end of each strategy entry in points.
    strategy_ends: Vec<u64>,
    seeds: u64,
    /// Trials of one dataset point: models × strategy points × seeds.
    per_point: u64,
}

impl Grid {
    /// Builds the grid of a spec; `infos` has one entry per feature dataset, in the spec's order.
    ///
    /// # Errors
    /// When there are more than 2^63 trials, or feature files do not fit the spec.
    pub fn new(spec: Arc<Spec>, infos: &[FeatureInfo]) -> Result<Self, GridError> {
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
            predictions: self.spec.predictions,
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
        let (dataset, dataset_name) = self.dataset(at.dataset, at.dataset_point)?;
        Some(Trial {
            index,
            dataset,
            dataset_name,
            encoder: self.spec.models.get(at.model)?.encoder,
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
        let strategies: Vec<(StrategyConfig, f64)> =
            self.spec.strategies.iter().flat_map(cost_classes).collect();
        let scale = self.spec.models.len() as f64 * self.seeds as f64;
        let shapes = self
            .spec
            .datasets
            .iter()
            .zip(self.infos.iter())
            .flat_map(|(dataset, info)| shape_classes(dataset, info.as_ref()));
        shapes
            .map(|((n, d, c), count)| {
                let each: f64 = strategies
                    .iter()
                    .map(|(strategy, points)| {
                        points * training_flops(n, d, c, strategy, settings.leave_one_out)
                    })
                    .sum();
                count * each * scale
            })
            .sum()
    }

    fn dataset(&self, entry: usize, point: u64) -> Option<(DatasetConfig, String)> {
        match self.spec.datasets.get(entry)? {
            DatasetSpec::Synthetic(spec) => {
                let name = spec.name.clone().unwrap_or_else(|| spec.generator.name().to_owned());
                Some((DatasetConfig::Synthetic(resolve_synthetic(spec, point)), name))
            }
            DatasetSpec::Features(spec) => {
                let info = self.infos.get(entry)?.as_ref()?;
                Some((DatasetConfig::Features(resolve_features(spec, info, point)), feature_name(spec)))
            }
        }
    }
}

/// Name of a feature dataset: the given one, or the file's without folders and endings.
#[must_use]
pub fn feature_name(spec: &FeaturesSpec) -> String {
    spec.name.clone().unwrap_or_else(|| {
        let file = spec.path.rsplit(['/', '\\']).next().unwrap_or(&spec.path);
        file.split('.').next().unwrap_or(file).to_owned()
    })
}

/// Test rows of each class: a share of it, rounded, but at least one is left on either side.
#[must_use]
pub fn test_rows(class_counts: &[u32], test_fraction: f64) -> Vec<u32> {
    class_counts
        .iter()
        .map(|count| {
            (libm::round(f64::from(*count) * test_fraction) as u32).clamp(1, count.saturating_sub(1).max(1))
        })
        .collect()
}

fn start_of(ends: &[u64], entry: usize) -> u64 {
    entry.checked_sub(1).and_then(|previous| ends.get(previous)).copied().unwrap_or(0)
}

fn place_infos(spec: &Spec, infos: &[FeatureInfo]) -> Result<Vec<Option<FeatureInfo>>, GridError> {
    let expected = spec.datasets.iter().filter(|d| matches!(d, DatasetSpec::Features(_))).count();
    if expected != infos.len() {
        return Err(GridError::MissingInfo { expected, found: infos.len() });
    }
    let mut rest = infos.iter();
    let placed: Vec<Option<FeatureInfo>> = spec
        .datasets
        .iter()
        .map(|dataset| match dataset {
            DatasetSpec::Synthetic(_) => None,
            DatasetSpec::Features(_) => rest.next().cloned(),
        })
        .collect();
    for (dataset, (entry, info)) in spec.datasets.iter().zip(&placed).enumerate() {
        let (DatasetSpec::Features(entry), Some(info)) = (entry, info) else { continue };
        let asked = entry.samples.as_ref().and_then(|axis| axis.values().iter().copied().max());
        for fraction in entry.test_fraction.values() {
            let available = info.rows - test_rows(&info.class_counts, *fraction).iter().sum::<u32>();
            if let Some(asked) = asked.filter(|asked| *asked > available) {
                return Err(GridError::TooFewRows { dataset, path: entry.path.clone(), asked, available });
            }
        }
    }
    Ok(placed)
}

/// Takes one digit of a point for each axis; the first axis taken varies fastest.
struct Digits(u64);

impl Digits {
    fn count(&mut self, radix: u64) -> u64 {
        let digit = self.0 % radix.max(1);
        self.0 /= radix.max(1);
        digit
    }

    fn take<T: Scalar>(&mut self, axis: &Axis<T>) -> T {
        let digit = self.count(axis.len());
        let values = axis.values();
        values[usize::try_from(digit).unwrap_or(0).min(values.len() - 1)].clone()
    }

    fn take_or<T: Scalar>(&mut self, axis: &Option<Axis<T>>, default: T) -> T {
        match axis {
            Some(axis) => self.take(axis),
            None => default,
        }
    }
}

fn product(lengths: &[u64]) -> Option<u64> {
    lengths.iter().try_fold(1u64, |product, length| product.checked_mul(*length))
}

fn len_or_one<T: Scalar>(axis: &Option<Axis<T>>) -> u64 {
    axis.as_ref().map_or(1, Axis::len)
}

fn dataset_points(dataset: &DatasetSpec) -> Option<u64> {
    match dataset {
        DatasetSpec::Synthetic(d) => product(&[
            u64::from(d.instances),
            d.samples.len(),
            d.features.len(),
            d.classes.len(),
            d.test_samples.len(),
            len_or_one(&d.margin),
            len_or_one(&d.noise),
            len_or_one(&d.max_norm),
            len_or_one(&d.informative),
            len_or_one(&d.redundant),
            len_or_one(&d.repeated),
            len_or_one(&d.clusters_per_class),
            len_or_one(&d.class_sep),
            len_or_one(&d.flip_y),
            len_or_one(&d.hypercube),
            len_or_one(&d.cluster_std),
            len_or_one(&d.center_box),
        ]),
        DatasetSpec::Features(d) => {
            product(&[u64::from(d.instances), d.test_fraction.len(), len_or_one(&d.samples)])
        }
    }
}

fn resolve_synthetic(d: &SyntheticSpec, point: u64) -> SyntheticConfig {
    let mut digits = Digits(point);
    let instance = digits.count(u64::from(d.instances)) as u32;
    let samples = digits.take(&d.samples);
    let features = digits.take(&d.features);
    let classes = digits.take(&d.classes);
    let test_samples = digits.take(&d.test_samples);
    let generator = match d.generator {
        Generator::Separable => {
            let margin = digits.take_or(&d.margin, 1.0);
            let noise = digits.take_or(&d.noise, 1.0);
            let max_norm = digits.take_or(
                &d.max_norm,
                separable_offset(margin, classes) + 1.5 * libm::sqrt(f64::from(features)),
            );
            GeneratorConfig::Separable { margin, noise, max_norm }
        }
        Generator::Classification => GeneratorConfig::Classification {
            informative: digits.take_or(&d.informative, 2),
            redundant: digits.take_or(&d.redundant, 2),
            repeated: digits.take_or(&d.repeated, 0),
            clusters_per_class: digits.take_or(&d.clusters_per_class, 2),
            class_sep: digits.take_or(&d.class_sep, 1.0),
            flip_y: digits.take_or(&d.flip_y, 0.01),
            hypercube: digits.take_or(&d.hypercube, true),
        },
        Generator::Blobs => GeneratorConfig::Blobs {
            cluster_std: digits.take_or(&d.cluster_std, 1.0),
            center_box: digits.take_or(&d.center_box, 10.0),
        },
    };
    SyntheticConfig { generator, samples, features, classes, test_samples, instance }
}

fn resolve_features(d: &FeaturesSpec, info: &FeatureInfo, point: u64) -> FeaturesConfig {
    let mut digits = Digits(point);
    let instance = digits.count(u64::from(d.instances)) as u32;
    let test_fraction = digits.take(&d.test_fraction);
    let samples = d.samples.as_ref().map(|axis| digits.take(axis));
    let left = info.rows - test_rows(&info.class_counts, test_fraction).iter().sum::<u32>();
    FeaturesConfig {
        path: d.path.clone(),
        content: info.content.clone(),
        label: d.label.clone(),
        labels: d.labels.clone(),
        drop: d.drop.clone(),
        standardize: d.standardize,
        test_fraction,
        samples,
        instance,
        train_rows: samples.unwrap_or(left).min(left),
        features: info.features,
        classes: info.class_counts.len() as u32,
    }
}

fn strategy_points(s: &StrategySpec) -> Option<u64> {
    product(&[
        s.steps.len(),
        s.learning_rate.len(),
        s.optimizer.len(),
        len_or_one(&s.momentum),
        s.weight_decay.len(),
        s.bias.len(),
        s.init_std.len(),
        s.data_perturbation.len(),
        s.mhloss.as_ref().map_or(1, |m| m.heads.len()),
    ])
}

fn resolve_strategy(s: &StrategySpec, point: u64) -> StrategyConfig {
    let mut digits = Digits(point);
    let steps = digits.take(&s.steps);
    let learning_rate = digits.take(&s.learning_rate);
    let optimizer = digits.take(&s.optimizer);
    let momentum = digits.take_or(&s.momentum, 0.9);
    let weight_decay = digits.take(&s.weight_decay);
    let bias = digits.take(&s.bias);
    let init_std = digits.take(&s.init_std);
    let data_perturbation = digits.take(&s.data_perturbation);
    let (heads, reduction) =
        s.mhloss.as_ref().map_or((1, Default::default()), |m| (digits.take(&m.heads), m.reduction));
    StrategyConfig {
        name: s.name.clone(),
        setting: s.setting,
        steps,
        learning_rate,
        optimizer,
        momentum: if optimizer == Optimizer::Momentum { momentum } else { 0.0 },
        weight_decay,
        bias,
        init_std,
        data_perturbation,
        heads,
        reduction,
        checkpoints: s.checkpoints.clone(),
        seed_controls: s.seed_controls,
    }
}

/// The strategy points of an entry by what decides their cost, each with how many points it stands for.
fn cost_classes(s: &StrategySpec) -> Vec<(StrategyConfig, f64)> {
    let base = resolve_strategy(s, 0);
    let heads = s.mhloss.as_ref().map_or(vec![1], |m| m.heads.values().to_vec());
    let classes = s.steps.len() * s.optimizer.len() * heads.len() as u64;
    let each = strategy_points(s).unwrap_or(0) as f64 / classes.max(1) as f64;
    let mut out = Vec::new();
    for steps in s.steps.values() {
        for optimizer in s.optimizer.values() {
            for heads in &heads {
                out.push((
                    StrategyConfig { steps: *steps, optimizer: *optimizer, heads: *heads, ..base.clone() },
                    each,
                ));
            }
        }
    }
    out
}

type ShapeClass = ((u32, u32, u32), f64);

/// The dataset points of an entry by shape (n, d, C), each with how many points it stands for.
fn shape_classes(dataset: &DatasetSpec, info: Option<&FeatureInfo>) -> Vec<ShapeClass> {
    let points = dataset_points(dataset).unwrap_or(0) as f64;
    match (dataset, info) {
        (DatasetSpec::Synthetic(d), _) => {
            let classes = d.samples.len() * d.features.len() * d.classes.len();
            let each = points / classes.max(1) as f64;
            let mut out = Vec::new();
            for n in d.samples.values() {
                for f in d.features.values() {
                    out.extend(d.classes.values().iter().map(|c| ((*n, *f, *c), each)));
                }
            }
            out
        }
        (DatasetSpec::Features(d), Some(info)) => {
            let each = f64::from(d.instances);
            (0..(points / each) as u64)
                .map(|k| {
                    DatasetConfig::Features(resolve_features(d, info, k * u64::from(d.instances))).shape()
                })
                .map(|shape| (shape, each))
                .collect()
        }
        (DatasetSpec::Features(_), None) => Vec::new(),
    }
}

/// Hash of a feature dataset's files, as results and ids hold it.
#[must_use]
pub fn content_hash(features: &[u8], labels: Option<&[u8]>) -> ContentHash {
    match labels {
        None => ContentHash::of(features),
        Some(labels) => {
            let mut both = ContentHash::of(features).0.to_vec();
            both.extend_from_slice(&ContentHash::of(labels).0);
            ContentHash::of(&both)
        }
    }
}

#[cfg(test)]
mod tests;
