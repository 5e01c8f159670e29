//! From feature vectors to features: a multi-layer perceptron, as functions of the parameters.

use evenkeel_common::encoder::{Group, Parameter};
use tch::{TchError, Tensor};

use super::transformer::Noise;

/// Shape of a perceptron.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    /// Features it reads.
    pub inputs: i64,
    /// Width of the layers.
    pub hidden: i64,
    /// Layers above the input layer.
    pub layers: u32,
    /// Dropout probability after each layer.
    pub dropout: f64,
}

/// h₀ = gelu(W·x + b), h_{i+1} = gelu(W_i·h_i + b_i), with dropout after each: a plain perceptron with the activation of
/// Hendrycks & Gimpel 2016. Parameters are passed in the order of [`MlpConfig::parameters`], all of one type.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// Its shape.
    pub config: MlpConfig,
}

impl MlpConfig {
    /// The parameters: weight [out, in] and bias [out] of the input layer, then of each layer.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let layers = (0..self.layers).map(|layer| (format!("layer.{layer}.dense"), Group::Layer(layer)));
        let all = std::iter::once(("input.dense".to_owned(), Group::Embeddings)).chain(layers);
        let parts = all.flat_map(|(name, group)| {
            let columns = if group == Group::Embeddings { self.inputs } else { self.hidden };
            [("weight", vec![self.hidden, columns]), ("bias", vec![self.hidden])]
                .map(|(part, shape)| Parameter { name: format!("{name}.{part}"), shape, group })
        });
        parts.collect()
    }
}

impl Mlp {
    /// The input layer, from [B, d] to [B, H].
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn embed(&self, p: &[Tensor], x: &Tensor, noise: &mut dyn Noise) -> Result<Tensor, TchError> {
        self.dense(p, 0, x, noise)
    }

    /// Layer `i`, from [B, H] to [B, H].
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn layer(
        &self,
        p: &[Tensor],
        i: u32,
        hidden: &Tensor,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        self.dense(p, 2 * (i as usize + 1), hidden, noise)
    }

    fn dense(&self, p: &[Tensor], at: usize, x: &Tensor, noise: &mut dyn Noise) -> Result<Tensor, TchError> {
        let (Some(weight), Some(bias)) = (p.get(at), p.get(at + 1)) else {
            return Err(TchError::Shape(format!("a perceptron with {} tensors has none at {at}", p.len())));
        };
        let active = x.f_to_kind(weight.kind())?.f_linear(weight, Some(bias))?.f_gelu("none")?;
        if self.config.dropout > 0.0 { noise.dropout(&active, self.config.dropout) } else { Ok(active) }
    }
}
