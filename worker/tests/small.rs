//! Small encoders that are pre-trained here: what they learn, and that it depends on nothing but the trial.

mod common;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

use common::{NoTables, separable};
use evenkeel_common::results::{Status, TrialOutcome};
use evenkeel_common::spec::{LeaveOneOut, Optimizer, Pooling, Predictions, PretrainSpec, Select};
use evenkeel_common::trial::{
    DatasetConfig, FullConfig, GeneratorConfig, GrammarConfig, ModelConfig, SmallConfig, StrategyConfig,
    SurtConfig, SweepSettings, SyntheticConfig, Trial,
};
use evenkeel_worker::artifacts::Artifacts;
use evenkeel_worker::device::Device;
use evenkeel_worker::engine::{EngineError, PackWatch, Sample};
use evenkeel_worker::finetune::FinetuneEngine;
use evenkeel_worker::finetune::checkpoint::{Checkpoints, NoCheckpoints};
use evenkeel_worker::finetune::pretrain::Encoders;
use evenkeel_worker::models::{Input, Mlp, MlpConfig, Network, Quiet};
use evenkeel_worker::workbench::Workbench;
use tch::Tensor;

fn synthetic(generator: GeneratorConfig, samples: u32, features: u32) -> DatasetConfig {
    DatasetConfig::Synthetic(SyntheticConfig {
        generator,
        samples,
        features,
        classes: 2,
        test_samples: 300,
        instance: 0,
    })
}

fn xor() -> DatasetConfig {
    synthetic(GeneratorConfig::Xor { informative: 2, noise: 0.0 }, 300, 3)
}

fn tokens() -> DatasetConfig {
    let grammar = GrammarConfig { vocabulary: 32, length: 16, topics: 2, topic_strength: 2.0 };
    synthetic(GeneratorConfig::TokenSequences { grammar, flip_y: 0.0 }, 60, 0)
}

fn pretrain(epochs: u32) -> PretrainSpec {
    PretrainSpec { samples: 400, epochs, batch_size: 32, learning_rate: 2e-3, mask: 0.15 }
}

fn mlp(epochs: u32) -> ModelConfig {
    ModelConfig::Mlp(SmallConfig {
        layers: 2,
        hidden: 24,
        attention_heads: None,
        pooling: None,
        dropout: 0.1,
        pretrain: pretrain(epochs),
    })
}

fn transformer(epochs: u32) -> ModelConfig {
    ModelConfig::Transformer(SmallConfig {
        layers: 2,
        hidden: 16,
        attention_heads: Some(2),
        pooling: Some(Pooling::Mean),
        dropout: 0.1,
        pretrain: pretrain(epochs),
    })
}

fn trial(dataset: DatasetConfig, model: ModelConfig, full: FullConfig) -> Trial {
    Trial {
        index: 0,
        dataset,
        dataset_name: "d".to_owned(),
        model,
        model_name: "m".to_owned(),
        strategy: StrategyConfig::full(0, 5e-3, full),
        seed: 1,
        settings: SweepSettings {
            sweep_seed: 3,
            leave_one_out: None,
            exact_margin: false,
            curvature: false,
            predictions: Predictions::Classes,
            representations: 0,
        },
    }
}

fn epochs(epochs: u32) -> FullConfig {
    FullConfig { epochs: Some(epochs), ..FullConfig::default() }
}

#[derive(Default)]
struct Watch {
    outcomes: Vec<TrialOutcome>,
    left: Option<RefCell<u32>>,
}

impl PackWatch for Watch {
    fn is_cancelled(&self) -> bool {
        let Some(left) = &self.left else { return false };
        let now = *left.borrow();
        *left.borrow_mut() = now.saturating_sub(1);
        now == 0
    }
    fn progress(&mut self, _: f64) {}
    fn sample(&mut self, _: Sample) {}
    fn deliver(&mut self, outcomes: Vec<TrialOutcome>) {
        self.outcomes.extend(outcomes);
    }
}

/// Keeps encoders in memory and counts.
#[derive(Default)]
struct Shelf {
    kept: Mutex<HashMap<String, Vec<u8>>>,
    claims: Mutex<u32>,
}

impl Encoders for Shelf {
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.kept.lock().unwrap().get(name).cloned())
    }
    fn keep(&self, name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, EngineError> {
        Ok(self.kept.lock().unwrap().entry(name.to_owned()).or_insert(bytes).clone())
    }
    fn claim(&self, _: &str) -> bool {
        *self.claims.lock().unwrap() += 1;
        true
    }
    fn renew(&self, _: &str) {}
    fn release(&self, _: &str) {}
}

fn cpu() -> Device {
    Device::parse("cpu").unwrap()
}

fn run(trial: &Trial) -> TrialOutcome {
    run_on(&mut FinetuneEngine::new(cpu()), trial)
}

fn run_on(engine: &mut FinetuneEngine, trial: &Trial) -> TrialOutcome {
    let mut watch = Watch::default();
    engine.run(std::slice::from_ref(trial), &NoTables, &NoCheckpoints, &mut watch).unwrap();
    watch.outcomes.pop().unwrap()
}

fn score(outcome: &TrialOutcome) -> f64 {
    assert_eq!(outcome.status, Status::Completed);
    outcome.measures.score.unwrap()
}

#[test]
fn a_perceptron_computes_what_its_formula_says() {
    let config = MlpConfig { inputs: 3, hidden: 2, layers: 1, dropout: 0.5 };
    let names: Vec<String> = config.parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(
        names,
        ["input.dense.weight", "input.dense.bias", "layer.0.dense.weight", "layer.0.dense.bias"]
    );
    let network = Network::Mlp(Mlp { config });
    let numbers = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).view(shape);
    let p = [
        numbers(&[0.5, -1.0, 0.25, 1.0, 0.0, -0.5], &[2, 3]),
        numbers(&[0.1, -0.2], &[2]),
        numbers(&[1.0, -1.0, 0.5, 2.0], &[2, 2]),
        numbers(&[0.0, 0.3], &[2]),
    ];
    let x = [1.0, -0.5, 2.0];
    let input = Input::Vectors(numbers(&[1.0, -0.5, 2.0], &[1, 3]));
    let found = network.features(&p, &input, Pooling::Mean, &mut Quiet).unwrap();
    // x·Φ(x) (Hendrycks & Gimpel 2016), in f64 from the error function.
    let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
    let dot = |w: [f64; 3], b: f64| w.iter().zip(x).map(|(w, x): (&f64, f64)| w * x).sum::<f64>() + b;
    let h = [gelu(dot([0.5, -1.0, 0.25], 0.1)), gelu(dot([1.0, 0.0, -0.5], -0.2))];
    let expected = [gelu(h[0] - h[1]), gelu(0.5 * h[0] + 2.0 * h[1] + 0.3)];
    for (at, expected) in (0..).zip(expected) {
        assert!((found.double_value(&[0, at]) - expected).abs() < 1e-6, "{found} {expected}");
    }
    // A transformer's input is none of its.
    assert!(network.with_dropout(0.0).features(&p[..2], &input, Pooling::Mean, &mut Quiet).is_err());
}

#[test]
fn a_perceptron_learns_a_parity_that_no_line_separates() {
    let outcome = run(&trial(xor(), mlp(2), epochs(40)));
    assert!(score(&outcome) > 0.9, "{}", score(&outcome));
    let distances = outcome.distances.unwrap();
    for part in ["embeddings", "layer.0", "layer.1", "head"] {
        assert!(distances.contains(part), "{distances}");
    }
    let head = common::trial(0, xor(), StrategyConfig::head(500, 0.5), 0);
    let line = common::run(&[head]).pop().unwrap();
    assert!((0.35..0.65).contains(&score(&line)), "{}", score(&line));
}

#[test]
fn pre_training_makes_the_features_of_sequences_better() {
    let grammar = GrammarConfig { vocabulary: 64, length: 16, topics: 8, topic_strength: 2.0 };
    let dataset = synthetic(GeneratorConfig::TokenSequences { grammar, flip_y: 0.0 }, 1000, 0);
    let accuracy = |epochs| {
        let mut model = transformer(epochs);
        if let ModelConfig::Transformer(small) = &mut model {
            small.hidden = 32;
            small.pretrain.samples = 3000;
        }
        let head = StrategyConfig { optimizer: Optimizer::Adam, ..StrategyConfig::head(1000, 0.5) };
        let mut trial = trial(dataset.clone(), model, FullConfig::default());
        trial.strategy = head;
        let mut bench = Workbench::new(cpu(), Arc::new(Artifacts::none())).unwrap();
        let mut watch = Watch::default();
        bench.run(&[trial], &NoTables, &mut watch).unwrap();
        score(&watch.outcomes.pop().unwrap())
    };
    let (random, trained) = (accuracy(0), accuracy(6));
    assert!(trained > random + 0.03, "{trained} after pre-training, {random} before");
}

#[test]
fn an_encoder_is_made_once_for_all_trials_of_a_corpus_and_gives_the_same_bits_from_the_shelf() {
    let shelf = Arc::new(Shelf::default());
    let mut engine = FinetuneEngine::with_encoders(cpu(), shelf.clone());
    let one = trial(tokens(), transformer(2), epochs(2));
    let first = run_on(&mut engine, &one);
    let DatasetConfig::Synthetic(config) = tokens() else { unreachable!() };
    let other_task = DatasetConfig::Synthetic(SyntheticConfig { samples: 40, instance: 4, ..config });
    run_on(&mut engine, &trial(other_task, transformer(2), epochs(1)));
    let mut pooled = transformer(2);
    if let ModelConfig::Transformer(small) = &mut pooled {
        small.pooling = Some(Pooling::Cls);
    }
    run_on(&mut engine, &trial(tokens(), pooled, epochs(1)));
    assert_eq!(*shelf.claims.lock().unwrap(), 1, "task, size and pooling are no matter of pre-training");

    let again = run_on(&mut FinetuneEngine::with_encoders(cpu(), shelf.clone()), &one);
    assert_eq!(*shelf.claims.lock().unwrap(), 1);
    let without = run(&one);
    for other in [again, without] {
        assert_eq!(first.measures, other.measures);
        assert_eq!(first.outputs, other.outputs);
    }
    run_on(&mut engine, &trial(tokens(), transformer(3), epochs(1)));
    run_on(&mut engine, &trial(xor(), mlp(1), epochs(1)));
    run_on(&mut engine, &trial(separable(40, 5, 2), mlp(1), epochs(1)));
    assert_eq!(
        *shelf.claims.lock().unwrap(),
        4,
        "another training or another distribution is another encoder"
    );

    for bytes in shelf.kept.lock().unwrap().values_mut() {
        bytes.truncate(bytes.len() - 7);
    }
    let mut watch = Watch::default();
    let mut fresh = FinetuneEngine::with_encoders(cpu(), shelf.clone());
    match fresh.run(&[one], &NoTables, &NoCheckpoints, &mut watch) {
        Err(EngineError::Data(message)) => assert!(message.contains("is damaged; delete it"), "{message}"),
        other => panic!("{other:?}"),
    }
}

/// Checkpoints after every step, in memory.
#[derive(Default)]
struct Memory(RefCell<HashMap<String, Vec<u8>>>);

impl Checkpoints for Memory {
    fn load(&self, trial: &str) -> Option<Vec<u8>> {
        self.0.borrow().get(trial).cloned()
    }
    fn save(&self, trial: &str, bytes: Vec<u8>) {
        self.0.borrow_mut().insert(trial.to_owned(), bytes);
    }
    fn forget(&self, trial: &str) {
        self.0.borrow_mut().remove(trial);
    }
    fn due(&self, _: std::time::Instant) -> bool {
        true
    }
}

#[test]
fn phases_refits_and_the_best_weights_survive_an_interruption_to_the_bit() {
    let surt = SurtConfig { epochs: 2, learning_rate: 1e-3, mask: 0.3 };
    let full = FullConfig { surt: Some(surt), select: Select::Best, lora: None, ..epochs(3) };
    for (dataset, model) in [(xor(), mlp(1)), (tokens(), transformer(1))] {
        let mut whole = trial(dataset, model, full.clone());
        whole.settings.leave_one_out = Some(LeaveOneOut::Count(2));
        let undisturbed = run(&whole);
        assert!(undisturbed.measures.surt_distance.unwrap() > 0.0);
        assert!(undisturbed.measures.loo_mean.unwrap() > 0.0);
        assert!(undisturbed.measures.validation_score.unwrap() > 0.0);
        let memory = Memory::default();
        let mut interrupted = 0;
        let outcome = loop {
            let mut watch = Watch { left: Some(RefCell::new(29)), ..Watch::default() };
            let mut engine = FinetuneEngine::new(cpu());
            // The looks of pre-training count, too: it has 13 steps here.
            match engine.run(std::slice::from_ref(&whole), &NoTables, &memory, &mut watch) {
                Ok(()) => break watch.outcomes.pop().unwrap(),
                Err(EngineError::Cancelled) => interrupted += 1,
                other => panic!("{other:?}"),
            }
            assert!(interrupted < 100);
        };
        assert!(interrupted >= 2, "{interrupted}");
        assert_eq!(undisturbed.measures, outcome.measures);
        // As text: points have numbers that are not there, and those are unlike themselves.
        assert_eq!(format!("{:?}", undisturbed.curve), format!("{:?}", outcome.curve));
        assert_eq!(undisturbed.distances, outcome.distances);
    }
}

#[test]
fn a_refit_differs_by_its_example_alone_and_masked_features_leave_it_out() {
    // With a step size of zero in SURT nothing moves; with one above, refits come apart there already.
    let outcome = |learning_rate| {
        let surt = SurtConfig { epochs: 2, learning_rate, mask: 0.5 };
        let mut trial =
            trial(xor(), mlp(1), FullConfig { surt: Some(surt), dropout: Some(0.0), ..epochs(1) });
        trial.settings.leave_one_out = Some(LeaveOneOut::Count(1));
        trial.strategy.learning_rate = 1e-12;
        run(&trial).measures.loo_mean.unwrap()
    };
    assert!(outcome(1e-12) < 1e-6, "{}", outcome(1e-12));
    assert!(outcome(1e-2) > 1e-3, "{}", outcome(1e-2));
}

#[test]
fn adapters_move_a_perceptrons_layers_and_leave_its_input_layer() {
    let outcome = run(&trial(xor(), mlp(1), FullConfig { lora: Some((2, 4.0)), ..epochs(2) }));
    let distances: serde_json::Value = serde_json::from_str(&outcome.distances.unwrap()).unwrap();
    assert_eq!(distances["embeddings"]["moved"], 0.0);
    assert!(distances["layer.0"]["moved"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let error = |dataset, model| {
        let mut watch = Watch::default();
        let trial = trial(dataset, model, epochs(1));
        FinetuneEngine::new(cpu()).run(&[trial], &NoTables, &NoCheckpoints, &mut watch).unwrap_err()
    };
    for (dataset, model) in [(tokens(), mlp(1)), (xor(), transformer(1)), (xor(), ModelConfig::Identity)] {
        assert!(matches!(error(dataset, model), EngineError::Data(_)));
    }
    let mut wild = mlp(3);
    if let ModelConfig::Mlp(small) = &mut wild {
        small.pretrain.learning_rate = 1e30;
    }
    let EngineError::Data(message) = error(xor(), wild) else { panic!("another kind") };
    assert!(message.contains("pre-training diverged at step") && message.contains("lower"), "{message}");
}

#[test]
fn constants_of_the_bound_are_estimated_and_change_nothing_else() {
    for (dataset, model) in [(xor(), mlp(1)), (tokens(), transformer(1))] {
        let plain = trial(dataset, model, epochs(5));
        let mut curved = plain.clone();
        curved.settings.curvature = true;
        assert!(curved.flops() > plain.flops());
        let (without, mut with) = (run(&plain), run(&curved));
        let m = with.measures;
        let (Some(l), Some(beta), Some(mu), Some(least)) =
            (m.lipschitz, m.smoothness, m.curvature, m.least_curvature)
        else {
            panic!("{m:?}")
        };
        assert!(l > 0.0 && beta > mu && mu > 0.0 && least <= mu, "{m:?}");
        assert_eq!(run(&curved).measures, m, "the same numbers again");
        for slot in [
            &mut with.measures.lipschitz,
            &mut with.measures.smoothness,
            &mut with.measures.curvature,
            &mut with.measures.least_curvature,
        ] {
            *slot = None;
        }
        assert_eq!((with.measures, with.outputs), (without.measures, without.outputs));
        assert_eq!(with.distances, without.distances);
    }
}

#[test]
fn outputs_that_are_kept_fit_each_other_and_change_nothing_else() {
    for (dataset, model, width) in [(xor(), mlp(1), 24), (tokens(), transformer(1), 16)] {
        let plain = trial(dataset, model, epochs(3));
        let mut kept = plain.clone();
        kept.settings.predictions = Predictions::Probabilities;
        kept.settings.representations = 50;
        assert_eq!(kept.id(), plain.id(), "what is kept is no other trial");
        let (without, with) = (run(&plain), run(&kept));
        assert_eq!((with.measures, &with.outputs.classes), (without.measures, &without.outputs.classes));
        assert_eq!((without.outputs.log_probabilities, without.outputs.features), (None, None));

        let (classes, logs) = (with.outputs.classes.unwrap(), with.outputs.log_probabilities.unwrap());
        assert_eq!((classes.len(), logs.len()), (300, 600));
        let probability = |log: f32| f64::from(log).exp();
        for (class, logs) in classes.iter().zip(logs.chunks_exact(2)) {
            assert!((probability(logs[0]) + probability(logs[1]) - 1.0).abs() < 1e-6, "{logs:?}");
            assert!(logs[*class as usize] >= logs[1 - *class as usize]);
        }
        let features = with.outputs.features.unwrap();
        assert_eq!((features.examples, features.values.len()), (50, 50 * width));
        let first = &features.values[..width];
        assert!(features.values.chunks_exact(width).any(|row| row != first), "all examples look alike");
        // Of no more examples than there are.
        kept.settings.representations = 1000;
        let all = run(&kept).outputs.features.unwrap();
        assert_eq!((all.examples, &all.values[..50 * width]), (300, &features.values[..]));
    }
}
