//! How much one client may ask for, so that others are served, too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_common::runtime::tls::Peer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::relay::is_from_coordinator;

/// Metadata of a refusal that will not last: milliseconds after which to ask again (gRPC retry design, proposal A6).
pub const RETRY_AFTER: &str = "grpc-retry-pushback-ms";
/// Clients that are remembered; one that was not heard for a while is as good as new.
const CLIENTS: usize = 4096;
/// Requests at once, as a multiple of those a second.
const BURST: f64 = 2.0;
/// Submissions, and exports, at once: each may hold a gigabyte, or a core.
const HEAVY: usize = 4;
/// When to ask again for one of those.
const HEAVY_RETRY: Duration = Duration::from_secs(2);

/// What a coordinator takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Trials of a sweep.
    pub trials: u64,
    /// Sweeps that have not ended.
    pub sweeps: usize,
    /// Requests a second of one client.
    pub requests_per_second: u32,
}

impl Limits {
    /// For a coordinator that serves nobody but its own process.
    pub const NONE: Self = Self { trials: u64::MAX, sweeps: usize::MAX, requests_per_second: u32::MAX };
}

/// A refusal that says when to ask again.
#[must_use]
pub fn busy(message: impl Into<String>, retry_after: Duration) -> Status {
    let mut metadata = MetadataMap::new();
    let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).max(1);
    metadata.insert(RETRY_AFTER, millis.into());
    Status::with_metadata(tonic::Code::ResourceExhausted, message, metadata)
}

/// When to ask again, if a refusal says so.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    let millis = status.metadata().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    (status.code() == tonic::Code::ResourceExhausted).then(|| Duration::from_millis(millis))
}

/// Who asks: by the token, whose hash alone is kept, or else by the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    Token(blake3::Hash),
    Address(Option<IpAddr>),
}

/// A bucket that fills with time; each request takes one drop of it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    drops: f64,
    at: Instant,
}

/// Counts requests; clones share the counts.
#[derive(Clone, Debug)]
pub struct Throttle {
    rate: f64,
    buckets: Arc<Mutex<HashMap<Client, Bucket>>>,
    heavy: Arc<Semaphore>,
}

impl Throttle {
    /// Lets each client ask so often.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let heavy = Arc::new(Semaphore::new(HEAVY));
        Self { rate: f64::from(limits.requests_per_second), buckets: Arc::default(), heavy }
    }

    /// Lets a gRPC call pass.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with [`RETRY_AFTER`], when its client asks too often.
    pub fn check_call<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization").map(|value| value.as_bytes());
        let peer = request.extensions().get::<Peer>();
        // Its clients would all have the one address.
        if token.is_none() && is_from_coordinator(request.metadata().as_ref(), peer) {
            return Ok(());
        }
        let address = peer.and_then(|peer| peer.address);
        self.check(token, address.map(|address| address.ip()), Instant::now()).map_err(|wait| {
            busy(
                format!("this client asks more than {} times a second; ask again in {wait:?}", self.rate),
                wait,
            )
        })
    }

    /// Takes a drop, or says how long until there is one.
    fn check(&self, token: Option<&[u8]>, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let client = token.map_or(Client::Address(address), |token| Client::Token(blake3::hash(token)));
        let full = BURST * self.rate;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CLIENTS && !buckets.contains_key(&client) {
            let refilled = Duration::from_secs_f64(BURST);
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < refilled);
            if buckets.len() >= CLIENTS {
                return Err(refilled);
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { drops: full, at: now });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        *bucket = Bucket { drops: (bucket.drops + since * self.rate).min(full), at: now };
        if bucket.drops < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.drops) / self.rate));
        }
        bucket.drops -= 1.0;
        Ok(())
    }

    /// A place among those who do something heavy.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with [`RETRY_AFTER`], when all are taken.
    pub fn heavy(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.heavy.clone().try_acquire_owned().map_err(|_| {
            busy(
                format!("{HEAVY} submissions and exports are on already; ask again in a moment"),
                HEAVY_RETRY,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(requests_per_second: u32) -> Throttle {
        Throttle::new(Limits { requests_per_second, ..Limits::NONE })
    }

    #[test]
    fn a_client_that_asks_too_often_is_told_when_to_ask_again_and_others_are_served() {
        let throttle = throttle(10);
        let now = Instant::now();
        let ask = |token: &str, at| throttle.check(Some(token.as_bytes()), None, at);
        for _ in 0..20 {
            assert_eq!(ask("ann", now), Ok(()));
        }
        let wait = ask("ann", now).expect_err("more than a burst");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(ask("ben", now), Ok(()));
        assert!(ask("ann", now + wait / 2).is_err());
        assert_eq!(ask("ann", now + wait), Ok(()));
        assert!(ask("ann", now + wait).is_err());
    }

    #[test]
    fn without_tokens_addresses_are_told_apart_and_memory_is_bounded() {
        let throttle = throttle(1);
        let now = Instant::now();
        let ask = |number: u32, at| throttle.check(None, Some(IpAddr::from(number.to_be_bytes())), at);
        for number in 0..CLIENTS as u32 {
            assert_eq!(ask(number, now), Ok(()));
        }
        assert!(ask(1 << 30, now).is_err(), "all places are taken");
        assert_eq!(ask(0, now), Ok(()), "who is known is served");
        assert_eq!(ask(1 << 30, now + Duration::from_secs(3)), Ok(()));
        assert!(throttle.buckets.lock().expect("lock").len() < CLIENTS);
    }

    #[test]
    fn a_refusal_carries_the_time_and_heavy_work_has_few_places() {
        let throttle = throttle(1);
        let places: Vec<_> = (0..HEAVY).map(|_| throttle.heavy().expect("a place")).collect();
        let refusal = throttle.heavy().expect_err("one too many");
        assert_eq!(retry_after(&refusal), Some(HEAVY_RETRY));
        drop(places);
        assert!(throttle.heavy().is_ok());
        assert_eq!(retry_after(&Status::resource_exhausted("a file too large")), None);
    }
}
