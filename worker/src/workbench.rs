//! The engines of one slot: heads on features, and full fine-tuning.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_common::id::ContentHash;
use evenkeel_common::results::TrialOutcome;
use evenkeel_common::spec::Setting;
use evenkeel_common::table::FeatureTable;
use evenkeel_common::text::TextData;
use evenkeel_common::trial::{
    DatasetConfig, FeaturesConfig, ModelConfig, PretrainedConfig, TextConfig, Trial,
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::artifacts::Artifacts;
use crate::data::{DataError, Dataset, Inputs, ModelFiles};
use crate::device::Device;
use crate::engine::{EngineError, HeadEngine, PackWatch, Sample};
use crate::finetune::FinetuneEngine;

/// The engines of one slot. Lives on one OS thread: its tensors never leave it.
pub struct Workbench {
    heads: HeadEngine,
    tuning: RefCell<FinetuneEngine>,
    artifacts: Arc<Artifacts>,
}

impl Workbench {
    /// The engines on a device.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn new(device: Device, artifacts: Arc<Artifacts>) -> Result<Self, EngineError> {
        let heads = HeadEngine::new(device)?;
        let tuning = FinetuneEngine::with_encoders(device, artifacts.clone());
        Ok(Self { heads, tuning: RefCell::new(tuning), artifacts })
    }

    /// Trains a pack: neighbouring trials of one setting go to their engine together.
    ///
    /// # Errors
    /// When cancelled, or when trials cannot be trained. A diverging trial is no error.
    pub fn run(
        &mut self,
        trials: &[Trial],
        inputs: &dyn Inputs,
        watch: &mut dyn PackWatch,
    ) -> Result<(), EngineError> {
        let Self { heads, tuning, artifacts } = self;
        let total: f64 = trials.iter().map(Trial::flops).sum::<f64>().max(1.0);
        let mut done = 0.0;
        for part in trials.chunk_by(|a, b| a.strategy.setting == b.strategy.setting) {
            let share = part.iter().map(Trial::flops).sum::<f64>() / total;
            let mut watch = Part { watch: &mut *watch, done, share };
            match part.first().map(|trial| trial.strategy.setting) {
                Some(Setting::Full) => {
                    tuning.borrow_mut().run(part, inputs, &**artifacts, &mut watch)?;
                }
                _ => heads.run(part, &Encoding { inputs, tuning, artifacts }, &mut watch)?,
            }
            done += share;
        }
        Ok(())
    }
}

/// Tells of a part of a pack as of the pack.
struct Part<'a> {
    watch: &'a mut dyn PackWatch,
    done: f64,
    share: f64,
}

impl PackWatch for Part<'_> {
    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }

    fn is_leaving(&self) -> bool {
        self.watch.is_leaving()
    }
    fn progress(&mut self, fraction: f64) {
        self.watch.progress((self.done + self.share * fraction).clamp(0.0, 1.0));
    }
    fn sample(&mut self, sample: Sample) {
        self.watch.sample(sample);
    }
    fn deliver(&mut self, outcomes: Vec<TrialOutcome>) {
        self.watch.deliver(outcomes);
    }
}

/// Inputs with an encoder at hand: features computed once for a dataset, an encoder and a split.
struct Encoding<'a> {
    inputs: &'a dyn Inputs,
    tuning: &'a RefCell<FinetuneEngine>,
    artifacts: &'a Artifacts,
}

impl Inputs for Encoding<'_> {
    fn table(&self, config: &FeaturesConfig) -> Result<Arc<FeatureTable>, DataError> {
        self.inputs.table(config)
    }

    fn text(&self, config: &TextConfig) -> Result<Arc<TextData>, DataError> {
        self.inputs.text(config)
    }

    fn model(&self, config: &PretrainedConfig) -> Result<ModelFiles, DataError> {
        self.inputs.model(config)
    }

    fn encode(
        &self,
        config: &DatasetConfig,
        model: &ModelConfig,
        sweep_seed: u64,
    ) -> Result<Dataset, DataError> {
        let key = feature_key(config, model, sweep_seed);
        if let Some(bytes) = self.artifacts.features(&key) {
            if let Some(dataset) = from_bytes(&bytes, config, model) {
                return Ok(dataset);
            }
            tracing::warn!(%key, "kept features do not fit, they are computed anew");
        }
        let dataset =
            self.tuning.borrow_mut().features(config, model, sweep_seed, self.inputs).map_err(|error| {
                match error {
                    EngineError::Data(message) => DataError::Invalid(message),
                    EngineError::OutOfMemory(message) => DataError::TooLarge(message),
                    other => DataError::Unavailable(other.to_string()),
                }
            })?;
        if let Some(bytes) = to_bytes(&dataset) {
            self.artifacts.keep_features(&key, bytes);
        }
        Ok(dataset)
    }
}

/// Version of how features are computed and kept.
const FEATURES: &str = "features 2";

/// Names features by what decides them: the files' contents, the split, the encoder.
fn feature_key(config: &DatasetConfig, model: &ModelConfig, sweep_seed: u64) -> String {
    let (dataset, model) = (config.to_json(), model.to_json());
    ContentHash::of(format!("{FEATURES}\0{dataset}\0{model}\0{sweep_seed}").as_bytes()).to_hex()
}

fn to_bytes(dataset: &Dataset) -> Option<Bytes> {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let classes = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let d = dataset.features;
    let groups = dataset.groups_test.as_deref().unwrap_or_default();
    let parts = [
        ("x_train", Dtype::F32, vec![dataset.train_rows(), d], floats(&dataset.x_train)),
        ("x_test", Dtype::F32, vec![dataset.test_rows(), d], floats(&dataset.x_test)),
        ("y_train", Dtype::U32, vec![dataset.train_rows()], classes(&dataset.y_train)),
        ("y_test", Dtype::U32, vec![dataset.test_rows()], classes(&dataset.y_test)),
        ("groups_test", Dtype::U32, vec![groups.len()], classes(groups)),
    ];
    let views: Vec<_> = parts
        .iter()
        .filter_map(|(name, kind, shape, bytes)| {
            Some((*name, TensorView::new(*kind, shape.clone(), bytes).ok()?))
        })
        .collect();
    safetensors::serialize(views, &None).ok().map(Into::into)
}

fn from_bytes(bytes: &[u8], config: &DatasetConfig, model: &ModelConfig) -> Option<Dataset> {
    let parts = SafeTensors::deserialize(bytes).ok()?;
    let words = |name: &str| -> Option<Vec<[u8; 4]>> {
        Some(parts.tensor(name).ok()?.data().as_chunks::<4>().0.to_vec())
    };
    let floats = |name: &str| Some(words(name)?.into_iter().map(f32::from_le_bytes).collect::<Vec<_>>());
    let classes = |name: &str| Some(words(name)?.into_iter().map(u32::from_le_bytes).collect::<Vec<_>>());
    let (rows, _, most) = config.shape();
    let dataset = Dataset {
        features: model.hidden()? as usize,
        classes: most as usize,
        x_train: floats("x_train")?,
        y_train: classes("y_train")?,
        x_test: floats("x_test")?,
        y_test: classes("y_test")?,
        metric: config.metric(),
        groups_test: Some(classes("groups_test")?).filter(|groups| !groups.is_empty()),
    };
    let whole = dataset.x_train.len() == dataset.train_rows() * dataset.features
        && dataset.x_test.len() == dataset.test_rows() * dataset.features
        && dataset.train_rows() == rows as usize
        && dataset.groups_test.as_ref().is_none_or(|groups| groups.len() == dataset.test_rows())
        && dataset.y_train.iter().chain(&dataset.y_test).all(|class| (*class as usize) < dataset.classes);
    whole.then_some(dataset)
}
