//! Commands for those who look after a cluster: where a trace is, and what is logged.

use std::process::{Command, Stdio};

use evenkeel_proto::v1;
use serde_json::json;

use super::args::{LogLevelArgs, TraceArgs};
use super::connection::{Client, Connection};
use super::exit::{Exit, Failure};
use crate::driver::TraceConfig;

pub async fn trace(args: TraceArgs) -> Result<Exit, Failure> {
    let request = v1::GetSweepRequest { sweep_id: args.id.to_string() };
    let get = |mut client: Client| {
        let request = request.clone();
        async move { client.get_sweep(request).await }
    };
    let status = Connection::open(&args.client).await?.ask("GetSweep", get).await?;
    if status.trace_id.is_empty() {
        return Err(Failure::usage(format!(
            "sweep {} is not traced: start the coordinator, and the workers, with OTEL_EXPORTER_OTLP_ENDPOINT set to where \
             spans are received",
            args.id
        )));
    }
    let given = args.trace_url.map(|url| url.replace(TraceConfig::PLACE, &status.trace_id));
    let url = given.or_else(|| Some(status.trace_url).filter(|url| !url.is_empty()));
    if args.client.json {
        println!("{:#}", json!({ "id": status.sweep_id, "trace_id": status.trace_id, "trace_url": url }));
    } else {
        println!("{}", url.as_ref().unwrap_or(&status.trace_id));
    }
    if args.open {
        let url = url.ok_or_else(|| {
            Failure::usage("nobody said where traces are shown: name the page with --trace-url")
        })?;
        open(&url)?;
    }
    Ok(Exit::Fine)
}

/// Hands an address to the desktop.
fn open(url: &str) -> Result<(), Failure> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let status = Command::new(program).arg(url).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::unavailable(format!("{program} did not open {url} ({status})"))),
        Err(error) => Err(Failure::unavailable(format!("{program} did not open {url}: {error}"))),
    }
}

pub async fn log_level(args: LogLevelArgs) -> Result<Exit, Failure> {
    let request = v1::SetLogFilterRequest {
        filter: args.filter.clone(),
        worker_ids: args.worker.clone(),
        all_workers: args.workers,
    };
    let set = |mut client: Client| {
        let request = request.clone();
        async move { client.set_log_filter(request).await }
    };
    let told = Connection::open(&args.client).await?.ask("SetLogFilter", set).await?.workers;
    let who = match (args.workers, args.worker.as_slice()) {
        (true, _) => format!("{told} workers"),
        (false, []) => "the coordinator".to_owned(),
        (false, workers) => workers.join(", "),
    };
    if args.client.json {
        println!("{:#}", json!({ "filter": args.filter, "workers": told }));
    } else {
        println!("from now on {who}: {}", args.filter);
    }
    Ok(Exit::Fine)
}
