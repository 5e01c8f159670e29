//! Sweeps in the store: what was submitted, how it stands, and what is done.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use evenkeel_common::FORMAT_VERSION;
use evenkeel_common::id::SweepId;
use evenkeel_common::inputs::{FeatureInfo, FileRecord, InputInfo, InputRecord};
use evenkeel_common::results::{Status, TrialRecord};
use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};

use super::segment::{read_contents, read_records};
use super::{Store, StoreError};
use crate::core::StatusCounts;

/// `spec.json`: what was submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepRecord {
    /// Version of the store's format.
    pub format_version: u32,
    /// Its id.
    pub sweep_id: SweepId,
    /// When it was submitted first, in milliseconds since the Unix epoch.
    pub submitted_ms: i64,
    /// The canonical spec.
    pub spec: serde_json::Value,
    /// Its datasets and models that come in files, whose bytes lie in `data/`: datasets in the spec's order, then models.
    #[serde(default)]
    pub inputs: Vec<InputRecord>,
    /// How format 1 listed its feature files.
    #[serde(default, skip_serializing)]
    features: Vec<FeatureRecordV1>,
}

/// A feature dataset of a sweep in format 1.
#[derive(Clone, Debug, Deserialize)]
struct FeatureRecordV1 {
    info: FeatureInfo,
    file: String,
    #[serde(default)]
    labels: Option<String>,
}

impl SweepRecord {
    /// A sweep that is submitted now.
    #[must_use]
    pub fn new(
        sweep_id: SweepId,
        submitted_ms: i64,
        spec: serde_json::Value,
        inputs: Vec<InputRecord>,
    ) -> Self {
        Self { format_version: FORMAT_VERSION, sweep_id, submitted_ms, spec, inputs, features: Vec::new() }
    }

    /// What an older format said otherwise, as this one says it.
    fn upgrade(mut self) -> Self {
        for feature in self.features.drain(..) {
            let file = |role: &str, hash| FileRecord { role: role.to_owned(), hash };
            let mut files = vec![file("features", feature.file)];
            files.extend(feature.labels.map(|hash| file("labels", hash)));
            self.inputs.push(InputRecord { info: InputInfo::Features(feature.info), files });
        }
        self
    }
}

/// How a sweep stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredState {
    /// To be worked on.
    #[default]
    Running,
    /// Waits for the user.
    Paused,
    /// Every trial is accounted for.
    Completed,
    /// Given up by the user.
    Cancelled,
}

/// `state/<epoch>-<seq>.json`: a transition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateRecord {
    /// Version of the store's format.
    pub format_version: u32,
    /// The state from here on.
    pub state: StoredState,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Time spent running until then, in seconds.
    pub seconds: f64,
    /// How its trials had ended, for a sweep that has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<StoredCounts>,
    /// Failed rows of all segments before this transition no longer count: they are to be tried again.
    #[serde(default)]
    pub retries_failed: bool,
}

/// Trials by how they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the statuses of results")]
pub struct StoredCounts {
    pub completed: u64,
    pub diverged: u64,
    pub failed: u64,
}

impl From<StatusCounts> for StoredCounts {
    fn from(counts: StatusCounts) -> Self {
        Self { completed: counts.completed, diverged: counts.diverged, failed: counts.failed }
    }
}

impl From<StoredCounts> for StatusCounts {
    fn from(counts: StoredCounts) -> Self {
        Self { completed: counts.completed, diverged: counts.diverged, failed: counts.failed }
    }
}

/// A sweep as the store has it.
#[derive(Debug)]
pub struct LoadedSweep {
    /// What was submitted.
    pub record: SweepRecord,
    /// How it stands.
    pub state: StoredState,
    /// Time spent running, in seconds.
    pub seconds: f64,
    /// Trials that count.
    pub done: RoaringTreemap,
    /// Those of them that failed.
    pub failed: RoaringTreemap,
    /// How they ended.
    pub counts: StatusCounts,
}

/// Names objects of one leader in the order they were written.
#[derive(Debug)]
pub struct Sequence {
    epoch: u64,
    next: AtomicU64,
}

impl Sequence {
    /// The names of a leader.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, next: AtomicU64::new(1) }
    }

    /// The next name, `<epoch>-<seq>`, padded so that names sort as numbers do.
    pub fn next_name(&self) -> String {
        format!("{:016}-{:08}", self.epoch, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Store {
    /// Records a sweep. Returns false when the same was recorded before.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn create_sweep(&self, record: &SweepRecord) -> Result<bool, StoreError> {
        let path = format!("sweeps/{}/spec.json", record.sweep_id);
        let bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
        match self.create(&path, bytes.into()).await {
            Ok(()) => Ok(true),
            Err(StoreError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The ids of all sweeps.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sweep_ids(&self) -> Result<Vec<SweepId>, StoreError> {
        // A folder that is not an id is somebody else's.
        Ok(self.folders("sweeps").await?.iter().filter_map(|name| SweepId::parse(name).ok()).collect())
    }

    /// What was submitted.
    ///
    /// # Errors
    /// When it is missing, unreadable or of a newer version.
    pub async fn read_sweep(&self, id: &SweepId) -> Result<SweepRecord, StoreError> {
        let path = format!("sweeps/{id}/spec.json");
        let record: SweepRecord = parse(&path, &self.read(&path).await?)?;
        check_version(&path, record.format_version)?;
        if record.sweep_id != *id {
            return Err(StoreError::Corrupt { path, reason: format!("it is about {}", record.sweep_id) });
        }
        Ok(record.upgrade())
    }

    /// Records a transition.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn write_state(
        &self,
        id: &SweepId,
        name: &str,
        record: &StateRecord,
    ) -> Result<(), StoreError> {
        let bytes: Bytes = serde_json::to_vec(record).unwrap_or_default().into();
        self.create(&format!("sweeps/{id}/state/{name}.json"), bytes).await
    }

    /// Loads what is known of a sweep: which trials count and how they ended.
    ///
    /// # Errors
    /// When something of it is missing, unreadable or of a newer version.
    pub async fn load_sweep(&self, id: &SweepId) -> Result<LoadedSweep, StoreError> {
        let record = self.read_sweep(id).await?;
        let (last, retried) = self.states(id).await?;
        let mut done = RoaringTreemap::new();
        let mut failed = RoaringTreemap::new();
        let mut counts = StatusCounts::default();
        for name in self.segment_names(id).await? {
            let void = retried.as_deref().is_some_and(|retried| name.as_str() < retried);
            for (trial, status) in read_contents(self, &segment_path(id, &name)).await?.trials {
                if (void && status == Status::Failed) || !done.insert(trial) {
                    continue;
                }
                match status {
                    Status::Completed => counts.completed += 1,
                    Status::Diverged => counts.diverged += 1,
                    Status::Failed => {
                        counts.failed += 1;
                        failed.insert(trial);
                    }
                }
            }
        }
        let (state, seconds) = last.map_or((StoredState::Running, 0.0), |last| (last.state, last.seconds));
        Ok(LoadedSweep { record, state, seconds, done, failed, counts })
    }

    /// Loads how a sweep stands: of one that has ended what is on record, without reading its segments, and so without
    /// which trials count.
    ///
    /// # Errors
    /// When something of it is missing, unreadable or of a newer version.
    pub async fn load_state(&self, id: &SweepId) -> Result<LoadedSweep, StoreError> {
        let record = self.read_sweep(id).await?;
        match self.states(id).await?.0 {
            Some(StateRecord { state, seconds, counts: Some(counts), .. }) => Ok(LoadedSweep {
                record,
                state,
                seconds,
                done: RoaringTreemap::new(),
                failed: RoaringTreemap::new(),
                counts: counts.into(),
            }),
            _ => self.load_sweep(id).await,
        }
    }

    /// All records of a sweep, to be read window by window.
    ///
    /// # Errors
    /// When the store does not give which trials its segments hold.
    pub async fn windows(&self, id: &SweepId) -> Result<Windows, StoreError> {
        let (_, retried) = self.states(id).await?;
        let (mut segments, mut rows, mut values) = (Vec::new(), 0, 0);
        for name in self.segment_names(id).await? {
            let path = segment_path(id, &name);
            let contents = read_contents(self, &path).await?;
            rows += contents.trials.len() as u64;
            values += contents.values;
            let trials = || contents.trials.iter().map(|(trial, _)| *trial);
            let bounds = (trials().min(), trials().max());
            if let (Some(first), Some(last)) = bounds {
                let void_failures = retried.as_ref().is_some_and(|retried| name < *retried);
                segments.push(WindowSegment { path, first, last, void_failures, left: None });
            }
        }
        let end = segments.iter().map(|segment| segment.last + 1).max().unwrap_or(0);
        let width = (Windows::VALUES / (values / rows.max(1)).max(1)).clamp(1, Windows::WIDTH);
        Ok(Windows { store: self.clone(), segments, width, start: 0, end })
    }

    /// The last transition, and the name of the last one that voided failures.
    ///
    /// # Errors
    /// When the store does not answer or a transition is damaged.
    pub async fn states(&self, id: &SweepId) -> Result<(Option<StateRecord>, Option<String>), StoreError> {
        let folder = format!("sweeps/{id}/state");
        let (mut last, mut retried) = (None, None);
        for file in self.list(&folder).await? {
            let Some(name) = file.strip_suffix(".json") else { continue };
            let path = format!("{folder}/{file}");
            let record: StateRecord = parse(&path, &self.read(&path).await?)?;
            check_version(&path, record.format_version)?;
            if record.retries_failed {
                retried = Some(name.to_owned());
            }
            last = Some(record);
        }
        Ok((last, retried))
    }

    async fn segment_names(&self, id: &SweepId) -> Result<Vec<String>, StoreError> {
        let files = self.list(&format!("sweeps/{id}/segments")).await?;
        Ok(files.iter().filter_map(|file| file.strip_suffix(".parquet").map(str::to_owned)).collect())
    }
}

/// The records of a sweep in the order of their trials, one a trial, a window at a time: memory does not grow with the
/// sweep.
#[derive(Debug)]
pub struct Windows {
    store: Store,
    segments: Vec<WindowSegment>,
    /// Trials a window spans.
    width: u64,
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct WindowSegment {
    path: String,
    first: u64,
    last: u64,
    void_failures: bool,
    /// Records of later windows, in the order of their trials, so that a segment that spans several is read once.
    left: Option<std::iter::Peekable<std::vec::IntoIter<TrialRecord>>>,
}

impl Windows {
    /// Most trials a window spans.
    const WIDTH: u64 = 16_384;
    /// Values that it holds, about: trials may have long lists.
    const VALUES: u64 = 8 << 20;

    /// The next window; none after the last.
    ///
    /// # Errors
    /// When a segment cannot be read or is damaged.
    pub async fn next(&mut self) -> Result<Option<Vec<TrialRecord>>, StoreError> {
        if self.start >= self.end {
            return Ok(None);
        }
        let (start, stop) = (self.start, self.start.saturating_add(self.width));
        self.start = stop;
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
        Ok(Some(records))
    }
}

/// Path of a segment.
#[must_use]
pub fn segment_path(id: &SweepId, name: &str) -> String {
    format!("sweeps/{id}/segments/{name}.parquet")
}

/// Path of a feature file.
#[must_use]
pub fn data_path(hash: &str) -> String {
    format!("data/{hash}")
}

fn parse<T: for<'de> Deserialize<'de>>(path: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt { path: path.to_owned(), reason: error.to_string() })
}

fn check_version(path: &str, version: u32) -> Result<(), StoreError> {
    if version > FORMAT_VERSION {
        let reason = format!("it has format version {version}, this program knows up to {FORMAT_VERSION}");
        return Err(StoreError::Corrupt { path: path.to_owned(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use evenkeel_common::results::{self, ExecutionRecord, Measures, TrialOutcome};

    use super::*;
    use crate::store::to_parquet;

    fn segment(rows: &[(u64, Status, f64)]) -> Bytes {
        let records: Vec<TrialRecord> = rows
            .iter()
            .map(|(trial_index, status, score)| TrialRecord {
                outcome: TrialOutcome {
                    trial_index: *trial_index,
                    status: *status,
                    error: (*status == Status::Failed).then(|| "transient: no luck".to_owned()),
                    measures: Measures { score: Some(*score), ..Measures::default() },
                    distances: None,
                    curve: Vec::new(),
                    outputs: results::TestOutputs::default(),
                },
                execution: ExecutionRecord::default(),
            })
            .collect();
        to_parquet(&results::encode(&records).expect("encode")).expect("parquet")
    }

    async fn sweep(store: &Store) -> SweepId {
        let id = SweepId::parse("x-1").expect("id");
        let record = SweepRecord::new(id.clone(), 5, serde_json::Value::Null, Vec::new());
        assert!(store.create_sweep(&record).await.expect("create"));
        assert!(!store.create_sweep(&record).await.expect("create again"));
        id
    }

    #[tokio::test]
    async fn a_trial_counts_once_and_a_failure_until_it_is_retried() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        let id = sweep(&store).await;
        let write = async |name: &str, rows: &[(u64, Status, f64)]| {
            store.create(&segment_path(&id, name), segment(rows)).await.expect("segment");
        };
        let names = Sequence::new(3);
        write(&names.next_name(), &[(4, Status::Completed, 0.4), (7, Status::Failed, 0.0)]).await;
        write(&names.next_name(), &[(4, Status::Completed, 0.9), (2, Status::Diverged, 0.2)]).await;
        let loaded = store.load_sweep(&id).await.expect("load");
        assert_eq!(loaded.counts, StatusCounts { completed: 1, diverged: 1, failed: 1 });
        assert_eq!(loaded.failed.iter().collect::<Vec<_>>(), [7]);

        let retry = StateRecord {
            format_version: FORMAT_VERSION,
            state: StoredState::Running,
            at_ms: 9,
            seconds: 1.5,
            counts: None,
            retries_failed: true,
        };
        store.write_state(&id, &names.next_name(), &retry).await.expect("state");
        let loaded = store.load_sweep(&id).await.expect("load");
        assert_eq!((loaded.counts.total(), loaded.failed.len(), loaded.seconds), (2, 0, 1.5));

        write(&names.next_name(), &[(7, Status::Completed, 0.7), (250_000, Status::Failed, 0.0)]).await;
        let mut windows = store.windows(&id).await.expect("windows");
        let mut rows = Vec::new();
        while let Some(window) = windows.next().await.expect("window") {
            rows.extend(window.into_iter().map(|r| (r.outcome.trial_index, r.outcome.measures.score)));
        }
        // Of trial 4 the first row stays, of trial 7 the retried one.
        assert_eq!(rows, [(2, Some(0.2)), (4, Some(0.4)), (7, Some(0.7)), (250_000, Some(0.0))]);
    }

    #[tokio::test]
    async fn what_the_first_version_wrote_is_read_with_its_feature_files_as_inputs() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        let older = r#"{"format_version":1,"sweep_id":"y-1","submitted_ms":1,"spec":null,"features":[
            {"info":{"rows":9,"features":2,"class_counts":[4,5],"content":"c"},"file":"f","labels":"l"}]}"#;
        store.create("sweeps/y-1/spec.json", older.into()).await.expect("create");
        let record = store.read_sweep(&SweepId::parse("y-1").expect("id")).await.expect("read");
        let [input] = &record.inputs[..] else { panic!("{:?}", record.inputs) };
        assert_eq!((input.file("features"), input.file("labels")), (Some("f"), Some("l")));
        assert!(matches!(&input.info, InputInfo::Features(info) if info.rows == 9));
    }

    #[tokio::test]
    async fn what_a_newer_version_wrote_is_refused_and_not_misread() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        let id = SweepId::parse("y-1").expect("id");
        let newer = format!(
            r#"{{"format_version":{},"sweep_id":"y-1","submitted_ms":1,"spec":null,"features":[]}}"#,
            FORMAT_VERSION + 1
        );
        store.create("sweeps/y-1/spec.json", newer.into()).await.expect("create");
        let error = store.read_sweep(&id).await.expect_err("read").to_string();
        let (theirs, ours) = (format!("version {}", FORMAT_VERSION + 1), format!("up to {FORMAT_VERSION}"));
        assert!(error.contains(&theirs) && error.contains(&ours), "{error}");
        store.create("sweeps/z-1/spec.json", Bytes::from_static(b"{")).await.expect("create");
        assert!(store.read_sweep(&SweepId::parse("z-1").expect("id")).await.is_err());
    }
}
