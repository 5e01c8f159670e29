//! From a user's spec and its feature files to a sweep: everything is checked before anything runs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_common::grid::{FeatureInfo, Grid, GridError, content_hash};
use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::spec::{DatasetSpec, FeaturesSpec, Spec, SpecError};
use evenkeel_common::table::{self, TableError, TableSource};

use crate::core::SweepShape;
use crate::store::{FeatureRecord, Store, StoreError, SweepRecord, data_path};

/// A spec that cannot become a sweep.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    /// The spec itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file that cannot be read.
    #[error("{spec}: datasets[{dataset}].features.{field}: cannot read {path}: {reason}{hint}")]
    File {
        /// The spec's file.
        spec: String,
        /// Which dataset.
        dataset: usize,
        /// `path` or `labels`.
        field: &'static str,
        /// The file that was looked for.
        path: String,
        /// What the system said.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A file that holds no usable table.
    #[error("{spec}: datasets[{dataset}].features: {source}")]
    Table {
        /// The spec's file.
        spec: String,
        /// Which dataset.
        dataset: usize,
        /// What is wrong.
        source: Box<TableError>,
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
    #[error("the submission lacks the file of datasets[{dataset}] ({hash})")]
    MissingData {
        /// Which dataset.
        dataset: usize,
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
    /// Its feature datasets, in the spec's order.
    pub features: Vec<FeatureRecord>,
    /// The bytes of their files, by content hash.
    pub files: HashMap<String, Bytes>,
}

/// The bytes of a dataset's file and of its labels file.
#[derive(Clone, Debug)]
pub struct FeatureFiles {
    /// The file.
    pub file: Bytes,
    /// The labels file, for `.npy`.
    pub labels: Option<Bytes>,
}

impl Sweep {
    /// Reads a spec's feature files, which lie relative to its folder, and checks everything.
    ///
    /// # Errors
    /// Naming the file, line and field at fault.
    pub fn from_file(path: &Path) -> Result<Self, SubmissionError> {
        let (spec, name) = read_spec(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut files = Vec::new();
        for (dataset, entry) in features_of(&spec) {
            let read = |field: &'static str, file: &str| {
                std::fs::read(folder.join(file)).map(Bytes::from).map_err(|error| {
                    let hint = if file.contains(".deps/data/") {
                        "\n  `make data` downloads the examples' files"
                    } else {
                        ""
                    };
                    SubmissionError::File {
                        spec: name.clone(),
                        dataset,
                        field,
                        path: folder.join(file).display().to_string(),
                        reason: error.to_string(),
                        hint,
                    }
                })
            };
            let labels = entry.labels.as_deref().map(|file| read("labels", file)).transpose()?;
            files.push(FeatureFiles { file: read("path", &entry.path)?, labels });
        }
        Self::new(&name, spec, files)
    }

    /// Checks a spec together with the bytes of its feature files, in its order.
    ///
    /// # Errors
    /// Naming the field at fault.
    pub fn new(file: &str, spec: Spec, feature_files: Vec<FeatureFiles>) -> Result<Self, SubmissionError> {
        let mut features = Vec::new();
        let mut files = HashMap::new();
        let mut hashes = Vec::new();
        let mut given = feature_files.into_iter();
        for (dataset, entry) in features_of(&spec) {
            let missing = || SubmissionError::MissingData { dataset, hash: String::new() };
            let FeatureFiles { file: bytes, labels } = given.next().ok_or_else(missing)?;
            let content = content_hash(&bytes, labels.as_deref());
            let source = TableSource {
                path: &entry.path,
                bytes: &bytes,
                label: entry.label.as_deref(),
                labels: entry.labels.as_deref().zip(labels.as_deref()),
                drop: &entry.drop,
            };
            let info = table::read(&source)
                .map_err(|source| SubmissionError::Table {
                    spec: file.to_owned(),
                    dataset,
                    source: Box::new(source),
                })?
                .info(&content);
            hashes.push(content);
            let mut keep = |bytes: Bytes| {
                let hash = ContentHash::of(&bytes).to_hex();
                files.insert(hash.clone(), bytes);
                hash
            };
            features.push(FeatureRecord { info, file: keep(bytes), labels: labels.map(keep) });
        }
        let id = spec.sweep_id(&hashes);
        let infos: Vec<FeatureInfo> = features.iter().map(|feature| feature.info.clone()).collect();
        let grid = Grid::new(Arc::new(spec), &infos)
            .map_err(|source| SubmissionError::Grid { spec: file.to_owned(), source })?;
        Ok(Self { id, grid, features, files })
    }

    /// A sweep from the store.
    ///
    /// # Errors
    /// When something of it is missing or does not fit the rest.
    pub async fn from_store(store: &Store, record: &SweepRecord) -> Result<Self, StoreError> {
        let path = format!("sweeps/{}/spec.json", record.sweep_id);
        let corrupt = |reason: String| StoreError::Corrupt { path: path.clone(), reason };
        let spec =
            Spec::parse(&path, &record.spec.to_string()).map_err(|error| corrupt(error.to_string()))?;
        let mut files = HashMap::new();
        let mut hashes: Vec<String> = Vec::new();
        for feature in &record.features {
            hashes.push(feature.file.clone());
            hashes.extend(feature.labels.clone());
        }
        for hash in hashes {
            let bytes = store.read(&data_path(&hash)).await?;
            if ContentHash::of(&bytes).to_hex() != hash {
                let reason = "its content is not what its name says".to_owned();
                return Err(StoreError::Corrupt { path: data_path(&hash), reason });
            }
            files.insert(hash, bytes);
        }
        let infos: Vec<FeatureInfo> = record.features.iter().map(|feature| feature.info.clone()).collect();
        let grid = Grid::new(Arc::new(spec), &infos).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self { id: record.sweep_id.clone(), grid, features: record.features.clone(), files })
    }

    /// What the store keeps of it.
    #[must_use]
    pub fn record(&self, submitted_ms: i64) -> SweepRecord {
        SweepRecord {
            format_version: evenkeel_common::FORMAT_VERSION,
            sweep_id: self.id.clone(),
            submitted_ms,
            spec: serde_json::from_str(&self.grid.spec().to_canonical_json()).unwrap_or_default(),
            features: self.features.clone(),
        }
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

/// The feature datasets of a spec with their positions.
pub fn features_of(spec: &Spec) -> impl Iterator<Item = (usize, &FeaturesSpec)> {
    spec.datasets.iter().enumerate().filter_map(|(position, dataset)| match dataset {
        DatasetSpec::Features(features) => Some((position, features)),
        DatasetSpec::Synthetic(_) => None,
    })
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
