//! Constants of the bound for full fine-tuning (Fu, So & Collier 2023): how steep the loss is, and how curved.
//!
//! The loss is the mean cross-entropy of the model that predicts (adapters worked in, heads averaged) over training examples,
//! without dropout and regularisers, as a function of the weights that distances are measured between.

use evenkeel_common::seed::Purpose;
use tch::{Kind, Tensor};

use super::forward::Forward;
use super::losses::{Head, cross_entropy};
use super::optimizer::squared_norm;
use super::run::Setup;
use crate::engine::EngineError;

/// Training examples that the Hessian is taken over at most.
const HESSIAN_EXAMPLES: usize = 256;
/// Examples whose gradients are taken one by one at most.
const GRADIENT_EXAMPLES: usize = 32;
/// Steps of Lanczos' iteration.
const ITERATIONS: usize = 24;
/// An eigenvalue is clearly not zero from this share of the greatest on: below, the differences that products with the Hessian
/// are made of are no better than rounding in f32.
const CLEARLY: f64 = 1e-3;
/// Length of the step of these differences, relative to ‖w‖: the cube root of the rounding error of f32.
const STEP: f64 = 4e-3;
/// Examples of a pass.
const BATCH: usize = 32;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curvature {
    /// L, the greatest norm of the gradient of one example's loss, at the first and at the last weights.
    pub lipschitz: f64,
    /// β, the greatest eigenvalue of the Hessian at the last weights.
    pub smoothness: f64,
    /// μ, its least eigenvalue that is positive and clearly not zero.
    pub curvature: Option<f64>,
    /// The least Ritz value: below zero, the loss is not convex there, as the bound assumes.
    pub least: f64,
}

/// Measures the constants at a model's first and last weights, which are [`super::run::Run::start`] and
/// [`super::run::Run::result`].
///
/// # Errors
/// When memory is short, or what `check` says between passes.
pub fn measure(
    setup: &Setup<'_>,
    [first, last]: [&[Tensor]; 2],
    check: &mut dyn FnMut() -> Result<(), EngineError>,
) -> Result<Curvature, EngineError> {
    let some = |most: usize| setup.kept.get(..setup.kept.len().min(most)).unwrap_or_default().to_vec();
    let mut lipschitz = 0f64;
    for weights in [first, last] {
        for place in some(GRADIENT_EXAMPLES) {
            check()?;
            lipschitz = lipschitz.max(libm::sqrt(squared_norm(&gradient(setup, weights, &[place])?)));
        }
    }
    let places = some(HESSIAN_EXAMPLES);
    let length = STEP * libm::sqrt(squared_norm(last)).max(1.0);
    let mut product = |v: &[Tensor]| -> Result<Vec<Tensor>, EngineError> {
        check()?;
        hessian_product(|weights| gradient(setup, weights, &places), last, v, length)
    };
    let mut stream = setup.key.stream(Purpose::Curvature, setup.seeds.initialization, 0);
    let mut start = Vec::with_capacity(last.len());
    for tensor in last {
        let drawn: Vec<f32> = (0..tensor.numel()).map(|_| stream.normal() as f32).collect();
        start.push(
            Tensor::f_from_slice(&drawn)?.f_view(tensor.size().as_slice())?.f_to_device(tensor.device())?,
        );
    }
    let values = lanczos(&mut product, start, ITERATIONS)?;
    let smoothness = values.last().copied().unwrap_or(f64::NAN);
    let curvature = values.iter().copied().find(|value| *value > CLEARLY * smoothness.max(0.0));
    let least = values.first().copied().unwrap_or(f64::NAN);
    Ok(Curvature { lipschitz, smoothness, curvature: curvature.filter(|_| smoothness > 0.0), least })
}

/// H·v by central differences of the gradient over ±`length`·v: its error is of the order of the square of that.
fn hessian_product(
    gradient: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, EngineError>,
    at: &[Tensor],
    v: &[Tensor],
    length: f64,
) -> Result<Vec<Tensor>, EngineError> {
    let up = gradient(&combine(at, v, length)?)?;
    let down = gradient(&combine(at, v, -length)?)?;
    combine(&up, &down, -1.0)?.iter().map(|t| Ok(t.f_mul_scalar(0.5 / length)?)).collect()
}

/// Gradient of the mean loss over training examples.
fn gradient(setup: &Setup<'_>, weights: &[Tensor], places: &[usize]) -> Result<Vec<Tensor>, EngineError> {
    let leaves: Vec<Tensor> = weights
        .iter()
        .map(|w| w.f_detach()?.f_set_requires_grad(true))
        .collect::<Result<_, tch::TchError>>()?;
    let heads = leaves.len() - 1 - usize::from(setup.strategy.bias);
    let (encoder, head) = leaves.split_at(heads);
    let Some((weight, bias)) = head.split_first() else { return Ok(Vec::new()) };
    let head = Head { weight, bias: bias.first(), heads: 1 };
    let forward = Forward::new(setup.encoder, setup.data, setup.device, None, None);
    let mut pass = |part: &[usize]| -> Result<(), EngineError> {
        let examples: Vec<_> = part.iter().filter_map(|place| setup.data.data.train.get(*place)).collect();
        let labels: Vec<i64> = examples.iter().map(|example| i64::from(example.label)).collect();
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(setup.device)?;
        let ones = Tensor::f_ones([examples.len() as i64], (Kind::Float, setup.device))?;
        let (features, _) = forward.features(encoder, &examples, None)?;
        let loss = cross_entropy(&head.logits(&features)?, &labels, &ones)?;
        Ok(loss.f_mul_scalar(1.0 / places.len() as f64)?.f_backward()?)
    };
    tch::with_grad(|| places.chunks(BATCH).try_for_each(&mut pass))?;
    leaves
        .iter()
        .map(|leaf| {
            let gradient = leaf.grad();
            Ok(if gradient.defined() { gradient } else { leaf.f_detach()?.f_zeros_like()? })
        })
        .collect()
}

/// a + s·b, tensor by tensor.
fn combine(a: &[Tensor], b: &[Tensor], s: f64) -> Result<Vec<Tensor>, EngineError> {
    let _guard = tch::no_grad_guard();
    a.iter().zip(b).map(|(a, b)| Ok(a.f_add(&b.f_mul_scalar(s)?)?)).collect()
}

fn dot(a: &[Tensor], b: &[Tensor]) -> Result<f64, EngineError> {
    let _guard = tch::no_grad_guard();
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        sum += f64::try_from(a.f_mul(b)?.f_sum(Kind::Double)?)?;
    }
    Ok(sum)
}

/// A linear operator on lists of tensors.
type Operator<'a> = dyn FnMut(&[Tensor]) -> Result<Vec<Tensor>, EngineError> + 'a;

/// Ritz values, rising, of a symmetric operator after so many steps of Lanczos' iteration (Golub & Van Loan, *Matrix
/// Computations*, §10.1). Three vectors are kept: without reorthogonalisation converged eigenvalues come more than once, which
/// changes neither the greatest nor the least.
///
/// # Errors
/// Those of the operator and of libtorch.
fn lanczos(product: &mut Operator<'_>, start: Vec<Tensor>, steps: usize) -> Result<Vec<f64>, EngineError> {
    let normalized = |v: &[Tensor], norm: f64| -> Result<Vec<Tensor>, EngineError> {
        v.iter().map(|t| Ok(t.f_mul_scalar(1.0 / norm)?)).collect()
    };
    let (mut diagonal, mut beside): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut current = normalized(&start, libm::sqrt(squared_norm(&start)))?;
    let mut before: Option<Vec<Tensor>> = None;
    for _ in 0..steps {
        let mut next = product(&current)?;
        if let (Some(before), Some(beta)) = (&before, beside.last()) {
            next = combine(&next, before, -beta)?;
        }
        let alpha = dot(&next, &current)?;
        next = combine(&next, &current, -alpha)?;
        diagonal.push(alpha);
        let beta = libm::sqrt(squared_norm(&next));
        // An invariant subspace: nothing is left to be found in this direction.
        let scale = diagonal.iter().map(|a| a.abs()).fold(0.0, f64::max);
        if !beta.is_finite() || beta <= 1e-6 * scale || diagonal.len() == steps {
            break;
        }
        beside.push(beta);
        before = Some(std::mem::replace(&mut current, normalized(&next, beta)?));
    }
    let n = diagonal.len();
    if !diagonal.iter().chain(&beside).all(|value| value.is_finite()) {
        return Ok(Vec::new());
    }
    let mut matrix = vec![0.0; n * n];
    for (at, value) in diagonal.iter().enumerate() {
        matrix[at * n + at] = *value;
    }
    for (at, value) in beside.iter().take(n.saturating_sub(1)).enumerate() {
        matrix[at * n + at + 1] = *value;
        matrix[(at + 1) * n + at] = *value;
    }
    let matrix = Tensor::f_from_slice(&matrix)?.f_view([n as i64, n as i64])?;
    Ok(Vec::try_from(matrix.f_linalg_eigvalsh("L")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_with_the_hessian_is_a_difference_of_gradients() {
        // f(w) = Σ w⁴ has the gradient 4w³ and the Hessian diag(12w²); central differences add 4h²v³.
        let cubes = |w: &[Tensor]| w.iter().map(|w| Ok(w.pow_tensor_scalar(3) * 4.0)).collect();
        let w = [Tensor::from_slice(&[1.0f32, -2.0, 0.5])];
        let v = [Tensor::from_slice(&[0.6f32, 0.0, -0.8])];
        let found = hessian_product(cubes, &w, &v, 0.01).expect("product");
        let found: Vec<f64> = Vec::try_from(&found[0].to_kind(Kind::Double)).expect("values");
        for (found, expected) in found.iter().zip([7.2, 0.0, -2.4]) {
            assert!((found - expected).abs() < 2e-3, "{found} is not {expected}");
        }
    }

    #[test]
    fn the_ends_of_a_spectrum_are_found() {
        // A diagonal operator of 60 eigenvalues between −0.5 and 20, two of them apart, on two tensors.
        let mut values: Vec<f32> = (0..58).map(|k| 0.1 * k as f32).collect();
        values.extend([-0.5, 20.0]);
        let eigen = [Tensor::from_slice(&values[..40]), Tensor::from_slice(&values[40..])];
        let mut product = |v: &[Tensor]| -> Result<Vec<Tensor>, EngineError> {
            eigen.iter().zip(v).map(|(e, v)| Ok(e.f_mul(v)?)).collect()
        };
        let start = [
            Tensor::ones([40], (Kind::Float, tch::Device::Cpu)),
            Tensor::ones([20], (Kind::Float, tch::Device::Cpu)),
        ];
        let found =
            lanczos(&mut product, start.iter().map(Tensor::shallow_clone).collect(), 30).expect("values");
        let (least, most) = (found[0], found[found.len() - 1]);
        assert!((least + 0.5).abs() < 1e-3 && (most - 20.0).abs() < 1e-4, "{least} {most}");
        // An eigenvector spans an invariant space.
        let mut unit = vec![start[0].zeros_like(), start[1].zeros_like()];
        let _ = unit[1].get(19).fill_(3.0);
        let only = lanczos(&mut product, std::mem::take(&mut unit), 30).expect("values");
        assert_eq!(only, [20.0]);
    }
}
