//! Writes segments one after the other and keeps trying while the store is away.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use evenkeel_common::id::SweepId;
use evenkeel_common::results;
use evenkeel_common::runtime::blocking;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::sweeps::{Sequence, segment_path};
use super::{Store, StoreError, to_parquet};
use crate::core::{StatusCounts, TrialSet};

/// Results of one sweep that are to become a segment.
#[derive(Debug)]
pub struct Segment {
    /// The sweep.
    pub sweep: SweepId,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Their trials.
    pub trials: TrialSet,
    /// Those that failed.
    pub failed: TrialSet,
    /// How they ended.
    pub counts: StatusCounts,
}

/// What the writer reports.
#[derive(Debug)]
pub enum WriteEvent {
    /// A segment is durable.
    Written {
        /// What was in it; its batches are gone.
        segment: Segment,
        /// How long it took.
        took: Duration,
        /// Its size.
        bytes: usize,
        /// How often it was tried.
        attempts: u32,
    },
    /// The store does not take more for now; the writer keeps trying.
    Stalled {
        /// What it said.
        reason: String,
    },
    /// It works again.
    Recovered,
    /// Another leader uses this epoch: this one has to stop.
    Fenced {
        /// The object that gave it away.
        path: String,
    },
}

/// Takes segments and writes them in order; at most one waits.
#[derive(Debug)]
pub struct Writer {
    segments: mpsc::Sender<Segment>,
}

impl Writer {
    /// Starts the writer. `report` tells whether somebody still listens.
    pub fn start(store: Store, sequence: Arc<Sequence>, events: mpsc::Sender<WriteEvent>) -> Self {
        let (segments, mut inbox) = mpsc::channel::<Segment>(1);
        tokio::spawn(async move {
            while let Some(segment) = inbox.recv().await {
                // Without a driver there is no leader, and who leads no longer writes no more: not even again what failed.
                let goes_on = tokio::select! {
                    biased;
                    () = events.closed() => false,
                    goes_on = write(&store, &sequence, segment, &events) => goes_on,
                };
                if !goes_on {
                    return;
                }
            }
        });
        Self { segments }
    }

    /// Hands a segment over, or gives it back when one waits already.
    ///
    /// # Errors
    /// The segment, when the writer is busy or has ended.
    pub fn try_write(&self, segment: Segment) -> Result<(), Segment> {
        self.segments.try_send(segment).map_err(|error| match error {
            mpsc::error::TrySendError::Full(segment) | mpsc::error::TrySendError::Closed(segment) => segment,
        })
    }
}

/// Returns false when nobody listens any more or this leader is fenced.
async fn write(
    store: &Store,
    sequence: &Sequence,
    mut segment: Segment,
    events: &mpsc::Sender<WriteEvent>,
) -> bool {
    const FIRST_PAUSE: Duration = Duration::from_millis(250);
    const LONGEST_PAUSE: Duration = Duration::from_secs(10);

    let started = Instant::now();
    let batches = std::mem::take(&mut segment.batches);
    let encoded = blocking(move || -> Result<Bytes, String> {
        let batch = results::concat(&batches).map_err(|error| error.to_string())?;
        to_parquet(&batch).map_err(|error| error.to_string())
    })
    .await;
    let bytes = match encoded {
        Ok(Ok(bytes)) => bytes,
        // Batches were checked when they arrived: this is a defect here, and the rows must not be acknowledged.
        Ok(Err(reason)) => return events.send(WriteEvent::Stalled { reason }).await.is_ok(),
        Err(error) => return events.send(WriteEvent::Stalled { reason: error.to_string() }).await.is_ok(),
    };
    let path = segment_path(&segment.sweep, &sequence.next_name());
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0u32;
    loop {
        let reason = match store.create(&path, bytes.clone()).await {
            Ok(()) => break,
            Err(StoreError::Exists { .. }) => {
                // An earlier attempt may have arrived although its answer did not.
                match store.read(&path).await {
                    Ok(found) if attempts > 0 && found == bytes => break,
                    Ok(_) => {
                        let _ = events.send(WriteEvent::Fenced { path }).await;
                        return false;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        attempts += 1;
        if events.send(WriteEvent::Stalled { reason }).await.is_err() {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    if attempts > 0 && events.send(WriteEvent::Recovered).await.is_err() {
        return false;
    }
    let (took, bytes, attempts) = (started.elapsed(), bytes.len(), attempts + 1);
    events.send(WriteEvent::Written { segment, took, bytes, attempts }).await.is_ok()
}
