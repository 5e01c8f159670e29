//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use evenkeel_common::runtime::etcd::EtcdLink;
use evenkeel_common::runtime::flags::{EtcdArgs, duration};
use evenkeel_common::runtime::secret::Bearer;
use evenkeel_common::runtime::tls::{Tls, TlsError, TlsFiles};
use evenkeel_common::runtime::{COORDINATOR_NAME, LogFormat};

use crate::hub::Patience;
use crate::registration::{Place, Registry};

const EXAMPLES: &str = "\
Examples:
  evenkeel-worker --coordinator http://10.0.0.1:7070     register with that coordinator
  evenkeel-worker --etcd http://etcd:2379 --device cuda  register in etcd, run on the first GPU";

/// Runs packs of trials for an Evenkeel coordinator.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-worker", version, about, after_help = EXAMPLES, max_term_width = 110)]
#[command(group(ArgGroup::new("registry").required(true).args(["etcd", "coordinator"])))]
pub struct Args {
    /// How etcd is reached
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Coordinator to register with, when there is no etcd
    #[arg(long, env = "EVENKEEL_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// File that holds the token to register with, readable by this user alone [default: the token in EVENKEEL_TOKEN]
    #[arg(long, env = "EVENKEEL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates of the authority that coordinators are recognised by (PEM); nobody is then let in without one
    #[arg(long, env = "EVENKEEL_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show (PEM, with those between it and the authority)
    #[arg(long, env = "EVENKEEL_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, env = "EVENKEEL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Name that a coordinator's certificate has to be for, where there are certificates: others get no say
    #[arg(long, env = "EVENKEEL_COORDINATOR_NAME", default_value = COORDINATOR_NAME, value_name = "NAME")]
    pub coordinator_name: String,
    /// Address for gRPC
    #[arg(long, env = "EVENKEEL_WORKER_LISTEN", default_value = "0.0.0.0:7071")]
    pub listen: SocketAddr,
    /// URL that coordinators reach this worker at [default: from the listen address, or the host name]
    #[arg(long, env = "EVENKEEL_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// Address for HTTP: health and metrics
    #[arg(long, env = "EVENKEEL_WORKER_HTTP", default_value = "0.0.0.0:7081")]
    pub http: SocketAddr,
    /// Device: auto, cpu, cuda or cuda:<index>
    #[arg(long, env = "EVENKEEL_DEVICE", default_value = "auto")]
    pub device: String,
    /// Packs run at once, each on a thread of its own
    #[arg(long, env = "EVENKEEL_SLOTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: u32,
    /// Directory, s3://, gs:// or az:// with bucket and prefix where checkpoints of long trials and features of texts are
    /// kept, so that another worker goes on with them: the coordinator's store, or any other
    #[arg(long, env = "EVENKEEL_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// Seconds between two checkpoints of a trial (needs --store)
    #[arg(long, env = "EVENKEEL_CHECKPOINT_EVERY", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: u64,
    /// Directory of this machine where features of texts are kept beside the store
    #[arg(long, env = "EVENKEEL_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Beginning of the worker's id [default: host name]
    #[arg(long, env = "EVENKEEL_NAME")]
    pub name: Option<String>,
    /// How long to finish packs after SIGTERM, in seconds
    #[arg(long, env = "EVENKEEL_GRACE", default_value_t = 25)]
    pub grace: u64,
    /// Leave after so long without work (30s, 5m), as for SIGTERM: for workers that are started when trials wait [default:
    /// stay]
    #[arg(long, env = "EVENKEEL_EXIT_WHEN_IDLE", value_parser = duration, value_name = "TIME")]
    pub exit_when_idle: Option<Duration>,
    /// How log lines look: text on a terminal and JSON elsewhere, unless said
    #[arg(long, env = "EVENKEEL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Leave when standard input closes
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

impl Args {
    /// Where to register.
    ///
    /// # Errors
    /// When the token, a password or a certificate cannot be read.
    pub fn registry(&self, tls: &Tls) -> anyhow::Result<Registry> {
        let at_coordinator = |url: &String| -> anyhow::Result<Registry> {
            let bearer = Bearer::find(self.token_file.as_deref())?;
            Ok(Registry::Coordinator(Box::new(Place { url: url.clone(), bearer, tls: tls.clone() })))
        };
        match (&self.coordinator, self.etcd.config()?) {
            (Some(url), _) => at_coordinator(url),
            (None, Some(etcd)) => Ok(Registry::Etcd(EtcdLink::new(etcd))),
            (None, None) => anyhow::bail!("nowhere to register: name --etcd or --coordinator"),
        }
    }

    /// How connections are encrypted.
    ///
    /// # Errors
    /// When a flag is missing, or a file is not what it should be.
    pub fn tls(&self) -> Result<Tls, TlsError> {
        Tls::for_server(TlsFiles {
            cert: self.tls_cert.as_deref(),
            key: self.tls_key.as_deref(),
            ca: self.tls_ca.as_deref(),
            ..TlsFiles::default()
        })
    }

    /// How long it stays.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience { grace: Duration::from_secs(self.grace), idle: self.exit_when_idle }
    }
}

/// The URL coordinators are told, from what the socket is bound to.
#[must_use]
pub fn advertised(scheme: &str, listening: SocketAddr, host: &str) -> String {
    if listening.ip().is_unspecified() {
        format!("{scheme}://{host}:{}", listening.port())
    } else {
        format!("{scheme}://{listening}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_worker_registers_somewhere_and_only_once() {
        assert!(Args::try_parse_from(["evenkeel-worker"]).is_err());
        assert!(Args::try_parse_from(["evenkeel-worker", "--etcd", "a", "--coordinator", "b"]).is_err());
        assert!(
            Args::try_parse_from(["evenkeel-worker", "--etcd", "a,b"])
                .is_ok_and(|args| args.etcd.etcd.len() == 2)
        );
    }

    #[test]
    fn the_advertised_address_is_one_that_others_can_reach() {
        let at = |address: &str| advertised("http", address.parse().expect("address"), "node-3");
        assert_eq!(at("0.0.0.0:7071"), "http://node-3:7071");
        assert_eq!(at("127.0.0.1:4000"), "http://127.0.0.1:4000");
        assert_eq!(at("[::1]:4000"), "http://[::1]:4000");
    }
}
