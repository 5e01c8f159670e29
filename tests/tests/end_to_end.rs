//! The real programs: on one machine, through etcd, and with faults that must have fired.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_tests::http;
use evenkeel_tests::process::{
    Coordinator, Etcd, Process, done, evenkeel, free_port, printed, run, status, until, worker, worker_with,
};
use evenkeel_tests::results::{Rows, assert_same_results};

const LIMIT: Duration = Duration::from_secs(240);

/// A sweep that keeps two cores busy for some seconds, so that a fault has something to hit.
const SPEC: &str = "
apiVersion: evenkeel/v1
name: faults
datasets:
  - synthetic: {generator: separable, samples: [60, 120], features: 24, margin: {logspace: [0.2, 2.0, 3]}, instances: 8}
  - synthetic: {generator: blobs, samples: 90, features: 8, classes: 3, instances: 6}
strategies:
  - {name: head, setting: head, steps: 2000, learning_rate: 0.1}
  - {name: mhloss, setting: head, steps: 2000, learning_rate: 0.1, mhloss: {heads: 4}}
seeds: 4
stability: {leave_one_out: 8}
";

fn spec_in(dir: &Path) -> PathBuf {
    let path = dir.join("faults.yaml");
    fs::write(&path, SPEC).expect("write spec");
    path
}

/// The same sweep, run without any fault.
fn undisturbed(dir: &Path) -> PathBuf {
    let out = dir.join("undisturbed");
    let output = run(["run", &text(&spec_in(dir)), "--out", &text(&out), "--device", "cpu"]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    out
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn submit(dir: &Path, endpoint: &str) -> String {
    let output = run(["submit", &text(&spec_in(dir)), "--endpoint", endpoint]).expect("submit");
    assert!(output.status.success(), "{}", printed(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits until some trials are durable, but not all.
fn until_midway(endpoint: &str, sweep: &str) -> u64 {
    let (durable, total) = until("the first durable results", LIMIT, || {
        let status = status(endpoint, sweep)?;
        (done(&status) > 0).then(|| (done(&status), status["trials"].as_u64().unwrap_or(0)))
    })
    .expect("midway");
    assert!(durable < total, "the sweep was over before the fault could fire");
    durable
}

fn fetch(dir: &Path, endpoint: &str, sweep: &str) -> PathBuf {
    let watched = run(["watch", sweep, "--endpoint", endpoint]).expect("watch");
    assert!(watched.status.success(), "{}", printed(&watched));
    let out = dir.join("fetched");
    let fetched = run(["results", sweep, "--out", &text(&out), "--endpoint", endpoint]).expect("results");
    assert!(fetched.status.success(), "{}", printed(&fetched));
    out
}

#[test]
fn a_run_leaves_everything_and_running_again_does_no_work_twice() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = undisturbed(dir.path());
    for file in [
        "results.parquet",
        "execution.parquet",
        "stability.parquet",
        "comparisons.parquet",
        "curves.parquet",
        "summary.json",
        "report.html",
        "spec.yaml",
    ] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    let results = Rows::read(&out.join("results.parquet")).expect("results");
    assert_eq!(results.rows.len(), (2 * 3 * 8 + 6) * 2 * 4);
    assert!(results.column("status").iter().all(|status| *status == "completed"));
    let before = fs::read(out.join("execution.parquet")).expect("execution");
    let again =
        run(["run", &text(&spec_in(dir.path())), "--out", &text(&out), "--device", "cpu"]).expect("run");
    assert!(again.status.success(), "{}", printed(&again));
    assert!(printed(&again).contains("are done already"), "{}", printed(&again));
    assert_eq!(before, fs::read(out.join("execution.parquet")).expect("execution"), "trials ran again");
}

#[test]
fn a_run_that_is_killed_resumes_to_the_same_results() {
    let dir = tempfile::tempdir().expect("tempdir");
    let expected = undisturbed(dir.path());
    let out = dir.path().join("killed");
    let arguments = ["run", &text(&spec_in(dir.path())), "--out", &text(&out), "--device", "cpu"];
    let mut first = Process::start(dir.path(), "first", evenkeel(arguments)).expect("start");
    let segments = || {
        let sweeps = fs::read_dir(out.join("store/sweeps")).ok()?.next()?.ok()?.path();
        fs::read_dir(sweeps.join("segments")).ok().map(Iterator::count).filter(|count| *count > 0)
    };
    until("a segment", LIMIT, segments).expect("segment");
    assert!(first.kill(), "it had ended before it was killed:\n{}", first.log());
    assert!(!out.join("results.parquet").exists(), "it was through before it was killed");

    let second = run(arguments).expect("run");
    assert!(second.status.success(), "{}", printed(&second));
    assert!(printed(&second).contains("resuming, "), "{}", printed(&second));
    assert_same_results(&expected, &out);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_etcd_a_killed_worker_costs_nothing_but_time() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(etcd) = Etcd::start(dir.path()).expect("etcd") else { return };
    let expected = undisturbed(dir.path());
    let coordinator =
        Coordinator::start(dir.path(), "coordinator", free_port().expect("port"), Some(&etcd.url))
            .expect("coordinator");
    let mut workers: Vec<Process> = (0..3)
        .map(|i| worker(dir.path(), &format!("worker-{i}"), ["--etcd", &etcd.url]).expect("worker"))
        .collect();
    let prefix = "/evenkeel/test/workers/";
    let mut keys = Vec::new();
    for _ in 0..500 {
        keys = etcd.keys(prefix).await.expect("keys");
        if keys.len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(keys.len(), 3, "workers in etcd: {keys:?}");

    let sweep = submit(dir.path(), &coordinator.endpoint);
    until_midway(&coordinator.endpoint, &sweep);
    // One that is at work.
    let listing = run(["workers", "--json", "--endpoint", &coordinator.endpoint]).expect("workers");
    let listing: serde_json::Value = serde_json::from_slice(&listing.stdout).expect("json");
    let busy = listing["workers"].as_array().expect("workers").iter().find(|w| w["packs"].as_u64() > Some(0));
    let busy = busy.expect("a worker is at work")["id"].as_str().expect("id").to_owned();
    let victim = (0..3).find(|i| busy.starts_with(&format!("worker-{i}-"))).expect("one of ours");
    assert!(workers[victim].kill(), "the worker had ended before it was killed");
    let killed = std::time::Instant::now();

    let out = fetch(dir.path(), &coordinator.endpoint, &sweep);
    assert_same_results(&expected, &out);
    assert!(coordinator.process.log().contains("worker lost"), "{}", coordinator.process.log());

    // Its key is gone with its lease: not 10 s after its death.
    while etcd.keys(prefix).await.expect("keys").iter().any(|key| key.ends_with(&busy)) {
        assert!(killed.elapsed() < Duration::from_secs(10), "the dead worker is in etcd after 10 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A worker that leaves in good order is gone at once.
    let other = (victim + 1) % 3;
    workers[other].terminate().expect("terminate");
    let status = workers[other].wait(Duration::from_secs(30)).expect("end");
    assert!(status.success(), "{}", workers[other].log());
    assert_eq!(etcd.keys(prefix).await.expect("keys").len(), 1);
}

#[test]
fn a_killed_coordinator_leaves_nothing_behind_that_its_successor_cannot_take_up() {
    let dir = tempfile::tempdir().expect("tempdir");
    let expected = undisturbed(dir.path());
    let port = free_port().expect("port");
    let mut first = Coordinator::start(dir.path(), "first", port, None).expect("coordinator");
    let endpoint = first.endpoint.clone();
    let _workers: Vec<Process> = (0..2)
        .map(|i| worker(dir.path(), &format!("worker-{i}"), ["--coordinator", &endpoint]).expect("worker"))
        .collect();
    let sweep = submit(dir.path(), &endpoint);
    let durable = until_midway(&endpoint, &sweep);
    assert!(first.process.kill(), "the coordinator had ended before it was killed");

    let second = Coordinator::start(dir.path(), "second", port, None).expect("coordinator");
    let status = status(&second.endpoint, &sweep).expect("status");
    assert!(done(&status) >= durable, "{durable} trials were durable, now there are {status}");
    let out = fetch(dir.path(), &second.endpoint, &sweep);
    assert_same_results(&expected, &out);
}

#[test]
fn ctrl_c_ends_a_run_with_130_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = dir.path().join("out");
    let arguments = ["run", &text(&spec_in(dir.path())), "--out", &text(&out), "--device", "cpu"];
    let mut first = Process::start(dir.path(), "first", evenkeel(arguments)).expect("start");
    until("workers", LIMIT, || (out.join("logs").read_dir().ok()?.count() > 0).then_some(()))
        .expect("workers");
    first.terminate().expect("signal");
    let status = first.wait(Duration::from_secs(20)).expect("end");
    assert_eq!(status.code(), Some(130), "{}", first.log());
    assert!(first.log().contains("run the same again to resume"), "{}", first.log());
    let second = run(arguments).expect("run");
    assert!(second.status.success(), "{}", printed(&second));
}

#[test]
fn a_store_that_takes_nothing_pauses_the_sweep_until_it_does() {
    let dir = tempfile::tempdir().expect("tempdir");
    let expected = undisturbed(dir.path());
    let coordinator =
        Coordinator::start(dir.path(), "coordinator", free_port().expect("port"), None).expect("coordinator");
    let endpoint = &coordinator.endpoint;
    let sweep = submit(dir.path(), endpoint);
    // A file where the folder of segments has to be: no segment can be written.
    let folder = dir.path().join("store/sweeps").join(&sweep);
    fs::write(folder.join("segments"), "in the way").expect("file");
    let _worker = worker(dir.path(), "worker", ["--coordinator", endpoint]).expect("worker");
    let stalled = until("the notice", LIMIT, || {
        status(endpoint, &sweep)
            .filter(|status| status["notice"].as_str().is_some_and(|n| n.contains("store")))
    });
    let stalled = stalled.expect("notice");
    assert_eq!(done(&stalled), 0, "something counts although nothing is durable: {stalled}");

    fs::remove_file(folder.join("segments")).expect("remove");
    let out = fetch(dir.path(), endpoint, &sweep);
    assert_same_results(&expected, &out);
    let log = coordinator.process.log();
    assert!(log.contains("the store takes results again"), "{log}");
}

#[test]
fn a_sweep_can_be_paused_resumed_cancelled_and_taken_up_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let coordinator =
        Coordinator::start(dir.path(), "coordinator", free_port().expect("port"), None).expect("coordinator");
    let endpoint = coordinator.endpoint.clone();
    let _worker = worker(dir.path(), "worker", ["--coordinator", &endpoint]).expect("worker");
    let sweep = submit(dir.path(), &endpoint);
    assert_eq!(submit(dir.path(), &endpoint), sweep, "the same study is the same sweep");
    until_midway(&endpoint, &sweep);
    let tell = |command: &str| {
        let output = run([command, &sweep, "--json", "--endpoint", &endpoint]).expect("command");
        assert!(output.status.success(), "{command}: {}", printed(&output));
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
        status["state"].as_str().expect("state").to_owned()
    };
    assert_eq!(tell("pause"), "paused");
    assert_eq!(tell("resume"), "running");
    assert_eq!(tell("cancel"), "cancelled");
    let refused = run(["retry", &sweep, "--endpoint", &endpoint]).expect("retry");
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    assert_eq!(tell("resume"), "running");
    let watched = run(["watch", &sweep, "--endpoint", &endpoint]).expect("watch");
    assert!(watched.status.success(), "{}", printed(&watched));
    let listed = run(["list", "--endpoint", &endpoint]).expect("list");
    assert!(printed(&listed).contains("completed"), "{}", printed(&listed));
    let unknown = run(["status", "no-such-sweep", "--endpoint", &endpoint]).expect("status");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(printed(&unknown).contains("evenkeel list"), "{}", printed(&unknown));
}

#[test]
fn a_worker_that_comes_for_a_queue_works_it_off_and_leaves_by_itself() {
    let dir = tempfile::tempdir().expect("tempdir");
    let expected = undisturbed(dir.path());
    let http = format!("127.0.0.1:{}", free_port().expect("port"));
    let port = free_port().expect("port");
    let coordinator = Coordinator::start_with(dir.path(), "coordinator", port, None, &["--http", &http]);
    let coordinator = coordinator.expect("coordinator");
    let endpoint = &coordinator.endpoint;
    let queue = || -> serde_json::Value {
        let answer = http::body(&http, "/api/v1/queue").expect("queue");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    };
    assert_eq!(queue()["trials"], 0);
    let sweep = submit(dir.path(), endpoint);
    let total = status(endpoint, &sweep).expect("status")["trials"].clone();
    assert_eq!(queue()["trials"], total, "all trials wait for somebody to come");

    let start = |name| {
        worker_with(dir.path(), name, ["--coordinator", endpoint], &["--exit-when-idle", "1s"])
            .expect("worker")
    };
    let mut first = start("first");
    let ended = first.wait(LIMIT).expect("it leaves");
    assert!(ended.success(), "{}", first.log());
    // Much longer than a second: work is what kept it.
    let out = fetch(dir.path(), endpoint, &sweep);
    assert_same_results(&expected, &out);
    assert_eq!(queue()["trials"], 0);
    assert_eq!(queue()["running"], 0);
    // One that finds nothing to do leaves, too.
    let mut second = start("second");
    assert!(second.wait(LIMIT).expect("it leaves").success(), "{}", second.log());
    assert!(second.log().contains("nothing to do, leaving"), "{}", second.log());
}
