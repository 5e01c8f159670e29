//! The three files of an encoder, broken in many ways: read or refused with the name of the file, and nothing else.

use std::cell::Cell;
use std::path::Path;

use bytes::Bytes;
use evenkeel_common::seed::Key;
use evenkeel_common::spec::Pooling;
use evenkeel_common::text::{Example, Examples, Metric, Segment, TextData};
use evenkeel_common::trial::{PretrainedConfig, TextConfig};
use evenkeel_tests::harm::broken;
use evenkeel_tests::toy;
use evenkeel_worker::data::ModelFiles;
use evenkeel_worker::finetune::prepared::Encoder;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Broken inputs of each file.
const CASES: u32 = 2_000;

fn files() -> ModelFiles {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    let read = |name: &str| Bytes::from(std::fs::read(golden.join(name)).unwrap());
    ModelFiles {
        config: read("bert.json"),
        weights: read("bert.safetensors"),
        tokenizer: Bytes::from(toy::tokenizer()),
    }
}

fn texts() -> (TextData, TextConfig) {
    let words =
        ["w5 w7 w30", "w15 w31 w46 w47", "w6 [MASK] w5", "unheard of", "w12", "w5 w5", "w33 w34", "w8, w9"];
    let example = |(label, text): (u32, &&str)| Example {
        segments: vec![Segment { first: (*text).to_owned(), second: None }],
        label: label % 2,
        group: None,
    };
    let rows = (0..).zip(&words).map(example).collect();
    let data = TextData {
        labels: vec!["no".to_owned(), "yes".to_owned()],
        train: Examples { rows, skipped: 0 },
        test: None,
    };
    let config = TextConfig {
        path: "texts.csv".to_owned(),
        content: "texts".to_owned(),
        task: None,
        columns: None,
        test_fraction: Some(0.25),
        validation_fraction: 0.0,
        samples: None,
        test_samples: None,
        instance: 0,
        max_length: 16,
        metric: Metric::Accuracy,
        skip_malformed: false,
        train_rows: 6,
        test_rows: 2,
        classes: 2,
        mean_tokens: 4,
        skipped: 0,
    };
    (data, config)
}

/// Whether the files are read; what is said of them when they are not.
fn read(files: &ModelFiles, (data, config): &(TextData, TextConfig)) -> Result<(), String> {
    let model = PretrainedConfig {
        path: "model".to_owned(),
        content: "model".to_owned(),
        pooling: Pooling::Mean,
        hidden: 32,
        layers: 2,
        layer_weights: 1,
    };
    let encoder = Encoder::new(&model, files, tch::Device::Cpu).map_err(|error| error.to_string())?;
    let prepared = encoder.prepare(data, config, &Key::of_dataset(1, "texts"));
    prepared.map(drop).map_err(|error| error.to_string())
}

/// Breaks what `part` takes out of the files and `put` puts back.
fn try_broken(name: &str, part: &[u8], put: impl Fn(&mut ModelFiles, Vec<u8>)) {
    let (valid, texts) = (files(), texts());
    let accepted = Cell::new(0);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&broken(part.to_vec()), |bytes| {
        let mut files = valid.clone();
        put(&mut files, bytes);
        match read(&files, &texts) {
            Ok(()) => accepted.set(accepted.get() + 1),
            Err(reason) if reason.contains("model/") || reason.contains("model:") => {}
            Err(reason) => return Err(TestCaseError::fail(format!("no file is named in: {reason}"))),
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
    println!("{name}: {CASES} broken inputs, {} refused", CASES - accepted.get());
    assert!(accepted.get() < CASES, "no {name} is ever refused");
}

#[test]
fn the_files_as_they_should_be_are_read() {
    assert_eq!(read(&files(), &texts()), Ok(()));
}

#[test]
fn a_broken_configuration_is_read_or_refused() {
    try_broken("config.json", &files().config, |files, bytes| files.config = bytes.into());
}

#[test]
fn a_broken_tokenizer_is_read_or_refused() {
    try_broken("tokenizer.json", &files().tokenizer, |files, bytes| files.tokenizer = bytes.into());
}

#[test]
fn broken_weights_are_read_or_refused() {
    // The header, which says where in the rest each tensor is: eight bytes with its length, then JSON.
    let weights = files().weights;
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let (header, tensors) = weights.split_at(8 + length);
    try_broken("model.safetensors", header, |files, mut bytes| {
        bytes.extend_from_slice(tensors);
        files.weights = bytes.into();
    });
}
