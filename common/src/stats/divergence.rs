//! How far apart the class probabilities are that runs predict.

use super::{mean, spread_pairs};

/// The divergence of Lin 1991, eq. 4.1 with equal weights (Jensen-Shannon), between the class distributions of two runs,
/// averaged over examples, in nats: 0 where they are the same, ln 2 where no class has a probability in both. Distributions
/// are natural logarithms of probabilities, `classes` for each example, example by example; −∞ stands for a probability of
/// zero. None without examples, when the two are not as long or not a multiple of `classes`, or when a value is NaN or +∞.
#[must_use]
pub fn jensen_shannon(p: &[f64], q: &[f64], classes: usize) -> Option<f64> {
    if classes == 0 || p.is_empty() || p.len() != q.len() || !p.len().is_multiple_of(classes) {
        return None;
    }
    if p.iter().chain(q).any(|value| value.is_nan() || *value == f64::INFINITY) {
        return None;
    }
    let rows = p.chunks_exact(classes).zip(q.chunks_exact(classes));
    let of_row = |(p, q): (&[f64], &[f64])| p.iter().zip(q).map(|(p, q)| of_class(*p, *q)).sum::<f64>();
    mean(&rows.map(of_row).collect::<Vec<f64>>())
}

/// The mean of [`jensen_shannon`] over pairs of runs: all of them, or, where they are more than `most`, those of
/// [`spread_pairs`]. None with fewer than two runs, or where any pair has none. Takes a time of the order of the number of
/// pairs: the entropies of the pairs' mixtures do not come out of sums over runs.
#[must_use]
pub fn mean_jensen_shannon(runs: &[impl AsRef<[f64]>], classes: usize, most: usize) -> Option<f64> {
    let pairs = spread_pairs(runs.len(), most).into_iter();
    let of_pair =
        |(a, b): (usize, usize)| jensen_shannon(runs.get(a)?.as_ref(), runs.get(b)?.as_ref(), classes);
    let mut all: Vec<f64> = pairs.map(of_pair).collect::<Option<_>>()?;
    all.sort_unstable_by(f64::total_cmp);
    mean(&all)
}

/// A class's share, ½(p·ln(p/m) + q·ln(q/m)) with m = (p + q)/2, from ln p and ln q.
///
/// It is m·(ln 2 − H(w)) with w = p/(p + q) = 1/(1 + exp(−d)), d = ln p − ln q, and the entropy H: never negative, and the
/// same for p and q exchanged.
fn of_class(log_p: f64, log_q: f64) -> f64 {
    let middle = 0.5 * (libm::exp(log_p) + libm::exp(log_q));
    let d = (log_p - log_q).abs();
    if d.is_nan() {
        // Neither has it.
        return 0.0;
    }
    if d < 1.0 {
        // With t = 2w − 1 = tanh(d/2), ln 2 − H = ½(t·d + ln(1 − t²)): t² − ½t² for small t, nothing cancels.
        let t = libm::tanh(d / 2.0);
        return middle * 0.5 * (t * d + libm::log1p(-t * t));
    }
    let odds = libm::exp(-d);
    let lost = if odds > 0.0 { d * odds / (1.0 + odds) } else { 0.0 };
    middle * (std::f64::consts::LN_2 - libm::log1p(odds) - lost)
}
