//! `evenkeel coordinator`: serves until it is told to stop or can no longer lead.

use std::time::Duration;

use evenkeel_common::runtime::telemetry::{Service, Telemetry};
use evenkeel_common::runtime::tls::Tls;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::CoordinatorArgs;
use super::exit::{Exit, Failure};
use crate::access::Access;
use crate::driver::TraceConfig;
use crate::limits::Limits;
use crate::server::{Server, ServerConfig, StartError, TermEnd};
use crate::store::Store;

/// Ctrl-C and SIGTERM.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::unavailable(format!("signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Completes at the next one.
    pub async fn recv(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}

pub async fn serve(args: CoordinatorArgs) -> Result<Exit, Failure> {
    let host = hostname::get().ok().and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| "localhost".into());
    let service =
        Service { name: "evenkeel-coordinator", instance: format!("{host}:{}", std::process::id()) };
    let mut telemetry = Telemetry::start(&service, "info", args.log_format).map_err(Failure::usage)?;
    let mut signals = Signals::new()?;
    let bind = async |address| {
        TcpListener::bind(address)
            .await
            .map_err(|error| Failure::unavailable(format!("cannot listen on {address}: {error}")))
    };
    let (grpc, http) = (bind(args.listen).await?, bind(args.http).await?);
    let port = grpc.local_addr().map_err(Failure::unavailable)?.port();
    let http_address = http.local_addr().map_err(Failure::unavailable)?;
    tracing::info!(grpc.port = port, http = %http_address, "coordinator starting");
    let access = match &args.tokens {
        Some(file) => Access::from_file(file).map_err(Failure::usage)?,
        None => Access::open(),
    };
    let tls = Tls::for_server(args.tls.files()).map_err(Failure::usage)?;
    if !access.is_open() && !tls.serves() && !args.listen.ip().is_loopback() {
        tracing::warn!("tokens travel readable for everybody between; --tls-cert and --tls-key encrypt them");
    }
    let etcd = args.etcd.config().map_err(Failure::usage)?;
    let elected = etcd.is_some();
    let limits = Limits {
        trials: args.max_trials,
        sweeps: args.max_sweeps as usize,
        requests_per_second: args.max_requests,
    };
    let config = ServerConfig {
        store: Store::open(&args.store)?,
        grpc,
        http: Some(http),
        etcd,
        advertise: args.advertise.unwrap_or_else(|| format!("{}://{host}:{port}", tls.scheme())),
        access,
        limits,
        tls,
        compact_after: Some(args.compact_after).filter(|after| !after.is_zero()),
        connection_age: Some(args.max_connection_age).filter(|age| !age.is_zero()),
        traces: TraceConfig { packs_per_minute: args.trace_packs, url: args.trace_url },
    };
    let server = Server::open(config).await?;
    telemetry.push_metrics(server.exposition()).map_err(Failure::usage)?;
    tracing::info!(grpc = %server.grpc, "coordinator serving");
    let ended = terms(&server, elected, &mut signals).await;
    server.close().await;
    telemetry.shutdown().await;
    ended?;
    tracing::info!("coordinator stopped");
    Ok(Exit::Fine)
}

/// Stands by and leads by turns, until it is told to stop.
async fn terms(server: &Server, elected: bool, signals: &mut Signals) -> Result<(), Failure> {
    /// Before it stands again, so that another may win.
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        let led = tokio::select! {
            term = server.lead() => term,
            () = signals.recv() => return Ok(()),
        };
        let end = match led {
            Ok(mut term) => {
                let end = tokio::select! {
                    () = signals.recv() => None,
                    end = term.ended() => Some(end),
                };
                term.stop().await;
                match end {
                    None => return Ok(()),
                    Some(end) => end,
                }
            }
            // With another at hand, a store that does not answer now is no reason to leave.
            Err(error @ (StartError::LostWhileLoading | StartError::Store(_) | StartError::Load(_)))
                if elected =>
            {
                tracing::warn!(%error, "not leading");
                TermEnd::LeadershipLost
            }
            Err(error) => return Err(error.into()),
        };
        if !(elected && end == TermEnd::LeadershipLost) {
            return Err(Failure::unavailable(format!("this coordinator can no longer lead ({end:?})")));
        }
        tracing::warn!("leadership lost; this coordinator stands by");
        tokio::time::sleep(PAUSE).await;
    }
}
