//! The rate of full fine-tuning, for `make bench`: beside PyTorch and transformers on the same texts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel_common::seed::Key;
use evenkeel_common::spec::{Pooling, Precision};
use evenkeel_common::text::{self, Form, Metric, OwnFormat, Source, TextData};
use evenkeel_common::trial::{
    DatasetConfig, FullConfig, ModelConfig, PretrainedConfig, StrategyConfig, TextConfig,
};
use serde::Serialize;

use super::FinetuneEngine;
use super::run::{Run, Seeds, Setup};
use crate::data::{DataError, Inputs, ModelFiles};
use crate::device::Device;
use crate::engine::EngineError;

/// Steps before the clock starts.
const WARM_UP: u32 = 5;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Rates {
    /// Steps a second.
    pub steps_per_s: f64,
    /// Examples a second.
    pub examples_per_s: f64,
    /// Seconds of a step: the median.
    pub median_step_s: f64,
    /// Mean loss over the last half of the steps: that something was learned.
    pub loss: f64,
    /// Peak memory of this process, in MB.
    pub peak_mb: u64,
}

struct Folder {
    texts: Arc<TextData>,
    model: ModelFiles,
}

impl Inputs for Folder {
    fn table(
        &self,
        config: &evenkeel_common::trial::FeaturesConfig,
    ) -> Result<Arc<evenkeel_common::table::FeatureTable>, DataError> {
        Err(DataError::Unavailable(config.path.clone()))
    }
    fn text(&self, _: &TextConfig) -> Result<Arc<TextData>, DataError> {
        Ok(self.texts.clone())
    }
    fn model(&self, _: &PretrainedConfig) -> Result<ModelFiles, DataError> {
        Ok(self.model.clone())
    }
}

/// Fine-tunes the encoder in `data/minilm` on `samples` rows of `data/movies.csv` for `steps` steps of 16 examples
/// with AdamW, dropout, warm-up and clipping, on one thread.
///
/// # Errors
/// When files are not there, or memory is short.
pub fn rates(
    data: &Path,
    samples: usize,
    steps: u32,
    buckets: bool,
    precision: Precision,
) -> Result<Rates, EngineError> {
    let read = |name: &str| {
        let path = data.join(name);
        let bytes = std::fs::read(&path).map(Bytes::from);
        bytes.map_err(|error| EngineError::Unavailable(format!("{}: {error}", path.display())))
    };
    let csv = read("movies.csv")?;
    let format = OwnFormat { text: "text", text_pair: None, label: "label" };
    let source = Source {
        form: Form::Own(format),
        path: "movies.csv",
        test_path: None,
        train: &csv,
        test: None,
        skip_malformed: false,
    };
    let mut texts = text::read(&source).map_err(|error| EngineError::Data(error.to_string()))?;
    // The file has positive texts first: rows are taken from all of it.
    let every = (texts.train.rows.len() / samples.max(1)).max(1);
    texts.train.rows = texts.train.rows.into_iter().step_by(every).take(samples).collect();
    let n = texts.train.rows.len() as u32;
    let model = ModelFiles {
        config: read("minilm/config.json")?,
        weights: read("minilm/model.safetensors")?,
        tokenizer: read("minilm/tokenizer.json")?,
    };
    let folder = Folder { texts: Arc::new(texts), model };
    let model = PretrainedConfig {
        path: "minilm".to_owned(),
        content: String::new(),
        pooling: Pooling::Cls,
        hidden: 384,
        layers: 6,
        layer_weights: 10_646_784,
    };
    // All rows are trained on: nothing is evaluated while the clock runs.
    let text = TextConfig {
        path: "movies.csv".to_owned(),
        content: String::new(),
        task: None,
        columns: None,
        test_fraction: None,
        validation_fraction: 0.0,
        samples: None,
        test_samples: None,
        instance: 0,
        max_length: 128,
        metric: Metric::Accuracy,
        skip_malformed: false,
        train_rows: n,
        test_rows: 0,
        classes: 2,
        mean_tokens: 30,
        skipped: 0,
    };
    let (dataset, model) = (DatasetConfig::Text(text), ModelConfig::Huggingface(model));
    let full = FullConfig {
        precision,
        length_buckets: buckets,
        evaluate_every: Some(steps + 1),
        ..FullConfig::default()
    };
    let strategy = StrategyConfig::full(steps, 2e-5, full.clone());
    let device = Device::parse("auto").map_err(|error| EngineError::Device(error.to_string()))?;
    let mut engine = FinetuneEngine::new(device);
    let (encoder, prepared) = engine.prepare(&dataset, &model, 0, &folder, &|| false)?;
    let setup = Setup {
        encoder: &encoder,
        data: &prepared,
        strategy: &strategy,
        full: &full,
        key: Key::of_dataset(0, "bench"),
        seeds: Seeds { initialization: 0, order: 0, dropout: 0 },
        left_out: Vec::new(),
        kept: (0..prepared.data.train.len()).collect(),
        lengths: prepared.data.train.iter().map(|example| example.length()).collect(),
        metric: Metric::Accuracy,
        device: device.tch_device(),
    };
    let mut run = Run::new(&setup, None)?;
    let mut spent: Vec<Duration> = Vec::new();
    while run.step < steps {
        if run.step == steps / 2 {
            run.losses = (0.0, 0.0);
        }
        let began = Instant::now();
        run.advance_without_point()?;
        if run.step > WARM_UP {
            spent.push(began.elapsed());
        }
    }
    let total: f64 = spent.iter().map(Duration::as_secs_f64).sum();
    let rate = spent.len() as f64 / total;
    spent.sort_unstable();
    Ok(Rates {
        steps_per_s: rate,
        examples_per_s: 16.0 * rate,
        median_step_s: spent.get(spent.len() / 2).map_or(f64::NAN, Duration::as_secs_f64),
        loss: run.losses.0 / run.losses.1.max(1.0),
        peak_mb: peak_mb(),
    })
}

fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kb| kb / 1024)
}
