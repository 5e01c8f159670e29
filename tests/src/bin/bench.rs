//! `make bench`: rates of the engine and of dispatch, as ratios taken in one run. Prints Markdown for docs/benchmarks.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evenkeel_tests::http;
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
    if wanted("finetune") {
        finetune()?;
    }
    if wanted("dispatch") {
        dispatch()?;
    }
    if wanted("telemetry") {
        println!("### Telemetry\n\n{}", evenkeel_tests::cost::telemetry(DISPATCH_SPEC)?);
    }
    if wanted("aggregation") {
        aggregation()?;
    }
    if wanted("page") {
        page()?;
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

/// Full fine-tuning of MiniLM beside PyTorch and transformers, on the same texts, in turns.
fn finetune() -> anyhow::Result<()> {
    const SAMPLES: &str = "1000";
    const STEPS: &str = "60";
    const RUNS: usize = 3;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = root.join(".deps/data");
    if !data.join("minilm/model.safetensors").exists() {
        println!("### Full fine-tuning\n\nNot measured: `make data` fetches texts and encoder.\n");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let python = python_with(dir.path(), &["torch==2.11.0", "transformers==5.23.0"]);
    let ours = |buckets: &str, precision: &str| {
        let mut command = Command::new(program("evenkeel-worker"));
        command.arg("bench-finetune").arg(&data).args([SAMPLES, STEPS, buckets, precision]);
        json_of(&mut command)
    };
    let mut found: [Vec<Value>; 4] = Default::default();
    for _ in 0..RUNS {
        found[0].push(ours("buckets", "fp32")?);
        found[1].push(ours("plain", "fp32")?);
        found[2].push(ours("buckets", "bf16")?);
        if let Ok(python) = &python {
            let mut command = Command::new(python);
            command.arg(root.join("scripts/bench_transformers.py")).arg(&data).args([SAMPLES, STEPS]);
            found[3].push(json_of(command.env("HF_HUB_OFFLINE", "1"))?);
        }
    }
    println!("### Full fine-tuning\n");
    println!(
        "MiniLM (6 layers, 384 features) on {SAMPLES} film reviews, 16 examples a step, AdamW with clipping and the model's \
         dropout, one thread; {STEPS} steps, medians of {RUNS} runs taken in turns. The rival pads each step to its longest \
         text, as transformers' collator does.\n"
    );
    println!("| | steps/s | examples/s | beside PyTorch | peak memory |");
    println!("|---|--:|--:|--:|--:|");
    let middle = |runs: &[Value], key: &str| {
        median(&mut runs.iter().map(|run| run[key].as_f64().unwrap_or(f64::NAN)).collect::<Vec<_>>())
    };
    let rival = middle(&found[3], "steps_per_s");
    let names = [
        "Evenkeel",
        "Evenkeel, batches in random order",
        "Evenkeel, bf16",
        "PyTorch 2.11 + transformers 5.23",
    ];
    for (name, runs) in names.iter().zip(&found).filter(|(_, runs)| !runs.is_empty()) {
        let rate = middle(runs, "steps_per_s");
        println!(
            "| {name} | {rate:.2} | {:.1} | **{:.2}** | {:.0} MB |",
            middle(runs, "examples_per_s"),
            rate / rival,
            middle(runs, "peak_mb"),
        );
    }
    if let Err(error) = python {
        println!("\nPyTorch and transformers could not be measured beside it: {error:#}");
    }
    println!();
    Ok(())
}

/// Runs a command that prints one JSON object.
fn json_of(command: &mut Command) -> anyhow::Result<Value> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", printed(&output));
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} printed no JSON"))
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
    let python = python_with(dir.path(), &["distributed==2025.11.0"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bench_dask.py");
    let output = Command::new(python).arg(script).stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// The Python of a new environment with these packages.
fn python_with(dir: &Path, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let venv = dir.join("venv");
    let step = |command: &mut Command| -> anyhow::Result<()> {
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!(
                "{}",
                String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
            );
        }
        Ok(())
    };
    step(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    step(Command::new(venv.join("bin/pip")).args(["install", "--quiet"]).args(packages))?;
    Ok(venv.join("bin/python"))
}

/// A million trials of zero steps on 5,000 datasets: scores that vary over seeds, and nothing that takes long to train.
const AGGREGATION_SPEC: &str = "
apiVersion: evenkeel/v1
name: aggregation
datasets:
  - synthetic: {generator: blobs, samples: 4, features: 2, test_samples: 50, cluster_std: 8.0, instances: 5000}
strategies:
  - {name: head, setting: head, steps: 0, learning_rate: 0.1}
  - {name: heads-2, setting: head, steps: 0, learning_rate: 0.1, mhloss: {heads: 2}}
  - {name: heads-3, setting: head, steps: 0, learning_rate: 0.1, mhloss: {heads: 3}}
  - {name: heads-5, setting: head, steps: 0, learning_rate: 0.1, mhloss: {heads: 5}}
seeds: 50
stability: {exact_margin: false}
";

/// From a finished sweep in the store to all tables, statistics and the report, beside pandas and scipy on the results alone.
fn aggregation() -> anyhow::Result<()> {
    const RUNS: usize = 3;
    let dir = tempfile::tempdir()?;
    let (spec, out) = (dir.path().join("aggregation.yaml"), dir.path().join("out"));
    fs::write(&spec, AGGREGATION_SPEC)?;
    let arguments = ["run".as_ref(), spec.as_os_str(), "--out".as_ref(), out.as_os_str(), "--quiet".as_ref()];
    let output = evenkeel(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("the sweep failed: {}", printed(&output));
    }
    let python = python_with(
        dir.path(),
        &["pandas==3.1.1", "pyarrow==26.0.1", "scipy==1.17.1", "statsmodels==0.15.0"],
    );
    let (mut ours, mut peaks, mut rivals) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..RUNS {
        // Everything is trained already: what is left is to read, to compute and to write.
        let began = Instant::now();
        let mut process = Process::start(dir.path(), &format!("aggregation-{number}"), evenkeel(arguments))?;
        let mut peak = 0;
        let status = loop {
            peak = peak_memory_mb(process.pid()).unwrap_or(peak).max(peak);
            match process.wait(Duration::from_millis(50)) {
                Ok(status) => break status,
                Err(_) if began.elapsed() < Duration::from_secs(600) => {}
                Err(error) => return Err(error),
            }
        };
        if !status.success() {
            bail!("aggregation failed: {}", process.log());
        }
        ours.push(began.elapsed().as_secs_f64());
        peaks.push(peak as f64);
        if let Ok(python) = &python {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bench_pandas.py");
            rivals.push(json_of(Command::new(python).arg(script).arg(&out))?);
        }
    }
    println!("### Aggregation\n");
    println!(
        "A million trials (5,000 datasets, 4 strategies, 50 seeds), medians of {RUNS} runs. Evenkeel reads the segments of the store \
         and writes every table, the report and its pictures, with a bootstrap interval for each of 15,000 pairs; pandas reads the \
         columns of `results.parquet` that it needs, computes the same statistics of the score, and writes nothing. Its bootstraps \
         are timed on 100 pairs and extrapolated.\n"
    );
    println!("| | seconds | peak memory |\n|---|--:|--:|");
    let (seconds, peak) = (median(&mut ours), median(&mut peaks));
    println!("| Evenkeel, everything | {seconds:.1} | {peak:.0} MB |");
    if let Err(error) = python {
        println!("\npandas could not be measured beside it: {error:#}\n");
        return Ok(());
    }
    let of = |key: &str| {
        median(&mut rivals.iter().map(|run| run[key].as_f64().unwrap_or(f64::NAN)).collect::<Vec<_>>())
    };
    let rival = of("seconds");
    println!("| pandas + scipy, statistics of the score | {rival:.1} | {:.0} MB |", of("peak_mb"));
    println!("\nEvenkeel takes **1/{:.1}** of the time.\n", rival / seconds);
    Ok(())
}

/// The page of a sweep with a million trials: right after the coordinator begun, and afterwards.
fn page() -> anyhow::Result<()> {
    const FILES: [&str; 3] = ["/assets/page.css", "/assets/page.js", "/assets/icon.svg"];
    const COLD: usize = 5;
    const WARM: usize = 30;
    let dir = tempfile::tempdir()?;
    let spec = dir.path().join("page.yaml");
    fs::write(&spec, AGGREGATION_SPEC)?;
    let http = format!("127.0.0.1:{}", free_port()?);
    let start = || Coordinator::start_with(dir.path(), "coordinator", free_port()?, None, &["--http", &http]);
    let ready = || until("it to lead", Duration::from_secs(120), || http::body(&http, "/readyz").ok());
    let mut coordinator = start()?;
    ready()?;
    let workers: Vec<Process> = (0..2)
        .map(|i| worker(dir.path(), &format!("worker-{i}"), ["--coordinator", &coordinator.endpoint]))
        .collect::<Result<_, _>>()?;
    let output = run(["submit", &spec.to_string_lossy(), "--wait", "--endpoint", &coordinator.endpoint])?;
    let sweep = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    if !output.status.success() {
        bail!("the sweep failed: {}", printed(&output));
    }
    drop(workers);
    let load = || -> anyhow::Result<(f64, usize)> {
        let began = Instant::now();
        let mut bytes = http::body(&http, &format!("/sweeps/{sweep}"))?.len();
        let seconds = began.elapsed().as_secs_f64();
        for file in FILES {
            bytes += http::body(&http, file)?.len();
        }
        Ok((seconds, bytes))
    };
    let live = || -> anyhow::Result<f64> {
        let live: Value = serde_json::from_str(&http::body(&http, &format!("/api/v1/sweeps/{sweep}/live"))?)?;
        live["read"].as_f64().context("no `read`")
    };
    let (mut cold, mut whole, mut warm, mut trial) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut most = 0;
    for _ in 0..COLD {
        coordinator.process.kill();
        coordinator = start()?;
        ready()?;
        let began = Instant::now();
        let (seconds, bytes) = load()?;
        most = most.max(bytes);
        cold.push(seconds);
        until("all results to be read", Duration::from_secs(60), || live().ok().filter(|read| *read >= 1.0))?;
        whole.push(began.elapsed().as_secs_f64());
    }
    for number in 0..WARM {
        let (seconds, bytes) = load()?;
        most = most.max(bytes);
        warm.push(seconds);
        let began = Instant::now();
        http::body(&http, &format!("/sweeps/{sweep}/trials/{}", number * 33_331))?;
        trial.push(began.elapsed().as_secs_f64());
    }
    println!("### Page\n");
    println!(
        "The page of a sweep with a million trials in {} segments, over HTTP, medians: of {COLD} first views after a start, which show what \
         is read within 300 ms, and of {WARM} views afterwards. Bytes are those of everything that a view loads, without compression.\n",
        fs::read_dir(dir.path().join(format!("store/sweeps/{sweep}/segments")))?.count()
    );
    println!("| | ms |\n|---|--:|");
    let ms = |values: &mut [f64]| 1e3 * median(values);
    println!("| first view after a start | **{:.0}** |", ms(&mut cold));
    println!("| from there until all results are in it | {:.0} |", ms(&mut whole));
    println!("| later views | **{:.0}** |", ms(&mut warm));
    println!("| slowest later view | {:.0} |", 1e3 * warm.iter().copied().fold(0.0, f64::max));
    println!("| page of a trial | {:.0} |", ms(&mut trial));
    println!(
        "\n{:.2} MB a view; the coordinator's peak memory is {} MB.\n",
        most as f64 / 1e6,
        peak_memory_mb(coordinator.process.pid())?
    );
    Ok(())
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
