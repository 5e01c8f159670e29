//! Small dense building blocks: an f32 matrix that libtorch multiplies and Rust reads and writes, and f64 products.

use tch::{Kind, Tensor};

use super::EngineError;

/// A row-major f32 matrix in the CPU's memory, at once a tensor (for libtorch's products) and a slice (for the
/// element-wise kernels between them).
pub struct Matrix {
    tensor: Tensor,
    rows: usize,
    cols: usize,
}

impl Matrix {
    /// Zeros of [rows, cols].
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn zeros(rows: usize, cols: usize) -> Result<Self, EngineError> {
        let tensor = Tensor::f_zeros([rows as i64, cols as i64], (Kind::Float, tch::Device::Cpu))?;
        Ok(Self { tensor, rows, cols })
    }

    /// A matrix with these values, [rows, cols] row-major.
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn from_values(values: &[f32], rows: usize, cols: usize) -> Result<Self, EngineError> {
        let mut matrix = Self::zeros(rows, cols)?;
        matrix.values_mut().copy_from_slice(values);
        Ok(matrix)
    }

    /// The transpose, as a matrix of its own.
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn transposed(&self) -> Result<Self, EngineError> {
        let mut out = Self::zeros(self.cols, self.rows)?;
        let (rows, cols, values) = (self.rows, self.cols, self.values());
        let to = out.values_mut();
        for i in 0..rows {
            for j in 0..cols {
                to[j * rows + i] = values[i * cols + j];
            }
        }
        Ok(out)
    }

    /// Number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The values, row-major.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        // SAFETY: the tensor is contiguous f32 on the CPU with rows·cols elements (made so by `zeros`, and no operation
        // that could resize or move it is called on it), lives as long as `self`, and is only written through `&mut self`
        // or by `multiply`, which borrows its output mutably.
        unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<f32>(), self.rows * self.cols) }
    }

    /// The values, row-major, to write.
    pub fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `values`; the exclusive borrow of `self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.tensor.data_ptr().cast::<f32>(), self.rows * self.cols) }
    }
}

/// out ← a·b, without allocating.
///
/// # Errors
/// When shapes do not fit.
pub fn multiply(a: &Matrix, b: &Matrix, out: &mut Matrix) -> Result<(), EngineError> {
    if a.cols != b.rows || out.rows != a.rows || out.cols != b.cols {
        // libtorch would resize `out`, and slices of it would dangle.
        return Err(EngineError::Other(format!(
            "product of [{}, {}] and [{}, {}] into [{}, {}]",
            a.rows, a.cols, b.rows, b.cols, out.rows, out.cols
        )));
    }
    let _ = a.tensor.f_mm_out(&out.tensor, &b.tensor)?;
    Ok(())
}

/// Inner product in f64 with eight partial sums in a fixed order: fast, and the same bits on every machine.
#[must_use]
pub fn dot64(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (mut left, mut right) = (a.chunks_exact(8), b.chunks_exact(8));
    for (x, y) in (&mut left).zip(&mut right) {
        for k in 0..8 {
            sums[k] += x[k] * y[k];
        }
    }
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])) + rest
}

/// Inner product of f32 inputs with f64 weights, as [`dot64`].
#[must_use]
pub fn dot_inputs(x: &[f32], w: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (mut left, mut right) = (x.chunks_exact(8), w.chunks_exact(8));
    for (x, y) in (&mut left).zip(&mut right) {
        for k in 0..8 {
            sums[k] += f64::from(x[k]) * y[k];
        }
    }
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| f64::from(*x) * y).sum();
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])) + rest
}
