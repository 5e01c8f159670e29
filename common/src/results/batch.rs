//! Batches of records as they travel: checked, cut and joined without turning rows into structs.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int32Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;

use super::columns::{CURVE, DecodeError, schema};
use super::outcome::Status;

/// Reads the batches of an Arrow IPC stream and checks that they are records.
///
/// # Errors
/// When the bytes are no such stream, or a column is missing, of another type or malformed.
pub fn batches_from_ipc(bytes: &[u8]) -> Result<Vec<RecordBatch>, DecodeError> {
    let batches = read_stream(bytes)?;
    batches.iter().try_for_each(check_columns)?;
    Ok(batches)
}

/// The batches of an Arrow IPC stream, whatever they hold. The reader indexes by what the bytes say of themselves and panics
/// where that cannot be: such bytes are refused like others.
pub(super) fn read_stream(bytes: &[u8]) -> Result<Vec<RecordBatch>, DecodeError> {
    let read = || StreamReader::try_new(bytes, None)?.collect();
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ArrowError::IpcError("the stream contradicts itself".to_owned())))
        .map_err(DecodeError::Arrow)
}

fn check_columns(batch: &RecordBatch) -> Result<(), DecodeError> {
    let expected = schema();
    for (position, field) in expected.fields().iter().enumerate() {
        let found = batch.schema_ref().fields().get(position).cloned();
        if found.is_none_or(|found| found.name() != field.name() || found.data_type() != field.data_type()) {
            return Err(DecodeError::Column(super::columns::static_name(field.name())));
        }
    }
    if batch.num_columns() != expected.fields().len() {
        return Err(DecodeError::Column("(more than there should be)"));
    }
    // A curve is one list a column: all of a row have one length.
    let steps = super::columns::list(batch, "curve_step")?;
    for (name, ..) in CURVE {
        let column = super::columns::list(batch, name)?;
        let same = (0..batch.num_rows()).all(|row| column.value_length(row) == steps.value_length(row));
        if !same {
            return Err(DecodeError::Column(name));
        }
    }
    Ok(())
}

/// The trial number and status of every row.
///
/// # Errors
/// When a column is missing or a status unknown.
pub fn trials_of(batch: &RecordBatch) -> Result<Vec<(u64, Status)>, DecodeError> {
    let index = super::columns::primitive::<UInt64Type>(batch, "trial_index")?;
    let column = batch.column_by_name("status").ok_or(DecodeError::Column("status"))?;
    let statuses = column.as_dictionary_opt::<Int32Type>().ok_or(DecodeError::Column("status"))?;
    let words = statuses.values().as_string_opt::<i32>().ok_or(DecodeError::Column("status"))?;
    let mut known: HashMap<usize, Status> = HashMap::new();
    for (key, word) in words.iter().enumerate() {
        if let Some(status) = word.and_then(Status::from_name) {
            known.insert(key, status);
        }
    }
    (0..batch.num_rows())
        .map(|row| {
            let status = statuses.key(row).and_then(|key| known.get(&key)).copied().ok_or_else(|| {
                DecodeError::Status {
                    row,
                    found: statuses.key(row).map_or("null".into(), |key| format!("#{key}")),
                }
            })?;
            Ok((index.value(row), status))
        })
        .collect()
}

/// The rows whose trial passes `keep`.
///
/// # Errors
/// When the trial column is missing or Arrow cannot filter.
pub fn filter(batch: &RecordBatch, mut keep: impl FnMut(u64) -> bool) -> Result<RecordBatch, DecodeError> {
    let index = super::columns::primitive::<UInt64Type>(batch, "trial_index")?;
    let mask: BooleanArray = index.values().iter().map(|trial| Some(keep(*trial))).collect();
    Ok(arrow::compute::filter_record_batch(batch, &mask)?)
}

/// All rows in one batch.
///
/// # Errors
/// When Arrow cannot join them.
pub fn concat(batches: &[RecordBatch]) -> Result<RecordBatch, DecodeError> {
    Ok(arrow::compute::concat_batches(&schema(), batches)?)
}

#[cfg(test)]
mod tests {
    use super::super::{TrialOutcome, TrialRecord, decode, encode, to_ipc};
    use super::*;
    use crate::results::{ExecutionRecord, Measures, TestOutputs};

    fn batch(trials: impl IntoIterator<Item = u64>, worker: &str) -> RecordBatch {
        let records: Vec<TrialRecord> = trials
            .into_iter()
            .map(|trial_index| TrialRecord {
                outcome: TrialOutcome {
                    trial_index,
                    status: if trial_index.is_multiple_of(3) { Status::Diverged } else { Status::Completed },
                    error: None,
                    measures: Measures::default(),
                    distances: None,
                    curve: Vec::new(),
                    outputs: TestOutputs::default(),
                },
                execution: ExecutionRecord { worker: worker.into(), ..ExecutionRecord::default() },
            })
            .collect();
        encode(&records).expect("encode")
    }

    #[test]
    fn batches_of_two_workers_join_and_keep_their_words() {
        let joined = concat(&[batch(0..3, "a"), batch(5..7, "b")]).expect("concat");
        let workers: Vec<String> =
            decode(&joined).expect("decode").into_iter().map(|record| record.execution.worker).collect();
        assert_eq!(workers, ["a", "a", "a", "b", "b"]);
        let kept = filter(&joined, |trial| trial % 2 == 1).expect("filter");
        assert_eq!(trials_of(&kept).expect("trials"), [(1, Status::Completed), (5, Status::Completed)]);
    }

    #[test]
    fn a_batch_of_other_columns_is_refused() {
        let batch = batch(0..3, "a");
        let fewer = batch.project(&[0, 1, 2]).expect("project");
        assert!(batches_from_ipc(&to_ipc(&fewer).expect("ipc")).is_err());
        assert_eq!(batches_from_ipc(&to_ipc(&batch).expect("ipc")).expect("read").len(), 1);
        assert!(batches_from_ipc(b"nonsense").is_err());
    }
}
