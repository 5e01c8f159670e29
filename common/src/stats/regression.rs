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
    ols_within(&[points.to_vec()])
}

/// One slope for families of points that have an intercept each: least squares after every family was centred on its own mean
/// (the covariance estimator of panel data, Baltagi, *Econometric Analysis of Panel Data*, §2.2), so that the slope is of what
/// varies within families. Families with one point, or in which x does not vary, tell nothing of it and are left out. The
/// interval has N − F − 1 degrees of freedom for N points of F families. The intercept is that of the means.
#[must_use]
pub fn ols_within(families: &[Vec<(f64, f64)>]) -> Option<Line> {
    let mut centred: Vec<(f64, f64)> = Vec::new();
    let (mut count, mut origin) = (0u64, (0.0, 0.0));
    let mut all: Vec<Vec<(f64, f64)>> = families.iter().map(|family| in_order(family)).collect();
    // Families in one order, too, so that sums have the same bits.
    all.sort_by(|a, b| {
        let differ = a.iter().zip(b).map(|(a, b)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        differ.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(a.len().cmp(&b.len()))
    });
    for family in all {
        let varies = family.first().zip(family.last()).is_some_and(|(first, last)| last.0 > first.0);
        if !varies {
            continue;
        }
        let column = |of: fn(&(f64, f64)) -> f64| family.iter().map(of).collect::<Vec<f64>>();
        let (x, y) = (mean(&column(|p| p.0))?, mean(&column(|p| p.1))?);
        origin = (origin.0 + x * family.len() as f64, origin.1 + y * family.len() as f64);
        centred.extend(family.iter().map(|p| (p.0 - x, p.1 - y)));
        count += 1;
    }
    let points = centred.len() as f64;
    let sum = |of: &dyn Fn(f64, f64) -> f64| centred.iter().map(|(x, y)| of(*x, *y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if centred.is_empty() || xx <= 0.0 || !xx.is_finite() {
        return None;
    }
    let slope = xy / xx;
    let residual = sum(&|x, y| (y - slope * x) * (y - slope * x));
    let degrees = (centred.len() as u64).saturating_sub(count + 1);
    let slope_ci95 = (degrees > 0).then(|| {
        let half = student::t_975(degrees) * libm::sqrt(residual / degrees as f64 / xx);
        (slope - half, slope + half)
    });
    Some(Line {
        count: centred.len() as u64,
        slope,
        intercept: (origin.1 - slope * origin.0) / points,
        slope_ci95,
        r_squared: (yy > 0.0).then(|| 1.0 - residual / yy),
    })
}

/// The finite points, sorted.
fn in_order(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> =
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_with_levels_of_their_own_share_one_slope() {
        let line = |level: f64, xs: &[f64]| xs.iter().map(|x| (*x, level - 2.0 * x)).collect::<Vec<_>>();
        let families = [line(0.0, &[1.0, 2.0, 3.0]), line(50.0, &[7.0, 9.0]), line(9.0, &[4.0])];
        let found = ols_within(&families).expect("line");
        // A line through all points at once would rise.
        assert!(ols(&families.concat()).expect("line").slope > 0.0);
        assert!((found.slope + 2.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.count, 5);
        let (low, high) = found.slope_ci95.expect("interval");
        assert!((low + 2.0).abs() < 1e-9 && (high + 2.0).abs() < 1e-9);
        let reversed: Vec<Vec<(f64, f64)>> =
            families.iter().rev().map(|family| family.iter().rev().copied().collect()).collect();
        assert_eq!(ols_within(&reversed), Some(found), "independent of order, to the bit");
        assert_eq!(ols_within(&[line(1.0, &[1.0, 2.0])]).expect("line").slope_ci95, None);
        assert_eq!(ols_within(&[line(1.0, &[3.0])]), None);
    }

    #[test]
    fn pairs_have_the_interval_of_their_differences() {
        // Two points a family: the slope through the origin of differences, with one degree of freedom a family less one.
        let families =
            [(1.0, 1.2), (1.0, 0.7), (1.0, 1.4), (1.0, 1.1)].map(|(dx, dy)| vec![(0.0, 5.0), (dx, 5.0 + dy)]);
        let found = ols_within(&families).expect("line");
        assert!((found.slope - 1.1).abs() < 1e-12);
        // scipy: stats.t.interval(0.95, 3, 1.1, stats.sem([1.2, 0.7, 1.4, 1.1]))
        let (low, high) = found.slope_ci95.expect("interval");
        assert!(
            (low - 0.631_556_587_696_761_8).abs() < 1e-12 && (high - 1.568_443_412_303_238_5).abs() < 1e-12,
            "{low} {high}"
        );
    }
}
