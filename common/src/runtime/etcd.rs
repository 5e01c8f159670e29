//! A session with etcd: a client that notices partitions and a lease that is kept alive.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, LeaseKeepAliveStream, LeaseKeeper};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::net::Network;
use super::secret::{SecretError, read_private};
use super::tls::{TlsError, TlsFiles, TlsFlags, chain};
use super::trace::{Span, SpanKind, TraceContext};

/// Life of a lease without renewal. Workers are to be gone from etcd within 10 s of their death.
pub const LEASE_TTL: Duration = Duration::from_secs(5);
/// Three chances within a life.
const RENEW_EVERY: Duration = Duration::from_millis(1500);
/// How much earlier than etcd its holder takes a lease for lost, so that it never believes in it for longer.
const SAFETY: Duration = Duration::from_millis(500);
/// Time for a member to take a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A member that does not answer pings for twice this long is gone.
const PING_EVERY: Duration = Duration::from_secs(2);

/// How to reach a cluster's part of etcd. Printing it shows no password.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// Name of the Evenkeel cluster, part of every key.
    pub cluster: String,
    /// What is shown to it, and what it is recognised by.
    pub credentials: Credentials,
    /// How its members are dialled.
    pub network: Network,
}

/// Certificates and a user's name, in files that are read anew for each connection.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Certificates of who signs etcd's certificates (`--etcd-ca`).
    pub ca: Option<PathBuf>,
    /// The certificate to show (`--etcd-cert`).
    pub cert: Option<PathBuf>,
    /// Its key (`--etcd-key`).
    pub key: Option<PathBuf>,
    /// A user of etcd (`--etcd-user`).
    pub user: Option<String>,
    /// The file that holds its password (`--etcd-password-file`).
    pub password_file: Option<PathBuf>,
}

/// Why etcd is not reached.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(String),
    /// A certificate or a key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The password.
    #[error("--etcd-password-file: {0}")]
    Password(#[from] SecretError),
    /// It does not answer.
    #[error("etcd at {endpoints} does not answer: {}", chain(source))]
    Unavailable {
        /// Its members.
        endpoints: String,
        /// What happened.
        source: etcd_client::Error,
    },
    /// It answers that it will not.
    #[error("etcd at {endpoints} refuses: {message}")]
    Refused {
        /// Its members.
        endpoints: String,
        /// What it said.
        message: String,
    },
}

impl EtcdConfig {
    /// Key below which workers register.
    #[must_use]
    pub fn workers_prefix(&self) -> String {
        format!("/evenkeel/{}/workers/", self.cluster)
    }

    /// Name of the leader's election.
    #[must_use]
    pub fn leader_key(&self) -> String {
        format!("/evenkeel/{}/leader", self.cluster)
    }

    /// Checks what can be checked before anything is connected.
    ///
    /// # Errors
    /// When flags do not go together, or a file is not what it should be.
    pub fn check(&self) -> Result<(), EtcdError> {
        self.options().map(|_| ())
    }

    /// Connects. Pings find a partition within 4 s, which etcd's own streams would never notice.
    async fn connect(&self) -> Result<Client, EtcdError> {
        let options = self.options()?;
        let failed = |source| self.failed(source);
        let client = if self.network.is_tcp() {
            Client::connect(&self.endpoints, Some(options)).await
        } else {
            self.connect_elsewhere().await
        };
        let client = client.map_err(failed)?;
        // Connecting is lazy: ask something, so that an address where nobody listens is noticed here.
        let mut probe = client.clone();
        match tokio::time::timeout(Duration::from_secs(5), probe.get(self.leader_key(), None)).await {
            Ok(answer) => answer.map(|_| client).map_err(failed),
            Err(_) => Err(failed(etcd_client::Error::IoError(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    /// What is said when it answers with an error, or not at all.
    #[must_use]
    pub fn failed(&self, source: etcd_client::Error) -> EtcdError {
        use tonic::Code;
        let endpoints = self.endpoints.join(",");
        match source {
            etcd_client::Error::GRpcStatus(status)
                if matches!(
                    status.code(),
                    Code::InvalidArgument
                        | Code::PermissionDenied
                        | Code::Unauthenticated
                        | Code::FailedPrecondition
                ) =>
            {
                EtcdError::Refused { endpoints, message: status.message().to_owned() }
            }
            source => EtcdError::Unavailable { endpoints, source },
        }
    }

    fn options(&self) -> Result<ConnectOptions, EtcdError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_WITHIN)
            .with_keep_alive(PING_EVERY, PING_EVERY)
            .with_keep_alive_while_idle(true);
        let Credentials { ca, cert, key, user, password_file } = &self.credentials;
        let encrypted = self.endpoints.iter().filter(|url| url.starts_with("https://")).count();
        let usage = |text: &str| Err(EtcdError::Usage(text.to_owned()));
        let options = match (encrypted, ca) {
            (0, None) if cert.is_none() && key.is_none() => options,
            (0, _) => {
                return usage(
                    "--etcd-ca, --etcd-cert and --etcd-key are for an etcd at https://: give its address so",
                );
            }
            (n, _) if n < self.endpoints.len() => {
                return usage(
                    "some members of etcd are at https:// and some are not: what is secret would be sent in the open",
                );
            }
            (_, None) => {
                return usage(
                    "etcd at https:// has to be recognised: name who signs its certificate with --etcd-ca",
                );
            }
            (_, Some(ca)) => {
                let files =
                    TlsFiles { ca: Some(ca), cert: cert.as_deref(), key: key.as_deref(), flags: FLAGS };
                options.with_tls(files.client()?)
            }
        };
        match (user, password_file) {
            (None, None) => Ok(options),
            (Some(user), Some(path)) => {
                let password = read_private(path)?;
                // A token of etcd's runs out; a new one is asked for then.
                Ok(options
                    .with_user(user, password.trim_end_matches(['\r', '\n']))
                    .with_auto_token_refresh(true))
            }
            (Some(_), None) => usage("--etcd-user needs --etcd-password-file"),
            (None, Some(_)) => usage("--etcd-password-file needs --etcd-user"),
        }
    }

    /// The same to the first member alone: the client balances over sockets of its own only.
    async fn connect_elsewhere(&self) -> Result<Client, etcd_client::Error> {
        let url = self.endpoints.first().cloned().unwrap_or_default();
        let endpoint = Endpoint::from_shared(url)?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .keep_alive_while_idle(true);
        Client::from_channel(Channel::Tonic(self.network.connect(endpoint).await?), None).await
    }
}

const FLAGS: TlsFlags = TlsFlags { ca: "--etcd-ca", cert: "--etcd-cert", key: "--etcd-key" };

/// A connection that is made when it is first needed, and anew after it failed; clones share it.
#[derive(Clone)]
pub struct EtcdLink {
    config: Arc<EtcdConfig>,
    client: Arc<Mutex<Option<Client>>>,
}

impl std::fmt::Debug for EtcdLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdLink").field("config", &self.config).finish_non_exhaustive()
    }
}

impl EtcdLink {
    /// Not connected yet.
    #[must_use]
    pub fn new(config: EtcdConfig) -> Self {
        Self { config: Arc::new(config), client: Arc::default() }
    }

    /// How etcd is reached.
    #[must_use]
    pub fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// A client that answered when it was connected.
    ///
    /// # Errors
    /// When etcd does not answer, or its certificate or password cannot be read.
    pub async fn client(&self) -> Result<Client, EtcdError> {
        let mut client = self.client.lock().await;
        match &*client {
            Some(client) => Ok(client.clone()),
            None => Ok(client.insert(self.config.connect().await?).clone()),
        }
    }

    /// Connects anew at the next call: certificates may have changed, and a member may be gone.
    pub async fn forget(&self) {
        *self.client.lock().await = None;
    }
}

/// A lease that is kept alive until it is dropped or lost.
pub struct Session {
    client: Client,
    lease: i64,
    lost: CancellationToken,
    stop: CancellationToken,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("lease", &self.lease)
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Takes a lease and keeps it alive in the background.
    ///
    /// # Errors
    /// When etcd does not grant it.
    pub async fn open(mut client: Client) -> Result<Self, etcd_client::Error> {
        let asked = Instant::now();
        let lease = client.lease_grant(LEASE_TTL.as_secs() as i64, None).await?.id();
        let (keeper, answers) = client.lease_keep_alive(lease).await?;
        let span = Span::begin("etcd.session", SpanKind::Client, TraceContext::root(), None)
            .with("etcd.lease", lease);
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let (inner_lost, inner_stop) = (lost.clone(), stop.clone());
        tokio::spawn(async move {
            let reason = inner_stop.run_until_cancelled(keep_alive(keeper, answers, asked)).await;
            match reason {
                Some(reason) => {
                    let _within = span.context.attach();
                    tracing::warn!(lease = lease, %reason, "etcd lease lost");
                    span.failed(reason).finish();
                }
                None => span.finish(),
            }
            inner_lost.cancel();
        });
        Ok(Self { client, lease, lost, stop })
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Completes when the lease is lost or could be.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether the lease is lost or could be.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Gives the lease back, and with it all keys it holds.
    pub async fn close(mut self) {
        self.stop.cancel();
        if let Err(error) = self.client.lease_revoke(self.lease).await {
            tracing::debug!(%error, "lease not revoked: it will run out");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Ends with the reason when the lease may be lost: no answer, an error, an end of the stream and a ttl of 0 all mean
/// the same. Time counts from when a renewal was asked for, not from when its answer came.
async fn keep_alive(mut keeper: LeaseKeeper, mut answers: LeaseKeepAliveStream, asked: Instant) -> String {
    let mut deadline = asked + LEASE_TTL - SAFETY;
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let asked = Instant::now();
        let renewal = async {
            keeper.keep_alive().await.map_err(|error| error.to_string())?;
            match answers.message().await {
                Ok(Some(answer)) if answer.ttl() > 0 => Ok(()),
                Ok(Some(_)) => Err("it ran out".to_owned()),
                Ok(None) => Err("the stream ended".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        match timeout_at(deadline, renewal).await {
            Ok(Ok(())) => deadline = asked + LEASE_TTL - SAFETY,
            Ok(Err(reason)) => return reason,
            Err(_) => return "no answer in time".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(endpoints: &[&str], credentials: Credentials) -> String {
        let endpoints = endpoints.iter().map(|url| (*url).to_owned()).collect();
        let (cluster, network) = ("c".to_owned(), Network::default());
        let config = EtcdConfig { endpoints, cluster, credentials, network };
        config.check().map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn what_is_secret_goes_only_where_etcd_is_recognised() {
        let some = || Some(PathBuf::from("/nowhere"));
        assert_eq!(says(&["http://a:2379"], Credentials::default()), "fine");
        assert!(says(&["https://a:2379"], Credentials::default()).contains("--etcd-ca"));
        let ca = || Credentials { ca: some(), ..Credentials::default() };
        assert!(says(&["http://a:2379"], ca()).contains("https://"));
        assert!(says(&["https://a:2379", "http://b:2379"], ca()).contains("in the open"));
        assert!(says(&["https://a:2379"], ca()).contains("--etcd-ca: cannot read /nowhere"));
        let user = |user: Option<&str>, password_file| {
            says(
                &["http://a"],
                Credentials { user: user.map(str::to_owned), password_file, ..Credentials::default() },
            )
        };
        assert!(user(Some("ann"), None).contains("needs --etcd-password-file"));
        assert!(user(None, some()).contains("needs --etcd-user"));
        assert!(user(Some("ann"), some()).contains("--etcd-password-file: cannot read"));
    }
}
