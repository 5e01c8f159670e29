//! Full fine-tuning of pre-trained encoders, and their features for head tuning.
//!
//! | module | holds |
//! |---|---|
//! | [`prepared`] | an encoder on its device; a dataset in its tokens |
//! | [`batches`] | which examples a step sees |
//! | [`weights`] | the tensors of a run: mixout, adapters, number format |
//! | [`forward`] | from examples to features: dropout, noise on layers, gradient checkpointing |
//! | [`losses`] | cross-entropy over heads, regularisers |
//! | [`relearn`], `guess` | masked tokens and masked features (SURT, pre-training) |
//! | [`pretrain`], `small` | small encoders, pre-trained here |
//! | `source` | which encoder and which examples a trial asks for |
//! | [`optimizer`], [`schedule`], [`dropout`] | steps, their sizes, masks |
//! | [`run`], `step`, `initial` | one training run: its phases; a step; weights that are drawn |
//! | [`evaluate`] | what a model says of examples |
//! | [`curvature`] | constants of the bound: how steep and how curved the loss is |
//! | [`trial`] | the model, its refits, what is reported |
//! | [`checkpoint`] | a trial as bytes, and back |
//! | [`bench`] | the rate beside others |
//!
//! A trial's outcome is a function of the trial alone: every draw comes from a stream keyed by what it is for and the step.

pub mod batches;
pub mod bench;
pub mod checkpoint;
pub mod curvature;
pub mod dropout;
pub mod evaluate;
pub mod forward;
mod guess;
mod initial;
pub mod losses;
pub mod optimizer;
pub mod prepared;
pub mod pretrain;
pub mod relearn;
pub mod run;
pub mod schedule;
mod small;
mod source;
mod step;
pub mod trial;
pub mod weights;

use std::rc::Rc;
use std::sync::Arc;

use evenkeel_common::seed::{Key, Purpose};
use evenkeel_common::spec::LeaveOneOut;
use evenkeel_common::trial::{DatasetConfig, ModelConfig, Trial, refits};
use tch::Tensor;

use self::checkpoint::Checkpoints;
use self::prepared::{Encoder, Prepared};
use self::pretrain::{Encoders, NoEncoders};
use self::run::{Seeds, Setup};
use crate::data::{Dataset, Inputs};
use crate::device::Device;
use crate::engine::{EngineError, PackWatch};
use crate::models::{Family, Network};

/// Datasets in tokens that are kept.
const KEPT_DATASETS: usize = 4;

/// Fine-tunes encoders on one device. Lives on one OS thread: its tensors never leave it.
pub struct FinetuneEngine {
    device: Device,
    encoders: Arc<dyn Encoders>,
    /// The encoder used last: one fills much of a small device.
    encoder: Option<(String, Rc<Encoder>)>,
    datasets: Vec<(String, Rc<Prepared>)>,
}

impl FinetuneEngine {
    /// An engine on a device.
    #[must_use]
    pub fn new(device: Device) -> Self {
        Self::with_encoders(device, Arc::new(NoEncoders))
    }

    /// An engine on a device that keeps the encoders it pre-trains.
    #[must_use]
    pub fn with_encoders(device: Device, encoders: Arc<dyn Encoders>) -> Self {
        Self { device, encoders, encoder: None, datasets: Vec::new() }
    }

    /// Trains trials one after the other; each is delivered as soon as it is there.
    ///
    /// # Errors
    /// When cancelled, or when a trial cannot be trained. A diverging trial is no error.
    pub fn run(
        &mut self,
        trials: &[Trial],
        inputs: &dyn Inputs,
        checkpoints: &dyn Checkpoints,
        watch: &mut dyn PackWatch,
    ) -> Result<(), EngineError> {
        let total: f64 = trials.iter().map(Trial::flops).sum::<f64>().max(1.0);
        let mut done = 0.0;
        for trial in trials {
            let Some(full) = &trial.strategy.full else {
                return Err(EngineError::Data("this is no full fine-tuning".to_owned()));
            };
            let sweep_seed = trial.settings.sweep_seed;
            let cancelled = || watch.is_cancelled();
            let (encoder, prepared) =
                self.prepare(&trial.dataset, &trial.model, sweep_seed, inputs, &cancelled)?;
            check_layers(trial, &encoder)?;
            let key = Key::of_dataset(sweep_seed, &trial.dataset.to_json());
            let controls = trial.strategy.seed_controls;
            let seed = |controlled: bool| if controlled { trial.seed } else { 0 };
            let n = prepared.data.train.len();
            let kept = kept(trial, &key, n, seed(controls.data_perturbation));
            let setup = Setup {
                encoder: &encoder,
                data: &prepared,
                strategy: &trial.strategy,
                full,
                key,
                seeds: Seeds {
                    initialization: seed(controls.initialization),
                    order: seed(controls.data_order),
                    dropout: seed(controls.dropout),
                },
                left_out: left_out(trial, &key, n, &kept),
                kept,
                lengths: prepared.data.train.iter().map(|example| example.length()).collect(),
                metric: trial.dataset.metric(),
                device: self.device.tch_device(),
            };
            let share = trial.flops() / total;
            let progress = |watch: &mut dyn PackWatch, within: f64| {
                watch.progress((done + within * share).clamp(0.0, 1.0));
            };
            let outcome = trial::train(trial, &setup, checkpoints, watch, progress)?;
            done += share;
            watch.deliver(vec![outcome]);
        }
        watch.progress(1.0);
        Ok(())
    }

    /// Features of a dataset's training and test set under the pre-trained encoder, for head tuning.
    ///
    /// # Errors
    /// When dataset or encoder cannot be had, or memory is short.
    pub fn features(
        &mut self,
        dataset: &DatasetConfig,
        model: &ModelConfig,
        sweep_seed: u64,
        inputs: &dyn Inputs,
    ) -> Result<Dataset, EngineError> {
        let (encoder, prepared) = self.prepare(dataset, model, sweep_seed, inputs, &|| false)?;
        let _guard = tch::no_grad_guard();
        let values = prepared.values(&encoder)?;
        let encode = |examples: &[crate::data::text::TokenExample]| -> Result<Vec<f32>, EngineError> {
            let features = evaluate::encode(&encoder, &prepared, &values, examples, |_| Ok(()))?;
            let features: Tensor = features.f_to_device(tch::Device::Cpu)?.f_flatten(0, -1)?;
            Ok(Vec::try_from(features)?)
        };
        let data = &prepared.data;
        Ok(Dataset {
            features: encoder.network.hidden() as usize,
            classes: data.classes,
            x_train: encode(&data.train)?,
            y_train: data.train.iter().map(|example| example.label).collect(),
            x_test: encode(&data.test)?,
            y_test: data.test.iter().map(|example| example.label).collect(),
            metric: dataset.metric(),
            groups_test: data.test.iter().map(|example| example.group).collect(),
        })
    }
}

/// Training examples that `data_perturbation` keeps, rising; at least one.
fn kept(trial: &Trial, key: &Key, n: usize, seed: u64) -> Vec<usize> {
    let removed = libm::round(trial.strategy.data_perturbation * n as f64) as usize;
    let removed = key.stream(Purpose::DataPerturbation, seed, 0).sample(n, removed.min(n.saturating_sub(1)));
    (0..n).filter(|place| removed.binary_search(place).is_err()).collect()
}

/// The first examples, in one random order for all trials of the dataset, that are kept.
fn left_out(trial: &Trial, key: &Key, n: usize, kept: &[usize]) -> Vec<usize> {
    let count = match trial.settings.leave_one_out {
        Some(LeaveOneOut::All) => kept.len(),
        count => refits(n as u32, count) as usize,
    };
    if count == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..n).collect();
    key.stream(Purpose::LeaveOneOut, 0, 0).shuffle(&mut order);
    order.into_iter().filter(|place| kept.binary_search(place).is_ok()).take(count).collect()
}

/// What a strategy says of layers has to fit the encoder.
fn check_layers(trial: &Trial, encoder: &Encoder) -> Result<(), EngineError> {
    let Some(full) = &trial.strategy.full else { return Ok(()) };
    let albert = matches!(&encoder.network, Network::Transformer(t) if t.config().family == Family::Albert);
    if full.gradient_checkpointing && albert {
        return Err(EngineError::Data(format!(
            "strategy {}: gradient_checkpointing computes layers one by one, but those of ALBERT share their weights",
            trial.strategy.name
        )));
    }
    let layers = encoder.network.layers();
    let asked = [("lnsr.layer", full.lnsr.map(|lnsr| lnsr.layer)), ("reinit.layers", full.reinit)];
    for (field, asked) in asked {
        if let Some(asked) = asked.filter(|asked| *asked > layers) {
            let name = &trial.strategy.name;
            return Err(EngineError::Data(format!(
                "strategy {name}: {field} is {asked}, but the encoder has {layers} layers"
            )));
        }
    }
    Ok(())
}
