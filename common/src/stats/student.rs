//! Student's t distribution through the regularised incomplete beta function.

use std::sync::OnceLock;

/// P(T ≤ t) with `degrees` of freedom: for t > 0, 1 − ½ I_x(ν/2, ½) with x = ν/(ν + t²)
/// (Abramowitz & Stegun 26.7.1). NaN without degrees of freedom.
#[must_use]
pub fn student_t_cdf(t: f64, degrees: f64) -> f64 {
    if degrees.is_nan() || degrees <= 0.0 || t.is_nan() {
        return f64::NAN;
    }
    let tail = 0.5 * upper_tails(t, degrees);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The p-quantile of Student's t with `degrees` of freedom, by bisection of [`student_t_cdf`] down to the spacing
/// of doubles. NaN for p outside (0, 1) or without degrees of freedom.
#[must_use]
pub fn student_t_quantile(p: f64, degrees: f64) -> f64 {
    if !(p > 0.0 && p < 1.0 && degrees > 0.0) {
        return f64::NAN;
    }
    if p < 0.5 {
        return -student_t_quantile(1.0 - p, degrees);
    }
    // On both tails at once, so that nothing is lost near p = 1.
    let tails = 2.0 * (1.0 - p);
    let (mut low, mut high) = (0.0, 1.0);
    while upper_tails(high, degrees) > tails && high < f64::MAX / 2.0 {
        low = high;
        high *= 2.0;
    }
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if upper_tails(middle, degrees) > tails {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// t(0.975, ν), remembered for the ν that a sweep has: a group of seeds gives the same one each time.
pub(super) fn t_975(degrees: u64) -> f64 {
    const REMEMBERED: u64 = 256;
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    let table = TABLE.get_or_init(|| (0..REMEMBERED).map(|v| student_t_quantile(0.975, v as f64)).collect());
    let known = usize::try_from(degrees).ok().and_then(|degrees| table.get(degrees)).copied();
    known.unwrap_or_else(|| student_t_quantile(0.975, degrees as f64))
}

/// P(|T| > |t|).
fn upper_tails(t: f64, degrees: f64) -> f64 {
    let square = t * t;
    if square > degrees {
        incomplete_beta(degrees / (degrees + square), degrees / 2.0, 0.5)
    } else {
        1.0 - incomplete_beta(square / (degrees + square), 0.5, degrees / 2.0)
    }
}

/// The regularised incomplete beta function I_x(a, b), by the continued fraction of DLMF 8.17.22 where it
/// converges fast, x < (a + 1)/(a + b + 2), and by I_x(a, b) = 1 − I_{1−x}(b, a) (DLMF 8.17.4) elsewhere.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let log_beta = libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    let front = libm::exp(a * libm::log(x) + b * libm::log1p(-x) - log_beta) / a;
    front * continued_fraction(x, a, b)
}

/// 1/(1 + d1/(1 + d2/(1 + …))) of DLMF 8.17.22 by the modified Lentz method (Thompson & Barnett 1986).
fn continued_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    // About √max(a, b) terms are needed; this many are enough for 10^8 degrees of freedom.
    const MOST_TERMS: u32 = 100_000;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..MOST_TERMS {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}
