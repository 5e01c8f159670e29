//! What the order of values says: correlation of ranks, and strategies ranked on several datasets.
//!
//! Ranks are halves of whole numbers, and so are their distances from their mean: the sums here are exact, in any order.
//! Infinite values have a rank like others.

use super::gamma::chi_square_sf;
use super::student_t_cdf;

/// Ties among sorted values, each with the mean of the ranks that it takes; ranks start at 1.
pub(super) fn ties<T>(sorted: &[T], equal: impl Fn(&T, &T) -> bool) -> impl Iterator<Item = (f64, &[T])> {
    sorted.chunk_by(equal).scan(0.0, |below, tied| {
        let size = tied.len() as f64;
        let shared = *below + (size + 1.0) / 2.0;
        *below += size;
        Some((shared, tied))
    })
}

/// The rank of each value, 1 for the least; ties get the mean of theirs (Kendall 1945). NaN, which has no rank, for a value
/// that is NaN.
#[must_use]
pub fn mid_ranks(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<(f64, usize)> =
        values.iter().copied().zip(0..).filter(|(v, _)| !v.is_nan()).collect();
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut ranks = vec![f64::NAN; values.len()];
    for (shared, tied) in ties(&sorted, |a, b| a.0 == b.0) {
        for (_, at) in tied {
            if let Some(rank) = ranks.get_mut(*at) {
                *rank = shared;
            }
        }
    }
    ranks
}

/// A correlation of ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correlation {
    /// Spearman's ρ, in [−1, 1].
    pub rho: f64,
    /// Two-sided p-value of ρ = 0.
    pub p: f64,
    /// Pairs.
    pub count: u64,
}

/// The rank correlation of Spearman 1904: Pearson's, of mean ranks. Its p-value takes ρ·√((n − 2)/(1 − ρ²)) for Student's t
/// with n − 2 degrees of freedom (Press et al., *Numerical Recipes*, 3rd edition, section 14.8), which is rough for fewer
/// than ten pairs. Pairs with a NaN are left out. None with fewer than three pairs or when one side does not vary.
#[must_use]
pub fn spearman(pairs: &[(f64, f64)]) -> Option<Correlation> {
    let (a, b): (Vec<f64>, Vec<f64>) =
        pairs.iter().copied().filter(|(a, b)| !a.is_nan() && !b.is_nan()).unzip();
    if a.len() < 3 {
        return None;
    }
    let middle = (a.len() as f64 + 1.0) / 2.0;
    let (mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in mid_ranks(&a).into_iter().zip(mid_ranks(&b)) {
        let (a, b) = (a - middle, b - middle);
        aa += a * a;
        ab += a * b;
        bb += b * b;
    }
    let rho = (aa > 0.0 && bb > 0.0).then(|| (ab / libm::sqrt(aa * bb)).clamp(-1.0, 1.0))?;
    let degrees = a.len() as f64 - 2.0;
    let t = rho.abs() * libm::sqrt(degrees / ((1.0 + rho) * (1.0 - rho)));
    Some(Correlation { rho, p: 2.0 * student_t_cdf(-t, degrees), count: a.len() as u64 })
}

/// Friedman's test.
#[derive(Clone, Debug, PartialEq)]
pub struct Friedman {
    /// Chi-square, corrected for ties.
    pub statistic: f64,
    /// Its p-value, with one degree of freedom fewer than there are treatments.
    pub p: f64,
    /// Mean rank of each treatment over blocks; 1 is the lowest value.
    pub ranks: Vec<f64>,
    /// Blocks.
    pub blocks: u64,
}

/// The test of Friedman 1937 that treatments (the columns) rank alike over blocks (the rows), corrected for ties as in
/// Conover 1999, section 5.8: (k − 1)·Σ(R − n(k + 1)/2)² over the rank sums R of k treatments in n blocks, divided by Σ(r −
/// (k + 1)/2)² over all ranks r. Chi-square with k − 1 degrees of freedom is an approximation for many blocks. None with
/// fewer than two blocks or treatments, when blocks differ in length, when a value is NaN, or when all blocks are all ties.
#[must_use]
pub fn friedman(blocks: &[Vec<f64>]) -> Option<Friedman> {
    let treatments = blocks.first()?.len();
    let whole = |block: &Vec<f64>| block.len() == treatments && block.iter().all(|value| !value.is_nan());
    if blocks.len() < 2 || treatments < 2 || !blocks.iter().all(whole) {
        return None;
    }
    let (n, k) = (blocks.len() as f64, treatments as f64);
    let middle = (k + 1.0) / 2.0;
    let mut sums = vec![0.0; treatments];
    let mut within = 0.0;
    for block in blocks {
        for (sum, rank) in sums.iter_mut().zip(mid_ranks(block)) {
            *sum += rank;
            within += (rank - middle) * (rank - middle);
        }
    }
    let between: f64 = sums.iter().map(|sum| (sum - n * middle) * (sum - n * middle)).sum();
    let statistic = (within > 0.0).then(|| (k - 1.0) * between / within)?;
    Some(Friedman {
        statistic,
        p: chi_square_sf(statistic, k - 1.0),
        ranks: sums.iter().map(|sum| sum / n).collect(),
        blocks: blocks.len() as u64,
    })
}
