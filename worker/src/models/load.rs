//! Weights from a safetensors file.

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use tch::{Kind, Tensor};

use super::ModelError;
use super::config::EncoderConfig;
use super::parameters::Parameter;

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
) -> Result<Vec<Tensor>, ModelError> {
    let stored = Stored::open(config, file, bytes)?;
    config.parameters(with_pooler).iter().map(|parameter| stored.get_parameter(parameter)).collect()
}

/// Whether the file has a pooler for this encoder.
///
/// # Errors
/// When it is no whole safetensors file.
pub fn has_pooler(config: &EncoderConfig, file: &str, bytes: &[u8]) -> Result<bool, ModelError> {
    let stored = Stored::open(config, file, bytes)?;
    let parameters = config.parameters(true);
    let before = config.parameters_before(config.layers);
    Ok(parameters.iter().skip(before).all(|parameter| stored.find(&spellings(&parameter.name)).is_some()))
}

/// Reads the head that predicts masked tokens, f32 on the CPU; `None` where the file has none.
///
/// # Errors
/// As [`load`], when it has part of one.
pub fn load_mlm_head(
    config: &EncoderConfig,
    file: &str,
    bytes: &[u8],
) -> Result<Option<MlmHead>, ModelError> {
    let stored = Stored::open(config, file, bytes)?;
    let (dense, norm, bias) = config.mlm_names();
    if stored.find(&spellings(&format!("{dense}.weight"))).is_none() {
        return Ok(None);
    }
    let narrow = config.embedding_size;
    let part = |name: String, shape: &[i64]| stored.get(&spellings(&name), shape);
    Ok(Some(MlmHead {
        dense_weight: part(format!("{dense}.weight"), &[narrow, config.hidden])?,
        dense_bias: part(format!("{dense}.bias"), &[narrow])?,
        norm_weight: part(format!("{norm}.weight"), &[narrow])?,
        norm_bias: part(format!("{norm}.bias"), &[narrow])?,
        bias: stored.get(&bias.map(str::to_owned), &[config.vocabulary])?,
    }))
}

/// The names that a tensor may have, the canonical one first. TensorFlow's LayerNorm has a gamma and a beta, and the first
/// PyTorch files kept that.
fn spellings(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    for (new, old) in [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")] {
        if let Some(place) = name.strip_suffix(new) {
            names.push(format!("{place}{old}"));
        }
    }
    names
}

/// A safetensors file.
struct Stored<'a> {
    file: &'a str,
    prefix: &'static str,
    tensors: SafeTensors<'a>,
}

impl<'a> Stored<'a> {
    fn open(config: &EncoderConfig, file: &'a str, bytes: &'a [u8]) -> Result<Self, ModelError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| ModelError::Weights {
            file: file.to_owned(),
            reason: reason(&error, bytes.len()),
        })?;
        Ok(Self { file, prefix: config.prefix(), tensors })
    }

    fn find(&self, names: &[String]) -> Option<TensorView<'_>> {
        names.iter().find_map(|name| {
            let prefixed = format!("{}{name}", self.prefix);
            self.tensors.tensor(name).or_else(|_| self.tensors.tensor(&prefixed)).ok()
        })
    }

    fn get_parameter(&self, parameter: &Parameter) -> Result<Tensor, ModelError> {
        self.get(&spellings(&parameter.name), &parameter.shape)
    }

    fn get(&self, names: &[String], expected: &[i64]) -> Result<Tensor, ModelError> {
        let file = || self.file.to_owned();
        let name = || names.first().cloned().unwrap_or_default();
        let Some(view) = self.find(names) else {
            return Err(ModelError::Missing { file: file(), tensor: name(), expected: expected.to_vec() });
        };
        let found: Vec<i64> =
            view.shape().iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect();
        if found != expected {
            let expected = expected.to_vec();
            return Err(ModelError::Shape { file: file(), tensor: name(), found, expected });
        }
        let kind = match view.dtype() {
            Dtype::F64 => Kind::Double,
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                return Err(ModelError::Kind { file: file(), tensor: name(), found: format!("{other:?}") });
            }
        };
        Ok(Tensor::f_from_data_size(view.data(), expected, kind)?.f_to_kind(Kind::Float)?)
    }
}

/// What is wrong with a file, for people: the errors' own texts are names of the library's variants.
fn reason(error: &SafeTensorError, length: usize) -> String {
    match error {
        SafeTensorError::HeaderTooSmall
        | SafeTensorError::InvalidHeaderLength
        | SafeTensorError::MetadataIncompleteBuffer => {
            format!("its {length} bytes are not as many as its header says: it may have been cut short")
        }
        other => format!("{other:?}"),
    }
}
