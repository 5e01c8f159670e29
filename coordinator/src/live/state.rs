//! What is known of a sweep from the segments that were read: figures, and where each trial is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evenkeel_common::grid::Grid;
use evenkeel_common::results::Status;
use roaring::RoaringTreemap;

use crate::api;
use crate::export::Lines;
use crate::store::Overview;

/// Trials of a line that plots see.
const SAMPLE: usize = 512;
/// Distinct errors that are kept.
const ERRORS: usize = 200;
/// Workers that trials can be looked up by.
const WORKERS: usize = 4096;
/// Groups whose seeds still arrive: 64 bytes each. Packs take groups in order, so that a sweep has few of them.
const OPEN_GROUPS: usize = 1 << 18;

/// A mean and a sum of squares around it (Welford 1962).
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn push(&mut self, value: f64) {
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (value - self.mean);
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    fn sd(&self) -> Option<f64> {
        (self.count > 1).then(|| (self.squares / (self.count - 1) as f64).max(0.0).sqrt())
    }
}

/// The seeds of one configuration, until all are there.
#[derive(Clone, Copy, Debug, Default)]
struct OpenGroup {
    line: usize,
    rows: u64,
    score: Moments,
}

/// A line of the figures.
#[derive(Clone, Debug, Default)]
struct Line {
    by_status: [u64; 3],
    score: Moments,
    loo: Moments,
    /// Sum of squares within groups that are whole, and its degrees of freedom.
    within: (f64, u64),
    /// Those trials whose numbers have the least hashes: the same ones in whatever order they come.
    sample: BTreeMap<u64, api::LiveDot>,
}

impl Line {
    fn offer(&mut self, dot: api::LiveDot) {
        let hash = mix(dot.trial);
        if self.sample.len() >= SAMPLE {
            if self.sample.last_key_value().is_none_or(|(last, _)| *last <= hash) {
                return;
            }
            self.sample.pop_last();
        }
        self.sample.insert(hash, dot);
    }
}

/// A permutation of 64-bit numbers (splitmix64's finaliser).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sweep as far as it was read.
pub(super) struct State {
    pub grid: Arc<Grid>,
    lines: Lines,
    figures: Vec<Line>,
    open: HashMap<u64, OpenGroup>,
    /// The transition before which failures are void.
    pub retried: Option<String>,
    /// Which trials count by their row in which segment.
    pub segments: BTreeMap<String, RoaringTreemap>,
    /// Segments that there are.
    pub listed: usize,
    /// Trials that count.
    pub seen: RoaringTreemap,
    /// The same by how they ended: completed, diverged, failed.
    pub by_status: [RoaringTreemap; 3],
    pub workers: BTreeMap<String, RoaringTreemap>,
    pub errors: BTreeMap<String, RoaringTreemap>,
}

fn place(status: Status) -> usize {
    match status {
        Status::Completed => 0,
        Status::Diverged => 1,
        Status::Failed => 2,
    }
}

impl State {
    pub fn new(grid: Arc<Grid>, retried: Option<String>) -> Self {
        let lines = Lines::new(&grid);
        Self {
            figures: vec![Line::default(); lines.all.len()],
            lines,
            grid,
            open: HashMap::new(),
            retried,
            segments: BTreeMap::new(),
            listed: 0,
            seen: RoaringTreemap::new(),
            by_status: Default::default(),
            workers: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }

    /// Share of the segments that were read.
    pub fn read(&self) -> f64 {
        if self.listed == 0 { 1.0 } else { (self.segments.len() as f64 / self.listed as f64).min(1.0) }
    }

    /// The segment that holds the row of a trial that counts.
    pub fn find_segment(&self, trial: u64) -> Option<&str> {
        self.segments.iter().find(|(_, trials)| trials.contains(trial)).map(|(name, _)| name.as_str())
    }

    /// Takes in a segment; they come in the order of their names.
    pub fn push(&mut self, name: String, overview: &Overview, errors: Vec<(u64, String)>) {
        let void = self.retried.as_deref().is_some_and(|retried| name.as_str() < retried);
        let seeds = self.grid.seeds().max(1);
        let mut counted = RoaringTreemap::new();
        let mut by_worker: Vec<RoaringTreemap> = vec![RoaringTreemap::new(); overview.workers.len()];
        let mut memo: Option<(u64, usize)> = None;
        for row in &overview.rows {
            let trial = row.trial;
            if void && row.status == Status::Failed {
                continue;
            }
            let group = trial / seeds;
            let line = match memo {
                Some((known, line)) if known == group => line,
                // A trial that is not in the grid is not one of the sweep's.
                _ => match self.grid.coordinates(trial) {
                    Some(at) => self.lines.of(at.strategy, at.strategy_point),
                    None => continue,
                },
            };
            memo = Some((group, line));
            // The first row of a trial is the one that counts.
            if !self.seen.insert(trial) {
                continue;
            }
            counted.insert(trial);
            if let Some(set) = self.by_status.get_mut(place(row.status)) {
                set.insert(trial);
            }
            if let Some(set) = by_worker.get_mut(row.worker) {
                set.insert(trial);
            }
            let Some(figures) = self.figures.get_mut(line) else { continue };
            if let Some(count) = figures.by_status.get_mut(place(row.status)) {
                *count += 1;
            }
            let measured =
                |value: Option<f64>| value.filter(|v| v.is_finite() && row.status == Status::Completed);
            let (score, loo_mean) = (measured(row.score), measured(row.loo_mean));
            if let Some(score) = score {
                figures.score.push(score);
                figures.offer(api::LiveDot { trial, score, loo_mean });
            }
            loo_mean.into_iter().for_each(|distance| figures.loo.push(distance));
            self.seed(group, line, score, seeds);
        }
        for (worker, trials) in overview.workers.iter().zip(by_worker) {
            if !trials.is_empty() && (self.workers.contains_key(worker) || self.workers.len() < WORKERS) {
                *self.workers.entry(worker.clone()).or_default() |= trials;
            }
        }
        for (trial, error) in errors {
            let room = self.errors.len() < ERRORS;
            if counted.contains(trial) && (room || self.errors.contains_key(&error)) {
                self.errors.entry(error).or_default().insert(trial);
            }
        }
        self.segments.insert(name, counted);
    }

    /// Counts a trial of a group.
    fn seed(&mut self, group: u64, line: usize, score: Option<f64>, seeds: u64) {
        let open = self.open.entry(group).or_insert(OpenGroup { line, ..OpenGroup::default() });
        open.rows += 1;
        score.into_iter().for_each(|score| open.score.push(score));
        if open.rows >= seeds {
            let open = self.open.remove(&group);
            open.into_iter().for_each(|open| self.close(&open));
        } else if self.open.len() > OPEN_GROUPS {
            // Half of them are taken as they are. Their other seeds make groups of their own, around a mean of their own.
            let groups: Vec<u64> = self.open.keys().copied().take(OPEN_GROUPS / 2).collect();
            for open in groups.iter().filter_map(|group| self.open.remove(group)).collect::<Vec<_>>() {
                self.close(&open);
            }
        }
    }

    fn close(&mut self, open: &OpenGroup) {
        if let Some(line) = self.figures.get_mut(open.line).filter(|_| open.score.count > 1) {
            line.within.0 += open.score.squares;
            line.within.1 += open.score.count - 1;
        }
    }

    /// Sum of squares within groups and its degrees of freedom by line, those included whose seeds are not all there.
    fn within(&self) -> Vec<(f64, u64)> {
        let mut within: Vec<(f64, u64)> = self.figures.iter().map(|line| line.within).collect();
        for open in self.open.values().filter(|open| open.score.count > 1) {
            if let Some(line) = within.get_mut(open.line) {
                *line = (line.0 + open.score.squares, line.1 + open.score.count - 1);
            }
        }
        within
    }

    /// The figures, with samples or without.
    pub fn lines(&self, with_samples: bool) -> Vec<api::LiveLine> {
        let names = self.lines.all.iter().zip(&self.figures).zip(self.within());
        let strategies = &self.grid.spec().strategies;
        names
            .map(|(((strategy, label, _), line), (squares, degrees))| {
                let [completed, diverged, failed] = line.by_status;
                let mut sample: Vec<api::LiveDot> = Vec::new();
                if with_samples {
                    sample.extend(line.sample.values());
                    sample.sort_unstable_by_key(|dot| dot.trial);
                }
                api::LiveLine {
                    label: label.clone(),
                    strategy: strategies.get(*strategy).map(|s| s.name.clone()).unwrap_or_default(),
                    completed,
                    diverged,
                    failed,
                    score_mean: line.score.mean(),
                    score_sd: line.score.sd(),
                    score_seed_sd: (degrees > 0).then(|| (squares / degrees as f64).max(0.0).sqrt()),
                    loo_mean: line.loo.mean(),
                    sample,
                }
            })
            .collect()
    }

    /// Why trials failed, the most frequent reason first, and how many failed for others.
    pub fn failures(&self) -> (Vec<api::LiveFailure>, u64) {
        let failure = |(error, trials): (&String, &RoaringTreemap)| api::LiveFailure {
            error: error.clone(),
            trials: trials.len(),
            first_trial: trials.min().unwrap_or(0),
        };
        let mut failures: Vec<_> = self.errors.iter().map(failure).collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.trials));
        let listed: u64 = failures.iter().map(|failure| failure.trials).sum();
        let failed = self.by_status.get(place(Status::Failed)).map_or(0, RoaringTreemap::len);
        (failures, failed.saturating_sub(listed))
    }
}
