//! The configuration of an encoder: `config.json` in the layout of Hugging Face.

use serde::Deserialize;

use super::ModelError;

/// Families of encoders. They differ in how positions count, in the names of their tensors, and in what is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// BERT (Devlin et al. 2019).
    Bert,
    /// RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): positions count from `pad_token_id` + 1.
    Roberta,
    /// ELECTRA (Clark et al. 2020): embeddings may be narrower than the layers. Its files have no pooler.
    Electra,
    /// ALBERT (Lan et al. 2020): embeddings may be narrower than the layers, and all layers share their parameters.
    Albert,
}

/// The architectures that are implemented: `model_type` and its family.
const FAMILIES: [(&str, Family); 5] = [
    ("bert", Family::Bert),
    ("roberta", Family::Roberta),
    ("xlm-roberta", Family::Roberta),
    ("electra", Family::Electra),
    ("albert", Family::Albert),
];

/// The architectures that are implemented, for messages.
pub(super) fn supported() -> String {
    FAMILIES.map(|(name, _)| name).join(", ")
}

/// The function between the two products of a layer's feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x·Φ(x) (Hendrycks and Gimpel 2016).
    Gelu,
    /// Its approximation by tanh (ibid.), `gelu_new` in files.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

const ACTIVATIONS: [(&str, Activation); 3] =
    [("gelu", Activation::Gelu), ("gelu_new", Activation::GeluTanh), ("relu", Activation::Relu)];

/// An encoder's configuration, as checked by [`EncoderConfig::parse`].
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Its family.
    pub family: Family,
    /// Rows of the word table.
    pub vocabulary: i64,
    /// Width of the layers, a multiple of `heads`.
    pub hidden: i64,
    /// Width of the embeddings, `hidden` where the family does not tell them apart.
    pub embedding_size: i64,
    /// Layers.
    pub layers: u32,
    /// Heads of a layer's attention.
    pub heads: i64,
    /// Width between the two products of the feed-forward part.
    pub intermediate: i64,
    /// Tokens that a sequence may have. RoBERTa never uses the first `pad_token_id` + 1 rows of its table.
    pub max_positions: i64,
    /// Rows of the table of token types.
    pub type_vocabulary: i64,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f64,
    /// Dropout probability of the embeddings and of what is added to the residual stream.
    pub hidden_dropout: f64,
    /// Dropout probability of the attention's weights.
    pub attention_dropout: f64,
    /// The function inside the feed-forward part.
    pub activation: Activation,
    /// The token that fills sequences up.
    pub pad_token_id: i64,
}

/// The file, before it is checked.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    vocab_size: Option<i64>,
    hidden_size: Option<i64>,
    embedding_size: Option<i64>,
    num_hidden_layers: Option<i64>,
    num_attention_heads: Option<i64>,
    intermediate_size: Option<i64>,
    max_position_embeddings: Option<i64>,
    type_vocab_size: Option<i64>,
    layer_norm_eps: Option<f64>,
    hidden_dropout_prob: Option<f64>,
    attention_probs_dropout_prob: Option<f64>,
    hidden_act: Option<String>,
    pad_token_id: Option<i64>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    num_hidden_groups: Option<i64>,
    inner_group_num: Option<i64>,
}

/// Checks numbers of one file.
struct Checked<'a> {
    file: &'a str,
}

impl Checked<'_> {
    fn setting(&self, key: &'static str, found: impl ToString, allowed: impl ToString) -> ModelError {
        let (found, allowed) = (found.to_string(), allowed.to_string());
        ModelError::Setting { file: self.file.to_owned(), key, found, allowed }
    }

    /// A whole number that has no default: the tensors' shapes depend on it.
    fn whole(&self, key: &'static str, value: Option<i64>, most: i64) -> Result<i64, ModelError> {
        match value {
            None => {
                Err(ModelError::Config { file: self.file.to_owned(), reason: format!("{key} is missing") })
            }
            Some(value) if (1..=most).contains(&value) => Ok(value),
            Some(value) => Err(self.setting(key, value, format_args!("1 to {most}"))),
        }
    }

    fn probability(&self, key: &'static str, value: f64) -> Result<f64, ModelError> {
        if (0.0..1.0).contains(&value) { Ok(value) } else { Err(self.setting(key, value, "[0, 1)")) }
    }
}

impl EncoderConfig {
    /// Reads and checks a `config.json`. `file` names it in errors.
    ///
    /// A file without `model_type` is one of BERT's: the first ones were written before there was such a key. What the
    /// file leaves out, the shapes aside, gets the default that transformers gives it.
    ///
    /// # Errors
    /// When it is no JSON, lacks a number, or asks for something that is not implemented.
    pub fn parse(file: &str, json: &[u8]) -> Result<Self, ModelError> {
        let raw: Raw = serde_json::from_slice(json)
            .map_err(|error| ModelError::Config { file: file.to_owned(), reason: error.to_string() })?;
        let check = Checked { file };
        let name = raw.model_type.as_deref().unwrap_or("bert");
        let Some((_, family)) = FAMILIES.into_iter().find(|(known, _)| *known == name) else {
            return Err(ModelError::Architecture { file: file.to_owned(), found: name.to_owned() });
        };

        let positions = raw.position_embedding_type.as_deref().unwrap_or("absolute");
        if positions != "absolute" {
            return Err(check.setting("position_embedding_type", positions, "absolute"));
        }
        if raw.is_decoder == Some(true) {
            return Err(check.setting("is_decoder", true, false));
        }
        for (key, groups) in
            [("num_hidden_groups", raw.num_hidden_groups), ("inner_group_num", raw.inner_group_num)]
        {
            if let (Family::Albert, Some(groups @ (..=0 | 2..))) = (family, groups) {
                return Err(check.setting(key, groups, 1));
            }
        }
        let albert = family == Family::Albert;
        let act = raw.hidden_act.as_deref().unwrap_or(if albert { "gelu_new" } else { "gelu" });
        let Some((_, activation)) = ACTIVATIONS.into_iter().find(|(known, _)| *known == act) else {
            return Err(check.setting("hidden_act", act, ACTIVATIONS.map(|(name, _)| name).join(", ")));
        };

        // Far above any model there is, and low enough that no shape's product overflows an i64.
        let vocabulary = check.whole("vocab_size", raw.vocab_size, 10_000_000)?;
        let hidden = check.whole("hidden_size", raw.hidden_size, 65_536)?;
        let layers = check.whole("num_hidden_layers", raw.num_hidden_layers, 1_000)?;
        let heads = check.whole("num_attention_heads", raw.num_attention_heads, hidden)?;
        if hidden % heads != 0 {
            return Err(check.setting("num_attention_heads", heads, format_args!("divisors of {hidden}")));
        }
        let embedding_size = match family {
            Family::Bert | Family::Roberta => hidden,
            Family::Electra | Family::Albert => {
                check.whole("embedding_size", Some(raw.embedding_size.unwrap_or(128)), 65_536)?
            }
        };
        let pad_token_id = raw.pad_token_id.unwrap_or(i64::from(family == Family::Roberta));
        if !(0..vocabulary).contains(&pad_token_id) {
            return Err(check.setting("pad_token_id", pad_token_id, format_args!("0 to {}", vocabulary - 1)));
        }
        let rows = check.whole("max_position_embeddings", raw.max_position_embeddings, 1 << 24)?;
        let unused = if family == Family::Roberta { pad_token_id + 1 } else { 0 };
        if rows <= unused {
            return Err(check.setting("max_position_embeddings", rows, format_args!("more than {unused}")));
        }
        let layer_norm_eps = raw.layer_norm_eps.unwrap_or(1e-12);
        if !(layer_norm_eps > 0.0 && layer_norm_eps < 1.0) {
            return Err(check.setting("layer_norm_eps", layer_norm_eps, "(0, 1)"));
        }
        let dropout = if albert { 0.0 } else { 0.1 };
        Ok(Self {
            family,
            vocabulary,
            hidden,
            embedding_size,
            layers: layers as u32,
            heads,
            intermediate: check.whole("intermediate_size", raw.intermediate_size, 1 << 20)?,
            max_positions: rows - unused,
            type_vocabulary: check.whole(
                "type_vocab_size",
                Some(raw.type_vocab_size.unwrap_or(2)),
                65_536,
            )?,
            layer_norm_eps,
            hidden_dropout: check
                .probability("hidden_dropout_prob", raw.hidden_dropout_prob.unwrap_or(dropout))?,
            attention_dropout: check.probability(
                "attention_probs_dropout_prob",
                raw.attention_probs_dropout_prob.unwrap_or(dropout),
            )?,
            activation,
            pad_token_id,
        })
    }

    /// The row of the position table that belongs to the first token of a sequence.
    pub(super) fn first_position(&self) -> i64 {
        if self.family == Family::Roberta { self.pad_token_id + 1 } else { 0 }
    }

    /// Whether there is dropout after the feed-forward part. ALBERT has none there, whatever its probability.
    pub(super) fn drops_feed_forward(&self) -> bool {
        self.family != Family::Albert
    }

    /// The function inside the head that predicts masked tokens: RoBERTa and ELECTRA fix it.
    pub(super) fn mlm_activation(&self) -> Activation {
        match self.family {
            Family::Bert | Family::Albert => self.activation,
            Family::Roberta | Family::Electra => Activation::Gelu,
        }
    }
}
