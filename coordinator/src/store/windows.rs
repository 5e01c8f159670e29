//! The records of a sweep in the order of their trials.

use evenkeel_common::id::SweepId;
use evenkeel_common::results::{Status, TrialRecord};

use super::segment::read_records;
use super::{Store, StoreError};

/// The records of a sweep in the order of their trials, one a trial, a window at a time: memory does not grow with the
/// sweep.
#[derive(Debug)]
pub struct Windows {
    pub(super) store: Store,
    pub(super) sweep: SweepId,
    pub(super) segments: Vec<WindowSegment>,
    /// Trials a window spans.
    pub(super) width: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) struct WindowSegment {
    pub(super) path: String,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) void_failures: bool,
    /// Records of later windows, in the order of their trials, so that a segment that spans several is read once.
    pub(super) left: Option<std::iter::Peekable<std::vec::IntoIter<TrialRecord>>>,
}

impl Windows {
    /// Most trials a window spans.
    pub(super) const WIDTH: u64 = 16_384;
    /// Values that it holds, about: trials may have long lists.
    pub(super) const VALUES: u64 = 8 << 20;

    /// How often segments are looked for that have become one meanwhile.
    pub(super) const TRIES: u32 = 3;

    /// The next window; none after the last.
    ///
    /// # Errors
    /// When a segment cannot be read or is damaged.
    pub async fn next(&mut self) -> Result<Option<Vec<TrialRecord>>, StoreError> {
        let mut tries = 1;
        while self.start < self.end {
            match self.read().await {
                Ok(records) => {
                    self.start = self.start.saturating_add(self.width);
                    return Ok(Some(records));
                }
                // An ended sweep was compacted: the same rows are in another segment.
                Err(StoreError::Missing { .. }) if tries < Self::TRIES => {
                    tries += 1;
                    self.segments = self.store.windows(&self.sweep).await?.segments;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<Vec<TrialRecord>, StoreError> {
        let (start, stop) = (self.start, self.start.saturating_add(self.width));
        // A place for each trial of the window: what comes first stays.
        let mut places: Vec<Option<TrialRecord>> = Vec::new();
        places.resize_with(usize::try_from(stop.min(self.end) - start).unwrap_or(0), || None);
        for segment in
            self.segments.iter_mut().filter(|segment| segment.first < stop && segment.last >= start)
        {
            let left = match &mut segment.left {
                Some(left) => left,
                empty => {
                    let mut records = read_records(&self.store, &segment.path).await?;
                    records.sort_by_key(|record| record.outcome.trial_index);
                    empty.insert(records.into_iter().peekable())
                }
            };
            while let Some(record) = left.next_if(|record| record.outcome.trial_index < stop) {
                let place =
                    record.outcome.trial_index.checked_sub(start).and_then(|at| usize::try_from(at).ok());
                let void = segment.void_failures && record.outcome.status == Status::Failed;
                if let Some(empty @ None) = place.and_then(|at| places.get_mut(at))
                    && !void
                {
                    *empty = Some(record);
                }
            }
            if left.peek().is_none() {
                // The iterator would keep the memory of what it gave away.
                *left = Vec::new().into_iter().peekable();
            }
        }
        let mut records = Vec::with_capacity(places.len());
        records.extend(places.into_iter().flatten());
        Ok(records)
    }
}
