//! Who else leads, and the way to it: looked after about once a second, so that nobody who asks has to wait for etcd.

use std::time::Duration;

use etcd_client::GetOptions;
use evenkeel_common::runtime::etcd::{EtcdError, EtcdLink, LEASE_TTL};
use evenkeel_common::runtime::net::Network;
use evenkeel_common::runtime::tls::{DialError, Tls, chain};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::driver::DriverHandle;
use crate::relay::MOST_AT_ONCE;

/// How often somebody looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long etcd, and the leader, may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A leader that does not answer pings for twice this long is gone.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Bytes of an answer that wait for a client that does not read. The connection has room for that of every call, so that
/// such a client holds nobody else up.
const WINDOW: u32 = 64 << 10;

/// What a coordinator that does not lead knows of the one that does.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its address, as the election tells it; none of this coordinator's own.
    pub leader: Option<String>,
    /// The connection to it, while it answers.
    pub way: Option<Channel>,
    /// Why there is no connection.
    pub trouble: String,
}

/// Looks who leads.
pub struct Lookout {
    /// Where the election is.
    pub election: EtcdLink,
    /// What others see of this coordinator.
    pub advertise: String,
    /// How connections are encrypted.
    pub tls: Tls,
    /// How they are made.
    pub network: Network,
    /// Has the driver while this coordinator leads itself: there is nothing to look for then.
    pub leads: watch::Receiver<Option<DriverHandle>>,
}

impl Lookout {
    /// Looks until it is told to stop.
    pub fn start(self, stop: CancellationToken) -> watch::Receiver<Known> {
        let (sender, receiver) = watch::channel(Known::default());
        tokio::spawn(async move { stop.run_until_cancelled(self.look(sender)).await });
        receiver
    }

    async fn look(self, known: watch::Sender<Known>) {
        let mut heard = Instant::now();
        loop {
            let before = known.borrow().clone();
            let now = if self.leads.borrow().is_some() {
                Known::default()
            } else {
                self.once(before.clone(), &mut heard).await
            };
            match (&now.leader, now.way.is_some()) {
                (Some(leader), true) if before.way.is_none() || before.leader != now.leader => {
                    tracing::info!(leader, "calls are passed on to the coordinator that leads");
                }
                (Some(_), false) if before.trouble != now.trouble => {
                    tracing::warn!(reason = now.trouble, "calls are not passed on");
                }
                _ => {}
            }
            known.send_replace(now);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn once(&self, before: Known, heard: &mut Instant) -> Known {
        let leader = match self.ask().await {
            Ok(leader) => {
                *heard = Instant::now();
                leader
            }
            // Who led goes on to, as far as anybody can tell: its lease may have been renewed.
            Err(_) if heard.elapsed() < LEASE_TTL => before.leader.clone(),
            Err(reason) => return Known { trouble: reason, ..Known::default() },
        };
        let Some(leader) = leader else {
            let trouble = "none leads at the moment; try again in a few seconds".to_owned();
            return Known { trouble, ..Known::default() };
        };
        if leader == self.advertise {
            let trouble = format!(
                "{leader} leads, which is its own address: it loads the store, or another one has the same --advertise"
            );
            return Known { trouble, ..Known::default() };
        }
        let way = before.way.filter(|_| before.leader.as_ref() == Some(&leader));
        let reached = tokio::time::timeout(ANSWER_WITHIN, self.reach(&leader, way)).await;
        match reached.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
            Ok(way) => Known { leader: Some(leader), way: Some(way), trouble: String::new() },
            Err(reason) => {
                let trouble = format!("{leader} leads, and is not reached from here: {reason}");
                Known { leader: Some(leader), way: None, trouble }
            }
        }
    }

    /// The address of who leads: the candidate whose key is the oldest.
    async fn ask(&self) -> Result<Option<String>, String> {
        let candidates = format!("{}/", self.election.config().leader_key());
        let ask = async {
            let mut client = self.election.client().await?;
            let found = client.get(candidates, Some(GetOptions::new().with_prefix())).await;
            found.map_err(|source| self.election.config().failed(source))
        };
        let found = tokio::time::timeout(ANSWER_WITHIN, ask).await;
        let found = found.map_err(|_| "etcd does not say in time who leads".to_owned())?;
        let found = found.map_err(|error: EtcdError| error.to_string())?;
        let leader = found.kvs().iter().min_by_key(|candidate| candidate.create_revision());
        Ok(leader
            .and_then(|leader| leader.value_str().ok())
            .map(str::to_owned)
            .filter(|name| !name.is_empty()))
    }

    /// The connection there is, if it still answers, or else a new one.
    async fn reach(&self, leader: &str, way: Option<Channel>) -> Result<Channel, String> {
        if let Some(way) = way
            && check(&way).await.is_ok()
        {
            return Ok(way);
        }
        let way = self.dial(leader).await.map_err(|error| error.to_string())?;
        check(&way).await?;
        Ok(way)
    }

    async fn dial(&self, leader: &str) -> Result<Channel, DialError> {
        let endpoint = self
            .tls
            .endpoint(leader)?
            .connect_timeout(ANSWER_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * MOST_AT_ONCE);
        Ok(self.network.connect(endpoint).await?)
    }
}

/// Whether a coordinator answers at the other end.
async fn check(way: &Channel) -> Result<(), String> {
    let mut health = HealthClient::new(way.clone());
    let answer = health.check(HealthCheckRequest { service: String::new() });
    answer.await.map(|_| ()).map_err(|status| chain(&status))
}
