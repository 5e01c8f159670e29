//! The tensors of a safetensors file.

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};

use super::EncoderError;
use super::config::EncoderConfig;
use super::parameters::{Group, Parameter};
use crate::id::ContentHash;
use crate::inputs::ModelInfo;
use crate::spec::Pooling;

/// A safetensors file that holds an encoder, under the names of its family.
///
/// Names may have the family's prefix or not; LayerNorm's `gamma` and `beta` of old files are its weight and bias. Other
/// tensors, heads for instance, are passed over.
pub struct Stored<'a> {
    config: &'a EncoderConfig,
    file: &'a str,
    tensors: SafeTensors<'a>,
}

impl<'a> Stored<'a> {
    /// Reads the list of a file's tensors. `file` names it in errors.
    ///
    /// # Errors
    /// When it is no whole safetensors file.
    pub fn open(config: &'a EncoderConfig, file: &'a str, bytes: &'a [u8]) -> Result<Self, EncoderError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| EncoderError::Weights {
            file: file.to_owned(),
            reason: reason(&error, bytes.len()),
        })?;
        Ok(Self { config, file, tensors })
    }

    fn find(&self, names: &[String]) -> Option<TensorView<'_>> {
        names.iter().find_map(|name| {
            let prefixed = format!("{}{name}", self.config.prefix());
            self.tensors.tensor(name).or_else(|_| self.tensors.tensor(&prefixed)).ok()
        })
    }

    /// Whether a tensor is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(&spellings(name)).is_some()
    }

    /// Whether the file has a pooler for this encoder.
    #[must_use]
    pub fn has_pooler(&self) -> bool {
        let parameters = self.config.parameters(true);
        parameters.iter().filter(|p| p.group == Group::Pooler).all(|parameter| self.has(&parameter.name))
    }

    /// An encoder's parameter.
    ///
    /// # Errors
    /// When it is missing, of another shape, or not of floating-point numbers.
    pub fn parameter(&self, parameter: &Parameter) -> Result<TensorView<'_>, EncoderError> {
        self.tensor(&[&parameter.name], &parameter.shape)
    }

    /// A tensor by any of its names, of which errors tell the first.
    ///
    /// # Errors
    /// When it is missing, of another shape, or not of floating-point numbers.
    pub fn tensor(&self, names: &[&str], expected: &[i64]) -> Result<TensorView<'_>, EncoderError> {
        let file = || self.file.to_owned();
        let tensor = || names.first().map(|name| (*name).to_owned()).unwrap_or_default();
        let spelled: Vec<String> = names.iter().flat_map(|name| spellings(name)).collect();
        let Some(view) = self.find(&spelled) else {
            return Err(EncoderError::Missing {
                file: file(),
                tensor: tensor(),
                expected: expected.to_vec(),
            });
        };
        let found: Vec<i64> =
            view.shape().iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect();
        if found != expected {
            let expected = expected.to_vec();
            return Err(EncoderError::Shape { file: file(), tensor: tensor(), found, expected });
        }
        match view.dtype() {
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(view),
            other => Err(EncoderError::Kind { file: file(), tensor: tensor(), found: format!("{other:?}") }),
        }
    }
}

impl EncoderConfig {
    /// What a sweep needs to know of a model, once every tensor of it was found in its file.
    ///
    /// # Errors
    /// When a tensor is missing, of another shape or type; the pooler's only where `pooling` asks for it.
    pub fn inspect(
        &self,
        file: &str,
        bytes: &[u8],
        pooling: Option<Pooling>,
        content: &ContentHash,
    ) -> Result<ModelInfo, EncoderError> {
        let stored = Stored::open(self, file, bytes)?;
        let parameters = self.parameters(pooling == Some(Pooling::Pooler));
        for parameter in &parameters {
            stored.parameter(parameter)?;
        }
        let of_layers = parameters.iter().filter(|parameter| matches!(parameter.group, Group::Layer(_)));
        let weights: i64 = of_layers.map(|parameter| parameter.shape.iter().product::<i64>()).sum();
        // Layers that share their weights are still passed one by one.
        let passes = if parameters.iter().any(|p| p.group == Group::Layer(1)) { 1 } else { self.layers };
        let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(ModelInfo {
            content: content.to_hex(),
            hidden: small(self.hidden),
            layers: self.layers,
            layer_weights: weights.unsigned_abs() * u64::from(passes.max(1)),
            max_length: small(self.max_positions),
            pooler: stored.has_pooler(),
        })
    }
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
