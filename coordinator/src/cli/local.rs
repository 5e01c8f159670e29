//! `evenkeel run`: a coordinator, its workers and the report, all on this machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_common::grid::Grid;
use evenkeel_common::runtime::tls::Tls;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::RunArgs;
use super::exit::{Exit, Failure};
use super::plan::{duration, thousands};
use super::progress::{Display, Progress, TrainingLine};
use super::workers::LocalWorkers;
use crate::access::Access;
use crate::collect::collect;
use crate::driver::{Snapshot, SweepView, TraceConfig, WorkerState};
use crate::export::{Format, RunInfo, Summary};
use crate::limits::Limits;
use crate::server::{Server, ServerConfig, Term};
use crate::store::{Store, StoredState};
use crate::submission::Sweep;

pub async fn run(args: RunArgs) -> Result<Exit, Failure> {
    let sweep = Sweep::from_file(&args.spec)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("out").join(&sweep.grid.spec().name));
    let directory = OutputDirectory::take(&out, &sweep).await?;
    let quiet = args.quiet || args.json;
    let mut display = Display::new(quiet);

    let grpc = TcpListener::bind("127.0.0.1:0").await.map_err(Failure::unavailable)?;
    let config = ServerConfig {
        store: directory.store.clone(),
        grpc,
        http: None,
        etcd: None,
        advertise: String::new(),
        access: Access::open(),
        limits: Limits::NONE,
        tls: Tls::default(),
        compact_after: None,
        connection_age: None,
        traces: TraceConfig::default(),
    };
    let server = Server::open(config).await?;
    let mut term = server.lead().await?;
    let (view, created) = term.driver.submit(sweep).await?;
    let id = view.id.clone();
    let record = directory.store.read_sweep(&id).await?;
    let sweep = Sweep::from_store(&directory.store, &record).await?;
    if !quiet {
        announce(&view, created, &out);
    }
    let view = match view.state {
        StoredState::Paused | StoredState::Cancelled => {
            term.driver.change(&id, crate::driver::Change::Resume).await?
        }
        StoredState::Completed if view.counts.failed > 0 => {
            display.say(&format!("trying the {} failed trials again", view.counts.failed));
            term.driver.change(&id, crate::driver::Change::Retry).await?
        }
        _ => view,
    };

    let stop = CancellationToken::new();
    let mut workers: JoinSet<Result<(), Failure>> = JoinSet::new();
    if view.state != StoredState::Completed {
        let endpoint = format!("http://{}", server.grpc);
        let local = Arc::new(LocalWorkers::new(endpoint, args.device.clone(), &out)?);
        let waiting = view.total - view.counts.total();
        let count =
            u64::from(args.workers.unwrap_or_else(|| default_workers(&args.device))).min(waiting.max(1));
        for number in 1..=u32::try_from(count).unwrap_or(1) {
            let (local, stop) = (local.clone(), stop.clone());
            workers.spawn(async move { local.keep(number, stop).await });
        }
    }
    let end = follow(&mut term, &id, &sweep.grid, &mut display, &mut workers).await;
    stop.cancel();
    let ending = async { while workers.join_next().await.is_some() {} };
    tokio::join!(term.stop(), ending);
    server.close().await;
    let view = match end {
        Ok(End::Ended(view)) => *view,
        Ok(End::Interrupted) => {
            eprintln!("interrupted: what is done is safe in {}; run the same again to resume", out.display());
            return Ok(Exit::Interrupted);
        }
        Err(failure) => return Err(failure),
    };

    let run = RunInfo {
        wall_seconds: Some(view.seconds),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: Some(view.submitted_ms),
        command: Some(format!("evenkeel run {} --out {}", args.spec.display(), out.display())),
        ..RunInfo::default()
    };
    let summary = collect(&directory.store, &sweep, &out, Format::Parquet, run).await?;
    tell(&args, &summary, &view, &out);
    Ok(if view.counts.failed > 0 { Exit::SomeFailed } else { Exit::Fine })
}

fn announce(view: &SweepView, created: bool, out: &Path) {
    let done = view.counts.total();
    if created {
        eprintln!("sweep {}: {} trials, results in {}", view.id, thousands(view.total), out.display());
    } else if done == view.total {
        eprintln!("sweep {}: all {} trials are done already", view.id, thousands(view.total));
    } else {
        eprintln!(
            "sweep {}: resuming, {} of {} trials are done",
            view.id,
            thousands(done),
            thousands(view.total)
        );
    }
}

fn tell(args: &RunArgs, summary: &Summary, view: &SweepView, out: &Path) {
    if args.json {
        println!("{:#}", summary.to_json());
        return;
    }
    if args.quiet {
        return;
    }
    let width = if std::io::IsTerminal::is_terminal(&std::io::stdout()) { None } else { Some(110) };
    println!("{}", crate::report::table(summary, width));
    println!(
        "{} trials in {} ({} completed, {} diverged, {} failed)",
        thousands(view.total),
        duration(view.seconds),
        thousands(view.counts.completed),
        thousands(view.counts.diverged),
        thousands(view.counts.failed)
    );
    println!("report: {}", out.join("report.html").display());
}

enum End {
    Ended(Box<SweepView>),
    Interrupted,
}

async fn follow(
    term: &mut Term,
    id: &evenkeel_common::id::SweepId,
    grid: &Grid,
    display: &mut Display,
    workers: &mut JoinSet<Result<(), Failure>>,
) -> Result<End, Failure> {
    let mut snapshots = term.driver.watch();
    let mut signals = super::coordinator::Signals::new()?;
    loop {
        let now = snapshots.borrow_and_update().clone();
        let Some(view) = now.sweeps.iter().find(|sweep| sweep.id == *id) else {
            return Err(Failure::unavailable("the sweep is gone from the coordinator"));
        };
        let progress = progress(&now, view, grid);
        if matches!(view.state, StoredState::Completed | StoredState::Cancelled) {
            display.finish(&progress);
            return Ok(End::Ended(Box::new(view.clone())));
        }
        display.show(&progress);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return Err(Failure::unavailable("the coordinator died"));
            },
            () = signals.recv() => {
                display.finish(&progress);
                return Ok(End::Interrupted);
            }
            end = term.ended() => return Err(Failure::unavailable(format!("the coordinator stopped: {end:?}"))),
            Some(worker) = workers.join_next() => match worker {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => return Err(failure),
                Err(error) => return Err(Failure::unavailable(error)),
            },
        }
    }
}

/// What a trial trains: its strategy and seed, and its dataset where there are several.
fn training_name(grid: &Grid, trial: u64) -> String {
    let Some(resolved) = grid.trial(trial) else { return format!("trial {trial}") };
    let dataset = match grid.datasets() {
        1 => String::new(),
        _ => format!("{} ", resolved.dataset_name),
    };
    format!("{dataset}{} seed {}", resolved.strategy.name, resolved.seed)
}

fn progress(now: &Snapshot, view: &SweepView, grid: &Grid) -> Progress {
    // Workers that only start are no news.
    let notice = view.notice.clone().filter(|_| view.seconds > 5.0 || now.stalled.is_some());
    Progress {
        done: view.counts.total(),
        total: view.total,
        failed: view.counts.failed,
        diverged: view.counts.diverged,
        workers: now.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count(),
        trials_per_second: view.trials_per_second,
        notice,
        training: view
            .training
            .iter()
            .map(|training| {
                let scores: Vec<f64> = training.scores.iter().copied().collect();
                TrainingLine::new(training_name(grid, training.trial), training.last, &scores)
            })
            .collect(),
    }
}

/// One a core on the CPU: two processes of one thread are faster than one of two. One a GPU otherwise.
fn default_workers(device: &str) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    match device {
        "cpu" => cores,
        "auto" if gpus() == 0 => cores,
        "auto" | "cuda" => gpus().max(1),
        _ => 1,
    }
}

fn gpus() -> u32 {
    let count = (0..64).take_while(|i| Path::new(&format!("/dev/nvidia{i}")).exists()).count();
    u32::try_from(count).unwrap_or(0)
}

/// The output directory, held against a second `run` and checked to be of this spec.
struct OutputDirectory {
    store: Store,
    _lock: File,
}

impl OutputDirectory {
    async fn take(out: &Path, sweep: &Sweep) -> Result<Self, Failure> {
        let store_path: PathBuf = out.join("store");
        let fail = |what: &Path, error: std::io::Error| {
            Failure::unavailable(format!("cannot write in {}: {error}", what.display()))
        };
        let occupied = !store_path.exists() && out.join("results.parquet").exists();
        if occupied {
            return Err(Failure::usage(format!(
                "{} holds results that `evenkeel run` did not put there; choose another --out",
                out.display()
            )));
        }
        std::fs::create_dir_all(&store_path).map_err(|error| fail(&store_path, error))?;
        let lock_path = out.join(".lock");
        let lock = File::create(&lock_path).map_err(|error| fail(&lock_path, error))?;
        if lock.try_lock().is_err() {
            return Err(Failure::unavailable(format!(
                "another `evenkeel run` works in {}; wait for it, or choose another --out",
                out.display()
            )));
        }
        let store = Store::open(&store_path.to_string_lossy())?;
        if let Some(other) = store.sweep_ids().await?.into_iter().find(|id| *id != sweep.id) {
            return Err(Failure::usage(format!(
                "{} holds sweep {other}, but this spec is sweep {}: it, or its data, differ; choose another --out \
                 (nothing was overwritten)",
                out.display(),
                sweep.id
            )));
        }
        Ok(Self { store, _lock: lock })
    }
}
