//! The trials of an output directory.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

const TEXTS: [&str; 6] = ["trial_id", "dataset_config", "model", "strategy", "strategy_config", "status"];

/// Why an output directory cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that is not there or cannot be read.
    #[error(
        "{}: {what}; compare takes output directories of `evenkeel run` or `evenkeel results` (format parquet), or ids of sweeps",
        path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// One of the two sweeps.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// What the user called it.
    pub name: String,
    /// Id of the sweep.
    pub sweep: String,
    /// Version of the program that ran it.
    pub version: String,
    /// Devices it ran on.
    pub devices: Vec<String>,
    /// Its spec with every default.
    pub spec: String,
    /// Its trials.
    pub trials: Vec<TrialRow>,
}

/// What comparing needs of a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRow {
    /// Its id.
    pub id: Arc<str>,
    /// Canonical form of its dataset.
    pub dataset: Arc<str>,
    /// Its model.
    pub model: Arc<str>,
    /// Name of its strategy.
    pub strategy: Arc<str>,
    /// Canonical form of its strategy.
    pub config: Arc<str>,
    /// Its seed.
    pub seed: u64,
    /// How it ended.
    pub status: Arc<str>,
    /// Its score; none unless it completed.
    pub score: Option<f64>,
    /// Its mean leave-one-out distance.
    pub loo: Option<f64>,
}

impl Side {
    /// Reads an output directory.
    ///
    /// # Errors
    /// When a file is missing or is not what an export writes.
    pub fn read(dir: &Path, name: &str) -> Result<Self, LoadError> {
        let path = dir.join("summary.json");
        let summary = read_text(&path)?;
        let summary: Value =
            serde_json::from_str(&summary).map_err(|error| fail(&path, format!("no JSON: {error}")))?;
        let text = |key: &str| summary.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let devices = summary.get("devices").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            name: name.to_owned(),
            sweep: text("sweep_id"),
            version: text("version"),
            devices: devices.filter_map(|device| device.as_str().map(str::to_owned)).collect(),
            spec: read_text(&dir.join("spec.yaml"))?,
            trials: read_trials(&dir.join("results.parquet"))?,
        })
    }
}

fn fail(path: &Path, what: impl std::fmt::Display) -> LoadError {
    LoadError::File { path: path.to_owned(), what: what.to_string() }
}

fn read_text(path: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(path).map_err(|error| fail(path, error))
}

fn read_trials(path: &Path) -> Result<Vec<TrialRow>, LoadError> {
    let file = File::open(path).map_err(|error| fail(path, error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| fail(path, error))?;
    let wanted = TEXTS.iter().chain(&["seed", "score", "loo_mean"]);
    let schema = builder.parquet_schema();
    let mask = ProjectionMask::columns(schema, wanted.copied());
    let reader = builder.with_projection(mask).build().map_err(|error| fail(path, error))?;
    let (mut words, mut trials) = (Words::default(), Vec::new());
    for batch in reader {
        let batch = batch.map_err(|error| fail(path, error))?;
        append(&mut trials, &batch, &mut words).map_err(|what| fail(path, what))?;
    }
    Ok(trials)
}

/// Texts that repeat are kept once.
#[derive(Default)]
struct Words(HashMap<String, Arc<str>>);

impl Words {
    fn get(&mut self, word: String) -> Arc<str> {
        self.0.entry(word).or_insert_with_key(|word| Arc::from(word.as_str())).clone()
    }
}

fn append(trials: &mut Vec<TrialRow>, batch: &RecordBatch, words: &mut Words) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or(format!("it has no column `{name}`"));
    let options = FormatOptions::default();
    let mut texts = Vec::with_capacity(TEXTS.len());
    for name in TEXTS {
        let column = column(name)?;
        texts.push(ArrayFormatter::try_new(column.as_ref(), &options).map_err(|error| error.to_string())?);
    }
    let wrong = |name: &str| format!("column `{name}` has another type");
    let seeds = column("seed")?.as_primitive_opt::<UInt64Type>().ok_or_else(|| wrong("seed"))?;
    let scores = column("score")?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong("score"))?;
    let loos = column("loo_mean")?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong("loo_mean"))?;
    for row in 0..batch.num_rows() {
        let mut cells = texts.iter().map(|text| text.value(row).to_string());
        let mut next = || cells.next().unwrap_or_default();
        let id: Arc<str> = Arc::from(next());
        let [dataset, model, strategy, config, status] = std::array::from_fn(|_| words.get(next()));
        let completed = &*status == "completed";
        let real = |column: &arrow::array::PrimitiveArray<Float64Type>| {
            (completed && column.is_valid(row)).then(|| column.value(row))
        };
        let (score, loo) = (real(scores), real(loos));
        trials.push(TrialRow {
            id,
            dataset,
            model,
            strategy,
            config,
            seed: seeds.value(row),
            status,
            score,
            loo,
        });
    }
    Ok(())
}
