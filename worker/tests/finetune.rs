//! Full fine-tuning of a small random BERT: what each strategy changes, and that a trial is a function of the trial alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_common::encoder::EncoderConfig;
use evenkeel_common::results::{Status, TrialOutcome};
use evenkeel_common::spec::{
    ChildMode, LeaveOneOut, Optimizer, Pooling, Precision, Predictions, Reduction, SeedControls, Select,
};
use evenkeel_common::table::FeatureTable;
use evenkeel_common::text::{Example, Examples, Metric, Segment, TextData};
use evenkeel_common::trial::{
    DatasetConfig, FeaturesConfig, FullConfig, LnsrConfig, ModelConfig, PretrainedConfig, StrategyConfig,
    SurtConfig, SweepSettings, TextConfig, Trial,
};
use evenkeel_worker::data::{DataError, Inputs, ModelFiles};
use evenkeel_worker::device::Device;
use evenkeel_worker::engine::{EngineError, PackWatch, Sample};
use evenkeel_worker::finetune::FinetuneEngine;
use evenkeel_worker::finetune::checkpoint::{Checkpoints, NoCheckpoints};
use safetensors::tensor::{Dtype, TensorView};

/// Words of the toy language; the first five are special.
const WORDS: [&str; 24] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "fine", "great", "nice", "bad", "poor", "awful",
    "sad", "a", "film", "book", "play", "song", "the", "was", "is", "very", "quite", "today",
];

const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16, "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}"#;

/// A random BERT of two layers and texts that a linear rule tells apart.
struct Toy {
    texts: Arc<TextData>,
    model: ModelFiles,
}

impl Toy {
    fn new() -> Self {
        let vocabulary: Vec<String> =
            WORDS.iter().zip(0..).map(|(word, id)| format!("{word:?}: {id}")).collect();
        let special: Vec<String> = WORDS[..5]
            .iter()
            .zip(0..)
            .map(|(word, id)| {
                format!(
                    r#"{{"id": {id}, "content": {word:?}, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}"#
                )
            })
            .collect();
        let tokenizer = format!(
            r#"{{"version": "1.0", "truncation": {{"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
                "padding": {{"strategy": {{"Fixed": 12}}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}},
                "added_tokens": [{}], "normalizer": null, "pre_tokenizer": {{"type": "Whitespace"}},
                "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}}, "decoder": null,
                "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "[UNK]"}}}}"#,
            special.join(", "),
            vocabulary.join(", ")
        );
        let config = EncoderConfig::parse("config.json", CONFIG.as_bytes()).unwrap();
        let mut stream = evenkeel_common::seed::Key::of_dataset(1, "toy").stream(
            evenkeel_common::seed::Purpose::Structure,
            0,
            0,
        );
        let mut stored = Vec::new();
        for parameter in config.parameters(true) {
            let count: i64 = parameter.shape.iter().product();
            let norm = parameter.name.contains("LayerNorm.weight");
            let values = (0..count).map(|_| if norm { 1.0 } else { (0.3 * stream.normal()) as f32 });
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            let shape: Vec<usize> = parameter.shape.iter().map(|length| *length as usize).collect();
            stored.push((parameter.name, shape, bytes));
        }
        let views = stored
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        let weights = safetensors::serialize(views, &None).unwrap();
        let rows = (0..120).map(|i| {
            let label = i % 2;
            let words =
                [WORDS[13 + i % 5], WORDS[18 + i % 4], WORDS[5 + 4 * label + i % 4], WORDS[21 + i % 3]];
            let length = 3 + i % 2;
            let text = words[..length].join(" ");
            Example {
                segments: vec![Segment { first: text, second: None }],
                label: label as u32,
                group: None,
            }
        });
        let train = Examples { rows: rows.collect(), skipped: 0 };
        let labels = vec!["bad".to_owned(), "good".to_owned()];
        Self {
            texts: Arc::new(TextData { labels, train, test: None }),
            model: ModelFiles {
                config: CONFIG.as_bytes().into(),
                weights: weights.into(),
                tokenizer: tokenizer.into_bytes().into(),
            },
        }
    }
}

impl Inputs for Toy {
    fn table(&self, config: &FeaturesConfig) -> Result<Arc<FeatureTable>, DataError> {
        Err(DataError::Unavailable(config.path.clone()))
    }
    fn text(&self, _: &TextConfig) -> Result<Arc<TextData>, DataError> {
        Ok(self.texts.clone())
    }
    fn model(&self, _: &PretrainedConfig) -> Result<ModelFiles, DataError> {
        Ok(self.model.clone())
    }
}

#[derive(Default)]
struct Watch {
    outcomes: Vec<TrialOutcome>,
    samples: Vec<Sample>,
    /// Cancels after so many looks.
    looks: Option<RefCell<u32>>,
}

impl PackWatch for Watch {
    fn is_cancelled(&self) -> bool {
        let Some(left) = &self.looks else { return false };
        let now = *left.borrow();
        *left.borrow_mut() = now.saturating_sub(1);
        now == 0
    }
    fn progress(&mut self, fraction: f64) {
        assert!((0.0..=1.0).contains(&fraction));
    }
    fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }
    fn deliver(&mut self, outcomes: Vec<TrialOutcome>) {
        self.outcomes.extend(outcomes);
    }
}

fn full() -> FullConfig {
    FullConfig { epochs: Some(2), batch_size: 8, evaluate_every: Some(4), ..FullConfig::default() }
}

fn trial(full: FullConfig) -> Trial {
    let text = TextConfig {
        path: "toy.csv".to_owned(),
        content: "toy".to_owned(),
        task: None,
        columns: None,
        test_fraction: Some(0.25),
        validation_fraction: 0.2,
        samples: None,
        test_samples: None,
        instance: 0,
        max_length: 16,
        metric: Metric::Accuracy,
        skip_malformed: false,
        train_rows: 72,
        test_rows: 30,
        classes: 2,
        mean_tokens: 6,
        skipped: 0,
    };
    let model = PretrainedConfig {
        path: "toy".to_owned(),
        content: "toy".to_owned(),
        pooling: Pooling::Mean,
        hidden: 16,
        layers: 2,
        layer_weights: 4_000,
    };
    Trial {
        index: 3,
        dataset: DatasetConfig::Text(text),
        dataset_name: "toy".to_owned(),
        model: ModelConfig::Huggingface(model),
        model_name: "toy".to_owned(),
        strategy: StrategyConfig { name: "s".to_owned(), ..StrategyConfig::full(0, 3e-3, full) },
        seed: 5,
        settings: SweepSettings {
            sweep_seed: 9,
            leave_one_out: None,
            exact_margin: false,
            curvature: false,
            predictions: Predictions::Probabilities,
            representations: 8,
        },
    }
}

fn run_with(trial: &Trial, checkpoints: &dyn Checkpoints, watch: &mut Watch) -> Result<(), EngineError> {
    let mut engine = FinetuneEngine::new(Device::parse("cpu").unwrap());
    engine.run(std::slice::from_ref(trial), &Toy::new(), checkpoints, watch)
}

fn run(trial: &Trial) -> TrialOutcome {
    let mut watch = Watch::default();
    run_with(trial, &NoCheckpoints, &mut watch).unwrap();
    watch.outcomes.remove(0)
}

fn outcome(full: FullConfig) -> TrialOutcome {
    run(&trial(full))
}

/// Everything that is reported, to the bit.
fn bits(outcome: &TrialOutcome) -> String {
    format!("{:?} {:?} {:?} {:?}", outcome.measures, outcome.distances, outcome.curve, outcome.outputs)
}

#[test]
fn a_trial_learns_and_gives_the_same_bits_again() {
    let first = outcome(FullConfig { epochs: Some(10), ..full() });
    assert_eq!(first.status, Status::Completed);
    assert!(first.measures.accuracy.unwrap() > 0.9, "{:?}", first.measures);
    assert!(first.measures.train_loss.unwrap() < 0.3 && first.curve.len() == 23, "{:?}", first.measures);
    assert_eq!(bits(&first), bits(&outcome(FullConfig { epochs: Some(10), ..full() })));
    assert_eq!((first.measures.truncated, first.measures.trained_steps), (Some(0), Some(90)));
}

#[test]
fn a_trial_does_not_depend_on_its_neighbours() {
    let trials = [trial(full()), trial(FullConfig { mixout: Some(0.5), ..full() }), trial(full())];
    let mut watch = Watch::default();
    let mut engine = FinetuneEngine::new(Device::parse("cpu").unwrap());
    engine.run(&trials, &Toy::new(), &NoCheckpoints, &mut watch).unwrap();
    assert_eq!(bits(&watch.outcomes[0]), bits(&watch.outcomes[2]));
    assert_ne!(bits(&watch.outcomes[0]), bits(&watch.outcomes[1]));
}

#[test]
fn a_strategy_at_its_neutral_value_is_plain_fine_tuning() {
    let plain = bits(&outcome(full()));
    let lnsr = LnsrConfig { lambda: 0.0, layer: 1, sigma: 0.1 };
    for (name, config) in [
        ("mixout", FullConfig { mixout: Some(0.0), ..full() }),
        ("mmr", FullConfig { mmr: Some(0.0), ..full() }),
        ("lnsr", FullConfig { lnsr: Some(lnsr), ..full() }),
        ("l2_sp", FullConfig { l2_sp: Some((0.0, 0.0)), ..full() }),
        ("llrd", FullConfig { llrd: Some(1.0), ..full() }),
        ("reinit", FullConfig { reinit: Some(0), ..full() }),
        ("child free", FullConfig { child_tuning: Some((ChildMode::Free, 1.0)), ..full() }),
        ("child fisher", FullConfig { child_tuning: Some((ChildMode::Fisher, 1.0)), ..full() }),
    ] {
        assert_eq!(bits(&outcome(config)), plain, "{name}");
    }
    let mut one_head = trial(full());
    one_head.strategy.reduction = Reduction::Sum;
    assert_eq!(bits(&run(&one_head)), plain, "mhloss with one head");
}

fn moved(outcome: &TrialOutcome, place: &str) -> f64 {
    let distances: serde_json::Value = serde_json::from_str(outcome.distances.as_deref().unwrap()).unwrap();
    distances[place]["moved"].as_f64().unwrap()
}

#[test]
fn each_strategy_moves_what_it_is_meant_to() {
    let plain = outcome(full());
    let distance = |outcome: &TrialOutcome| outcome.measures.weight_distance.unwrap();

    let mmr = outcome(FullConfig { mmr: Some(20.0), ..full() });
    assert!(mmr.measures.class_distance > plain.measures.class_distance, "MMR parts the classes");

    let pulled = outcome(FullConfig { l2_sp: Some((50.0, 0.0)), ..full() });
    assert!(distance(&pulled) < 0.8 * distance(&plain), "L2-SP holds the weights: {}", distance(&pulled));

    let mixed = outcome(FullConfig { mixout: Some(0.9), ..full() });
    assert!(moved(&mixed, "layer.0") < moved(&plain, "layer.0"), "mixout holds the layers");

    let lnsr = |lambda| {
        let lnsr = LnsrConfig { lambda, layer: 0, sigma: 0.3 };
        outcome(FullConfig { lnsr: Some(lnsr), epochs: Some(4), ..full() })
    };
    // A flat map: the features of the classes come together as the penalty grows.
    assert!(lnsr(100.0).measures.class_distance < lnsr(0.0).measures.class_distance, "LNSR flattens");

    let decayed = outcome(FullConfig { llrd: Some(0.2), ..full() });
    let share = |o: &TrialOutcome| moved(o, "layer.0") / moved(o, "layer.1");
    assert!(share(&decayed) < 0.4 * share(&plain), "LLRD moves lower layers less");

    let child = outcome(FullConfig { child_tuning: Some((ChildMode::Fisher, 0.05)), ..full() });
    assert!(moved(&child, "layer.1") < 0.5 * moved(&plain, "layer.1"), "Child-Tuning_D moves few weights");
    assert!(moved(&child, "head") > 0.0);
    let free = outcome(FullConfig { child_tuning: Some((ChildMode::Free, 0.5)), ..full() });
    assert_ne!(bits(&free), bits(&plain));

    let adapted = outcome(FullConfig { lora: Some((2, 4.0)), ..full() });
    assert!(
        moved(&adapted, "embeddings") == 0.0 && moved(&adapted, "layer.0") > 0.0,
        "LoRA moves layers alone"
    );

    let anew = outcome(FullConfig { reinit: Some(1), ..full() });
    assert!(moved(&anew, "layer.0") > 0.0 && anew.measures.weight_norm < plain.measures.weight_norm);

    let surt = SurtConfig { epochs: 3, learning_rate: 1e-3, mask: 0.15 };
    let relearned = outcome(FullConfig { surt: Some(surt), ..full() });
    assert!(relearned.measures.surt_distance.unwrap() > 0.0 && plain.measures.surt_distance.is_none());
    assert_eq!(relearned.measures.trained_steps, Some(27 + 18));
}

#[test]
fn several_heads_start_apart_and_predict_by_their_mean() {
    let mut many = trial(full());
    many.strategy.heads = 12;
    let (many, one) = (run(&many), outcome(full()));
    assert_eq!(many.status, Status::Completed);
    // The mean of twelve small random heads is smaller than one of them, and each head's step is a twelfth.
    assert_ne!(bits(&many), bits(&one));
    assert!(moved(&many, "head") > 0.0);
}

#[test]
fn memory_savers_change_nothing_but_rounding() {
    let plain = outcome(full());
    let close = |other: &TrialOutcome, name: &str, most: f64| {
        let (a, b) = (plain.measures.weight_distance.unwrap(), other.measures.weight_distance.unwrap());
        assert!((a - b).abs() < most * a, "{name}: {a} and {b}");
    };
    close(&outcome(FullConfig { gradient_checkpointing: true, ..full() }), "gradient checkpointing", 1e-4);
    // Where only first tokens are read, the last layer computes and drops no others, on either way.
    let first_tokens = |full: FullConfig| {
        let mut trial = trial(full);
        if let ModelConfig::Huggingface(model) = &mut trial.model {
            model.pooling = Pooling::Pooler;
        }
        run(&trial).measures.weight_distance.unwrap()
    };
    for lora in [None, Some((2, 4.0))] {
        let a = first_tokens(FullConfig { lora, ..full() });
        let b = first_tokens(FullConfig { lora, gradient_checkpointing: true, ..full() });
        assert!((a - b).abs() < 1e-4 * a, "first tokens, {lora:?}: {a} and {b}");
    }
    let undropped = outcome(FullConfig { dropout: Some(0.0), ..full() });
    let parts = outcome(FullConfig { dropout: Some(0.0), accumulation: 4, ..full() });
    let (a, b) = (undropped.measures.weight_distance.unwrap(), parts.measures.weight_distance.unwrap());
    assert!((a - b).abs() < 1e-3 * a, "accumulation: {a} and {b}");
    close(&outcome(FullConfig { precision: Precision::Bf16, ..full() }), "bf16", 0.05);
}

#[test]
fn refits_share_every_draw_with_the_model_they_are_compared_with() {
    let mut base = trial(full());
    base.settings.leave_one_out = Some(LeaveOneOut::Count(3));
    let with = run(&base);
    let m = &with.measures;
    assert_eq!(m.loo_count, Some(3));
    // One example of 72 less moves the weights far less than another seed does.
    let mut other = trial(full());
    other.seed = 6;
    assert!(m.loo_mean.unwrap() > 0.0 && m.loo_mean.unwrap() < 0.5 * m.weight_distance.unwrap(), "{m:?}");
    let without = outcome(full());
    assert_eq!(with.measures.score, without.measures.score);
    assert_eq!(with.outputs, without.outputs);
    let distances: serde_json::Value = serde_json::from_str(with.distances.as_deref().unwrap()).unwrap();
    let squares: f64 = ["embeddings", "layer.0", "layer.1", "head"]
        .iter()
        .map(|place| distances[place]["moved"].as_f64().unwrap().powi(2))
        .sum();
    assert!((squares.sqrt() - m.weight_distance.unwrap()).abs() < 1e-9, "groups add up to the whole");
    assert!(distances["layer.1"]["loo"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_seed_controls_what_it_is_said_to() {
    let with = |controls, seed| {
        let mut trial = trial(full());
        trial.strategy.seed_controls = controls;
        trial.seed = seed;
        bits(&run(&trial))
    };
    let none =
        SeedControls { initialization: false, data_perturbation: false, data_order: false, dropout: false };
    assert_eq!(with(none, 1), with(none, 2));
    for one in [
        SeedControls { initialization: true, ..none },
        SeedControls { data_order: true, ..none },
        SeedControls { dropout: true, ..none },
    ] {
        assert_ne!(with(one, 1), with(one, 2), "{one:?}");
    }
}

/// Keeps checkpoints in memory; one is due at each look.
#[derive(Default)]
struct Memory {
    kept: RefCell<HashMap<String, Vec<u8>>>,
    saved: RefCell<u32>,
    damaged: bool,
}

impl Checkpoints for Memory {
    fn load(&self, trial: &str) -> Option<Vec<u8>> {
        let mut bytes = self.kept.borrow().get(trial).cloned()?;
        if self.damaged {
            bytes.truncate(bytes.len() / 2);
        }
        Some(bytes)
    }
    fn save(&self, trial: &str, bytes: Vec<u8>) {
        *self.saved.borrow_mut() += 1;
        self.kept.borrow_mut().insert(trial.to_owned(), bytes);
    }
    fn forget(&self, trial: &str) {
        self.kept.borrow_mut().remove(trial);
    }
    fn due(&self, _: Instant) -> bool {
        true
    }
}

#[test]
fn a_trial_that_goes_on_from_a_checkpoint_gives_the_bits_of_one_that_was_never_stopped() {
    let surt = SurtConfig { epochs: 1, learning_rate: 1e-3, mask: 0.15 };
    let mut heavy = trial(FullConfig {
        surt: Some(surt),
        mixout: Some(0.5),
        mmr: Some(0.5),
        child_tuning: Some((ChildMode::Fisher, 0.3)),
        select: Select::Best,
        ..full()
    });
    heavy.strategy.heads = 3;
    heavy.settings.leave_one_out = Some(LeaveOneOut::Count(2));
    let mut sgd = trial(full());
    (sgd.strategy.optimizer, sgd.strategy.momentum, sgd.strategy.learning_rate) = (Optimizer::Sgd, 0.9, 0.05);
    let lora = trial(FullConfig { lora: Some((2, 4.0)), ..full() });
    for (name, trial) in [("heavy", heavy), ("sgd", sgd), ("lora", lora)] {
        let whole = bits(&run(&trial));
        // In the phase without labels, at its end, in tuning, in refits; each time the next run goes on.
        for stops in [vec![4], vec![9, 1, 1], vec![15], vec![30, 5], vec![70]] {
            let memory = Memory::default();
            let mut stopped = 0;
            for looks in stops {
                let mut watch = Watch { looks: Some(RefCell::new(looks)), ..Watch::default() };
                stopped += u32::from(run_with(&trial, &memory, &mut watch) == Err(EngineError::Cancelled));
            }
            let mut watch = Watch::default();
            run_with(&trial, &memory, &mut watch).unwrap();
            if stopped > 0 {
                assert!(*memory.saved.borrow() > 0);
                assert_eq!(bits(&watch.outcomes[0]), whole, "{name}");
            }
            assert!(memory.kept.borrow().is_empty(), "a checkpoint outlived its trial");
        }
    }
}

#[test]
fn a_damaged_checkpoint_costs_time_and_nothing_else() {
    let trial = trial(full());
    let memory = Memory::default();
    let mut watch = Watch { looks: Some(RefCell::new(10)), ..Watch::default() };
    assert_eq!(run_with(&trial, &memory, &mut watch), Err(EngineError::Cancelled));
    let damaged = Memory { damaged: true, ..memory };
    let mut watch = Watch::default();
    run_with(&trial, &damaged, &mut watch).unwrap();
    assert_eq!(bits(&watch.outcomes[0]), bits(&run(&trial)));
}

#[test]
fn a_step_size_that_is_far_too_large_diverges_and_that_is_a_result() {
    let mut wild = trial(FullConfig { clip: 0.0, ..full() });
    (wild.strategy.optimizer, wild.strategy.learning_rate) = (Optimizer::Sgd, 1e30);
    let outcome = run(&wild);
    assert_eq!(outcome.status, Status::Diverged);
    assert!(outcome.measures.majority.is_some() && outcome.measures.score.is_none());
}

#[test]
fn early_stopping_stops_and_the_curve_is_told_while_it_grows() {
    let stopping = FullConfig { epochs: Some(40), patience: Some(8), select: Select::Best, ..full() };
    let mut watch = Watch::default();
    run_with(&trial(stopping), &NoCheckpoints, &mut watch).unwrap();
    let outcome = &watch.outcomes[0];
    assert!(outcome.measures.trained_steps.unwrap() < 360, "{:?}", outcome.measures.trained_steps);
    assert_eq!(watch.samples.len(), outcome.curve.len());
    assert!(watch.samples.iter().all(|sample| sample.trial == 3 && sample.steps == 360));
    assert!(outcome.measures.validation_score.unwrap() > 0.5);
}

#[test]
fn what_a_strategy_asks_of_layers_has_to_fit_the_encoder() {
    let error = |full: FullConfig| match run_with(&trial(full), &NoCheckpoints, &mut Watch::default()) {
        Err(EngineError::Data(message)) => message,
        other => panic!("{other:?}"),
    };
    let asked = error(FullConfig { reinit: Some(3), ..full() });
    assert_eq!(asked, "strategy s: reinit.layers is 3, but the encoder has 2 layers");
}

#[test]
fn features_for_head_tuning_are_those_of_the_encoder_at_rest() {
    let trial = trial(full());
    let (text, model) = (&trial.dataset, &trial.model);
    let mut engine = FinetuneEngine::new(Device::parse("cpu").unwrap());
    let data = engine.features(text, model, 9, &Toy::new()).unwrap();
    assert_eq!((data.features, data.train_rows(), data.test_rows()), (16, 72, 30));
    assert!(data.x_train.iter().all(|value| value.is_finite()));
    assert_eq!(data, engine.features(text, model, 9, &Toy::new()).unwrap());
    assert_ne!(data.y_train, engine.features(text, model, 10, &Toy::new()).unwrap().y_train);
}
