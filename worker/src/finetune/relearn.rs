//! Self Unsupervised Re-Training (Fu, So, Collier 2023, §5.3): masked language modelling (Devlin et al. 2019, §3.1) on the
//! task's own training texts. For feature vectors the same with features in place of tokens.
//!
//! The softmax runs over the tokens that occur in the dataset, not over the whole vocabulary: tokens that no text uses are
//! no candidates. That is what makes the phase as cheap as fine-tuning.

use std::collections::BTreeSet;

use evenkeel_common::seed::Purpose;
use tch::{Kind, Tensor};

use super::batches::{inputs, tensors};
use super::guess::MaskedFeatures;
use super::prepared::{Guesses, Prepared};
use super::run::{Run, Setup};
use super::weights::Weights;
use crate::data::text::Tokens;
use crate::engine::EngineError;
use crate::models::{MlmHead, Network, Transformer};

/// What is learnt without labels.
pub enum Objective {
    /// To guess tokens.
    Tokens(MaskedTokens),
    /// To guess features.
    Features(MaskedFeatures),
}

impl Objective {
    /// The objective of an encoder; adds its head to the weights.
    ///
    /// # Errors
    /// When the tokenizer has no token for what is to be guessed, or memory is short.
    pub fn new(setup: &Setup<'_>, share: f64, weights: &mut Weights) -> Result<Self, EngineError> {
        match &setup.encoder.network {
            Network::Transformer(network) => {
                MaskedTokens::new(setup, network.clone(), share, weights).map(Self::Tokens)
            }
            Network::Mlp(network) => {
                MaskedFeatures::new(setup, network.config.inputs, share, weights).map(Self::Features)
            }
        }
    }

    /// Adds the gradient of a part of a batch; gives its mean loss. `counted` examples of the whole batch count.
    ///
    /// # Errors
    /// When memory is short.
    pub fn backward(
        &self,
        run: &Run<'_>,
        leaves: &[Tensor],
        part: &[usize],
        counted: usize,
    ) -> Result<f64, EngineError> {
        match self {
            Self::Tokens(objective) => objective.backward(run, leaves, part, counted),
            Self::Features(objective) => objective.backward(run, leaves, part, counted),
        }
    }
}

/// Masked tokens, and the head that guesses them.
pub struct MaskedTokens {
    network: Transformer,
    /// Share of the tokens that are to be guessed.
    share: f64,
    mask: i64,
    /// Places of the head's tensors among the weights: dense weight and bias, norm weight and bias, bias.
    head: [usize; 5],
    /// Tokens of the training texts, one of which replaces a token at random.
    candidates: Vec<u32>,
}

impl MaskedTokens {
    /// Adds the head to the weights: the one of the encoder's file, or a new one.
    fn new(
        setup: &Setup<'_>,
        network: Transformer,
        share: f64,
        weights: &mut Weights,
    ) -> Result<Self, EngineError> {
        let Some(mask) = setup.data.mask else {
            return Err(EngineError::Data(
                "`surt` needs a tokenizer with a token [MASK] or <mask>, and this model's has none"
                    .to_owned(),
            ));
        };
        let (config, data) = (network.config(), setup.data);
        let (narrow, wide) = (config.embedding_size, config.hidden);
        let options = (Kind::Float, setup.device);
        let tensors: [Tensor; 5] = match &setup.encoder.guesses {
            Some(Guesses::Tokens(head)) => {
                let rows = Tensor::f_from_slice(&data.vocabulary)?;
                let copy = |tensor: &Tensor| tensor.f_detach_copy()?.f_to_device(setup.device);
                [
                    copy(&head.dense_weight)?,
                    copy(&head.dense_bias)?,
                    copy(&head.norm_weight)?,
                    copy(&head.norm_bias)?,
                    head.bias.f_index_select(0, &rows)?.f_to_device(setup.device)?,
                ]
            }
            _ => {
                let mut stream =
                    setup.key.stream(Purpose::Reinitialization, setup.seeds.initialization, 1 << 40);
                let drawn: Vec<f32> = (0..narrow * wide).map(|_| (0.02 * stream.normal()) as f32).collect();
                [
                    Tensor::f_from_slice(&drawn)?.f_view([narrow, wide])?.f_to_device(setup.device)?,
                    Tensor::f_zeros([narrow], options)?,
                    Tensor::f_ones([narrow], options)?,
                    Tensor::f_zeros([narrow], options)?,
                    Tensor::f_zeros([data.vocabulary.len() as i64], options)?,
                ]
            }
        };
        let names = ["dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias", "bias"];
        let mut head = [0; 5];
        for ((place, name), tensor) in head.iter_mut().zip(names).zip(tensors) {
            *place = weights.push_head(&format!("masked_tokens.{name}"), tensor);
        }
        let trained = data.data.train.iter().flat_map(|example| &example.inputs).flat_map(|input| &input.ids);
        let candidates: BTreeSet<u32> = trained.copied().filter(|id| !is_special(data, *id)).collect();
        Ok(Self { network, share, mask, head, candidates: candidates.into_iter().collect() })
    }

    fn backward(
        &self,
        run: &Run<'_>,
        leaves: &[Tensor],
        part: &[usize],
        counted: usize,
    ) -> Result<f64, EngineError> {
        let setup = run.setup;
        let place = part.first().copied().unwrap_or(0);
        let mut stream = run.stream(Purpose::MaskedTokens, place);
        let examples: Vec<_> = part.iter().filter_map(|place| setup.data.data.train.get(*place)).collect();
        let (originals, each) = inputs(&examples);
        let mut disturbed: Vec<Tokens> = Vec::with_capacity(originals.len());
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        let mut row = 0i64;
        for (number, input) in originals.into_iter().enumerate() {
            let mut input = input.clone();
            // The left-out example is disturbed like the others, so that the draws stay the same, but teaches nothing.
            let counts = part.get(number / each.max(1)).is_some_and(|place| Some(*place) != run.left_out);
            for id in &mut input.ids {
                let (chosen, how) = (stream.uniform() < self.share, stream.uniform());
                let random = stream.below(self.candidates.len() as u64) as usize;
                if chosen && !is_special(setup.data, *id) {
                    if counts {
                        rows.push(row);
                        targets.push(i64::from(*id));
                    }
                    if how < 0.8 {
                        *id = self.mask as u32;
                    } else if how < 0.9 {
                        *id = self.candidates.get(random).copied().unwrap_or(*id);
                    }
                }
                row += 1;
            }
            disturbed.push(input);
        }
        if rows.is_empty() {
            return Ok(0.0);
        }
        let batch = tensors(&disturbed.iter().collect::<Vec<_>>(), setup.data, setup.device)?;
        let seen = run.weights.effective(leaves, None, setup.full.precision)?;
        let forward = run.forward(place);
        let hidden = forward.vectors(&seen, &batch)?;
        let place = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(setup.device);
        let chosen = hidden.f_index_select(0, &place(&rows)?)?;
        let [dense_weight, dense_bias, norm_weight, norm_bias, bias] = self.head;
        let leaf = |at: usize| leaves[at].f_to_kind(chosen.kind());
        let head = MlmHead {
            dense_weight: leaf(dense_weight)?,
            dense_bias: leaf(dense_bias)?,
            norm_weight: leaf(norm_weight)?,
            norm_bias: leaf(norm_bias)?,
            bias: leaf(bias)?,
        };
        let logits = self.network.mlm_logits(&seen, &head, &chosen)?.f_to_kind(Kind::Float)?;
        let loss = logits.f_cross_entropy_loss(
            &place(&targets)?,
            None::<Tensor>,
            tch::Reduction::Mean,
            -100,
            0.0,
        )?;
        let present = part.iter().filter(|place| Some(**place) != run.left_out).count();
        loss.f_mul_scalar(present as f64 / counted.max(1) as f64)?.f_backward()?;
        Ok(f64::try_from(loss.f_detach()?)?)
    }
}

fn is_special(data: &Prepared, id: u32) -> bool {
    data.special.get(id as usize).copied().unwrap_or(true)
}
