//! Worker processes of `evenkeel run`: started beside the coordinator, started again when they die.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::exit::Failure;

/// A worker that lives shorter than this did not start.
const START: Duration = Duration::from_secs(5);
/// Starts that may fail in a row before the sweep gives up.
const PATIENCE: u32 = 5;

/// Starts and keeps worker processes.
pub struct LocalWorkers {
    program: PathBuf,
    endpoint: String,
    device: String,
    logs: PathBuf,
    store: PathBuf,
}

impl LocalWorkers {
    /// Finds the worker program: beside this one, or where `EVENKEEL_WORKER` says.
    ///
    /// Their logs, and the store where they keep checkpoints, lie in `out`.
    pub fn new(endpoint: String, device: String, out: &Path) -> Result<Self, Failure> {
        let logs = out.join("logs");
        let program = match std::env::var_os("EVENKEEL_WORKER") {
            Some(program) => PathBuf::from(program),
            None => std::env::current_exe()
                .ok()
                .and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.join("evenkeel-worker")))
                .unwrap_or_else(|| PathBuf::from("evenkeel-worker")),
        };
        if !program.exists() {
            return Err(Failure::unavailable(format!(
                "there is no worker program at {}: run `make build`, or set EVENKEEL_WORKER to it",
                program.display()
            )));
        }
        std::fs::create_dir_all(&logs)
            .map_err(|error| Failure::unavailable(format!("cannot make {}: {error}", logs.display())))?;
        Ok(Self { program, endpoint, device, logs, store: out.join("store") })
    }

    /// Keeps one worker alive until stopped.
    ///
    /// Ends with a failure when it dies at its start again and again.
    pub async fn keep(&self, number: u32, stop: CancellationToken) -> Result<(), Failure> {
        let log = self.logs.join(format!("worker-{number}.log"));
        let mut failures = 0;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let mut child = self.spawn(number, &log)?;
            // It leaves when this closes, which also happens when this process dies, however it does.
            let leash = child.stdin.take();
            let status = tokio::select! {
                () = stop.cancelled() => {
                    drop(leash);
                    let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
                    return Ok(());
                }
                status = child.wait() => status,
            };
            failures = if began.elapsed() < START { failures + 1 } else { 0 };
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(worker = number, %status, log = %log.display(), "worker died, starting it again");
            if failures >= PATIENCE {
                return Err(Failure::unavailable(format!(
                    "worker {number} dies as soon as it starts ({status}); the end of {}:\n{}",
                    log.display(),
                    tail(&log)
                )));
            }
            tokio::time::sleep(Duration::from_millis(200) * failures).await;
        }
        Ok(())
    }

    fn spawn(&self, number: u32, log: &Path) -> Result<Child, Failure> {
        let fail = |error: std::io::Error| {
            Failure::unavailable(format!("cannot start {}: {error}", self.program.display()))
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(fail)?;
        Command::new(&self.program)
            .args(["--coordinator", &self.endpoint, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--device", &self.device, "--name", &format!("local-{number}"), "--exit-with-parent"])
            .arg("--store")
            .arg(&self.store)
            // These workers and their coordinator are one program: what is set for a cluster is not for them.
            .env_remove("EVENKEEL_TOKEN")
            .env_remove("EVENKEEL_TOKEN_FILE")
            .env_remove("EVENKEEL_TLS_CA")
            .env_remove("EVENKEEL_TLS_CERT")
            .env_remove("EVENKEEL_TLS_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(10)).map(|line| format!("  {line}\n")).collect()
}
