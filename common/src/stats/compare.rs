//! Two strategies on the same datasets and seeds: how much more one varies than the other, and how sure that is.

use super::normal::{normal_cdf, normal_quantile};
use super::ranks::ties;
use super::{Sample, mean, quantile, student_t_cdf, variance};
use crate::seed::{Key, Purpose, Stream};

/// Scores of two strategies on one dataset, paired on the seed: strategy, baseline.
pub type Pairs = Vec<(f64, f64)>;

/// Draws of a bootstrap.
pub const RESAMPLES: usize = 2000;
/// Seeds of a dataset from which there is an interval: fewer have too few resamples that differ.
pub const LEAST_SEEDS: usize = 5;

/// A ratio of variances with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioEstimate {
    /// Mean variance of the strategy over that of the baseline.
    pub ratio: f64,
    /// 95 % interval; its end may be infinite, where resamples have a baseline that does not vary. None with fewer than
    /// [`LEAST_SEEDS`] seeds.
    pub ci95: Option<(f64, f64)>,
    /// Datasets.
    pub datasets: u64,
}

/// The variance over seeds of a strategy over that of the baseline, both averaged over datasets before they are divided: a
/// mean of ratios would leave out datasets on which the baseline does not vary. None where it varies on no dataset.
///
/// The interval is the bias-corrected and accelerated bootstrap's (BCa, Efron 1987): seeds are drawn with replacement within
/// each dataset, a seed's two scores together, so it says how far other seeds might have led *on these datasets*. The
/// acceleration of several strata is that of Davison & Hinkley 1997, eq. 5.25 and §5.3.2, from jackknife values within each.
/// Draws depend on the number of the data alone, so that the same data have the same interval.
#[must_use]
pub fn mean_variance_ratio(datasets: &[Pairs]) -> Option<RatioEstimate> {
    let usable: Vec<&Pairs> = datasets.iter().filter(|pairs| pairs.len() >= 2).collect();
    let all: Vec<(f64, f64)> = usable.iter().map(|pairs| variances(pairs)).collect();
    let sums = all.iter().fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a, sum.1 + b));
    let ratio = (sums.1 > 0.0).then(|| sums.0 / sums.1)?;
    let enough = usable.iter().all(|pairs| pairs.len() >= LEAST_SEEDS);
    let ci95 = if enough { bca(&usable, &all, sums, ratio) } else { None };
    Some(RatioEstimate { ratio, ci95, datasets: usable.len() as u64 })
}

/// The two variances of pairs.
fn variances(pairs: &[(f64, f64)]) -> (f64, f64) {
    let [mut a, mut b] = [Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len())];
    for (ours, theirs) in pairs {
        a.push(*ours);
        b.push(*theirs);
    }
    (variance(&a).unwrap_or(0.0), variance(&b).unwrap_or(0.0))
}

fn bca(datasets: &[&Pairs], all: &[(f64, f64)], sums: (f64, f64), ratio: f64) -> Option<(f64, f64)> {
    let mut stream = Key::of_dataset(0, "bootstrap").stream(Purpose::Structure, 0, 0);
    let mut resamples: Vec<f64> = (0..RESAMPLES).map(|_| resample(datasets, &mut stream)).collect();
    resamples.sort_unstable_by(f64::total_cmp);
    let count = |below: &dyn Fn(f64) -> bool| resamples.iter().filter(|value| below(**value)).count() as f64;
    // Ties count half, as in Efron & Tibshirani 1993, eq. 14.14, where the distribution is discrete.
    let below = (count(&|value| value < ratio) + 0.5 * count(&|value| value == ratio)) / RESAMPLES as f64;
    let bias = normal_quantile(below);
    if !bias.is_finite() {
        return None;
    }
    let (mut cubes, mut squares) = (0.0, 0.0);
    for (pairs, own) in datasets.iter().zip(all) {
        let n = pairs.len() as f64;
        let without: Vec<f64> = (0..pairs.len())
            .map(|left_out| {
                let rest: Vec<(f64, f64)> = pairs
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != left_out)
                    .map(|(_, pair)| *pair)
                    .collect();
                let (a, b) = variances(&rest);
                (sums.0 - own.0 + a) / (sums.1 - own.1 + b)
            })
            .collect();
        let middle = mean(&without)?;
        for value in without {
            let influence = (n - 1.0) * (middle - value) / n;
            cubes += influence.powi(3);
            squares += influence * influence;
        }
    }
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares * libm::sqrt(squares)) } else { 0.0 };
    let end = |p: f64| {
        let z = bias + normal_quantile(p);
        let level = normal_cdf(bias + z / (1.0 - acceleration * z));
        // Between order statistics, but infinity minus infinity is no number.
        let position = level * (RESAMPLES - 1) as f64;
        let high = resamples.get(libm::ceil(position) as usize).copied().unwrap_or(f64::INFINITY);
        if high.is_finite() { quantile(&resamples, level) } else { Some(high) }
    };
    Some((end(0.025)?, end(0.975)?))
}

/// The ratio for seeds drawn with replacement within each dataset.
fn resample(datasets: &[&Pairs], stream: &mut Stream) -> f64 {
    let (mut ours, mut theirs) = (0.0, 0.0);
    for pairs in datasets {
        let n = pairs.len();
        // Shifted by the first pair, so that the one-pass sums lose no digits that matter.
        let origin = pairs.first().copied().unwrap_or_default();
        let mut sums = [0.0; 4];
        for _ in 0..n {
            let (a, b) = pairs.get(stream.below(n as u64) as usize).copied().unwrap_or_default();
            let (a, b) = (a - origin.0, b - origin.1);
            for (sum, value) in sums.iter_mut().zip([a, a * a, b, b * b]) {
                *sum += value;
            }
        }
        let n = n as f64;
        ours += ((sums[1] - sums[0] * sums[0] / n) / (n - 1.0)).max(0.0);
        theirs += ((sums[3] - sums[2] * sums[2] / n) / (n - 1.0)).max(0.0);
    }
    if theirs > 0.0 { ours / theirs } else { f64::INFINITY }
}

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
