//! Sweeps the worker was told about: their grids and files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use evenkeel_common::grid::Grid;
use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::inputs::{FileRecord, InputInfo, InputRecord, content_hash};
use evenkeel_common::spec::Spec;
use evenkeel_common::table::{self, FeatureTable};
use evenkeel_common::text::{self, TextData};
use evenkeel_common::trial::{FeaturesConfig, PretrainedConfig, TextConfig};
use evenkeel_proto::v1;

use crate::data::{DataError, Inputs, ModelFiles};

/// A sweep whose trials can be run.
#[derive(Debug)]
pub struct OpenSweep {
    /// Its id.
    pub id: SweepId,
    /// Its grid.
    pub grid: Grid,
    inputs: Vec<InputRecord>,
    files: Mutex<HashMap<String, Bytes>>,
    tables: Mutex<HashMap<String, Arc<FeatureTable>>>,
    texts: Mutex<HashMap<String, Arc<TextData>>>,
}

/// Sweeps and the files that arrive for them.
#[derive(Debug, Default)]
pub struct Sweeps {
    open: HashMap<SweepId, Arc<OpenSweep>>,
    arriving: HashMap<String, BytesMut>,
}

impl Sweeps {
    /// Takes in a sweep; its files follow.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(&mut self, opened: v1::SweepOpened) -> Result<(), String> {
        let id = SweepId::parse(&opened.sweep_id).map_err(|error| error.to_string())?;
        if self.open.contains_key(&id) {
            return Ok(());
        }
        let spec =
            Spec::parse("spec of the coordinator", &opened.spec_json).map_err(|error| error.to_string())?;
        let mut inputs = Vec::new();
        for input in opened.inputs {
            let info: InputInfo =
                serde_json::from_str(&input.info_json).map_err(|error| error.to_string())?;
            let files = input.files.into_iter().map(|file| FileRecord { role: file.role, hash: file.hash });
            inputs.push(InputRecord { info, files: files.collect() });
        }
        let infos: Vec<InputInfo> = inputs.iter().map(|input| input.info.clone()).collect();
        let grid = Grid::new(Arc::new(spec), &infos).map_err(|error| error.to_string())?;
        let sweep = OpenSweep {
            id: id.clone(),
            grid,
            inputs,
            files: Mutex::default(),
            tables: Mutex::default(),
            texts: Mutex::default(),
        };
        self.open.insert(id, Arc::new(sweep));
        Ok(())
    }

    /// Takes in a part of a file.
    ///
    /// # Errors
    /// When the whole is not what its name says.
    pub fn receive(&mut self, chunk: v1::Chunk) -> Result<(), String> {
        let bytes = self.arriving.entry(chunk.name.clone()).or_default();
        bytes.extend_from_slice(&chunk.data);
        if !chunk.last {
            return Ok(());
        }
        let bytes = self.arriving.remove(&chunk.name).unwrap_or_default().freeze();
        if ContentHash::of(&bytes).to_hex() != chunk.name {
            return Err(format!("the file {} arrived changed", chunk.name));
        }
        for sweep in self.open.values().filter(|sweep| sweep.needs(&chunk.name)) {
            if let Ok(mut files) = sweep.files.lock() {
                files.insert(chunk.name.clone(), bytes.clone());
            }
        }
        Ok(())
    }

    /// A sweep by id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<OpenSweep>> {
        self.open.get(&SweepId::parse(id).ok()?).cloned()
    }
}

/// The files of an input.
struct Files(Vec<(String, Bytes)>);

impl Files {
    fn find(&self, role: &str) -> Option<&Bytes> {
        self.0.iter().find(|(known, _)| known == role).map(|(_, bytes)| bytes)
    }

    fn get(&self, path: &str, role: &str) -> Result<&Bytes, DataError> {
        let missing =
            || DataError::Unavailable(format!("{path}: the coordinator did not announce its `{role}`"));
        self.find(role).ok_or_else(missing)
    }
}

impl OpenSweep {
    fn needs(&self, hash: &str) -> bool {
        self.inputs.iter().flat_map(|input| &input.files).any(|file| file.hash == hash)
    }

    /// The files of the input with this content, checked.
    fn files(&self, path: &str, content: &str) -> Result<Files, DataError> {
        let fail = |reason: &str| DataError::Unavailable(format!("{path}: {reason}"));
        let input = self
            .inputs
            .iter()
            .find(|input| input.info.content() == content)
            .ok_or_else(|| fail("the coordinator did not announce its files"))?;
        let arrived = self.files.lock().map_err(|_| fail("an earlier reader died"))?;
        let get = |file: &FileRecord| {
            let bytes = arrived.get(&file.hash).cloned().ok_or_else(|| fail("its bytes did not arrive"))?;
            Ok((file.role.clone(), bytes))
        };
        let files = input.files.iter().map(get).collect::<Result<Vec<_>, DataError>>()?;
        drop(arrived);
        if content_hash(files.iter().map(|(_, bytes)| &**bytes)).to_hex() != content {
            return Err(fail("its bytes are not those of the sweep"));
        }
        Ok(Files(files))
    }
}

/// What is in a map, or what `make` gives, kept there.
fn remembered<T>(
    map: &Mutex<HashMap<String, Arc<T>>>,
    key: String,
    make: impl FnOnce() -> Result<T, DataError>,
) -> Result<Arc<T>, DataError> {
    if let Some(found) = map.lock().ok().and_then(|map| map.get(&key).cloned()) {
        return Ok(found);
    }
    let made = Arc::new(make()?);
    if let Ok(mut map) = map.lock() {
        map.insert(key, made.clone());
    }
    Ok(made)
}

impl Inputs for OpenSweep {
    fn table(&self, config: &FeaturesConfig) -> Result<Arc<FeatureTable>, DataError> {
        // The same bytes may be read with another label or without some columns.
        let key = format!("{}\0{:?}\0{:?}", config.content, config.label, config.drop);
        remembered(&self.tables, key, || {
            let files = self.files(&config.path, &config.content)?;
            let labels = config.labels.as_deref().zip(files.find("labels").map(|bytes| &**bytes));
            let source = table::TableSource {
                path: &config.path,
                bytes: files.get(&config.path, "features")?,
                label: config.label.as_deref(),
                labels,
                drop: &config.drop,
            };
            table::read(&source).map_err(|error| DataError::Invalid(error.to_string()))
        })
    }

    fn text(&self, config: &TextConfig) -> Result<Arc<TextData>, DataError> {
        let key = format!("{}\0{:?}\0{:?}", config.content, config.task, config.columns);
        remembered(&self.texts, key, || {
            let files = self.files(&config.path, &config.content)?;
            let source = text::Source {
                form: text::Form::of_config(config),
                path: &config.path,
                test_path: None,
                train: files.get(&config.path, "train")?,
                test: files.find("test").map(|bytes| &**bytes),
                skip_malformed: config.skip_malformed,
            };
            text::read(&source).map_err(|error| DataError::Invalid(error.to_string()))
        })
    }

    fn model(&self, config: &PretrainedConfig) -> Result<ModelFiles, DataError> {
        let files = self.files(&config.path, &config.content)?;
        let get = |role: &str| files.get(&config.path, role).cloned();
        Ok(ModelFiles {
            config: get("config.json")?,
            weights: get("model.safetensors")?,
            tokenizer: get("tokenizer.json")?,
        })
    }
}
