//! How much more one strategy varies than another, with an interval by the bootstrap.

use std::collections::{BTreeMap, VecDeque};

use super::normal::{normal_cdf, normal_quantile};
use super::{mean, variance};
use crate::seed::{Key, Purpose};

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

/// Seeds up to which resamples are kept for all datasets of that many: 4 MB.
const KEPT_SEEDS: usize = 1024;
/// Baselines that are remembered: one for each quantity that is compared.
const BASELINES: usize = 4;
/// Resamples that are summed together, in registers.
const LANES: usize = 8;

/// The variance ratio of a list of datasets; see [`Bootstrap::mean_variance_ratio`], which is faster for many lists.
#[must_use]
pub fn mean_variance_ratio(datasets: &[Pairs]) -> Option<RatioEstimate> {
    Bootstrap::default().mean_variance_ratio(datasets)
}

/// Resamples, drawn once for each number of seeds.
#[derive(Default)]
pub struct Bootstrap {
    /// How often each seed is in each resample, seed by seed.
    counts: BTreeMap<usize, Vec<u16>>,
    baselines: Baselines,
}

/// Values of the last baselines, and their variance in each resample.
#[derive(Default)]
struct Baselines(VecDeque<(Vec<f64>, Vec<f64>)>);

impl Baselines {
    fn resampled(&mut self, values: Vec<f64>, counts: &[u16]) -> Vec<f64> {
        // Of so many values, each dataset has draws of its own.
        if values.len() > KEPT_SEEDS {
            return resampled(&values, counts);
        }
        if let Some((_, variances)) = self.0.iter().find(|(known, _)| *known == values) {
            return variances.clone();
        }
        let variances = resampled(&values, counts);
        self.0.truncate(BASELINES - 1);
        self.0.push_front((values, variances.clone()));
        variances
    }
}

impl Bootstrap {
    /// The variance over seeds of a strategy over that of the baseline, both averaged over datasets before they are divided: a
    /// mean of ratios would leave out datasets on which the baseline does not vary. None where it varies on no dataset.
    ///
    /// The interval is the bias-corrected and accelerated bootstrap's (BCa, Efron 1987): seeds are drawn with replacement within
    /// each dataset, a seed's two scores together, so it says how far other seeds might have led *on these datasets*. The
    /// acceleration of several strata is that of Davison & Hinkley 1997, eq. 5.25 and §5.3.2, from jackknife values within each.
    /// Draws depend on the number of the data alone, so that the same data have the same interval.
    #[must_use]
    pub fn mean_variance_ratio(&mut self, datasets: &[Pairs]) -> Option<RatioEstimate> {
        let usable: Vec<&Pairs> = datasets.iter().filter(|pairs| pairs.len() >= 2).collect();
        let all: Vec<(f64, f64)> = usable.iter().map(|pairs| variances(pairs)).collect();
        let sums = all.iter().fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a, sum.1 + b));
        let ratio = (sums.1 > 0.0).then(|| sums.0 / sums.1)?;
        let enough = usable.iter().all(|pairs| pairs.len() >= LEAST_SEEDS);
        let ci95 = if enough { self.bca(&usable, &all, sums, ratio) } else { None };
        Some(RatioEstimate { ratio, ci95, datasets: usable.len() as u64 })
    }

    fn bca(
        &mut self,
        datasets: &[&Pairs],
        all: &[(f64, f64)],
        sums: (f64, f64),
        ratio: f64,
    ) -> Option<(f64, f64)> {
        let mut resamples = self.resamples(datasets);
        let count =
            |below: &dyn Fn(f64) -> bool| resamples.iter().filter(|value| below(**value)).count() as f64;
        // Ties count half, as in Efron & Tibshirani 1993, eq. 14.14, where the distribution is discrete.
        let below = (count(&|value| value < ratio) + 0.5 * count(&|value| value == ratio)) / RESAMPLES as f64;
        let bias = normal_quantile(below);
        if !bias.is_finite() {
            return None;
        }
        let (mut cubes, mut squares) = (0.0, 0.0);
        for (pairs, own) in datasets.iter().zip(all) {
            let n = pairs.len() as f64;
            let left = without_one(pairs, *own);
            let without: Vec<f64> = left.map(|(a, b)| (sums.0 - own.0 + a) / (sums.1 - own.1 + b)).collect();
            let middle = mean(&without)?;
            for value in without {
                let influence = (n - 1.0) * (middle - value) / n;
                cubes += influence.powi(3);
                squares += influence * influence;
            }
        }
        let acceleration = if squares > 0.0 { cubes / (6.0 * squares * libm::sqrt(squares)) } else { 0.0 };
        let mut end = |p: f64| {
            let z = bias + normal_quantile(p);
            quantile_unsorted(&mut resamples, normal_cdf(bias + z / (1.0 - acceleration * z)))
        };
        Some((end(0.025)?, end(0.975)?))
    }

    /// The ratio for each resample: seeds drawn with replacement within each dataset.
    fn resamples(&mut self, datasets: &[&Pairs]) -> Vec<f64> {
        let (mut ours, mut theirs) = (vec![0.0; RESAMPLES], vec![0.0; RESAMPLES]);
        for (number, pairs) in datasets.iter().enumerate() {
            let n = pairs.len();
            let drawn;
            let counts = if n <= KEPT_SEEDS {
                self.counts.entry(n).or_insert_with(|| counts(n, 0))
            } else {
                drawn = counts(n, number as u64);
                &drawn
            };
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            // Several strategies are compared with one baseline, one after the other.
            let baseline = self.baselines.resampled(b, counts);
            // Datasets of as many seeds share their draws, each shifted by its number: no two use the same draw in the same
            // resample, as there are fewer datasets than resamples or else so many that it does not matter.
            let shift = number % RESAMPLES;
            for (sums, variances) in [(&mut ours, &resampled(&a, counts)[..]), (&mut theirs, &baseline)] {
                let (first, last) = variances.split_at(RESAMPLES - shift);
                let shifted = last.iter().chain(first);
                sums.iter_mut().zip(shifted).for_each(|(sum, variance)| *sum += variance);
            }
        }
        let ratio = |(ours, theirs): (f64, f64)| if theirs > 0.0 { ours / theirs } else { f64::INFINITY };
        ours.into_iter().zip(theirs).map(ratio).collect()
    }
}

/// The variance of each resample of values.
fn resampled(values: &[f64], counts: &[u16]) -> Vec<f64> {
    let size = values.len() as f64;
    let first = values.first().copied().unwrap_or(0.0);
    // Shifted by the first value, so that the one-pass sums lose no digits that matter.
    let shifted: Vec<f64> = values.iter().map(|value| value - first).collect();
    let mut variances = Vec::with_capacity(RESAMPLES);
    for from in (0..RESAMPLES).step_by(LANES) {
        let [sums, squares] = summed(&shifted, counts, from);
        let of = |(sum, squares): (f64, f64)| ((squares - sum * sum / size) / (size - 1.0)).max(0.0);
        variances.extend(sums.into_iter().zip(squares).map(of));
    }
    variances
}

/// The quantile of values in any order, as [`super::quantile`] defines it; infinite where its upper neighbour is. None for p
/// outside [0, 1].
fn quantile_unsorted(values: &mut [f64], p: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&p) {
        return None;
    }
    let position = values.len().checked_sub(1)? as f64 * p;
    let mut at = |rank: f64| *values.select_nth_unstable_by(rank as usize, f64::total_cmp).1;
    let below = libm::floor(position);
    let (low, high) = (at(below), at(libm::ceil(position)));
    // Infinity minus infinity is no number.
    Some(if high.is_finite() { low + (high - low) * (position - below) } else { high })
}

/// The two variances of pairs without each of them in turn, given those of all.
fn without_one(pairs: &[(f64, f64)], all: (f64, f64)) -> impl Iterator<Item = (f64, f64)> {
    /// Below this share of the variance of all, rounding would be seen.
    const SMALL: f64 = 1e-6;
    let rest = pairs.len() as f64 - 1.0;
    let middle = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let (a_mean, b_mean) = (middle(|pair| pair.0), middle(|pair| pair.1));
    let sums = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value))
    };
    let a_sums = sums(&mut pairs.iter().map(|(a, _)| a - a_mean));
    let b_sums = sums(&mut pairs.iter().map(|(_, b)| b - b_mean));
    let left = move |(sum, squares): (f64, f64), value: f64| {
        let (sum, squares) = (sum - value, squares - value * value);
        (squares - sum * sum / rest) / (rest - 1.0)
    };
    pairs.iter().enumerate().map(move |(at, (a, b))| {
        let (ours, theirs) = (left(a_sums, a - a_mean), left(b_sums, b - b_mean));
        if ours >= SMALL * all.0 && theirs >= SMALL * all.1 {
            return (ours, theirs);
        }
        let mut rest = pairs.to_vec();
        rest.remove(at);
        variances(&rest)
    })
}

/// Sums and sums of squares of values over some resamples from a given one.
fn summed(values: &[f64], counts: &[u16], from: usize) -> [[f64; LANES]; 2] {
    let mut sums = [[0.0; LANES]; 2];
    for (value, counts) in values.iter().zip(counts.chunks_exact(RESAMPLES)) {
        let Some(counts) = counts.get(from..from + LANES) else { continue };
        for (lane, count) in counts.iter().enumerate() {
            let counted = f64::from(*count) * value;
            sums[0][lane] += counted;
            sums[1][lane] += counted * value;
        }
    }
    sums
}

/// How often each of n seeds is drawn in each resample of n draws, [n, RESAMPLES].
fn counts(n: usize, number: u64) -> Vec<u16> {
    let mut stream = Key::of_dataset(0, "bootstrap").stream(Purpose::Structure, n as u64, number);
    let mut counts = vec![0u16; n * RESAMPLES];
    for resample in 0..RESAMPLES {
        for _ in 0..n {
            let seed = stream.below(n as u64) as usize;
            if let Some(count) = counts.get_mut(seed * RESAMPLES + resample) {
                *count = count.saturating_add(1);
            }
        }
    }
    counts
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
