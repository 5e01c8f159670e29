//! A coordinator with its workers, and what it is asked.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_tests::http;
use evenkeel_tests::process::{Coordinator, Process, free_port, printed, run, until, worker_with};
use serde_json::Value;

pub const LIMIT: Duration = Duration::from_secs(240);

/// A small sweep of two strategies, one of which leaves the numbers.
pub const SMALL: &str = "
apiVersion: evenkeel/v1
name: small
datasets:
  - synthetic: {generator: separable, samples: [30, 60], features: 8, margin: 0.5, instances: 3}
strategies:
  - {name: head, setting: head, steps: 200, learning_rate: 0.1, checkpoints: [50, 100]}
  - {name: wild, setting: head, steps: 200, learning_rate: 1.0e+6, weight_decay: 1.0e+3, bias: true}
  - {name: several, setting: head, steps: 200, learning_rate: 0.1, mhloss: {heads: [2, 5]}}
seeds: 6
stability: {leave_one_out: 4}
";

/// Two cores are busy with it for a good while: it is cancelled. The second dataset fits no machine.
pub const LONG: &str = "
apiVersion: evenkeel/v1
name: long
datasets:
  - synthetic: {generator: separable, samples: 10000000, features: 4000, margin: 0.5}
  - synthetic: {generator: separable, samples: 200, features: 64, margin: {linspace: [0.1, 4.0, 40]}, instances: 20}
strategies:
  - {name: head, setting: head, steps: 3000, learning_rate: 0.1}
  - {name: '<script>alert(1)</script>', setting: head, steps: 3000, learning_rate: 0.1, mhloss: {heads: 3}}
seeds: 10
stability: {leave_one_out: 20, exact_margin: false}
retries: {max_attempts: 1}
";

/// A coordinator and its workers.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub coordinator: Coordinator,
    _workers: Vec<Process>,
    pub http: String,
}

impl Cluster {
    pub fn start(workers: usize, more: &[&str], worker_flags: &[&str], dir: tempfile::TempDir) -> Self {
        let http = format!("127.0.0.1:{}", free_port().expect("port"));
        let flags: Vec<&str> = ["--http", &http].into_iter().chain(more.iter().copied()).collect();
        let port = free_port().expect("port");
        let coordinator =
            Coordinator::start_with(dir.path(), "coordinator", port, None, &flags).expect("coordinator");
        until("it to lead", LIMIT, || http::body(&http, "/readyz").ok()).expect("a leader");
        let registry = ["--coordinator", coordinator.endpoint.as_str()];
        let workers = (0..workers)
            .map(|i| worker_with(dir.path(), &format!("worker-{i}"), registry, worker_flags).expect("worker"))
            .collect();
        Self { dir, coordinator, _workers: workers, http }
    }

    pub fn plain(workers: usize) -> Self {
        Self::start(workers, &[], &[], tempfile::tempdir().expect("tempdir"))
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.send("POST", path, &[], body)
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let (status, rest) = http::send(&self.http, method, path, headers, body).expect("an answer");
        let body = rest.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        (code(&status), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    pub fn submit(&self, spec: &str) -> String {
        let (code, answer) = self.post("/api/v1/sweeps", spec);
        assert_eq!(code, 201, "{answer}");
        answer["id"].as_str().expect("id").to_owned()
    }

    pub fn ended(&self, sweep: &str) -> Value {
        let path = format!("/api/v1/sweeps/{sweep}");
        let ended = until("the end", LIMIT, || {
            Some(self.get(&path).1)
                .filter(|view| view["state"] == "completed" || view["state"] == "cancelled")
        });
        ended.unwrap_or_else(|error| panic!("{error}: {}", self.coordinator.process.log()))
    }

    pub fn cli(&self, args: &[&str]) -> Value {
        let output =
            run(args.iter().chain(&["--json", "--endpoint", &self.coordinator.endpoint])).expect("run");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {}", printed(&output)))
    }

    pub fn results(&self, sweep: &str) -> PathBuf {
        let out = self.dir.path().join("results");
        let output = run([
            "results",
            sweep,
            "--out",
            &out.to_string_lossy(),
            "--endpoint",
            &self.coordinator.endpoint,
        ]);
        assert!(out.join("summary.json").is_file(), "{}", printed(&output.expect("run")));
        out
    }
}

pub fn code(status: &str) -> u16 {
    status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{status}"))
}
