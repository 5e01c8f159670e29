//! From tokens to vectors: the encoder of Vaswani et al. 2017 with LayerNorm after each sublayer, as BERT (Devlin et al.
//! 2019) and its relatives have it, as functions of the parameters.

use evenkeel_common::encoder::{Activation, EncoderConfig};
use evenkeel_common::spec::Pooling;
use tch::{Kind, TchError, Tensor};

use super::batch::Batch;
use super::load::MlmHead;

/// What disturbs an encoder while it is trained.
///
/// An encoder asks at fixed sites in a fixed order: for the embeddings; then in each layer for the attention's weights,
/// for the attention's output, and (not in ALBERT) for the feed-forward part's output. A site whose probability is 0 is
/// left out.
pub trait Noise {
    /// Inverted dropout with probability `p`, which is above 0 (Srivastava et al. 2014, scaled at training time).
    /// `x` is [N, H] for the tokens' vectors, N without padding, and [B, heads, queries, L] for the attention's weights.
    /// Where only the first tokens' vectors are still needed, it is [B, H], with 1 query.
    ///
    /// # Errors
    /// When there is too little memory.
    fn dropout(&mut self, x: &Tensor, p: f64) -> Result<Tensor, TchError>;

    /// Whether it changes nothing: a faster attention without dropout is used then.
    fn is_quiet(&self) -> bool {
        false
    }
}

/// No noise: evaluation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Noise for Quiet {
    fn dropout(&mut self, x: &Tensor, _: f64) -> Result<Tensor, TchError> {
        Ok(x.shallow_clone())
    }

    fn is_quiet(&self) -> bool {
        true
    }
}

/// An encoder of a configuration. Parameters are passed in the order of [`EncoderConfig::parameters`], all of one type
/// and on the batch's device; the word table may have other rows than the stored one, as long as the batch's ids mean
/// them. Errors are libtorch's: shapes that do not fit, or too little memory.
#[derive(Clone, Debug)]
pub struct Transformer {
    config: EncoderConfig,
}

/// Which tokens' vectors a layer computes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queries {
    All,
    /// Only the first of each sequence.
    First,
}

impl Transformer {
    /// An encoder of this configuration; its dropout probabilities are the configuration's.
    #[must_use]
    pub fn new(config: EncoderConfig) -> Self {
        Self { config }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Tokens to what the first layer reads, [N, H].
    ///
    /// # Errors
    /// When a sequence is longer than the encoder's positions, an id is in no table, or libtorch fails.
    pub fn embed(&self, p: &[Tensor], batch: &Batch, noise: &mut dyn Noise) -> Result<Tensor, TchError> {
        if batch.length() > self.config.max_positions {
            return Err(TchError::Shape(format!(
                "a sequence of {} tokens; the encoder takes {}",
                batch.length(),
                self.config.max_positions
            )));
        }
        let positions = batch.positions().f_add_scalar(self.config.first_position())?;
        let sum = look_up(get(p, 0)?, batch.ids())?
            .f_add(&look_up(get(p, 2)?, batch.types())?)?
            .f_add(&look_up(get(p, 1)?, &positions)?)?;
        let normal = self.norm(p, 3, &sum)?;
        let embedded = self.drop(&normal, self.config.hidden_dropout, noise)?;
        if self.config.has_projection() { linear(p, 5, &embedded) } else { Ok(embedded) }
    }

    /// Layer `i`, from [N, H] to [N, H].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn layer(
        &self,
        p: &[Tensor],
        i: u32,
        hidden: &Tensor,
        batch: &Batch,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        self.layer_for(Queries::All, p, i, hidden, batch, noise)
    }

    /// Tokens to the vectors after the last layer, [N, H].
    ///
    /// # Errors
    /// As [`Transformer::embed`].
    pub fn encode(&self, p: &[Tensor], batch: &Batch, noise: &mut dyn Noise) -> Result<Tensor, TchError> {
        let mut hidden = self.embed(p, batch, noise)?;
        for i in 0..self.config.layers {
            hidden = self.layer(p, i, &hidden, batch, noise)?;
        }
        Ok(hidden)
    }

    /// The vectors [N, H] of all tokens to one vector a sequence, [B, H].
    ///
    /// # Errors
    /// When libtorch fails, or there is no pooler among the parameters where one is asked for.
    pub fn pool(
        &self,
        p: &[Tensor],
        hidden: &Tensor,
        batch: &Batch,
        pooling: Pooling,
    ) -> Result<Tensor, TchError> {
        match pooling {
            Pooling::Mean => batch.mean(hidden),
            Pooling::Cls => batch.first(hidden),
            Pooling::Pooler => self.pooler(p, &batch.first(hidden)?),
        }
    }

    /// Tokens to one vector a sequence, [B, H]: [`Transformer::encode`] and [`Transformer::pool`] in one. Where pooling
    /// reads the first token alone, the last layer computes no other, which saves most of that layer's work; the values
    /// are the same up to rounding.
    ///
    /// # Errors
    /// As these two.
    pub fn features(
        &self,
        p: &[Tensor],
        batch: &Batch,
        pooling: Pooling,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        let mut hidden = self.embed(p, batch, noise)?;
        for i in 0..self.config.layers.saturating_sub(1) {
            hidden = self.layer(p, i, &hidden, batch, noise)?;
        }
        self.top(p, &hidden, batch, pooling, noise)
    }

    /// What the last layer reads, [N, H], to one vector a sequence, [B, H]: that layer and pooling.
    ///
    /// # Errors
    /// When libtorch fails, or there is no pooler among the parameters where one is asked for.
    pub fn top(
        &self,
        p: &[Tensor],
        hidden: &Tensor,
        batch: &Batch,
        pooling: Pooling,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        let last = self.config.layers.saturating_sub(1);
        if pooling == Pooling::Mean {
            return batch.mean(&self.layer(p, last, hidden, batch, noise)?);
        }
        let first = self.layer_for(Queries::First, p, last, hidden, batch, noise)?;
        if pooling == Pooling::Pooler { self.pooler(p, &first) } else { Ok(first) }
    }

    /// Scores of all words for the tokens of `rows` [M, H], some of those that [`Transformer::encode`] returned: [M, V].
    /// The decoder is the word table [V, E] of `p` (tied, as in pre-training), so the head's bias has V numbers.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn mlm_logits(&self, p: &[Tensor], head: &MlmHead, rows: &Tensor) -> Result<Tensor, TchError> {
        let dense = rows.f_linear(&head.dense_weight, Some(&head.dense_bias))?;
        let normal = layer_norm(
            &activate(self.config.mlm_activation(), &dense)?,
            &head.norm_weight,
            &head.norm_bias,
            self.config.layer_norm_eps,
        )?;
        normal.f_linear(get(p, 0)?, Some(&head.bias))
    }

    /// As [`Transformer::layer`], for some of the tokens: [N, H] or [B, H].
    fn layer_for(
        &self,
        queries: Queries,
        p: &[Tensor],
        i: u32,
        hidden: &Tensor,
        batch: &Batch,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        let at = self.config.parameters_before(i);
        let first = match queries {
            Queries::All => None,
            Queries::First => Some(batch.first(hidden)?),
        };
        let residual = first.as_ref().unwrap_or(hidden);

        let context = self.attention(p, at, hidden, first.as_ref(), batch, noise)?;
        let attended = linear(p, at + 6, &context)?;
        let attended = self.drop(&attended, self.config.hidden_dropout, noise)?;
        let attended = self.norm(p, at + 8, &attended.f_add(residual)?)?;

        let inner = activate(self.config.activation, &linear(p, at + 10, &attended)?)?;
        let mut outer = linear(p, at + 12, &inner)?;
        if self.config.drops_feed_forward() {
            outer = self.drop(&outer, self.config.hidden_dropout, noise)?;
        }
        self.norm(p, at + 14, &outer.f_add(&attended)?)
    }

    /// softmax(Q·Kᵀ/√d)·V of each head, for all tokens [N, H], or with `first` [B, H] for these.
    ///
    /// Three products and not one with the joint weights of Q, K and V: at 384 columns a product already runs at the speed
    /// of the core, and joining the weights costs a copy of them in each direction.
    fn attention(
        &self,
        p: &[Tensor],
        at: usize,
        hidden: &Tensor,
        first: Option<&Tensor>,
        batch: &Batch,
        noise: &mut dyn Noise,
    ) -> Result<Tensor, TchError> {
        let (b, l, heads) = (batch.sequences(), batch.length(), self.config.heads);
        let d = self.config.hidden / heads;
        let split = |x: Tensor| x.f_reshape([b, -1, heads, d])?.f_transpose(1, 2);
        let q = match first {
            None => split(batch.spread(&linear(p, at, hidden)?)?)?,
            Some(first) => split(linear(p, at, first)?)?,
        };
        let k = split(batch.spread(&linear(p, at + 2, hidden)?)?)?;
        let v = split(batch.spread(&linear(p, at + 4, hidden)?)?)?;
        let bias = batch.bias(hidden.kind())?;

        let probability = self.config.attention_dropout;
        let mixed = if noise.is_quiet() || probability == 0.0 {
            let scale = None::<f64>;
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, bias.as_ref(), 0.0, false, scale, false)?
        } else {
            // libtorch's own attention with dropout draws its masks itself. Here one product adds the bias and scales.
            let n = b * heads;
            let queries = if first.is_some() { 1 } else { l };
            let flat = |x: &Tensor, rows: i64| x.f_reshape([n, rows, d]);
            let (q, k) = (flat(&q, queries)?, flat(&k, l)?.f_transpose(1, 2)?);
            let scale = 1.0 / (d as f64).sqrt();
            let scores = match bias {
                Some(bias) => bias
                    .f_expand([b, heads, 1, l], false)?
                    .f_reshape([n, 1, l])?
                    .f_baddbmm(&q, &k, 1.0, scale)?,
                // With a factor of 0 before it, the sum's first part is not read.
                None => Tensor::f_zeros([1, 1, 1], (q.kind(), q.device()))?.f_baddbmm(&q, &k, 0.0, scale)?,
            };
            let weights = scores.f_softmax(-1, None::<Kind>)?.f_reshape([b, heads, queries, l])?;
            let weights = noise.dropout(&weights, probability)?.f_reshape([n, queries, l])?;
            weights.f_bmm(&flat(&v, l)?)?.f_reshape([b, heads, queries, d])?
        };
        let joined = mixed.f_transpose(1, 2)?.f_reshape([b, -1, self.config.hidden])?;
        match first {
            None => batch.rows(&joined),
            Some(_) => joined.f_reshape([b, -1]),
        }
    }

    fn pooler(&self, p: &[Tensor], first: &Tensor) -> Result<Tensor, TchError> {
        linear(p, self.config.parameters_before(self.config.layers), first)?.f_tanh()
    }

    fn norm(&self, p: &[Tensor], at: usize, x: &Tensor) -> Result<Tensor, TchError> {
        layer_norm(x, get(p, at)?, get(p, at + 1)?, self.config.layer_norm_eps)
    }

    fn drop(&self, x: &Tensor, p: f64, noise: &mut dyn Noise) -> Result<Tensor, TchError> {
        if p > 0.0 { noise.dropout(x, p) } else { Ok(x.shallow_clone()) }
    }
}

/// An activation, of each element.
fn activate(activation: Activation, x: &Tensor) -> Result<Tensor, TchError> {
    match activation {
        Activation::Gelu => x.f_gelu("none"),
        Activation::GeluTanh => x.f_gelu("tanh"),
        Activation::Relu => x.f_relu(),
    }
}

fn get(p: &[Tensor], at: usize) -> Result<&Tensor, TchError> {
    p.get(at)
        .ok_or_else(|| TchError::Shape(format!("{} parameters; the encoder has more than {at}", p.len())))
}

/// The rows of a table. Every row may be trained: padding, which has none of its own in training, is not looked up.
fn look_up(table: &Tensor, ids: &Tensor) -> Result<Tensor, TchError> {
    Tensor::f_embedding(table, ids, -1, false, false)
}

/// x·Wᵀ + b with W and b at `at` and after it.
fn linear(p: &[Tensor], at: usize, x: &Tensor) -> Result<Tensor, TchError> {
    x.f_linear(get(p, at)?, Some(get(p, at + 1)?))
}

/// LayerNorm over the last dimension (Ba et al. 2016).
fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor, TchError> {
    x.f_layer_norm(weight.size(), Some(weight), Some(bias), eps, true)
}
