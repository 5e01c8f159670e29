//! What is kept between trials: checkpoints of long ones, features, encoders that were pre-trained here.
//!
//! They lie in the object store, where the next worker finds them, and features also in a folder of this machine. Losing a
//! checkpoint or features costs time and nothing else, so that failures are logged and not reported. An encoder is shared by
//! trials on different workers: where the store cannot be reached the trial fails and is tried again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use evenkeel_common::runtime::objects::{Objects, StoreError};
use tokio::runtime::Handle;

use crate::engine::EngineError;
use crate::finetune::checkpoint::Checkpoints;
use crate::finetune::pretrain::Encoders;

/// Where artifacts are kept.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Option<Objects>,
    folder: Option<PathBuf>,
    /// Time between two checkpoints of a trial.
    every: Duration,
    runtime: Option<Handle>,
    claims: Arc<Mutex<HashMap<String, Claim>>>,
}

/// What another process's claim last said, and since when.
#[derive(Debug)]
struct Claim {
    says: Bytes,
    since: Instant,
}

/// A claim that says the same for so long is nobody's any more: its holder renews it every few seconds. The time is that
/// of the process that looks; clocks of different machines are never compared.
const ABANDONED: Duration = Duration::from_secs(20);

/// Words that no other claim has.
fn unlike_any_other() -> Bytes {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    format!("{} {now} {}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)).into()
}

impl Artifacts {
    /// In a store and a folder, as far as they are there. The calls of this type come from threads outside the runtime.
    #[must_use]
    pub fn new(store: Option<Objects>, folder: Option<PathBuf>, every: Duration, runtime: Handle) -> Self {
        Self { store, folder, every, runtime: Some(runtime), claims: Arc::default() }
    }

    /// Nowhere.
    #[must_use]
    pub fn none() -> Self {
        Self { store: None, folder: None, every: Duration::MAX, runtime: None, claims: Arc::default() }
    }

    fn read(&self, path: &str) -> Option<Bytes> {
        let (store, runtime) = (self.store.as_ref()?, self.runtime.as_ref()?);
        match runtime.block_on(store.read(path)) {
            Ok(bytes) => Some(bytes),
            Err(StoreError::Missing { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, "artifact cannot be read");
                None
            }
        }
    }

    /// Features kept under a content hash, from the folder or the store.
    #[must_use]
    pub fn features(&self, key: &str) -> Option<Bytes> {
        if let Some(bytes) = self.folder.as_deref().and_then(|folder| std::fs::read(folder.join(key)).ok()) {
            return Some(bytes.into());
        }
        let bytes = self.read(&format!("features/{key}"))?;
        self.keep_in_folder(key, &bytes);
        Some(bytes)
    }

    /// Keeps features under a content hash.
    pub fn keep_features(&self, key: &str, bytes: Bytes) {
        self.keep_in_folder(key, &bytes);
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return };
        if let Err(error) = runtime.block_on(store.create_if_absent(&format!("features/{key}"), bytes)) {
            tracing::warn!(%error, "features cannot be kept in the store");
        }
    }

    fn keep_in_folder(&self, key: &str, bytes: &[u8]) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = write_whole(folder, key, bytes) {
            tracing::warn!(%error, folder = %folder.display(), "features cannot be kept in the cache folder");
        }
    }
}

/// Writes a file that others see whole or not at all.
fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let part = folder.join(format!("{name}.{}.part", std::process::id()));
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, folder.join(name))
}

impl Checkpoints for Artifacts {
    fn load(&self, trial: &str) -> Option<Vec<u8>> {
        self.read(&format!("checkpoints/{trial}")).map(Into::into)
    }

    fn save(&self, trial: &str, bytes: Vec<u8>) {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return };
        let size = bytes.len();
        match runtime.block_on(store.write(&format!("checkpoints/{trial}"), bytes.into())) {
            Ok(()) => tracing::info!(trial.id = %trial, bytes = size, "checkpoint kept"),
            Err(error) => tracing::warn!(%error, "checkpoint cannot be kept"),
        }
    }

    fn forget(&self, trial: &str) {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return };
        if let Err(error) = runtime.block_on(store.delete(&format!("checkpoints/{trial}"))) {
            tracing::warn!(%error, "checkpoint cannot be deleted");
        }
    }

    fn due(&self, since: Instant) -> bool {
        self.store.is_some() && since.elapsed() >= self.every
    }
}

fn unavailable(error: StoreError) -> EngineError {
    EngineError::Unavailable(format!("an encoder cannot be kept or found: {error}"))
}

impl Encoders for Artifacts {
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return Ok(None) };
        match runtime.block_on(store.read(&format!("encoders/{name}"))) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn keep(&self, name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, EngineError> {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return Ok(bytes) };
        let path = format!("encoders/{name}");
        let kept = runtime.block_on(async {
            store.create_if_absent(&path, bytes.into()).await?;
            store.read(&path).await
        });
        kept.map(Into::into).map_err(unavailable)
    }

    fn claim(&self, name: &str) -> bool {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return true };
        let path = format!("claims/{name}");
        let says = match runtime.block_on(store.create(&path, unlike_any_other())) {
            Err(StoreError::Exists { .. }) => self.read(&path).unwrap_or_default(),
            Ok(()) => return true,
            Err(error) => {
                // Working without a claim is no harm: one result is kept.
                tracing::warn!(%error, "an encoder cannot be claimed");
                return true;
            }
        };
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        match claims.get(name) {
            Some(claim) if claim.says == says => {
                if claim.since.elapsed() < ABANDONED {
                    return false;
                }
                claims.remove(name);
                drop(claims);
                tracing::warn!(encoder = %name, "its maker fell silent, this worker makes the encoder");
                self.renew(name);
                true
            }
            _ => {
                claims.insert(name.to_owned(), Claim { says, since: Instant::now() });
                false
            }
        }
    }

    fn renew(&self, name: &str) {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return };
        if let Err(error) = runtime.block_on(store.write(&format!("claims/{name}"), unlike_any_other())) {
            tracing::warn!(%error, "a claim cannot be renewed");
        }
    }

    fn release(&self, name: &str) {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return };
        if let Err(error) = runtime.block_on(store.delete(&format!("claims/{name}"))) {
            tracing::warn!(%error, "a claim cannot be given up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_makes_an_encoder_and_the_first_result_stays() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let open = || {
            let store = Objects::open(folder.path().to_str().unwrap()).unwrap();
            Artifacts::new(Some(store), None, Duration::MAX, runtime.handle().clone())
        };
        let (one, other) = (open(), open());
        assert!(one.claim("e") && !other.claim("e") && !other.claim("e"));
        assert!(other.claim("f"));
        // Silent for too long: as the other process sees it.
        let age = |by: Duration| {
            let mut claims = other.claims.lock().unwrap();
            let claim = claims.get_mut("e").unwrap();
            claim.since = claim.since.checked_sub(by).unwrap();
        };
        age(ABANDONED - Duration::from_secs(5));
        one.renew("e");
        age(Duration::from_secs(6));
        assert!(!other.claim("e"), "a renewed claim holds");
        age(ABANDONED);
        assert!(other.claim("e"), "an abandoned one passes on");
        assert_eq!(one.keep("e", vec![1]).unwrap(), [1]);
        assert_eq!(other.keep("e", vec![2]).unwrap(), [1]);
        assert_eq!(other.find("e").unwrap(), Some(vec![1]));
        other.release("e");
        assert!(one.claim("e"));
    }
}
