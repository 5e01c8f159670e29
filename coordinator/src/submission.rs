//! From a user's spec and its files to a sweep: everything is checked before anything runs.

mod hub;
mod inputs;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_common::grid::{Grid, GridError};
use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::inputs::{FileRecord, InputInfo, InputRecord, Place, content_hash, places};
use evenkeel_common::spec::{DatasetSpec, Spec, SpecError};

pub use self::inputs::{InputError, InputFile};
use crate::core::SweepShape;
use crate::store::{Store, StoreError, SweepRecord, data_path};

/// A spec that cannot become a sweep.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    /// The spec itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A dataset or model whose files cannot be had or used.
    #[error("{spec}: {at}: {source}")]
    Input {
        /// The spec's file.
        spec: String,
        /// The entry, as `datasets[0].text`.
        at: String,
        /// What is wrong.
        source: Box<InputError>,
    },
    /// The grid.
    #[error("{spec}: {source}")]
    Grid {
        /// The spec's file.
        spec: String,
        /// What is wrong.
        source: GridError,
    },
    /// The files that came with a submission are not those of the spec.
    #[error("the submission lacks the file `{role}` ({hash})")]
    MissingData {
        /// What the file is for.
        role: String,
        /// Its content hash.
        hash: String,
    },
}

/// A sweep, ready to run: immutable and shared.
#[derive(Debug)]
pub struct Sweep {
    /// Its id.
    pub id: SweepId,
    /// Its grid, which holds the spec.
    pub grid: Grid,
    /// Its datasets and models that come in files: datasets in the spec's order, then models.
    pub inputs: Vec<InputRecord>,
    /// The bytes of their files, by content hash.
    pub files: HashMap<String, Bytes>,
}

impl Sweep {
    /// Reads a spec's files, which lie relative to its folder, and checks everything.
    ///
    /// # Errors
    /// Naming the file, line and field at fault.
    pub fn from_file(path: &Path) -> Result<Self, SubmissionError> {
        let (spec, name) = read_spec(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let inputs = places(&spec)
            .map(|place| {
                inputs::gather(&spec, place, folder)
                    .map_err(|source| input_error(&name, &spec, place, source))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(&name, spec, inputs)
    }

    /// Checks a spec together with the bytes of its files, in the order of [`places`].
    ///
    /// # Errors
    /// Naming the field at fault.
    pub fn new(file: &str, spec: Spec, given: Vec<Vec<InputFile>>) -> Result<Self, SubmissionError> {
        let mut records = Vec::new();
        let mut files = HashMap::new();
        let mut hashes = Vec::new();
        let mut given = given.into_iter();
        for place in places(&spec) {
            let input = given.next().unwrap_or_default();
            let content = content_hash(input.iter().map(|file| &*file.bytes));
            let info = inputs::inspect(&spec, place, &input, &content)
                .map_err(|source| input_error(file, &spec, place, source))?;
            hashes.push(content);
            let mut keep = |file: InputFile| {
                let hash = ContentHash::of(&file.bytes).to_hex();
                files.insert(hash.clone(), file.bytes);
                FileRecord { role: file.role, hash }
            };
            records.push(InputRecord { info, files: input.into_iter().map(&mut keep).collect() });
        }
        let id = spec.sweep_id(&hashes);
        let infos: Vec<InputInfo> = records.iter().map(|record| record.info.clone()).collect();
        let grid = Grid::new(Arc::new(spec), &infos)
            .map_err(|source| SubmissionError::Grid { spec: file.to_owned(), source })?;
        Ok(Self { id, grid, inputs: records, files })
    }

    /// The grid of a sweep of the store, without the bytes of its files.
    ///
    /// # Errors
    /// When what the store has of it does not fit together.
    pub fn stored_grid(record: &SweepRecord) -> Result<Grid, StoreError> {
        let path = format!("sweeps/{}/spec.json", record.sweep_id);
        let corrupt = |reason: String| StoreError::Corrupt { path: path.clone(), reason };
        let spec =
            Spec::parse(&path, &record.spec.to_string()).map_err(|error| corrupt(error.to_string()))?;
        let infos: Vec<InputInfo> = record.inputs.iter().map(|input| input.info.clone()).collect();
        Grid::new(Arc::new(spec), &infos).map_err(|error| corrupt(error.to_string()))
    }

    /// A sweep from the store.
    ///
    /// # Errors
    /// When something of it is missing or does not fit the rest.
    pub async fn from_store(store: &Store, record: &SweepRecord) -> Result<Self, StoreError> {
        let grid = Self::stored_grid(record)?;
        let mut files = HashMap::new();
        let hashes: BTreeSet<&String> =
            record.inputs.iter().flat_map(|input| &input.files).map(|file| &file.hash).collect();
        for hash in hashes {
            let bytes = store.read(&data_path(hash)).await?;
            if ContentHash::of(&bytes).to_hex() != *hash {
                let reason = "its content is not what its name says".to_owned();
                return Err(StoreError::Corrupt { path: data_path(hash), reason });
            }
            files.insert(hash.clone(), bytes);
        }
        Ok(Self { id: record.sweep_id.clone(), grid, inputs: record.inputs.clone(), files })
    }

    /// Whether its id is that of its spec and its files.
    #[must_use]
    pub fn has_own_id(&self) -> bool {
        let hashes: Option<Vec<ContentHash>> = self
            .inputs
            .iter()
            .map(|input| {
                let files = input.files.iter().map(|file| self.files.get(&file.hash));
                files
                    .collect::<Option<Vec<_>>>()
                    .map(|files| content_hash(files.into_iter().map(|bytes| &**bytes)))
            })
            .collect();
        hashes.is_some_and(|hashes| self.grid.spec().sweep_id(&hashes) == self.id)
    }

    /// What the store keeps of it.
    #[must_use]
    pub fn record(&self, submitted_ms: i64) -> SweepRecord {
        let spec = serde_json::from_str(&self.grid.spec().to_canonical_json()).unwrap_or_default();
        SweepRecord::new(self.id.clone(), submitted_ms, spec, self.inputs.clone())
    }
}

/// Reads and parses a spec. Gives it with the name errors call it.
///
/// # Errors
/// When the file cannot be read or is no spec.
pub fn read_spec(path: &Path) -> Result<(Spec, String), SubmissionError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| SpecError::unreadable(&name, &error.to_string()))?;
    Ok((Spec::parse(&name, &text)?, name))
}

fn input_error(spec: &str, contents: &Spec, place: Place, source: InputError) -> SubmissionError {
    let at = match place {
        Place::Dataset(at) => match contents.datasets.get(at) {
            Some(DatasetSpec::Text(_)) => format!("datasets[{at}].text"),
            _ => format!("datasets[{at}].features"),
        },
        Place::Model(at) => format!("models[{at}]"),
    };
    SubmissionError::Input { spec: spec.to_owned(), at, source: Box::new(source) }
}

/// What the scheduler sees of a sweep.
#[derive(Debug)]
pub struct Shape(pub Arc<Sweep>);

impl SweepShape for Shape {
    fn total(&self) -> u64 {
        self.0.grid.len()
    }
    fn cost(&self, trial: u64) -> f64 {
        self.0.grid.flops(trial)
    }
    fn group_end(&self, trial: u64) -> u64 {
        self.0.grid.dataset_end(trial)
    }
    fn run_end(&self, trial: u64) -> u64 {
        self.0.grid.group_end(trial)
    }
}
