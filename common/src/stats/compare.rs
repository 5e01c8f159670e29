//! Tests of two strategies on the same datasets and seeds, and how many seeds they would need.

use super::normal::{normal_cdf, normal_quantile};
use super::ranks::ties;
use super::{Sample, mean, student_t_cdf, variance};

/// The test of Brown & Forsythe 1974 that two samples vary equally: F of one-way analysis of variance on the distances from
/// the medians, and its p-value; F has (1, n_a + n_b − 2) degrees of freedom and is the square of Student's t with as many.
/// None where nothing varies, or with fewer than three values on a side: two are equally far from their median, whatever they
/// are, and the test would call every difference certain.
#[must_use]
pub fn brown_forsythe(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    if a.len() < 3 || b.len() < 3 {
        return None;
    }
    let distances = |values: &[f64]| -> Option<Vec<f64>> {
        let median = values.iter().copied().collect::<Sample>().quantile(0.5)?;
        let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        distances.sort_unstable_by(f64::total_cmp);
        Some(distances)
    };
    let (a, b) = (distances(a)?, distances(b)?);
    let (n, m) = (a.len() as f64, b.len() as f64);
    let degrees = n + m - 2.0;
    let within = variance(&a)? * (n - 1.0) + variance(&b)? * (m - 1.0);
    let gap = mean(&a)? - mean(&b)?;
    let between = gap * gap * n * m / (n + m);
    if within == 0.0 {
        return (between > 0.0).then_some((f64::INFINITY, 0.0));
    }
    let f = between / (within / degrees);
    Some((f, 2.0 * student_t_cdf(-libm::sqrt(f), degrees)))
}

/// Wilcoxon's signed-rank test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRank {
    /// The smaller of the two sums of ranks.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// Differences that are not zero.
    pub count: u64,
    /// Whether p is exact.
    pub exact: bool,
}

/// Most differences whose p-value is computed exactly.
const EXACT: usize = 50;

/// The signed-rank test of Wilcoxon 1945 that differences are symmetric around zero. Zeros are left out, ties get mean ranks.
/// p is exact by counting sign patterns for up to 50 differences without ties, and else that of the normal approximation
/// with the variance corrected for ties. None where every difference is zero.
#[must_use]
pub fn signed_rank(differences: &[f64]) -> Option<SignedRank> {
    let mut values: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0 && d.is_finite()).collect();
    values.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()).then(a.total_cmp(b)));
    let n = values.len();
    if n == 0 {
        return None;
    }
    let (mut positive, mut excess) = (0.0, 0.0);
    for (shared, tied) in ties(&values, |a, b| a.abs() == b.abs()) {
        let size = tied.len() as f64;
        positive += shared * tied.iter().filter(|value| **value > 0.0).count() as f64;
        excess += size * size * size - size;
    }
    let count = n as f64;
    let total = count * (count + 1.0) / 2.0;
    let statistic = f64::min(positive, total - positive);
    let exact = n <= EXACT && excess == 0.0;
    let p = if exact {
        // How many of the 2ⁿ sign patterns have a rank sum of at most the statistic.
        let most = statistic as usize;
        let mut ways = vec![0.0; most + 1];
        ways[0] = 1.0;
        for rank in 1..=n {
            for sum in (rank..=most).rev() {
                ways[sum] += ways[sum - rank];
            }
        }
        let tail: f64 = ways.iter().sum();
        f64::min(1.0, 2.0 * tail / libm::exp2(count))
    } else {
        let spread = libm::sqrt(count * (count + 1.0) * (2.0 * count + 1.0) / 24.0 - excess / 48.0);
        f64::min(1.0, 2.0 * normal_cdf((statistic - total / 2.0) / spread))
    };
    Some(SignedRank { statistic, p, count: n as u64, exact })
}

/// p-values adjusted for how many there are, in their order (Holm 1979): the i-th smallest of m times m − i + 1, never
/// below the one before it, at most 1.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![f64::NAN; p_values.len()];
    let mut least: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        least = least.max((p_values[at] * (p_values.len() - rank) as f64).min(1.0));
        adjusted[at] = least;
    }
    adjusted
}

/// Seeds a strategy would need for its variance to differ from another's by the factor `ratio`, found with probability
/// `power` at the two-sided level `level`: the F test of two independent normal samples of n values each, with the normal
/// approximation of log s² (variance 2/(n − 1); Bartlett & Kendall 1946), n = 1 + 4·((z_{1−level/2} + z_power)/ln ratio)².
/// None for a ratio of 1.
#[must_use]
pub fn seeds_needed(ratio: f64, level: f64, power: f64) -> Option<u64> {
    let effect = libm::log(ratio).abs();
    if !(effect > 0.0 && effect.is_finite()) {
        return None;
    }
    let z = normal_quantile(1.0 - level / 2.0) + normal_quantile(power);
    let n = 1.0 + 4.0 * (z / effect) * (z / effect);
    n.is_finite().then(|| libm::ceil(n) as u64)
}
