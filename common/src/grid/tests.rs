use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::inputs::FeatureInfo;
use crate::spec::DatasetSpec;
use crate::trial::StrategyConfig;

fn spec(text: &str) -> Arc<Spec> {
    Arc::new(Spec::parse("spec.yaml", text).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

fn info() -> InputInfo {
    InputInfo::Features(FeatureInfo {
        rows: 100,
        features: 7,
        class_counts: vec![40, 40, 20],
        content: "c0ffee".into(),
    })
}

/// An axis of a random kind with these values.
fn axis(values: std::ops::Range<u32>, most: usize) -> impl Strategy<Value = String> {
    let (low, high) = (values.start, values.end);
    prop_oneof![
        values.clone().prop_map(|value| value.to_string()),
        prop::collection::hash_set(values, 1..=most)
            .prop_map(|values| format!("{values:?}").replace(['{'], "[").replace('}', "]")),
        (1..=most as u32).prop_map(move |n| format!("{{linspace: [{low}, {}, {n}]}}", high - 1)),
    ]
}

fn datasets() -> impl Strategy<Value = String> {
    let separable = (axis(20..200, 3), axis(2..30, 2), axis(1..5, 3), 1..4u32).prop_map(|(n, d, margin, instances)| {
        format!("  - synthetic: {{generator: separable, samples: {n}, features: {d}, margin: {margin}, instances: {instances}}}\n")
    });
    let blobs = (axis(20..200, 3), axis(2..5, 2), 1..3u32).prop_map(|(n, classes, instances)| {
        format!("  - synthetic: {{generator: blobs, samples: {n}, features: 6, classes: {classes}, instances: {instances}}}\n")
    });
    let features = (axis(10..60, 3), 1..3u32).prop_map(|(n, instances)| {
        format!("  - features: {{path: a.csv, label: target, samples: {n}, test_fraction: [0.2, 0.3], instances: {instances}}}\n")
    });
    prop::collection::vec(prop_oneof![separable, blobs, features], 1..4).prop_map(|all| all.concat())
}

fn strategies() -> impl Strategy<Value = String> {
    let one = (
        axis(0..50, 3),
        axis(1..4, 2),
        axis(1..6, 3),
        prop::sample::select(vec!["gd", "adam", "[gd, momentum, adam]"]),
    );
    prop::collection::vec(one, 1..4).prop_map(|all| {
        let line = |(i, (steps, rate, heads, optimizer)): (usize, (String, String, String, &str))| {
            format!("  - {{name: s{i}, setting: head, steps: {steps}, learning_rate: {rate}, optimizer: {optimizer}, mhloss: {{heads: {heads}}}}}\n")
        };
        all.into_iter().enumerate().map(line).collect()
    })
}

fn grids() -> impl Strategy<Value = Grid> {
    let seeds = prop_oneof![(1..6u64).prop_map(|n| n.to_string()), Just("[7, 3, 11]".to_owned())];
    (datasets(), strategies(), seeds, prop::sample::select(vec!["", "stability: {leave_one_out: 5}\n", "stability: {leave_one_out: all}\n"])).prop_map(
        |(datasets, strategies, seeds, stability)| {
            let text = format!(
                "apiVersion: evenkeel/v1\nname: t\ndatasets:\n{datasets}strategies:\n{strategies}seeds: {seeds}\n{stability}"
            );
            let spec = spec(&text);
            let files = spec.datasets.iter().filter(|d| matches!(d, DatasetSpec::Features(_))).count();
            Grid::new(spec, &vec![info(); files]).unwrap_or_else(|error| panic!("{error}\n{text}"))
        },
    )
}

/// Every number of a small grid, and some of a large one.
fn some_indices(grid: &Grid) -> impl Iterator<Item = u64> {
    let step = (grid.len() / 400).max(1);
    let step = if step > 1 { step | 1 } else { step };
    (0..grid.len()).step_by(usize::try_from(step).expect("small")).chain(grid.len().checked_sub(1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_number_and_its_coordinates_lead_to_each_other(grid in grids()) {
        let mut seen = HashSet::new();
        for index in some_indices(&grid) {
            let at = grid.coordinates(index).expect("in the grid");
            prop_assert_eq!(grid.index(&at), Some(index));
            seen.insert(at);
        }
        prop_assert_eq!(seen.len(), some_indices(&grid).collect::<HashSet<_>>().len());
        prop_assert_eq!(grid.coordinates(grid.len()), None);
        prop_assert!(grid.trial(grid.len()).is_none());
        prop_assert!(grid.trial(u64::MAX).is_none());
    }

    #[test]
    fn coordinates_outside_the_grid_have_no_number(grid in grids(), extra in 0..3u64) {
        let last = grid.coordinates(grid.len() - 1).expect("last");
        for outside in [
            Coordinates { seed: grid.seeds() + extra, ..last },
            Coordinates { model: 1, ..last },
            Coordinates { strategy_point: last.strategy_point + 1 + extra, ..last },
            Coordinates { strategy_point: u64::MAX, ..last },
            Coordinates { dataset_point: last.dataset_point + 1 + extra, ..last },
            Coordinates { dataset_point: u64::MAX, ..last },
            Coordinates { dataset: last.dataset + 1, ..last },
            Coordinates { strategy: last.strategy + 1, ..last },
        ] {
            prop_assert_eq!(grid.index(&outside), None, "{:?}", outside);
        }
    }

    #[test]
    fn trials_that_compute_different_things_have_different_ids(grid in grids()) {
        let mut configs: std::collections::HashMap<_, String> = std::collections::HashMap::new();
        for index in some_indices(&grid) {
            let trial = grid.trial(index).expect("trial");
            let what = format!("{:?} {:?} {:?} {}", trial.dataset, trial.model, StrategyConfig { name: String::new(), ..trial.strategy.clone() }, trial.seed);
            // Entries may overlap: then the same training has the same id, as it should.
            let before = configs.insert(trial.id(), what.clone());
            prop_assert!(before.as_ref().is_none_or(|before| *before == what), "{:?} and {}", before, what);
        }
    }

    #[test]
    fn group_and_dataset_ends_are_where_neighbours_differ(grid in grids()) {
        for index in some_indices(&grid) {
            let at = grid.coordinates(index).expect("in the grid");
            let group = grid.group_end(index);
            let dataset = grid.dataset_end(index);
            prop_assert!(index < group && group <= dataset && dataset <= grid.len());
            prop_assert_eq!(grid.group_end(group - 1), group);
            prop_assert_eq!(grid.dataset_end(dataset - 1), dataset);
            let last = grid.coordinates(group - 1).expect("in the grid");
            prop_assert_eq!(Coordinates { seed: last.seed, ..at }, last);
            prop_assert_eq!(last.seed + 1, grid.seeds());
            let last = grid.coordinates(dataset - 1).expect("in the grid");
            prop_assert_eq!((last.dataset, last.dataset_point), (at.dataset, at.dataset_point));
            if let Some(next) = grid.coordinates(dataset) {
                prop_assert_ne!((next.dataset, next.dataset_point), (at.dataset, at.dataset_point));
            }
        }
    }

    #[test]
    fn the_cost_of_the_grid_is_the_sum_over_its_trials(grid in grids()) {
        prop_assume!(grid.len() <= 20_000);
        let walked: f64 = (0..grid.len()).map(|index| grid.flops(index)).sum();
        prop_assert!((grid.total_flops() / walked - 1.0).abs() < 1e-9, "{} and {walked}", grid.total_flops());
    }
}

const SMALL: &str = "apiVersion: evenkeel/v1
name: t
datasets:
  - synthetic: {generator: separable, samples: [50, 100], features: 8, instances: 3}
  - features: {path: data/digits.csv.gz, label: target, test_fraction: 0.25}
strategies:
  - {name: a, setting: head, steps: 10, learning_rate: [0.1, 0.2]}
  - {name: b, setting: head, steps: 20, learning_rate: 0.5}
seeds: [5, 9]
";

#[test]
fn datasets_vary_slowest_and_seeds_fastest() {
    let grid = Grid::new(spec(SMALL), &[info()]).expect("grid");
    assert_eq!((grid.len(), grid.datasets(), grid.seeds()), (7 * 3 * 2, 7, 2));
    let trials: Vec<Trial> = (0..grid.len()).filter_map(|index| grid.trial(index)).collect();
    let seeds: Vec<u64> = trials.iter().take(4).map(|trial| trial.seed).collect();
    assert_eq!(seeds, [5, 9, 5, 9]);
    let rates: Vec<f64> = trials.iter().take(6).map(|trial| trial.strategy.learning_rate).collect();
    assert_eq!(rates, [0.1, 0.1, 0.2, 0.2, 0.5, 0.5]);
    assert!(trials.iter().take(6).all(|trial| trial.dataset == trials[0].dataset));
    assert_eq!(trials[41].dataset_name, "digits");
    // 25 % of 40, 40 and 20 rows are held out.
    assert_eq!(trials[41].dataset.shape(), (75, 7, 3));
}

#[test]
fn trial_ids_do_not_change_between_versions() {
    // Changed only with FORMAT_VERSION: stores hold them.
    let grid = Grid::new(spec(SMALL), &[info()]).expect("grid");
    let ids: Vec<String> =
        [0, 41].iter().filter_map(|index| grid.trial(*index)).map(|t| t.id().to_string()).collect();
    assert_eq!(ids, ["a2f82fb46e30c4179ba2d8116790a66c", "ed8873ecebfd3f31ae37aecce9cf9c77"]);
    // The name of a strategy does not take part.
    let renamed = Grid::new(spec(&SMALL.replace("name: a", "name: other")), &[info()]).expect("grid");
    assert_eq!(renamed.trial(0).map(|t| t.id()), grid.trial(0).map(|t| t.id()));
}

#[test]
fn a_grid_of_more_than_two_to_the_63_trials_is_refused() {
    let text = |seeds: u64, instances: u32| {
        SMALL
            .replace("seeds: [5, 9]", &format!("seeds: {seeds}"))
            .replace("instances: 3", &format!("instances: {instances}"))
    };
    for (seeds, instances) in [(u64::MAX, 1), (u64::MAX / 3, 3), (1 << 61, 3), (1 << 62, 1)] {
        assert_eq!(
            Grid::new(spec(&text(seeds, instances)), &[info()]).err(),
            Some(GridError::TooLarge),
            "{seeds}"
        );
    }
    let large = Grid::new(spec(&text(1 << 58, 1)), &[info()]).expect("grid");
    assert_eq!(large.len(), 9 << 58);
    let last = large.coordinates(large.len() - 1).expect("last");
    assert_eq!((last.seed, large.index(&last)), ((1 << 58) - 1, Some(large.len() - 1)));
    assert_eq!(large.group_end(large.len() - 1), large.len());
}

#[test]
fn feature_files_must_fit_the_spec() {
    assert_eq!(Grid::new(spec(SMALL), &[]).err(), Some(GridError::MissingInfo { expected: 1, found: 0 }));
    let asked = SMALL.replace("test_fraction: 0.25", "test_fraction: 0.25, samples: [50, 76]");
    let error = Grid::new(spec(&asked), &[info()]).expect_err("accepted");
    assert_eq!(
        error.to_string(),
        "datasets[1].features.samples: found 76, but data/digits.csv.gz leaves only 75 training rows after the split"
    );
}

#[test]
fn either_side_of_a_split_keeps_a_row_of_each_class() {
    assert_eq!(test_rows(&[40, 40, 20], 0.25), [10, 10, 5]);
    assert_eq!(test_rows(&[2, 3], 0.01), [1, 1]);
    assert_eq!(test_rows(&[2, 3], 0.9), [1, 2]);
}
