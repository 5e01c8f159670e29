//! The range of normal values, and how far apart mean ranks must be.

use super::normal_cdf;

/// How far apart the mean ranks of two of `treatments` over `blocks` must be, to differ at the level 0.05 in the test of
/// Nemenyi 1963, which allows for all pairs (Demšar 2006, section 3.2.2): q/√2·√(k(k + 1)/(6n)), where q is the
/// 0.95-quantile of the studentized range of k values with infinite degrees of freedom. None with fewer than two treatments
/// or without blocks.
#[must_use]
pub fn nemenyi_critical_difference(treatments: usize, blocks: u64) -> Option<f64> {
    if treatments < 2 || blocks == 0 {
        return None;
    }
    let (k, n) = (treatments as f64, blocks as f64);
    Some(range_quantile(0.95, k) * libm::sqrt(k * (k + 1.0) / (12.0 * n)))
}

/// The p-quantile of the range, by bisection of [`range_cdf`] down to the spacing of doubles.
fn range_quantile(p: f64, k: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while range_cdf(high, k) < p && high < 64.0 {
        low = high;
        high *= 2.0;
    }
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if range_cdf(middle, k) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// P(range ≤ q) of k standard normal values: k·∫φ(z)·(Φ(z) − Φ(z − q))^(k − 1) dz over the greatest of them, z (Hartley
/// 1942). By the trapezoidal rule, which converges exponentially for such integrands (Trefethen & Weideman 2014): below −8
/// and above 12 nothing is left that a double could hold, and thirty-two steps to a unit suffice for any k.
fn range_cdf(q: f64, k: f64) -> f64 {
    const STEPS: i32 = 32;
    let at = |step: i32| {
        let z = f64::from(step) / f64::from(STEPS);
        libm::exp(-z * z / 2.0) * libm::pow(normal_cdf(z) - normal_cdf(z - q), k - 1.0)
    };
    let sum: f64 = (-8 * STEPS..=12 * STEPS).map(at).sum();
    k * sum / (f64::from(STEPS) * libm::sqrt(2.0 * std::f64::consts::PI))
}
