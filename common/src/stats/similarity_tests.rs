//! Properties of similarities between runs; `golden` has their values.

use super::matrix::{dot, inner_products, transpose};
use super::svd::svd;
use super::*;
use crate::seed::{Key, Purpose};

fn near(found: f64, expected: f64, bound: f64) {
    assert!((found - expected).abs() <= bound, "found {found}, expected {expected}");
}

/// Columns of normal values.
fn random(rows: usize, columns: usize, number: u64) -> Vec<Vec<f64>> {
    let mut stream = Key::of_dataset(11, "matrices").stream(Purpose::Structure, number, 0);
    (0..columns).map(|_| (0..rows).map(|_| stream.normal()).collect()).collect()
}

/// AB.
fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    inner_products(&transpose(a), b)
}

/// An orthogonal matrix.
fn rotation(size: usize) -> Vec<Vec<f64>> {
    svd(&random(size, size, 99)).left
}

fn row_by_row(columns: &[Vec<f64>]) -> Vec<f64> {
    transpose(columns).concat()
}

fn of(values: &[f64], rows: usize) -> Representation<'_> {
    Representation::new(values, rows, values.len() / rows).expect("a representation")
}

/// AAᵀ = U·Σ²·Uᵀ, UᵀU = 1, and values fall.
fn decomposes(columns: &[Vec<f64>], rank: usize) {
    let found = svd(columns);
    assert_eq!((found.values.len(), found.left.len()), (rank, rank));
    assert!(found.values.windows(2).all(|pair| pair[0] >= pair[1]) && found.values.iter().all(|v| *v > 0.0));
    for (at, a) in found.left.iter().enumerate() {
        for (other, b) in found.left.iter().enumerate() {
            near(dot(a, b), f64::from(u8::from(at == other)), 1e-12);
        }
    }
    let scaled: Vec<Vec<f64>> = found
        .left
        .iter()
        .zip(&found.values)
        .map(|(vector, value)| vector.iter().map(|v| v * value).collect())
        .collect();
    let kernel = |columns: &[Vec<f64>]| {
        let rows = transpose(columns);
        inner_products(&rows, &rows).concat()
    };
    let greatest = found.values.first().copied().unwrap_or(0.0);
    if rank > 0 {
        for (found, expected) in kernel(&scaled).into_iter().zip(kernel(columns)) {
            near(found, expected, 1e-12 * greatest * greatest);
        }
    }
}

#[test]
fn a_decomposition_gives_the_matrix_back() {
    for (number, (rows, columns)) in
        (0..).zip([(1, 1), (2, 2), (9, 9), (40, 7), (7, 40), (1, 5), (5, 1), (60, 60)])
    {
        decomposes(&random(rows, columns, number), rows.min(columns));
    }
}

#[test]
fn a_decomposition_finds_the_rank() {
    for (number, (rows, rank, columns)) in (20..).zip([(30, 3, 10), (10, 3, 30), (12, 1, 12), (20, 19, 20)]) {
        decomposes(&product(&random(rows, rank, number), &random(rank, columns, number + 100)), rank);
    }
    decomposes(&[vec![0.0; 4], vec![0.0; 4]], 0);
    decomposes(&[], 0);
    decomposes(&[vec![3.0, 4.0, 0.0], vec![0.0; 3], vec![3.0, 4.0, 0.0]], 1);
    // Values that differ by many orders of magnitude, and equal ones.
    let graded: Vec<Vec<f64>> = (0..6)
        .map(|at| (0..6).map(|row| if row == at { libm::exp10(-2.0 * f64::from(at)) } else { 0.0 }).collect())
        .collect();
    let turned = svd(&product(&rotation(6), &graded)).values;
    for (at, value) in (0..).zip(&turned) {
        near(value * libm::exp10(2.0 * f64::from(at)), 1.0, 1e-12);
    }
    assert_eq!(svd(&rotation(5)).values.len(), 5);
}

#[test]
fn a_representation_is_like_itself_rotated_scaled_and_moved() {
    for (number, (rows, columns)) in (40..).zip([(20, 5), (50, 12), (6, 12), (4, 3)]) {
        let a = random(rows, columns, number);
        let turned = product(&a, &rotation(columns));
        let moved: Vec<f64> = row_by_row(&turned).iter().map(|value| 1e-3 * value + 5.0).collect();
        let a = row_by_row(&a);
        for b in [&a, &moved] {
            let (a, b) = (of(&a, rows), of(b, rows));
            near(linear_cka(&a, &b).expect("a value"), 1.0, 1e-9);
            near(svcca(&a, &b).expect("a value"), 1.0, 1e-9);
            near(procrustes_distance(&a, &b).expect("a value"), 0.0, 1e-9);
        }
    }
}

#[test]
fn magnitude_does_not_matter_nor_do_columns_that_are_constant() {
    let a = random(15, 4, 50);
    let b = row_by_row(&random(15, 3, 51));
    let mut more = a.clone();
    more.extend([vec![0.1; 15], vec![1e9; 15]]);
    let (a, more) = (row_by_row(&a), row_by_row(&more));
    let by = |factor: f64| a.iter().map(|value| value * factor).collect::<Vec<f64>>();
    for other in [more, by(1e-250), by(1e250)] {
        let (a, b, other) = (of(&a, 15), of(&b, 15), of(&other, 15));
        for similarity in [linear_cka, svcca, procrustes_distance] {
            near(similarity(&other, &b).expect("a value"), similarity(&a, &b).expect("a value"), 1e-12);
        }
    }
}

#[test]
fn unrelated_representations_have_an_alignment_around_zero_even_with_many_features() {
    let found: Vec<f64> = (0..40)
        .map(|number| {
            let (a, b) =
                (row_by_row(&random(10, 50, 200 + number)), row_by_row(&random(10, 50, 300 + number)));
            linear_cka(&of(&a, 10), &of(&b, 10)).expect("a value")
        })
        .collect();
    let summary = found.into_iter().collect::<Sample>().summary().expect("a summary");
    let (low, high) = summary.ci95.expect("an interval");
    assert!(low < 0.0 && 0.0 < high && summary.max < 0.6, "{summary:?}");
}

#[test]
fn there_is_no_similarity_without_variation_or_of_other_examples() {
    assert!(Representation::new(&[1.0, 2.0, 3.0], 2, 2).is_none());
    assert!(Representation::new(&[], 0, 3).is_none());
    assert!(Representation::new(&[1.0, f64::NAN], 2, 1).is_none());
    let (constant, varying, few) = ([0.1; 10], row_by_row(&random(5, 2, 60)), row_by_row(&random(3, 2, 61)));
    let (constant, varying, few) = (of(&constant, 5), of(&varying, 5), of(&few, 3));
    for similarity in [linear_cka, svcca, procrustes_distance] {
        assert_eq!(similarity(&constant, &varying), None);
        assert_eq!(similarity(&varying, &constant), None);
        assert_eq!(similarity(&varying, &few), None);
    }
    assert_eq!(linear_cka(&few, &few), None);
    near(procrustes_distance(&few, &few).expect("a value"), 0.0, 1e-12);
    // All examples at one distance from each other: which of them are close says nothing.
    let equidistant: Vec<f64> = (0..25).map(|at| f64::from(u8::from(at % 6 == 0))).collect();
    assert_eq!(linear_cka(&of(&equidistant, 5), &varying), None);
    // Too far apart for their distances to be numbers.
    let huge = [f64::MAX, f64::MIN, f64::MIN, f64::MIN, f64::MIN];
    assert_eq!(linear_cka(&of(&huge, 5), &varying), None);
}

#[test]
fn a_divergence_keeps_its_digits_near_zero_and_its_bounds_at_infinity() {
    let log = |p: f64| [libm::log(p), libm::log1p(-p)];
    // For a small step h from ½, (ln 2 − H(½ + h/2)) = h²/2 to leading order.
    let h = 1e-7;
    let found = jensen_shannon(&log(0.5 - h / 2.0), &log(0.5 + h / 2.0), 2).expect("a value");
    near(found / (h * h / 2.0), 1.0, 1e-6);
    let never = f64::NEG_INFINITY;
    assert_eq!(jensen_shannon(&[0.0, never], &[never, 0.0], 2), Some(std::f64::consts::LN_2));
    assert_eq!(jensen_shannon(&[0.0, never], &[0.0, never], 2), Some(0.0));
    near(jensen_shannon(&[0.0, -1e308], &[-1e308, 0.0], 2).expect("a value"), std::f64::consts::LN_2, 1e-15);
    for (p, q, classes) in [
        (vec![], vec![], 2),
        (vec![0.0], vec![0.0], 0),
        (vec![0.0; 3], vec![0.0; 3], 2),
        (vec![0.0; 2], vec![0.0; 4], 2),
        (vec![0.0, f64::NAN], vec![0.0; 2], 2),
        (vec![0.0, f64::INFINITY], vec![0.0; 2], 2),
    ] {
        assert_eq!(jensen_shannon(&p, &q, classes), None, "{p:?} {q:?} {classes}");
    }
}

#[test]
fn the_mean_divergence_is_that_of_all_pairs_in_any_order() {
    let mut runs: Vec<Vec<f64>> =
        [0.1, 0.35, 0.5, 0.92].map(|p: f64| [p, 1.0 - p, 0.3, 0.7].map(libm::log).to_vec()).to_vec();
    let found = mean_jensen_shannon(&runs, 2, 100).expect("a value");
    let mut pairs = Sample::default();
    for p in 0..runs.len() {
        (0..p).for_each(|q| pairs.push(jensen_shannon(&runs[p], &runs[q], 2).expect("a value")));
    }
    near(found, pairs.summary().expect("a summary").mean, 1e-15);
    runs.swap(0, 2);
    runs.reverse();
    assert_eq!(mean_jensen_shannon(&runs, 2, 100), Some(found));
    assert_eq!(mean_jensen_shannon(&runs[..1], 2, 100), None);
    // Of four runs, at most four pairs: each run with the next.
    let next = |at: usize| jensen_shannon(&runs[at], &runs[(at + 1) % 4], 2).expect("a value");
    let some = (0..4).map(next).collect::<Sample>().summary().expect("a summary").mean;
    assert_eq!(mean_jensen_shannon(&runs, 2, 4), Some(some));
    runs.push(vec![0.0; 6]);
    assert_eq!(mean_jensen_shannon(&runs, 2, 100), None);
}

#[test]
fn pairs_are_all_or_as_many_for_each_run() {
    assert_eq!(spread_pairs(3, 3), [(0, 1), (0, 2), (1, 2)]);
    assert_eq!(spread_pairs(1, 3), []);
    for (runs, most) in [(7, 6), (50, 64), (100, 1024), (64, 2015)] {
        let pairs = spread_pairs(runs, most);
        let mut different = pairs.iter().map(|(a, b)| (a.min(b), a.max(b))).collect::<Vec<_>>();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), pairs.len(), "{runs} {most}");
        assert!(pairs.len() <= most.max(runs), "{runs} {most}");
        for run in 0..runs {
            let with = pairs.iter().filter(|(a, b)| *a == run || *b == run).count();
            assert_eq!(with, 2 * pairs.len() / runs, "{run} of {runs}");
        }
    }
}

#[test]
fn distances_between_runs_are_means_over_pairs_of_them() {
    let runs: Vec<Vec<f64>> = (0..5).map(|number| row_by_row(&random(12, 20, 70 + number))).collect();
    let runs: Vec<Representation<'_>> = runs.iter().map(|run| of(run, 12)).collect();
    let found = RepresentationDistances::between(&runs, 10).expect("distances");
    let over_pairs = |of_pair: &dyn Fn(&Representation<'_>, &Representation<'_>) -> f64| {
        let pairs = spread_pairs(5, 10);
        assert_eq!(pairs.len(), 10);
        pairs
            .iter()
            .map(|(a, b)| of_pair(&runs[*a], &runs[*b]))
            .collect::<Sample>()
            .summary()
            .expect("some")
            .mean
    };
    near(found.cka, over_pairs(&|a, b| 1.0 - linear_cka(a, b).expect("a value")), 1e-12);
    near(found.svcca, over_pairs(&|a, b| 1.0 - svcca(a, b).expect("a value")), 1e-12);
    near(found.procrustes, over_pairs(&|a, b| procrustes_distance(a, b).expect("a value")), 1e-12);
    assert_eq!(RepresentationDistances::between(&runs[..1], 10), None);
    let same = [runs[0], runs[0], runs[0]];
    let none = RepresentationDistances::between(&same, 10).expect("distances");
    [none.cka, none.svcca, none.procrustes].iter().for_each(|distance| near(*distance, 0.0, 1e-9));
    let collapsed = [0.5; 24];
    assert_eq!(RepresentationDistances::between(&[runs[0], of(&collapsed, 12)], 10), None);
}
