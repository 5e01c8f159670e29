//! What can be computed again, kept to save time: checkpoints of long trials, features of texts.
//!
//! They lie in the object store, where the next worker finds them, and features also in a folder of this machine. Losing
//! one costs time and nothing else, so that failures are logged and not reported.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel_common::runtime::objects::{Objects, StoreError};
use tokio::runtime::Handle;

use crate::finetune::checkpoint::Checkpoints;

/// Where artifacts are kept.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Option<Objects>,
    folder: Option<PathBuf>,
    /// Time between two checkpoints of a trial.
    every: Duration,
    runtime: Option<Handle>,
}

impl Artifacts {
    /// In a store and a folder, as far as they are there. The calls of this type come from threads outside the runtime.
    #[must_use]
    pub fn new(store: Option<Objects>, folder: Option<PathBuf>, every: Duration, runtime: Handle) -> Self {
        Self { store, folder, every, runtime: Some(runtime) }
    }

    /// Nowhere.
    #[must_use]
    pub fn none() -> Self {
        Self { store: None, folder: None, every: Duration::MAX, runtime: None }
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
