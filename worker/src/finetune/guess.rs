//! Masked features: what masked tokens are for texts, for feature vectors.

use evenkeel_common::seed::Purpose;
use tch::{Kind, Tensor};

use super::batches::{inputs, tensors};
use super::prepared::Guesses;
use super::run::{Run, Setup};
use super::weights::Weights;
use crate::engine::EngineError;
use crate::models::Input;

/// A denoising autoencoder (Vincent et al. 2008, with masking noise): a share of each vector's features is set to 0, and a
/// linear layer on the encoder's features guesses them; the loss is the mean squared error over what was masked.
pub struct MaskedFeatures {
    share: f64,
    /// Places of the layer's weight [d, H] and bias [d] among the weights.
    head: [usize; 2],
}

impl MaskedFeatures {
    /// Adds the layer to the weights: the one of pre-training, or a new one.
    pub(super) fn new(
        setup: &Setup<'_>,
        features: i64,
        share: f64,
        weights: &mut Weights,
    ) -> Result<Self, EngineError> {
        let hidden = setup.encoder.network.hidden();
        let (weight, bias) = match &setup.encoder.guesses {
            Some(Guesses::Features { weight, bias }) => (weight.f_detach_copy()?, bias.f_detach_copy()?),
            _ => {
                let seed = setup.seeds.initialization;
                let mut stream = setup.key.stream(Purpose::Reinitialization, seed, 1 << 40);
                let std = 1.0 / libm::sqrt(hidden as f64);
                let drawn: Vec<f32> =
                    (0..features * hidden).map(|_| (std * stream.normal()) as f32).collect();
                let weight = Tensor::f_from_slice(&drawn)?.f_view([features, hidden])?;
                (weight, Tensor::f_zeros([features], (Kind::Float, tch::Device::Cpu))?)
            }
        };
        let mut push = |name: &str, tensor: Tensor| -> Result<usize, EngineError> {
            Ok(weights.push_head(&format!("masked_features.{name}"), tensor.f_to_device(setup.device)?))
        };
        Ok(Self { share, head: [push("weight", weight)?, push("bias", bias)?] })
    }

    /// As `Objective::backward`.
    pub(super) fn backward(
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
        let Input::Vectors(x) = tensors(&inputs(&examples).0, setup.data, setup.device)? else {
            return Err(EngineError::Other("masked features of something that has none".to_owned()));
        };
        let d = x.size().last().copied().unwrap_or(0);
        let (mut hidden, mut scored) = (Vec::new(), Vec::new());
        for place in part {
            // The left-out example is disturbed like the others, so that the draws stay the same, but teaches nothing.
            let counts = Some(*place) != run.left_out;
            for _ in 0..d {
                let masked = stream.uniform() < self.share;
                hidden.push(f32::from(u8::from(!masked)));
                scored.push(f32::from(u8::from(masked && counts)));
            }
        }
        let masked: f32 = scored.iter().sum();
        if masked == 0.0 {
            return Ok(0.0);
        }
        let grid = |values: &[f32]| Tensor::f_from_slice(values)?.f_view_as(&x)?.f_to_device(setup.device);
        let disturbed = Input::Vectors(x.f_mul(&grid(&hidden)?)?);
        let seen = run.weights.effective(leaves, None, setup.full.precision)?;
        let features = run.forward(place).vectors(&seen, &disturbed)?.f_to_kind(Kind::Float)?;
        let guessed = features.f_linear(&leaves[self.head[0]], Some(&leaves[self.head[1]]))?;
        let error = guessed.f_sub(&x)?.f_square()?.f_mul(&grid(&scored)?)?;
        let loss = error.f_sum(Kind::Float)?.f_div_scalar(f64::from(masked))?;
        let present = part.iter().filter(|place| Some(**place) != run.left_out).count();
        loss.f_mul_scalar(present as f64 / counted.max(1) as f64)?.f_backward()?;
        Ok(f64::try_from(loss.f_detach()?)?)
    }
}
