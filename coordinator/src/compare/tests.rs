use std::sync::Arc;

use evenkeel_common::seed::{Key, Purpose};

use super::load::TrialRow;
use super::*;

/// A sweep of 6 datasets, 2 strategies and 10 seeds with made-up normal scores: mean and standard deviation of each strategy.
fn side(number: u64, model: &str, strategies: [(f64, f64); 2]) -> Side {
    let mut stream = Key::of_dataset(number, "compare").stream(Purpose::Structure, 0, 0);
    let mut trials = Vec::new();
    for dataset in 0..6 {
        for (name, (mean, sd)) in ["base", "other"].into_iter().zip(strategies) {
            for seed in 1..=10 {
                let score = mean + sd * stream.normal();
                trials.push(TrialRow {
                    id: Arc::from(format!("{number}{model}{dataset}{name}{seed}")),
                    dataset: Arc::from(format!("d{dataset}")),
                    model: Arc::from(model),
                    strategy: Arc::from(name),
                    config: Arc::from("{}"),
                    seed,
                    status: Arc::from("completed"),
                    score: Some(score),
                    loo: Some(0.1 * mean),
                });
            }
        }
    }
    Side { name: "x".to_owned(), trials, ..Side::default() }
}

const SAME: [(f64, f64); 2] = [(0.8, 0.02), (0.8, 0.02)];

#[test]
fn a_sweep_is_identical_to_itself() {
    let a = side(1, "m", SAME);
    let found = compare(&a, &a);
    assert_eq!((found.same_trials, found.identical_trials, found.alone), (120, 120, (0, 0)));
    assert!(found.strategies.iter().all(|line| line.difference == 0.0 && line.variance_ratio == Some(1.0)));
    let text = render(&a, &a, &found, Some(120));
    assert!(text.contains("120 trials are in both sweeps, and all are identical to the last bit."), "{text}");
    assert!(text.contains("Their specs are the same."), "{text}");
    assert!(!text.contains("cannot be told"), "{text}");
}

#[test]
fn a_planted_change_is_found_and_noise_is_not() {
    let (a, b) = (side(1, "m", SAME), side(2, "n", [(0.8, 0.02), (0.83, 0.06)]));
    let found = compare(&a, &b);
    assert!(found.across_models);
    let [base, other] = &found.strategies[..] else { panic!("{found:?}") };
    assert_eq!((base.datasets, base.pairs), (6, 60));
    assert!(!base.score_differs() && !base.variance_differs(), "{base:?}");
    assert!(other.score_differs() && other.difference > 0.015, "{other:?}");
    assert!(other.variance_differs() && other.variance_ratio > Some(4.0), "{other:?}");
    assert_eq!(other.loo_ratio.map(|ratio| (ratio * 1e6).round()), Some(1_037_500.0));
    let text = render(&a, &b, &found, Some(120));
    assert!(text.contains("base: the scores cannot be told apart"), "{text}");
    assert!(text.contains("other: B scores higher, by 0.0"), "{text}");
    // Over many pairs of sweeps without a change, few intervals leave it out.
    let (mut scores, mut variances) = (0, 0);
    for number in 0..100 {
        let found = compare(&side(100 + number, "m", SAME), &side(500 + number, "n", SAME));
        scores += found.strategies.iter().filter(|line| line.score_differs()).count();
        variances += found.strategies.iter().filter(|line| line.variance_differs()).count();
    }
    // Nominal 10 of 200; bootstrap intervals of variances are somewhat short with ten seeds.
    assert!(scores <= 20 && variances <= 30, "{scores} and {variances} of 200");
}

#[test]
fn partners_are_found_by_name_where_the_configuration_is_what_changed() {
    let (a, mut b) = (side(1, "m", SAME), side(1, "m", SAME));
    b.trials.iter_mut().for_each(|trial| {
        trial.config = Arc::from("{\"learning_rate\":0.2}");
        trial.id = Arc::from(format!("new {}", trial.id));
    });
    assert_eq!(compare(&a, &b).strategies.len(), 2);
    // With two configurations a name does not say which is meant.
    b.trials.iter_mut().filter(|trial| trial.seed > 5).for_each(|trial| trial.config = Arc::from("{}"));
    let found = compare(&a, &b);
    assert_eq!(found.strategies.iter().map(|line| line.pairs).sum::<u64>(), 60);
    assert_eq!(found.alone, (60, 60));
    let foreign = side(3, "m", SAME);
    let none = Side { trials: Vec::new(), ..foreign.clone() };
    let text = render(&foreign, &none, &compare(&foreign, &none), None);
    assert!(text.contains("nothing to compare"), "{text}");
}

#[test]
fn lines_that_changed_are_shown() {
    let (mut a, mut b) = (side(1, "m", SAME), side(2, "m", SAME));
    a.spec = "seeds: 10\nname: x\nsteps: 100\n".to_owned();
    b.spec = "seeds: 10\nname: x\nsteps: 200\nbias: true\n".to_owned();
    let found = compare(&a, &b);
    assert_eq!(found.spec_only.0, ["steps: 100"]);
    assert_eq!(found.spec_only.1, ["steps: 200", "bias: true"]);
}

#[test]
fn what_is_no_output_directory_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().expect("dir");
    let error = Side::read(dir.path(), "x").expect_err("read").to_string();
    assert!(error.contains("summary.json") && error.contains("evenkeel results"), "{error}");
    std::fs::write(dir.path().join("summary.json"), "{}").expect("write");
    std::fs::write(dir.path().join("spec.yaml"), "").expect("write");
    std::fs::write(dir.path().join("results.parquet"), "PAR1 not").expect("write");
    let error = Side::read(dir.path(), "x").expect_err("read").to_string();
    assert!(error.contains("results.parquet"), "{error}");
}
