//! Two coordinators on one etcd and one store: one leads, the other stands by and takes over.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_tests::process::{
    Coordinator, Etcd, Process, done, evenkeel, free_port, printed, run, status, until, worker,
};
use evenkeel_tests::results::assert_same_results;

const LIMIT: Duration = Duration::from_secs(240);
/// Life of a lease in etcd, as `common::runtime::etcd` has it.
const LEASE: Duration = Duration::from_secs(5);

const SPEC: &str = "
apiVersion: evenkeel/v1
name: failover
datasets:
  - synthetic: {generator: separable, samples: [60, 120], features: 24, margin: {logspace: [0.2, 2.0, 3]}, instances: 8}
strategies:
  - {name: head, setting: head, steps: 6000, learning_rate: 0.1}
  - {name: mhloss, setting: head, steps: 6000, learning_rate: 0.1, mhloss: {heads: 4}}
seeds: 5
stability: {leave_one_out: 8}
";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

struct Cluster {
    dir: tempfile::TempDir,
    etcd: Etcd,
    coordinators: Vec<Coordinator>,
    workers: Vec<Process>,
    spec: PathBuf,
    expected: PathBuf,
}

impl Cluster {
    /// Two coordinators and two workers, and the results of a calm run; none without etcd.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("tempdir");
        let etcd = Etcd::start(dir.path()).expect("etcd")?;
        let (spec, expected) = (dir.path().join("failover.yaml"), dir.path().join("calm"));
        fs::write(&spec, SPEC).expect("write spec");
        let output = run(["run", &text(&spec), "--out", &text(&expected), "--device", "cpu"]).expect("run");
        assert!(output.status.success(), "{}", printed(&output));
        let coordinator = |name: &str| {
            let port = free_port().expect("port");
            Coordinator::start(dir.path(), name, port, Some(&etcd.url)).expect("coordinator")
        };
        let first = coordinator("first");
        until("the first to lead", LIMIT, || leads(&first).then_some(())).expect("a leader");
        let coordinators = vec![first, coordinator("second")];
        let workers = (0..2)
            .map(|i| worker(dir.path(), &format!("worker-{i}"), ["--etcd", &etcd.url]).expect("worker"));
        let workers = workers.collect();
        Some(Self { coordinators, workers, spec, expected, etcd, dir })
    }

    fn endpoint(&self, at: usize) -> &str {
        &self.coordinators[at].endpoint
    }

    /// Both, the one that stands by in front.
    fn endpoints(&self) -> String {
        format!("{},{}", self.endpoint(1), self.endpoint(0))
    }

    /// Submits to the coordinator that stands by, and waits until some trials are durable, but not all.
    fn midway(&self) -> String {
        let output = run(["submit", &text(&self.spec), "--endpoint", self.endpoint(1)]).expect("submit");
        assert!(output.status.success(), "{}", printed(&output));
        let sweep = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (durable, total) = until("the first durable results", LIMIT, || {
            let status = status(self.endpoint(0), &sweep)?;
            (done(&status) > 0).then(|| (done(&status), status["trials"].as_u64().unwrap_or(0)))
        })
        .expect("midway");
        assert!(durable < total, "the sweep was over before the fault could fire");
        sweep
    }

    /// Somebody who watches, and has seen the first news.
    fn watch(&self, sweep: &str) -> Process {
        let command = evenkeel(["watch", sweep, "--endpoint", &self.endpoints()]);
        let watch = Process::start(self.dir.path(), "watch", command).expect("watch");
        until("the first news", LIMIT, || (!watch.log().is_empty()).then_some(())).expect("news");
        watch
    }

    /// The results are those of the calm run.
    fn check(&self, sweep: &str) {
        let out = self.dir.path().join("fetched");
        let fetched =
            run(["results", sweep, "--out", &text(&out), "--endpoint", &self.endpoints()]).expect("results");
        assert!(fetched.status.success(), "{}", printed(&fetched));
        assert_same_results(&self.expected, &out);
    }

    /// Time until the second coordinator leads and has more results than there were.
    fn until_taken_over(&self, sweep: &str, before: u64) -> (Duration, Duration) {
        let began = Instant::now();
        until("the second to lead", LIMIT, || leads(&self.coordinators[1]).then_some(())).expect("a leader");
        let led = began.elapsed();
        let more = |status: serde_json::Value| (done(&status) > before).then_some(());
        until("more results", LIMIT, || status(self.endpoint(1), sweep).and_then(more)).expect("results");
        (led, began.elapsed())
    }

    fn durable(&self, sweep: &str) -> u64 {
        done(&status(self.endpoint(1), sweep).expect("status from the one that stands by"))
    }
}

fn leads(coordinator: &Coordinator) -> bool {
    coordinator.process.log().contains("store loaded")
}

#[test]
fn a_coordinator_that_stands_by_answers_as_the_leader_does() {
    let Some(cluster) = Cluster::start() else { return };
    let sweep = cluster.midway();
    assert!(!leads(&cluster.coordinators[1]), "the second leads beside the first");
    let list = run(["list", "--json", "--endpoint", cluster.endpoint(1)]).expect("list");
    assert!(printed(&list).contains(&sweep), "{}", printed(&list));
    // Also what only the leader can do, without a word to the user.
    for command in [&["workers", "--json"][..], &["pause", &sweep], &["resume", &sweep]] {
        let output = run(command.iter().chain(&["--endpoint", cluster.endpoint(1)])).expect("run");
        assert!(output.status.success(), "{command:?}: {}", printed(&output));
    }
    let mut watch = cluster.watch(&sweep);
    assert!(watch.wait(LIMIT).expect("end").success(), "{}", watch.log());
    // An ended sweep is read from the store by either.
    cluster.check(&sweep);
    let unknown = run(["status", "nothing-0000000000", "--endpoint", cluster.endpoint(1)]).expect("status");
    assert_eq!(unknown.status.code(), Some(2), "{}", printed(&unknown));
}

#[test]
fn a_killed_leader_is_followed_by_the_other_and_clients_go_along() {
    let Some(mut cluster) = Cluster::start() else { return };
    let sweep = cluster.midway();
    let mut watch = cluster.watch(&sweep);
    let before = cluster.durable(&sweep);
    assert!(cluster.coordinators[0].process.kill(), "the leader had ended before it was killed");
    let (led, went_on) = cluster.until_taken_over(&sweep, before);
    println!(
        "led {:.2} leases after kill -9, first new result after {:.2}",
        led.as_secs_f64() / LEASE.as_secs_f64(),
        went_on.as_secs_f64() / LEASE.as_secs_f64()
    );
    assert!(watch.wait(LIMIT).expect("end").success(), "{}", watch.log());
    assert!(watch.log().contains("looking for the one that leads"), "{}", watch.log());
    cluster.check(&sweep);
}

/// Behind a Service a client sees one address, and reaches no coordinator by its own.
#[test]
fn a_client_that_knows_only_a_standby_stays_with_it_from_leader_to_leader() {
    let Some(mut cluster) = Cluster::start() else { return };
    let port = free_port().expect("port");
    let third = Coordinator::start(cluster.dir.path(), "third", port, Some(&cluster.etcd.url));
    cluster.coordinators.push(third.expect("coordinator"));
    let passes_on = |log: String, to: &str| {
        log.lines().any(|line| line.contains("calls are passed on") && line.contains(to)).then_some(())
    };
    until("the third to reach the first", LIMIT, || {
        passes_on(cluster.coordinators[2].process.log(), cluster.endpoint(0))
    })
    .expect("a way");
    let sweep = cluster.midway();
    let command = evenkeel(["watch", &sweep, "--endpoint", cluster.endpoint(2)]);
    let mut watch = Process::start(cluster.dir.path(), "watch-third", command).expect("watch");
    until("the first news", LIMIT, || (!watch.log().is_empty()).then_some(())).expect("news");
    let mut first = cluster.coordinators.remove(0);
    assert!(first.process.kill(), "the leader had ended before it was killed");
    // Who stood longest is next: the second leads, and the third goes on to stand by.
    until("the second to lead", LIMIT, || leads(&cluster.coordinators[0]).then_some(())).expect("a leader");
    assert!(watch.wait(LIMIT).expect("end").success(), "{}", watch.log());
    assert!(watch.log().contains("looking for the one that leads"), "{}", watch.log());
    let (second, third) = (&cluster.coordinators[0], &cluster.coordinators[1]);
    passes_on(third.process.log(), &second.endpoint).expect("passed on to the second");
    assert!(!leads(third));
    cluster.check(&sweep);
}

#[test]
fn a_leader_that_was_frozen_longer_than_its_lease_stands_by_and_may_lead_again() {
    let Some(mut cluster) = Cluster::start() else { return };
    let sweep = cluster.midway();
    let before = cluster.durable(&sweep);
    cluster.coordinators[0].process.signal("-STOP").expect("kill");
    cluster.until_taken_over(&sweep, before);
    cluster.coordinators[0].process.signal("-CONT").expect("kill");
    let first = &cluster.coordinators[0];
    until("the first to notice", LIMIT, || first.process.log().contains("leadership lost").then_some(()))
        .expect("a deposed leader");
    let mut watch = cluster.watch(&sweep);
    assert!(watch.wait(LIMIT).expect("end").success(), "{}", watch.log());
    cluster.check(&sweep);
    // It is there when the other goes, and knows the sweep.
    cluster.coordinators[1].process.terminate().expect("terminate");
    let ended = cluster.coordinators[1].process.wait(LIMIT).expect("end");
    assert!(ended.success(), "{}", cluster.coordinators[1].process.log());
    let again = || {
        let status = status(cluster.endpoint(0), &sweep)?;
        (status["notice"].is_null() && status["state"] == "completed").then_some(())
    };
    until("the first to lead again", LIMIT, again).expect("a leader");
}

#[test]
fn a_leader_that_is_told_to_leave_hands_over_at_once() {
    let Some(mut cluster) = Cluster::start() else { return };
    let sweep = cluster.midway();
    let before = cluster.durable(&sweep);
    let told = Instant::now();
    cluster.coordinators[0].process.terminate().expect("terminate");
    assert!(cluster.coordinators[0].process.wait(LIMIT).expect("end").success());
    cluster.until_taken_over(&sweep, before);
    println!("more results {:.2} leases after SIGTERM", told.elapsed().as_secs_f64() / LEASE.as_secs_f64());
    let mut watch = cluster.watch(&sweep);
    assert!(watch.wait(LIMIT).expect("end").success(), "{}", watch.log());
    cluster.check(&sweep);
}

#[test]
fn a_worker_that_was_frozen_longer_than_its_lease_registers_again_and_loses_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let sweep = cluster.midway();
    cluster.workers[0].signal("-STOP").expect("kill");
    let leader = &cluster.coordinators[0].process;
    until("the worker to be lost", LIMIT, || leader.log().contains("worker lost").then_some(()))
        .expect("loss");
    cluster.workers[0].signal("-CONT").expect("kill");
    let mut watch = cluster.watch(&sweep);
    assert!(watch.wait(LIMIT).expect("end").success(), "{}", watch.log());
    cluster.check(&sweep);
    let back = || {
        let output = run(["workers", "--json", "--endpoint", cluster.endpoint(0)]).ok()?;
        let listing: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let ready = listing["workers"].as_array()?.iter().filter(|worker| worker["state"] == "ready").count();
        (ready == 2).then_some(())
    };
    until("the worker to be back", LIMIT, back).expect("two workers");
}
