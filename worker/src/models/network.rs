//! The encoders that can be fine-tuned, behind one face: an input layer, layers, and one vector for each input.

use evenkeel_common::encoder::Parameter;
use evenkeel_common::spec::Pooling;
use tch::{TchError, Tensor};

use super::batch::Batch;
use super::mlp::{Mlp, MlpConfig};
use super::transformer::{Noise, Transformer};

/// An encoder as functions of its parameters.
#[derive(Clone, Debug)]
pub enum Network {
    /// Reads tokens.
    Transformer(Transformer),
    /// Reads feature vectors.
    Mlp(Mlp),
}

/// What an encoder reads.
#[derive(Debug)]
pub enum Input {
    /// Sequences of tokens.
    Tokens(Batch),
    /// Feature vectors [B, d].
    Vectors(Tensor),
}

fn misfit() -> TchError {
    TchError::Shape("a transformer reads tokens, and a perceptron feature vectors".to_owned())
}

impl Network {
    /// Its parameters in the order in which they are passed.
    #[must_use]
    pub fn parameters(&self, with_pooler: bool) -> Vec<Parameter> {
        match self {
            Self::Transformer(network) => network.config().parameters(with_pooler),
            Self::Mlp(network) => network.config.parameters(),
        }
    }

    /// Width of its layers, and number of the features it gives.
    #[must_use]
    pub fn hidden(&self) -> i64 {
        match self {
            Self::Transformer(network) => network.config().hidden,
            Self::Mlp(network) => network.config.hidden,
        }
    }

    /// Layers above the embeddings or the input layer.
    #[must_use]
    pub fn layers(&self) -> u32 {
        match self {
            Self::Transformer(network) => network.config().layers,
            Self::Mlp(network) => network.config.layers,
        }
    }

    /// The same with other dropout probabilities.
    #[must_use]
    pub fn with_dropout(&self, p: f64) -> Self {
        match self {
            Self::Transformer(network) => {
                let mut config = network.config().clone();
                (config.hidden_dropout, config.attention_dropout) = (p, p);
                Self::Transformer(Transformer::new(config))
            }
            Self::Mlp(network) => {
                Self::Mlp(Mlp { config: MlpConfig { dropout: p, ..network.config.clone() } })
            }
        }
    }

    /// Standard deviation of the first weights of a linear layer with `inputs` inputs: 0.02 in a transformer, whose layer
    /// norms make up for it (Devlin et al. 2019), and √(2/inputs) in a perceptron (He et al. 2015).
    #[must_use]
    pub fn first_std(&self, inputs: i64) -> f64 {
        match self {
            Self::Transformer(_) => 0.02,
            Self::Mlp(_) => libm::sqrt(2.0 / inputs.max(1) as f64),
        }
    }

    /// What the first layer reads.
    ///
    /// # Errors
    /// When the input is of the other kind or does not fit, or libtorch fails.
    pub fn embed(&self, p: &[Tensor], input: &Input, noise: &mut dyn Noise) -> Result<Tensor, TchError> {
        match (self, input) {
            (Self::Transformer(network), Input::Tokens(batch)) => network.embed(p, batch, noise),
            (Self::Mlp(network), Input::Vectors(x)) => network.embed(p, x, noise),
            _ => Err(misfit()),
        }
    }

    /// Layer `i`.
    ///
    /// # Errors
    /// As [`Network::embed`].
    pub fn layer(
        &self,
        p: &[Tensor],
        i: u32,
        hidden: &Tensor,
        input: &Input,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        match (self, input) {
            (Self::Transformer(network), Input::Tokens(batch)) => network.layer(p, i, hidden, batch, noise),
            (Self::Mlp(network), Input::Vectors(_)) => network.layer(p, i, hidden, noise),
            _ => Err(misfit()),
        }
    }

    /// What comes out of the last layer, for each token or input.
    ///
    /// # Errors
    /// As [`Network::embed`].
    pub fn encode(&self, p: &[Tensor], input: &Input, noise: &mut dyn Noise) -> Result<Tensor, TchError> {
        let mut hidden = self.embed(p, input, noise)?;
        for i in 0..self.layers() {
            hidden = self.layer(p, i, &hidden, input, noise)?;
        }
        Ok(hidden)
    }

    /// What the last layer reads, to one vector for each input.
    ///
    /// # Errors
    /// As [`Network::embed`].
    pub fn top(
        &self,
        p: &[Tensor],
        hidden: &Tensor,
        input: &Input,
        pooling: Pooling,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        match (self, input) {
            (Self::Transformer(network), Input::Tokens(batch)) => {
                network.top(p, hidden, batch, pooling, noise)
            }
            (Self::Mlp(network), Input::Vectors(_)) => {
                network.layer(p, network.config.layers.saturating_sub(1), hidden, noise)
            }
            _ => Err(misfit()),
        }
    }

    /// What comes out of the last layer, to one vector for each input.
    ///
    /// # Errors
    /// As [`Network::embed`].
    pub fn pool(
        &self,
        p: &[Tensor],
        hidden: &Tensor,
        input: &Input,
        pooling: Pooling,
    ) -> Result<Tensor, TchError> {
        match (self, input) {
            (Self::Transformer(network), Input::Tokens(batch)) => network.pool(p, hidden, batch, pooling),
            (Self::Mlp(_), Input::Vectors(_)) => Ok(hidden.shallow_clone()),
            _ => Err(misfit()),
        }
    }

    /// From inputs to one vector for each.
    ///
    /// # Errors
    /// As [`Network::embed`].
    pub fn features(
        &self,
        p: &[Tensor],
        input: &Input,
        pooling: Pooling,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        let mut hidden = self.embed(p, input, noise)?;
        for i in 0..self.layers().saturating_sub(1) {
            hidden = self.layer(p, i, &hidden, input, noise)?;
        }
        self.top(p, &hidden, input, pooling, noise)
    }
}
