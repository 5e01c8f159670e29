//! The singular value decomposition of a small dense matrix.

use super::matrix::{Columns, dot, squares, transpose};

/// Singular values with left singular vectors, as many as the matrix has rank.
pub(super) struct Svd {
    /// Singular values, greatest first.
    pub(super) values: Vec<f64>,
    /// The left singular vector of each value: orthonormal.
    pub(super) left: Columns,
}

/// A direction v of the space of columns, and where the matrix maps it, Av.
struct Direction {
    /// Av: in the end a singular value times a left singular vector.
    image: Vec<f64>,
    /// v, in the end a right singular vector; empty where nobody asks for it.
    axis: Vec<f64>,
}

/// Sweeps over all pairs of columns. Convergence is quadratic in the end: about ten suffice, however large the matrix.
const MOST_SWEEPS: u32 = 60;

/// The decomposition of a matrix, given by its columns, by one-sided Jacobi rotations: pairs of columns are made orthogonal
/// until all are (Hestenes 1958; Golub & Van Loan, *Matrix Computations*, 4th edition, section 8.6.3), the longer column of
/// a pair first (de Rijk 1989). Values up to max(rows, columns)·ε times the Frobenius norm count as zero and are left out.
/// Entries must be finite, and their squares too. Takes of the order of max(rows, columns)·min(rows, columns)² for a sweep.
pub(super) fn svd(columns: &[Vec<f64>]) -> Svd {
    let rows = columns.first().map_or(0, Vec::len);
    let wide = columns.len() > rows;
    let mut directions = if wide { of_transpose(columns, rows) } else { of_columns(columns) };
    let rounding = rows.max(columns.len()) as f64 * f64::EPSILON;
    let negligible = rounding * rounding * squares(columns);
    for _ in 0..MOST_SWEEPS {
        if !sweep(&mut directions, negligible) {
            break;
        }
    }
    let mut found: Vec<(f64, Direction)> = directions
        .into_iter()
        .map(|direction| (dot(&direction.image, &direction.image), direction))
        .filter(|(square, _)| *square > negligible)
        .map(|(square, direction)| (libm::sqrt(square), direction))
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let left_of = |(value, direction): (f64, Direction)| -> (f64, Vec<f64>) {
        // What is a right singular vector of the transpose is a left one here.
        let unit = || direction.image.iter().map(|entry| entry / value).collect();
        (value, if wide { direction.axis } else { unit() })
    };
    let (values, left) = found.into_iter().map(left_of).unzip();
    Svd { values, left }
}

fn of_columns(columns: &[Vec<f64>]) -> Vec<Direction> {
    columns.iter().map(|column| Direction { image: column.clone(), axis: Vec::new() }).collect()
}

fn of_transpose(columns: &[Vec<f64>], rows: usize) -> Vec<Direction> {
    let axis = |at: usize| (0..rows).map(|row| f64::from(u8::from(row == at))).collect();
    transpose(columns).into_iter().zip(0..).map(|(image, at)| Direction { image, axis: axis(at) }).collect()
}

/// Rotates every pair of columns once. Whether any still had to be.
fn sweep(directions: &mut [Direction], negligible: f64) -> bool {
    let mut rotated = false;
    for at in 1..directions.len() {
        let (before, rest) = directions.split_at_mut(at);
        if let Some(second) = rest.first_mut() {
            for first in before {
                rotated |= orthogonalise(first, second, negligible);
            }
        }
    }
    rotated
}

/// Rotates two columns so that they are orthogonal. Whether it had to: not where they are, to rounding, or one is
/// negligible.
fn orthogonalise(first: &mut Direction, second: &mut Direction, negligible: f64) -> bool {
    let mut lengths = (dot(&first.image, &first.image), dot(&second.image, &second.image));
    if lengths.0 < lengths.1 {
        std::mem::swap(first, second);
        lengths = (lengths.1, lengths.0);
    }
    let product = dot(&first.image, &second.image);
    let rounding = 8.0 * f64::EPSILON * libm::sqrt(first.image.len() as f64);
    if lengths.1 <= negligible || product.abs() <= rounding * libm::sqrt(lengths.0 * lengths.1) {
        return false;
    }
    // The smaller of the two angles: Golub & Van Loan, section 8.5.2.
    let zeta = (lengths.1 - lengths.0) / (2.0 * product);
    let tangent = f64::copysign(1.0, zeta) / (zeta.abs() + libm::sqrt(1.0 + zeta * zeta));
    let cosine = 1.0 / libm::sqrt(1.0 + tangent * tangent);
    let sine = cosine * tangent;
    for (a, b) in [(&mut first.image, &mut second.image), (&mut first.axis, &mut second.axis)] {
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
        }
    }
    true
}
