//! Weights from a safetensors file.

use evenkeel_common::encoder::{EncoderConfig, EncoderError, Stored};
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, TchError, Tensor};

/// The head with which an encoder was trained to predict masked tokens. Its decoder is the word table.
#[derive(Debug)]
pub struct MlmHead {
    /// Weight of the dense layer [E, H].
    pub dense_weight: Tensor,
    /// Bias of the dense layer [E].
    pub dense_bias: Tensor,
    /// Weight of LayerNorm [E].
    pub norm_weight: Tensor,
    /// Bias of LayerNorm [E].
    pub norm_bias: Tensor,
    /// Bias of the decoder [vocabulary].
    pub bias: Tensor,
}

/// Reads an encoder's parameters, f32 on the CPU, in the order of [`EncoderConfig::parameters`]. `file` names the file
/// in errors, `bytes` is its content.
///
/// Names may have the family's prefix or not; LayerNorm's `gamma` and `beta` of old files are its weight and bias. Other
/// tensors, heads for instance, are passed over.
///
/// # Errors
/// When it is no whole safetensors file, lacks a tensor, or holds one of another shape or not of floating-point numbers.
pub fn load(
    config: &EncoderConfig,
    file: &str,
    bytes: &[u8],
    with_pooler: bool,
) -> Result<Vec<Tensor>, EncoderError> {
    let stored = Stored::open(config, file, bytes)?;
    config.parameters(with_pooler).iter().map(|parameter| tensor(&stored.parameter(parameter)?)).collect()
}

/// Whether the file has a pooler for this encoder.
///
/// # Errors
/// When it is no whole safetensors file.
pub fn has_pooler(config: &EncoderConfig, file: &str, bytes: &[u8]) -> Result<bool, EncoderError> {
    Ok(Stored::open(config, file, bytes)?.has_pooler())
}

/// Reads the head that predicts masked tokens, f32 on the CPU; `None` where the file has none.
///
/// # Errors
/// As [`load`], when it has part of one.
pub fn load_mlm_head(
    config: &EncoderConfig,
    file: &str,
    bytes: &[u8],
) -> Result<Option<MlmHead>, EncoderError> {
    let stored = Stored::open(config, file, bytes)?;
    let (dense, norm, bias) = config.mlm_names();
    if !stored.has(&format!("{dense}.weight")) {
        return Ok(None);
    }
    let narrow = config.embedding_size;
    let part = |name: String, shape: &[i64]| tensor(&stored.tensor(&[&name], shape)?);
    Ok(Some(MlmHead {
        dense_weight: part(format!("{dense}.weight"), &[narrow, config.hidden])?,
        dense_bias: part(format!("{dense}.bias"), &[narrow])?,
        norm_weight: part(format!("{norm}.weight"), &[narrow])?,
        norm_bias: part(format!("{norm}.bias"), &[narrow])?,
        bias: tensor(&stored.tensor(&bias, &[config.vocabulary])?)?,
    }))
}

/// A stored tensor as an f32 one on the CPU.
fn tensor(view: &TensorView<'_>) -> Result<Tensor, EncoderError> {
    let kind = match view.dtype() {
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        // `Stored` gives no others than these four.
        _ => Kind::Float,
    };
    let shape: Vec<i64> = view.shape().iter().map(|length| *length as i64).collect();
    let read = || Tensor::f_from_data_size(view.data(), &shape, kind)?.f_to_kind(Kind::Float);
    read().map_err(|error: TchError| EncoderError::Backend(error.to_string()))
}
