//! What is minimised: cross-entropy over heads, and the regularisers that act on features.

use tch::{Kind, Tensor};

/// Added under square roots, so that the gradient of a distance of zero is zero and not NaN.
const TINY: f64 = 1e-12;

/// A head of H linear classifiers on features.
pub struct Head<'a> {
    /// Weights [H·C, d].
    pub weight: &'a Tensor,
    /// Biases [H·C], if it has any.
    pub bias: Option<&'a Tensor>,
    /// Number H of classifiers.
    pub heads: i64,
}

impl Head<'_> {
    /// Logits of features [B, d], as [B, H, C].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn logits(&self, features: &Tensor) -> Result<Tensor, tch::TchError> {
        let classes = self.weight.size2()?.0 / self.heads.max(1);
        features.f_linear(self.weight, self.bias)?.f_view([-1, self.heads, classes])
    }

    /// The classifier that predicts: weights [C, d] and biases [C], the means over heads (Fu, So, Collier 2023).
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn mean(&self) -> Result<(Tensor, Option<Tensor>), tch::TchError> {
        let (rows, d) = self.weight.size2()?;
        let classes = rows / self.heads.max(1);
        let over_heads = |tensor: &Tensor, shape: &[i64]| {
            tensor.f_view(shape)?.f_mean_dim(&[0i64][..], false, Kind::Float)
        };
        let weight = over_heads(self.weight, &[self.heads, classes, d])?;
        let bias = self.bias.map(|bias| over_heads(bias, &[self.heads, classes])).transpose()?;
        Ok((weight, bias))
    }
}

/// Multi-Head Loss (Fu, So, Collier 2023): the cross-entropy, in nats, of logits [B, H, C], summed over examples with
/// `weights` [B] and summed over heads. With one head it is the plain loss.
///
/// # Errors
/// When shapes do not fit.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, weights: &Tensor) -> Result<Tensor, tch::TchError> {
    let (rows, heads, classes) = logits.size3()?;
    let flat = logits.f_reshape([rows * heads, classes])?.f_log_softmax(-1, Kind::Float)?;
    let targets = labels.f_unsqueeze(1)?.f_expand([rows, heads], false)?.f_reshape([rows * heads, 1])?;
    let picked = flat.f_gather(1, &targets, false)?.f_view([rows, heads])?;
    picked.f_sum_dim_intlist(&[1i64][..], false, Kind::Float)?.f_mul(weights)?.f_sum(Kind::Float)?.f_neg()
}

/// Maximal Margin Regularizer (Fu, So, Collier 2023, §5.1): the mean of 1 / (1 + ‖c_a − c_b‖) over pairs of classes of the
/// batch, with c_a the mean of the features [B, d] of class a. None when the batch has a single class. `present` [B] says
/// which examples count.
///
/// # Errors
/// When shapes do not fit.
pub fn maximal_margin(
    features: &Tensor,
    labels: &[i64],
    present: &[bool],
    classes: usize,
) -> Result<Option<Tensor>, tch::TchError> {
    let centres = class_centres(features, labels, present, classes)?;
    let mut terms = Vec::new();
    for (i, a) in centres.iter().enumerate() {
        for b in centres.iter().skip(i + 1) {
            terms.push(distance(a, b)?.f_add_scalar(1.0)?.f_reciprocal()?);
        }
    }
    if terms.is_empty() {
        return Ok(None);
    }
    Tensor::f_stack(&terms, 0)?.f_mean(Kind::Float).map(Some)
}

/// Mean distance between the mean features of two classes; none for a single class.
///
/// # Errors
/// When shapes do not fit.
pub fn class_distance(
    features: &Tensor,
    labels: &[i64],
    classes: usize,
) -> Result<Option<f64>, tch::TchError> {
    let centres = class_centres(features, labels, &vec![true; labels.len()], classes)?;
    let (mut sum, mut pairs) = (0.0, 0u32);
    for (i, a) in centres.iter().enumerate() {
        for b in centres.iter().skip(i + 1) {
            sum += f64::try_from(distance(a, b)?)?;
            pairs += 1;
        }
    }
    Ok((pairs > 0).then(|| sum / f64::from(pairs)))
}

fn class_centres(
    features: &Tensor,
    labels: &[i64],
    present: &[bool],
    classes: usize,
) -> Result<Vec<Tensor>, tch::TchError> {
    let mut centres = Vec::new();
    for class in 0..classes as i64 {
        let rows: Vec<i64> = (0i64..)
            .zip(labels.iter().zip(present))
            .filter(|(_, (label, present))| **label == class && **present)
            .map(|(row, _)| row)
            .collect();
        if !rows.is_empty() {
            let rows = Tensor::f_from_slice(&rows)?.f_to_device(features.device())?;
            centres.push(features.f_index_select(0, &rows)?.f_mean_dim(&[0i64][..], false, Kind::Float)?);
        }
    }
    Ok(centres)
}

fn distance(a: &Tensor, b: &Tensor) -> Result<Tensor, tch::TchError> {
    let difference = a.f_sub(b)?;
    difference.f_mul(&difference)?.f_sum(Kind::Float)?.f_add_scalar(TINY)?.f_sqrt()
}

/// Layerwise Noise Stability Regularization (Hua et al. 2021): Σ over examples, with `weights` [B], of ‖g(h + ξ) − g(h)‖² of
/// features [B, d] without and with noise.
///
/// # Errors
/// When shapes do not fit.
pub fn noise_stability(features: &Tensor, noisy: &Tensor, weights: &Tensor) -> Result<Tensor, tch::TchError> {
    let difference = noisy.f_sub(features)?;
    let squares = difference.f_mul(&difference)?.f_sum_dim_intlist(&[1i64][..], false, Kind::Float)?;
    squares.f_mul(weights)?.f_sum(Kind::Float)
}

/// Adds λ(w − w₀), the gradient of L2-SP's penalty (λ/2)‖w − w₀‖² (Li, Grandvalet, Davoine 2018, eq. 1), to a gradient.
///
/// # Errors
/// When shapes do not fit.
pub fn add_pull(
    gradient: &mut Tensor,
    weight: &Tensor,
    origin: Option<&Tensor>,
    lambda: f64,
) -> Result<(), tch::TchError> {
    let pull = match origin {
        Some(origin) => weight.f_sub(origin)?,
        None => weight.shallow_clone(),
    };
    let _ = gradient.f_add_(&pull.f_mul_scalar(lambda)?)?;
    Ok(())
}
