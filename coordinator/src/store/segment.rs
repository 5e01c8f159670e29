//! Segments: immutable Parquet files of result records.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use bytes::Bytes;
use evenkeel_common::results::{self, Status, TrialRecord};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::{Store, StoreError};

const FORMAT_KEY: &str = "evenkeel.format_version";

/// The trials of a segment and how each ended.
pub type SegmentTrials = Vec<(u64, Status)>;

/// The bytes of a segment.
///
/// # Errors
/// When Parquet cannot write the batch.
pub fn to_parquet(batch: &RecordBatch) -> Result<Bytes, parquet::errors::ParquetError> {
    let version = KeyValue::new(FORMAT_KEY.to_owned(), evenkeel_common::FORMAT_VERSION.to_string());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![version]))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes.into())
}

/// Reads only which trials a segment holds and how they ended.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_trials(store: &Store, path: &str) -> Result<SegmentTrials, StoreError> {
    let bytes = store.read(path).await?;
    let mut trials = Vec::new();
    for batch in open(path, bytes, Some(&["trial_index", "status"]))? {
        trials.extend(results::trials_of(&batch?).map_err(|error| corrupt(path, &error))?);
    }
    Ok(trials)
}

/// Reads all records of a segment.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_records(store: &Store, path: &str) -> Result<Vec<TrialRecord>, StoreError> {
    let bytes = store.read(path).await?;
    let mut records = Vec::new();
    for batch in open(path, bytes, None)? {
        records.extend(results::decode(&batch?).map_err(|error| corrupt(path, &error))?);
    }
    Ok(records)
}

fn open(
    path: &str,
    bytes: Bytes,
    columns: Option<&[&str]>,
) -> Result<impl Iterator<Item = Result<RecordBatch, StoreError>> + use<>, StoreError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| corrupt(path, &error))?;
    let metadata: HashMap<&str, &str> = builder
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair.key.as_str(), pair.value.as_deref()?)))
        .collect();
    let version = metadata.get(FORMAT_KEY).and_then(|version| version.parse::<u32>().ok());
    if version.is_none_or(|version| version > evenkeel_common::FORMAT_VERSION) {
        let found = metadata.get(FORMAT_KEY).copied().unwrap_or("none");
        let known = evenkeel_common::FORMAT_VERSION;
        return Err(corrupt(
            path,
            &format!("found format version {found}, this program knows up to {known}"),
        ));
    }
    let builder = match columns {
        Some(columns) => {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
            builder.with_projection(mask)
        }
        None => builder,
    };
    let reader = builder.with_batch_size(16_384).build().map_err(|error| corrupt(path, &error))?;
    let path = path.to_owned();
    Ok(reader.map(move |batch| batch.map_err(|error| corrupt(&path, &error))))
}

fn corrupt(path: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), reason: reason.to_string() }
}
