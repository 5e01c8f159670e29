//! The files of datasets and models: where they lie, and what is in them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use evenkeel_common::encoder::{self, EncoderError};
use evenkeel_common::id::ContentHash;
use evenkeel_common::inputs::{InputInfo, Place};
use evenkeel_common::spec::{DatasetSpec, FeaturesSpec, ModelSpec, Spec, TextSpec};
use evenkeel_common::table::{self, TableError, TableSource};
use evenkeel_common::text::{self, Task, TextError};

use super::hub::{self, HubError};

/// A dataset or model that cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file that cannot be read.
    #[error("{field}: cannot read {path}: {reason}{hint}")]
    File {
        /// The field that names it.
        field: &'static str,
        /// The file that was looked for.
        path: String,
        /// What the system said.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A folder without a file that has to be in it.
    #[error("{field}: {folder} has no {}", .names.join(" or "))]
    NotInFolder {
        /// The field that names the folder.
        field: &'static str,
        /// The folder.
        folder: String,
        /// What the file may be called.
        names: Vec<String>,
    },
    /// A file that holds no usable table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file that holds no usable texts.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Files that hold no usable model.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// A model that the hub does not give.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Files that came with a submission and are others than the spec's.
    #[error("the file `{0}` did not come with the submission")]
    Missing(&'static str),
}

/// A file of an input.
#[derive(Clone, Debug)]
pub struct InputFile {
    /// What it is for.
    pub role: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Reads the files of an entry of a spec.
pub(super) fn gather(spec: &Spec, place: Place, folder: &Path) -> Result<Vec<InputFile>, InputError> {
    match place {
        Place::Dataset(at) => match spec.datasets.get(at) {
            Some(DatasetSpec::Features(entry)) => gather_features(entry, folder),
            Some(DatasetSpec::Text(entry)) => gather_text(entry, folder),
            _ => Ok(Vec::new()),
        },
        Place::Model(at) => match spec.models.get(at) {
            Some(entry) => gather_model(entry, folder),
            None => Ok(Vec::new()),
        },
    }
}

fn read(role: &str, field: &'static str, path: &Path) -> Result<InputFile, InputError> {
    let bytes = std::fs::read(path).map_err(|error| {
        let path = path.display().to_string();
        let hint =
            if path.contains(".deps/data/") { "\n  `make data` downloads the examples' files" } else { "" };
        InputError::File { field, path, reason: error.to_string(), hint }
    })?;
    Ok(InputFile { role: role.to_owned(), bytes: bytes.into() })
}

fn gather_features(entry: &FeaturesSpec, folder: &Path) -> Result<Vec<InputFile>, InputError> {
    let mut files = vec![read("features", "path", &folder.join(&entry.path))?];
    if let Some(labels) = &entry.labels {
        files.push(read("labels", "labels", &folder.join(labels))?);
    }
    Ok(files)
}

fn gather_text(entry: &TextSpec, folder: &Path) -> Result<Vec<InputFile>, InputError> {
    let path = folder.join(&entry.path);
    let Some(task) = entry.task.as_deref().and_then(Task::from_name) else {
        let mut files = vec![read("train", "path", &path)?];
        if let Some(test) = &entry.test {
            files.push(read("test", "test", &folder.join(test))?);
        }
        return Ok(files);
    };
    if !path.is_dir() {
        // Says that it is not there, or is no folder.
        let reason = match path.exists() {
            true => "it is no folder; a task is named by the folder of its official files".to_owned(),
            false => "no such folder".to_owned(),
        };
        let path = path.display().to_string();
        return Err(InputError::File { field: "path", path, reason, hint: "" });
    }
    Ok(vec![first_of(&path, task.train_files(), "train")?, first_of(&path, task.test_files(), "test")?])
}

fn first_of(folder: &Path, names: &[&str], role: &str) -> Result<InputFile, InputError> {
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.exists());
    match found {
        Some(path) => read(role, "path", &path),
        None => Err(InputError::NotInFolder {
            field: "path",
            folder: folder.display().to_string(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }),
    }
}

/// The files of a model, all of which it needs.
const MODEL_FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

fn gather_model(entry: &ModelSpec, folder: &Path) -> Result<Vec<InputFile>, InputError> {
    let path = entry.path.as_deref().unwrap_or_default();
    let local = folder.join(path);
    // A folder wins over a name on the hub; what cannot be such a name is meant to be a folder.
    let paths: Vec<PathBuf> = if local.is_dir() || !hub::is_name(path) {
        MODEL_FILES.iter().map(|name| local.join(name)).collect()
    } else {
        hub::fetch(path, entry.revision.as_deref(), &MODEL_FILES)?
    };
    MODEL_FILES.iter().zip(&paths).map(|(name, path)| read(name, "path", path)).collect()
}

/// Reads what is in the files of an entry.
pub(super) fn inspect(
    spec: &Spec,
    place: Place,
    files: &[InputFile],
    content: &ContentHash,
) -> Result<InputInfo, InputError> {
    let find = |role: &'static str| {
        files.iter().find(|file| file.role == role).map(|file| &*file.bytes).ok_or(InputError::Missing(role))
    };
    match place {
        Place::Dataset(at) => match spec.datasets.get(at) {
            Some(DatasetSpec::Text(entry)) => {
                let data = text::read(&text::Source {
                    form: text::Form::of(entry),
                    path: &entry.path,
                    test_path: entry.test.as_deref(),
                    train: find("train")?,
                    test: find("test").ok(),
                    skip_malformed: entry.skip_malformed,
                })?;
                Ok(InputInfo::Text(data.info(content)))
            }
            Some(DatasetSpec::Features(entry)) => {
                let labels = entry.labels.as_ref().map(|_| find("labels")).transpose()?;
                let table = table::read(&TableSource {
                    path: &entry.path,
                    bytes: find("features")?,
                    label: entry.label.as_deref(),
                    labels: entry.labels.as_deref().zip(labels),
                    drop: &entry.drop,
                })?;
                Ok(InputInfo::Features(table.info(content)))
            }
            _ => Err(InputError::Missing("features")),
        },
        Place::Model(at) => {
            let path = spec.models.get(at).and_then(|model| model.path.as_deref()).unwrap_or_default();
            let name = |file: &str| format!("{path}/{file}");
            let config = encoder::EncoderConfig::parse(&name("config.json"), find("config.json")?)?;
            find("tokenizer.json")?;
            let pooling = spec.models.get(at).and_then(|model| model.pooling);
            let info =
                config.inspect(&name("model.safetensors"), find("model.safetensors")?, pooling, content)?;
            Ok(InputInfo::Model(info))
        }
    }
}
