//! From examples to features, with what disturbs them in training.

use evenkeel_common::seed::Stream;
use evenkeel_common::spec::Pooling;
use tch::{Device, Kind, TchError, Tensor};

use super::batches::{examples, inputs, tensors};
use super::dropout::Masks;
use super::prepared::{Encoder, Prepared};
use crate::data::text::TokenExample;
use crate::models::{Input, Network, Noise};

/// Noise on the output of a layer (LNSR).
pub struct Perturbation {
    /// After which layer; 0 is the embeddings.
    pub layer: u32,
    /// Its standard deviation.
    pub sigma: f64,
    /// Where it is drawn from.
    pub noise: Stream,
}

/// Dropout from our own generator, so that masks depend on the trial and the step alone; without masks nothing is dropped.
/// A copy drops again what comes after the place where it was made.
#[derive(Clone)]
struct Position(Option<Masks>);

impl Noise for Position {
    fn dropout(&mut self, x: &Tensor, p: f64) -> Result<Tensor, TchError> {
        let Some(masks) = &mut self.0 else { return Ok(x.shallow_clone()) };
        x.f_mul(&masks.f_mask(&x.size(), p)?.f_to_device(x.device())?.f_to_kind(x.kind())?)
    }

    fn is_quiet(&self) -> bool {
        self.0.is_none()
    }
}

/// A way through the encoder.
pub struct Forward<'a> {
    data: &'a Prepared,
    device: Device,
    network: Network,
    pooling: Pooling,
    /// Dropout masks; none in evaluation.
    masks: Option<Masks>,
}

impl<'a> Forward<'a> {
    /// Through an encoder, with its dropout probabilities or `dropout` in place of them; without `masks` nothing is
    /// dropped.
    #[must_use]
    pub fn new(
        encoder: &Encoder,
        data: &'a Prepared,
        device: Device,
        dropout: Option<f64>,
        masks: Option<Masks>,
    ) -> Self {
        let network = match dropout {
            Some(p) => encoder.network.with_dropout(p),
            None => encoder.network.clone(),
        };
        Self { data, device, network, pooling: encoder.pooling, masks }
    }

    fn noise(&self) -> Position {
        Position(self.masks.clone())
    }

    fn batch(&self, set: &[&TokenExample]) -> Result<(Input, usize), TchError> {
        let (inputs, each) = inputs(set);
        Ok((tensors(&inputs, self.data, self.device)?, each))
    }

    /// Features of examples, [B, d] in fp32, from the encoder's tensors as it sees them; with a perturbation also those with
    /// noise on the layer it names. Both passes drop the same.
    ///
    /// # Errors
    /// When memory is short.
    pub fn features(
        &self,
        seen: &[Tensor],
        set: &[&TokenExample],
        perturbation: Option<Perturbation>,
    ) -> Result<(Tensor, Option<Tensor>), TchError> {
        let (batch, each) = self.batch(set)?;
        let finish = |pooled: Tensor| examples(&pooled.f_to_kind(Kind::Float)?, each);
        let Some(perturbation) = perturbation else {
            let pooled = self.network.features(seen, &batch, self.pooling, &mut self.noise())?;
            return Ok((finish(pooled)?, None));
        };
        let layers = self.network.layers();
        let from = perturbation.layer.min(layers);
        let mut below = self.noise();
        let mut hidden = self.network.embed(seen, &batch, &mut below)?;
        for layer in 0..from {
            hidden = self.network.layer(seen, layer, &hidden, &batch, &mut below)?;
        }
        let Perturbation { sigma, noise: mut stream, .. } = perturbation;
        let drawn: Vec<f32> = (0..hidden.numel()).map(|_| (sigma * stream.normal()) as f32).collect();
        let drawn = Tensor::f_from_slice(&drawn)?
            .f_view(&hidden.size()[..])?
            .f_to_device(self.device)?
            .f_to_kind(hidden.kind())?;
        let mut noisy = hidden.f_add(&drawn)?;
        for vectors in [&mut hidden, &mut noisy] {
            // The masks of the layers above, twice from the same place.
            let mut noise = below.clone();
            for layer in from..layers.saturating_sub(1) {
                *vectors = self.network.layer(seen, layer, vectors, &batch, &mut noise)?;
            }
            // Noise after the last layer leaves only the pooling above it.
            *vectors = match from < layers {
                true => self.network.top(seen, vectors, &batch, self.pooling, &mut noise)?,
                false => self.network.pool(seen, vectors, &batch, self.pooling)?,
            };
        }
        Ok((finish(hidden)?, Some(finish(noisy)?)))
    }

    /// Vectors of all tokens [N, H], or of all inputs of a perceptron [B, H], after the last layer.
    ///
    /// # Errors
    /// When memory is short.
    pub fn vectors(&self, seen: &[Tensor], batch: &Input) -> Result<Tensor, TchError> {
        self.network.encode(seen, batch, &mut self.noise())
    }

    /// Gradient checkpointing (Chen et al. 2016): goes forward without a graph, keeping the input of each layer alone, and
    /// on the way back computes each layer a second time. `loss` gives the loss of features and what is reported of it.
    ///
    /// The gradient of a layer's input x from that of its output g is that of the scalar Σ f(x)·g. Masks are drawn from the
    /// same place both times, so the result is the one of the plain way.
    ///
    /// # Errors
    /// When memory is short.
    pub fn backward_by_layers(
        &self,
        seen: &[Tensor],
        set: &[&TokenExample],
        loss: impl Fn(&Tensor) -> Result<(Tensor, f64), TchError>,
    ) -> Result<f64, TchError> {
        let (batch, each) = self.batch(set)?;
        // The last layer is part of the top, which is computed once.
        let below = self.network.layers().saturating_sub(1);
        let mut noise = self.noise();
        let mut kept: Vec<(Tensor, Position)> = Vec::new();
        let mut hidden = {
            let _guard = tch::no_grad_guard();
            self.network.embed(seen, &batch, &mut noise)?
        };
        for layer in 0..below {
            let _guard = tch::no_grad_guard();
            kept.push((hidden.shallow_clone(), noise.clone()));
            hidden = self.network.layer(seen, layer, &hidden, &batch, &mut noise)?;
        }
        let leaf = |hidden: &Tensor| hidden.f_detach()?.f_set_requires_grad(true);
        let top = leaf(&hidden)?;
        let pooled = self.network.top(seen, &top, &batch, self.pooling, &mut noise)?;
        let (value, reported) = loss(&examples(&pooled.f_to_kind(Kind::Float)?, each)?)?;
        value.f_backward()?;
        let mut gradient = top.grad();
        for layer in (0..below).rev() {
            let Some((input, mut noise)) = kept.pop() else { break };
            let input = leaf(&input)?;
            let output = self.network.layer(seen, layer, &input, &batch, &mut noise)?;
            output.f_mul(&gradient)?.f_sum(Kind::Float)?.f_backward()?;
            gradient = input.grad();
        }
        let embedded = self.network.embed(seen, &batch, &mut self.noise())?;
        // Frozen under adapters.
        if embedded.requires_grad() {
            embedded.f_mul(&gradient)?.f_sum(Kind::Float)?.f_backward()?;
        }
        Ok(reported)
    }
}
