//! Distributions that no linear model separates: moons, circles, parity of signs, a random teacher.

use std::f64::consts::PI;

use evenkeel_common::seed::{Purpose, Stream};
use evenkeel_common::trial::SyntheticConfig;

use super::{DataError, Dataset, Draws, both_sets, turn};

/// Two interleaving half circles (the semantics of scikit-learn's `make_moons`, but with angles drawn uniformly): class 0
/// is (cos t, sin t) and class 1 is (1 − cos t, ½ − sin t), t in [0, π], with noise on both coordinates.
#[must_use]
pub fn moons(config: &SyntheticConfig, noise: f64, draws: Draws<'_>) -> Dataset {
    both_sets(config, draws, |stream, i, x| {
        let class = turn(i, 2);
        let t = PI * stream.uniform();
        let (along, up) = (libm::cos(t), libm::sin(t));
        let point = if class == 0 { [along, up] } else { [1.0 - along, 0.5 - up] };
        x.extend(point.map(|value| (value + noise * stream.normal()) as f32));
        class
    })
}

/// A circle of radius `factor` (class 1) within one of radius 1 (class 0), with noise on both coordinates (the semantics of
/// scikit-learn's `make_circles`, but with angles drawn uniformly).
#[must_use]
pub fn circles(config: &SyntheticConfig, noise: f64, factor: f64, draws: Draws<'_>) -> Dataset {
    both_sets(config, draws, |stream, i, x| {
        let class = turn(i, 2);
        let t = 2.0 * PI * stream.uniform();
        let radius = if class == 0 { 1.0 } else { factor };
        let point = [radius * libm::cos(t), radius * libm::sin(t)];
        x.extend(point.map(|value| (value + noise * stream.normal()) as f32));
        class
    })
}

/// Points uniform in [−1, 1]^d whose class is the parity of the number of negative values among the first `informative`
/// features; noise comes after.
#[must_use]
pub fn xor(config: &SyntheticConfig, informative: usize, noise: f64, draws: Draws<'_>) -> Dataset {
    let mut point = vec![0.0; config.features as usize];
    both_sets(config, draws, |stream, i, x| {
        let class = turn(i, 2);
        point.iter_mut().for_each(|value| *value = 2.0 * stream.uniform() - 1.0);
        let negative = point.iter().take(informative).filter(|value| **value < 0.0).count();
        if negative % 2 != class as usize
            && let Some(first) = point.first_mut()
        {
            *first = -*first;
        }
        x.extend(point.iter().map(|value| (value + noise * stream.normal()) as f32));
        class
    })
}

/// Draws that a teacher may need for a point of one class.
const MOST_DRAWS: usize = 10_000;
/// Points that a teacher's logits are centred on.
const CENTRED_ON: usize = 1024;

/// Standard normal points labelled by the greatest of C outputs of V·relu(W·x + b) − m, a random network (a teacher, Gardner
/// & Derrida 1989): W has `units` rows and entries of variance 1/d, V of 1/units, b of 1. m is the mean output over points
/// drawn beside, so that no class is rare. Points are drawn until one has the class whose turn it is; `flip_y` of the labels
/// are then drawn at random.
///
/// # Errors
/// When the network leaves a class no points.
pub fn teacher(
    config: &SyntheticConfig,
    units: usize,
    flip_y: f64,
    draws: Draws<'_>,
) -> Result<Dataset, DataError> {
    let (d, classes) = (config.features as usize, config.classes as usize);
    let mut structure = draws.key.stream(Purpose::Structure, 0, 0);
    let mut normals =
        |count: usize, scale: f64| (0..count).map(|_| scale * structure.normal()).collect::<Vec<_>>();
    let first = normals(units * d, 1.0 / libm::sqrt(d as f64));
    let bias = normals(units, 1.0);
    let second = normals(classes * units, 1.0 / libm::sqrt(units as f64));
    let outputs = |x: &[f64]| -> Vec<f64> {
        let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        let hidden: Vec<f64> =
            first.chunks_exact(d).zip(&bias).map(|(row, b)| (dot(row, x) + b).max(0.0)).collect();
        second.chunks_exact(units).map(|row| dot(row, &hidden)).collect()
    };
    let point = |stream: &mut Stream| (0..d).map(|_| stream.normal()).collect::<Vec<f64>>();
    let mut mean = vec![0.0; classes];
    for _ in 0..CENTRED_ON {
        let x = point(&mut structure);
        mean.iter_mut().zip(outputs(&x)).for_each(|(mean, value)| *mean += value / CENTRED_ON as f64);
    }
    let greatest = |x: &[f64]| -> usize {
        let centred = outputs(x).into_iter().zip(&mean).map(|(value, mean)| value - mean).enumerate();
        centred.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(class, _)| class)
    };
    let mut missing = None;
    let data = both_sets(config, draws, |stream, i, x| {
        let class = turn(i, config.classes);
        let mut drawn = point(stream);
        let found = (0..MOST_DRAWS).any(|_| {
            let fits = greatest(&drawn) == class as usize;
            if !fits {
                drawn = point(stream);
            }
            fits
        });
        if !found {
            missing = Some(class);
        }
        x.extend(drawn.into_iter().map(|value| value as f32));
        let flipped = stream.uniform() < flip_y;
        let other = stream.below(u64::from(config.classes)) as u32;
        if flipped { other } else { class }
    });
    match missing {
        None => Ok(data),
        Some(class) => Err(DataError::Invalid(format!(
            "the teacher with {units} units gives class {class} to none of {MOST_DRAWS} points; \
             take more units, fewer classes or another instance"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_common::seed::Key;
    use evenkeel_common::trial::GeneratorConfig;

    use super::*;

    fn config(features: u32, classes: u32) -> SyntheticConfig {
        let generator = GeneratorConfig::Moons { noise: 0.0 };
        SyntheticConfig { generator, samples: 200, features, classes, test_samples: 60, instance: 0 }
    }

    fn points(data: &Dataset, d: usize) -> impl Iterator<Item = (Vec<f64>, u32)> {
        let rows = data.x_train.chunks_exact(d).zip(&data.y_train);
        rows.map(|(x, y)| (x.iter().map(|v| f64::from(*v)).collect(), *y)).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn shapes_are_where_their_names_say() {
        let key = Key::of_dataset(1, "shapes");
        let draws = Draws::of(&key);
        for (x, y) in points(&moons(&config(2, 2), 0.0, draws), 2) {
            let centre = if y == 0 { (0.0, 0.0, 1.0) } else { (1.0, 0.5, -1.0) };
            let (a, b) = (x[0] - centre.0, x[1] - centre.1);
            assert!((a.hypot(b) - 1.0).abs() < 1e-6 && b * centre.2 >= -1e-6, "{x:?} of {y}");
        }
        for (x, y) in points(&circles(&config(2, 2), 0.0, 0.3, draws), 2) {
            assert!((x[0].hypot(x[1]) - if y == 0 { 1.0 } else { 0.3 }).abs() < 1e-6);
        }
        for (x, y) in points(&xor(&config(5, 2), 3, 0.0, draws), 5) {
            assert_eq!(x[..3].iter().filter(|v| **v < 0.0).count() % 2, y as usize);
        }
        let noisy = circles(&config(2, 2), 0.1, 0.3, draws);
        let radii: Vec<f64> =
            points(&noisy, 2).filter(|(_, y)| *y == 1).map(|(x, _)| x[0].hypot(x[1]) - 0.3).collect();
        let spread = (radii.iter().map(|r| r * r).sum::<f64>() / radii.len() as f64).sqrt();
        assert!((0.07..0.16).contains(&spread), "{spread}");
    }

    #[test]
    fn a_teacher_gives_each_class_its_share_and_flips_what_it_is_told_to() {
        let key = Key::of_dataset(1, "teacher");
        let data = teacher(&config(8, 3), 16, 0.0, Draws::of(&key)).unwrap();
        for class in 0..3 {
            let count = data.y_train.iter().filter(|y| **y == class).count();
            assert!((66..=67).contains(&count), "{count}");
        }
        let flipped = teacher(&config(8, 3), 16, 0.3, Draws::of(&key)).unwrap();
        let turns = |y: &[u32]| y.iter().enumerate().filter(|(i, y)| **y != (*i % 3) as u32).count();
        assert_eq!(turns(&data.y_train), 0);
        // A third of the random labels are right by chance: 0.3 · 2/3 · 200 = 40.
        assert!((25..=55).contains(&turns(&flipped.y_train)), "{}", turns(&flipped.y_train));
    }
}
