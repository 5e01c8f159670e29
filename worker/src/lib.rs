//! The worker of Evenkeel: the only crate that links libtorch.
//!
//! | module | holds |
//! |---|---|
//! | [`core`] | pure: which pack runs where, which results wait for acknowledgement |
//! | [`hub`] | the one loop: orders to slots, reports to the coordinator |
//! | [`executor`] | one thread a slot, which owns its engine |
//! | [`workbench`] | the engines of a slot |
//! | [`engine`] | training heads on features, many trials in one matrix product |
//! | [`finetune`] | training encoders on texts |
//! | [`models`] | encoders: BERT, RoBERTa and their like |
//! | [`artifacts`] | checkpoints and features, kept to save time |
//! | [`data`] | synthetic datasets and splits of feature files |
//! | [`device`] | CPU or CUDA |
//! | [`sweeps`] | the sweeps the coordinator announced, with their files |
//! | [`spans`], [`gpu`] | traces of packs; what the driver of a GPU says of it |
//! | [`rpc`], [`registration`], [`http`] | what is served, and saying that one is there |
//! | [`config`] | the command line |

pub mod artifacts;
pub mod config;
pub mod core;
pub mod data;
pub mod device;
pub mod engine;
pub mod executor;
pub mod finetune;
pub mod gpu;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod models;
pub mod registration;
pub mod rpc;
pub mod spans;
pub mod sweeps;
pub mod workbench;

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use evenkeel_common::PROTOCOL_VERSION;
use evenkeel_common::id::ContentHash;
use evenkeel_common::runtime::etcd::EtcdError;
use evenkeel_common::runtime::objects::Objects;
use evenkeel_common::runtime::secret::SecretError;
use evenkeel_common::runtime::telemetry::{Service, Telemetry, TelemetryError, flush_traces};
use evenkeel_common::runtime::tls::TlsError;
use evenkeel_common::runtime::{WorkerRecord, now_ms};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::config::{Args, advertised};
use crate::device::Device;
use crate::executor::Executor;
use crate::gpu::Gpu;
use crate::hub::{Hub, HubEnd, Input};
use crate::metrics::Metrics;

/// Runs a worker until it is told to leave.
pub fn run(args: Args) -> ExitCode {
    // For stores that are reached by https; another part of the process may have done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads: {error}");
            return ExitCode::from(3);
        }
    };
    let outcome = runtime.block_on(serve(args));
    // A pack that still runs has no one to report to: its thread ends with the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => leave(0),
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.is::<device::DeviceError>()
                || error.is::<SecretError>()
                || error.is::<TlsError>()
                || error.is::<TelemetryError>()
                || error.is::<EtcdError>();
            leave(if usage { 2 } else { 3 })
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let device = Device::parse(&args.device)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", args.listen))?;
    let http = TcpListener::bind(args.http)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", args.http))?;
    let tls = args.tls()?;
    let registry = args.registry(&tls)?;
    let host = hostname::get()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned());
    let name = args.name.clone().unwrap_or_else(|| host.clone());
    let listening = listener.local_addr()?;
    let record = WorkerRecord {
        id: unique_id(&name, &host),
        address: args.advertise.clone().unwrap_or_else(|| advertised(tls.scheme(), listening, &host)),
        protocol_version: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: args.slots,
        device: device.describe(),
        started_ms: now_ms(),
    };
    record.check().map_err(|reason| anyhow::anyhow!("{reason}"))?;
    let service = Service { name: "evenkeel-worker", instance: record.id.clone() };
    let mut telemetry = Telemetry::start(&service, "info", args.log_format)?;
    tracing::info!(worker.id = %record.id, address = %record.address, device = %record.device, slots = record.slots, "worker starting");

    let (reports, report_inbox) = mpsc::channel(64);
    let store = args.store.as_deref().map(Objects::open).transpose()?;
    let every = std::time::Duration::from_secs(args.checkpoint_every);
    let runtime = tokio::runtime::Handle::current();
    let artifacts = Arc::new(Artifacts::new(store, args.cache_dir.clone(), every, runtime));
    let executors = (0..record.slots as usize)
        .map(|slot| Executor::start(slot, device, record.id.clone(), artifacts.clone(), reports.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let (inputs, input_inbox) = mpsc::channel(64);
    let metrics = Metrics::default();
    let (hub, status) = Hub::new(record.clone(), executors, args.patience(), metrics.clone());
    let mut hub = tokio::spawn(hub.run(input_inbox, report_inbox));
    tokio::spawn(rpc::serve(listener, tls.clone(), args.coordinator_name.clone(), inputs.clone()));
    let exposition = metrics.exposition(&record, status.clone(), Gpu::open(device));
    telemetry.push_metrics(exposition.registry())?;
    tokio::spawn(async move { axum::serve(http, http::router(status, exposition)).await });
    let stop = CancellationToken::new();
    let mut registration = tokio::spawn(registration::keep(registry, record, metrics, stop.clone()));
    if args.exit_with_parent {
        leave_with_parent();
    }

    let end = loop {
        tokio::select! {
            _ = terminate.recv() => inputs.send(Input::Drain).await?,
            _ = interrupt.recv() => inputs.send(Input::Drain).await?,
            end = &mut hub => break end?,
            refused = &mut registration => {
                if let Err(refused) = refused? {
                    anyhow::bail!(refused);
                }
                anyhow::bail!("registration ended by itself");
            }
        }
    };
    stop.cancel();
    // Leaving the registry is a courtesy: the lease runs out in any case.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), registration).await;
    match &end {
        HubEnd::Drained => tracing::info!("worker stopped, everything is handed over"),
        HubEnd::GraceOver => {
            tracing::warn!("worker stopped before everything was acknowledged; it will run again elsewhere")
        }
        HubEnd::Poisoned(reason) => {
            tracing::error!(%reason, "the device is unusable until this process starts anew");
        }
    }
    telemetry.shutdown().await;
    match end {
        HubEnd::Poisoned(reason) => {
            anyhow::bail!("the device is unusable until this process starts anew: {reason}")
        }
        HubEnd::Drained | HubEnd::GraceOver => Ok(()),
    }
}

/// Ends the process without running libtorch's destructors: they take its operators away from slots that still run.
fn leave(code: u8) -> ! {
    unsafe extern "C" {
        fn _exit(code: std::ffi::c_int) -> !;
    }
    // SAFETY: it takes any number and does not return. Nothing is buffered: log lines are written one by one.
    unsafe { _exit(i32::from(code)) }
}

/// An id that no other process has: a worker that starts again is another worker.
fn unique_id(name: &str, host: &str) -> String {
    let clean: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(80)
        .collect();
    let nonce = ContentHash::of(
        format!("{host} {} {:?}", std::process::id(), std::time::SystemTime::now()).as_bytes(),
    );
    format!("{clean}-{}", nonce.to_hex().get(..8).unwrap_or_default())
}

/// Ends the process when whoever started it is gone: its end of standard input closes with it, however it died.
fn leave_with_parent() {
    std::thread::spawn(|| {
        let mut sink = [0; 64];
        let mut stdin = std::io::stdin();
        while !matches!(stdin.read(&mut sink), Ok(0) | Err(_)) {}
        flush_traces();
        leave(0);
    });
}
