//! Sweeps in the store: what was submitted, how it stands, and what is done.

use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_common::id::SweepId;
use evenkeel_common::results::Status;
use roaring::RoaringTreemap;

use super::records::{StateRecord, StoredState, SweepRecord, check_version, parse, seal};
use super::segment::read_contents;
use super::windows::{WindowSegment, Windows};
use super::{Store, StoreError};
use crate::core::StatusCounts;

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
    /// It had ended before, and goes on.
    pub reopened: bool,
}

/// The transitions of a sweep.
#[derive(Debug, Default)]
pub struct States {
    /// The last one.
    pub last: Option<StateRecord>,
    /// The name of the last one that voided failures.
    pub retried: Option<String>,
    /// Whether one of them ended the sweep.
    pub ended: bool,
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
        if matches!(self.read(&path).await, Err(StoreError::Missing { .. })) {
            // What is left of one that was deleted is none of the new one's.
            for name in self.list(&format!("sweeps/{}", record.sweep_id)).await? {
                self.delete(&format!("sweeps/{}/{name}", record.sweep_id)).await?;
            }
        }
        match self.create(&path, seal(record)).await {
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
        self.create(&format!("sweeps/{id}/state/{name}.json"), seal(record)).await
    }

    /// Loads what is known of a sweep: which trials count and how they ended.
    ///
    /// # Errors
    /// When something of it is missing, unreadable or of a newer version.
    pub async fn load_sweep(&self, id: &SweepId) -> Result<LoadedSweep, StoreError> {
        let record = self.read_sweep(id).await?;
        let States { last, retried, ended } = self.states(id).await?;
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
        let reopened = ended && state == StoredState::Running;
        Ok(LoadedSweep { record, state, seconds, done, failed, counts, reopened })
    }

    /// Loads how a sweep stands: of one that has ended what is on record, without reading its segments, and so without
    /// which trials count.
    ///
    /// # Errors
    /// When something of it is missing, unreadable or of a newer version.
    pub async fn load_state(&self, id: &SweepId) -> Result<LoadedSweep, StoreError> {
        let record = self.read_sweep(id).await?;
        match self.states(id).await?.last {
            Some(StateRecord { state, seconds, counts: Some(counts), .. }) => Ok(LoadedSweep {
                record,
                state,
                seconds,
                done: RoaringTreemap::new(),
                failed: RoaringTreemap::new(),
                counts: counts.into(),
                reopened: false,
            }),
            _ => self.load_sweep(id).await,
        }
    }

    /// All records of a sweep, to be read window by window.
    ///
    /// # Errors
    /// When the store does not give which trials its segments hold.
    pub async fn windows(&self, id: &SweepId) -> Result<Windows, StoreError> {
        let mut tries = 1;
        loop {
            match self.windows_now(id).await {
                // Between a look and the next, segments may become one.
                Err(StoreError::Missing { .. }) if tries < Windows::TRIES => tries += 1,
                windows => return windows,
            }
        }
    }

    async fn windows_now(&self, id: &SweepId) -> Result<Windows, StoreError> {
        let States { retried, .. } = self.states(id).await?;
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
        Ok(Windows { store: self.clone(), sweep: id.clone(), segments, width, start: 0, end })
    }

    /// What its transitions say.
    ///
    /// # Errors
    /// When the store does not answer or a transition is damaged.
    pub async fn states(&self, id: &SweepId) -> Result<States, StoreError> {
        let folder = format!("sweeps/{id}/state");
        let mut states = States::default();
        for file in self.list(&folder).await? {
            let Some(name) = file.strip_suffix(".json") else { continue };
            let path = format!("{folder}/{file}");
            let record: StateRecord = parse(&path, &self.read(&path).await?)?;
            check_version(&path, record.format_version)?;
            if record.retries_failed {
                states.retried = Some(name.to_owned());
            }
            states.ended |= matches!(record.state, StoredState::Completed | StoredState::Cancelled);
            states.last = Some(record);
        }
        Ok(states)
    }

    /// Names of the segments of a sweep, in the order they count.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn segment_names(&self, id: &SweepId) -> Result<Vec<String>, StoreError> {
        let files = self.list(&format!("sweeps/{id}/segments")).await?;
        Ok(files.iter().filter_map(|file| file.strip_suffix(".parquet").map(str::to_owned)).collect())
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evenkeel_common::FORMAT_VERSION;
    use evenkeel_common::inputs::InputInfo;
    use evenkeel_common::results::{self, ExecutionRecord, Measures, TrialOutcome, TrialRecord};

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
