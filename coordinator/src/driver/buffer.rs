//! Results on their way to the store: gathered by sweep until they are worth a segment.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use evenkeel_common::id::SweepId;
use evenkeel_common::results::Status;
use tokio::time::Instant;

use crate::core::{Core, StatusCounts, TrialSet};
use crate::store::Segment;

/// The first results of a sweep are durable soon; later ones wait for company, and all the longer the slower the store.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Rows that are worth a segment whatever the time.
const ROWS: usize = 65_536;
/// And bytes.
const BYTES: usize = 64 << 20;

#[derive(Default)]
struct Buffer {
    batches: Vec<RecordBatch>,
    bytes: usize,
    rows: Vec<(u64, Status)>,
    due: Option<Instant>,
    segments: u32,
}

/// The buffers of all sweeps.
#[derive(Default)]
pub(super) struct Buffers {
    sweeps: BTreeMap<SweepId, Buffer>,
    /// A segment that the writer had no room for.
    waiting: Option<Segment>,
    /// Segments the writer has.
    writing: u32,
    slowest: Duration,
}

impl Buffers {
    pub fn push(&mut self, sweep: &SweepId, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            let buffer = self.sweeps.entry(sweep.clone()).or_default();
            buffer.bytes += batch.get_array_memory_size();
            buffer.batches.push(batch);
        }
    }

    pub fn note(&mut self, sweep: &SweepId, rows: impl Iterator<Item = (u64, Status)>) {
        let wait = (self.slowest * 4).clamp(SHORTEST_WAIT, LONGEST_WAIT);
        let buffer = self.sweeps.entry(sweep.clone()).or_default();
        buffer.rows.extend(rows);
        if !buffer.rows.is_empty() && buffer.due.is_none() {
            // Growing with the number of segments, so that a long sweep does not leave a segment every 0.1 s.
            let wait = if buffer.segments < 10 { SHORTEST_WAIT } else { wait.max(LONGEST_WAIT) };
            buffer.due = Some(Instant::now() + wait);
        }
    }

    /// When the next segment is due, if the writer can take it.
    pub fn due(&self) -> Option<Instant> {
        if self.writing > 0 { None } else { self.sweeps.values().filter_map(|buffer| buffer.due).min() }
    }

    /// Whether nothing waits and nothing is being written.
    pub fn is_settled(&self) -> bool {
        self.writing == 0
            && self.waiting.is_none()
            && self.sweeps.values().all(|buffer| buffer.rows.is_empty())
    }

    /// Makes everything due now.
    pub fn hurry(&mut self) {
        let now = Instant::now();
        for buffer in self.sweeps.values_mut().filter(|buffer| !buffer.rows.is_empty()) {
            buffer.due = Some(now);
        }
    }

    /// Whether nothing is left to do but to write: then waiting for company is vain.
    pub fn holds_all(&self, core: &Core) -> bool {
        !self.sweeps.is_empty() && core.sweeps().all(|sweep| sweep.pending == 0 && sweep.running == 0)
    }

    pub fn written(&mut self, took: Duration) {
        self.writing = self.writing.saturating_sub(1);
        self.slowest = took;
    }

    pub fn give_back(&mut self, segment: Segment) {
        self.writing = self.writing.saturating_sub(1);
        self.waiting = Some(segment);
    }

    /// The next segment to write, if one is due (or all are, with `now`).
    pub fn next_due(&mut self, now: bool) -> Option<Segment> {
        if let Some(segment) = self.waiting.take() {
            self.writing += 1;
            return Some(segment);
        }
        if self.writing > 0 {
            return None;
        }
        let at = Instant::now();
        let is_due = |buffer: &Buffer| {
            !buffer.rows.is_empty()
                && (now
                    || buffer.rows.len() >= ROWS
                    || buffer.bytes >= BYTES
                    || buffer.due.is_some_and(|due| due <= at))
        };
        let (sweep, buffer) = self.sweeps.iter_mut().find(|(_, buffer)| is_due(buffer))?;
        (buffer.due, buffer.bytes) = (None, 0);
        buffer.segments += 1;
        let mut rows = std::mem::take(&mut buffer.rows);
        rows.sort_unstable_by_key(|(trial, _)| *trial);
        let count = |status| rows.iter().filter(|(_, s)| *s == status).count() as u64;
        self.writing += 1;
        Some(Segment {
            sweep: sweep.clone(),
            batches: std::mem::take(&mut buffer.batches),
            trials: rows.iter().map(|(trial, _)| *trial).collect(),
            failed: rows.iter().filter(|(_, s)| *s == Status::Failed).map(|(t, _)| *t).collect::<TrialSet>(),
            counts: StatusCounts {
                completed: count(Status::Completed),
                diverged: count(Status::Diverged),
                failed: count(Status::Failed),
            },
        })
    }
}
