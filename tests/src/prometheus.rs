//! A real Prometheus that scrapes what it is told.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::http;
use crate::process::{Process, free_port, until};

/// A server with data of its own.
#[derive(Debug)]
pub struct Prometheus {
    /// Its process.
    pub process: Process,
    address: String,
}

impl Prometheus {
    /// Starts one that scrapes these addresses each second: `PROMETHEUS_BIN`, or `prometheus` on the PATH. None, with a reason
    /// printed, when there is none.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path, targets: &[&str]) -> anyhow::Result<Option<Self>> {
        let program = program();
        if Command::new(&program).arg("--version").output().is_err() {
            eprintln!(
                "skipped: there is no Prometheus here (PROMETHEUS_BIN names none); `make test` gets one"
            );
            return Ok(None);
        }
        let mut config = String::from(
            "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: evenkeel\n  static_configs:\n",
        );
        for target in targets {
            writeln!(config, "  - targets: ['{target}']")?;
        }
        let (file, address) = (dir.join("prometheus.yaml"), format!("127.0.0.1:{}", free_port()?));
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command
            .args(["--config.file".as_ref(), file.as_os_str()])
            .args(["--storage.tsdb.path".as_ref(), dir.join("prometheus").as_os_str()])
            .args(["--web.listen-address", &address])
            .args(["--enable-feature", "exemplar-storage"]);
        let process = Process::start(dir, "prometheus", command)?;
        until("Prometheus to be ready", Duration::from_secs(30), || http::body(&address, "/-/ready").ok())?;
        Ok(Some(Self { process, address }))
    }

    /// The labels of the examples that a series has of the last hour.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn exemplars(&self, series: &str) -> anyhow::Result<Vec<Value>> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let (start, end) = (now - 3600, now + 60);
        let body = http::body(
            &self.address,
            &format!("/api/v1/query_exemplars?query={series}&start={start}&end={end}"),
        )?;
        let answer: Value = serde_json::from_str(&body)?;
        let series = answer["data"].as_array().context("no result")?;
        let examples = series.iter().filter_map(|series| series["exemplars"].as_array()).flatten();
        Ok(examples.map(|example| example["labels"].clone()).collect())
    }

    /// What an expression gives now: each series' labels and value.
    ///
    /// # Errors
    /// When Prometheus does not take the expression.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<(Value, f64)>> {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            write!(encoded, "%{byte:02X}")?;
        }
        let body = http::body(&self.address, &format!("/api/v1/query?query={encoded}"))
            .context(expression.to_owned())?;
        let answer: Value = serde_json::from_str(&body)?;
        let rows = answer["data"]["result"].as_array().context("no result")?;
        let value = |row: &Value| Some((row["metric"].clone(), row["value"][1].as_str()?.parse().ok()?));
        Ok(rows.iter().filter_map(value).collect())
    }
}

fn program() -> std::ffi::OsString {
    std::env::var_os("PROMETHEUS_BIN").unwrap_or_else(|| "prometheus".into())
}

/// `promtool`, which lies beside it.
#[must_use]
pub fn promtool() -> Command {
    Command::new(Path::new(&program()).with_file_name("promtool"))
}
