//! Linearly separable data with a known margin.

use evenkeel_common::seed::{Purpose, Stream};
use evenkeel_common::trial::{SyntheticConfig, separable_offset};

use super::{DataError, Dataset, Draws, both_sets, turn};

/// Draws a linearly separable dataset with hard margin at least `margin` (γ), up to the rounding to f32.
///
/// Two classes: `x = s·(γ + |ξ|)·u + noise·g`, with u a unit direction, s = ±1 the class, ξ standard normal and g
/// standard normal in the orthogonal complement of u. As `s·⟨u, x⟩ ≥ γ`, the margin is at least γ.
///
/// C > 2 classes: unit vectors v_1 … v_C of a regular simplex (`⟨v_a, v_b⟩ = −1/(C − 1)`) in a random subspace of
/// C − 1 dimensions; `x = (a + |ξ|)·v_y + noise·g` with g orthogonal to that subspace. The matrix of rows v_c has
/// Frobenius norm √C and separates a sample of class y from class c by `(a + |ξ|)·C/(C − 1)`, so the margin of
/// Crammer & Singer (2001) is at least `a·√C/(C − 1)`; `a = γ·(C − 1)/√C` makes that γ.
///
/// Points are pulled into the ball of radius `max_norm` (B): first the part along the class direction is cut to B,
/// then the orthogonal part is shortened. Neither reduces the margin below γ.
///
/// # Errors
/// When `max_norm` is too small for that margin with that many classes, or there are too few features for a simplex.
pub fn generate(
    config: &SyntheticConfig,
    margin: f64,
    noise: f64,
    max_norm: f64,
    draws: Draws<'_>,
) -> Result<Dataset, DataError> {
    let d = config.features as usize;
    let classes = config.classes as usize;
    let span = if classes == 2 { 1 } else { classes - 1 };
    if span > d {
        return Err(DataError::Invalid(format!(
            "{classes} classes on a simplex need {span} features, found {d}"
        )));
    }
    let offset = separable_offset(margin, config.classes);
    if offset > max_norm {
        return Err(DataError::Invalid(format!(
            "a margin of {margin} with {classes} classes needs points of norm {offset:.4}, above max_norm {max_norm}"
        )));
    }
    let basis = orthonormal(&mut draws.key.stream(Purpose::Structure, 0, 0), span, d);
    let directions = class_directions(&basis, classes, d);
    let mut point = vec![0.0; d];
    Ok(both_sets(config, draws, |stream, i, x| {
        let class = turn(i, config.classes);
        let along = (offset + stream.normal().abs()).min(max_norm);
        for value in &mut point {
            *value = noise * stream.normal();
        }
        for axis in basis.chunks_exact(d) {
            let part = dot(axis, &point);
            for (value, a) in point.iter_mut().zip(axis) {
                *value -= part * a;
            }
        }
        let across = libm::sqrt(dot(&point, &point));
        let room = libm::sqrt((max_norm * max_norm - along * along).max(0.0));
        let shrink = if across > room { room / across } else { 1.0 };
        let direction = &directions[class as usize * d..][..d];
        x.extend(point.iter().zip(direction).map(|(p, v)| (shrink * p + along * v) as f32));
        class
    }))
}

/// `count` orthonormal vectors of d dimensions, row after row: Gram–Schmidt, twice for accuracy (Giraud et al. 2005).
fn orthonormal(stream: &mut Stream, count: usize, d: usize) -> Vec<f64> {
    let mut basis: Vec<f64> = Vec::with_capacity(count * d);
    while basis.len() < count * d {
        let mut v: Vec<f64> = (0..d).map(|_| stream.normal()).collect();
        let before = libm::sqrt(dot(&v, &v));
        for _ in 0..2 {
            for axis in basis.chunks_exact(d) {
                let part = dot(axis, &v);
                for (value, a) in v.iter_mut().zip(axis) {
                    *value -= part * a;
                }
            }
        }
        let norm = libm::sqrt(dot(&v, &v));
        // A draw within the span of the earlier ones has no direction of its own: draw again.
        if norm > 1e-8 * before {
            basis.extend(v.iter().map(|value| value / norm));
        }
    }
    basis
}

/// Unit vectors of the classes, row after row: ±u for two, the corners of a regular simplex for more.
fn class_directions(basis: &[f64], classes: usize, d: usize) -> Vec<f64> {
    if classes == 2 {
        return basis.iter().map(|u| -u).chain(basis.iter().copied()).collect();
    }
    let corners = simplex(classes);
    let mut directions = vec![0.0; classes * d];
    for (direction, corner) in directions.chunks_exact_mut(d).zip(corners.chunks_exact(classes - 1)) {
        for (axis, weight) in basis.chunks_exact(d).zip(corner) {
            for (value, a) in direction.iter_mut().zip(axis) {
                *value += weight * a;
            }
        }
    }
    directions
}

/// Corners of the regular simplex inscribed in the unit sphere, [C, C − 1]: corner i has `√(1 − Σ earlier²)` on axis i,
/// and all later corners share the value on it that makes their product with corner i equal to −1/(C − 1).
fn simplex(classes: usize) -> Vec<f64> {
    let dims = classes - 1;
    let mut corners = vec![0.0; classes * dims];
    for axis in 0..dims {
        let row = &corners[axis * dims..][..axis];
        let used = dot(row, row);
        let own = libm::sqrt((1.0 - used).max(0.0));
        corners[axis * dims + axis] = own;
        let rest = (-1.0 / dims as f64 - used) / own;
        for later in axis + 1..classes {
            corners[later * dims + axis] = rest;
        }
    }
    corners
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::seed::Key;
    use evenkeel_common::trial::GeneratorConfig;

    fn config(samples: u32, features: u32, classes: u32) -> SyntheticConfig {
        let generator = GeneratorConfig::Separable { margin: 0.5, noise: 1.0, max_norm: 6.0 };
        SyntheticConfig { generator, samples, features, classes, test_samples: 30, instance: 0 }
    }

    #[test]
    fn simplex_corners_are_unit_vectors_at_equal_angles() {
        for classes in 3..8 {
            let corners = simplex(classes);
            let row = |i: usize| &corners[i * (classes - 1)..][..classes - 1];
            for a in 0..classes {
                assert!((dot(row(a), row(a)) - 1.0).abs() < 1e-12);
                for b in 0..a {
                    assert!((dot(row(a), row(b)) + 1.0 / (classes as f64 - 1.0)).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn points_keep_the_margin_and_the_norm() {
        for classes in [2, 3, 5] {
            let key = Key::of_dataset(3, "separable");
            let data = generate(&config(200, 10, classes), 0.5, 3.0, 6.0, Draws::of(&key)).unwrap();
            let basis =
                orthonormal(&mut key.stream(Purpose::Structure, 0, 0), (classes as usize - 1).max(1), 10);
            let v = class_directions(&basis, classes as usize, 10);
            let frobenius = if classes == 2 { 2.0 } else { f64::from(classes).sqrt() };
            for (x, y) in data.x_train.chunks_exact(10).zip(&data.y_train) {
                let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                assert!(dot(&x, &x).sqrt() < 6.0 + 1e-5);
                let logit = |c: u32| dot(&v[c as usize * 10..][..10], &x);
                for c in (0..classes).filter(|c| c != y) {
                    assert!((logit(*y) - logit(c)) / frobenius > 0.5 - 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_margin_that_does_not_fit_into_the_ball_is_refused() {
        let key = Key::of_dataset(0, "x");
        assert!(matches!(
            generate(&config(40, 12, 10), 5.0, 1.0, 6.0, Draws::of(&key)),
            Err(DataError::Invalid(_))
        ));
    }
}
