//! Texts and encoders through the real programs: results, curves, checkpoints, and what is refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel_tests::process::{Process, evenkeel, printed, run, until};
use evenkeel_tests::results::{Rows, assert_same_results};
use evenkeel_tests::toy;

const SPEC: &str = "
apiVersion: evenkeel/v1
name: texts
datasets:
  - text: {path: texts.csv, text: text, label: label, test_fraction: 0.25, max_length: 64}
models:
  - {encoder: huggingface, path: model, pooling: mean}
strategies:
  - {name: head, setting: head, steps: 200, learning_rate: 0.5}
  - {name: full, setting: full, epochs: 2, learning_rate: 1.0e-3}
  - {name: mmr, setting: full, epochs: 2, learning_rate: 1.0e-3, mmr: {alpha: 0.5}, mhloss: {heads: 3}, surt: {epochs: 1}}
seeds: 2
stability: {leave_one_out: 2}
predictions: true
";

fn folder(spec: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    toy::write(dir.path()).expect("toy files");
    fs::write(dir.path().join("spec.yaml"), spec).expect("write spec");
    dir
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn head_and_full_tuning_of_one_encoder_run_side_by_side_and_again_to_the_same_bits() {
    let dir = folder(SPEC);
    let spec = text(&dir.path().join("spec.yaml"));
    let outs = ["a", "b"].map(|name| dir.path().join(name));
    for (out, workers) in outs.iter().zip(["1", "2"]) {
        let output = run(["run", &spec, "--out", &text(out), "--workers", workers]).expect("run");
        assert!(output.status.success(), "{}", printed(&output));
    }
    assert_same_results(&outs[0], &outs[1]);

    let results = Rows::read(&outs[0].join("results.parquet")).expect("results");
    assert_eq!(results.rows.len(), 6);
    assert!(results.column("status").iter().all(|status| *status == "completed"));
    assert!(results.column("metric").iter().all(|metric| *metric == "accuracy"));
    assert!(results.column("model").iter().all(|model| *model == "model"));
    assert!(results.column("features").iter().all(|d| *d == "32"));
    for (strategy, row) in results.column("strategy").iter().zip(0..) {
        let at = |column: &str| results.column(column)[row];
        assert_eq!(at("loo_count"), "2");
        // Head tuning has no encoder to move; its texts are cut all the same.
        assert_eq!(at("distances") == "null", *strategy == "head", "{strategy}");
        if *strategy != "head" {
            assert_eq!(at("truncated"), "6");
            assert!(at("distances").contains("layer.1") && at("validation_score") != "null");
        }
        assert_eq!(at("surt_distance") != "null", *strategy == "mmr");
    }
    let dataset = "text: {path: texts.csv, text: text, label: label, test_fraction: 0.25, max_length: 64}";
    let scored = SPEC.replace(dataset, &dataset.replace("max_length: 64", "metric: matthews"));
    fs::write(dir.path().join("scored.yaml"), scored.replace("name: texts", "name: scored")).expect("write");
    let (spec, out) = (text(&dir.path().join("scored.yaml")), dir.path().join("scored"));
    assert!(run(["run", &spec, "--out", &text(&out)]).expect("run").status.success());
    let scored = Rows::read(&out.join("results.parquet")).expect("results");
    assert!(scored.column("metric").iter().all(|metric| *metric == "matthews"));
    assert!(
        scored
            .column("score")
            .iter()
            .zip(scored.column("accuracy"))
            .all(|(score, accuracy)| *score != accuracy)
    );
    let curves = Rows::read(&outs[0].join("curves.parquet")).expect("curves");
    assert!(curves.rows.len() > 20, "{}", curves.rows.len());
    assert_eq!(Rows::read(&outs[0].join("predictions.parquet")).expect("predictions").rows.len(), 6);
    // The features of the texts were kept for the next worker.
    assert_eq!(fs::read_dir(outs[0].join("store/features")).expect("features").count(), 1);
    let left = fs::read_dir(outs[0].join("store/checkpoints")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "checkpoints outlived their trials");
}

/// A trial of some seconds.
const LONG: &str = "
apiVersion: evenkeel/v1
name: long
datasets:
  - text: {path: texts.csv, text: text, label: label, test_fraction: 0.25}
models:
  - {encoder: huggingface, path: model, pooling: mean}
strategies:
  - {name: full, setting: full, steps: 1500, learning_rate: 1.0e-4, evaluate_every: 500, mixout: {p: 0.3}}
seeds: 1
";

/// The pid of a child of a process, whichever of its threads started it.
fn child_of(parent: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    children.filter_map(|pids| pids.split_whitespace().next()?.parse().ok()).next()
}

#[test]
fn a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint_to_the_same_bits() {
    let dir = folder(LONG);
    let spec = text(&dir.path().join("spec.yaml"));
    let (calm, hit) = (dir.path().join("calm"), dir.path().join("hit"));
    let output = run(["run", &spec, "--out", &text(&calm), "--workers", "1"]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));

    let mut command = evenkeel(["run", &spec, "--out", &text(&hit), "--workers", "1"]);
    command.env("EVENKEEL_CHECKPOINT_EVERY", "1");
    let mut process = Process::start(dir.path(), "run", command).expect("start");
    let log = hit.join("logs/worker-1.log");
    let says = |what: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(what)).then_some(());
    until("a checkpoint", Duration::from_secs(120), || says("checkpoint kept")).expect("checkpoint");
    let worker = child_of(process.pid()).expect("the run has a worker");
    let killed = Command::new("kill").args(["-9", &worker.to_string()]).stderr(Stdio::null()).status();
    assert!(killed.is_ok_and(|status| status.success()), "the worker was gone before the fault could fire");
    let status = process.wait(Duration::from_secs(240)).expect("end");
    assert!(status.success(), "{}", process.log());
    says("trial goes on from its checkpoint").expect("the trial began anew");
    assert_same_results(&calm, &hit);
}

/// What `run` says of a spec that it refuses.
fn refused(dir: &Path) -> String {
    let output = run(["run", &text(&dir.join("spec.yaml")), "--out", &text(&dir.join("out"))]).expect("run");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(!dir.join("out").exists(), "something was written although the spec is bad");
    printed(&output)
}

fn assert_parts(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_model_that_cannot_be_used_is_refused_with_the_file_and_the_tensor() {
    let dir = folder(SPEC);
    let config = dir.path().join("model/config.json");
    let good = fs::read_to_string(&config).expect("config");
    fs::write(&config, good.replace("\"hidden_size\": 32", "\"hidden_size\": 64")).expect("write");
    assert_parts(
        &refused(dir.path()),
        &["models[0]", "model/model.safetensors", "word_embeddings", "[60, 32]", "[60, 64]"],
    );
    fs::write(&config, good.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")).expect("write");
    assert_parts(&refused(dir.path()), &["found no tensor `encoder.layer.2.", "of shape [32, 32]"]);
    fs::write(&config, good.replace("\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"")).expect("write");
    assert_parts(&refused(dir.path()), &["gpt2", "allowed: bert, roberta"]);
    fs::write(&config, &good).expect("write");
    fs::write(dir.path().join("model/model.safetensors"), b"short").expect("write");
    assert_parts(&refused(dir.path()), &["no safetensors file", "cut short"]);
    fs::remove_file(dir.path().join("model/tokenizer.json")).expect("remove");
    assert_parts(&refused(dir.path()), &["tokenizer.json", "No such file"]);
}

#[test]
fn a_name_that_is_no_folder_is_looked_for_on_the_hub_and_the_remedy_is_said() {
    let dir = folder(&SPEC.replace("path: model,", "path: no-one/nothing,"));
    let spec = text(&dir.path().join("spec.yaml"));
    let mut command = evenkeel(["run", &spec, "--out", &text(&dir.path().join("out"))]);
    // An address where nothing answers: no test reaches the real hub.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", dir.path());
    let output = command.output().expect("run");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert_parts(
        &printed(&output),
        &[
            "there is no folder no-one/nothing",
            "config.json",
            "copy config.json, model.safetensors and tokenizer.json",
            "HF_ENDPOINT",
        ],
    );
}

#[test]
fn a_malformed_row_names_file_and_line_and_may_be_passed_over() {
    let dir = folder(SPEC);
    let csv = dir.path().join("texts.csv");
    let good = fs::read_to_string(&csv).expect("csv");
    fs::write(&csv, good.replacen("w31 ", "\"\",good\nw31 ", 1)).expect("write");
    assert_parts(&refused(dir.path()), &["datasets[0].text", "texts.csv", "line 3", "skip_malformed: true"]);
    let spec = fs::read_to_string(dir.path().join("spec.yaml")).expect("spec");
    fs::write(
        dir.path().join("spec.yaml"),
        spec.replace("label: label,", "label: label, skip_malformed: true,"),
    )
    .expect("write");
    let plan = run(["plan", &text(&dir.path().join("spec.yaml"))]).expect("plan");
    assert!(plan.status.success(), "{}", printed(&plan));
    assert_parts(
        &printed(&plan),
        &["1 malformed ones passed over", "classes bad, good", "2 layers, 32 features"],
    );
    fs::write(dir.path().join("test.csv"), "text,label\nw5,neutral\n").expect("write");
    fs::write(
        dir.path().join("spec.yaml"),
        spec.replace("test_fraction: 0.25,", "test: test.csv, skip_malformed: true,"),
    )
    .expect("write");
    fs::write(&csv, good).expect("write");
    assert_parts(&refused(dir.path()), &["test.csv", "line 2", "neutral", "\"bad\", \"good\""]);
}
