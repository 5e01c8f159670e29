//! Datasets in memory: what a trial trains and is tested on.
//!
//! | module | holds |
//! |---|---|
//! | [`separable`] | linearly separable data with a known margin |
//! | [`classification`] | the semantics of scikit-learn's `make_classification` |
//! | [`blobs`] | one Gaussian a class |
//! | [`shapes`] | moons, circles, parity of signs, a random teacher |
//! | [`sequences`] | tokens from a probabilistic grammar |
//! | [`features`] | stratified splits of a feature file |
//! | [`text`] | stratified splits of texts, and their tokens |
//!
//! A dataset is a pure function of the sweep's seed and its configuration: all draws come from the counter-based
//! generator, are made in f64 with `libm`, and are rounded to f32 once, so its bits are the same on every machine.

pub mod blobs;
pub mod classification;
pub mod features;
mod room;
pub mod separable;
pub mod sequences;
pub mod shapes;
pub mod text;

use std::sync::Arc;

use bytes::Bytes;
use evenkeel_common::seed::{Key, Purpose};
use evenkeel_common::table::FeatureTable;
use evenkeel_common::text::{Metric, TextData};
use evenkeel_common::trial::{
    DatasetConfig, FeaturesConfig, GeneratorConfig, ModelConfig, PretrainedConfig, SyntheticConfig,
    TextConfig,
};

/// The files of a pre-trained encoder.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// `config.json`.
    pub config: Bytes,
    /// `model.safetensors`.
    pub weights: Bytes,
    /// `tokenizer.json`.
    pub tokenizer: Bytes,
}

/// Where the contents of a sweep's files come from.
pub trait Inputs {
    /// The table of a feature file.
    ///
    /// # Errors
    /// When it cannot be fetched or does not hold what the configuration says.
    fn table(&self, config: &FeaturesConfig) -> Result<Arc<FeatureTable>, DataError>;

    /// The texts of a dataset.
    ///
    /// # Errors
    /// When they cannot be fetched or read.
    fn text(&self, config: &TextConfig) -> Result<Arc<TextData>, DataError> {
        Err(DataError::Unavailable(format!("{}: there are no texts here", config.path)))
    }

    /// The files of an encoder.
    ///
    /// # Errors
    /// When they cannot be fetched.
    fn model(&self, config: &PretrainedConfig) -> Result<ModelFiles, DataError> {
        Err(DataError::Unavailable(format!("{}: there are no models here", config.path)))
    }

    /// A dataset as features of an encoder.
    ///
    /// # Errors
    /// When dataset or model cannot be had, or there is no encoder here.
    fn encode(
        &self,
        config: &DatasetConfig,
        model: &ModelConfig,
        sweep_seed: u64,
    ) -> Result<Dataset, DataError> {
        let _ = (model, sweep_seed);
        Err(DataError::Invalid(format!("no encoder is at hand for the dataset {}", config.to_json())))
    }
}

/// Why a dataset cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Another attempt may find it: the file could not be fetched.
    #[error("{0}")]
    Unavailable(String),
    /// The data do not fit what is asked of them; another attempt would only repeat that.
    #[error("{0}")]
    Invalid(String),
    /// They do not fit into the memory of this machine.
    #[error("{0}")]
    TooLarge(String),
}

impl DataError {
    /// Data that do not fit what is asked of them.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self::Invalid(message)
    }
}

/// A training and a test set.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Features d.
    pub features: usize,
    /// Classes C.
    pub classes: usize,
    /// Training inputs, row-major [n, d].
    pub x_train: Vec<f32>,
    /// Training classes, [n].
    pub y_train: Vec<u32>,
    /// Test inputs, row-major [m, d].
    pub x_test: Vec<f32>,
    /// Test classes, [m].
    pub y_test: Vec<u32>,
    /// What is scored.
    pub metric: Metric,
    /// Which test samples belong together, where any do, [m].
    pub groups_test: Option<Vec<u32>>,
}

impl Dataset {
    /// Training set size n.
    #[must_use]
    pub fn train_rows(&self) -> usize {
        self.y_train.len()
    }

    /// Test set size m.
    #[must_use]
    pub fn test_rows(&self) -> usize {
        self.y_test.len()
    }

    /// Bytes it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        4 * (self.x_train.len() + self.x_test.len() + self.y_train.len() + self.y_test.len())
    }
}

/// Draws or reads a dataset.
///
/// # Errors
/// When the table of a feature file cannot be had, or the configuration cannot be met.
pub fn load(
    config: &DatasetConfig,
    model: &ModelConfig,
    sweep_seed: u64,
    inputs: &dyn Inputs,
) -> Result<Dataset, DataError> {
    let key = Key::of_dataset(sweep_seed, &config.to_json());
    match (model, config) {
        (ModelConfig::Identity, DatasetConfig::Synthetic(synthetic)) => generate(synthetic, Draws::of(&key)),
        (ModelConfig::Identity, DatasetConfig::Features(split)) => {
            features::split(&*inputs.table(split)?, split, &key)
        }
        (ModelConfig::Identity, DatasetConfig::Text(text)) => {
            Err(DataError::Invalid(format!("{}: texts need an encoder", text.path)))
        }
        _ => inputs.encode(config, model, sweep_seed),
    }
}

/// Where the samples of a synthetic dataset come from: the structure depends on the key alone, the samples of each set
/// also on a purpose, so that sets of different purposes have no sample in common.
#[derive(Clone, Copy)]
pub struct Draws<'a> {
    /// What all draws depend on.
    pub key: &'a Key,
    /// Purposes of the two sets.
    pub purposes: [Purpose; 2],
}

impl<'a> Draws<'a> {
    /// Training and test set.
    #[must_use]
    pub fn of(key: &'a Key) -> Self {
        Self { key, purposes: [Purpose::TrainSamples, Purpose::TestSamples] }
    }

    /// In their place a validation set and an unlabelled corpus of the same distribution.
    #[must_use]
    pub fn beside(key: &'a Key) -> Self {
        Self { key, purposes: [Purpose::ValidationSamples, Purpose::Corpus] }
    }
}

/// Draws a synthetic dataset.
///
/// # Errors
/// When the configuration cannot be met.
pub fn generate(config: &SyntheticConfig, draws: Draws<'_>) -> Result<Dataset, DataError> {
    if config.classes < 2 || config.samples < 2 * config.classes || config.features == 0 {
        let SyntheticConfig { samples, features, classes, .. } = config;
        return Err(DataError::Invalid(format!(
            "{samples} samples of {features} features cannot hold {classes} classes with two samples each"
        )));
    }
    room::check(config)?;
    match &config.generator {
        GeneratorConfig::Separable { margin, noise, max_norm } => {
            separable::generate(config, *margin, *noise, *max_norm, draws)
        }
        GeneratorConfig::Classification { .. } => classification::generate(config, draws),
        GeneratorConfig::Blobs { cluster_std, center_box } => {
            Ok(blobs::generate(config, *cluster_std, *center_box, draws))
        }
        GeneratorConfig::Moons { noise } => Ok(shapes::moons(config, *noise, draws)),
        GeneratorConfig::Circles { noise, factor } => Ok(shapes::circles(config, *noise, *factor, draws)),
        GeneratorConfig::Xor { informative, noise } => {
            Ok(shapes::xor(config, *informative as usize, *noise, draws))
        }
        GeneratorConfig::Teacher { units, flip_y } => {
            shapes::teacher(config, *units as usize, *flip_y, draws)
        }
        GeneratorConfig::TokenSequences { .. } => {
            Err(DataError::Invalid("sequences of tokens need an encoder".to_owned()))
        }
    }
}

/// Class of the i-th sample where classes take turns: counts differ by at most one.
fn turn(i: usize, classes: u32) -> u32 {
    (i as u64 % u64::from(classes)) as u32
}

/// Both sets of a generator whose samples are drawn one after the other: `draw(set, i)` gives the class and
/// appends the inputs of the i-th sample to its argument.
fn both_sets(
    config: &SyntheticConfig,
    draws: Draws<'_>,
    mut draw: impl FnMut(&mut evenkeel_common::seed::Stream, usize, &mut Vec<f32>) -> u32,
) -> Dataset {
    let mut set = |purpose: Purpose, rows: u32| {
        let mut stream = draws.key.stream(purpose, 0, 0);
        let mut x = Vec::with_capacity(rows as usize * config.features as usize);
        let y = (0..rows as usize).map(|i| draw(&mut stream, i, &mut x)).collect();
        (x, y)
    };
    let (x_train, y_train) = set(draws.purposes[0], config.samples);
    let (x_test, y_test) = set(draws.purposes[1], config.test_samples);
    Dataset {
        features: config.features as usize,
        classes: config.classes as usize,
        x_train,
        y_train,
        x_test,
        y_test,
        metric: Metric::Accuracy,
        groups_test: None,
    }
}
