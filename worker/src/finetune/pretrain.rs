//! Pre-training of small encoders: without labels, on a corpus of the dataset's own distribution, once for a cluster.
//!
//! The objective is that of SURT ([`super::relearn`]), on the corpus in place of the training set. The result is named by
//! what decides it and kept in the store, where it is written once: workers of different processors may differ in the last
//! bits, and whoever comes second uses what the first one wrote.

use std::time::{Duration, Instant};

use evenkeel_common::id::ContentHash;
use evenkeel_common::seed::Key;
use evenkeel_common::spec::Pooling;
use evenkeel_common::text::Metric;
use evenkeel_common::trial::{FullConfig, SmallConfig, StrategyConfig, SurtConfig};
use tch::{Device, Tensor};

use super::prepared::{Encoder, Prepared};
use super::run::{Run, Seeds, Setup};
use super::small;
use crate::engine::EngineError;
use crate::models::Network;

/// Version of how encoders are pre-trained and kept.
const VERSION: &str = "encoder 1";

/// Where pre-trained encoders are kept, and who is at work on one.
pub trait Encoders {
    /// The encoder of a name, if it is there.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError>;
    /// Keeps an encoder, unless there is one of that name: gives the one that is kept.
    ///
    /// # Errors
    /// When the store does not take it.
    fn keep(&self, name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, EngineError>;
    /// Says that this process is at work on it; false when another one is. A claim that is not renewed passes to the next
    /// who asks. Claims save work, no more: two encoders of a name do not matter, since one is kept.
    fn claim(&self, name: &str) -> bool;
    /// Says that the work goes on.
    fn renew(&self, name: &str);
    /// Says that the work has ended.
    fn release(&self, name: &str);
}

/// Nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEncoders;

impl Encoders for NoEncoders {
    fn find(&self, _: &str) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(None)
    }
    fn keep(&self, _: &str, bytes: Vec<u8>) -> Result<Vec<u8>, EngineError> {
        Ok(bytes)
    }
    fn claim(&self, _: &str) -> bool {
        true
    }
    fn renew(&self, _: &str) {}
    fn release(&self, _: &str) {}
}

/// Time between two looks at what another one is making.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two renewals of a claim.
const RENEW: Duration = Duration::from_secs(2);

/// What an encoder is to be pre-trained on.
pub(super) struct Corpus<'a> {
    /// What decides it, as text.
    pub name: String,
    /// Seed of all draws.
    pub sweep_seed: u64,
    /// Makes it; called only where there is no encoder yet.
    pub make: &'a dyn Fn() -> Result<Prepared, EngineError>,
}

/// The pre-trained encoder of a shape and a corpus: the one that is kept, or a new one.
///
/// # Errors
/// When cancelled, when the corpus cannot be had, when pre-training diverges, or when memory is short.
pub(super) fn pretrained(
    config: &SmallConfig,
    network: Network,
    corpus: &Corpus<'_>,
    encoders: &dyn Encoders,
    device: Device,
    cancelled: &dyn Fn() -> bool,
) -> Result<Encoder, EngineError> {
    // How its vectors are pooled is no matter of pre-training.
    let shape = serde_json::to_string(&SmallConfig { pooling: None, ..config.clone() }).unwrap_or_default();
    let what = format!("{VERSION}\0{shape}\0{}\0{}", corpus.name, corpus.sweep_seed);
    let name = ContentHash::of(what.as_bytes()).to_hex();
    let pooling = config.pooling.unwrap_or(Pooling::Mean);
    let key = Key::of_dataset(corpus.sweep_seed, &what);
    loop {
        if let Some(bytes) = encoders.find(&name)? {
            if let Some(encoder) = small::from_bytes(network.clone(), pooling, &bytes, device) {
                return Ok(encoder);
            }
            return Err(EngineError::Data(format!(
                "the kept encoder encoders/{name} is damaged; delete it from the store and try again"
            )));
        }
        if encoders.claim(&name) {
            break;
        }
        if cancelled() {
            return Err(EngineError::Cancelled);
        }
        std::thread::sleep(LOOK);
    }
    let fresh = small::fresh(network.clone(), pooling, &key, device)?;
    let began = Instant::now();
    let work = Work { encoders, name: &name, cancelled };
    // Who only wants features does without gradients; making the encoder needs them.
    let made = tch::with_grad(|| train(config, &fresh, corpus, key, &work, device));
    let bytes = made.and_then(|(values, loss)| {
        tracing::info!(encoder = %name, seconds = began.elapsed().as_secs_f64(), loss, "encoder pre-trained");
        small::to_bytes(&network, &values)
    });
    let kept = bytes.and_then(|bytes| encoders.keep(&name, bytes));
    encoders.release(&name);
    // Also its maker reads it from its bytes: everybody has the same.
    small::from_bytes(network, pooling, &kept?, device)
        .ok_or_else(|| EngineError::Other(format!("the encoder encoders/{name} cannot be read back")))
}

/// What the making of an encoder looks at and tells.
struct Work<'a> {
    encoders: &'a dyn Encoders,
    name: &'a str,
    cancelled: &'a dyn Fn() -> bool,
}

/// Trains an encoder: gives its tensors and those of its head, and the mean loss of the last tenth.
fn train(
    config: &SmallConfig,
    fresh: &Encoder,
    corpus: &Corpus<'_>,
    key: Key,
    work: &Work<'_>,
    device: Device,
) -> Result<(Vec<Tensor>, f64), EngineError> {
    let data = (corpus.make)()?;
    let pretrain = &config.pretrain;
    let full = FullConfig {
        batch_size: pretrain.batch_size,
        surt: Some(SurtConfig {
            epochs: pretrain.epochs,
            learning_rate: pretrain.learning_rate,
            mask: pretrain.mask,
        }),
        ..FullConfig::default()
    };
    let setup = Setup {
        encoder: fresh,
        data: &data,
        strategy: &StrategyConfig::full(0, pretrain.learning_rate, full.clone()),
        full: &full,
        key,
        seeds: Seeds { initialization: 0, order: 0, dropout: 0 },
        kept: (0..data.data.train.len()).collect(),
        left_out: Vec::new(),
        lengths: data.data.train.iter().map(|example| example.length()).collect(),
        metric: Metric::Accuracy,
        device,
    };
    let mut run = Run::new(&setup, None)?;
    let mut renewed = Instant::now();
    let steps = run.steps();
    let (mut sum, mut count) = (0.0, 0.0);
    while run.step < steps {
        if (work.cancelled)() {
            return Err(EngineError::Cancelled);
        }
        let loss = run.step_within_phase()?;
        if run.diverged {
            return Err(EngineError::Data(format!(
                "pre-training diverged at step {} of {steps}; lower `pretrain.learning_rate` ({})",
                run.step, pretrain.learning_rate
            )));
        }
        if run.step > steps - steps.div_ceil(10) {
            sum += loss;
            count += 1.0;
        }
        if renewed.elapsed() >= RENEW {
            work.encoders.renew(work.name);
            renewed = Instant::now();
        }
    }
    Ok((run.weights.values, sum / f64::max(count, 1.0)))
}
