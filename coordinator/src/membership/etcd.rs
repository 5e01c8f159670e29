//! Membership by etcd: workers hold keys under leases, the coordinator watches the prefix.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{EventType, GetOptions, KeyValue, WatchOptions};
use evenkeel_common::runtime::etcd::EtcdLink;
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Membership, MembershipEvent, WorkerRecord};
use crate::core::WorkerId;

/// Follows the workers' keys of a cluster.
pub struct Etcd {
    link: EtcdLink,
}

impl Etcd {
    /// Over this connection.
    #[must_use]
    pub fn new(link: EtcdLink) -> Self {
        Self { link }
    }
}

impl Membership for Etcd {
    fn follow(
        self: Box<Self>,
        events: mpsc::Sender<MembershipEvent>,
        stop: CancellationToken,
    ) -> futures::future::BoxFuture<'static, ()> {
        async move {
            stop.run_until_cancelled(self.keep_following(events)).await;
        }
        .boxed()
    }
}

/// Why a round of following ended.
enum End {
    Unheard,
    Broken(String),
}

impl Etcd {
    async fn keep_following(self, events: mpsc::Sender<MembershipEvent>) {
        const PAUSE: Duration = Duration::from_millis(500);
        let mut known = BTreeMap::new();
        loop {
            match self.round(&mut known, &events).await {
                End::Unheard => return,
                // Who is known stays known: only etcd may say that a worker is gone.
                End::Broken(reason) => tracing::warn!(%reason, "etcd watch broken, starting over"),
            }
            self.link.forget().await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lists who is there, then follows changes from that revision on until the watch breaks.
    async fn round(
        &self,
        known: &mut BTreeMap<WorkerId, WorkerRecord>,
        events: &mpsc::Sender<MembershipEvent>,
    ) -> End {
        let broken = |error: etcd_client::Error| End::Broken(error.to_string());
        let prefix = self.link.config().workers_prefix();
        let mut client = match self.link.client().await {
            Ok(client) => client,
            Err(error) => return End::Broken(error.to_string()),
        };
        let listing = match client.get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await {
            Ok(listing) => listing,
            Err(error) => return broken(error),
        };
        let present: BTreeMap<WorkerId, WorkerRecord> =
            listing.kvs().iter().filter_map(|pair| read(&prefix, pair)).collect();
        let mut news: Vec<MembershipEvent> = known
            .keys()
            .filter(|id| !present.contains_key(*id))
            .cloned()
            .map(MembershipEvent::Down)
            .collect();
        news.extend(
            present
                .iter()
                .filter(|(id, record)| known.get(*id) != Some(*record))
                .map(|(_, r)| MembershipEvent::Up(r.clone())),
        );
        *known = present;
        for event in news {
            if events.send(event).await.is_err() {
                return End::Unheard;
            }
        }
        let Some(revision) = listing.header().map(etcd_client::ResponseHeader::revision) else {
            return End::Broken("the listing has no revision".to_owned());
        };
        let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        let mut watch = match client.watch(prefix.as_str(), Some(options)).await {
            Ok(watch) => watch,
            Err(error) => return broken(error),
        };
        loop {
            let response = match watch.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return End::Broken("the watch ended".to_owned()),
                Err(error) => return broken(error),
            };
            if response.canceled() {
                return End::Broken(format!("the watch was cancelled: {}", response.cancel_reason()));
            }
            for event in response.events() {
                let Some(pair) = event.kv() else { continue };
                let change = match event.event_type() {
                    EventType::Put => read(&prefix, pair).and_then(|(id, record)| {
                        let changed = known.insert(id, record.clone()).as_ref() != Some(&record);
                        changed.then_some(MembershipEvent::Up(record))
                    }),
                    EventType::Delete => id_of(&prefix, pair)
                        .and_then(|id| known.remove(&id).map(|_| MembershipEvent::Down(id))),
                };
                if let Some(change) = change
                    && events.send(change).await.is_err()
                {
                    return End::Unheard;
                }
            }
        }
    }
}

fn id_of(prefix: &str, pair: &KeyValue) -> Option<WorkerId> {
    pair.key_str().ok()?.strip_prefix(prefix).map(WorkerId::from)
}

/// A registration, if it is one: etcd is open to others.
fn read(prefix: &str, pair: &KeyValue) -> Option<(WorkerId, WorkerRecord)> {
    let id = id_of(prefix, pair)?;
    let refuse = |reason: String| {
        tracing::warn!(worker.id = %id, %reason, "registration in etcd not usable");
        None
    };
    match serde_json::from_slice::<WorkerRecord>(pair.value()) {
        Ok(record) if record.id != id.as_str() => refuse(format!("it is about {:?}", record.id)),
        Ok(record) => match record.check() {
            Ok(()) => Some((id, record)),
            Err(reason) => refuse(reason),
        },
        Err(error) => refuse(error.to_string()),
    }
}
