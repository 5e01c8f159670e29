//! `evenkeel fsck`: whether everything in a store is what was written there.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::results::TrialOutcome;
use roaring::RoaringTreemap;

use super::{Store, StoreError, data_path, read_contents, read_records, segment_path};
use crate::submission::Sweep;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object, or the folder of a sweep.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// What mends it.
    pub remedy: String,
    /// What was done about it, where it was.
    pub done: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Sweeps that were looked at.
    pub sweeps: u64,
    /// Their segments.
    pub segments: u64,
    /// Their trials with a result.
    pub trials: u64,
    /// Files of datasets and models.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Where damaged objects are set aside.
const QUARANTINE: &str = "quarantine";

/// Reads everything, or these sweeps alone. With `repair`, damaged segments are set aside, so that their trials can run again, and
/// what interrupted writes left is deleted; otherwise nothing is changed.
///
/// # Errors
/// When the store does not answer.
pub async fn check(store: &Store, only: &[SweepId], repair: bool) -> Result<Findings, StoreError> {
    let mut check = Check { store, repair, found: Findings::default() };
    let folders = store.folders("sweeps").await?;
    for folder in &folders {
        match SweepId::parse(folder) {
            Ok(id) if only.is_empty() || only.contains(&id) => check.sweep(&id).await?,
            Ok(_) => {}
            Err(_) => {
                check.problem(&format!("sweeps/{folder}"), "this is no sweep", "whoever put it there knows")
            }
        }
    }
    for id in only.iter().filter(|id| !folders.iter().any(|folder| folder == id.as_str())) {
        check.problem(&format!("sweeps/{id}"), "there is no such sweep", "check the id and --store");
    }
    if only.is_empty() {
        check.data().await?;
        check.interrupted();
    }
    Ok(check.found)
}

struct Check<'a> {
    store: &'a Store,
    repair: bool,
    found: Findings,
}

impl Check<'_> {
    fn problem(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let (what, remedy) = (what.into(), remedy.into());
        self.found.problems.push(Problem { path: path.to_owned(), what, remedy, done: None });
    }

    /// Passes on what makes going on impossible; notes what is wrong with one object.
    fn note<T>(&mut self, outcome: Result<T, StoreError>, remedy: &str) -> Result<Option<T>, StoreError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt { path, reason }) => {
                self.problem(&path, reason, remedy);
                Ok(None)
            }
            Err(StoreError::Missing { path }) => {
                self.problem(&path, "it is missing", remedy);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn sweep(&mut self, id: &SweepId) -> Result<(), StoreError> {
        let folder = format!("sweeps/{id}");
        let record = self.store.read_sweep(id).await;
        if let Err(StoreError::Missing { .. }) = &record {
            self.problem(&folder, "what is left of a sweep that was deleted", "`evenkeel gc` deletes it");
            return Ok(());
        }
        self.found.sweeps += 1;
        let again = "restore it from a backup, or submit the spec again under another name";
        let Some(record) = self.note(record, again)? else { return Ok(()) };
        let sweep = Sweep::from_store(self.store, &record).await;
        let resubmit = "submit the same spec with its files again: what is missing is then written";
        let trials = match self.note(sweep, resubmit)? {
            Some(sweep) if !sweep.has_own_id() => {
                self.problem(
                    &format!("{folder}/spec.json"),
                    "its spec is not the one its id was made of",
                    again,
                );
                None
            }
            sweep => sweep.map(|sweep| sweep.grid.len()),
        };
        let states = self.store.states(id).await;
        self.note(states, "delete it: the state before it then holds; check `evenkeel status` afterwards")?;
        self.segments(id, trials).await
    }

    async fn segments(&mut self, id: &SweepId, trials: Option<u64>) -> Result<(), StoreError> {
        let (mut seen, mut twice) = (RoaringTreemap::new(), RoaringTreemap::new());
        let mut held: Vec<(String, RoaringTreemap)> = Vec::new();
        for name in self.store.segment_names(id).await? {
            let path = segment_path(id, &name);
            self.found.segments += 1;
            let rows = async {
                self.found.bytes += self.store.read(&path).await?.len() as u64;
                let contents = read_contents(self.store, &path).await?;
                // All columns, and not only those that say which trials there are.
                read_records(self.store, &path).await?;
                Ok(contents.trials.iter().map(|(trial, _)| *trial).collect::<RoaringTreemap>())
            };
            let rows = match rows.await {
                Ok(rows) => rows,
                Err(StoreError::Corrupt { reason, .. }) => {
                    self.set_aside(id, &path, reason).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(outside) = trials.and_then(|trials| rows.max().filter(|last| *last >= trials)) {
                let reason =
                    format!("it holds trial {outside}, and the sweep has {} trials", trials.unwrap_or(0));
                self.set_aside(id, &path, reason).await?;
                continue;
            }
            twice |= &seen & &rows;
            seen |= &rows;
            held.push((path, rows));
        }
        self.found.trials += seen.len();
        self.disagreements(&twice, &held).await
    }

    /// A trial may be in several segments, and says the same in all of them.
    async fn disagreements(
        &mut self,
        twice: &RoaringTreemap,
        held: &[(String, RoaringTreemap)],
    ) -> Result<(), StoreError> {
        let mut first: BTreeMap<u64, (&str, TrialOutcome)> = BTreeMap::new();
        for (path, rows) in held.iter().filter(|(_, rows)| !rows.is_disjoint(twice)) {
            debug_assert!(!rows.is_empty());
            for record in read_records(self.store, path).await? {
                let trial = record.outcome.trial_index;
                if !twice.contains(trial) {
                    continue;
                }
                match first.get(&trial) {
                    // NaN is equal to itself here.
                    Some((earlier, outcome)) if format!("{outcome:?}") != format!("{:?}", record.outcome) => {
                        let retried = outcome.error.is_some() || record.outcome.error.is_some();
                        if !retried {
                            let what = format!("its result for trial {trial} is not that of {earlier}");
                            let remedy = "the earlier one counts; workers of one kind should agree to the bit: see which \
                                          computed it (execution.parquet)";
                            self.problem(path, what, remedy);
                        }
                    }
                    Some(_) => {}
                    None => {
                        first.insert(trial, (path, record.outcome));
                    }
                }
            }
        }
        Ok(())
    }

    async fn set_aside(&mut self, id: &SweepId, path: &str, what: String) -> Result<(), StoreError> {
        let again = format!(
            "`evenkeel retry {id}` or `resume` then runs its trials again, as does a coordinator that starts"
        );
        let mut problem = Problem {
            path: path.to_owned(),
            what,
            remedy: format!("`evenkeel fsck --repair` sets it aside; {again}"),
            done: None,
        };
        if self.repair {
            let aside = format!("{QUARANTINE}/{path}");
            self.store.create_if_absent(&aside, self.store.read(path).await?).await?;
            self.store.delete(path).await?;
            problem.done = Some(format!("set aside as {aside}; {again}"));
        }
        self.found.problems.push(problem);
        Ok(())
    }

    /// Files of datasets and models: their names are their hashes.
    async fn data(&mut self) -> Result<(), StoreError> {
        for name in self.store.list("data").await? {
            let bytes = self.store.read(&data_path(&name)).await?;
            (self.found.files, self.found.bytes) =
                (self.found.files + 1, self.found.bytes + bytes.len() as u64);
            if ContentHash::of(&bytes).to_hex() != name {
                let remedy = "delete it and submit a sweep that uses it again, with its files: it is then written anew";
                self.problem(&data_path(&name), "its content is not what its name says", remedy);
            }
        }
        Ok(())
    }

    fn interrupted(&mut self) {
        let files = match self.store.interrupted_writes() {
            Ok(files) => files,
            Err(error) => {
                return self.problem(
                    "",
                    format!("the directory cannot be read: {error}"),
                    "check its rights",
                );
            }
        };
        for file in files.iter().collect::<BTreeSet<_>>() {
            let done = self.repair.then(|| match self.store.delete_interrupted(file) {
                Ok(()) => "deleted".to_owned(),
                Err(error) => format!("not deleted: {error}"),
            });
            self.found.problems.push(Problem {
                path: file.display().to_string(),
                what: "a write that was interrupted left it; nothing reads it".to_owned(),
                remedy: "`evenkeel fsck --repair` deletes it".to_owned(),
                done,
            });
        }
    }
}
