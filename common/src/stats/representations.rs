//! How alike two runs represent the same examples, up to what does not matter to a linear layer after them.

use super::matrix::{Columns, dot, inner_products, squares, transpose};
use super::mean;
use super::svd::{Svd, svd};

/// What a run makes of examples: a row of features for each, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Representation<'a> {
    values: &'a [f64],
    columns: usize,
}

impl<'a> Representation<'a> {
    /// Of `rows` examples with `columns` features each. None without any, when there are not as many values, or when one is
    /// not finite.
    #[must_use]
    pub fn new(values: &'a [f64], rows: usize, columns: usize) -> Option<Self> {
        let fits = rows.checked_mul(columns) == Some(values.len()) && !values.is_empty();
        (fits && values.iter().all(|value| value.is_finite())).then_some(Self { values, columns })
    }

    /// Its columns with their means taken away, scaled to a Frobenius norm of 1. None where no column varies.
    fn standardised(&self) -> Option<Columns> {
        let rows: Columns = self.values.chunks_exact(self.columns).map(<[f64]>::to_vec).collect();
        let mut columns: Columns = transpose(&rows).iter().map(|column| centred(column)).collect();
        let greatest = columns.iter().flatten().fold(0.0, |most: f64, value| most.max(value.abs()));
        if greatest == 0.0 || !greatest.is_finite() {
            return None;
        }
        // In two steps: squares of great or small values would overflow or vanish.
        scale(&mut columns, greatest);
        let norm = libm::sqrt(squares(&columns));
        scale(&mut columns, norm);
        Some(columns)
    }
}

/// A column minus its mean; exactly zero where all values are one.
fn centred(column: &[f64]) -> Vec<f64> {
    let constant = column.windows(2).all(|pair| pair.first() == pair.last());
    match mean(column) {
        Some(mean) if !constant => column.iter().map(|value| value - mean).collect(),
        _ => vec![0.0; column.len()],
    }
}

fn scale(columns: &mut [Vec<f64>], divisor: f64) {
    columns.iter_mut().flatten().for_each(|value| *value /= divisor);
}

/// Linear centred kernel alignment (Kornblith et al. 2019) with the unbiased estimator of HSIC (Song et al. 2012; Nguyen et
/// al. 2021, eq. 3): 1 where one is the other rotated, scaled and moved, around 0 for unrelated ones, whatever the number
/// of features. The numbers of features may differ. None with fewer than four examples, when the examples are not as many,
/// or when one represents all alike (or all at one distance from each other), which leaves 0/0.
#[must_use]
pub fn linear_cka(a: &Representation, b: &Representation) -> Option<f64> {
    cka(&a.standardised()?, &b.standardised()?)
}

fn cka(a: &[Vec<f64>], b: &[Vec<f64>]) -> Option<f64> {
    let shared = || hsic(a, b, squared_product(a, b));
    let (own_a, own_b) = (own_hsic(a)?, own_hsic(b)?);
    same_rows(a, b).then(|| (shared() / (libm::sqrt(own_a) * libm::sqrt(own_b))).clamp(-1.0, 1.0))
}

/// The HSIC of a representation with itself; none with fewer than four examples, or where it is zero but for rounding.
fn own_hsic(x: &[Vec<f64>]) -> Option<f64> {
    // Rounding leaves about this much of a zero, next to the terms that it is the difference of.
    const ROUNDING: f64 = 1e-12;
    let kernels = squared_product(x, x);
    let enough = x.first().is_some_and(|column| column.len() >= 4);
    let found = enough.then(|| hsic(x, x, kernels))?;
    (found > ROUNDING * kernels).then_some(found)
}

fn same_rows(a: &[Vec<f64>], b: &[Vec<f64>]) -> bool {
    a.first().map(Vec::len) == b.first().map(Vec::len)
}

/// The unbiased HSIC of two centred matrices with n rows, without its factor 1/(n(n − 3)), which cancels out, given
/// `kernels` = tr(KL) of the kernels K = AAᵀ and L = BBᵀ.
///
/// The estimator is tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1/((n − 1)(n − 2)) − 2/(n − 2)·1ᵀK̃L̃1, where K̃ and L̃ are K and L with zeros on
/// the diagonal. It does not change when features are moved; and once they are centred, K1 = 0, so that K̃1 = −diag K and
/// only the diagonals remain: tr(KL) − n/(n − 2)·Σ KᵢᵢLᵢᵢ + Σ Kᵢᵢ·Σ Lᵢᵢ/((n − 1)(n − 2)).
fn hsic(a: &[Vec<f64>], b: &[Vec<f64>], kernels: f64) -> f64 {
    let diagonal = |x: &[Vec<f64>]| transpose(x).iter().map(|row| dot(row, row)).collect::<Vec<f64>>();
    let (k, l) = (diagonal(a), diagonal(b));
    let n = k.len() as f64;
    let sums = k.iter().sum::<f64>() * l.iter().sum::<f64>();
    kernels - n / (n - 2.0) * dot(&k, &l) + sums / ((n - 1.0) * (n - 2.0))
}

/// tr(AAᵀBBᵀ) = ‖AᵀB‖², by products of columns or of rows, whichever are fewer.
fn squared_product(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let rows = a.first().map_or(0, Vec::len);
    if a.len().max(b.len()) <= rows {
        return squares(&inner_products(a, b));
    }
    let (a, b) = (transpose(a), transpose(b));
    let pairs = a.iter().zip(&b).enumerate();
    let of_row = |(at, (a_row, b_row)): (usize, (&Vec<f64>, &Vec<f64>))| {
        let before: f64 = a.iter().zip(&b).take(at).map(|(a, b)| dot(a_row, a) * dot(b_row, b)).sum();
        2.0 * before + dot(a_row, a_row) * dot(b_row, b_row)
    };
    pairs.map(of_row).sum()
}

/// Share of the variance that SVCCA keeps.
const KEPT_VARIANCE: f64 = 0.99;

/// Singular vector canonical correlation (Raghu et al. 2017): the mean canonical correlation of the two, each reduced to
/// the fewest singular directions that hold 99 % of its variance (of squared singular values), over as many directions as
/// the smaller has, between 0 and 1. With k and l directions of n examples at least k + l − n + 1 correlations are 1,
/// whatever the features are: it takes many more examples than directions to say something. None when the examples are not
/// as many, or one represents all alike.
#[must_use]
pub fn svcca(a: &Representation, b: &Representation) -> Option<f64> {
    let (a, b) = (a.standardised()?, b.standardised()?);
    same_rows(&a, &b).then(|| correlation(&main_directions(&svd(&a)), &main_directions(&svd(&b))))
}

/// The mean canonical correlation of two orthonormal bases.
fn correlation(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let directions = a.len().min(b.len()) as f64;
    // Those of two orthonormal bases are the cosines between their spaces (Björck & Golub 1973, theorem 1).
    let correlations = svd(&inner_products(a, b)).values;
    correlations.iter().map(|value| value.min(1.0)).sum::<f64>() / directions
}

/// The left singular vectors that hold the variance that is kept.
fn main_directions(found: &Svd) -> Columns {
    let all: f64 = found.values.iter().map(|value| value * value).sum();
    let mut held = 0.0;
    let lacking = |value: &&f64| {
        let more = held < KEPT_VARIANCE * all;
        held += **value * **value;
        more
    };
    let kept = found.values.iter().take_while(lacking).count();
    found.left.iter().take(kept).cloned().collect()
}

/// The orthogonal Procrustes distance of the two, centred and scaled to a Frobenius norm of 1 (Ding, Denain & Steinhardt
/// 2021, section 2): the least ‖A − BQ‖² over orthogonal Q, ‖A‖² + ‖B‖² − 2‖AᵀB‖_* with the sum of singular values ‖·‖_*
/// (Schönemann 1966), between 0 (one is the other rotated, scaled and moved) and 2. The numbers of features may differ: the
/// smaller is filled up with zeros. None when the examples are not as many, or one represents all alike.
#[must_use]
pub fn procrustes_distance(a: &Representation, b: &Representation) -> Option<f64> {
    let (a, b) = (a.standardised()?, b.standardised()?);
    same_rows(&a, &b).then(|| rotated_distance(&narrow(&a, &svd(&a)), &narrow(&b, &svd(&b))))
}

/// 2 − 2‖AᵀB‖_* of two matrices with a Frobenius norm of 1.
fn rotated_distance(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let shared: f64 = svd(&inner_products(a, b)).values.iter().sum();
    (2.0 - 2.0 * shared).max(0.0)
}

/// A matrix of no more columns than rows with the same AAᵀ, and so the same singular values of any AᵀB: left singular
/// vectors times values.
fn narrow(columns: &[Vec<f64>], found: &Svd) -> Columns {
    if columns.len() <= columns.first().map_or(0, Vec::len) {
        return columns.to_vec();
    }
    let scaled = |(vector, value): (&Vec<f64>, &f64)| vector.iter().map(|entry| entry * value).collect();
    found.left.iter().zip(&found.values).map(scaled).collect()
}

/// How far apart several runs represent the same examples: means over pairs of runs, 0 where all are the same but for
/// rotation, scale and place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RepresentationDistances {
    /// 1 − [`linear_cka`], up to rounding between 0 and 2, about 1 for unrelated ones.
    pub cka: f64,
    /// 1 − [`svcca`], between 0 and 1.
    pub svcca: f64,
    /// [`procrustes_distance`], between 0 and 2.
    pub procrustes: f64,
}

impl RepresentationDistances {
    /// Means over the pairs of [`spread_pairs`] of at most `most`. None with fewer than two runs, or where a pair has none of
    /// the three.
    #[must_use]
    pub fn between(runs: &[Representation<'_>], most: usize) -> Option<Self> {
        struct Ready {
            columns: Columns,
            main: Columns,
            narrow: Columns,
        }
        let ready = |run: &Representation| -> Option<Ready> {
            let columns = run.standardised()?;
            let found = svd(&columns);
            Some(Ready { main: main_directions(&found), narrow: narrow(&columns, &found), columns })
        };
        let ready: Vec<Ready> = runs.iter().map(ready).collect::<Option<_>>()?;
        let mut found: [Vec<f64>; 3] = Default::default();
        for (a, b) in spread_pairs(ready.len(), most) {
            let (a, b) = (ready.get(a)?, ready.get(b)?);
            let cka = cka(&a.columns, &b.columns)?;
            let svcca = correlation(&a.main, &b.main);
            let distances = [1.0 - cka, 1.0 - svcca, rotated_distance(&a.narrow, &b.narrow)];
            found.iter_mut().zip(distances).for_each(|(all, distance)| all.push(distance));
        }
        let [cka, svcca, procrustes] = found.map(|mut all| {
            all.sort_unstable_by(f64::total_cmp);
            mean(&all)
        });
        Some(Self { cka: cka?, svcca: svcca?, procrustes: procrustes? })
    }
}

/// Pairs of `runs` runs: all of them while they are at most `most`, else each run with as many that follow it (the first
/// follow the last) as give no more pairs than that, but at least with one, so that each is in as many pairs.
#[must_use]
pub fn spread_pairs(runs: usize, most: usize) -> Vec<(usize, usize)> {
    if runs < 2 {
        return Vec::new();
    }
    if runs * (runs - 1) / 2 <= most {
        return (0..runs).flat_map(|a| (a + 1..runs).map(move |b| (a, b))).collect();
    }
    let following = (most / runs).max(1);
    (0..runs).flat_map(|a| (1..=following).map(move |step| (a, (a + step) % runs))).collect()
}
