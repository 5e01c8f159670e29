//! A small set of trial numbers, kept as ranges because packs are mostly contiguous.

use std::ops::Range;

use roaring::RoaringTreemap;

/// A set of trial numbers: sorted half-open ranges that are neither empty nor touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialSet {
    ranges: Vec<Range<u64>>,
}

impl TrialSet {
    /// The empty set.
    pub fn new() -> TrialSet {
        TrialSet::default()
    }

    /// The set of the trials in any of `ranges`, which may overlap and come in any order.
    pub fn from_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> TrialSet {
        let mut sorted: Vec<Range<u64>> =
            ranges.into_iter().filter(|range| range.start < range.end).collect();
        sorted.sort_unstable_by_key(|range| range.start);
        let mut set = TrialSet::new();
        for range in sorted {
            set.push(range);
        }
        set
    }

    /// The set of the members of `bitmap`. Time is linear in the members.
    pub fn from_bitmap(bitmap: &RoaringTreemap) -> TrialSet {
        bitmap.iter().collect()
    }

    /// Adds a range that does not start before the last range of the set does.
    pub(super) fn push(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.ranges.push(range),
        }
    }

    /// The number of trials.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether there is no trial.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, sorted, disjoint and not touching.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The trials in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().cloned().flatten()
    }

    /// The lowest trial.
    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|range| range.start)
    }

    /// The highest trial.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.end - 1)
    }

    /// Whether `trial` is in the set.
    pub fn contains(&self, trial: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.end <= trial);
        self.ranges.get(after).is_some_and(|range| range.start <= trial)
    }

    /// The first `count` trials and the others.
    pub fn split_at(&self, count: u64) -> (TrialSet, TrialSet) {
        let (mut head, mut tail) = (TrialSet::new(), TrialSet::new());
        let mut room = count;
        for range in &self.ranges {
            let cut = range.start + room.min(range.end - range.start);
            room -= cut - range.start;
            head.push(range.start..cut);
            tail.push(cut..range.end);
        }
        (head, tail)
    }

    /// Two halves; the first has the extra trial of an odd number.
    pub fn split_half(&self) -> (TrialSet, TrialSet) {
        self.split_at(self.len().div_ceil(2))
    }

    /// The trials that are in both sets.
    pub fn intersection(&self, other: &TrialSet) -> TrialSet {
        let mut common = TrialSet::new();
        for range in &self.ranges {
            for cut in other.overlapping(range) {
                common.push(range.start.max(cut.start)..range.end.min(cut.end));
            }
        }
        common
    }

    /// The trials of this set that are not in `other`.
    pub fn difference(&self, other: &TrialSet) -> TrialSet {
        let mut kept = TrialSet::new();
        for range in &self.ranges {
            let mut from = range.start;
            for cut in other.overlapping(range) {
                kept.push(from..cut.start);
                from = cut.end;
            }
            kept.push(from..range.end);
        }
        kept
    }

    /// The trials in either set.
    pub fn union(&self, other: &TrialSet) -> TrialSet {
        TrialSet::from_ranges(self.ranges.iter().chain(&other.ranges).cloned())
    }

    /// Takes the trials of `other` out. Says whether any was there.
    pub fn remove(&mut self, other: &TrialSet) -> bool {
        if !self.overlaps(other) {
            return false;
        }
        *self = self.difference(other);
        true
    }

    /// Whether the sets have a trial in common.
    pub fn overlaps(&self, other: &TrialSet) -> bool {
        let (few, many) = if self.ranges.len() <= other.ranges.len() { (self, other) } else { (other, self) };
        few.ranges.iter().any(|range| many.overlapping(range).next().is_some())
    }

    /// The trials below `end`.
    pub fn below(&self, end: u64) -> TrialSet {
        self.intersection(&TrialSet::from(0..end))
    }

    /// The trials as a bitmap.
    pub fn to_bitmap(&self) -> RoaringTreemap {
        let mut bitmap = RoaringTreemap::new();
        self.insert_into(&mut bitmap);
        bitmap
    }

    /// The trials that are not in `bitmap`.
    pub fn difference_bitmap(&self, bitmap: &RoaringTreemap) -> TrialSet {
        let mut kept = self.to_bitmap();
        let before = kept.len();
        kept -= bitmap;
        if kept.len() == before { self.clone() } else { TrialSet::from_bitmap(&kept) }
    }

    /// Adds the trials to `bitmap`.
    pub(super) fn insert_into(&self, bitmap: &mut RoaringTreemap) {
        for range in &self.ranges {
            bitmap.insert_range(range.clone());
        }
    }

    /// Takes the trials out of `bitmap`. Returns how many were there.
    pub(super) fn remove_from(&self, bitmap: &mut RoaringTreemap) -> u64 {
        if bitmap.is_empty() {
            return 0;
        }
        self.ranges.iter().map(|range| bitmap.remove_range(range.clone())).sum()
    }

    fn overlapping<'a>(&'a self, range: &'a Range<u64>) -> impl Iterator<Item = &'a Range<u64>> {
        let from = self.ranges.partition_point(|other| other.end <= range.start);
        self.ranges[from..].iter().take_while(|other| other.start < range.end)
    }
}

impl From<Range<u64>> for TrialSet {
    fn from(range: Range<u64>) -> TrialSet {
        TrialSet::from_ranges([range])
    }
}

/// Collects trials in any order.
impl FromIterator<u64> for TrialSet {
    fn from_iter<I: IntoIterator<Item = u64>>(trials: I) -> TrialSet {
        let mut set = TrialSet::new();
        let mut stragglers = Vec::new();
        for trial in trials {
            // The end of a half-open range must fit: the highest number cannot be a trial.
            if trial == u64::MAX {
                continue;
            }
            if set.ranges.last().is_none_or(|last| last.start <= trial) {
                set.push(trial..trial + 1);
            } else {
                stragglers.push(trial..trial + 1);
            }
        }
        if stragglers.is_empty() { set } else { set.union(&TrialSet::from_ranges(stragglers)) }
    }
}
