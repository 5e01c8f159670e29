//! The stability bounds that measurements are shown beside.
//!
//! Source: Fu, So & Collier, *A Stability Analysis of Fine-Tuning a Pre-Trained Model*, arXiv 2301.09820 (2023). Constants that
//! the bounds leave open are estimated from the same trainings; how is said with each.

/// Steps from which [`rate`] falls: log log t / log t has its maximum at t = e^e ≈ 15.2.
pub const LEAST_STEPS: u32 = 16;
/// Probability with which the bound for several heads may fail.
pub const DELTA: f64 = 0.05;

/// log log t / log t: how fast the direction of gradient descent on separable data approaches the maximal margin's at least,
/// up to a constant (Soudry et al. 2018, JMLR 19, theorem 5; almost all data sets have the faster 1/log t). None below
/// [`LEAST_STEPS`], where it does not fall yet.
#[must_use]
pub fn rate(steps: u32) -> Option<f64> {
    let log = libm::log(f64::from(steps));
    (steps >= LEAST_STEPS).then(|| libm::log(log) / log)
}

/// C of the bound for head tuning, estimated from distances ‖w(t)/‖w(t)‖ − ŵ/‖ŵ‖‖ at steps t: twice the greatest ratio of a
/// distance to [`rate`]. Twice, because the model with and the model without the point are both that far from their limits, and
/// only one distance is measured. None without a distance from [`LEAST_STEPS`] on.
#[must_use]
pub fn rate_constant(residuals: impl Iterator<Item = (u32, f64)>) -> Option<f64> {
    let ratios = residuals.filter_map(|(steps, residual)| Some(residual / rate(steps)?));
    ratios.filter(|ratio| ratio.is_finite()).reduce(f64::max).map(|ratio| 2.0 * ratio)
}

/// sqrt((2 + 8 ln(1/δ))/H), by which H heads shrink the first term of the bound with probability 1 − δ; 1 where H is too small
/// for the statement, H ≤ 2 + 8 ln(1/δ) (Fu, So & Collier 2023, the theorem on the Multi-Head Loss).
#[must_use]
pub fn heads_factor(heads: u32, delta: f64) -> f64 {
    let least = 2.0 - 8.0 * libm::log(delta);
    libm::sqrt(least / f64::from(heads)).min(1.0)
}

/// What the bound for head tuning is computed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadConstants {
    /// n, training points.
    pub samples: u32,
    /// C, classes.
    pub classes: u32,
    /// γ, hard margin, in the features' unit.
    pub margin: f64,
    /// B, greatest norm of a point, in the same unit.
    pub feature_norm: f64,
    /// Greatest dual variable of the hard-margin problem.
    pub dual_max: f64,
    /// Its support vectors.
    pub support: u32,
    /// Steps of gradient descent.
    pub steps: u32,
    /// C of the first term.
    pub rate_constant: f64,
    /// Factor of the first term for several heads.
    pub heads_factor: f64,
}

/// The bound for head tuning and its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadBound {
    /// λ = 1/(n·α_max), the strongest regulariser at which the soft-margin solution equals the hard-margin one.
    pub lambda: f64,
    /// log log t / log t.
    pub rate: f64,
    /// First term: how far gradient descent still is from its limit.
    pub rate_term: f64,
    /// Second term: how far the limit moves when a point is left out.
    pub margin_term: f64,
    /// The second term as a mean over all points: without a point that is no support vector the limit stays where it is, so it
    /// is `margin_term` times the share of support vectors. Ours, not the paper's.
    pub support_term: f64,
}

impl HeadBound {
    /// The bound on the mean leave-one-out distance of directions. Two directions are at most 2 apart, so more says nothing.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.rate_term + self.margin_term
    }

    /// The bound with the share of support vectors.
    #[must_use]
    pub fn with_support(&self) -> f64 {
        self.rate_term + self.support_term
    }
}

/// The bound on leave-one-out stability of head tuning by gradient descent on separable data (Fu, So & Collier 2023):
///
/// ε(t) ≤ C·loglog t/log t + ν·max{ sqrt((2/(λn))(1 + B/γ)), (B + sqrt(B² + 8nλ(1 + B/γ)))/(2nλ) }
///
/// with ν = 1/‖ŵ‖ = γ, since the hard-margin solution ŵ has norm 1/γ. The statement is about two classes; with more, the points
/// are the differences that Crammer & Singer 2001 tell classes apart by, which are √2 times as long, and α is summed over the
/// other classes of a point. None for fewer steps than [`LEAST_STEPS`] or constants that are not positive.
#[must_use]
pub fn head_bound(of: &HeadConstants) -> Option<HeadBound> {
    let positive = [of.margin, of.feature_norm, of.dual_max].iter().all(|v| *v > 0.0 && v.is_finite());
    let rate = rate(of.steps).filter(|_| positive && of.rate_constant.is_finite())?;
    let b = of.feature_norm * if of.classes > 2 { std::f64::consts::SQRT_2 } else { 1.0 };
    let lambda_n = 1.0 / of.dual_max;
    let growth = 1.0 + b / of.margin;
    let first = libm::sqrt(2.0 / lambda_n * growth);
    let second = (b + libm::sqrt(b * b + 8.0 * lambda_n * growth)) / (2.0 * lambda_n);
    let margin_term = of.margin * first.max(second);
    let n = f64::from(of.samples.max(1));
    Some(HeadBound {
        lambda: lambda_n / n,
        rate,
        rate_term: of.heads_factor * of.rate_constant * rate,
        margin_term,
        support_term: margin_term * (f64::from(of.support) / n).min(1.0),
    })
}

/// What the bound for full fine-tuning is computed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FullConstants {
    /// n, training points.
    pub samples: u32,
    /// L, greatest norm of the gradient of one example's loss.
    pub lipschitz: f64,
    /// β, greatest eigenvalue of the loss's Hessian.
    pub smoothness: f64,
    /// μ, its least eigenvalue that is clearly not zero.
    pub curvature: f64,
    /// ‖w_0 − w_*‖.
    pub distance: f64,
}

/// The bound on leave-one-out stability of full fine-tuning (Fu, So & Collier 2023), for gradient descent with step 1/β that
/// reaches a loss of zero, without the remainder C, which is zero for quadratic losses and not estimated:
///
/// ε ≤ sqrt(2L‖w_0 − w_*‖/β) / (n((1 − μ/β)^(−1/4) − 1))
///
/// None unless 0 < μ < β and all others are positive.
#[must_use]
pub fn full_bound(of: &FullConstants) -> Option<f64> {
    let positive = [of.lipschitz, of.curvature, of.distance].iter().all(|v| *v > 0.0 && v.is_finite());
    if !positive || of.samples == 0 || of.curvature >= of.smoothness || !of.smoothness.is_finite() {
        return None;
    }
    let reach = libm::sqrt(2.0 * of.lipschitz * of.distance / of.smoothness);
    // (1 − μ/β)^(−1/4) − 1 without cancellation where μ is a small part of β.
    let growth = libm::expm1(-0.25 * libm::log1p(-of.curvature / of.smoothness));
    Some(reach / (f64::from(of.samples) * growth))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn the_rate_falls_from_its_first_step_on() {
        assert_eq!(rate(15), None);
        let steps = [16, 17, 30, 100, 1000, 1_000_000];
        let rates: Vec<f64> = steps.iter().filter_map(|t| rate(*t)).collect();
        assert!(rates.windows(2).all(|pair| pair[1] < pair[0]), "{rates:?}");
        // Python: math.log(math.log(1000)) / math.log(1000)
        near(rates[4], 0.279_778_981_139_708_56);
    }

    #[test]
    fn the_constant_is_twice_the_greatest_ratio() {
        let residuals = [(10, 9.0), (100, 0.2), (1000, 0.4), (2000, f64::NAN)];
        let expected = 2.0 * 0.4 / rate(1000).expect("rate");
        near(rate_constant(residuals.into_iter()).expect("constant"), expected);
        assert_eq!(rate_constant([(10, 9.0)].into_iter()), None);
    }

    #[test]
    fn heads_help_from_the_number_the_theorem_needs() {
        // 2 + 8 ln 20 = 25.97
        assert_eq!((heads_factor(1, DELTA), heads_factor(25, DELTA)), (1.0, 1.0));
        near(heads_factor(100, DELTA), 0.509_567_053_374_057_3);
    }

    #[test]
    fn the_bound_for_heads_is_the_formula() {
        let of = HeadConstants {
            samples: 50,
            classes: 2,
            margin: 0.5,
            feature_norm: 3.0,
            dual_max: 0.8,
            support: 10,
            steps: 1000,
            rate_constant: 0.7,
            heads_factor: 1.0,
        };
        let bound = head_bound(&of).expect("bound");
        near(bound.lambda, 1.0 / (50.0 * 0.8));
        near(bound.rate_term, 0.7 * 0.279_778_981_139_708_56);
        // 0.5·max(sqrt(2·0.8·7), 0.4·(3 + sqrt(9 + 8/0.8·7)))
        near(bound.margin_term, 0.5 * 0.4 * (3.0 + 79f64.sqrt()));
        near(bound.with_support(), bound.rate_term + bound.margin_term / 5.0);
        // More classes: longer points, a weaker statement.
        assert!(head_bound(&HeadConstants { classes: 3, ..of }).expect("bound").total() > bound.total());
        assert_eq!(head_bound(&HeadConstants { margin: 0.0, ..of }), None);
        assert_eq!(head_bound(&HeadConstants { steps: 10, ..of }), None);
    }

    #[test]
    fn the_bound_for_full_fine_tuning_is_the_formula_and_falls_with_n() {
        let of =
            FullConstants { samples: 100, lipschitz: 2.0, smoothness: 4.0, curvature: 1.0, distance: 3.0 };
        let bound = full_bound(&of).expect("bound");
        near(bound, 3f64.sqrt() / (100.0 * (0.75f64.powf(-0.25) - 1.0)));
        near(full_bound(&FullConstants { samples: 200, ..of }).expect("bound"), bound / 2.0);
        assert_eq!(full_bound(&FullConstants { curvature: 4.0, ..of }), None);
        assert_eq!(full_bound(&FullConstants { curvature: 0.0, ..of }), None);
        // A flat direction makes the bound large, and keeps it exact.
        let flat = full_bound(&FullConstants { curvature: 4e-12, ..of }).expect("bound");
        near(flat, 3f64.sqrt() / (100.0 * 0.25e-12));
    }
}
