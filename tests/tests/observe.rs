//! What operators look at: metrics through a real Prometheus, dashboards, alerts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_tests::http;
use evenkeel_tests::process::{Coordinator, Process, free_port, printed, run, status, until, worker_with};
use evenkeel_tests::prometheus::{Prometheus, promtool};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// A sweep of two cores for a good while: it is cancelled.
const LONG: &str = "
apiVersion: evenkeel/v1
name: looked-at
datasets:
  - synthetic: {generator: separable, samples: 200, features: 64, margin: {linspace: [0.1, 4.0, 40]}, instances: 20}
strategies:
  - {name: head, setting: head, steps: 4000, learning_rate: 0.1}
seeds: 20
stability: {leave_one_out: 40}
";

const SHORT: &str = "
apiVersion: evenkeel/v1
name: counted
datasets:
  - synthetic: {generator: separable, samples: 60, features: 8, margin: 0.5, instances: 10}
strategies:
  - {name: head, setting: head, steps: 200, learning_rate: 0.1}
  - {name: wild, setting: head, steps: 200, learning_rate: 1.0e+6, weight_decay: 1.0e+3, bias: true}
seeds: 5
";

struct Cluster {
    dir: tempfile::TempDir,
    coordinator: Coordinator,
    workers: Vec<Process>,
    http: Vec<String>,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let addresses: Vec<String> =
            (0..3).map(|_| format!("127.0.0.1:{}", free_port().expect("port"))).collect();
        let port = free_port().expect("port");
        let coordinator =
            Coordinator::start_with(dir.path(), "coordinator", port, None, &["--http", &addresses[0]])
                .expect("start");
        let workers = (1..3)
            .map(|number| {
                let registry = ["--coordinator", coordinator.endpoint.as_str()];
                let name = format!("worker-{number}");
                worker_with(dir.path(), &name, registry, &["--http", &addresses[number]]).expect("start")
            })
            .collect();
        for address in &addresses {
            until("all to be ready", LIMIT, || http::body(address, "/readyz").ok()).expect("ready");
        }
        Self { dir, coordinator, workers, http: addresses }
    }

    fn submit(&self, spec: &str) -> String {
        let file = self.dir.path().join("spec.yaml");
        fs::write(&file, spec).expect("write");
        let output =
            run(["submit", &file.to_string_lossy(), "--endpoint", &self.coordinator.endpoint]).expect("run");
        assert!(output.status.success(), "{}", printed(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/evenkeel")
}

/// Title and expressions of every panel of every dashboard.
fn panels() -> Vec<(String, Vec<String>)> {
    let mut panels = Vec::new();
    for file in fs::read_dir(chart().join("dashboards")).expect("dashboards").flatten() {
        let text = fs::read_to_string(file.path()).expect("read");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let name = dashboard["title"].as_str().expect("title").to_owned();
        for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|p| p["type"] != "row") {
            let title = format!("{name}: {}", panel["title"].as_str().expect("title"));
            assert!(
                panel["description"].as_str().is_some_and(|text| text.len() > 10),
                "{title}: no description"
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            let targets = panel["targets"].as_array().expect("targets");
            let expression = |target: &Value| target["expr"].as_str().expect("expression").to_owned();
            panels.push((title, targets.iter().map(expression).collect()));
        }
    }
    panels
}

#[test]
fn every_panel_of_every_dashboard_shows_data_of_a_sweep_that_runs() {
    let cluster = Cluster::start();
    let targets: Vec<&str> = cluster.http.iter().map(String::as_str).collect();
    let Some(prometheus) = Prometheus::start(cluster.dir.path(), &targets).expect("Prometheus") else {
        return;
    };
    let sweep = cluster.submit(LONG);
    let panels = panels();
    assert!(panels.len() > 30, "only {} panels", panels.len());
    let gpu = Path::new("/dev/nvidia0").exists();
    for (title, expressions) in panels {
        for expression in expressions {
            let filled = expression
                .replace("$__rate_interval", "10s")
                .replace("$sweep", ".*")
                .replace("$worker", ".*");
            assert!(!filled.contains('$'), "{title}: a variable that is not there: {filled}");
            if expression.contains("_gpu_") && !gpu {
                prometheus.query(&filled).unwrap_or_else(|error| panic!("{title}: {error:#}"));
                continue;
            }
            until(&title, LIMIT, || {
                let found = prometheus.query(&filled).unwrap_or_else(|error| panic!("{title}: {error:#}"));
                (!found.is_empty()).then_some(())
            })
            .unwrap_or_else(|_| panic!("{title} shows nothing: {filled}"));
        }
    }
    let view = status(&cluster.coordinator.endpoint, &sweep).expect("status");
    assert_eq!(view["state"], "running", "the sweep was over before all panels were looked at");
    let up = prometheus.query("sum(up)").expect("query");
    assert_eq!(up.first().map(|(_, value)| *value), Some(3.0));
}

/// The value of a series in OpenMetrics text.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

#[test]
fn counters_agree_with_what_is_durable_and_with_what_was_lost() {
    let mut cluster = Cluster::start();
    let sweep = cluster.submit(SHORT);
    let watched = run(["watch", &sweep, "--endpoint", &cluster.coordinator.endpoint]).expect("watch");
    assert!(watched.status.success(), "{}", printed(&watched));
    let view = status(&cluster.coordinator.endpoint, &sweep).expect("status");
    let text = http::body(&cluster.http[0], "/metrics").expect("metrics");
    assert!(text.ends_with("# EOF\n"), "not OpenMetrics:\n{text}");
    for outcome in ["completed", "diverged", "failed"] {
        let counted = value(&text, &format!("evenkeel_trials_total{{outcome=\"{outcome}\"}}"));
        assert_eq!(Some(counted), view[outcome].as_f64(), "{outcome}");
    }
    assert!(view["diverged"].as_u64() > Some(0), "nothing diverged: {view}");
    let finished = value(&text, "evenkeel_packs_total{outcome=\"finished\"}");
    assert_eq!(value(&text, "evenkeel_pack_seconds_count"), finished);
    let (mut trials, mut packs) = (0.0, 0.0);
    for address in &cluster.http[1..] {
        let text = http::body(address, "/metrics").expect("metrics");
        trials += value(&text, "evenkeel_worker_trials_total");
        packs += value(&text, "evenkeel_worker_packs_finished_total");
        assert_eq!(value(&text, "evenkeel_worker_registrations_total"), 1.0);
    }
    // A twin of a pack at the end of a sweep may finish too late to count.
    assert!(trials >= view["trials"].as_f64().expect("trials") && packs >= finished, "{trials} {packs}");

    // Whoever looks for the meaning of a metric finds it.
    let docs = fs::read_to_string(chart().join("../../docs/observability.md")).expect("docs");
    for address in &cluster.http {
        let text = http::body(address, "/metrics").expect("metrics");
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a type");
            let end = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            assert!(docs.contains(&format!("| `{name}{end}` | {kind} |")), "{name}{end} is not documented");
        }
    }

    // What a worker takes along is counted as lost.
    cluster.submit(LONG);
    until("packs on both workers", LIMIT, || {
        let text = http::body(&cluster.http[0], "/metrics").ok()?;
        let sum: f64 = text
            .lines()
            .filter(|line| line.starts_with("evenkeel_fleet_packs{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        (sum >= 4.0).then_some(())
    })
    .expect("packs");
    assert!(cluster.workers.pop().is_some_and(|mut worker| worker.kill()));
    until("packs that are lost", LIMIT, || {
        let text = http::body(&cluster.http[0], "/metrics").ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("evenkeel_packs_total{outcome=\"lost\"} "))
            .filter(|count| *count != "0")
            .map(|_| ())
    })
    .expect("lost");
}

#[test]
fn alerts_fire_when_they_should_and_have_a_runbook_each() {
    let rules = chart().join("rules");
    if promtool().arg("--version").output().is_err() {
        eprintln!("skipped: there is no promtool here (PROMETHEUS_BIN names none); `make test` gets one");
        return;
    }
    for arguments in [["check", "rules", "evenkeel.yaml"], ["test", "rules", "tests.yaml"]] {
        let output = promtool().current_dir(&rules).args(arguments).output().expect("promtool");
        assert!(output.status.success(), "{}", printed(&output));
    }
    let text = fs::read_to_string(rules.join("evenkeel.yaml")).expect("rules");
    let tests = fs::read_to_string(rules.join("tests.yaml")).expect("tests");
    let after = |key: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once(key)?.1.trim().to_owned())).collect()
    };
    let (alerts, runbooks) = (after("alert: "), after("runbook_url: "));
    assert_eq!(alerts.len(), runbooks.len());
    for alert in &alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&fires), "no test lets {alert} fire");
    }
    for runbook in runbooks {
        let path = chart().join("../..").join(&runbook);
        assert!(path.is_file(), "{runbook} is not there");
    }
    // What dashboards and alerts ask for is counted somewhere.
    let sources = ["coordinator/src/metrics.rs", "worker/src/metrics.rs"]
        .map(|file| fs::read_to_string(chart().join("../..").join(file)).expect("source"))
        .join("\n");
    let asked = panels().into_iter().flat_map(|(_, expressions)| expressions).chain(after("expr: "));
    for expression in asked {
        for word in expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let Some(name) = word.strip_prefix("evenkeel_") else { continue };
            let name = name.strip_prefix("worker_").unwrap_or(name);
            let stem = [
                "_total", "_bucket", "_count", "_info", "_seconds", "_bytes", "_ratios", "_celsius", "_watts",
            ]
            .iter()
            .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
            assert!(sources.contains(&format!("\"{stem}\"")), "nobody counts {word}");
        }
    }
}
