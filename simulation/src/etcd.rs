//! A stand-in for etcd that speaks the part of its protocol that Evenkeel uses.
//!
//! One member whose state survives its crashes, as a majority's would. Its leases run by a clock of its own, which may be
//! fast or slow.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_common::runtime::tls::{Tls, incoming};
use futures::StreamExt as _;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::etcdserverpb as pb;
use self::etcdserverpb::watch_request::RequestUnion;
use self::mvccpb::event::EventType;
use self::mvccpb::{Event, KeyValue};
use self::v3electionpb as election;
use crate::network::Listener;

/// Generated from etcd's definitions.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Generated from etcd's definitions.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// Generated from etcd's definitions.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// How often leases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Port of etcd.
pub const PORT: u16 = 2379;

struct Lease {
    ttl: Duration,
    /// By etcd's clock.
    until: Duration,
}

struct State {
    revision: i64,
    keys: BTreeMap<Vec<u8>, KeyValue>,
    leases: BTreeMap<i64, Lease>,
    last_lease: i64,
    /// Every change; the index says at which revision.
    history: Vec<(i64, Event)>,
    /// Seconds that etcd's clock counts in a second.
    rate: f64,
    /// Wakes who waits for a change, in the order they came. (A `watch` channel wakes them in any order.)
    changed: Arc<Notify>,
}

impl State {
    fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default().mul_f64(self.rate)
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.revision })
    }

    fn change(&mut self, kind: EventType, pair: KeyValue) {
        self.history.push((self.revision, Event { r#type: kind.into(), kv: Some(pair) }));
        self.changed.notify_waiters();
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, lease: i64) {
        self.revision += 1;
        let before = self.keys.get(&key);
        let pair = KeyValue {
            create_revision: before.map_or(self.revision, |before| before.create_revision),
            version: before.map_or(1, |before| before.version + 1),
            mod_revision: self.revision,
            key: key.clone(),
            value,
            lease,
        };
        self.keys.insert(key, pair.clone());
        self.change(EventType::Put, pair);
    }

    fn revoke(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let held: Vec<Vec<u8>> =
            self.keys.values().filter(|pair| pair.lease == lease).map(|pair| pair.key.clone()).collect();
        if !held.is_empty() {
            self.revision += 1;
        }
        for key in held {
            self.keys.remove(&key);
            let gone = KeyValue { key, mod_revision: self.revision, ..KeyValue::default() };
            self.change(EventType::Delete, gone);
        }
    }

    fn expire(&mut self) {
        let now = self.now();
        let over: Vec<i64> =
            self.leases.iter().filter(|(_, lease)| lease.until <= now).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|lease| self.revoke(lease));
    }

    fn range(&self, key: &[u8], end: &[u8]) -> Vec<KeyValue> {
        self.keys.values().filter(|pair| within(&pair.key, key, end)).cloned().collect()
    }

    /// Candidates of an election, the one that leads first.
    fn candidates(&self, name: &[u8]) -> Vec<KeyValue> {
        let prefix = [name, b"/"].concat();
        let mut found: Vec<KeyValue> =
            self.keys.values().filter(|pair| pair.key.starts_with(&prefix)).cloned().collect();
        found.sort_by_key(|pair| pair.create_revision);
        found
    }
}

fn within(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    if end.is_empty() { key == from } else { key >= from && key < end }
}

/// etcd's state and services; clones share them.
#[derive(Clone)]
pub struct Etcd(Arc<Mutex<State>>);

impl Etcd {
    /// An empty one, whose clock counts `rate` seconds a second.
    #[must_use]
    pub fn new(rate: f64) -> Self {
        Self(Arc::new(Mutex::new(State {
            revision: 1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0x1000,
            history: Vec::new(),
            rate,
            changed: Arc::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who leads an election: epoch and address.
    #[must_use]
    pub fn leader(&self, election: &str) -> Option<(u64, String)> {
        let leader = self.state().candidates(election.as_bytes()).into_iter().next()?;
        Some((leader.create_revision.unsigned_abs(), String::from_utf8(leader.value).ok()?))
    }

    /// Serves on this host.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn serve(self) -> turmoil::Result {
        // A new leader of etcd gives every lease its whole life again.
        {
            let mut state = self.state();
            let now = state.now();
            state.leases.values_mut().for_each(|lease| lease.until = now + lease.ttl);
        }
        let expiring = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                expiring.state().expire();
            }
        });
        let listener = Listener::bind(PORT).await?;
        tonic::transport::Server::builder()
            .add_service(pb::kv_server::KvServer::new(self.clone()))
            .add_service(pb::lease_server::LeaseServer::new(self.clone()))
            .add_service(pb::watch_server::WatchServer::new(self.clone()))
            .add_service(election::election_server::ElectionServer::new(self))
            .serve_with_incoming(incoming(listener, Tls::default()))
            .await?;
        Ok(())
    }
}

#[tonic::async_trait]
impl pb::kv_server::Kv for Etcd {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let kvs = state.range(&request.key, &request.range_end);
        let count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
        Ok(Response::new(pb::RangeResponse { header: state.header(), kvs, count }))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        if request.lease != 0 && !state.leases.contains_key(&request.lease) {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        state.put(request.key, request.value, request.lease);
        Ok(Response::new(pb::PutResponse { header: state.header() }))
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for Etcd {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let seconds = request.into_inner().ttl;
        let mut state = self.state();
        state.last_lease += 1;
        let (id, ttl) = (state.last_lease, Duration::from_secs(seconds.unsigned_abs()));
        let until = state.now() + ttl;
        state.leases.insert(id, Lease { ttl, until });
        Ok(Response::new(pb::LeaseGrantResponse { header: state.header(), id, ttl: seconds }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let mut state = self.state();
        state.revoke(request.into_inner().id);
        Ok(Response::new(pb::LeaseRevokeResponse { header: state.header() }))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut asked = request.into_inner();
        let (answers, stream) = mpsc::channel(4);
        let etcd = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = asked.message().await {
                let answer = {
                    let mut state = etcd.state();
                    let now = state.now();
                    let renewed = state.leases.get_mut(&request.id).map(|lease| {
                        lease.until = now + lease.ttl;
                        i64::try_from(lease.ttl.as_secs()).unwrap_or(i64::MAX)
                    });
                    let ttl = renewed.unwrap_or(0);
                    pb::LeaseKeepAliveResponse { header: state.header(), id: request.id, ttl }
                };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl pb::watch_server::Watch for Etcd {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut asked = request.into_inner();
        let Some(Ok(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(wanted)) })) =
            asked.next().await
        else {
            return Err(Status::invalid_argument("a watch has to be created first"));
        };
        let (answers, stream) = mpsc::channel(16);
        let etcd = self.clone();
        tokio::spawn(async move {
            let changed = etcd.state().changed.clone();
            let created = pb::WatchResponse {
                header: etcd.state().header(),
                created: true,
                ..pb::WatchResponse::default()
            };
            if answers.send(Ok(created)).await.is_err() {
                return;
            }
            let mut next = wanted.start_revision;
            loop {
                let mut change = pin!(changed.notified());
                change.as_mut().enable();
                let news = {
                    let state = etcd.state();
                    let wanted = |event: &Event| {
                        let pair = event.kv.as_ref();
                        pair.is_some_and(|pair| within(&pair.key, &wanted.key, &wanted.range_end))
                    };
                    let events: Vec<Event> = state
                        .history
                        .iter()
                        .filter(|(revision, event)| *revision >= next && wanted(event))
                        .map(|(_, event)| event.clone())
                        .collect();
                    next = state.revision + 1;
                    pb::WatchResponse { header: state.header(), events, ..pb::WatchResponse::default() }
                };
                if !news.events.is_empty() && answers.send(Ok(news)).await.is_err() {
                    return;
                }
                // The client keeps its half open for as long as it watches.
                tokio::select! {
                    biased;
                    () = change => {}
                    more = asked.next() => if more.is_none_or(|more| more.is_err()) { return },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl election::election_server::Election for Etcd {
    async fn campaign(
        &self,
        request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        let election::CampaignRequest { name, lease, value } = request.into_inner();
        let key = [&name[..], format!("/{lease:x}").as_bytes()].concat();
        let (changed, rev) = {
            let mut state = self.state();
            if !state.leases.contains_key(&lease) {
                return Err(Status::not_found("etcdserver: requested lease not found"));
            }
            if !state.keys.contains_key(&key) {
                state.put(key.clone(), value, lease);
            }
            let rev = state.keys.get(&key).map_or(0, |pair| pair.create_revision);
            (state.changed.clone(), rev)
        };
        // As etcd does, without looking whether the candidate's own key is still there.
        loop {
            let mut change = pin!(changed.notified());
            change.as_mut().enable();
            if self.state().candidates(&name).iter().all(|other| other.create_revision >= rev) {
                break;
            }
            change.await;
        }
        let leader = Some(election::LeaderKey { name, key, rev, lease });
        Ok(Response::new(election::CampaignResponse { header: self.state().header(), leader }))
    }

    async fn leader(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        let state = self.state();
        let Some(leader) = state.candidates(&request.into_inner().name).into_iter().next() else {
            return Err(Status::unknown("election: no leader"));
        };
        Ok(Response::new(election::LeaderResponse { header: state.header(), kv: Some(leader) }))
    }
}
