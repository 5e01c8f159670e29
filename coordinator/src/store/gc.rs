//! `evenkeel gc`: what nobody needs any more.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_common::id::SweepId;
use evenkeel_common::runtime::now_ms;
use evenkeel_common::runtime::objects::Entry;

use super::sweeps::States;
use super::{Store, StoreError, StoredState};

/// What is to go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Sweeps that ended longer ago than this.
    pub older_than: Option<Duration>,
    /// Never the so many sweeps that ended last.
    pub keep_last: usize,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went, or would.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Sweeps.
    pub sweeps: Vec<SweepId>,
    /// Objects, those of sweeps among them.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Files that no sweep names are left alone for so long: a submission writes them before its spec.
const SUBMITTING: Duration = Duration::from_secs(24 * 3600);
/// What workers keep to save time goes when nobody wrote it for so long.
const ARTIFACTS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Deletes ended sweeps by age, what is left of deleted ones, files that no sweep names, and what workers have not written for 30
/// days. Sweeps that have not ended stay, whatever their age.
///
/// A sweep's spec goes first: from then on it is not there, and what is left of it is deleted by whoever comes next. A spec that is
/// damaged keeps all files.
///
/// # Errors
/// When the store does not answer.
pub async fn collect_garbage(store: &Store, retention: Retention) -> Result<Collected, StoreError> {
    let mut gone = Collected::default();
    let now = now_ms();
    let age = |since_ms: i64| Duration::from_millis(u64::try_from(now - since_ms).unwrap_or(0));
    let (mut ended, mut used, mut whole) = (Vec::new(), BTreeSet::new(), true);
    for folder in store.folders("sweeps").await? {
        let Ok(id) = SweepId::parse(&folder) else { continue };
        let record = match store.read_sweep(&id).await {
            Ok(record) => record,
            Err(StoreError::Missing { .. }) => {
                remove(store, &format!("sweeps/{id}"), |_| true, retention.dry_run, &mut gone).await?;
                continue;
            }
            Err(StoreError::Corrupt { .. }) => {
                whole = false;
                continue;
            }
            Err(error) => return Err(error),
        };
        let files = record.inputs.iter().flat_map(|input| &input.files).map(|file| file.hash.clone());
        let files: Vec<String> = files.collect();
        match store.states(&id).await {
            Ok(States { last: Some(last), .. })
                if matches!(last.state, StoredState::Completed | StoredState::Cancelled) =>
            {
                ended.push((last.at_ms, id, files));
            }
            // One that runs, or whose state cannot be told.
            Ok(_) | Err(StoreError::Corrupt { .. }) => used.extend(files),
            Err(error) => return Err(error),
        }
    }
    ended.sort_by_key(|(ended_ms, ..)| std::cmp::Reverse(*ended_ms));
    for (number, (ended_ms, id, files)) in ended.into_iter().enumerate() {
        let old = retention.older_than.is_some_and(|limit| age(ended_ms) >= limit);
        if !old || number < retention.keep_last {
            used.extend(files);
            continue;
        }
        let folder = format!("sweeps/{id}");
        // Listed before the spec goes: what a new sweep of this name writes is none of this.
        let objects = store.entries(&folder).await?;
        if !retention.dry_run {
            store.delete(&format!("{folder}/spec.json")).await?;
        }
        for object in objects {
            gone.objects += 1;
            gone.bytes += object.bytes;
            if !retention.dry_run {
                store.delete(&format!("{folder}/{}", object.name)).await?;
            }
        }
        gone.sweeps.push(id);
    }
    if whole {
        let unused = |entry: &Entry| !used.contains(&entry.name) && age(entry.written_ms) >= SUBMITTING;
        remove(store, "data", unused, retention.dry_run, &mut gone).await?;
    }
    for folder in ["checkpoints", "features", "claims"] {
        remove(store, folder, |entry| age(entry.written_ms) >= ARTIFACTS, retention.dry_run, &mut gone)
            .await?;
    }
    Ok(gone)
}

async fn remove(
    store: &Store,
    folder: &str,
    which: impl Fn(&Entry) -> bool,
    dry_run: bool,
    gone: &mut Collected,
) -> Result<(), StoreError> {
    for entry in store.entries(folder).await?.into_iter().filter(which) {
        gone.objects += 1;
        gone.bytes += entry.bytes;
        if !dry_run {
            store.delete(&format!("{folder}/{}", entry.name)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use evenkeel_common::FORMAT_VERSION;

    use super::*;
    use crate::store::{StateRecord, SweepRecord};

    async fn sweep(store: &Store, id: &str, state: StoredState, ended_ms: i64) -> SweepId {
        let id = SweepId::parse(id).expect("id");
        let record = SweepRecord::new(id.clone(), 5, serde_json::Value::Null, Vec::new());
        store.create_sweep(&record).await.expect("create");
        let (at_ms, seconds, counts, retries_failed) = (ended_ms, 1.0, None, false);
        let format_version = FORMAT_VERSION;
        let record = StateRecord { format_version, state, at_ms, seconds, counts, retries_failed };
        store.write_state(&id, "0000000000000001-00000001", &record).await.expect("state");
        store.write(&format!("sweeps/{id}/segments/a.parquet"), "rows".into()).await.expect("segment");
        id
    }

    #[tokio::test]
    async fn ended_sweeps_go_by_age_and_nothing_that_is_in_use() {
        const DAY: i64 = 24 * 3600 * 1000;
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        let now = now_ms();
        let old = sweep(&store, "old-1", StoredState::Completed, now - 40 * DAY).await;
        let older = sweep(&store, "older-1", StoredState::Cancelled, now - 50 * DAY).await;
        let young = sweep(&store, "young-1", StoredState::Completed, now - DAY).await;
        let runs = sweep(&store, "runs-1", StoredState::Running, now - 90 * DAY).await;
        store.write("data/just-written", "x".into()).await.expect("data");
        store.write("sweeps/deleted-1/segments/b.parquet", "rows".into()).await.expect("leftover");

        let month =
            Retention { older_than: Some(Duration::from_secs(30 * 24 * 3600)), ..Retention::default() };
        let would = collect_garbage(&store, Retention { dry_run: true, ..month }).await.expect("dry run");
        assert_eq!(would.sweeps, [old.clone(), older.clone()]);
        assert_eq!(store.sweep_ids().await.expect("ids").len(), 5, "a dry run deletes nothing");
        let kept = collect_garbage(&store, Retention { keep_last: 2, ..month }).await.expect("keep two");
        assert_eq!(kept.sweeps, [older]);
        let gone = collect_garbage(&store, month).await.expect("all");
        assert_eq!((gone.sweeps, gone.objects), (vec![old], 3));
        assert_eq!(store.sweep_ids().await.expect("ids"), [runs, young]);
        assert_eq!(store.list("data").await.expect("data"), ["just-written"]);
        assert_eq!(collect_garbage(&store, Retention::default()).await.expect("again").objects, 0);
    }

    #[tokio::test]
    async fn what_is_left_of_a_deleted_sweep_is_none_of_a_new_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        let id = sweep(&store, "x-1", StoredState::Completed, 9).await;
        // A process that dies right after the spec went.
        store.delete(&format!("sweeps/{id}/spec.json")).await.expect("delete");
        let record = SweepRecord::new(id.clone(), 7, serde_json::Value::Null, Vec::new());
        assert!(store.create_sweep(&record).await.expect("create"));
        let loaded = store.load_sweep(&id).await.expect("load");
        assert_eq!((loaded.state, loaded.done.len()), (StoredState::Running, 0));
    }
}
