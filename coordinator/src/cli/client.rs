//! Commands that ask a coordinator.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use comfy_table::{Table, presets};
use evenkeel_common::PROTOCOL_VERSION;
use evenkeel_proto::v1;
use serde::Serialize;
use serde_json::json;

use super::args::{ClientArgs, ReportArgs, ResultsArgs, SubmitArgs, SweepArgs, WorkersArgs, WorkersCommand};
use super::connection::{Client, Connection, is_gone};
use super::exit::{Exit, Failure};
use super::plan::{duration, thousands};
use super::progress::{Display, Progress, TrainingLine};
use crate::api;
use crate::dispatch::{chunks, input_files};
use crate::submission::Sweep;

pub async fn submit(args: SubmitArgs) -> Result<Exit, Failure> {
    // Everything that can be wrong with a spec is found here, before anything is sent.
    let sweep = Sweep::from_file(&args.spec)?;
    let mut coordinator = Connection::open(&args.client).await?;
    let spec = v1::SubmitSpec {
        protocol_version: PROTOCOL_VERSION,
        spec: sweep.grid.spec().to_canonical_json(),
        file: args.spec.display().to_string(),
        inputs: sweep
            .inputs
            .iter()
            .map(|input| v1::SubmitInput { files: input_files(&input.files) })
            .collect(),
    };
    let wrap = |message| v1::SubmitRequest { message: Some(message) };
    let files: Vec<v1::Chunk> =
        sweep.files.iter().flat_map(|(name, bytes)| chunks(name, bytes).collect::<Vec<_>>()).collect();
    let messages: Vec<v1::SubmitRequest> = std::iter::once(wrap(v1::submit_request::Message::Spec(spec)))
        .chain(files.into_iter().map(move |chunk| wrap(v1::submit_request::Message::Data(chunk))))
        .collect();
    let submitted = coordinator
        .ask("Submit", |mut client| {
            let messages = messages.clone();
            async move { client.submit(futures::stream::iter(messages)).await }
        })
        .await;
    let response = submitted?;
    let status = response.status.ok_or_else(|| Failure::unavailable("the coordinator answered nothing"))?;
    if args.client.json && !args.wait {
        print_json(&api::Submitted { status: (&status).into(), created: response.created });
        return Ok(Exit::Fine);
    }
    if !args.client.json {
        let known = if response.created { "submitted" } else { "known already" };
        eprintln!("sweep {} {known}: {} trials", status.sweep_id, thousands(status.total));
        println!("{}", status.sweep_id);
    }
    if args.wait { follow(&mut coordinator, status.sweep_id, args.client.json).await } else { Ok(Exit::Fine) }
}

pub async fn list(args: ClientArgs) -> Result<Exit, Failure> {
    let list = |mut client: Client| async move { client.list_sweeps(v1::ListSweepsRequest {}).await };
    let sweeps = Connection::open(&args).await?.ask("ListSweeps", list).await?.sweeps;
    if args.json {
        print_json(&api::Sweeps { sweeps: sweeps.iter().map(api::SweepStatus::from).collect() });
        return Ok(Exit::Fine);
    }
    let mut table = plain_table(&["sweep", "state", "trials", "done", "failed", "trials/s"]);
    for sweep in &sweeps {
        table.add_row([
            sweep.sweep_id.clone(),
            api::SweepStatus::from(sweep).state.to_owned(),
            thousands(sweep.total),
            thousands(done(sweep)),
            thousands(sweep.failed),
            thousands(sweep.trials_per_second as u64),
        ]);
    }
    println!("{table}");
    Ok(Exit::Fine)
}

pub async fn status(args: SweepArgs) -> Result<Exit, Failure> {
    let request = v1::GetSweepRequest { sweep_id: args.id.to_string() };
    let status = Connection::open(&args.client)
        .await?
        .ask("GetSweep", |mut client| {
            let request = request.clone();
            async move { client.get_sweep(request).await }
        })
        .await?;
    show(&status, args.client.json);
    Ok(Exit::Fine)
}

pub async fn watch(args: SweepArgs) -> Result<Exit, Failure> {
    let mut coordinator = Connection::open(&args.client).await?;
    follow(&mut coordinator, args.id.to_string(), args.client.json).await
}

pub async fn change(args: SweepArgs, change: v1::SweepChange) -> Result<Exit, Failure> {
    let request = v1::ChangeSweepRequest { sweep_id: args.id.to_string(), change: change.into() };
    let status = Connection::open(&args.client)
        .await?
        .ask("ChangeSweep", |mut client| {
            let request = request.clone();
            async move { client.change_sweep(request).await }
        })
        .await?;
    show(&status, args.client.json);
    Ok(Exit::Fine)
}

pub async fn results(args: ResultsArgs) -> Result<Exit, Failure> {
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::usage(format!("cannot make {}: {error}", args.out.display())))?;
    let request = v1::ExportSweepRequest {
        sweep_id: args.id.to_string(),
        format: args.format.name().to_owned(),
        files: Vec::new(),
    };
    let names = fetch(&args.client, request, |name| Ok(args.out.join(name))).await?;
    if args.client.json {
        println!("{:#}", json!({ "out": args.out, "files": names }));
    } else {
        println!("{} files in {}", names.len(), args.out.display());
    }
    Ok(Exit::Fine)
}

pub async fn report(args: ReportArgs) -> Result<Exit, Failure> {
    let request = v1::ExportSweepRequest {
        sweep_id: args.id.to_string(),
        format: "parquet".to_owned(),
        files: vec!["report.html".to_owned()],
    };
    let names = fetch(&args.client, request, |_| Ok(args.out.clone())).await?;
    if names.is_empty() {
        return Err(Failure::unavailable("the coordinator sent no report"));
    }
    println!("{}", args.out.display());
    Ok(Exit::Fine)
}

/// Receives files, each written beside its place and moved there once it is whole.
pub(super) async fn fetch(
    args: &ClientArgs,
    request: v1::ExportSweepRequest,
    place: impl Fn(&str) -> Result<std::path::PathBuf, Failure>,
) -> Result<Vec<String>, Failure> {
    let mut stream = Connection::open(args)
        .await?
        .ask("ExportSweep", |mut client| {
            let request = request.clone();
            async move { client.export_sweep(request).await }
        })
        .await?;
    let mut open: HashMap<String, (std::fs::File, std::path::PathBuf, std::path::PathBuf)> = HashMap::new();
    let mut names = Vec::new();
    while let Some(chunk) = stream.message().await? {
        if !crate::export::is_output_name(&chunk.name) {
            return Err(Failure::unavailable(format!("the coordinator sent a file named {:?}", chunk.name)));
        }
        let fail = |path: &Path, error: std::io::Error| {
            Failure::usage(format!("cannot write {}: {error}", path.display()))
        };
        if !open.contains_key(&chunk.name) {
            let target = place(&chunk.name)?;
            target.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|error| fail(&target, error))?;
            let mut partial = target.clone().into_os_string();
            partial.push(".part");
            let partial = std::path::PathBuf::from(partial);
            let file = std::fs::File::create(&partial).map_err(|error| fail(&partial, error))?;
            open.insert(chunk.name.clone(), (file, partial, target));
        }
        if let Some((file, partial, _)) = open.get_mut(&chunk.name) {
            file.write_all(&chunk.data).map_err(|error| fail(partial, error))?;
        }
        if chunk.last
            && let Some((file, partial, target)) = open.remove(&chunk.name)
        {
            drop(file);
            std::fs::rename(&partial, &target).map_err(|error| fail(&target, error))?;
            names.push(chunk.name);
        }
    }
    Ok(names)
}

pub async fn workers(args: WorkersArgs) -> Result<Exit, Failure> {
    let mut coordinator = Connection::open(&args.client).await?;
    if let Some(WorkersCommand::Drain { id }) = args.command {
        let request = v1::DrainWorkerRequest { worker_id: id.clone() };
        let drain = |mut client: Client| {
            let request = request.clone();
            async move { client.drain_worker(request).await }
        };
        coordinator.ask("DrainWorker", drain).await?;
        println!("{id} finishes what it runs and leaves");
        return Ok(Exit::Fine);
    }
    let list = |mut client: Client| async move { client.list_workers(v1::ListWorkersRequest {}).await };
    let workers = coordinator.ask("ListWorkers", list).await?.workers;
    if args.client.json {
        print_json(&api::Workers { workers: workers.iter().map(api::WorkerStatus::from).collect() });
        return Ok(Exit::Fine);
    }
    let mut table = plain_table(&[
        "worker", "state", "device", "slots", "packs", "trials", "GFLOP/s", "failures", "sweep",
    ]);
    for w in &workers {
        table.add_row([
            w.id.clone(),
            if w.reason.is_empty() { w.state.clone() } else { format!("{} ({})", w.state, w.reason) },
            w.device.clone(),
            w.slots.to_string(),
            w.packs.to_string(),
            thousands(w.trials_done),
            if w.speed > 0.0 { format!("{:.1}", w.speed / 1e9) } else { "–".to_owned() },
            w.failures.to_string(),
            w.sweep_id.clone(),
        ]);
    }
    println!("{table}");
    Ok(Exit::Fine)
}

/// Shows a sweep until it ends, from coordinator to coordinator.
async fn follow(coordinator: &mut Connection, id: String, json: bool) -> Result<Exit, Failure> {
    let mut display = Display::new(json);
    let mut signals = super::coordinator::Signals::new()?;
    let request = v1::WatchSweepRequest { sweep_id: id };
    let last = loop {
        let watching = coordinator.ask("WatchSweep", |mut client| {
            let request = request.clone();
            async move { client.watch_sweep(request).await }
        });
        let mut stream = tokio::select! {
            stream = watching => stream?,
            () = signals.recv() => return Ok(Exit::Interrupted),
        };
        let mut last = None;
        loop {
            let status = tokio::select! {
                status = stream.message() => status,
                () = signals.recv() => return Ok(Exit::Interrupted),
            };
            let status = match status {
                Ok(Some(status)) => status,
                Ok(None) => break,
                Err(error) if is_gone(&error) => break,
                Err(error) => return Err(error.into()),
            };
            if json {
                println!("{}", serde_json::to_string(&api::SweepStatus::from(&status)).unwrap_or_default());
            }
            display.show(&progress(&status));
            last = Some(status);
        }
        let ended = |status: &v1::SweepStatus| {
            matches!(status.state(), v1::SweepState::Completed | v1::SweepState::Cancelled)
        };
        if let Some(last) = last.filter(ended) {
            break last;
        }
        display.say("the coordinator is gone; looking for the one that leads");
        tokio::select! {
            again = coordinator.again() => again?,
            () = signals.recv() => return Ok(Exit::Interrupted),
        }
    };
    display.finish(&progress(&last));
    if !json {
        show(&last, false);
    }
    Ok(if last.failed > 0 { Exit::SomeFailed } else { Exit::Fine })
}

fn progress(status: &v1::SweepStatus) -> Progress {
    Progress {
        done: done(status),
        total: status.total,
        failed: status.failed,
        diverged: status.diverged,
        workers: status.workers as usize,
        trials_per_second: status.trials_per_second,
        notice: (!status.notice.is_empty()).then(|| status.notice.clone()),
        training: status
            .training
            .iter()
            .map(|sample| TrainingLine::new(format!("trial {}", sample.trial), *sample, &[]))
            .collect(),
    }
}

fn done(status: &v1::SweepStatus) -> u64 {
    status.completed + status.diverged + status.failed
}

/// Prints an answer of the API.
fn print_json(answer: &impl Serialize) {
    println!("{}", serde_json::to_string_pretty(answer).unwrap_or_default());
}

fn show(status: &v1::SweepStatus, json: bool) {
    if json {
        print_json(&api::SweepStatus::from(status));
        return;
    }
    println!("sweep      {}", status.sweep_id);
    println!("state      {}", api::SweepStatus::from(status).state);
    println!("trials     {} of {}", thousands(done(status)), thousands(status.total));
    println!(
        "           {} completed, {} diverged, {} failed, {} running",
        thousands(status.completed),
        thousands(status.diverged),
        thousands(status.failed),
        thousands(status.running)
    );
    println!("time       {}, {} workers", duration(status.seconds), status.workers);
    if !status.notice.is_empty() {
        println!("note       {}", status.notice);
    }
}

fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}
