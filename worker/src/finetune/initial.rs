//! Weights that are drawn: classifiers, and layers that start anew.

use evenkeel_common::seed::{Purpose, Stream};
use tch::{Kind, Tensor};

use super::run::Setup;
use crate::models::Network;

/// H classifiers, weights [H·C, d] and biases [H·C], each with initial weights that depend on the dataset, the seed and its
/// number alone: strategies and refits share them (common random numbers).
pub(super) fn fresh_heads(setup: &Setup<'_>) -> Result<(Tensor, Option<Tensor>), tch::TchError> {
    let (heads, d) = (setup.strategy.heads, setup.encoder.network.hidden());
    let classes = setup.data.data.classes as i64;
    let mut weights: Vec<f32> = Vec::new();
    for head in 0..heads {
        let mut stream =
            setup.key.stream(Purpose::HeadInitialization, setup.seeds.initialization, u64::from(head));
        weights.extend((0..classes * d).map(|_| (setup.strategy.init_std * stream.normal()) as f32));
    }
    let rows = i64::from(heads) * classes;
    let weight = Tensor::f_from_slice(&weights)?.f_view([rows, d])?.f_to_device(setup.device)?;
    let bias = match setup.strategy.bias {
        true => Some(Tensor::f_zeros([rows], (Kind::Float, setup.device))?),
        false => None,
    };
    Ok((weight, bias))
}

/// Draws a tensor anew: N(0, σ²) with σ of [`Network::first_std`] for weights (tables and linear layers), 1 for those of
/// layer norms, 0 for biases.
///
/// [`Network::first_std`]: crate::models::Network::first_std
pub(super) fn start_anew(
    network: &Network,
    value: &mut Tensor,
    norm: bool,
    mut stream: Stream,
) -> Result<(), tch::TchError> {
    let size = value.size();
    let fresh: Vec<f32> = match (size.len() > 1, norm) {
        (true, _) => {
            let std = network.first_std(size.last().copied().unwrap_or(1));
            (0..value.numel()).map(|_| (std * stream.normal()) as f32).collect()
        }
        (false, true) => vec![1.0; value.numel()],
        (false, false) => vec![0.0; value.numel()],
    };
    value.f_copy_(&Tensor::f_from_slice(&fresh)?.f_view(&size[..])?)
}
