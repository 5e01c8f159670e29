//! One object store for all hosts, which may fail before or after it did what it was asked, or take its time.
//!
//! A write that is on its way arrives, whatever becomes of who sent it: also when its sender is dead, or another leads.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_common::runtime::objects::Objects;
use evenkeel_common::seed::Stream;
use evenkeel_coordinator::store::{Store, read_contents};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::etcd::Etcd;
use crate::hosts::ELECTION;
use crate::oracle::Oracle;

/// How the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Well.
    #[default]
    Well,
    /// Most writes and reads fail, and nothing happened.
    FailsBefore,
    /// Most writes fail although they took place, as when the answer is lost.
    FailsAfter,
    /// Everything takes seconds, before or after it took place.
    Slow,
}

/// What is about to happen to a request.
struct Fate {
    before: Duration,
    fails_before: bool,
    fails_after: bool,
    after: Duration,
}

/// A write on its way.
struct Write {
    arrives: Duration,
    life: String,
    path: Path,
    payload: PutPayload,
    options: PutOptions,
    done: Arc<Mutex<Option<Result<PutResult>>>>,
}

struct Sky {
    mood: Mood,
    draws: Stream,
    writes: Vec<Write>,
}

/// The store's mood, and what is on its way to it; clones share it.
#[derive(Clone)]
pub struct Weather(Arc<Mutex<Sky>>);

impl Weather {
    /// Well, with these random numbers.
    #[must_use]
    pub fn new(draws: Stream) -> Self {
        Self(Arc::new(Mutex::new(Sky { mood: Mood::Well, draws, writes: Vec::new() })))
    }

    /// Changes the mood.
    pub fn set(&self, mood: Mood) {
        self.sky().mood = mood;
    }

    fn sky(&self) -> MutexGuard<'_, Sky> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets arrive what is due.
    pub fn land(&self, now: Duration, inner: &Arc<InMemory>, oracle: &Oracle) {
        let due: Vec<Write> = self.sky().writes.extract_if(.., |write| write.arrives <= now).collect();
        for write in due {
            // This store answers at once.
            let done = inner.put_opts(&write.path, write.payload, write.options).now_or_never();
            let path = write.path.as_ref();
            if done.as_ref().is_some_and(Result::is_ok) {
                oracle.note(&write.life, format!("put {path} done"));
                if path.contains("/segments/") {
                    match read_contents(&plain(inner), path).now_or_never() {
                        Some(Ok(contents)) => oracle.durable(contents.trials.iter().map(|(trial, _)| *trial)),
                        other => oracle.broken(format!("{path} cannot be read: {other:?}")),
                    }
                }
            }
            *write.done.lock().unwrap_or_else(PoisonError::into_inner) = done;
        }
    }

    fn fate(&self) -> Fate {
        let mut sky = self.sky();
        let Sky { mood, draws, .. } = &mut *sky;
        let mut millis = |from: u64, to: u64| Duration::from_millis(from + draws.below(to - from));
        let (mut before, mut after) = (millis(1, 15), millis(1, 15));
        let (slow, early, most) = (millis(1_000, 8_000), draws.below(2) == 0, draws.below(10) < 7);
        if *mood == Mood::Slow {
            if early { before += slow } else { after += slow }
        }
        Fate {
            before,
            fails_before: *mood == Mood::FailsBefore && most,
            fails_after: *mood == Mood::FailsAfter && most,
            after,
        }
    }
}

/// The store as one process sees it.
pub struct SimulatedStore {
    inner: Arc<InMemory>,
    weather: Weather,
    oracle: Oracle,
    etcd: Etcd,
    /// Whether leases run out at the right time: then nobody may write who does not lead.
    strict: bool,
    life: String,
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedStore").field("life", &self.life).finish_non_exhaustive()
    }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the simulated store")
    }
}

/// The store as it is, without faults.
#[must_use]
pub fn plain(inner: &Arc<InMemory>) -> Store {
    Objects::over(inner.clone(), "memory").into()
}

fn failure() -> Error {
    Error::Generic { store: "simulated", source: "it fails for a while".into() }
}

/// Epoch of an object that a leader writes.
fn epoch(path: &str) -> Option<u64> {
    let mut parts = path.split('/').skip(2);
    let folder = parts.next()?;
    let name = parts.next()?;
    matches!(folder, "segments" | "state").then(|| name.split('-').next()?.parse().ok()).flatten()
}

impl SimulatedStore {
    /// For a process.
    #[must_use]
    pub fn new(
        inner: Arc<InMemory>,
        weather: Weather,
        oracle: Oracle,
        etcd: Etcd,
        strict: bool,
        life: &str,
    ) -> Self {
        Self { inner, weather, oracle, etcd, strict, life: life.to_owned() }
    }

    /// A request that reads: late, or failing.
    async fn read(&self) -> Result<()> {
        let fate = self.weather.fate();
        tokio::time::sleep(fate.before + fate.after).await;
        if fate.fails_before { Err(failure()) } else { Ok(()) }
    }

    fn begin(&self, path: &str) {
        self.oracle.note(&self.life, format!("put {path}"));
        let Some(epoch) = epoch(path) else { return };
        self.oracle.writes(&self.life, epoch, path);
        let leader = self.etcd.leader(ELECTION).map(|(leader, _)| leader);
        if self.strict && leader != Some(epoch) {
            self.oracle.broken(format!("{} writes {path} while {leader:?} leads", self.life));
        }
    }
}

#[tonic::async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fate = self.weather.fate();
        self.begin(path.as_ref());
        if fate.fails_before {
            tokio::time::sleep(fate.before).await;
            return Err(failure());
        }
        let done = Arc::new(Mutex::new(None));
        self.weather.sky().writes.push(Write {
            arrives: turmoil::sim_elapsed().unwrap_or_default() + fate.before,
            life: self.life.clone(),
            path: path.clone(),
            payload,
            options,
            done: done.clone(),
        });
        tokio::time::sleep(fate.before).await;
        let result = loop {
            let arrived = done.lock().unwrap_or_else(PoisonError::into_inner).take();
            match arrived {
                Some(result) => break result,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        tokio::time::sleep(fate.after).await;
        if fate.fails_after { Err(failure()) } else { result }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.read().await?;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read().await?;
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // Listed when the answer comes, not when the question was asked.
        let (inner, prefix, fate) = (self.inner.clone(), prefix.cloned(), self.weather.fate());
        let listing = async move {
            tokio::time::sleep(fate.before + fate.after).await;
            match fate.fails_before {
                true => futures::stream::once(async { Err(failure()) }).boxed(),
                false => inner.list(prefix.as_ref()),
            }
        };
        futures::stream::once(listing).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.read().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
