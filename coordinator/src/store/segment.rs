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

/// What a segment holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Its trials and how each ended.
    pub trials: Vec<(u64, Status)>,
    /// Its values, those of lists one by one.
    pub values: u64,
}

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

/// Reads only which trials a segment holds, how they ended, and how much there is of them.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_contents(store: &Store, path: &str) -> Result<Contents, StoreError> {
    let bytes = store.read(path).await?;
    let Opened { batches, values, rows } = open(path, bytes, Some(&["trial_index", "status"]))?;
    let mut trials = Vec::with_capacity(rows);
    for batch in batches {
        trials.extend(results::trials_of(&batch?).map_err(|error| corrupt(path, &error))?);
    }
    Ok(Contents { trials, values })
}

/// Reads all records of a segment.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_records(store: &Store, path: &str) -> Result<Vec<TrialRecord>, StoreError> {
    let bytes = store.read(path).await?;
    let Opened { batches, rows, .. } = open(path, bytes, None)?;
    let mut records = Vec::with_capacity(rows);
    for batch in batches {
        records.extend(results::decode(&batch?).map_err(|error| corrupt(path, &error))?);
    }
    Ok(records)
}

/// A segment that is read batch by batch.
struct Opened<B> {
    batches: B,
    /// Values of all columns, read or not.
    values: u64,
    rows: usize,
}

/// Opens some columns of a segment, or all.
fn open(
    path: &str,
    bytes: Bytes,
    columns: Option<&[&str]>,
) -> Result<Opened<impl Iterator<Item = Result<RecordBatch, StoreError>> + use<>>, StoreError> {
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
    let chunks = builder.metadata().row_groups().iter().flat_map(|group| group.columns());
    let values = chunks.map(|chunk| u64::try_from(chunk.num_values()).unwrap_or(0)).sum();
    // What the file says of itself is only a hint of how much memory to take.
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0).min(1 << 20);
    let builder = match columns {
        Some(columns) => {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
            builder.with_projection(mask)
        }
        None => builder,
    };
    let reader = builder.with_batch_size(16_384).build().map_err(|error| corrupt(path, &error))?;
    let path = path.to_owned();
    let batches = reader.map(move |batch| batch.map_err(|error| corrupt(&path, &error)));
    Ok(Opened { batches, values, rows })
}

fn corrupt(path: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), reason: reason.to_string() }
}
