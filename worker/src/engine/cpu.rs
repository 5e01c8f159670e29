//! Training a block of heads on the CPU: libtorch's matrix products, and Rust kernels between them.

use evenkeel_common::spec::Optimizer;

use super::block::{Block, Inputs, LEAST, Snapshot};
use super::matrix::{Matrix, multiply};
use super::{EngineError, kernel};

/// Trains a block. Calls `tick` after each step, and `emit` at each of the block's snapshots.
///
/// Primal form: a step is Z = W·Xᵀ, the residual R in place of Z, and the gradient R·X.
///
/// Gram form (n < 2d, and an update that is linear in the gradient): the weights stay in W = a·W₀ + B·X, so that a step
/// is Z = B·G + a·(W₀·Xᵀ) with G = X·Xᵀ, and an update of B by R: the same iterates up to rounding with 2n² instead of
/// 4nd operations a row.
///
/// # Errors
/// When memory runs out, or `tick` says to stop.
pub fn train(
    inputs: &Inputs,
    block: &Block,
    tick: &mut dyn FnMut() -> Result<(), EngineError>,
    emit: &mut dyn FnMut(Snapshot<'_>),
) -> Result<(), EngineError> {
    let mut state = State::new(inputs, block)?;
    let mut snapshots = block.snapshots.iter().copied().peekable();
    for step in 0..=block.steps {
        if snapshots.next_if_eq(&step).is_some() {
            emit(Snapshot { step, weights: state.weights()? });
        }
        if step < block.steps {
            state.step(step + 1)?;
            tick()?;
        }
    }
    Ok(())
}

struct State<'a> {
    inputs: &'a Inputs,
    block: &'a Block,
    /// What the optimiser moves: weights [rows, d̃], or in Gram form the coefficients B [rows, n].
    moving: Matrix,
    /// First and second moments, where the optimiser has them.
    first: Option<Matrix>,
    second: Option<Matrix>,
    /// Logits and then residuals [rows, n].
    residual: Matrix,
    /// Gradients [rows, d̃] (primal), or room for the weights (Gram).
    product: Matrix,
    gram: Option<GramState>,
}

struct GramState {
    /// Initial weights [rows, d̃] and their logits [rows, n].
    start: Matrix,
    start_logits: Matrix,
    /// a, and its momentum, for each row.
    scale: Vec<(f64, f64)>,
}

impl<'a> State<'a> {
    fn new(inputs: &'a Inputs, block: &'a Block) -> Result<Self, EngineError> {
        let rows = block.rows().max(LEAST);
        let (n, width) = (inputs.n, inputs.width);
        let mut start = Matrix::zeros(rows, width)?;
        start.values_mut()[..block.initial.len()].copy_from_slice(&block.initial);
        let (moving, gram) = if block.gram {
            let mut start_logits = Matrix::zeros(rows, n)?;
            multiply(&start, &inputs.xt, &mut start_logits)?;
            let scale = vec![(1.0, 0.0); block.rows()];
            (Matrix::zeros(rows, n)?, Some(GramState { start, start_logits, scale }))
        } else {
            (start, None)
        };
        let moment = |wanted: bool| wanted.then(|| Matrix::zeros(rows, moving.cols())).transpose();
        let first = moment(block.optimizer != Optimizer::Gd)?;
        let second = moment(block.optimizer == Optimizer::Adam)?;
        let (residual, product) = (Matrix::zeros(rows, n)?, Matrix::zeros(rows, width)?);
        Ok(Self { inputs, block, moving, first, second, residual, product, gram })
    }

    /// One step of every row; `t` counts from 1.
    fn step(&mut self, t: u32) -> Result<(), EngineError> {
        let by = if self.gram.is_some() { self.inputs.gram()? } else { &self.inputs.xt };
        multiply(&self.moving, by, &mut self.residual)?;
        self.residuals();
        if self.gram.is_none() {
            multiply(&self.residual, &self.inputs.x, &mut self.product)?;
        }
        self.update(t);
        Ok(())
    }

    /// Logits to residuals: for gradient descent times −η, so that the product is the step itself.
    fn residuals(&mut self) {
        let (n, classes) = (self.inputs.n, self.block.classes_rows);
        let z = self.residual.values_mut();
        for (row, head) in self.block.heads.iter().enumerate().map(|(i, head)| (i * classes, head)) {
            let z = &mut z[row * n..][..classes * n];
            let factor = match self.block.optimizer {
                Optimizer::Gd | Optimizer::Sgd => head.eta * head.scale,
                Optimizer::Momentum | Optimizer::Adam | Optimizer::Adamw => -head.scale,
            } as f32;
            if classes == 1 {
                match &self.gram {
                    Some(gram) => {
                        let start = &gram.start_logits.values()[row * n..][..n];
                        kernel::logistic_from(
                            z,
                            &self.inputs.targets,
                            factor,
                            start,
                            gram.scale[row].0 as f32,
                        );
                    }
                    None => kernel::logistic(z, &self.inputs.targets, factor),
                }
            } else {
                if let Some(gram) = &self.gram {
                    let start = &gram.start_logits.values()[row * n..][..classes * n];
                    kernel::add_scaled(z, start, gram.scale[row].0 as f32);
                }
                kernel::softmax(z, &self.inputs.targets, n, factor);
            }
        }
        for at in &self.block.omitted {
            z[*at] = 0.0;
        }
    }

    fn update(&mut self, t: u32) {
        let classes = self.block.classes_rows;
        let width = self.moving.cols();
        // The penalty does not hold for the bias, which follows the d others (never in Gram form).
        let decayed = if self.gram.is_some() { width } else { self.inputs.d };
        let steps = if self.gram.is_some() { self.residual.values() } else { self.product.values() };
        let w = self.moving.values_mut();
        let mut first = self.first.as_mut().map(Matrix::values_mut);
        let mut second = self.second.as_mut().map(Matrix::values_mut);
        let (beta1, beta2, _) = kernel::ADAM;
        let corrected = 1.0 - libm::pow(f64::from(beta1), f64::from(t));
        let root = libm::sqrt(1.0 - libm::pow(f64::from(beta2), f64::from(t))) as f32;
        for (row, head) in (0..self.block.rows()).map(|row| (row, &self.block.heads[row / classes])) {
            for (range, lambda) in [(0..decayed, head.lambda), (decayed..width, 0.0)] {
                if range.is_empty() {
                    continue;
                }
                let at = row * width + range.start..row * width + range.end;
                let (w, g) = (&mut w[at.clone()], &steps[at.clone()]);
                let (mu, eta) = (head.mu as f32, head.eta as f32);
                match (self.block.optimizer, &mut first, &mut second) {
                    (Optimizer::Momentum, Some(v), _) => {
                        kernel::momentum(w, &mut v[at], g, mu, lambda as f32, eta);
                    }
                    (Optimizer::Adam, Some(m), Some(v)) => {
                        let step = (head.eta / corrected) as f32;
                        kernel::adam(w, &mut m[at.clone()], &mut v[at], g, lambda as f32, step, root);
                    }
                    _ => kernel::descend(w, g, (1.0 - head.eta * lambda) as f32),
                }
            }
            if let Some(gram) = &mut self.gram {
                let (a, v) = &mut gram.scale[row];
                if self.block.optimizer == Optimizer::Momentum {
                    *v = head.mu * *v + head.lambda * *a;
                    *a -= head.eta * *v;
                } else {
                    *a *= 1.0 - head.eta * head.lambda;
                }
            }
        }
    }

    /// The weights of the block's rows, [rows, d̃].
    fn weights(&mut self) -> Result<&[f32], EngineError> {
        let len = self.block.rows() * self.inputs.width;
        let Some(gram) = &self.gram else { return Ok(&self.moving.values()[..len]) };
        multiply(&self.moving, &self.inputs.x, &mut self.product)?;
        let width = self.inputs.width;
        let (start, out) = (gram.start.values(), self.product.values_mut());
        for (row, (a, _)) in gram.scale.iter().enumerate() {
            let at = row * width..(row + 1) * width;
            kernel::add_scaled(&mut out[at.clone()], &start[at], *a as f32);
        }
        Ok(&self.product.values()[..len])
    }
}
