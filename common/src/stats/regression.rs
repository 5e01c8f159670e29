//! A straight line through points.

use super::{mean, student};

/// A least-squares line y = intercept + slope·x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Points it was fitted to.
    pub count: u64,
    /// Its slope; on log-log axes the exponent of a power law.
    pub slope: f64,
    /// Its value at x = 0.
    pub intercept: f64,
    /// 95 % confidence interval of the slope, slope ± t(0.975, n − 2)·SE; from three points on.
    pub slope_ci95: Option<(f64, f64)>,
    /// Share of the variance of y that the line explains; none when y does not vary.
    pub r_squared: Option<f64>,
}

/// Ordinary least squares (Draper & Smith, *Applied Regression Analysis*, ch. 1), independent of the points' order.
/// Points that are not finite are left out. None with fewer than two points or when x does not vary.
#[must_use]
pub fn ols(points: &[(f64, f64)]) -> Option<Line> {
    let mut points: Vec<(f64, f64)> =
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let column = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).collect::<Vec<f64>>();
    let (mean_x, mean_y) = (mean(&column(|p| p.0))?, mean(&column(|p| p.1))?);
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if points.len() < 2 || xx <= 0.0 || !xx.is_finite() {
        return None;
    }
    let slope = xy / xx;
    let residual = sum(&|x, y| (y - slope * x) * (y - slope * x));
    let degrees = points.len() as u64 - 2;
    let slope_ci95 = (degrees > 0).then(|| {
        let half = student::t_975(degrees) * libm::sqrt(residual / degrees as f64 / xx);
        (slope - half, slope + half)
    });
    Some(Line {
        count: points.len() as u64,
        slope,
        intercept: mean_y - slope * mean_x,
        slope_ci95,
        r_squared: (yy > 0.0).then(|| 1.0 - residual / yy),
    })
}
