//! Care for a store, over the real programs: damage is found and mended, what has ended is compacted, what is old goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use evenkeel_tests::process::{Coordinator, done, free_port, printed, run, status, until, worker};
use evenkeel_tests::results::assert_same_results;

const LIMIT: Duration = Duration::from_secs(240);

const SPEC: &str = "
apiVersion: evenkeel/v1
name: kept
datasets:
  - synthetic: {generator: separable, samples: [40, 60], features: 8, margin: 0.5, instances: 10}
strategies:
  - {name: head, setting: head, steps: {steps}, learning_rate: 0.1}
seeds: 10
";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn spec(dir: &Path, steps: u32) -> String {
    let path = dir.join("kept.yaml");
    fs::write(&path, SPEC.replace("{steps}", &steps.to_string())).expect("spec");
    text(&path)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The only sweep's folder in a store.
fn sweep_folder(store: &Path) -> PathBuf {
    files(&store.join("sweeps")).pop().expect("a sweep")
}

fn fsck(store: &Path, more: &[&str]) -> Output {
    run(["fsck", "--store", &text(store)].iter().chain(more)).expect("fsck")
}

#[test]
fn damage_is_found_set_aside_and_worked_on_again_to_the_same_results() {
    let dir = tempfile::tempdir().expect("tempdir");
    let spec = spec(dir.path(), 50);
    let out = dir.path().join("out");
    let sweep = || {
        let output = run(["run", &spec, "--out", &text(&out), "--workers", "1", "--quiet"]).expect("run");
        assert!(output.status.success(), "{}", printed(&output));
    };
    sweep();
    let truth = dir.path().join("truth");
    fs::create_dir(&truth).expect("folder");
    for file in files(&out).iter().filter(|file| file.is_file()) {
        fs::copy(file, truth.join(file.file_name().expect("name"))).expect("copy");
    }
    let store = out.join("store");
    let clean = fsck(&store, &[]);
    assert!(clean.status.success(), "{}", printed(&clean));
    assert!(
        printed(&clean).contains("200 trials") && printed(&clean).contains("as it was written"),
        "{}",
        printed(&clean)
    );

    let segments = files(&sweep_folder(&store).join("segments"));
    let victim = segments.last().expect("a segment");
    let mut bytes = fs::read(victim).expect("read");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 4;
    fs::write(victim, bytes).expect("write");
    let staged = sweep_folder(&store).join("segments").join("0000000000000009-00000001.parquet#1");
    fs::write(&staged, "half a").expect("write");

    // Nothing reads it as a result, and nothing is changed unless it is asked for.
    let failed = run(["run", &spec, "--out", &text(&out), "--workers", "1", "--quiet"]).expect("run");
    assert!(!failed.status.success() && printed(&failed).contains("evenkeel fsck"), "{}", printed(&failed));
    let found = fsck(&store, &[]);
    assert_eq!(found.status.code(), Some(1), "{}", printed(&found));
    let said = printed(&found);
    assert!(said.contains("2 problems") && said.contains("BLAKE3") && said.contains("interrupted"), "{said}");
    assert!(said.contains("--repair") && victim.is_file() && staged.is_file(), "{said}");

    let mended = fsck(&store, &["--repair"]);
    assert_eq!(mended.status.code(), Some(1), "{}", printed(&mended));
    assert!(printed(&mended).contains("set aside as quarantine/sweeps/"), "{}", printed(&mended));
    assert!(!victim.exists() && !staged.exists());
    let name = victim.strip_prefix(&store).expect("below the store");
    assert!(store.join("quarantine").join(name).is_file(), "nothing is deleted");
    let clean = fsck(&store, &["--json"]);
    assert!(clean.status.success(), "{}", printed(&clean));

    let id = text(Path::new(sweep_folder(&store).file_name().expect("name")));
    let coordinator =
        Coordinator::start_with(&out, "mender", free_port().expect("port"), None, &[]).expect("coordinator");
    let _worker = worker(dir.path(), "worker", ["--coordinator", &coordinator.endpoint]).expect("worker");
    let retried = run(["retry", &id, "--endpoint", &coordinator.endpoint]).expect("retry");
    assert!(retried.status.success(), "{}", printed(&retried));
    until("the sweep to complete again", LIMIT, || {
        status(&coordinator.endpoint, &id)
            .filter(|status| status["state"] == "completed" && done(status) == 200)
    })
    .expect("complete");
    let fetched = dir.path().join("fetched");
    let output = run(["results", &id, "--out", &text(&fetched), "--endpoint", &coordinator.endpoint])
        .expect("results");
    assert!(output.status.success(), "{}", printed(&output));
    assert_same_results(&truth, &fetched);
}

#[test]
fn a_sweep_that_has_ended_is_compacted_and_deleted_by_age_and_may_come_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let port = free_port().expect("port");
    let coordinator =
        Coordinator::start_with(dir.path(), "coordinator", port, None, &["--compact-after", "2s"])
            .expect("coordinator");
    let _worker = worker(dir.path(), "worker", ["--coordinator", &coordinator.endpoint]).expect("worker");
    let endpoint = ["--endpoint", coordinator.endpoint.as_str()];
    let spec = spec(dir.path(), 60_000);
    let submit = || {
        let output = run(["submit", &spec, "--wait"].iter().chain(&endpoint)).expect("submit");
        assert!(output.status.success(), "{}", printed(&output));
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    let id = submit();
    let fetch = |name: &str| {
        let out = dir.path().join(name);
        let output = run(["results", &id, "--out", &text(&out)].iter().chain(&endpoint)).expect("results");
        assert!(output.status.success(), "{}", printed(&output));
        out
    };
    let segments = dir.path().join("store/sweeps").join(&id).join("segments");
    let before = files(&segments).len();
    assert!(before >= 4, "{before} segments are too few for this test");
    let first = fetch("first");
    until("compaction", LIMIT, || (files(&segments).len() == 1).then_some(())).expect("one segment");
    assert_same_results(&first, &fetch("compacted"));
    let store = dir.path().join("store");
    assert!(fsck(&store, &[]).status.success(), "{}", printed(&fsck(&store, &[])));

    let gc = |more: &[&str]| {
        let output = run(["gc", "--store", &text(&store), "--json"].iter().chain(more)).expect("gc");
        assert!(output.status.success(), "{}", printed(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("json")
    };
    assert_eq!(gc(&["--older-than", "1h"])["sweeps"], serde_json::json!([]));
    assert_eq!(gc(&["--older-than", "0s", "--dry-run"])["sweeps"], serde_json::json!([id]));
    assert!(segments.is_dir());
    assert_eq!(gc(&["--older-than", "0s"])["sweeps"], serde_json::json!([id]));
    assert!(files(&segments).is_empty());
    // The coordinator, which knew it, takes it anew.
    assert_eq!(submit(), id);
    assert_same_results(&first, &fetch("again"));
}

#[test]
fn a_store_that_is_not_there_is_said_so_and_not_made() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = dir.path().join("nothing");
    for command in ["fsck", "gc"] {
        let output = run([command, "--store", &text(&store)]).expect("run");
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(printed(&output).contains("there is no store at"), "{}", printed(&output));
    }
    assert!(!store.exists());
    let output = run(["gc", "--store", &text(dir.path()), "--older-than", "a month"]).expect("run");
    assert!(printed(&output).contains("30d"), "{}", printed(&output));
}
