//! What is true: an object store (a directory or S3) of immutable objects, each created if absent.
//!
//! ```text
//! epochs/<n>                              leaders that ran without etcd
//! data/<blake3>                           files of datasets and models, by content
//! sweeps/<id>/spec.json                   what was submitted
//! sweeps/<id>/state/<epoch>-<seq>.json    transitions; the last one holds
//! sweeps/<id>/segments/<epoch>-<seq>.parquet   results; a trial counts once it is in one
//! checkpoints/<trial id>, features/<blake3>    of workers: what can be computed again, kept to save time
//! quarantine/…                            what `fsck --repair` set aside
//! ```
//!
//! `<seq>` rises over segments and transitions together, so names order everything a leader wrote.

mod compact;
mod fsck;
mod gc;
mod project;
mod records;
mod segment;
mod sweeps;
mod windows;
mod writer;

pub use compact::compact;
pub use fsck::{Findings, Problem, check};
pub use gc::{Collected, Retention, collect_garbage};
pub use project::{Overview, OverviewRow, read_overview, read_rows};
pub use records::{StateRecord, StoredState, SweepRecord};
pub use segment::{Contents, read_contents, read_records, to_parquet};
pub use sweeps::{LoadedSweep, Sequence, States, data_path, segment_path};
pub use windows::Windows;
pub use writer::{Segment, WriteEvent, Writer};

use bytes::Bytes;
use evenkeel_common::runtime::objects::Objects;
pub use evenkeel_common::runtime::objects::StoreError;

/// A handle to the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Objects);

impl std::ops::Deref for Store {
    type Target = Objects;
    fn deref(&self) -> &Objects {
        &self.0
    }
}

impl From<Objects> for Store {
    fn from(objects: Objects) -> Self {
        Self(objects)
    }
}

impl Store {
    /// Opens a store (see [`Objects::open`]).
    ///
    /// # Errors
    /// When the location is malformed or the directory cannot be made.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        Objects::open(location).map(Self)
    }

    /// Takes the next epoch of leaders that run without etcd.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn next_epoch(&self) -> Result<u64, StoreError> {
        let mut epoch =
            self.list("epochs").await?.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0u64);
        loop {
            epoch += 1;
            match self.create(&format!("epochs/{epoch:010}"), Bytes::from_static(b"")).await {
                Ok(()) => return Ok(epoch),
                // Another leader took it at the same moment.
                Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn epochs_rise() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        assert_eq!(
            (store.next_epoch().await.expect("epoch"), store.next_epoch().await.expect("epoch")),
            (1, 2)
        );
    }
}
