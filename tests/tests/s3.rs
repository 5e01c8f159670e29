//! A store on a real server that speaks S3: what is written once stays, and sweeps lose nothing to kills and outages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_common::runtime::objects::StoreError;
use evenkeel_tests::process::{
    Coordinator, Process, done, evenkeel, free_port, printed, run, status, until, worker_command,
};
use evenkeel_tests::results::assert_same_results;
use evenkeel_tests::s3::S3;
use evenkeel_tests::toy;

const LIMIT: Duration = Duration::from_secs(240);

/// A sweep that keeps two cores busy for some seconds, so that a fault has something to hit.
const SPEC: &str = "
apiVersion: evenkeel/v1
name: on-s3
datasets:
  - synthetic: {generator: separable, samples: [60, 120], features: 24, margin: {logspace: [0.2, 2.0, 3]}, instances: 8}
strategies:
  - {name: head, setting: head, steps: 6000, learning_rate: 0.1}
  - {name: mhloss, setting: head, steps: 6000, learning_rate: 0.1, mhloss: {heads: 4}}
seeds: 5
stability: {leave_one_out: 8}
";

/// A trial of some seconds, over texts.
const LONG: &str = "
apiVersion: evenkeel/v1
name: long
datasets:
  - text: {path: texts.csv, text: text, label: label, test_fraction: 0.25}
models:
  - {encoder: huggingface, path: model, pooling: mean}
strategies:
  - {name: head, setting: head, steps: 200, learning_rate: 0.5}
  - {name: full, setting: full, steps: 1500, learning_rate: 1.0e-4, evaluate_every: 500, mixout: {p: 0.3}}
seeds: 1
";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The results of a spec on a directory, without any fault.
fn calm(dir: &Path, spec: &Path) -> PathBuf {
    let out = dir.join("calm");
    let output = run(["run", &text(spec), "--out", &text(&out), "--device", "cpu"]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    out
}

/// A coordinator and its workers on a store that is S3.
struct Cluster {
    dir: tempfile::TempDir,
    s3: S3,
    spec: PathBuf,
    expected: PathBuf,
    port: u16,
    coordinator: Coordinator,
}

impl Cluster {
    /// None without a server.
    fn start(spec: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("tempdir");
        let s3 = S3::start(dir.path()).expect("S3")?;
        toy::write(dir.path()).expect("toy files");
        let path = dir.path().join("spec.yaml");
        fs::write(&path, spec).expect("write spec");
        let expected = calm(dir.path(), &path);
        let port = free_port().expect("port");
        let coordinator = Self::coordinator(dir.path(), &s3, "coordinator", port);
        Some(Self { dir, s3, spec: path, expected, port, coordinator })
    }

    fn coordinator(dir: &Path, s3: &S3, name: &str, port: u16) -> Coordinator {
        let mut command = Coordinator::command(&S3::location("lab/store"), port, &[]);
        s3.reach(&mut command);
        command.env("AWS_TIMEOUT", "3s");
        Coordinator::launch(dir, name, format!("http://127.0.0.1:{port}"), command).expect("coordinator")
    }

    fn restart_coordinator(&mut self) {
        self.coordinator = Self::coordinator(self.dir.path(), &self.s3, "restarted", self.port);
    }

    fn worker(&self, name: &str, more: &[&str]) -> Process {
        let mut command = worker_command(name, ["--coordinator", &self.coordinator.endpoint], more);
        command.args(["--store", &S3::location("lab/store")]);
        self.s3.reach(&mut command);
        Process::start(self.dir.path(), name, command).expect("worker")
    }

    fn ask(&self, args: &[&str]) -> Output {
        run(args.iter().chain(&["--endpoint", self.coordinator.endpoint.as_str()])).expect("run")
    }

    fn submit(&self) -> String {
        let output = self.ask(&["submit", &text(&self.spec)]);
        assert!(output.status.success(), "{}", printed(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits for the end, and compares with the calm run.
    fn check(&self, sweep: &str) {
        let watched = self.ask(&["watch", sweep]);
        assert!(watched.status.success(), "{}{}", printed(&watched), self.coordinator.process.log());
        let out = self.dir.path().join("fetched");
        let fetched = self.ask(&["results", sweep, "--out", &text(&out)]);
        assert!(fetched.status.success(), "{}", printed(&fetched));
        assert_same_results(&self.expected, &out);
    }
}

#[tokio::test]
async fn an_object_is_created_once_whoever_tries_again() {
    // The only provider of cryptography here; an error would say that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(s3) = S3::start(dir.path()).expect("S3") else { return };
    let (one, other) = (s3.objects("lab").expect("open"), s3.objects("lab").expect("open"));
    let path = "sweeps/x/segments/0000000000000001-00000001.parquet";
    one.create(path, Bytes::from_static(b"first")).await.expect("create");
    let second = other.create(path, Bytes::from_static(b"second")).await;
    assert!(matches!(second, Err(StoreError::Exists { .. })), "{second:?}");
    other.create_if_absent(path, Bytes::from_static(b"third")).await.expect("it is there");
    assert_eq!(other.read(path).await.expect("read"), "first");
    assert_eq!(one.folders("sweeps").await.expect("folders"), ["x"]);
    assert_eq!(one.list("sweeps").await.expect("list"), [path.trim_start_matches("sweeps/")]);
    // Another prefix is another store.
    assert!(matches!(s3.objects("other").expect("open").read(path).await, Err(StoreError::Missing { .. })));
    one.write(path, Bytes::from_static(b"over")).await.expect("write");
    assert_eq!(one.read(path).await.expect("read"), "over");
    for _ in 0..2 {
        one.delete(path).await.expect("delete, even what is not there");
    }
    assert!(matches!(one.read(path).await, Err(StoreError::Missing { .. })));
}

#[test]
fn a_sweep_whose_server_freezes_and_whose_coordinator_is_killed_ends_with_the_same_results() {
    let Some(mut cluster) = Cluster::start(SPEC) else { return };
    // Nobody works yet: nothing is durable when the server freezes.
    let sweep = cluster.submit();
    let until_logged = |coordinator: &Coordinator, what: &str| {
        until(what, LIMIT, || coordinator.process.log().contains(what).then_some(()))
            .unwrap_or_else(|error| panic!("{error}\n{}", coordinator.process.log()));
    };
    cluster.s3.process.signal("-STOP").expect("kill");
    let workers = ["worker-1", "worker-2"].map(|name| cluster.worker(name, &[]));
    until_logged(&cluster.coordinator, "the store takes no results");
    let frozen = status(&cluster.coordinator.endpoint, &sweep).expect("status");
    assert_eq!(done(&frozen), 0, "results count that are nowhere: {frozen}");
    // What the workers have is nowhere else: they send it again to the next coordinator.
    assert!(cluster.coordinator.process.kill(), "the coordinator had ended before it was killed");
    cluster.s3.process.signal("-CONT").expect("kill");
    cluster.restart_coordinator();
    cluster.check(&sweep);

    // An outage that the coordinator sees through.
    let other = cluster.dir.path().join("other.yaml");
    fs::write(&other, SPEC.replace("name: on-s3", "name: again")).expect("write spec");
    // A suspended worker cannot finish the sweep before the server freezes.
    for worker in &workers {
        worker.signal("-STOP").expect("kill");
    }
    let second = cluster.ask(&["submit", &text(&other)]);
    assert!(second.status.success(), "{}", printed(&second));
    let second = String::from_utf8_lossy(&second.stdout).trim().to_owned();
    cluster.s3.process.signal("-STOP").expect("kill");
    for worker in &workers {
        worker.signal("-CONT").expect("kill");
    }
    until_logged(&cluster.coordinator, "the store takes no results");
    cluster.s3.process.signal("-CONT").expect("kill");
    until_logged(&cluster.coordinator, "the store takes results again");
    let watched = cluster.ask(&["watch", &second]);
    assert!(watched.status.success(), "{}{}", printed(&watched), cluster.coordinator.process.log());

    // Somebody else with the same store, later.
    cluster.coordinator.process.kill();
    cluster.restart_coordinator();
    let view = status(&cluster.coordinator.endpoint, &sweep).expect("status");
    assert_eq!(view["state"], "completed", "{view}");
    let again = cluster.ask(&["submit", &text(&cluster.spec)]);
    assert!(again.status.success(), "{}", printed(&again));

    // Upkeep, beside it.
    let upkeep = |args: &[&str]| {
        let mut command = evenkeel(args);
        command.args(["--store", &S3::location("lab/store")]);
        cluster.s3.reach(&mut command);
        printed(&command.output().expect("run"))
    };
    let checked = upkeep(&["fsck"]);
    let trials = 2 * view["trials"].as_u64().expect("trials");
    assert!(checked.contains(&format!("{trials} trials")), "{checked}");
    assert!(checked.contains("as it was written"), "{checked}");
    let deleted = upkeep(&["gc", "--older-than", "0s"]);
    for sweep in [&sweep, &second] {
        assert!(deleted.contains(&format!("deleted {sweep}")), "{deleted}");
    }
    for log in [cluster.coordinator.process.log(), checked, deleted] {
        assert!(!log.contains(S3::SECRET), "a secret is in the log:\n{log}");
    }
}

#[test]
fn workers_keep_features_and_checkpoints_on_s3_and_the_next_one_goes_on() {
    let Some(cluster) = Cluster::start(LONG) else { return };
    let mut first = cluster.worker("first", &["--checkpoint-every", "1"]);
    let sweep = cluster.submit();
    until("a checkpoint", LIMIT, || first.log().contains("checkpoint kept").then_some(()))
        .expect("checkpoint");
    assert!(first.kill(), "the worker had ended before it was killed");
    let second = cluster.worker("second", &["--checkpoint-every", "1"]);
    cluster.check(&sweep);
    assert!(second.log().contains("trial goes on from its checkpoint"), "{}", second.log());
    let kept = |folder: &str| {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let objects = cluster.s3.objects("lab/store").expect("open");
        runtime.block_on(objects.list(folder)).expect("list")
    };
    assert_eq!(kept("features").len(), 1, "the features of the texts were kept");
    assert_eq!(kept("checkpoints"), [""; 0], "checkpoints outlived their trials");
}

#[test]
fn a_bucket_that_is_not_there_is_said_with_what_to_look_at() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(s3) = S3::start(dir.path()).expect("S3") else { return };
    let mut command = evenkeel(["coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(["--store", "s3://nothing-here/lab"]);
    s3.reach(&mut command);
    let output = command.output().expect("run");
    assert_eq!(output.status.code(), Some(3), "{}", printed(&output));
    let said = printed(&output);
    assert!(said.contains("nothing-here"), "{said}");
}
