//! Small encoders for synthetic data and feature vectors: their shape, their first weights, and their file.

use evenkeel_common::seed::{Key, Purpose};
use evenkeel_common::spec::Pooling;
use evenkeel_common::trial::SmallConfig;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use super::initial::start_anew;
use super::prepared::{Encoder, Guesses};
use crate::data::sequences::Grammar;
use crate::engine::EngineError;
use crate::models::{
    Activation, EncoderConfig, Family, MlmHead, Mlp, MlpConfig, Network, Parameter, Transformer,
};

/// A transformer for the sequences of a grammar: BERT's layers (Devlin et al. 2019), feed-forward part of four times the
/// width, positions for the longest sequence.
pub(super) fn transformer(config: &SmallConfig, grammar: &Grammar) -> Network {
    let hidden = i64::from(config.hidden);
    Network::Transformer(Transformer::new(EncoderConfig {
        family: Family::Bert,
        vocabulary: i64::from(grammar.vocabulary()),
        hidden,
        embedding_size: hidden,
        layers: config.layers,
        heads: i64::from(config.attention_heads.unwrap_or(1)),
        intermediate: 4 * hidden,
        max_positions: i64::from(grammar.longest()),
        type_vocabulary: 1,
        layer_norm_eps: 1e-12,
        hidden_dropout: config.dropout,
        attention_dropout: config.dropout,
        activation: Activation::Gelu,
        pad_token_id: 0,
    }))
}

/// A perceptron for vectors of `features` features.
pub(super) fn perceptron(config: &SmallConfig, features: usize) -> Network {
    Network::Mlp(Mlp {
        config: MlpConfig {
            inputs: features as i64,
            hidden: i64::from(config.hidden),
            layers: config.layers,
            dropout: config.dropout,
        },
    })
}

/// An encoder at its first weights.
pub(super) fn fresh(
    network: Network,
    pooling: Pooling,
    key: &Key,
    device: tch::Device,
) -> Result<Encoder, EngineError> {
    let mut values = Vec::new();
    for (at, parameter) in (0..).zip(network.parameters(false)) {
        let mut value = Tensor::f_empty(&parameter.shape, (Kind::Float, tch::Device::Cpu))?;
        let norm = parameter.name.ends_with("LayerNorm.weight");
        start_anew(&network, &mut value, norm, key.stream(Purpose::Reinitialization, 0, at))?;
        values.push(value.f_to_device(device)?);
    }
    Ok(Encoder::small(network, pooling, values, None))
}

/// Names and shapes of the head that guesses what was masked.
fn head(network: &Network) -> Vec<(String, Vec<i64>)> {
    let named = |prefix: &str, parts: Vec<(&str, Vec<i64>)>| {
        parts.into_iter().map(|(part, shape)| (format!("{prefix}.{part}"), shape)).collect()
    };
    match network {
        Network::Transformer(network) => {
            let (wide, words) = (network.config().hidden, network.config().vocabulary);
            let parts = vec![
                ("transform.dense.weight", vec![wide, wide]),
                ("transform.dense.bias", vec![wide]),
                ("transform.LayerNorm.weight", vec![wide]),
                ("transform.LayerNorm.bias", vec![wide]),
                ("bias", vec![words]),
            ];
            // As BERT's files name them.
            named("cls.predictions", parts)
        }
        Network::Mlp(network) => {
            let MlpConfig { inputs, hidden, .. } = network.config;
            named("masked_features", vec![("weight", vec![inputs, hidden]), ("bias", vec![inputs])])
        }
    }
}

fn entries(network: &Network) -> Vec<(String, Vec<i64>)> {
    let own = network.parameters(false).into_iter().map(|Parameter { name, shape, .. }| (name, shape));
    own.chain(head(network)).collect()
}

/// Bytes of a pre-trained encoder: `values` are its tensors and then those of the head, in order.
pub(super) fn to_bytes(network: &Network, values: &[Tensor]) -> Result<Vec<u8>, EngineError> {
    let fail = |error: safetensors::SafeTensorError| {
        EngineError::Other(format!("an encoder cannot be written: {error}"))
    };
    let mut named: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for ((name, shape), value) in entries(network).into_iter().zip(values) {
        let numbers: Vec<f32> = Vec::try_from(value.f_to_device(tch::Device::Cpu)?.f_flatten(0, -1)?)?;
        let shape = shape.into_iter().map(|length| length as usize).collect();
        named.push((name, shape, numbers.into_iter().flat_map(f32::to_le_bytes).collect()));
    }
    let views = named
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(fail)?;
    safetensors::serialize(views, &None).map_err(fail)
}

/// A pre-trained encoder from its bytes; none when they are not those of this network.
pub(super) fn from_bytes(
    network: Network,
    pooling: Pooling,
    bytes: &[u8],
    device: tch::Device,
) -> Option<Encoder> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let mut values = Vec::new();
    for (name, shape) in entries(&network) {
        let view = file.tensor(&name).ok()?;
        let same = view.shape().iter().map(|length| *length as i64).eq(shape.iter().copied());
        if !same || view.dtype() != Dtype::F32 {
            return None;
        }
        let value = Tensor::f_from_data_size(view.data(), &shape, Kind::Float).ok()?;
        values.push(value.f_to_device(device).ok()?);
    }
    let mut head = values.split_off(network.parameters(false).len()).into_iter();
    let mut next = || head.next();
    let guesses = match &network {
        Network::Transformer(_) => Guesses::Tokens(MlmHead {
            dense_weight: next()?,
            dense_bias: next()?,
            norm_weight: next()?,
            norm_bias: next()?,
            bias: next()?,
        }),
        Network::Mlp(_) => Guesses::Features { weight: next()?, bias: next()? },
    };
    Some(Encoder::small(network, pooling, values, Some(guesses)))
}
