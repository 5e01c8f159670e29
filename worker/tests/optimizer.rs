//! Optimisers and schedules beside PyTorch and transformers (`scripts/golden_optimizer.py` made the expected values), and
//! dropout masks beside a plain Philox.

use evenkeel_common::spec::Schedule;
use evenkeel_worker::finetune::dropout::{Masks, kept_share};
use evenkeel_worker::finetune::optimizer::{Moments, Rule, Step, clip_factor, squared_norm, update};
use evenkeel_worker::finetune::schedule::rate;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const ADAMW: Rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
const MOMENTUM: Rule = Rule::Sgd { momentum: 0.9 };

fn golden(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("golden/optimizer.json")).unwrap();
    all[name].as_array().unwrap().clone()
}

fn real(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn reals(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(reals).collect()
}

/// A tensor of values that are f32, in a kind.
fn tensor(values: &[f64], shape: &[i64], kind: Kind) -> Tensor {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    Tensor::from_slice(&values).reshape(shape).to_kind(kind)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    Vec::<f32>::try_from(tensor.reshape([-1])).unwrap().into_iter().map(f32::to_bits).collect()
}

/// Numbers of both signs without a pattern.
fn noise(shape: &[i64], seed: u32) -> Tensor {
    let n = shape.iter().product::<i64>() as u32;
    let one = |i: u32| {
        let mixed = (i + 1).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503));
        f64::from((mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519)) / f64::from(u32::MAX) * 2.0 - 1.0
    };
    tensor(&(0..n).map(one).collect::<Vec<_>>(), shape, Kind::Float)
}

fn step(number: u64, weight_decay: f64) -> Step {
    Step { learning_rate: 0.01, weight_decay, gradient_scale: 0.5, number }
}

/// The largest relative error over all steps of all golden cases, with weights and gradients laid out by `arrange`.
fn worst_error(kind: Kind, arrange: fn(&Tensor) -> Tensor) -> f64 {
    let mut worst = 0.0f64;
    for case in golden("optimizers") {
        let shape: Vec<i64> = reals(&case["shape"]).iter().map(|&n| n as i64).collect();
        let rule = match case["rule"].as_str().unwrap() {
            "adamw" => Rule::AdamW {
                beta1: real(&case, "beta1"),
                beta2: real(&case, "beta2"),
                epsilon: real(&case, "epsilon"),
            },
            _ => Rule::Sgd { momentum: real(&case, "momentum") },
        };
        let mut weights = arrange(&tensor(&reals(&case["start"]), &shape, kind)).set_requires_grad(true);
        let mask = arrange(&tensor(&reals(&case["mask"]), &shape, kind));
        let mask = case["masked"].as_bool().unwrap().then_some(&mask);
        let mut moments = Moments::zeros(&rule, &weights).unwrap();
        let (gradients, expected) = (rows(&case["gradients"]), rows(&case["weights"]));
        assert_eq!(gradients.len(), 20);
        for (t, (gradient, expected)) in gradients.iter().zip(&expected).enumerate() {
            let step = Step {
                learning_rate: real(&case, "learning_rate"),
                weight_decay: real(&case, "weight_decay"),
                gradient_scale: real(&case, "gradient_scale"),
                number: t as u64 + 1,
            };
            let gradient = arrange(&tensor(gradient, &shape, kind));
            update(&rule, &step, &mut weights, &gradient, &mut moments, mask).unwrap();
            for (found, expected) in values(&weights).iter().zip(expected) {
                worst = worst.max(((found - expected) / expected).abs());
            }
        }
    }
    worst
}

#[test]
fn twenty_steps_of_every_rule_in_one_pass_are_those_of_pytorch() {
    let worst = worst_error(Kind::Float, Tensor::shallow_clone);
    assert!(worst < 1e-6, "{worst}");
}

#[test]
fn twenty_steps_of_every_rule_in_operations_on_tensors_are_those_of_pytorch() {
    let worst = worst_error(Kind::Double, Tensor::shallow_clone);
    assert!(worst < 1e-10, "{worst}");
    // Memory that is not contiguous, for which there is no single pass.
    let worst = worst_error(Kind::Float, |t| t.transpose(0, 1).contiguous().transpose(0, 1));
    assert!(worst < 1e-6, "{worst}");
}

#[test]
fn the_bits_of_a_weight_do_not_depend_on_its_neighbours() {
    let n = 83;
    for rule in [ADAMW, MOMENTUM, Rule::Sgd { momentum: 0.0 }] {
        let (start, gradient, mask) = (noise(&[n], 1), noise(&[n], 2), noise(&[n], 3));
        let mut all = start.copy();
        let mut moments = Moments::zeros(&rule, &all).unwrap();
        for t in 1..=3 {
            update(&rule, &step(t, 0.1), &mut all, &gradient, &mut moments, Some(&mask)).unwrap();
        }
        let all = bits(&all);
        for i in 0..n {
            let one = |t: &Tensor| t.narrow(0, i, 1).copy();
            let (mut weight, gradient, mask) = (one(&start), one(&gradient), one(&mask));
            let mut moments = Moments::zeros(&rule, &weight).unwrap();
            for t in 1..=3 {
                update(&rule, &step(t, 0.1), &mut weight, &gradient, &mut moments, Some(&mask)).unwrap();
            }
            assert_eq!(bits(&weight), [all[i as usize]]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let start = noise(&[4, 3], 1);
    let mut weights = start.copy();
    let mut moments = Moments::zeros(&ADAMW, &weights).unwrap();
    let now = step(1, 0.0);
    let gradient = noise(&[2, 3], 2);
    assert!(update(&ADAMW, &now, &mut weights, &gradient, &mut moments, None).is_err());
    assert!(update(&ADAMW, &now, &mut weights, &Tensor::new(), &mut moments, None).is_err());
    assert!(update(&MOMENTUM, &now, &mut weights, &start, &mut moments, None).is_err());
    assert!(update(&ADAMW, &now, &mut weights, &start, &mut moments, Some(&gradient)).is_err());
    assert_eq!(bits(&weights), bits(&start));
}

#[test]
fn a_gradient_that_shares_the_memory_of_its_weights_is_still_read_first() {
    let mut shared = noise(&[50], 1);
    let (mut apart, gradient) = (shared.copy(), shared.copy());
    let alias = shared.shallow_clone();
    for weights in [(&mut shared, &alias), (&mut apart, &gradient)] {
        let rule = Rule::Sgd { momentum: 0.0 };
        let mut moments = Moments::zeros(&rule, weights.0).unwrap();
        update(&rule, &step(1, 0.0), weights.0, weights.1, &mut moments, None).unwrap();
    }
    for (a, b) in values(&shared).iter().zip(values(&apart)) {
        assert!((a - b).abs() <= 1e-6 * b.abs(), "{a} {b}");
    }
}

#[test]
fn clipping_scales_as_clip_grad_norm() {
    for case in golden("clipping") {
        let gradients: Vec<Tensor> =
            rows(&case["gradients"]).iter().map(|g| tensor(g, &[g.len() as i64], Kind::Float)).collect();
        let norm = squared_norm(&gradients).sqrt();
        assert!((norm / real(&case, "norm") - 1.0).abs() < 1e-11, "{norm}");
        let factor = clip_factor(norm, real(&case, "max_norm"));
        for (gradient, clipped) in gradients.iter().zip(rows(&case["clipped"])) {
            for (g, clipped) in values(gradient).iter().zip(clipped) {
                assert!((g * factor / clipped - 1.0).abs() < 1e-10, "{g} {clipped}");
            }
        }
    }
}

#[test]
fn a_norm_shows_what_is_not_finite_and_a_clip_factor_does_not_hide_it() {
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 31, 32, 99] {
            let mut gradient = vec![1.0f32; 100];
            gradient[at] = odd;
            let gradient = Tensor::from_slice(&gradient);
            assert!(!squared_norm(&[noise(&[5], 1), gradient.shallow_clone()]).is_finite());
            assert!(!squared_norm(&[gradient.to_kind(Kind::Double)]).is_finite());
        }
    }
    assert!(clip_factor(f64::NAN, 1.0).is_nan());
    assert_eq!(clip_factor(f64::INFINITY, 1.0), 0.0);
    assert_eq!(clip_factor(0.5, 1.0), 1.0);
}

#[test]
fn norms_add_up_over_tensors_of_any_kind_and_layout() {
    let tensors = [
        noise(&[37, 5], 1),
        noise(&[3], 2).to_kind(Kind::Double),
        Tensor::zeros([0], (Kind::Float, Device::Cpu)),
        noise(&[9, 8], 3).transpose(0, 1),
    ];
    let expected: f64 = tensors.iter().flat_map(values).map(|v| v * v).sum();
    let found = squared_norm(&tensors);
    assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
}

#[test]
fn learning_rates_are_those_of_transformers() {
    for case in golden("schedules") {
        let schedule = match case["schedule"].as_str().unwrap() {
            "constant" => Schedule::Constant,
            "linear" => Schedule::Linear,
            _ => Schedule::Cosine,
        };
        let (warmup, total) = (case["warmup_steps"].as_u64().unwrap(), case["total"].as_u64().unwrap());
        for (t, expected) in reals(&case["rates"]).into_iter().enumerate() {
            let found = rate(schedule, real(&case, "base"), t as u64, warmup, total);
            assert!(
                (found - expected).abs() <= 1e-10 * expected,
                "{schedule:?} {warmup}/{total} {t}: {found} {expected}"
            );
        }
    }
}

/// Philox4x32-10 a second time, from its definition.
fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (u64::from(c[0]) * 0xD251_1F53, u64::from(c[2]) * 0xCD9E_8D57);
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

#[test]
fn a_mask_is_philox_in_order_sixteen_bits_a_decision() {
    // The known answer of Random123 for zeros.
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let (key, nonce, p) = ([0xa409_3822, 0x299f_31d0], [0x1319_8a2e, 0x0370_7344], 0.3);
    let mut masks = Masks::new(key, nonce);
    let mut block = 0;
    for shape in [&[3i64, 43][..], &[8], &[0], &[1], &[2, 2, 64]] {
        let n = shape.iter().product::<i64>() as usize;
        let kept = (kept_share(p) * 65_536.0) as u32;
        let decisions = (0..n.div_ceil(8)).flat_map(|i| {
            let words = philox([block + i as u32, 0, nonce[0], nonce[1]], key);
            words.into_iter().flat_map(|word| [word & 0xFFFF, word >> 16])
        });
        let expected: Vec<f32> = decisions
            .take(n)
            .map(|part| if part < kept { (1.0 / kept_share(p)) as f32 } else { 0.0 })
            .collect();
        let mask = masks.mask(shape, p);
        assert_eq!(mask.size(), shape);
        assert_eq!(Vec::<f32>::try_from(mask.reshape([-1])).unwrap(), expected);
        block += n.div_ceil(8) as u32;
    }
}

#[test]
fn masks_have_mean_one_and_the_variance_of_inverted_dropout() {
    let n = 4_000_000;
    for p in [0.1, 0.5, 0.9] {
        let mask = Masks::new([1, 2], [3, 4]).mask(&[n], p).to_kind(Kind::Double);
        let variance = (1.0 - kept_share(p)) / kept_share(p);
        let mean = f64::try_from(mask.mean(Kind::Double)).unwrap();
        assert!((mean - 1.0).abs() < 5.0 * (variance / n as f64).sqrt(), "{p}: {mean}");
        let found = f64::try_from(mask.var(true)).unwrap();
        assert!((found / variance - 1.0).abs() < 0.02, "{p}: {found} {variance}");
        // Neighbours are independent, at a few distances that fall within and across blocks and registers.
        for lag in [1, 2, 8, 64, 128] {
            let (a, b) = (mask.narrow(0, 0, n - lag) - 1.0, mask.narrow(0, lag, n - lag) - 1.0);
            let correlation = f64::try_from((a * b).mean(Kind::Double)).unwrap() / variance;
            assert!(correlation.abs() < 5.0 / (n as f64).sqrt(), "{p} {lag}: {correlation}");
        }
    }
    assert!(values(&Masks::new([1, 2], [3, 4]).mask(&[1000], 0.0)).iter().all(|&v| v == 1.0));
    assert!(values(&Masks::new([1, 2], [3, 4]).mask(&[1000], 1.0)).iter().all(|&v| v == 0.0));
}

#[test]
fn masks_come_again_for_the_same_key_and_nonce_only() {
    let first = |key, nonce| bits(&Masks::new(key, nonce).mask(&[50, 20], 0.5));
    assert_eq!(first([1, 2], [3, 4]), first([1, 2], [3, 4]));
    for (key, nonce) in [([2, 2], [3, 4]), ([1, 3], [3, 4]), ([1, 2], [4, 4]), ([1, 2], [3, 5])] {
        assert_ne!(first([1, 2], [3, 4]), first(key, nonce));
    }
    let mut masks = Masks::new([1, 2], [3, 4]);
    assert_ne!(bits(&masks.mask(&[1000], 0.5)), bits(&masks.mask(&[1000], 0.5)));
}
