//! A sweep begun by an earlier Evenkeel is finished by this one.
//!
//! `golden/store-format-2` was left by a coordinator of store format 2, before there were checksums, that was killed in the
//! middle of a sweep. `make upgrade` gives the programs of an earlier commit in `EVENKEEL_PREVIOUS`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evenkeel_tests::process::{
    Coordinator, Process, done, free_port, printed, run, status, until, worker, worker_command,
};
use evenkeel_tests::results::{Rows, assert_same_results};

const LIMIT: Duration = Duration::from_secs(240);
/// The spec of the sweep in the store that was left.
const SPEC: &str = include_str!("../golden/store-format-2.yaml");
/// Trials that are durable in it.
const DURABLE: usize = 8;

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in from.read_dir().expect("folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

fn complete(endpoint: &str, sweep: &str) -> serde_json::Value {
    let completed = || status(endpoint, sweep).filter(|status| status["state"] == "completed");
    until("the sweep to complete", LIMIT, completed).expect("complete")
}

fn fetch(dir: &Path, endpoint: &str, sweep: &str) -> PathBuf {
    let out = dir.join("fetched");
    let output = run(["results", sweep, "--out", &text(&out), "--endpoint", endpoint]).expect("results");
    assert!(output.status.success(), "{}", printed(&output));
    out
}

#[test]
fn a_store_of_format_2_is_taken_over_in_the_middle_of_a_sweep() {
    let dir = tempfile::tempdir().expect("tempdir");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/store-format-2"), &dir.path().join("store"));
    let fsck = run(["fsck", "--store", &text(&dir.path().join("store"))]).expect("fsck");
    assert!(fsck.status.success(), "{}", printed(&fsck));
    let coordinator =
        Coordinator::start(dir.path(), "new", free_port().expect("port"), None).expect("coordinator");
    let endpoint = coordinator.endpoint.as_str();
    let spec = dir.path().join("spec.yaml");
    fs::write(&spec, SPEC).expect("spec");
    let output = run(["submit", &text(&spec), "--endpoint", endpoint]).expect("submit");
    let sweep = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(done(&status(endpoint, &sweep).expect("status")), DURABLE as u64, "{}", printed(&output));
    let _worker = worker(dir.path(), "new-worker", ["--coordinator", endpoint]).expect("worker");
    assert_eq!(done(&complete(endpoint, &sweep)), 80);
    let out = fetch(dir.path(), endpoint, &sweep);
    let executions = Rows::read(&out.join("execution.parquet")).expect("executions");
    let earlier = executions.column("worker").iter().filter(|worker| worker.starts_with("local-")).count();
    assert_eq!((executions.rows.len(), earlier), (80, DURABLE), "what was durable was run again");
}

#[test]
fn programs_of_an_earlier_commit_are_replaced_one_by_one() {
    let Some(previous) = std::env::var_os("EVENKEEL_PREVIOUS").map(PathBuf::from) else {
        eprintln!(
            "skipped: EVENKEEL_PREVIOUS names no programs of an earlier commit; `make upgrade` builds them"
        );
        return;
    };
    let earlier = |command: &Command| {
        let name = Path::new(command.get_program()).file_name().map(OsStr::to_owned).expect("a name");
        let mut earlier = Command::new(previous.join(name));
        earlier.args(command.get_args()).env_remove("RUST_LOG");
        earlier
    };
    let dir = tempfile::tempdir().expect("tempdir");
    let spec = dir.path().join("spec.yaml");
    fs::write(&spec, SPEC.replace("seeds: 5", "seeds: 40")).expect("spec");
    let calm = dir.path().join("calm");
    let output = run(["run", &text(&spec), "--out", &text(&calm), "--quiet"]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));

    let port = free_port().expect("port");
    let endpoint = format!("http://127.0.0.1:{port}");
    let store = text(&dir.path().join("store"));
    let mut begun = Process::start(dir.path(), "old", earlier(&Coordinator::command(&store, port, &[])))
        .expect("earlier coordinator");
    let registry = ["--coordinator", endpoint.as_str()];
    let mut old_worker =
        Process::start(dir.path(), "old-worker", earlier(&worker_command("old-worker", registry, &[])))
            .expect("earlier worker");
    let submit = || {
        let output = run(["submit", &text(&spec), "--endpoint", &endpoint]).ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let sweep = until("the sweep to be taken", LIMIT, submit).expect("submitted to the earlier coordinator");
    let more_than = |before: u64| {
        until("more results", LIMIT, || status(&endpoint, &sweep).map(|s| done(&s)).filter(|n| *n > before))
            .expect("more results")
    };
    more_than(0);
    begun.terminate().expect("signal");
    begun.wait(LIMIT).expect("the earlier coordinator ends");
    // The new coordinator goes on with the earlier worker.
    let _coordinator = Coordinator::start(dir.path(), "new", port, None).expect("coordinator");
    let taken_over = done(&status(&endpoint, &sweep).expect("status"));
    assert!(taken_over > 0, "the new coordinator found nothing");
    let midway = more_than(taken_over);
    old_worker.terminate().expect("signal");
    old_worker.wait(LIMIT).expect("the earlier worker ends");
    assert!(midway < 640, "the sweep was over before everything was replaced");
    let _worker = worker(dir.path(), "new-worker", registry).expect("worker");
    assert_eq!(done(&complete(&endpoint, &sweep)), 640);
    assert_same_results(&calm, &fetch(dir.path(), &endpoint, &sweep));
}
