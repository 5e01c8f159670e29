//! Pre-trained encoders in the layout of Hugging Face: their configuration, which tensors they have, what a file holds.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | `config.json`, checked |
//! | [`parameters`] | which tensors an encoder has, in which order, and what files call them |
//! | [`stored`] | the tensors of a safetensors file, by name and checked by shape |
//!
//! Pure: bytes in, so that a sweep's models are checked where it is submitted, before any worker loads them.

pub mod config;
pub mod parameters;
pub mod stored;

pub use config::{Activation, EncoderConfig, Family};
pub use parameters::{Group, Parameter};
pub use stored::Stored;

use config::supported;

/// Why an encoder cannot be had from its files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncoderError {
    /// The configuration is no JSON, or lacks a number that has no default.
    #[error("{file}: {reason}")]
    Config {
        /// The configuration.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An architecture that is not implemented.
    #[error("{file}: found model_type `{found}`; allowed: {}", supported())]
    Architecture {
        /// The configuration.
        file: String,
        /// Its architecture.
        found: String,
    },
    /// A setting that is not implemented, or makes no sense.
    #[error("{file}: found {key} {found}; allowed: {allowed}")]
    Setting {
        /// The configuration.
        file: String,
        /// The setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// The values that it may have.
        allowed: String,
    },
    /// The weights are no safetensors file, or only part of one.
    #[error("{file}: no safetensors file: {reason}")]
    Weights {
        /// The weights.
        file: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A tensor that is not in the file.
    #[error("{file}: found no tensor `{tensor}`; the configuration asks for one of shape {expected:?}")]
    Missing {
        /// The weights.
        file: String,
        /// Its name.
        tensor: String,
        /// The shape it should have.
        expected: Vec<i64>,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{file}: found tensor `{tensor}` of shape {found:?}; the configuration asks for {expected:?}")]
    Shape {
        /// The weights.
        file: String,
        /// Its name.
        tensor: String,
        /// Its shape.
        found: Vec<i64>,
        /// The shape it should have.
        expected: Vec<i64>,
    },
    /// A tensor whose elements are not floating-point numbers that libtorch reads.
    #[error("{file}: found tensor `{tensor}` of type {found}; allowed: F64, F32, F16, BF16")]
    Kind {
        /// The weights.
        file: String,
        /// Its name.
        tensor: String,
        /// Its type, as the file says.
        found: String,
    },
    /// The library that computes failed: there is too little memory.
    #[error("{0}")]
    Backend(String),
}
