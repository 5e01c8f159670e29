//! Losses and regularisers beside plain PyTorch (`scripts/golden_regularizers.py` made the expected values).

use evenkeel_common::encoder::{Group, Parameter};
use evenkeel_common::seed::{Key, Purpose};
use evenkeel_common::spec::Precision;
use evenkeel_worker::finetune::dropout::{Masks, kept_share};
use evenkeel_worker::finetune::losses::{
    Head, add_pull, class_distance, cross_entropy, maximal_margin, noise_stability,
};
use evenkeel_worker::finetune::weights::{Mixout, Weights};
use serde_json::Value;
use tch::{Kind, Tensor};

fn golden(what: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("golden/regularizers.json")).unwrap();
    all[what].as_array().unwrap().clone()
}

fn reals(case: &Value, name: &str) -> Vec<f64> {
    case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn size(case: &Value, name: &str) -> i64 {
    case[name].as_i64().unwrap()
}

/// In f64, as the expected values: what is compared is the formula, not the number format.
fn tensor(case: &Value, name: &str, shape: &[i64]) -> Tensor {
    Tensor::from_slice(&reals(case, name)).view(shape)
}

fn leaf(case: &Value, name: &str, shape: &[i64]) -> Tensor {
    tensor(case, name, shape).set_requires_grad(true)
}

fn flags(case: &Value, name: &str) -> Vec<bool> {
    case[name].as_array().unwrap().iter().map(|value| value.as_bool().unwrap()).collect()
}

fn whole(case: &Value, name: &str) -> Vec<i64> {
    case[name].as_array().unwrap().iter().map(|value| value.as_i64().unwrap()).collect()
}

fn same(found: &Tensor, case: &Value, name: &str) {
    let found: Vec<f64> = Vec::try_from(found.flatten(0, -1).to_kind(Kind::Double)).unwrap();
    let expected = reals(case, name);
    assert_eq!(found.len(), expected.len(), "{name}");
    let scale = expected.iter().fold(1.0f64, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-6 * scale, "{name}: {found} and {expected}");
    }
}

fn number(found: &Tensor, case: &Value, name: &str) {
    let (found, expected) = (f64::try_from(found.detach()).unwrap(), case[name].as_f64().unwrap());
    assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{name}: {found} and {expected}");
}

#[test]
fn the_multi_head_loss_and_its_gradients_are_those_of_pytorch() {
    for case in golden("multi_head") {
        let (rows, heads, classes, d) =
            (size(&case, "rows"), size(&case, "heads"), size(&case, "classes"), size(&case, "d"));
        let features = leaf(&case, "features", &[rows, d]);
        let weight = leaf(&case, "weight", &[heads * classes, d]);
        let bias = leaf(&case, "bias", &[heads * classes]);
        let present: Vec<f64> =
            flags(&case, "present").into_iter().map(|present| f64::from(u8::from(present))).collect();
        let head = Head { weight: &weight, bias: Some(&bias), heads };
        let labels = Tensor::from_slice(&whole(&case, "labels"));
        let logits = head.logits(&features).unwrap();
        // The loss is made in f32, as in training.
        let loss =
            cross_entropy(&logits, &labels, &Tensor::from_slice(&present).to_kind(Kind::Float)).unwrap();
        number(&loss, &case, "loss");
        loss.backward();
        same(&features.grad(), &case, "features_gradient");
        same(&weight.grad(), &case, "weight_gradient");
        same(&bias.grad(), &case, "bias_gradient");
        same(&head.mean().unwrap().0, &case, "mean_weight");
    }
}

#[test]
fn the_maximal_margin_regulariser_and_its_gradient_are_those_of_pytorch() {
    for case in golden("maximal_margin") {
        let (rows, classes, d) = (size(&case, "rows"), size(&case, "classes"), size(&case, "d"));
        let features = leaf(&case, "features", &[rows, d]);
        let (labels, present) = (whole(&case, "labels"), flags(&case, "present"));
        let value = maximal_margin(&features, &labels, &present, classes as usize).unwrap().unwrap();
        number(&value, &case, "value");
        value.backward();
        same(&features.grad(), &case, "gradient");
    }
}

#[test]
fn one_class_has_no_margin_and_equal_classes_have_no_infinite_gradient() {
    let features = Tensor::ones([4, 3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    assert!(maximal_margin(&features, &[0, 0, 0, 0], &[true; 4], 2).unwrap().is_none());
    assert!(maximal_margin(&features, &[0, 0, 1, 1], &[true, true, false, false], 2).unwrap().is_none());
    let value = maximal_margin(&features, &[0, 0, 1, 1], &[true; 4], 2).unwrap().unwrap();
    value.backward();
    assert!(f64::try_from(features.grad().isfinite().all().to_kind(Kind::Double)).unwrap() == 1.0);
    let apart = Tensor::from_slice(&[0.0f32, 0.0, 0.0, 0.0, 3.0, 4.0, 3.0, 4.0]).view([4, 2]);
    let distance = class_distance(&apart, &[0, 0, 1, 1], 2).unwrap().unwrap();
    assert!((distance - 5.0).abs() < 1e-5, "{distance}");
}

#[test]
fn noise_stability_and_its_gradient_are_those_of_pytorch() {
    for case in golden("noise_stability") {
        let shape = [size(&case, "rows"), size(&case, "d")];
        let (clean, noisy) = (leaf(&case, "clean", &shape), leaf(&case, "noisy", &shape));
        let value = noise_stability(&clean, &noisy, &tensor(&case, "weights", &[shape[0]])).unwrap();
        number(&value, &case, "value");
        value.backward();
        same(&clean.grad(), &case, "gradient");
    }
}

#[test]
fn the_pull_to_where_training_began_is_the_gradient_of_its_penalty() {
    for case in golden("pull") {
        let n = reals(&case, "w").len() as i64;
        let mut gradient = tensor(&case, "loss_gradient", &[n]);
        let strength = case["strength"].as_f64().unwrap();
        add_pull(&mut gradient, &tensor(&case, "w", &[n]), Some(&tensor(&case, "w0", &[n])), strength)
            .unwrap();
        same(&gradient, &case, "gradient");
    }
}

/// The weight of a linear layer, alone.
fn linear(rows: i64, columns: i64, value: &Tensor, name: &str) -> Weights {
    let parameter = Parameter { name: name.to_owned(), shape: vec![rows, columns], group: Group::Layer(0) };
    Weights::new(&[parameter], vec![value.view([rows, columns]).to_kind(Kind::Float)])
}

#[test]
fn mixout_is_the_formula_of_its_paper_and_so_is_its_gradient() {
    for case in golden("mixout") {
        let n = reals(&case, "w").len() as i64;
        // The engine's form: u + (w − u)·D with D = (1 − mask)/(1 − p).
        let (w, u) = (leaf(&case, "w", &[n]), tensor(&case, "u", &[n]));
        let p = case["p"].as_f64().unwrap();
        let kept = (1.0 - tensor(&case, "mask", &[n])) / (1.0 - p);
        let mixed = &u + (&w - &u) * kept;
        same(&mixed, &case, "mixed");
        (mixed * tensor(&case, "upstream", &[n])).sum(Kind::Double).backward();
        same(&w.grad(), &case, "gradient");
    }
    // And that the engine's weights are in this form: what falls back is exactly the pre-trained value, and the mean stays.
    let (n, p) = (20_000, 0.7);
    let stream = |position| Key::of_dataset(1, "m").stream(Purpose::Mixout, 0, position);
    let mut draws = stream(0);
    let w: Vec<f32> = (0..n).map(|_| draws.normal() as f32).collect();
    let weights = linear(100, n / 100, &Tensor::from_slice(&w), "layer.weight");
    let origin = [Tensor::zeros([100, n / 100], (Kind::Float, tch::Device::Cpu))];
    let (key, nonce) = stream(1).generator();
    let mut masks = Masks::new(key, nonce);
    let mixout = Mixout { origin: &origin, p, masks: &mut masks };
    let seen = weights.effective(&weights.values, Some(mixout), Precision::Fp32).unwrap();
    let seen: Vec<f32> = Vec::try_from(seen[0].flatten(0, -1)).unwrap();
    let share = seen.iter().filter(|value| **value == 0.0).count() as f64 / n as f64;
    assert!((share - p).abs() < 0.02, "{share}");
    let kept = kept_share(p);
    for (seen, w) in seen.iter().zip(&w).filter(|(seen, _)| **seen != 0.0) {
        assert!((f64::from(*seen) * kept - f64::from(*w)).abs() < 1e-5);
    }
}

#[test]
fn adapters_are_worked_in_as_their_paper_says() {
    for case in golden("lora") {
        let (out, inputs, rank) = (size(&case, "out"), size(&case, "inputs"), size(&case, "rank"));
        let mut weights =
            linear(out, inputs, &tensor(&case, "w", &[out, inputs]), "attention.self.query.weight");
        let stream = |_| Key::of_dataset(1, "l").stream(Purpose::Reinitialization, 0, 0);
        weights.adapt(rank as u32, case["alpha"].as_f64().unwrap(), stream).unwrap();
        assert!(!weights.parts[0].trained && weights.parts[1].trained && weights.values.len() == 3);
        // B begins at zero: nothing is changed yet.
        same(&weights.merged().unwrap()[0], &case, "w");
        weights.values[1] = tensor(&case, "a", &[rank, inputs]).to_kind(Kind::Float);
        weights.values[2] = tensor(&case, "b", &[out, rank]).to_kind(Kind::Float);
        same(&weights.merged().unwrap()[0], &case, "merged");
    }
}
