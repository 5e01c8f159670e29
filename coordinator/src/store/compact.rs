//! Compaction: the many small segments of a sweep that has ended become a few, sorted by trial.
//!
//! A compacted segment is a segment like any other. It holds rows that others hold, too, so that at every moment each trial is
//! in at least one: what is new is durable before anything old is deleted, readers count a trial once, and a process that dies in
//! between leaves nothing but work for the next. The names of the new segments are drawn before the old ones are listed: failures
//! that are to be tried again later are void in them, too.

use std::time::Duration;

use evenkeel_common::id::SweepId;
use evenkeel_common::results::{self, TrialRecord};
use evenkeel_common::runtime::blocking;

use super::windows::Windows;
use super::{Sequence, Store, StoreError, segment_path, to_parquet};

/// Fewer segments than this are left as they are.
const MANY: usize = 8;
/// Full windows that make a segment.
const WINDOWS: usize = 8;

/// Rewrites the segments of a sweep that has ended. Those that were replaced are deleted after `grace`, so that who is reading them
/// comes to an end. Returns how many there were and how many there are; none when there was nothing to do.
///
/// # Errors
/// When the store does not answer, or something is damaged; nothing is lost then.
pub async fn compact(
    store: &Store,
    id: &SweepId,
    sequence: &Sequence,
    grace: Duration,
) -> Result<Option<(usize, usize)>, StoreError> {
    let count = store.segment_names(id).await?.len();
    if count < MANY {
        return Ok(None);
    }
    // Not more than there were: otherwise there is nothing to win.
    let mut names: Vec<String> = (0..count / 2).map(|_| sequence.next_name()).collect();
    names.reverse();
    let old = store.segment_names(id).await?;
    let mut windows = store.windows(id).await?;
    let full = if windows.width == Windows::WIDTH { WINDOWS } else { 1 };
    let mut written: Vec<String> = Vec::new();
    let mut last = false;
    while !last {
        let mut rows: Vec<TrialRecord> = Vec::new();
        for _ in 0..full {
            match windows.next().await? {
                Some(window) => rows.extend(window),
                None => last = true,
            }
        }
        if rows.is_empty() {
            continue;
        }
        let Some(name) = names.pop() else {
            // They are large already.
            for name in written {
                store.delete(&segment_path(id, &name)).await?;
            }
            return Ok(None);
        };
        let path = segment_path(id, &name);
        let encoded = blocking(move || {
            let batch = results::encode(&rows).map_err(|error| error.to_string())?;
            to_parquet(&batch).map_err(|error| error.to_string())
        })
        .await;
        let bytes = encoded
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(|reason| StoreError::Corrupt { path: path.clone(), reason })?;
        store.create(&path, bytes).await?;
        written.push(name);
    }
    tokio::time::sleep(grace).await;
    // The earliest row of a trial counts: as long as any is left, it is that one.
    for name in old.iter().rev() {
        store.delete(&segment_path(id, name)).await?;
    }
    Ok(Some((old.len(), written.len())))
}

#[cfg(test)]
mod tests {
    use evenkeel_common::results::{ExecutionRecord, Measures, Status, TestOutputs, TrialOutcome};

    use super::*;
    use crate::store::{StateRecord, StoredState, SweepRecord};

    fn record(trial_index: u64, status: Status, score: f64) -> TrialRecord {
        TrialRecord {
            outcome: TrialOutcome {
                trial_index,
                status,
                error: (status == Status::Failed).then(|| "transient: no luck".to_owned()),
                measures: Measures { score: Some(score), ..Measures::default() },
                distances: None,
                curve: Vec::new(),
                outputs: TestOutputs::default(),
            },
            execution: ExecutionRecord::default(),
        }
    }

    async fn rows(store: &Store, id: &SweepId) -> String {
        let mut windows = store.windows(id).await.expect("windows");
        let mut rows = Vec::new();
        while let Some(window) = windows.next().await.expect("window") {
            rows.extend(window);
        }
        format!("{rows:?}")
    }

    async fn write(store: &Store, id: &SweepId, name: &str, records: &[TrialRecord]) {
        let bytes = to_parquet(&results::encode(records).expect("encode")).expect("parquet");
        store.create(&segment_path(id, name), bytes).await.expect("segment");
    }

    /// Twenty segments that overlap, with a failure that was tried again.
    async fn sweep(dir: &std::path::Path) -> (Store, SweepId, Sequence) {
        let store = Store::open(&dir.to_string_lossy()).expect("open");
        let id = SweepId::parse("x-1").expect("id");
        let sweep = SweepRecord::new(id.clone(), 5, serde_json::Value::Null, Vec::new());
        store.create_sweep(&sweep).await.expect("create");
        let names = Sequence::new(3);
        for number in 0..20_u64 {
            let status = if number == 4 { Status::Failed } else { Status::Completed };
            let pair =
                [record(2 * number, status, 0.5), record(2 * number + 1, Status::Completed, number as f64)];
            write(&store, &id, &names.next_name(), &pair).await;
            write(&store, &id, &names.next_name(), &[record(2 * number + 1, Status::Completed, 99.0)]).await;
        }
        let retry = StateRecord {
            format_version: evenkeel_common::FORMAT_VERSION,
            state: StoredState::Running,
            at_ms: 9,
            seconds: 1.5,
            counts: None,
            retries_failed: true,
        };
        store.write_state(&id, &names.next_name(), &retry).await.expect("state");
        write(&store, &id, &names.next_name(), &[record(8, Status::Completed, 0.7)]).await;
        write(&store, &id, &names.next_name(), &[record(40, Status::Failed, 0.0)]).await;
        (store, id, names)
    }

    #[tokio::test]
    async fn a_sweep_reads_the_same_before_between_and_after() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (store, id, names) = sweep(dir.path()).await;
        let (truth, counts) = (rows(&store, &id).await, store.load_sweep(&id).await.expect("load").counts);
        assert_eq!((counts.completed, counts.failed), (40, 1));
        let old = store.segment_names(&id).await.expect("names");

        // A process that dies before it deletes, or while it does.
        let _ = tokio::time::timeout(
            Duration::from_secs(2),
            compact(&store, &id, &names, Duration::from_secs(3600)),
        )
        .await
        .expect_err("it waits");
        assert_eq!(store.segment_names(&id).await.expect("names").len(), old.len() + 1);
        assert_eq!(rows(&store, &id).await, truth);
        for name in old[old.len() / 2..].iter().rev() {
            store.delete(&segment_path(&id, name)).await.expect("delete");
        }
        assert_eq!(rows(&store, &id).await, truth);
        assert_eq!(store.load_sweep(&id).await.expect("load").counts, counts);

        let done =
            compact(&store, &id, &names, Duration::ZERO).await.expect("compact").expect("something to do");
        assert_eq!((done.1, store.segment_names(&id).await.expect("names").len()), (1, 1));
        assert_eq!(rows(&store, &id).await, truth);
        assert_eq!(store.load_sweep(&id).await.expect("load").counts, counts);
        assert_eq!(compact(&store, &id, &names, Duration::ZERO).await.expect("again"), None);
    }

    #[tokio::test]
    async fn who_reads_meanwhile_reads_the_same() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (store, id, names) = sweep(dir.path()).await;
        let truth = rows(&store, &id).await;
        let mut windows = store.windows(&id).await.expect("windows");
        windows.width = 7;
        let mut read = windows.next().await.expect("window").expect("some");
        compact(&store, &id, &names, Duration::ZERO).await.expect("compact");
        while let Some(window) = windows.next().await.expect("window") {
            read.extend(window);
        }
        assert_eq!(format!("{read:?}"), truth);
    }

    #[tokio::test]
    async fn failures_in_compacted_segments_can_be_tried_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (store, id, names) = sweep(dir.path()).await;
        // The names are drawn first, so that a user who asks while it runs comes after it.
        let compacting = compact(&store, &id, &names, Duration::ZERO);
        compacting.await.expect("compact");
        let retry = StateRecord {
            format_version: evenkeel_common::FORMAT_VERSION,
            state: StoredState::Running,
            at_ms: 10,
            seconds: 1.5,
            counts: None,
            retries_failed: true,
        };
        store.write_state(&id, &names.next_name(), &retry).await.expect("state");
        let loaded = store.load_sweep(&id).await.expect("load");
        assert_eq!((loaded.counts.completed, loaded.counts.failed), (40, 0));
        assert!(!loaded.done.contains(40));
    }

    #[tokio::test]
    async fn what_is_damaged_stops_it_and_nothing_is_deleted() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (store, id, names) = sweep(dir.path()).await;
        let old = store.segment_names(&id).await.expect("names");
        let path = segment_path(&id, &old[3]);
        let mut bytes = store.read(&path).await.expect("read").to_vec();
        bytes[40] ^= 1;
        store.write(&path, bytes.into()).await.expect("write");
        assert!(matches!(
            compact(&store, &id, &names, Duration::ZERO).await,
            Err(StoreError::Corrupt { .. })
        ));
        let left = store.segment_names(&id).await.expect("names");
        assert!(old.iter().all(|name| left.contains(name)), "{left:?}");
    }
}
