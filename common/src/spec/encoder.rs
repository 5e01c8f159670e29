//! Encoders: what turns an input into a feature vector.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What turns an input into a feature vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// `huggingface`: how the vectors of a text's tokens become one (default `pooler` when the file has its weights,
    /// else `cls`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
}

impl ModelSpec {
    /// An encoder with nothing else said.
    #[must_use]
    pub fn of(encoder: Encoder) -> Self {
        Self { name: None, encoder, path: None, revision: None, pooling: None }
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
