//! `make bench`: rates of the engine and of dispatch, as ratios taken in one run. Prints Markdown for docs/benchmarks.md.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evenkeel_tests::process::{
    Coordinator, Process, done, evenkeel, free_port, printed, program, run, status, until, worker,
};
use serde_json::Value;

/// Shapes (n, d) of the engine's table: those of the quickstart, a small one, more samples, and BERT-sized features.
const SHAPES: [(u32, u32); 4] = [(200, 64), (100, 16), (400, 64), (250, 768)];
const STEPS: u32 = 1000;

fn main() -> anyhow::Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    println!("Machine: {}, {} cores.\n", cpu_model(), std::thread::available_parallelism()?);
    if wanted("engine") {
        engine()?;
    }
    if wanted("dispatch") {
        dispatch()?;
    }
    if wanted("plan") {
        plan()?;
    }
    if wanted("first") {
        first_result()?;
    }
    Ok(())
}

fn engine() -> anyhow::Result<()> {
    println!("### Head engine\n");
    println!(
        "A training is {STEPS} full-batch steps of a two-class head; a trial is 21 of them, with its 20 leave-one-out \
         refits. One core; medians of five runs. Of sgemm: the engine's rate over that of libtorch's matrix product. \
         The rivals train one head at a time through libtorch: by automatic differentiation, and with the gradient \
         written out.\n"
    );
    println!(
        "| n | d | form | trainings/s | GFLOP/s | sgemm GFLOP/s | of sgemm | autograd /s | times faster | written out /s | times faster |"
    );
    println!("|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (n, d) in SHAPES {
        let output = Command::new(program("evenkeel-worker"))
            .args(["bench-engine", &n.to_string(), &d.to_string(), &STEPS.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            bail!("the engine's bench failed: {}", printed(&output));
        }
        let r: Value =
            serde_json::from_slice(&output.stdout).context("the engine's bench printed no JSON")?;
        let f = |key: &str| r[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "| {n} | {d} | {} | {:.0} | {:.1} | {:.1} | **{:.0} %** | {:.1} | **{:.0}** | {:.1} | {:.0} |",
            if r["gram"].as_bool() == Some(true) { "Gram" } else { "primal" },
            f("trainings_per_s"),
            f("gflops"),
            f("sgemm_gflops"),
            100.0 * f("share_of_sgemm"),
            f("alone_per_s"),
            f("speed_up"),
            f("written_out_per_s"),
            f("speed_up_written_out"),
        );
    }
    println!();
    Ok(())
}

/// Ten million trials of zero steps on tiny datasets: nothing but scheduling, transport and durable accounting.
const DISPATCH_SPEC: &str = "
apiVersion: evenkeel/v1
name: dispatch
datasets:
  - synthetic: {generator: blobs, samples: 4, features: 2, test_samples: 2, instances: 100}
strategies:
  - {name: head, setting: head, steps: 0, learning_rate: 0.1}
seeds: 100000
stability: {exact_margin: false}
";

fn dispatch() -> anyhow::Result<()> {
    const RUNS: usize = 3;
    println!("### Dispatch\n");
    println!("Trials of zero steps, two workers, every result in a durable segment before it counts.\n");
    println!("| run | trials/s | coordinator's peak memory |");
    println!("|--:|--:|--:|");
    let mut rates = Vec::new();
    for number in 1..=RUNS {
        let dir = tempfile::tempdir()?;
        let spec = dir.path().join("dispatch.yaml");
        fs::write(&spec, DISPATCH_SPEC)?;
        let coordinator = Coordinator::start(dir.path(), "coordinator", free_port()?, None)?;
        let endpoint = coordinator.endpoint.clone();
        let _workers: Vec<Process> = (0..2)
            .map(|i| worker(dir.path(), &format!("worker-{i}"), ["--coordinator", &endpoint]))
            .collect::<Result<_, _>>()?;
        let output = run(["submit", &spec.to_string_lossy(), "--endpoint", &endpoint])?;
        let sweep = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let now = || status(&endpoint, &sweep).map(|status| done(&status));
        until("the first durable results", Duration::from_secs(60), || now().filter(|done| *done > 0))?;
        std::thread::sleep(Duration::from_secs(2));
        let (before, began) = (now().context("status")?, Instant::now());
        std::thread::sleep(Duration::from_secs(15));
        let (after, took) = (now().context("status")?, began.elapsed().as_secs_f64());
        let rate = (after - before) as f64 / took;
        rates.push(rate);
        println!("| {number} | {rate:.0} | {} MB |", peak_memory_mb(coordinator.process.pid())?);
    }
    let ours = median(&mut rates);
    println!("\nMedian: **{ours:.0} trials/s**.");
    match dask_rate() {
        Ok(rival) => println!(
            "Dask distributed, same machine, same run, two worker processes, no-op tasks: {rival:.0} tasks/s; Evenkeel does **{:.0} times** as many.\n",
            ours / rival
        ),
        Err(error) => println!("Dask could not be measured beside it: {error:#}\n"),
    }
    Ok(())
}

fn dask_rate() -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let venv = dir.path().join("venv");
    let step = |command: &mut Command| -> anyhow::Result<Vec<u8>> {
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!(
                "{}",
                String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
            );
        }
        Ok(output.stdout)
    };
    step(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    step(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "distributed==2025.11.0"]))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bench_dask.py");
    let printed = step(Command::new(venv.join("bin/python")).arg(script))?;
    Ok(String::from_utf8_lossy(&printed).trim().parse()?)
}

fn plan() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let spec = dir.path().join("dispatch.yaml");
    fs::write(&spec, DISPATCH_SPEC)?;
    let mut seconds = Vec::new();
    for _ in 0..9 {
        let began = Instant::now();
        let output = run(["plan", &spec.to_string_lossy(), "--json"])?;
        seconds.push(began.elapsed().as_secs_f64());
        let plan: Value = serde_json::from_slice(&output.stdout)?;
        if plan["trials"].as_u64() != Some(10_000_000) {
            bail!("the plan has {} trials", plan["trials"]);
        }
    }
    println!(
        "### Plan\n\nA grid of 10 million trials plans in **{:.0} ms** (whole process, median of 9).\n",
        median(&mut seconds) * 1e3
    );
    Ok(())
}

fn first_result() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let spec = root.join("examples/quickstart.yaml");
    let mut seconds = Vec::new();
    for number in 0..7 {
        let dir = tempfile::tempdir()?;
        let out = dir.path().join("out");
        let began = Instant::now();
        let arguments = ["run".as_ref(), spec.as_os_str(), "--out".as_ref(), out.as_os_str()];
        let mut process = Process::start(dir.path(), &format!("run-{number}"), evenkeel(arguments))?;
        let segment = || {
            let sweep = fs::read_dir(out.join("store/sweeps")).ok()?.next()?.ok()?.path();
            fs::read_dir(sweep.join("segments"))
                .ok()?
                .flatten()
                .find(|file| file.path().extension().is_some_and(|e| e == "parquet"))
        };
        let end = began + Duration::from_secs(60);
        while segment().is_none() {
            if Instant::now() > end {
                bail!("no durable result after 60 s: {}", process.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        seconds.push(began.elapsed().as_secs_f64());
        process.kill();
    }
    println!(
        "### First result\n\nFrom `evenkeel run examples/quickstart.yaml` to the first durable result: **{:.2} s** (median of 7).\n",
        median(&mut seconds)
    );
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn peak_memory_mb(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024)
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|line| line.split_once(':'));
    model.map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.trim().to_owned())
}
