//! The chi-square distribution through the regularised incomplete gamma function.

/// P(X > x) of chi-square with `degrees` of freedom, Q(ν/2, x/2) (Abramowitz & Stegun 26.4.19). NaN without degrees of
/// freedom.
#[must_use]
pub fn chi_square_sf(x: f64, degrees: f64) -> f64 {
    if x.is_nan() || !(degrees > 0.0 && degrees.is_finite()) {
        return f64::NAN;
    }
    upper_gamma(degrees / 2.0, x / 2.0)
}

/// Q(a, x) = Γ(a, x)/Γ(a) for a > 0: by 1 − P(a, x) and its series where that converges fast, x < a + 1, and by the
/// continued fraction elsewhere (Press et al., *Numerical Recipes*, 3rd edition, section 6.2).
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x == f64::INFINITY {
        return 0.0;
    }
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 { 1.0 - front * series(a, x) } else { front * continued_fraction(a, x) }
}

/// About √a terms are needed where a is large; this many are enough for 10^8 degrees of freedom.
const MOST_TERMS: u32 = 100_000;

/// Σ xⁿ/(a(a + 1)…(a + n)) (Abramowitz & Stegun 6.5.29).
fn series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for n in 1..MOST_TERMS {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < sum * f64::EPSILON {
            break;
        }
    }
    sum
}

/// The even part of the continued fraction of Abramowitz & Stegun 6.5.31, 1/(x + 1 − a − 1·(1 − a)/(x + 3 − a − …)), by the
/// modified Lentz method (Thompson & Barnett 1986).
fn continued_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut base = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / away(base));
    let mut fraction = d;
    for n in 1..MOST_TERMS {
        let n = f64::from(n);
        let numerator = n * (a - n);
        base += 2.0;
        d = 1.0 / away(base + numerator * d);
        c = away(base + numerator / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}
