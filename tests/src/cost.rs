//! What telemetry costs: dispatch with and without it, in turns.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::http;
use crate::otlp::Receiver;
use crate::process::{
    Coordinator, Process, done, evenkeel, free_port, printed, status, until, worker_command,
};

const PAIRS: usize = 7;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    trials_per_second: f64,
    /// Of coordinator and workers, in microseconds.
    cpu_per_trial: f64,
}

/// Measures a sweep of nothing but dispatch (`spec`) with everything on and with everything off, and gives a table for the
/// documentation.
///
/// # Errors
/// When something does not start.
pub fn telemetry(spec: &str) -> anyhow::Result<String> {
    let (mut on, mut off) = (Vec::new(), Vec::new());
    let mut spans = 0;
    for _ in 0..PAIRS {
        off.push(measure(spec, None)?);
        let receiver = Receiver::start()?;
        on.push(measure(spec, Some(&receiver))?);
        spans += receiver.received.spans().len();
    }
    let middle = |runs: &[Run], value: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rate = |run: &Run| run.trials_per_second;
    let cpu = |run: &Run| run.cpu_per_trial;
    let mut text = format!(
        "Zero-step trials on two workers, {PAIRS} pairs of runs in turns, medians. On: spans, metrics (each second) and logs by \
         OTLP to a receiver on the same machine, and `/metrics` scraped each second; {} spans a run were received.\n\n\
         | telemetry | trials/s | CPU a trial, coordinator and workers |\n|---|--:|--:|\n",
        spans / PAIRS
    );
    for (name, runs) in [("off", &off), ("on", &on)] {
        text += &format!("| {name} | {:.0} | {:.2} µs |\n", middle(runs, rate), middle(runs, cpu));
    }
    let mut ratios: Vec<(f64, f64)> = off
        .iter()
        .zip(&on)
        .map(|(off, on)| {
            (1.0 - on.trials_per_second / off.trials_per_second, on.cpu_per_trial / off.cpu_per_trial - 1.0)
        })
        .collect();
    ratios.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let slower = ratios[PAIRS / 2].0;
    ratios.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
    let dearer = ratios[PAIRS / 2].1;
    text += &format!(
        "\nWithin a pair (median): **{:.1} %** fewer trials a second, **{:.1} %** more CPU a trial.\n",
        100.0 * slower,
        100.0 * dearer
    );
    Ok(text)
}

fn measure(spec: &str, receiver: Option<&Receiver>) -> anyhow::Result<Run> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("spec.yaml");
    fs::write(&file, spec)?;
    let with = |mut command: Command| {
        if let Some(receiver) = receiver {
            command
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", receiver.grpc))
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
                .env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
        }
        command
    };
    let (port, address) = (free_port()?, format!("127.0.0.1:{}", free_port()?));
    let store = dir.path().join("store");
    let command = with(Coordinator::command(&store.to_string_lossy(), port, &["--http", &address]));
    let endpoint = format!("http://127.0.0.1:{port}");
    let coordinator = Coordinator::launch(dir.path(), "coordinator", endpoint.clone(), command)?;
    let workers: Vec<Process> = (0..2)
        .map(|number| {
            let name = format!("worker-{number}");
            let command = with(worker_command(&name, ["--coordinator", &endpoint], &[]));
            Process::start(dir.path(), &name, command)
        })
        .collect::<Result<_, _>>()?;
    let arguments = ["submit", &file.to_string_lossy(), "--endpoint", &endpoint];
    let output = with(evenkeel(arguments)).output()?;
    anyhow::ensure!(output.status.success(), "{}", printed(&output));
    let sweep = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let now = || status(&endpoint, &sweep).map(|status| done(&status));
    until("the first durable results", Duration::from_secs(60), || now().filter(|done| *done > 0))?;
    let pids: Vec<u32> = workers.iter().chain([&coordinator.process]).map(Process::pid).collect();
    let spent = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<anyhow::Result<f64>>();
    std::thread::sleep(WARM_UP);
    let (before, began, cpu) = (now().context("status")?, Instant::now(), spent()?);
    while began.elapsed() < MEASURED {
        std::thread::sleep(Duration::from_secs(1));
        if receiver.is_some() {
            http::body(&address, "/metrics")?;
        }
    }
    let (cpu, took) = (spent()? - cpu, began.elapsed().as_secs_f64());
    let trials = (now().context("status")? - before) as f64;
    Ok(Run { trials_per_second: trials / took, cpu_per_trial: 1e6 * cpu / trials })
}

/// CPU time of a process until now (`proc(5)`, fields `utime` and `stime` of `stat`, at 100 ticks a second).
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let fields: Vec<&str> =
        text.rsplit_once(')').context("no name in stat")?.1.split_ascii_whitespace().collect();
    let ticks = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("a short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
