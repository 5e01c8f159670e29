//! From datasets and models of a spec, and points of their axes, to plain values.

use super::GridError;
use crate::inputs::{FeatureInfo, InputInfo, Place, TextInfo};
use crate::spec::{
    Axis, DatasetSpec, Encoder, FeaturesSpec, Generator, ModelSpec, Pooling, Scalar, Spec, SyntheticSpec,
    TextSpec,
};
use crate::text::{Metric, Task};
use crate::trial::{
    DatasetConfig, FeaturesConfig, GeneratorConfig, GrammarConfig, ModelConfig, PretrainedConfig,
    SmallConfig, SyntheticConfig, TextConfig, separable_offset,
};

/// Takes one digit of a point for each axis; the first axis taken varies fastest.
pub(super) struct Digits(pub(super) u64);

impl Digits {
    fn count(&mut self, radix: u64) -> u64 {
        let digit = self.0 % radix.max(1);
        self.0 /= radix.max(1);
        digit
    }

    pub(super) fn take<T: Scalar>(&mut self, axis: &Axis<T>) -> T {
        let digit = self.count(axis.len());
        let values = axis.values();
        values[usize::try_from(digit).unwrap_or(0).min(values.len() - 1)].clone()
    }

    pub(super) fn take_or<T: Scalar>(&mut self, axis: &Option<Axis<T>>, default: T) -> T {
        match axis {
            Some(axis) => self.take(axis),
            None => default,
        }
    }
}

pub(super) fn product(lengths: &[u64]) -> Option<u64> {
    lengths.iter().try_fold(1u64, |product, length| product.checked_mul(*length))
}

pub(super) fn len_or_one<T: Scalar>(axis: &Option<Axis<T>>) -> u64 {
    axis.as_ref().map_or(1, Axis::len)
}

pub(super) fn dataset_points(dataset: &DatasetSpec) -> Option<u64> {
    match dataset {
        DatasetSpec::Synthetic(d) => product(&[
            u64::from(d.instances),
            d.samples.len(),
            len_or_one(&d.features),
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
            len_or_one(&d.factor),
            len_or_one(&d.units),
            len_or_one(&d.vocabulary),
            len_or_one(&d.length),
            len_or_one(&d.topics),
            len_or_one(&d.topic_strength),
        ]),
        DatasetSpec::Features(d) => {
            product(&[u64::from(d.instances), d.test_fraction.len(), len_or_one(&d.samples)])
        }
        DatasetSpec::Text(d) => product(&[
            u64::from(d.instances),
            d.test_fraction.len(),
            d.validation_fraction.len(),
            len_or_one(&d.samples),
            d.max_length.len(),
        ]),
    }
}

fn resolve_synthetic(d: &SyntheticSpec, point: u64) -> SyntheticConfig {
    let mut digits = Digits(point);
    let instance = digits.count(u64::from(d.instances)) as u32;
    let samples = digits.take(&d.samples);
    let features = digits.take_or(&d.features, d.generator.features().unwrap_or(0));
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
        Generator::Moons => GeneratorConfig::Moons { noise: digits.take_or(&d.noise, 0.1) },
        Generator::Circles => GeneratorConfig::Circles {
            noise: digits.take_or(&d.noise, 0.1),
            factor: digits.take_or(&d.factor, 0.5),
        },
        Generator::Xor => GeneratorConfig::Xor {
            noise: digits.take_or(&d.noise, 0.0),
            informative: digits.take_or(&d.informative, 2),
        },
        Generator::Teacher => GeneratorConfig::Teacher {
            flip_y: digits.take_or(&d.flip_y, 0.0),
            units: digits.take_or(&d.units, 16),
        },
        Generator::TokenSequences => GeneratorConfig::TokenSequences {
            flip_y: digits.take_or(&d.flip_y, 0.0),
            grammar: GrammarConfig {
                vocabulary: digits.take_or(&d.vocabulary, 64),
                length: digits.take_or(&d.length, 16),
                topics: digits.take_or(&d.topics, 8),
                topic_strength: digits.take_or(&d.topic_strength, 2.0),
            },
        },
    };
    SyntheticConfig { generator, samples, features, classes, test_samples, instance }
}

fn resolve_features(d: &FeaturesSpec, info: &FeatureInfo, point: u64) -> FeaturesConfig {
    let mut digits = Digits(point);
    let instance = digits.count(u64::from(d.instances)) as u32;
    let test_fraction = digits.take(&d.test_fraction);
    let samples = d.samples.as_ref().map(|axis| digits.take(axis));
    let left = info.rows.saturating_sub(test_rows(&info.class_counts, test_fraction).iter().sum::<u32>());
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

/// The dataset points of an entry by what decides their cost, each with how many points it stands for.
pub(super) fn shape_classes(dataset: &DatasetSpec, info: Option<&InputInfo>) -> Vec<(DatasetConfig, f64)> {
    let points = dataset_points(dataset).unwrap_or(0) as f64;
    match dataset {
        DatasetSpec::Synthetic(d) => {
            let base = resolve_synthetic(d, 0);
            let widths = d.features.as_ref().map_or(vec![base.features], |axis| axis.values().to_vec());
            let classes = d.samples.len() * widths.len() as u64 * d.classes.len();
            let each = points / classes.max(1) as f64;
            let mut out = Vec::new();
            for samples in d.samples.values() {
                for features in &widths {
                    out.extend(d.classes.values().iter().map(|classes| {
                        let config = SyntheticConfig {
                            samples: *samples,
                            features: *features,
                            classes: *classes,
                            ..base.clone()
                        };
                        (DatasetConfig::Synthetic(config), each)
                    }));
                }
            }
            out
        }
        DatasetSpec::Features(FeaturesSpec { instances, .. })
        | DatasetSpec::Text(TextSpec { instances, .. }) => {
            // The instances of a point cost the same, and vary fastest.
            let each = u64::from(*instances).max(1);
            (0..(points / each as f64) as u64)
                .filter_map(|k| resolve_dataset(dataset, info, k * each))
                .map(|config| (config, each as f64))
                .collect()
        }
    }
}

/// Whether what was found in a file is of the kind the spec's entry asks for, and complete.
pub(super) fn fits(spec: &Spec, place: Place, info: &InputInfo) -> bool {
    let dataset = |at: usize| spec.datasets.get(at);
    match (place, info) {
        (Place::Dataset(at), InputInfo::Features(_)) => matches!(dataset(at), Some(DatasetSpec::Features(_))),
        (Place::Dataset(at), InputInfo::Text(info)) => match dataset(at) {
            Some(DatasetSpec::Text(text)) => {
                info.labels.len() == info.class_counts.len()
                    && info.test_rows.is_some() == (text.task.is_some() || text.test.is_some())
            }
            _ => false,
        },
        (Place::Model(at), InputInfo::Model(_)) => {
            spec.models.get(at).is_some_and(|model| model.encoder == Encoder::Huggingface)
        }
        _ => false,
    }
}

/// Whether every training set size that is asked for is there.
pub(super) fn check_samples(
    at: usize,
    dataset: &DatasetSpec,
    info: Option<&InputInfo>,
) -> Result<(), GridError> {
    let (kind, path, samples) = match dataset {
        DatasetSpec::Synthetic(_) => return Ok(()),
        DatasetSpec::Features(d) => ("features", &d.path, &d.samples),
        DatasetSpec::Text(d) => ("text", &d.path, &d.samples),
    };
    let Some(asked) = samples.as_ref().and_then(|axis| axis.values().iter().copied().max()) else {
        return Ok(());
    };
    let lefts: Vec<u32> = match (dataset, info) {
        (DatasetSpec::Features(d), Some(InputInfo::Features(info))) => {
            let held_out = |fraction: &f64| test_rows(&info.class_counts, *fraction).iter().sum::<u32>();
            d.test_fraction.values().iter().map(|f| info.rows.saturating_sub(held_out(f))).collect()
        }
        (DatasetSpec::Text(d), Some(InputInfo::Text(info))) => {
            let mut lefts = Vec::new();
            for test in d.test_fraction.values() {
                for validation in d.validation_fraction.values() {
                    let test = info.test_rows.is_none().then_some(*test);
                    lefts.push(text_split(&info.class_counts, test, *validation).train.iter().sum());
                }
            }
            lefts
        }
        _ => Vec::new(),
    };
    match lefts.into_iter().min().filter(|available| asked > *available) {
        Some(available) => {
            Err(GridError::TooFewRows { kind, dataset: at, path: path.clone(), asked, available })
        }
        None => Ok(()),
    }
}

/// Resolves a point of a dataset entry; none when its file was not read.
pub(super) fn resolve_dataset(
    dataset: &DatasetSpec,
    info: Option<&InputInfo>,
    point: u64,
) -> Option<DatasetConfig> {
    match (dataset, info) {
        (DatasetSpec::Synthetic(d), _) => Some(DatasetConfig::Synthetic(resolve_synthetic(d, point))),
        (DatasetSpec::Features(d), Some(InputInfo::Features(info))) => {
            Some(DatasetConfig::Features(resolve_features(d, info, point)))
        }
        (DatasetSpec::Text(d), Some(InputInfo::Text(info))) => {
            Some(DatasetConfig::Text(resolve_text(d, info, point)))
        }
        _ => None,
    }
}

fn resolve_text(d: &TextSpec, info: &TextInfo, point: u64) -> TextConfig {
    let mut digits = Digits(point);
    let instance = digits.count(u64::from(d.instances)) as u32;
    let test_fraction = digits.take(&d.test_fraction);
    let validation_fraction = digits.take(&d.validation_fraction);
    let samples = d.samples.as_ref().map(|axis| digits.take(axis));
    let max_length = digits.take(&d.max_length);
    let test_fraction = info.test_rows.is_none().then_some(test_fraction);
    let counts = text_split(&info.class_counts, test_fraction, validation_fraction);
    let left = counts.train.iter().sum::<u32>();
    let tested = info.test_rows.unwrap_or_else(|| counts.test.iter().sum());
    let task = d.task.as_deref().and_then(Task::from_name);
    TextConfig {
        path: d.path.clone(),
        content: info.content.clone(),
        task: task.map(|task| task.name().to_owned()),
        columns: d
            .text
            .clone()
            .zip(d.label.clone())
            .filter(|_| task.is_none())
            .map(|(text, label)| (text, d.text_pair.clone(), label)),
        test_fraction,
        validation_fraction,
        samples,
        test_samples: d.test_samples,
        instance,
        max_length,
        metric: d.metric.unwrap_or(task.map_or(Metric::Accuracy, Task::metric)),
        skip_malformed: d.skip_malformed,
        train_rows: samples.unwrap_or(left).min(left),
        test_rows: d.test_samples.unwrap_or(tested).min(tested),
        classes: info.class_counts.len() as u32,
        mean_tokens: (f64::from(info.mean_characters) / CHARACTERS_A_TOKEN) as u32 + 3,
        skipped: info.skipped,
    }
}

/// English text in the word pieces of BERT: 4.3 to 4.8 characters a token on SST-2, RTE and QNLI. Only costs depend on it.
const CHARACTERS_A_TOKEN: f64 = 4.5;

/// How many rows of each class go where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSplit {
    /// Held out as test set (zeros where the test set is a file of its own).
    pub test: Vec<u32>,
    /// Held out as validation set.
    pub validation: Vec<u32>,
    /// What is left to train on.
    pub train: Vec<u32>,
}

/// Splits rows of each class: first the test set, then of what is left the validation set.
#[must_use]
pub fn text_split(class_counts: &[u32], test: Option<f64>, validation: f64) -> TextSplit {
    let minus = |a: &[u32], b: &[u32]| a.iter().zip(b).map(|(a, b)| a.saturating_sub(*b)).collect::<Vec<_>>();
    let none = vec![0; class_counts.len()];
    let test = test.map_or(none.clone(), |fraction| test_rows(class_counts, fraction));
    let rest = minus(class_counts, &test);
    let validation = if validation > 0.0 { test_rows(&rest, validation) } else { none };
    let train = minus(&rest, &validation);
    TextSplit { test, validation, train }
}

/// Resolves a model; none when its files were not read.
pub(super) fn resolve_model(model: &ModelSpec, info: Option<&InputInfo>) -> Option<ModelConfig> {
    match (model.encoder, info) {
        (Encoder::Identity, _) => Some(ModelConfig::Identity),
        (Encoder::Huggingface, Some(InputInfo::Model(info))) => {
            let default = if info.pooler { Pooling::Pooler } else { Pooling::Cls };
            Some(ModelConfig::Huggingface(PretrainedConfig {
                path: model.path.clone().unwrap_or_default(),
                content: info.content.clone(),
                pooling: model.pooling.unwrap_or(default),
                hidden: info.hidden,
                layers: info.layers,
                layer_weights: info.layer_weights,
            }))
        }
        (Encoder::Transformer, _) => Some(ModelConfig::Transformer(resolve_small(model))),
        (Encoder::Mlp, _) => Some(ModelConfig::Mlp(resolve_small(model))),
        _ => None,
    }
}

fn resolve_small(model: &ModelSpec) -> SmallConfig {
    let transformer = model.encoder == Encoder::Transformer;
    SmallConfig {
        layers: model.layers.unwrap_or(2),
        hidden: model.hidden.unwrap_or(64),
        attention_heads: transformer.then(|| model.attention_heads.unwrap_or(4)),
        pooling: transformer.then(|| model.pooling.unwrap_or(Pooling::Mean)),
        dropout: model.dropout.unwrap_or(if transformer { 0.1 } else { 0.0 }),
        pretrain: model.pretrain.unwrap_or_default(),
    }
}

/// Name of a dataset in results: the given one, the generator's, the task's, or the file's without folders and endings.
#[must_use]
pub fn dataset_name(dataset: &DatasetSpec) -> String {
    let given = match dataset {
        DatasetSpec::Synthetic(d) => &d.name,
        DatasetSpec::Features(d) => &d.name,
        DatasetSpec::Text(d) => &d.name,
    };
    given.clone().unwrap_or_else(|| match dataset {
        DatasetSpec::Synthetic(d) => d.generator.name().to_owned(),
        DatasetSpec::Features(d) => stem(&d.path),
        DatasetSpec::Text(d) => match d.task.as_deref().and_then(Task::from_name) {
            Some(task) => task.name().to_owned(),
            None => stem(&d.path),
        },
    })
}

/// Name of a model in results: the given one, its folder's, or the encoder's.
#[must_use]
pub fn model_name(model: &ModelSpec) -> String {
    model.name.clone().unwrap_or_else(|| match (model.encoder, &model.path) {
        (Encoder::Huggingface, Some(path)) => last_part(path.trim_end_matches(['/', '\\'])).to_owned(),
        (encoder, _) => encoder.name().to_owned(),
    })
}

fn last_part(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn stem(path: &str) -> String {
    let file = last_part(path);
    file.split('.').next().unwrap_or(file).to_owned()
}

/// Held-out rows of each class: a share of it, rounded, but at least one is left on either side.
#[must_use]
pub fn test_rows(class_counts: &[u32], test_fraction: f64) -> Vec<u32> {
    class_counts
        .iter()
        .map(|count| {
            (libm::round(f64::from(*count) * test_fraction) as u32).clamp(1, count.saturating_sub(1).max(1))
        })
        .collect()
}
