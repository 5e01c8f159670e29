//! Segments: immutable Parquet files of result records.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use bytes::Bytes;
use evenkeel_common::id::ContentHash;
use evenkeel_common::results::{self, Status, TrialRecord};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;

use super::{Store, StoreError};

const FORMAT_KEY: &str = "evenkeel.format_version";
/// Hash of all bytes in front of Parquet's footer, and their number: `<blake3>:<bytes>`. What is in the footer beside it either
/// finds those bytes and their columns or does not.
const HASH_KEY: &str = "evenkeel.blake3";

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
    let mut bytes: Vec<u8> = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.flush()?;
    writer.sync()?;
    let hash = format!("{}:{}", ContentHash::of(writer.inner()).to_hex(), writer.inner().len());
    writer.append_key_value_metadata(KeyValue::new(HASH_KEY.to_owned(), hash));
    writer.close()?;
    Ok(bytes.into())
}

/// Reads only which trials a segment holds, how they ended, and how much there is of them.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_contents(store: &Store, path: &str) -> Result<Contents, StoreError> {
    let bytes = store.read(path).await?;
    contained(path, || {
        let Opened { batches, values, rows } = open(path, bytes, Some(&["trial_index", "status"]))?;
        let mut trials = Vec::with_capacity(rows);
        for batch in batches {
            trials.extend(results::trials_of(&batch?).map_err(|error| corrupt(path, &error))?);
        }
        Ok(Contents { trials, values })
    })
}

/// Reads all records of a segment.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_records(store: &Store, path: &str) -> Result<Vec<TrialRecord>, StoreError> {
    let bytes = store.read(path).await?;
    contained(path, || {
        let Opened { batches, rows, .. } = open(path, bytes, None)?;
        let mut records = Vec::with_capacity(rows);
        for batch in batches {
            records.extend(results::decode(&batch?).map_err(|error| corrupt(path, &error))?);
        }
        Ok(records)
    })
}

/// Reads, and takes a panic for damage: the hash covers the columns, but not the footer that says where they are, and the
/// reader does not expect every footer there may be.
pub(super) fn contained<T>(
    path: &str,
    read: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(corrupt(path, &"its footer describes columns that cannot be")))
}

/// A segment that is read batch by batch.
pub(super) struct Opened<B> {
    pub batches: B,
    /// Values of all columns, read or not.
    pub values: u64,
    pub rows: usize,
}

/// Opens some columns of a segment, or all.
pub(super) fn open(
    path: &str,
    bytes: Bytes,
    columns: Option<&[&str]>,
) -> Result<Opened<impl Iterator<Item = Result<RecordBatch, StoreError>> + use<>>, StoreError> {
    open_rows(path, bytes, columns, None)
}

/// The same, of some rows.
pub(super) fn open_rows(
    path: &str,
    bytes: Bytes,
    columns: Option<&[&str]>,
    selection: Option<RowSelection>,
) -> Result<Opened<impl Iterator<Item = Result<RecordBatch, StoreError>> + use<>>, StoreError> {
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| corrupt(path, &error))?;
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
    if let Some(hash) = metadata.get(HASH_KEY) {
        check_hash(&bytes, hash, builder.metadata()).map_err(|reason| corrupt(path, &reason))?;
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
    let builder = match selection {
        Some(selection) => builder.with_row_selection(selection),
        None => builder,
    };
    let reader = builder.with_batch_size(16_384).build().map_err(|error| corrupt(path, &error))?;
    let path = path.to_owned();
    let batches = reader.map(move |batch| batch.map_err(|error| corrupt(&path, &error)));
    Ok(Opened { batches, values, rows })
}

/// Whether the bytes that hold columns are those that were written. Segments of earlier programs have no hash.
fn check_hash(bytes: &Bytes, hash: &str, metadata: &ParquetMetaData) -> Result<(), &'static str> {
    let damaged = "its content is not what it was when it was written (BLAKE3)";
    let (hash, length) = hash.split_once(':').ok_or(damaged)?;
    let hashed = length.parse().ok().and_then(|length: usize| bytes.get(..length)).ok_or(damaged)?;
    let within = metadata.row_groups().iter().flat_map(|group| group.columns()).all(|chunk| {
        let (start, length) = chunk.byte_range();
        start.checked_add(length).is_some_and(|end| end <= hashed.len() as u64)
    });
    if within && ContentHash::of(hashed).to_hex() == hash { Ok(()) } else { Err(damaged) }
}

pub(super) fn corrupt(path: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use evenkeel_common::results::{Measures, TestOutputs, TrialOutcome};

    use super::*;

    #[tokio::test]
    async fn whatever_bit_of_a_segment_changes_it_is_an_error_or_reads_the_same() {
        let records: Vec<TrialRecord> = (0..40_u64)
            .map(|trial| TrialRecord {
                outcome: TrialOutcome {
                    trial_index: trial,
                    status: Status::Completed,
                    error: None,
                    measures: Measures { score: Some(trial as f64 / 7.0), ..Measures::default() },
                    distances: None,
                    curve: Vec::new(),
                    outputs: TestOutputs::default(),
                },
                execution: results::ExecutionRecord::default(),
            })
            .collect();
        let whole = to_parquet(&results::encode(&records).expect("encode")).expect("parquet");
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        let read = async |bytes: Bytes| {
            store.write("segment", bytes).await.expect("write");
            let contents = read_contents(&store, "segment").await?;
            Ok::<_, StoreError>((contents.trials, format!("{:?}", read_records(&store, "segment").await?)))
        };
        let truth = read(whole.clone()).await.expect("whole");
        // Each third byte, each time another bit of it: the files have some ten kilobytes.
        let (mut noticed, mut tried) = (0, 0);
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << (at % 8);
            tried += 1;
            match read(bytes.into()).await {
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at}: {error}");
                    noticed += 1;
                }
                Ok(found) => assert_eq!(found, truth, "byte {at} of {}", whole.len()),
            }
        }
        assert!(noticed * 4 > tried, "{noticed} of {tried} changes were noticed");
        for length in [0, 4, whole.len() / 2, whole.len() - 1] {
            assert!(read(whole.slice(..length)).await.is_err(), "{length} bytes");
        }
    }
}
