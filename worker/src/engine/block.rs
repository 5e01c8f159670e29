//! What a block of heads is, and what it is trained on.

use std::cell::OnceCell;

use evenkeel_common::spec::Optimizer;

use super::EngineError;
use super::matrix::{Matrix, multiply};
use crate::data::Dataset;

/// Largest n whose Gram matrix is formed: 256 MiB.
const LARGEST_GRAM: usize = 8192;

/// Least rows and columns of a product's output. Below, libtorch runs other kernels, which round a row differently by the
/// number of rows and its place among them: below 4 rows, and below 12 columns. From 16 up a row has the same bits in
/// 150,000 products that were compared on a Zen 4 core, of 16 to 1,000 columns, inner dimensions of 1 to 1,500 and 16 to
/// 512 rows.
pub const LEAST: usize = 16;

/// A training set as the engine needs it: with a bias, a feature that is 1 follows the d others. Samples and features are
/// filled up to [`LEAST`] with zeros, which change nothing.
pub struct Inputs {
    /// Samples, at least [`LEAST`].
    pub n: usize,
    /// Samples that are real.
    pub samples: usize,
    /// Features d, without the constant one.
    pub d: usize,
    /// Weights of a row, at least [`LEAST`].
    pub width: usize,
    /// Weights of a row that are real: d, or d + 1 with a bias.
    pub weights: usize,
    /// Inputs [n, width].
    pub x: Matrix,
    /// Their transpose [width, n].
    pub xt: Matrix,
    /// Two classes: ±1 [n]. More: one-hot [C, n]. Zero for samples that are not real.
    pub targets: Vec<f32>,
    gram: OnceCell<Matrix>,
}

impl Inputs {
    /// Prepares the training set of a dataset.
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn new(data: &Dataset, bias: bool) -> Result<Self, EngineError> {
        let (samples, d) = (data.train_rows(), data.features);
        let weights = d + usize::from(bias);
        let (n, width) = (samples.max(LEAST), weights.max(LEAST));
        let mut x = Matrix::zeros(n, width)?;
        for (to, from) in x.values_mut().chunks_exact_mut(width).zip(data.x_train.chunks_exact(d)) {
            to[..d].copy_from_slice(from);
            to[d..weights].fill(1.0);
        }
        let mut targets = vec![0.0; if data.classes == 2 { n } else { n * data.classes }];
        for (i, y) in data.y_train.iter().enumerate() {
            if data.classes == 2 {
                targets[i] = if *y == 1 { 1.0 } else { -1.0 };
            } else {
                targets[*y as usize * n + i] = 1.0;
            }
        }
        Ok(Self { n, samples, d, width, weights, xt: x.transposed()?, x, targets, gram: OnceCell::new() })
    }

    /// X·Xᵀ [n, n].
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn gram(&self) -> Result<&Matrix, EngineError> {
        if let Some(gram) = self.gram.get() {
            return Ok(gram);
        }
        let mut gram = Matrix::zeros(self.n, self.n)?;
        multiply(&self.x, &self.xt, &mut gram)?;
        Ok(self.gram.get_or_init(|| gram))
    }
}

/// Whether heads are trained in Gram form: when that takes fewer operations, and the update is linear in the gradient
/// with the same decay for all weights.
#[must_use]
pub fn gram_form(n: usize, d: usize, optimizer: Optimizer, bias: bool, weight_decay: f64) -> bool {
    n < 2 * d && n <= LARGEST_GRAM && optimizer != Optimizer::Adam && !(bias && weight_decay != 0.0)
}

/// How a head is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadParameters {
    /// Step size η.
    pub eta: f64,
    /// Momentum μ.
    pub mu: f64,
    /// Weight decay λ.
    pub lambda: f64,
    /// Weight of a sample's loss: 1/(kept samples), and 1/H where the loss is the mean over heads.
    pub scale: f64,
}

/// Heads trained together: rows of one weight matrix.
pub struct Block {
    /// Optimiser of all of them.
    pub optimizer: Optimizer,
    /// Whether in Gram form.
    pub gram: bool,
    /// Rows of a head: 1 for two classes, C for more.
    pub classes_rows: usize,
    /// The heads, in the order of their rows.
    pub heads: Vec<HeadParameters>,
    /// Initial weights [rows, width].
    pub initial: Vec<f32>,
    /// Places in the residuals [rows, n] of samples that a head is not trained on.
    pub omitted: Vec<usize>,
    /// Steps.
    pub steps: u32,
    /// Steps after which weights are read, rising, none above `steps`.
    pub snapshots: Vec<u32>,
}

impl Block {
    /// Rows of its weight matrix.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.heads.len() * self.classes_rows
    }

    /// Floating-point operations of the products of one step.
    #[must_use]
    pub fn step_flops(&self, inputs: &Inputs) -> f64 {
        let (n, width) = (inputs.n as f64, inputs.width as f64);
        self.rows() as f64 * if self.gram { 2.0 * n * n } else { 4.0 * n * width }
    }
}

/// The weights of a block at a step.
pub struct Snapshot<'a> {
    /// Steps done.
    pub step: u32,
    /// Weights [rows, width].
    pub weights: &'a [f32],
}
