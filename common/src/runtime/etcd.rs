//! A session with etcd: a client that notices partitions and a lease that is kept alive.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Life of a lease without renewal. Workers are to be gone from etcd within 10 s of their death.
const LEASE_TTL: Duration = Duration::from_secs(5);
/// Three chances within a life.
const RENEW_EVERY: Duration = Duration::from_millis(1500);
/// How much earlier than etcd its holder takes a lease for lost, so that it never believes in it for longer.
const SAFETY: Duration = Duration::from_millis(500);

/// How to reach a cluster's part of etcd.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// Name of the Evenkeel cluster, part of every key.
    pub cluster: String,
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

    /// Connects. Pings find a partition within 4 s, which etcd's own streams would never notice.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn connect(&self) -> Result<Client, etcd_client::Error> {
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            .with_keep_alive(Duration::from_secs(2), Duration::from_secs(2))
            .with_keep_alive_while_idle(true);
        let client = Client::connect(&self.endpoints, Some(options)).await?;
        // Connecting is lazy: ask something, so that an address where nobody listens is noticed here.
        let mut probe = client.clone();
        match tokio::time::timeout(Duration::from_secs(5), probe.get(self.leader_key(), None)).await {
            Ok(answer) => answer.map(|_| client),
            Err(_) => Err(etcd_client::Error::IoError(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        }
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
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let (inner_lost, inner_stop) = (lost.clone(), stop.clone());
        tokio::spawn(async move {
            let reason = inner_stop.run_until_cancelled(keep_alive(keeper, answers, asked)).await;
            if let Some(reason) = reason {
                tracing::warn!(lease = lease, %reason, "etcd lease lost");
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
