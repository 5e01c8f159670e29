//! `evenkeel coordinator`: serves until it is told to stop or can no longer lead.

use evenkeel_common::runtime::etcd::EtcdConfig;
use evenkeel_common::runtime::{LogFormat, init_logging};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{CoordinatorArgs, LogFormatArg};
use super::exit::{Exit, Failure};
use crate::server::{Server, ServerConfig};
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
    let format = if args.log_format == LogFormatArg::Json { LogFormat::Json } else { LogFormat::Text };
    init_logging("info", format);
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
    let host = || {
        hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
    };
    let config = ServerConfig {
        store: Store::open(&args.store)?,
        grpc,
        http: Some(http),
        etcd: (!args.etcd.is_empty())
            .then(|| EtcdConfig { endpoints: args.etcd.clone(), cluster: args.cluster.clone() }),
        advertise: args.advertise.unwrap_or_else(|| format!("http://{}:{port}", host())),
    };
    let stop = CancellationToken::new();
    let starting = Server::start(config, &stop);
    let mut server = tokio::select! {
        server = starting => server?,
        () = signals.recv() => return Ok(Exit::Fine),
    };
    tracing::info!(grpc = %server.grpc, "coordinator serving");
    let end = tokio::select! {
        () = signals.recv() => None,
        end = server.ended() => Some(end),
    };
    server.stop().await;
    match end {
        None => {
            tracing::info!("coordinator stopped");
            Ok(Exit::Fine)
        }
        Some(end) => Err(Failure::unavailable(format!(
            "this coordinator can no longer lead ({end:?}); start it again to stand by"
        ))),
    }
}
