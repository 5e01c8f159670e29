//! From the segments in the store to an output directory.

use std::path::{Path, PathBuf};

use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::results::TrialRecord;

use crate::driver::SweepView;
use crate::export::{ExportError, Exporter, Format, RunInfo, Summary};
use crate::store::{Store, StoreError};
use crate::submission::Sweep;

/// Why an output directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output directory.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The task that wrote it died.
    #[error("writing the output died: {0}")]
    Died(String),
}

/// Writes everything a sweep has until now into `dir`, window by window: memory does not grow with the sweep.
///
/// # Errors
/// When the store does not give its segments or the directory cannot be written.
pub async fn collect(
    store: &Store,
    sweep: &Sweep,
    dir: &Path,
    format: Format,
    mut run: RunInfo,
) -> Result<Summary, CollectError> {
    let id: SweepId = sweep.id.clone();
    let (dir, grid) = (dir.to_owned(), sweep.grid.clone());
    let (windows, mut inbox) = tokio::sync::mpsc::channel::<Vec<TrialRecord>>(1);
    // Encoding Parquet is work for a thread of its own.
    let writing = tokio::task::spawn_blocking(move || -> Result<Summary, ExportError> {
        let mut exporter = Exporter::create(&dir, grid, &id, format)?;
        let (mut workers, mut devices) =
            (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        let mut started = None;
        while let Some(window) = inbox.blocking_recv() {
            for record in &window {
                let execution = &record.execution;
                if !execution.worker.is_empty() && !workers.contains(&execution.worker) {
                    workers.insert(execution.worker.clone());
                }
                if !execution.device.is_empty() && !devices.contains(&execution.device) {
                    devices.insert(execution.device.clone());
                }
                started = Some(started.map_or(execution.started_ms, |s: i64| s.min(execution.started_ms)));
            }
            exporter.push(&window)?;
        }
        run.workers = workers.into_iter().collect();
        run.devices = devices.into_iter().collect();
        run.started_ms = run.started_ms.or(started);
        exporter.finish(&run)
    });
    let mut reading = store.windows(&sweep.id).await?;
    let sent = loop {
        match reading.next().await {
            Ok(Some(window)) => {
                // When the writer has ended, its own error says why.
                if windows.send(window).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(windows);
    let written = writing.await.map_err(|error| CollectError::Died(error.to_string()))?;
    sent?;
    Ok(written?)
}

/// The output directory of a sweep in a temporary folder, which goes away with it.
#[derive(Debug)]
pub struct Exported(PathBuf);

impl Exported {
    /// Writes everything the sweep has until now.
    ///
    /// # Errors
    /// When the store does not give its segments or the folder cannot be written.
    pub async fn new(store: &Store, view: &SweepView, format: Format) -> Result<Self, CollectError> {
        let sweep = Sweep::from_store(store, &store.read_sweep(&view.id).await?).await?;
        let name = format!("{}{:?}", view.id, std::time::Instant::now());
        let hash = ContentHash::of(name.as_bytes()).to_hex();
        let name = format!("evenkeel-export-{}-{}", std::process::id(), hash.get(..12).unwrap_or_default());
        let exported = Self(std::env::temp_dir().join(name));
        let run = RunInfo {
            wall_seconds: Some(view.seconds),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: Some(view.submitted_ms),
            ..RunInfo::default()
        };
        collect(store, &sweep, &exported.0, format, run).await?;
        Ok(exported)
    }

    /// Names of its files.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn files(&self) -> std::io::Result<Vec<String>> {
        crate::export::files(&self.0)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        tokio::fs::read(self.0.join(name)).await
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "temporary export not removed");
        }
    }
}
