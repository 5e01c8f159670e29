//! What holds for the head engine whatever it trains.

mod common;

use common::{Collect, NoTables, run, separable, strategy, trial, try_run};
use evenkeel_common::failure::FailureKind;
use evenkeel_common::results::{Measures, Status, TestOutputs, TrialOutcome};
use evenkeel_common::spec::{LeaveOneOut, Optimizer, Predictions, Reduction, SeedControls};
use evenkeel_common::trial::{DatasetConfig, FeaturesConfig, ModelConfig, StrategyConfig, Trial};
use evenkeel_worker::device::Device;
use evenkeel_worker::engine::block::{Block, HeadParameters, Inputs};
use evenkeel_worker::engine::{EngineError, HeadEngine, cpu, tensor};

fn momentum() -> StrategyConfig {
    StrategyConfig { optimizer: Optimizer::Momentum, momentum: 0.9, learning_rate: 0.02, ..strategy() }
}

fn adam() -> StrategyConfig {
    StrategyConfig { optimizer: Optimizer::Adam, learning_rate: 0.01, ..strategy() }
}

/// The bits of everything in an outcome but its number.
fn bits(outcome: &TrialOutcome) -> String {
    format!("{:?}", TrialOutcome { trial_index: 0, ..outcome.clone() })
}

/// A trial among neighbours of other seeds, step sizes and steps has the bits it has alone. Without refits a trial is one
/// row: the shape for which libtorch would run other kernels, were products not padded.
fn assert_same_bits_in_any_pack(leave_one_out: Option<LeaveOneOut>) {
    let kinds = [
        strategy(),
        momentum(),
        adam(),
        StrategyConfig { weight_decay: 0.01, bias: true, ..strategy() },
        StrategyConfig { heads: 3, data_perturbation: 0.1, ..momentum() },
    ];
    for (n, d, classes) in [
        (200, 64, 2),
        (100, 16, 2),
        (37, 5, 2),
        (12, 3, 2),
        (10, 20, 2),
        (60, 90, 2),
        (45, 8, 3),
        (12, 3, 3),
        (40, 50, 4),
    ] {
        let with = |index, strategy, seed| {
            let mut one = trial(index, separable(n, d, classes), strategy, seed);
            one.settings.leave_one_out = leave_one_out;
            one
        };
        for kind in &kinds {
            let probe = |index| with(index, StrategyConfig { steps: 25, ..kind.clone() }, 1);
            let alone = bits(&run(&[probe(0)])[0]);
            for size in [3u64, 17, 200] {
                let neighbour = |i: u64| {
                    let learning_rate = kind.learning_rate * (1.0 + i as f64 / 100.0);
                    let other =
                        StrategyConfig { learning_rate, steps: 20 + 5 * (i % 3) as u32, ..kind.clone() };
                    with(i, other, 100 + i)
                };
                let pack: Vec<Trial> =
                    (0..size).map(|i| if i == size / 2 { probe(i) } else { neighbour(i) }).collect();
                let packed = &run(&pack)[(size / 2) as usize];
                assert_eq!(alone, bits(packed), "n={n} d={d} C={classes} {:?} of {size}", kind.optimizer);
            }
        }
    }
}

#[test]
fn a_trial_with_refits_has_the_same_bits_in_any_pack() {
    assert_same_bits_in_any_pack(Some(LeaveOneOut::Count(4)));
}

#[test]
fn a_trial_of_one_row_has_the_same_bits_in_any_pack() {
    assert_same_bits_in_any_pack(None);
}

#[test]
fn trials_that_differ_in_steps_alone_have_the_bits_of_separate_runs() {
    for kind in [strategy(), momentum(), adam()] {
        for (n, d) in [(50, 10), (20, 30)] {
            let with = |steps| {
                trial(u64::from(steps), separable(n, d, 2), StrategyConfig { steps, ..kind.clone() }, 0)
            };
            let together: Vec<String> =
                run(&[with(0), with(7), with(40), with(33)]).iter().map(bits).collect();
            let apart: Vec<String> =
                [0, 7, 40, 33].iter().map(|steps| bits(&run(&[with(*steps)])[0])).collect();
            assert_eq!(together, apart);
        }
    }
}

#[test]
fn a_checkpoint_shows_what_a_shorter_trial_ends_with() {
    let long = StrategyConfig { steps: 40, checkpoints: vec![5, 20], ..strategy() };
    let curve = run(&[trial(0, separable(50, 10, 2), long, 0)]).remove(0).curve;
    assert_eq!(curve.iter().map(|point| point.step).collect::<Vec<_>>(), [5, 20, 40]);
    for point in curve {
        let short = StrategyConfig { steps: point.step, ..strategy() };
        let end = run(&[trial(0, separable(50, 10, 2), short, 0)]).remove(0);
        assert_eq!(end.curve, [point]);
        assert_eq!(end.measures.loo_mean, Some(point.loo_mean));
    }
}

/// Final weights of a block in one of its forms.
fn train(inputs: &Inputs, block: &Block, by_tensors: bool) -> Vec<f32> {
    let mut weights = Vec::new();
    let mut emit = |at: evenkeel_worker::engine::block::Snapshot<'_>| weights = at.weights.to_vec();
    if by_tensors {
        tensor::train(tch::Device::Cpu, inputs, block, &mut || Ok(()), &mut emit).unwrap();
    } else {
        cpu::train(inputs, block, &mut || Ok(()), &mut emit).unwrap();
    }
    weights
}

fn blocks() -> impl Iterator<Item = (Inputs, Block, bool)> {
    let kinds =
        [(Optimizer::Gd, 0.0), (Optimizer::Gd, 0.05), (Optimizer::Momentum, 0.05), (Optimizer::Adam, 0.05)];
    let shapes = [
        (24u32, 30u32, 2u32, false),
        (24, 30, 3, false),
        (24, 30, 2, true),
        (40, 6, 2, true),
        (40, 6, 3, false),
    ];
    shapes.into_iter().flat_map(move |(n, d, classes, bias)| {
        kinds.into_iter().map(move |(optimizer, lambda)| {
            let config = separable(n, d, classes);
            let data = evenkeel_worker::data::load(&config, &ModelConfig::Identity, 1, &NoTables).unwrap();
            let inputs = Inputs::new(&data, bias).unwrap();
            let rows = if classes == 2 { 1 } else { classes as usize };
            let heads = 5;
            let head = |i: usize| HeadParameters {
                eta: 0.02 * (1.0 + i as f64),
                mu: if optimizer == Optimizer::Momentum { 0.8 } else { 0.0 },
                lambda,
                scale: 1.0 / f64::from(n - 1),
            };
            let block = Block {
                optimizer,
                gram: false,
                classes_rows: rows,
                heads: (0..heads).map(head).collect(),
                initial: (0..heads * rows * inputs.width)
                    .map(|i| if i % inputs.width < inputs.d { (i * 7 % 13) as f32 * 0.02 - 0.1 } else { 0.0 })
                    .collect(),
                omitted: (0..heads * rows).map(|row| row * n as usize + row / rows).collect(),
                steps: 200,
                snapshots: vec![200],
            };
            (inputs, block, bias)
        })
    })
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * scale, "{a} {b}");
    }
}

#[test]
fn the_gram_form_has_the_iterates_of_the_primal() {
    let mut compared = 0;
    for (inputs, mut block, bias) in blocks() {
        let primal = train(&inputs, &block, false);
        if block.optimizer == Optimizer::Adam || (bias && block.heads[0].lambda != 0.0) {
            continue;
        }
        block.gram = true;
        assert_close(&primal, &train(&inputs, &block, false), 2e-5);
        compared += 1;
    }
    assert!(compared >= 10);
}

#[test]
fn tensor_operations_have_the_iterates_of_the_kernels() {
    for (inputs, mut block, bias) in blocks() {
        assert_close(&train(&inputs, &block, false), &train(&inputs, &block, true), 5e-5);
        if block.optimizer != Optimizer::Adam && !bias {
            block.gram = true;
            assert_close(&train(&inputs, &block, false), &train(&inputs, &block, true), 5e-5);
        }
    }
}

#[test]
fn a_diverging_trial_is_a_result_and_leaves_its_neighbours_alone() {
    // ηλ > 2: the penalty alone multiplies weights by −99 a step.
    let wild = StrategyConfig { learning_rate: 10.0, weight_decay: 10.0, checkpoints: vec![3], ..strategy() };
    for dataset in [separable(40, 8, 2), separable(20, 30, 2), separable(40, 8, 3)] {
        let tame = trial(1, dataset.clone(), strategy(), 0);
        let outcomes = run(&[trial(0, dataset, wild.clone(), 0), tame.clone()]);
        assert_eq!(outcomes[0].status, Status::Diverged);
        assert_eq!(outcomes[0].measures.score, None);
        assert_eq!(outcomes[0].curve.len(), 1);
        assert!(outcomes[0].measures.margin.is_some() && outcomes[0].measures.majority.is_some());
        assert_eq!(bits(&outcomes[1]), bits(&run(&[tame])[0]));
    }
}

#[test]
fn cancelling_stops_within_a_dataset() {
    let long = StrategyConfig { steps: 1_000_000, ..strategy() };
    let mut watch = Collect::new(3);
    let error = try_run(&[trial(0, separable(200, 64, 2), long, 0)], &mut watch).unwrap_err();
    assert_eq!((error.clone(), error.kind()), (EngineError::Cancelled, FailureKind::Cancelled));
    assert!(watch.outcomes.is_empty() && watch.fractions.len() < 5);
}

#[test]
fn progress_rises_to_one_and_outcomes_come_dataset_by_dataset() {
    let other = |instance| match separable(200, 64, 2) {
        DatasetConfig::Synthetic(config) => {
            DatasetConfig::Synthetic(evenkeel_common::trial::SyntheticConfig { instance, ..config })
        }
        other => other,
    };
    let trials: Vec<Trial> = (0..12)
        .map(|i| trial(i, other(i as u32 / 4), StrategyConfig { steps: 500, ..strategy() }, i))
        .collect();
    let mut watch = Collect::new(u32::MAX);
    let outcomes = try_run(&trials, &mut watch).unwrap();
    assert_eq!(outcomes.iter().map(|o| o.trial_index).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    assert_eq!(watch.deliveries, 3);
    assert!(watch.fractions.windows(2).all(|w| w[0] <= w[1]), "{:?}", watch.fractions);
    assert_eq!(watch.fractions.last(), Some(&1.0));
    assert!(watch.fractions.len() > 5);
}

#[test]
fn zero_steps_leave_the_initial_weights() {
    for classes in [2, 3] {
        let still = StrategyConfig { steps: 0, heads: 2, ..strategy() };
        let outcome = run(&[trial(0, separable(40, 8, classes), still, 0)]).remove(0);
        assert_eq!(outcome.status, Status::Completed);
        let m = outcome.measures;
        assert_eq!((m.weight_distance, m.loo_mean, m.loo_max), (Some(0.0), Some(0.0), Some(0.0)));
        assert_eq!((m.loo_raw_mean, m.loo_flip_rate, m.loo_loss_change), (Some(0.0), Some(0.0), Some(0.0)));
        assert!(m.weight_norm.unwrap() > 0.0);
    }
}

#[test]
fn heads_of_zeros_have_no_direction() {
    let still = StrategyConfig { steps: 0, init_std: 0.0, ..strategy() };
    let m = run(&[trial(0, separable(40, 8, 2), still, 0)]).remove(0).measures;
    assert_eq!((m.loo_mean, m.trained_margin, m.direction_residual), (None, None, None));
    assert_eq!((m.weight_norm, m.loo_raw_mean), (Some(0.0), Some(0.0)));
    assert!((m.train_loss.unwrap() - 2f64.ln()).abs() < 1e-12);
}

/// All measures, with their names.
fn all(m: &Measures) -> [(&'static str, Option<f64>); 18] {
    [
        ("score", m.score),
        ("accuracy", m.accuracy),
        ("train_accuracy", m.train_accuracy),
        ("majority", m.majority),
        ("train_loss", m.train_loss),
        ("eval_loss", m.eval_loss),
        ("margin", m.margin),
        ("trained_margin", m.trained_margin),
        ("weight_distance", m.weight_distance),
        ("weight_norm", m.weight_norm),
        ("direction_residual", m.direction_residual),
        ("loo_mean", m.loo_mean),
        ("loo_max", m.loo_max),
        ("loo_se", m.loo_se),
        ("loo_raw_mean", m.loo_raw_mean),
        ("loo_raw_max", m.loo_raw_max),
        ("loo_flip_rate", m.loo_flip_rate),
        ("loo_loss_change", m.loo_loss_change),
    ]
}

#[test]
fn every_measure_is_there_and_finite_when_all_points_are_left_out() {
    for classes in [2, 3] {
        for (n, d) in [(30, 6), (18, 20)] {
            let mut one = trial(0, separable(n, d, classes), strategy(), 0);
            one.settings.leave_one_out = Some(LeaveOneOut::All);
            let outcome = run(&[one]).remove(0);
            assert_eq!(outcome.measures.loo_count, Some(n));
            for (name, value) in all(&outcome.measures) {
                assert!(value.is_some_and(f64::is_finite), "{name} is {value:?}");
            }
            assert!(outcome.measures.trained_margin <= outcome.measures.margin);
            let (chosen, logs) =
                (outcome.outputs.classes.unwrap(), outcome.outputs.log_probabilities.unwrap());
            assert_eq!((chosen.len(), logs.len()), (40, 40 * classes as usize));
            for (class, logs) in chosen.iter().zip(logs.chunks_exact(classes as usize)) {
                let sum: f64 = logs.iter().map(|log| f64::from(*log).exp()).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{logs:?}");
                assert!(logs.iter().all(|log| *log <= logs[*class as usize]), "{class} {logs:?}");
            }
        }
    }
}

#[test]
fn measures_that_were_not_asked_for_are_not_there() {
    let mut one = trial(0, separable(30, 6, 2), strategy(), 0);
    one.settings.leave_one_out = None;
    one.settings.exact_margin = false;
    one.settings.predictions = Predictions::None;
    let outcome = run(&[one]).remove(0);
    let m = outcome.measures;
    assert_eq!((m.margin, m.direction_residual, m.loo_mean, m.loo_count), (None, None, None, None));
    assert_eq!(outcome.outputs, TestOutputs::default());
    assert!(outcome.curve[0].loo_mean.is_nan());
}

#[test]
fn perturbed_trials_leave_out_only_points_they_have() {
    let mut one = trial(0, separable(30, 6, 2), StrategyConfig { data_perturbation: 0.5, ..strategy() }, 0);
    one.settings.leave_one_out = Some(LeaveOneOut::All);
    let m = run(&[one]).remove(0).measures;
    assert_eq!(m.loo_count, Some(15));
    assert!(m.loo_mean.unwrap() > 0.0);
}

#[test]
fn the_seed_controls_what_it_is_said_to() {
    let fixed = SeedControls { initialization: false, data_perturbation: false, ..SeedControls::default() };
    let kind = |controls| StrategyConfig { data_perturbation: 0.2, seed_controls: controls, ..strategy() };
    let pair = |controls| {
        let outcomes = run(&[0, 1].map(|seed| trial(seed, separable(30, 6, 2), kind(controls), seed)));
        bits(&outcomes[0]) == bits(&outcomes[1])
    };
    assert!(pair(fixed));
    assert!(!pair(SeedControls { initialization: true, ..fixed }));
    assert!(!pair(SeedControls { data_perturbation: true, ..fixed }));
}

#[test]
fn heads_of_a_sum_train_as_they_would_alone() {
    let many =
        |heads, reduction| StrategyConfig { heads, reduction, init_std: 0.5, steps: 200, ..strategy() };
    let norm = |s| run(&[trial(0, separable(40, 8, 2), s, 0)]).remove(0).measures.weight_distance.unwrap();
    let (one, sum, mean) =
        (norm(many(1, Reduction::Mean)), norm(many(8, Reduction::Sum)), norm(many(8, Reduction::Mean)));
    assert!((sum / one - 1.0).abs() < 0.3, "{sum} {one}");
    assert!(mean < 0.6 * one, "{mean} {one}");
}

#[test]
fn missing_files_and_other_settings_are_errors_with_a_kind() {
    let features = DatasetConfig::Features(FeaturesConfig {
        path: "gone.csv".to_owned(),
        content: String::new(),
        label: None,
        labels: None,
        drop: Vec::new(),
        standardize: true,
        test_fraction: 0.2,
        samples: None,
        instance: 0,
        train_rows: 10,
        features: 2,
        classes: 2,
    });
    let mut engine = HeadEngine::new(Device::Cpu).unwrap();
    let mut fails =
        |trials: &[Trial]| engine.run(trials, &NoTables, &mut Collect::new(u32::MAX)).unwrap_err().kind();
    assert_eq!(fails(&[trial(0, features, strategy(), 0)]), FailureKind::Transient);
    assert_eq!(fails(&[trial(0, separable(6, 4, 20), strategy(), 0)]), FailureKind::Data);
    let full = StrategyConfig { setting: evenkeel_common::spec::Setting::Full, ..strategy() };
    assert_eq!(fails(&[trial(0, separable(20, 4, 2), full, 0)]), FailureKind::Data);
}
