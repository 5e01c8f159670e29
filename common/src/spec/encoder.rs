//! Encoders: what turns an input into a feature vector.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What turns an input into a feature vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name in results; the folder's name (or the encoder's) if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The encoder.
    pub encoder: Encoder,
    /// `huggingface`: a folder with `config.json`, `model.safetensors` and `tokenizer.json` (relative to the spec's
    /// folder), or the name of a model on the hub (`owner/name`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `huggingface`: branch, tag or commit of a model on the hub (default `main`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `huggingface`, `transformer`: how the vectors of the tokens become one (default `pooler` when the file has its
    /// weights, else `cls`; `mean` for `transformer`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// `transformer`, `mlp`: layers above the embeddings or the input layer (default 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u32>,
    /// `transformer`, `mlp`: width of the layers, which is the number of features it gives (default 64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<u32>,
    /// `transformer`: heads of the attention; they divide `hidden` (default 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_heads: Option<u32>,
    /// `transformer`, `mlp`: dropout probability in training (default 0.1 for `transformer`, 0 for `mlp`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// `transformer`, `mlp`: how it is trained without labels before any trial sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<PretrainSpec>,
}

/// Pre-training of a small encoder without labels: masked tokens for `transformer`, masked features for `mlp`. A cluster
/// does it once for an encoder and a corpus, and keeps the result in its store.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainSpec {
    /// Unlabelled samples, drawn like the training set but independent of it. A feature file gives all rows that are not
    /// held out as test set, whatever this says.
    #[serde(default = "ten_thousand")]
    pub samples: u32,
    /// Passes over them; 0 leaves the encoder at its random first weights.
    #[serde(default = "five")]
    pub epochs: u32,
    /// Examples of a step.
    #[serde(default = "thirty_two")]
    pub batch_size: u32,
    /// Peak step size of AdamW.
    #[serde(default = "one_thousandth")]
    pub learning_rate: f64,
    /// Share of the tokens or features that are to be guessed.
    #[serde(default = "as_bert")]
    pub mask: f64,
}

fn ten_thousand() -> u32 {
    10_000
}
fn five() -> u32 {
    5
}
fn thirty_two() -> u32 {
    32
}
fn one_thousandth() -> f64 {
    1e-3
}
fn as_bert() -> f64 {
    0.15
}

impl Default for PretrainSpec {
    fn default() -> Self {
        Self {
            samples: ten_thousand(),
            epochs: five(),
            batch_size: thirty_two(),
            learning_rate: one_thousandth(),
            mask: as_bert(),
        }
    }
}

impl ModelSpec {
    /// An encoder with nothing else said.
    #[must_use]
    pub fn of(encoder: Encoder) -> Self {
        Self {
            name: None,
            encoder,
            path: None,
            revision: None,
            pooling: None,
            layers: None,
            hidden: None,
            attention_heads: None,
            dropout: None,
            pretrain: None,
        }
    }
}

/// Kinds of encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoder {
    /// Features as they are.
    Identity,
    /// A pre-trained transformer in the layout of Hugging Face: BERT, RoBERTa and their like.
    Huggingface,
    /// A small transformer for `token_sequences`, pre-trained here on a corpus of the same grammar.
    Transformer,
    /// A small multi-layer perceptron for feature vectors, pre-trained here on unlabelled ones.
    Mlp,
}

impl Encoder {
    /// Its name in specs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Huggingface => "huggingface",
            Self::Transformer => "transformer",
            Self::Mlp => "mlp",
        }
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The vector of the first token.
    Cls,
    /// The mean over the tokens that are no padding.
    Mean,
    /// The first token's vector through the pre-trained layer tanh(Wx + b) (Devlin et al. 2019).
    Pooler,
}
