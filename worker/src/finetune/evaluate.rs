//! What a model says of examples.

use evenkeel_common::text::accuracy;
use tch::{Kind, Tensor};

use super::forward::Forward;
use super::losses::Head;
use super::prepared::{Encoder, Prepared};
use super::run::Setup;
use crate::data::text::TokenExample;
use crate::engine::EngineError;

/// Tokens of a batch in evaluation: large enough that products run at full speed, small enough for the cache.
const BATCH_TOKENS: usize = 2048;

/// What a model says of examples, in their order.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Predicted classes.
    pub classes: Vec<u32>,
    /// Cross-entropies, in nats.
    pub losses: Vec<f64>,
    /// True classes.
    pub labels: Vec<u32>,
    /// Groups, where examples belong together.
    pub groups: Option<Vec<u32>>,
}

impl Seen {
    /// What it says of some of them, by their places.
    #[must_use]
    pub fn part(&self, places: &[usize]) -> Self {
        fn pick<T: Copy>(values: &[T], places: &[usize]) -> Vec<T> {
            places.iter().filter_map(|place| values.get(*place)).copied().collect()
        }
        Self {
            classes: pick(&self.classes, places),
            losses: pick(&self.losses, places),
            labels: pick(&self.labels, places),
            groups: self.groups.as_ref().map(|groups| pick(groups, places)),
        }
    }

    /// Mean cross-entropy.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64
    }

    /// Share of right predictions; none for no examples.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        accuracy(&self.labels, &self.classes)
    }

    /// The score by the trial's metric.
    #[must_use]
    pub fn score(&self, setup: &Setup<'_>) -> Option<f64> {
        let classes = setup.data.data.classes;
        setup.metric.score(&self.labels, &self.classes, self.groups.as_deref(), classes)
    }
}

/// Features of examples, [B, d] in fp32 in their order, without noise.
///
/// Examples are sorted by length, so that little is padded, in batches of about 2,048 tokens.
///
/// # Errors
/// When memory is short.
pub fn encode(
    encoder: &Encoder,
    data: &Prepared,
    seen: &[Tensor],
    examples: &[TokenExample],
    mut between: impl FnMut(usize) -> Result<(), EngineError>,
) -> Result<Tensor, EngineError> {
    let _guard = tch::no_grad_guard();
    let device = seen.first().map_or(tch::Device::Cpu, Tensor::device);
    let forward = Forward::new(encoder, data, device, None, None);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|place| examples.get(*place).map_or(0, TokenExample::length));
    let mut features =
        Tensor::f_zeros([examples.len() as i64, encoder.network.hidden()], (Kind::Float, device))?;
    let mut rest = &order[..];
    while let Some(first) = rest.first() {
        // The batch's longest is about as long as its first: the order is by length.
        let length = examples.get(*first).map_or(1, TokenExample::length).max(1);
        let count = (BATCH_TOKENS / length).clamp(1, rest.len());
        let (batch, later) = rest.split_at(count);
        rest = later;
        let set: Vec<&TokenExample> = batch.iter().filter_map(|place| examples.get(*place)).collect();
        let (part, _) = forward.features(seen, &set, None)?;
        let places: Vec<i64> = batch.iter().map(|place| *place as i64).collect();
        let _ = features.f_index_copy_(0, &Tensor::f_from_slice(&places)?.f_to_device(device)?, &part)?;
        between(count)?;
    }
    Ok(features)
}

/// What a classifier says of features [B, d] of examples.
///
/// # Errors
/// When shapes do not fit.
pub fn classify(head: &Head<'_>, features: &Tensor, examples: &[TokenExample]) -> Result<Seen, EngineError> {
    let logits = head.logits(features)?.f_squeeze_dim(1)?.f_to_kind(Kind::Double)?;
    let log_probabilities = logits.f_log_softmax(-1, Kind::Double)?;
    let labels: Vec<i64> = examples.iter().map(|example| i64::from(example.label)).collect();
    let targets = Tensor::f_from_slice(&labels)?.f_to_device(features.device())?.f_unsqueeze(1)?;
    let losses = log_probabilities.f_gather(1, &targets, false)?.f_neg()?.f_flatten(0, -1)?;
    let classes = logits.f_argmax(1, false)?;
    let on_cpu = |tensor: Tensor| tensor.f_to_device(tch::Device::Cpu);
    let classes: Vec<i64> = Vec::try_from(on_cpu(classes)?)?;
    Ok(Seen {
        classes: classes.into_iter().map(|class| class as u32).collect(),
        losses: Vec::try_from(on_cpu(losses)?)?,
        labels: examples.iter().map(|example| example.label).collect(),
        groups: examples.iter().map(|example| example.group).collect(),
    })
}

/// Natural logarithms of the class probabilities [B, C] that a single classifier gives to features [B, d], in f64.
///
/// # Errors
/// When shapes do not fit.
pub fn log_probabilities(head: &Head<'_>, features: &Tensor) -> Result<Tensor, tch::TchError> {
    head.logits(features)?.f_squeeze_dim(1)?.f_log_softmax(-1, Kind::Double)
}

/// What a model says of examples.
///
/// # Errors
/// When memory is short.
pub fn evaluate(
    setup: &Setup<'_>,
    seen: &[Tensor],
    head: &Head<'_>,
    examples: &[TokenExample],
) -> Result<Seen, EngineError> {
    let features = encode(setup.encoder, setup.data, seen, examples, |_| Ok(()))?;
    classify(head, &features, examples)
}
