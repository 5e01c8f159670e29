//! Which encoder a trial asks for, and its dataset as that encoder reads it.

use std::rc::Rc;

use evenkeel_common::seed::Key;
use evenkeel_common::trial::{
    DatasetConfig, FeaturesConfig, GeneratorConfig, GrammarConfig, ModelConfig, SmallConfig, SyntheticConfig,
};

use super::prepared::{Encoder, Prepared};
use super::pretrain::{Corpus, pretrained};
use super::{FinetuneEngine, KEPT_DATASETS, small};
use crate::data::sequences::Grammar;
use crate::data::{Dataset, Draws, Inputs, features, generate};
use crate::engine::EngineError;

impl FinetuneEngine {
    /// An encoder, and a dataset as it reads it.
    pub(super) fn prepare(
        &mut self,
        dataset: &DatasetConfig,
        model: &ModelConfig,
        sweep_seed: u64,
        inputs: &dyn Inputs,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Rc<Encoder>, Rc<Prepared>), EngineError> {
        let source = Source::of(dataset, model)?;
        let name = source.encoder_name(sweep_seed);
        let encoder = match self.encoder.take().filter(|(known, _)| *known == name) {
            Some((_, encoder)) => encoder,
            None => Rc::new(self.encoder(&source, sweep_seed, inputs, cancelled)?),
        };
        self.encoder = Some((name.clone(), Rc::clone(&encoder)));
        let key = format!("{name}\0{}\0{sweep_seed}", dataset.to_json());
        if let Some(at) = self.datasets.iter().position(|(known, _)| *known == key) {
            let entry = self.datasets.remove(at);
            let prepared = Rc::clone(&entry.1);
            self.datasets.push(entry);
            return Ok((encoder, prepared));
        }
        let draws = Key::of_dataset(sweep_seed, &dataset.to_json());
        let prepared = Rc::new(self.examples(&source, &encoder, sweep_seed, &draws, inputs)?);
        if self.datasets.len() >= KEPT_DATASETS {
            self.datasets.remove(0);
        }
        self.datasets.push((key, Rc::clone(&prepared)));
        Ok((encoder, prepared))
    }

    fn encoder(
        &self,
        source: &Source<'_>,
        sweep_seed: u64,
        inputs: &dyn Inputs,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Encoder, EngineError> {
        let device = self.device.tch_device();
        let corpus = |name: String, make: &dyn Fn() -> Result<Prepared, EngineError>, small, network| {
            let corpus = Corpus { name, sweep_seed, make };
            pretrained(small, network, &corpus, &*self.encoders, device, cancelled)
        };
        match source {
            Source::Texts { model, .. } => Encoder::new(model, &inputs.model(model)?, device),
            Source::Sequences { grammar, small: config, .. } => {
                let sequences = Grammar::new(grammar, sweep_seed);
                let make = || {
                    let corpus = sequences.corpus(config.pretrain.samples, sweep_seed);
                    Ok(Prepared::sequences(corpus, sequences.vocabulary()))
                };
                corpus(source.corpus_name(), &make, config, small::transformer(config, &sequences))
            }
            Source::Vectors { dataset, small: config } => {
                let (_, d, _) = dataset.shape();
                let make = || unlabelled(dataset, config, sweep_seed, inputs, device);
                corpus(source.corpus_name(), &make, config, small::perceptron(config, d as usize))
            }
        }
    }

    fn examples(
        &self,
        source: &Source<'_>,
        encoder: &Encoder,
        sweep_seed: u64,
        key: &Key,
        inputs: &dyn Inputs,
    ) -> Result<Prepared, EngineError> {
        Ok(match source {
            Source::Texts { text, .. } => encoder.prepare(&*inputs.text(text)?, text, key)?,
            Source::Sequences { synthetic, grammar, flip_y, .. } => {
                let grammar = Grammar::new(grammar, sweep_seed);
                Prepared::sequences(grammar.task(synthetic, *flip_y, key), grammar.vocabulary())
            }
            Source::Vectors { dataset, .. } => {
                let (data, validation) = match dataset {
                    DatasetConfig::Synthetic(config) => {
                        // A ninth beside the training set, as a cut of 90 to 10 leaves it.
                        let beside = beside(config, config.samples.div_ceil(9), config.classes);
                        (generate(config, Draws::of(key))?, Some(generate(&beside, Draws::beside(key))?))
                    }
                    DatasetConfig::Features(config) => {
                        (features::split(&*inputs.table(config)?, config, key)?, None)
                    }
                    DatasetConfig::Text(_) => return Err(unfit()),
                };
                let validation: (&[f32], &[u32]) = match &validation {
                    Some(set) => (&set.x_train, &set.y_train),
                    None => (&[], &[]),
                };
                Prepared::vectors(
                    data.classes,
                    data.features,
                    [(&data.x_train, &data.y_train), validation, (&data.x_test, &data.y_test)],
                    self.device.tch_device(),
                )?
            }
        })
    }
}

/// A dataset and an encoder that fit.
enum Source<'a> {
    Texts {
        text: &'a evenkeel_common::trial::TextConfig,
        model: &'a evenkeel_common::trial::PretrainedConfig,
    },
    Sequences {
        synthetic: &'a SyntheticConfig,
        grammar: &'a GrammarConfig,
        flip_y: f64,
        small: &'a SmallConfig,
    },
    Vectors {
        dataset: &'a DatasetConfig,
        small: &'a SmallConfig,
    },
}

fn unfit() -> EngineError {
    EngineError::Data("this encoder does not read this dataset".to_owned())
}

impl<'a> Source<'a> {
    fn of(dataset: &'a DatasetConfig, model: &'a ModelConfig) -> Result<Self, EngineError> {
        match (model, dataset) {
            (ModelConfig::Huggingface(model), DatasetConfig::Text(text)) => Ok(Self::Texts { text, model }),
            (ModelConfig::Transformer(small), DatasetConfig::Synthetic(synthetic)) => {
                let GeneratorConfig::TokenSequences { grammar, flip_y } = &synthetic.generator else {
                    return Err(unfit());
                };
                Ok(Self::Sequences { synthetic, grammar, flip_y: *flip_y, small })
            }
            (ModelConfig::Mlp(small), DatasetConfig::Synthetic(_) | DatasetConfig::Features(_)) => {
                Ok(Self::Vectors { dataset, small })
            }
            _ => Err(unfit()),
        }
    }

    /// What decides the corpus: a grammar whatever the task, or the dataset whose distribution it has.
    fn corpus_name(&self) -> String {
        match self {
            Self::Texts { .. } => String::new(),
            Self::Sequences { grammar, .. } => serde_json::to_string(grammar).unwrap_or_default(),
            Self::Vectors { dataset, .. } => dataset.to_json(),
        }
    }

    /// What decides the encoder.
    fn encoder_name(&self, sweep_seed: u64) -> String {
        match self {
            Self::Texts { model, .. } => ModelConfig::Huggingface((*model).clone()).to_json(),
            Self::Sequences { small, .. } | Self::Vectors { small, .. } => {
                let shape = serde_json::to_string(small).unwrap_or_default();
                format!("{shape}\0{}\0{sweep_seed}", self.corpus_name())
            }
        }
    }
}

/// The configuration of sets beside the training and test set of a synthetic dataset.
fn beside(config: &SyntheticConfig, validation: u32, corpus: u32) -> SyntheticConfig {
    let least = 2 * config.classes;
    SyntheticConfig { samples: validation.max(least), test_samples: corpus.max(least), ..config.clone() }
}

/// The vectors that a perceptron is pre-trained on: draws of the dataset's distribution, or the rows of a feature file that
/// are not held out as test set.
fn unlabelled(
    dataset: &DatasetConfig,
    small: &SmallConfig,
    sweep_seed: u64,
    inputs: &dyn Inputs,
    device: tch::Device,
) -> Result<Prepared, EngineError> {
    let key = Key::of_dataset(sweep_seed, &dataset.to_json());
    let (features, x) = match dataset {
        DatasetConfig::Synthetic(config) => {
            let beside = beside(config, 0, small.pretrain.samples);
            let Dataset { features, x_test, .. } = generate(&beside, Draws::beside(&key))?;
            (features, x_test)
        }
        DatasetConfig::Features(config) => {
            let table = inputs.table(config)?;
            let held_out = evenkeel_common::grid::test_rows(&table.class_counts, config.test_fraction);
            let left = (table.rows).saturating_sub(held_out.iter().sum::<u32>());
            let all = FeaturesConfig { samples: None, train_rows: left, ..config.clone() };
            let Dataset { features, x_train, .. } = features::split(&table, &all, &key)?;
            (features, x_train)
        }
        DatasetConfig::Text(_) => return Err(unfit()),
    };
    let labels = vec![0; x.len() / features.max(1)];
    Ok(Prepared::vectors(1, features, [(&x, &labels), (&[], &[]), (&[], &[])], device)?)
}
