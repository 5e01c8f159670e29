//! The engine beside numpy, scipy and scikit-learn: `scripts/golden.py` made the expected values.

mod common;

use common::{run, strategy, trial};
use evenkeel_common::results::{Measures, Status};
use evenkeel_common::seed::Key;
use evenkeel_common::spec::{LeaveOneOut, Optimizer, Reduction};
use evenkeel_common::trial::{DatasetConfig, GeneratorConfig, StrategyConfig, SyntheticConfig};
use evenkeel_worker::data::{self, Dataset};
use evenkeel_worker::engine::margin::{HardMargin, hard_margin};
use serde_json::Value;

fn real(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn whole(value: &Value, name: &str) -> u32 {
    u32::try_from(value[name].as_u64().unwrap_or_else(|| panic!("{name} of {value}"))).unwrap()
}

fn reals(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn wholes(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn blobs(config: &Value) -> DatasetConfig {
    DatasetConfig::Synthetic(SyntheticConfig {
        generator: GeneratorConfig::Blobs {
            cluster_std: real(config, "cluster_std"),
            center_box: real(config, "center_box"),
        },
        samples: whole(config, "samples"),
        features: whole(config, "features"),
        classes: whole(config, "classes"),
        test_samples: whole(config, "test_samples"),
        instance: whole(config, "instance"),
    })
}

fn strategy_of(s: &Value) -> StrategyConfig {
    StrategyConfig {
        steps: whole(s, "steps"),
        learning_rate: real(s, "learning_rate"),
        optimizer: match s["optimizer"].as_str().unwrap() {
            "gd" => Optimizer::Gd,
            "momentum" => Optimizer::Momentum,
            _ => Optimizer::Adam,
        },
        momentum: real(s, "momentum"),
        weight_decay: real(s, "weight_decay"),
        bias: s["bias"].as_bool().unwrap(),
        init_std: real(s, "init_std"),
        data_perturbation: real(s, "data_perturbation"),
        heads: whole(s, "heads"),
        reduction: if s["reduction"] == "sum" { Reduction::Sum } else { Reduction::Mean },
        checkpoints: wholes(&s["checkpoints"]),
        ..strategy()
    }
}

/// Reads a measure by name.
type Measure = (&'static str, fn(&Measures) -> Option<f64>);
const MEASURES: [Measure; 18] = [
    ("accuracy", |m| m.accuracy),
    ("accuracy", |m| m.score),
    ("train_accuracy", |m| m.train_accuracy),
    ("majority", |m| m.majority),
    ("train_loss", |m| m.train_loss),
    ("eval_loss", |m| m.eval_loss),
    ("margin", |m| m.margin),
    ("trained_margin", |m| m.trained_margin),
    ("weight_distance", |m| m.weight_distance),
    ("weight_norm", |m| m.weight_norm),
    ("direction_residual", |m| m.direction_residual),
    ("loo_mean", |m| m.loo_mean),
    ("loo_max", |m| m.loo_max),
    ("loo_se", |m| m.loo_se),
    ("loo_raw_mean", |m| m.loo_raw_mean),
    ("loo_raw_max", |m| m.loo_raw_max),
    ("loo_flip_rate", |m| m.loo_flip_rate),
    ("loo_loss_change", |m| m.loo_loss_change),
];

#[test]
fn training_and_measures_agree_with_numpy_in_float64_to_1e_5() {
    let cases: Value = serde_json::from_str(include_str!("golden/head.json")).unwrap();
    let mut worst = (0.0, String::new());
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let dataset = blobs(&case["dataset"]);
        assert_eq!(
            dataset.to_json(),
            case["dataset_json"].as_str().unwrap(),
            "the key of the random numbers"
        );
        let mut one = trial(0, dataset, strategy_of(&case["strategy"]), u64::from(whole(case, "seed")));
        one.settings.sweep_seed = u64::from(whole(case, "sweep_seed"));
        one.settings.leave_one_out = Some(LeaveOneOut::Count(whole(case, "leave_one_out")));
        let outcome = run(&[one]).remove(0);
        assert_eq!(outcome.status, Status::Completed, "{name}");
        let expected = case["curve"].as_array().unwrap();
        let close = |what: &str, found: f64, expected: f64, worst: &mut (f64, String)| {
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-5, "{name}: {what} is {found}, expected {expected}");
            if error > worst.0 {
                *worst = (error, format!("{name}: {what}"));
            }
        };
        let last = expected.last().unwrap();
        for (measure, read) in MEASURES {
            match (read(&outcome.measures), last[measure].as_f64()) {
                (Some(found), Some(expected)) => close(measure, found, expected, &mut worst),
                (found, expected) => {
                    assert!(found.is_none() && expected.is_none(), "{name}: {measure} is {found:?}")
                }
            }
        }
        assert_eq!(outcome.outputs.classes, Some(wholes(&last["predictions"])), "{name}");
        assert_eq!(outcome.curve.len(), expected.len(), "{name}");
        for (point, expected) in outcome.curve.iter().zip(expected) {
            assert_eq!(point.step, whole(expected, "step"));
            close("train_loss", point.train_loss, real(expected, "train_loss"), &mut worst);
            close("eval_loss", point.eval_loss, real(expected, "eval_loss"), &mut worst);
            close("accuracy", point.score, real(expected, "accuracy"), &mut worst);
            close("loo_mean", point.loo_mean, real(expected, "loo_mean"), &mut worst);
            match expected["direction_residual"].as_f64() {
                Some(expected) => close("direction_residual", point.direction_residual, expected, &mut worst),
                None => assert!(point.direction_residual.is_nan()),
            }
        }
    }
    println!("largest error {:.1e} ({})", worst.0, worst.1);
}

#[test]
fn the_hard_margin_agrees_with_an_exact_svm_to_1e_6() {
    let cases: Value = serde_json::from_str(include_str!("golden/margin.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let (d, classes) = (whole(case, "d") as usize, whole(case, "classes") as usize);
        let found = hard_margin(&reals(&case["x"]), &wholes(&case["y"]), d, classes);
        match (&found, case["margin"].as_f64()) {
            (HardMargin::Separable { margin, direction, .. }, Some(expected)) => {
                assert!((margin - expected).abs() < 1e-6 * expected, "{margin} {expected}");
                let apart: f64 = direction
                    .iter()
                    .zip(reals(&case["direction"]))
                    .map(|(a, b)| (a - b).powi(2))
                    .sum::<f64>()
                    .sqrt();
                assert!(apart < 1e-4, "directions are {apart} apart");
            }
            (HardMargin::NotSeparable, None) => {}
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }
}

/// The statistics of `scripts/golden.py` of one draw.
struct Statistics {
    reals: [f64; 5],
    rank: usize,
    copies: usize,
    counts: Vec<usize>,
}

const NAMES: [&str; 5] =
    ["flipped", "mean_abs_centroid", "within_variance", "redundant_square", "noise_variance"];

fn statistics(data: &Dataset, config: &Value) -> Statistics {
    let d = data.features;
    let [inf, red, rep] = ["informative", "redundant", "repeated"].map(|name| whole(config, name) as usize);
    let (classes, used) = (whole(config, "classes"), inf + red);
    let clusters = (classes * whole(config, "clusters_per_class")) as usize;
    let rows: Vec<&[f32]> = data.x_train.chunks_exact(d).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let column = |rows: &[&[f32]], j: usize| rows.iter().map(|row| f64::from(row[j])).collect::<Vec<_>>();
    // Rows take turns over the clusters.
    let flipped =
        data.y_train.iter().enumerate().filter(|(i, y)| (i % clusters) as u32 % classes != **y).count();
    let (mut centers, mut variances) = (Vec::new(), Vec::new());
    for k in 0..clusters {
        let own: Vec<&[f32]> = rows.iter().skip(k).step_by(clusters).copied().collect();
        for j in 0..inf {
            let values = column(&own, j);
            let center = mean(&values);
            centers.push(center.abs());
            let square: f64 = values.iter().map(|v| (v - center).powi(2)).sum();
            variances.push(square / (values.len() - 1) as f64);
        }
    }
    let all = |from: usize, to: usize| (from..to).flat_map(|j| column(&rows, j)).collect::<Vec<_>>();
    let redundant: Vec<f64> = all(inf, used).iter().map(|v| v * v).collect();
    let noise = all(used + rep, d);
    let noise_mean = mean(&noise);
    let noise: Vec<f64> = noise.iter().map(|v| (v - noise_mean).powi(2)).collect();
    let copies = (used..used + rep)
        .filter(|j| (0..used).any(|i| rows.iter().all(|row| row[*j].to_bits() == row[i].to_bits())))
        .count();
    let counts = (0..classes).map(|c| data.y_train.iter().filter(|y| **y == c).count()).collect();
    Statistics {
        reals: [
            flipped as f64 / rows.len() as f64,
            mean(&centers),
            mean(&variances),
            mean(&redundant),
            mean(&noise),
        ],
        rank: rank(&rows, used),
        copies,
        counts,
    }
}

/// Rank of the first `used` columns by Gaussian elimination with pivoting; f32 rounding counts as zero.
fn rank(rows: &[&[f32]], used: usize) -> usize {
    let mut gram = vec![vec![0.0; used]; used];
    for row in rows {
        for i in 0..used {
            for j in 0..used {
                gram[i][j] += f64::from(row[i]) * f64::from(row[j]);
            }
        }
    }
    let scale = (0..used).map(|i| gram[i][i]).fold(0.0, f64::max);
    let mut rank = 0;
    while let Some(pivot) = (rank..used).max_by(|a, b| gram[*a][*a].total_cmp(&gram[*b][*b])) {
        if gram[pivot][pivot] < 1e-9 * scale {
            break;
        }
        gram.swap(rank, pivot);
        gram.iter_mut().for_each(|row| row.swap(rank, pivot));
        for i in rank + 1..used {
            let (above, below) = gram.split_at_mut(i);
            let factor = below[0][rank] / above[rank][rank];
            below[0]
                .iter_mut()
                .zip(&above[rank])
                .skip(rank)
                .for_each(|(value, pivot)| *value -= factor * pivot);
        }
        rank += 1;
    }
    rank
}

#[test]
fn classification_has_the_statistics_of_make_classification() {
    let cases: Value = serde_json::from_str(include_str!("golden/classification.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let p = &case["config"];
        let draws: Vec<Statistics> = (0..300)
            .map(|instance| {
                let config = SyntheticConfig {
                    generator: GeneratorConfig::Classification {
                        informative: whole(p, "informative"),
                        redundant: whole(p, "redundant"),
                        repeated: whole(p, "repeated"),
                        clusters_per_class: whole(p, "clusters_per_class"),
                        class_sep: real(p, "class_sep"),
                        flip_y: real(p, "flip_y"),
                        hypercube: p["hypercube"].as_bool().unwrap(),
                    },
                    samples: whole(p, "samples"),
                    features: whole(p, "features"),
                    classes: whole(p, "classes"),
                    test_samples: 10,
                    instance,
                };
                let key = Key::of_dataset(1, &DatasetConfig::Synthetic(config.clone()).to_json());
                statistics(&data::generate(&config, data::Draws::of(&key)).unwrap(), p)
            })
            .collect();
        for (at, name) in NAMES.into_iter().enumerate() {
            let found = draws.iter().map(|draw| draw.reals[at]).sum::<f64>() / draws.len() as f64;
            let (expected, se) = (real(&case["mean"], name), real(&case["se"], name));
            // Both means are over as many draws: their difference has √2 of one's standard error.
            let room = 4.0 * 2f64.sqrt() * se + 1e-9;
            assert!(
                (found - expected).abs() < room,
                "{name}: {found}, scikit-learn has {expected} ± {se} ({p})"
            );
        }
        let range = wholes(&case["class_share_range"]);
        for draw in &draws {
            assert!(wholes(&case["ranks"]).contains(&(draw.rank as u32)), "rank {}", draw.rank);
            assert!(wholes(&case["copies"]).contains(&(draw.copies as u32)), "copies {}", draw.copies);
            let (least, most) = (range[0] as usize, range[1] as usize);
            let slack = (most - least) / 4;
            assert!(
                draw.counts.iter().all(|count| (least - slack..=most + slack).contains(count)),
                "{:?}",
                draw.counts
            );
        }
    }
}
