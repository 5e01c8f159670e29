//! Encoders: transformers in the layout of Hugging Face (BERT, RoBERTa, ELECTRA, ALBERT), and small perceptrons.
//!
//! | module | holds |
//! |---|---|
//! | [`load`] | weights from a safetensors file |
//! | [`batch`] | sequences of tokens without their padding |
//! | [`transformer`] | from tokens to vectors, as functions of the parameters |
//! | [`mlp`] | the same from feature vectors |
//! | [`network`] | both behind one face |
//!
//! What a configuration says, and which tensors an encoder has, is in [`evenkeel_common::encoder`].
//!
//! An encoder has no state. Its parameters are a slice of tensors in a fixed order, so that a caller may pass other
//! tensors than the stored ones: mixed with the pre-trained ones, with low-rank terms added, or of another precision.

pub mod batch;
pub mod load;
pub mod mlp;
pub mod network;
pub mod transformer;

pub use batch::Batch;
pub use evenkeel_common::encoder::{
    Activation, EncoderConfig, EncoderError as ModelError, Family, Group, Parameter,
};
pub use evenkeel_common::spec::Pooling;
pub use load::{MlmHead, has_pooler, load, load_mlm_head};
pub use mlp::{Mlp, MlpConfig};
pub use network::{Input, Network};
pub use transformer::{Noise, Quiet, Transformer};
