//! Sweeps the worker was told about: their grids and feature files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use evenkeel_common::grid::{FeatureInfo, Grid, content_hash};
use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::spec::Spec;
use evenkeel_common::table::{self, FeatureTable};
use evenkeel_common::trial::FeaturesConfig;
use evenkeel_proto::v1;

use crate::data::{DataError, TableSource};

/// A sweep whose trials can be run.
#[derive(Debug)]
pub struct OpenSweep {
    /// Its id.
    pub id: SweepId,
    /// Its grid.
    pub grid: Grid,
    features: Vec<(FeatureInfo, String, Option<String>)>,
    files: Mutex<HashMap<String, Bytes>>,
    tables: Mutex<HashMap<String, Arc<FeatureTable>>>,
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
        let mut features = Vec::new();
        for feature in opened.features {
            let info: FeatureInfo =
                serde_json::from_str(&feature.info_json).map_err(|error| error.to_string())?;
            features.push((info, feature.file, (!feature.labels.is_empty()).then_some(feature.labels)));
        }
        let infos: Vec<FeatureInfo> = features.iter().map(|(info, ..)| info.clone()).collect();
        let grid = Grid::new(Arc::new(spec), &infos).map_err(|error| error.to_string())?;
        let sweep =
            OpenSweep { id: id.clone(), grid, features, files: Mutex::default(), tables: Mutex::default() };
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

impl OpenSweep {
    fn needs(&self, hash: &str) -> bool {
        self.features.iter().any(|(_, file, labels)| file == hash || labels.as_deref() == Some(hash))
    }

    fn read(&self, config: &FeaturesConfig) -> Result<FeatureTable, DataError> {
        let fail = |reason: &str| DataError::Unavailable(format!("{}: {reason}", config.path));
        let (_, file, labels) = self
            .features
            .iter()
            .find(|(info, ..)| info.content == config.content)
            .ok_or_else(|| fail("the coordinator did not announce this file"))?;
        let files = self.files.lock().map_err(|_| fail("an earlier reader died"))?;
        let get = |hash: &String| files.get(hash).cloned().ok_or_else(|| fail("its bytes did not arrive"));
        let bytes = get(file)?;
        let label_bytes = labels.as_ref().map(get).transpose()?;
        drop(files);
        if content_hash(&bytes, label_bytes.as_deref()).to_hex() != config.content {
            return Err(fail("its bytes are not those of the sweep"));
        }
        let source = table::TableSource {
            path: &config.path,
            bytes: &bytes,
            label: config.label.as_deref(),
            labels: config.labels.as_deref().zip(label_bytes.as_deref()),
            drop: &config.drop,
        };
        table::read(&source).map_err(|error| DataError::Invalid(error.to_string()))
    }
}

impl TableSource for OpenSweep {
    fn table(&self, config: &FeaturesConfig) -> Result<Arc<FeatureTable>, DataError> {
        // The same bytes may be read with another label or without some columns.
        let key = format!("{}\0{:?}\0{:?}", config.content, config.label, config.drop);
        if let Some(table) = self.tables.lock().ok().and_then(|tables| tables.get(&key).cloned()) {
            return Ok(table);
        }
        let table = Arc::new(self.read(config)?);
        if let Ok(mut tables) = self.tables.lock() {
            tables.insert(key, table.clone());
        }
        Ok(table)
    }
}
