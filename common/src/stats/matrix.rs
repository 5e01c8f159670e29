//! Products of small dense matrices.

/// A matrix: its columns, all of one length.
pub(super) type Columns = Vec<Vec<f64>>;

/// Σ aᵢbᵢ, in eight partial sums whatever the machine, so that it is fast and its bits are the same everywhere.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The rows of a matrix: the columns of its transpose.
pub(super) fn transpose(columns: &[Vec<f64>]) -> Columns {
    let rows = columns.first().map_or(0, Vec::len);
    let mut transposed = vec![Vec::with_capacity(columns.len()); rows];
    for column in columns {
        for (row, value) in transposed.iter_mut().zip(column) {
            row.push(*value);
        }
    }
    transposed
}

/// AᵀB.
pub(super) fn inner_products(a: &[Vec<f64>], b: &[Vec<f64>]) -> Columns {
    b.iter().map(|b| a.iter().map(|a| dot(a, b)).collect()).collect()
}

/// Sum of squares of all entries: the square of the Frobenius norm.
pub(super) fn squares(columns: &[Vec<f64>]) -> f64 {
    columns.iter().map(|column| dot(column, column)).sum()
}
