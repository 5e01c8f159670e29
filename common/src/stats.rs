//! Statistics that do not depend on the order in which results arrive, to the last bit.
//!
//! A [`Sample`] keeps its values, and everything is computed from them in sorted order: two samples of the same
//! values are the same, in whatever order and through whatever merges they came. A group has as many values as
//! there are seeds, so keeping them costs little, and quantiles need them anyway.

mod agreement;
mod bootstrap;
mod compare;
mod divergence;
mod gamma;
mod matrix;
mod normal;
mod range;
mod ranks;
mod regression;
mod representations;
mod student;
mod svd;

pub use agreement::{Agreement, Votes};
pub use bootstrap::{Bootstrap, LEAST_SEEDS, Pairs, RatioEstimate, mean_variance_ratio};
pub use compare::{SignedRank, brown_forsythe, holm, seeds_needed, signed_rank};
pub use divergence::{jensen_shannon, mean_jensen_shannon};
pub use gamma::chi_square_sf;
pub use normal::{normal_cdf, normal_quantile};
pub use range::nemenyi_critical_difference;
pub use ranks::{Correlation, Friedman, friedman, mid_ranks, spearman};
pub use regression::{Line, ols, ols_within};
pub use representations::{
    Representation, RepresentationDistances, linear_cka, procrustes_distance, spread_pairs, svcca,
};
pub use student::{student_t_cdf, student_t_quantile};

/// Values of one quantity: mergeable, independent of order.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    values: Vec<f64>,
    skipped: u64,
}

/// What a sample says. `None` where there are too few values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation with n − 1 in the denominator; from two values on.
    pub sd: Option<f64>,
    /// Standard error of the mean, SD/√n; from two values on.
    pub se: Option<f64>,
    /// 95 % confidence interval of the mean, mean ± t(0.975, n − 1)·SE (Student 1908); from two values on.
    pub ci95: Option<(f64, f64)>,
    /// Least value.
    pub min: f64,
    /// First quartile.
    pub q1: f64,
    /// Median.
    pub median: f64,
    /// Third quartile.
    pub q3: f64,
    /// Greatest value.
    pub max: f64,
    /// Coefficient of variation, SD/|mean|; none when the mean is zero.
    pub cv: Option<f64>,
}

impl Summary {
    /// Interquartile range.
    #[must_use]
    pub fn iqr(&self) -> f64 {
        self.q3 - self.q1
    }
}

impl Sample {
    /// Adds a value. One that is not finite is counted apart and otherwise left out.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            // Zero has one sign here, so that equal values have equal bits.
            self.values.push(value + 0.0);
        } else {
            self.skipped += 1;
        }
    }

    /// Adds the values of another sample.
    pub fn merge(&mut self, other: &Self) {
        self.values.extend_from_slice(&other.values);
        self.skipped += other.skipped;
    }

    /// Number of finite values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.values.len() as u64
    }

    /// Number of values that were not finite.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether there is no finite value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The finite values in rising order.
    #[must_use]
    pub fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    /// All statistics; none of an empty sample.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let sorted = self.sorted();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        let mean = mean(&sorted)?;
        let sd = variance(&sorted).map(libm::sqrt);
        let se = sd.map(|sd| sd / libm::sqrt(count as f64));
        let ci95 = se.map(|se| {
            let half = student::t_975(count as u64 - 1) * se;
            (mean - half, mean + half)
        });
        Some(Summary {
            count: count as u64,
            mean,
            sd,
            se,
            ci95,
            min,
            q1: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            q3: quantile(&sorted, 0.75)?,
            max,
            cv: sd.filter(|_| mean != 0.0).map(|sd| sd / mean.abs()),
        })
    }

    /// The p-quantile, linear between order statistics (type 7 of Hyndman & Fan 1996, numpy's default).
    #[must_use]
    pub fn quantile(&self, p: f64) -> Option<f64> {
        quantile(&self.sorted(), p)
    }

    /// Expected greatest of k values drawn with replacement (Dodge et al. 2020, eq. 1 to 5): what the best of k runs would
    /// score. None of an empty sample, or for k = 0
    /// or 2³¹ and more.
    #[must_use]
    pub fn expected_max(&self, k: u32) -> Option<f64> {
        let sorted = self.sorted();
        let n = (!sorted.is_empty() && k > 0).then_some(sorted.len() as f64)?;
        let power = i32::try_from(k).ok()?;
        let up_to = |rank: usize| (rank as f64 / n).powi(power);
        Some(sorted.iter().zip(0..).map(|(value, rank)| value * (up_to(rank + 1) - up_to(rank))).sum())
    }

    /// Variance with n − 1 in the denominator; from two values on.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        variance(&self.sorted())
    }
}

impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.skipped == other.skipped && self.sorted() == other.sorted()
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sample = Self::default();
        values.into_iter().for_each(|value| sample.push(value));
        sample
    }
}

/// The p-quantile of sorted values (type 7 of Hyndman & Fan 1996): at position (n − 1)p, linear in between.
/// None of an empty slice, or for p outside [0, 1].
#[must_use]
pub fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&p) {
        return None;
    }
    let position = sorted.len().checked_sub(1)? as f64 * p;
    let below = libm::floor(position);
    let (low, high) = (*sorted.get(below as usize)?, *sorted.get(libm::ceil(position) as usize)?);
    Some(low + (high - low) * (position - below))
}

/// Variance of a over variance of b; none when either has fewer than two values or b does not vary.
#[must_use]
pub fn variance_ratio(a: &Sample, b: &Sample) -> Option<f64> {
    let (a, b) = (a.variance()?, b.variance()?);
    (b > 0.0).then(|| a / b)
}

/// Counts failed runs: those whose score is no better than predicting the most frequent class
/// (Dodge et al. 2020; Mosbach et al. 2021), and those that diverged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedRuns {
    /// Failed runs.
    pub failed: u64,
    /// Runs that could be judged.
    pub of: u64,
}

impl FailedRuns {
    /// Adds a run that ended, with its score and the majority class's. One with neither cannot be judged.
    pub fn push(&mut self, score: Option<f64>, majority: Option<f64>) {
        if let (Some(score), Some(majority)) = (score, majority) {
            self.of += 1;
            // A score that is no number is no better, either.
            self.failed += u64::from(score.is_nan() || score <= majority);
        }
    }

    /// Adds a run that diverged.
    pub fn push_diverged(&mut self) {
        self.of += 1;
        self.failed += 1;
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.failed += other.failed;
        self.of += other.of;
    }

    /// Failed runs over runs, in [0, 1]; none without runs.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        (self.of > 0).then(|| self.failed as f64 / self.of as f64)
    }
}

/// Mean of values, with the rounding error of the first pass taken back by a second.
fn mean(values: &[f64]) -> Option<f64> {
    let n = (!values.is_empty()).then_some(values.len() as f64)?;
    // Divided first: the sum of finite values may overflow, their mean does not.
    let first: f64 = values.iter().map(|value| value / n).sum();
    let rest: f64 = values.iter().map(|value| (value - first) / n).sum();
    Some(first + rest)
}

/// The corrected two-pass variance (Chan, Golub & LeVeque 1983, eq. 1.7).
fn variance(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let n = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let rest: f64 = values.iter().map(|value| value - mean).sum();
    Some(((squares - rest * rest / n) / (n - 1.0)).max(0.0))
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod similarity_tests;
#[cfg(test)]
mod tests;
