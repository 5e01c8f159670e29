//! From examples to features, with what disturbs them in training.

use evenkeel_common::seed::Stream;
use evenkeel_common::spec::Pooling;
use tch::{Device, Kind, TchError, Tensor};

use super::batches::{examples, inputs, tensors};
use super::dropout::Masks;
use super::prepared::{Encoder, Prepared};
use crate::data::text::TokenExample;
use crate::models::{self, Batch, Noise, Transformer};

/// Noise on the output of a layer (LNSR).
pub struct Perturbation {
    /// After which layer; 0 is the embeddings.
    pub layer: u32,
    /// Its standard deviation.
    pub sigma: f64,
    /// Where it is drawn from.
    pub noise: Stream,
}

/// Dropout from our own generator, so that masks depend on the trial and the step alone.
struct Dropout(Masks);

impl Noise for Dropout {
    fn dropout(&mut self, x: &Tensor, p: f64) -> Result<Tensor, TchError> {
        let mask = self.0.f_mask(&x.size(), p)?.f_to_device(x.device())?.f_to_kind(x.kind())?;
        x.f_mul(&mask)
    }
}

/// A way through the encoder.
pub struct Forward<'a> {
    data: &'a Prepared,
    device: Device,
    transformer: Transformer,
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
        let mut config = encoder.config.clone();
        if let Some(p) = dropout {
            (config.hidden_dropout, config.attention_dropout) = (p, p);
        }
        Self { data, device, transformer: Transformer::new(config), pooling: encoder.pooling, masks }
    }

    fn noise(&self) -> Box<dyn Noise> {
        match &self.masks {
            Some(masks) => Box::new(Dropout(masks.clone())),
            None => Box::new(models::Quiet),
        }
    }

    fn batch(&self, set: &[&TokenExample]) -> Result<(Batch, usize), TchError> {
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
            let pooled = self.transformer.features(seen, &batch, self.pooling, &mut *self.noise())?;
            return Ok((finish(pooled)?, None));
        };
        let layers = self.transformer.config().layers;
        let from = perturbation.layer.min(layers);
        let mut below = self.masks.clone().map(Dropout);
        let mut quiet = models::Quiet;
        let mut hidden = {
            let noise: &mut dyn Noise = match &mut below {
                Some(dropout) => dropout,
                None => &mut quiet,
            };
            let mut hidden = self.transformer.embed(seen, &batch, noise)?;
            for layer in 0..from {
                hidden = self.transformer.layer(seen, layer, &hidden, &batch, noise)?;
            }
            hidden
        };
        let Perturbation { sigma, noise: mut stream, .. } = perturbation;
        let drawn: Vec<f32> = (0..hidden.numel()).map(|_| (sigma * stream.normal()) as f32).collect();
        let drawn = Tensor::f_from_slice(&drawn)?
            .f_view(&hidden.size()[..])?
            .f_to_device(self.device)?
            .f_to_kind(hidden.kind())?;
        let mut noisy = hidden.f_add(&drawn)?;
        // The masks of the layers above, twice from the same place.
        let above = below.map(|dropout| dropout.0);
        for vectors in [&mut hidden, &mut noisy] {
            let mut noise: Box<dyn Noise> = match &above {
                Some(masks) => Box::new(Dropout(masks.clone())),
                None => Box::new(models::Quiet),
            };
            for layer in from..layers {
                *vectors = self.transformer.layer(seen, layer, vectors, &batch, &mut *noise)?;
            }
        }
        let pool = |hidden: &Tensor| finish(self.transformer.pool(seen, hidden, &batch, self.pooling)?);
        Ok((pool(&hidden)?, Some(pool(&noisy)?)))
    }

    /// Vectors of all tokens after the last layer [N, H].
    ///
    /// # Errors
    /// When memory is short.
    pub fn tokens(&self, seen: &[Tensor], batch: &Batch) -> Result<Tensor, TchError> {
        self.transformer.encode(seen, batch, &mut *self.noise())
    }

    /// The encoder.
    #[must_use]
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
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
        let layers = self.transformer.config().layers;
        let mut masks = self.masks.clone().map(Dropout);
        let mut quiet = models::Quiet;
        // Input of each layer, and where its masks begin.
        let mut kept: Vec<(Tensor, Option<Masks>)> = Vec::new();
        let last = {
            let _guard = tch::no_grad_guard();
            let noise: &mut dyn Noise = match &mut masks {
                Some(dropout) => dropout,
                None => &mut quiet,
            };
            self.transformer.embed(seen, &batch, noise)?
        };
        let mut hidden = last;
        for layer in 0..layers {
            let _guard = tch::no_grad_guard();
            kept.push((hidden.shallow_clone(), masks.as_ref().map(|dropout| dropout.0.clone())));
            let noise: &mut dyn Noise = match &mut masks {
                Some(dropout) => dropout,
                None => &mut quiet,
            };
            hidden = self.transformer.layer(seen, layer, &hidden, &batch, noise)?;
        }
        let top = hidden.f_detach()?.f_set_requires_grad(true)?;
        let pooled = self.transformer.pool(seen, &top, &batch, self.pooling)?;
        let (value, reported) = loss(&examples(&pooled.f_to_kind(Kind::Float)?, each)?)?;
        value.f_backward()?;
        let mut gradient = top.grad();
        let again = |masks: Option<Masks>| -> Box<dyn Noise> {
            match masks {
                Some(masks) => Box::new(Dropout(masks)),
                None => Box::new(models::Quiet),
            }
        };
        for layer in (0..layers).rev() {
            let Some((input, masks)) = kept.pop() else { break };
            let input = input.f_detach()?.f_set_requires_grad(true)?;
            let output = self.transformer.layer(seen, layer, &input, &batch, &mut *again(masks))?;
            output.f_mul(&gradient)?.f_sum(Kind::Float)?.f_backward()?;
            gradient = input.grad();
        }
        let embedded = self.transformer.embed(seen, &batch, &mut *self.noise())?;
        embedded.f_mul(&gradient)?.f_sum(Kind::Float)?.f_backward()?;
        Ok(reported)
    }
}
