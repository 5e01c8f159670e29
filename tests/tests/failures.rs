//! Rows of the failure table that need real processes: memory, deaths, sick workers, leaving, slow watchers. (Coordinators
//! that die: failover.rs; stores that fail: end_to_end.rs and s3.rs; all at once: chaos.rs.)

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use evenkeel_tests::process::{
    Coordinator, Process, done, evenkeel, free_port, printed, run, status, until, worker, worker_command,
};
use evenkeel_tests::results::{Rows, assert_same_results};
use evenkeel_tests::toy;

const LIMIT: Duration = Duration::from_secs(120);

/// Three small trials, and one that is given its length or its size.
const TWO_DATASETS: &str = "
apiVersion: evenkeel/v1
name: two
datasets:
  - synthetic: {generator: separable, samples: 60, features: 16, margin: 0.5}
  - synthetic: {generator: separable, samples: SAMPLES, features: 200, margin: 0.5}
strategies:
  - {name: head, setting: head, steps: STEPS, learning_rate: 0.1}
seeds: 3
retries: {max_attempts: 2}
";

/// Trials that ask the store for an encoder.
const SMALL_ENCODERS: &str = "
apiVersion: evenkeel/v1
name: small-encoders
datasets:
  - synthetic: {generator: token_sequences, samples: 40, classes: 2, instances: 8}
models:
  - {encoder: transformer, layers: 1, hidden: 16, pretrain: {samples: 200, epochs: 1}}
strategies:
  - {name: full, setting: full, epochs: 2, learning_rate: 5.0e-4}
seeds: 2
retries: {max_attempts: 5}
";

/// Trials of some seconds.
const TEXTS: &str = "
apiVersion: evenkeel/v1
name: texts
datasets:
  - text: {path: texts.csv, text: text, label: label, test_fraction: 0.25}
models:
  - {encoder: huggingface, path: model, pooling: mean}
strategies:
  - {name: full, setting: full, steps: STEPS, learning_rate: 1.0e-4, evaluate_every: 500, mixout: {p: 0.3}}
seeds: SEEDS
";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A coordinator with a folder of its own.
struct Cluster {
    dir: tempfile::TempDir,
    coordinator: Coordinator,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        toy::write(dir.path()).expect("toy files");
        let port = free_port().expect("port");
        let coordinator = Coordinator::start(dir.path(), "coordinator", port, None).expect("coordinator");
        Self { dir, coordinator }
    }

    fn registry(&self) -> [&str; 2] {
        ["--coordinator", &self.coordinator.endpoint]
    }

    fn worker(&self, name: &str) -> Process {
        worker(self.dir.path(), name, self.registry()).expect("worker")
    }

    fn worker_with(&self, name: &str, more: &[&str]) -> Process {
        let command = worker_command(name, self.registry(), more);
        Process::start(self.dir.path(), name, command).expect("worker")
    }

    fn ask(&self, args: &[&str]) -> Output {
        run(args.iter().chain(&["--endpoint", self.coordinator.endpoint.as_str()])).expect("run")
    }

    fn submit(&self, spec: &str) -> String {
        let path = self.dir.path().join("spec.yaml");
        fs::write(&path, spec).expect("write spec");
        let output = self.ask(&["submit", &text(&path)]);
        assert!(output.status.success(), "{}", printed(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn status(&self, sweep: &str) -> serde_json::Value {
        status(&self.coordinator.endpoint, sweep).expect("status")
    }

    /// The worker whose id begins with this.
    fn seen(&self, name: &str) -> Option<serde_json::Value> {
        let workers: serde_json::Value =
            serde_json::from_slice(&self.ask(&["workers", "--json"]).stdout).ok()?;
        let list = workers["workers"].as_array()?;
        list.iter().find(|w| w["id"].as_str().is_some_and(|id| id.starts_with(name))).cloned()
    }

    fn ended(&self, sweep: &str) -> serde_json::Value {
        let ended = until("the sweep to end", LIMIT, || {
            status(&self.coordinator.endpoint, sweep).filter(|s| s["state"] == "completed")
        });
        ended.unwrap_or_else(|error| {
            panic!("{error}: {}{}", self.status(sweep), self.coordinator.process.log())
        })
    }

    fn fetch(&self, sweep: &str) -> std::path::PathBuf {
        let out = self.dir.path().join("fetched");
        let output = self.ask(&["results", sweep, "--out", &text(&out)]);
        assert!(out.join("results.parquet").is_file(), "{}", printed(&output));
        out
    }

    /// The undisturbed results of the spec that was submitted.
    fn calm(&self) -> std::path::PathBuf {
        let out = self.dir.path().join("calm");
        let spec = text(&self.dir.path().join("spec.yaml"));
        let output = run(["run", &spec, "--out", &text(&out), "--workers", "2", "--quiet"]).expect("run");
        assert!(output.status.success(), "{}", printed(&output));
        out
    }
}

fn two_datasets(samples: u32, steps: u32) -> String {
    TWO_DATASETS.replace("SAMPLES", &samples.to_string()).replace("STEPS", &steps.to_string())
}

fn texts(steps: u32, seeds: u32) -> String {
    TEXTS.replace("STEPS", &steps.to_string()).replace("SEEDS", &seeds.to_string())
}

#[test]
fn a_dataset_too_large_for_its_worker_fails_alone_and_the_worker_lives() {
    let cluster = Cluster::start();
    let inner = worker_command("small", cluster.registry(), &[]);
    let mut command = Command::new("bash");
    // 6 GB of addresses: room for libtorch, not for 8 GB of samples.
    command
        .args(["-c", "ulimit -v 6000000; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args());
    let mut small = Process::start(cluster.dir.path(), "small", command).expect("worker");
    let sweep = cluster.submit(&two_datasets(10_000_000, 200));
    let ended = cluster.ended(&sweep);
    assert!(!small.has_ended(), "the worker died of it: {}", small.log());
    assert_eq!((&ended["failed"], done(&ended)), (&3.into(), 6), "{ended}");
    let out = cluster.fetch(&sweep);
    let rows = Rows::read(&out.join("results.parquet")).expect("results");
    let executions = Rows::read(&out.join("execution.parquet")).expect("executions");
    let failed = |at: &usize| rows.column("status")[*at] == "failed";
    assert_eq!((0..rows.rows.len()).filter(failed).count(), 3);
    for at in (0..rows.rows.len()).filter(failed) {
        assert_eq!(rows.column("samples")[at], "10000000");
        assert!(rows.column("error")[at].contains("more than this worker can have"), "{:?}", rows.rows[at]);
        assert_eq!(executions.column("attempts")[at], "2");
    }
}

#[test]
fn a_trial_that_takes_its_worker_along_each_time_is_given_up_and_the_others_are_not() {
    let cluster = Cluster::start();
    let spec = two_datasets(60, 200).replace("seeds: 3", "seeds: 1").replace(
        "  - {name: head,",
        "  - {name: endless, setting: head, steps: 100000000, learning_rate: 0.1}\n  - {name: head,",
    );
    let sweep = cluster.submit(&spec);
    let mut deaths = 0;
    while status(&cluster.coordinator.endpoint, &sweep).is_none_or(|s| s["state"] != "completed") {
        let mut victim = cluster.worker(&format!("victim-{deaths}"));
        let mut seen = (0, Instant::now());
        let busy = until("it to run what is endless, or the end", LIMIT, || {
            let status = status(&cluster.coordinator.endpoint, &sweep)?;
            if status["running"] == 0 || done(&status) != seen.0 {
                seen = (done(&status), Instant::now());
            }
            let endless = seen.1.elapsed() > Duration::from_secs(2);
            (endless || status["state"] == "completed").then(|| status["state"] != "completed")
        });
        if busy.expect("busy") {
            assert!(victim.kill(), "it was alive");
            deaths += 1;
        }
        assert!(deaths < 20, "it is never given up: {}", cluster.status(&sweep));
    }
    assert!(deaths >= 4, "two trials with two attempts each were given up after {deaths} deaths");
    let rows = Rows::read(&cluster.fetch(&sweep).join("results.parquet")).expect("results");
    for (strategy, at) in rows.column("strategy").iter().zip(0..) {
        let (status, error) = (rows.column("status")[at], rows.column("error")[at]);
        match *strategy {
            "endless" => assert!(status == "failed" && error.contains("worker"), "{:?}", rows.rows[at]),
            _ => assert_eq!(status, "completed", "{:?}", rows.rows[at]),
        }
    }
}

#[test]
fn a_worker_that_fails_often_pauses_and_others_do_its_work() {
    let cluster = Cluster::start();
    // A store in which no encoder can be looked up.
    let broken = cluster.dir.path().join("broken");
    fs::create_dir(&broken).expect("folder");
    fs::write(broken.join("encoders"), "in the way").expect("file");
    let sick = cluster.worker_with("sick", &["--store", &text(&broken)]);
    until("it to register", LIMIT, || cluster.seen("sick")).expect("registered");
    let sweep = cluster.submit(SMALL_ENCODERS);
    let paused = until("its pause", LIMIT, || cluster.seen("sick").filter(|w| w["state"] == "quarantined"));
    let paused = paused.unwrap_or_else(|error| panic!("{error}: {}", sick.log()));
    assert!(paused["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{paused}");
    let shown = printed(&cluster.ask(&["workers"]));
    assert!(shown.contains("quarantined"), "{shown}");
    let _healthy = cluster.worker("healthy");
    let ended = cluster.ended(&sweep);
    assert_eq!(ended["failed"], 0, "{ended}");
    assert_same_results(&cluster.calm(), &cluster.fetch(&sweep));
}

#[test]
fn a_worker_told_to_drain_finishes_what_it_runs_and_leaves() {
    let cluster = Cluster::start();
    let mut first = cluster.worker("first");
    let sweep = cluster.submit(&texts(150, 6));
    until("it to work", LIMIT, || (done(&cluster.status(&sweep)) > 0).then_some(())).expect("working");
    let id = cluster.seen("first").expect("first")["id"].as_str().expect("id").to_owned();
    let output = cluster.ask(&["workers", "drain", &id]);
    assert!(output.status.success(), "{}", printed(&output));
    let left = first.wait(LIMIT).expect("it leaves");
    assert!(left.success(), "{}", first.log());
    until("it to be gone", LIMIT, || cluster.seen("first").is_none().then_some(())).expect("gone");
    let midway = cluster.status(&sweep);
    assert!(done(&midway) < 6, "the sweep was over before the worker left: {midway}");
    let _second = cluster.worker("second");
    let ended = cluster.ended(&sweep);
    assert_eq!(ended["failed"], 0, "{ended}");
    assert_same_results(&cluster.calm(), &cluster.fetch(&sweep));
    let unknown = cluster.ask(&["workers", "drain", "nobody"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", printed(&unknown));
}

#[test]
fn a_worker_that_must_leave_hands_a_long_trial_on_by_checkpoint() {
    let cluster = Cluster::start();
    let store = text(&cluster.dir.path().join("store"));
    let leave = ["--store", &store, "--grace", "2", "--checkpoint-every", "3600"];
    let mut first = cluster.worker_with("first", &leave);
    let sweep = cluster.submit(&texts(4_000, 1));
    until("it to work", LIMIT, || (cluster.status(&sweep)["running"].as_u64()? > 0).then_some(()))
        .expect("working");
    // Well into the trial.
    std::thread::sleep(Duration::from_secs(3));
    first.terminate().expect("signal");
    let left = first.wait(Duration::from_secs(20)).expect("it leaves within its grace");
    assert!(left.success(), "{}", first.log());
    assert!(first.log().contains("checkpoint kept"), "{}", first.log());
    let midway = cluster.status(&sweep);
    assert_eq!(done(&midway), 0, "the trial was over before the worker left: {midway}");
    let second = cluster.worker_with("second", &leave);
    cluster.ended(&sweep);
    assert!(second.log().contains("trial goes on from its checkpoint"), "{}", second.log());
    let out = cluster.fetch(&sweep);
    let executions = Rows::read(&out.join("execution.parquet")).expect("executions");
    assert_eq!(executions.column("attempts"), ["1"], "leaving was counted as a failure");
    assert_same_results(&cluster.calm(), &out);
}

#[test]
fn a_watcher_that_does_not_read_holds_nobody_up() {
    let cluster = Cluster::start();
    let sweep = cluster.submit(&two_datasets(60, 2_000).replace("seeds: 3", "seeds: 2000"));
    let watch = ["watch", sweep.as_str(), "--json", "--endpoint", &cluster.coordinator.endpoint];
    let mut watcher = Process::start(cluster.dir.path(), "watcher", evenkeel(watch)).expect("watcher");
    until("the first line", LIMIT, || (!watcher.log().is_empty()).then_some(())).expect("watching");
    watcher.signal("-STOP").expect("signal");
    let _worker = cluster.worker("worker");
    let ended = cluster.ended(&sweep);
    assert_eq!(done(&ended), 4_000, "{ended}");
    watcher.signal("-CONT").expect("signal");
    let code = watcher.wait(LIMIT).expect("the watcher ends as well");
    assert!(code.success(), "{}", watcher.log());
}
