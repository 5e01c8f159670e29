//! Parts of segments: a few columns of all rows, or all columns of a few rows.

use std::collections::BTreeSet;

use arrow::array::AsArray as _;
use arrow::datatypes::UInt64Type;
use evenkeel_common::results::{self, Status, TrialRecord};
pub use evenkeel_common::results::{Overview, OverviewRow};
use evenkeel_common::runtime::blocking;
use parquet::arrow::arrow_reader::RowSelection;

use super::segment::{Opened, contained, corrupt, open, open_rows};
use super::{Store, StoreError};

/// The rows of a segment in brief, and the errors of those that failed. Decoding runs on a thread of its own.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_overview(store: &Store, path: &str) -> Result<(Overview, Vec<(u64, String)>), StoreError> {
    let (bytes, path) = (store.read(path).await?, path.to_owned());
    let (at, read) = (path.clone(), path);
    let decoded = blocking(move || {
        contained(&read, || {
            let mut overview = Overview::default();
            for batch in open(&read, bytes.clone(), Some(&Overview::COLUMNS))?.batches {
                results::overview_of(&batch?, &mut overview).map_err(|error| corrupt(&read, &error))?;
            }
            let mut errors = Vec::new();
            if overview.rows.iter().any(|row| row.status == Status::Failed) {
                for batch in open(&read, bytes, Some(&["trial_index", "error"]))?.batches {
                    errors.extend(results::errors_of(&batch?).map_err(|error| corrupt(&read, &error))?);
                }
            }
            Ok((overview, errors))
        })
    });
    decoded.await.unwrap_or_else(|error| Err(corrupt(&at, &error)))
}

/// The records of some trials of a segment; those that it does not hold are left out. The first row of a trial counts.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_rows(
    store: &Store,
    path: &str,
    wanted: BTreeSet<u64>,
) -> Result<Vec<TrialRecord>, StoreError> {
    let (bytes, path) = (store.read(path).await?, path.to_owned());
    let (at, read) = (path.clone(), path);
    let decoded = blocking(move || {
        contained(&read, || {
            let Opened { batches, rows, .. } = open(&read, bytes.clone(), Some(&["trial_index"]))?;
            let (mut left, mut ranges, mut start) = (wanted, Vec::new(), 0);
            for batch in batches {
                let batch = batch?;
                let column = batch.column_by_name("trial_index");
                let index = column.and_then(|column| column.as_primitive_opt::<UInt64Type>());
                let index = index.ok_or_else(|| corrupt(&read, &"it has no trial_index"))?;
                let found = index.values().iter().enumerate().filter(|(_, trial)| left.remove(trial));
                ranges.extend(found.map(|(row, _)| start + row..start + row + 1));
                start += batch.num_rows();
            }
            let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), start.max(rows));
            let mut records = Vec::new();
            for batch in open_rows(&read, bytes, None, Some(selection))?.batches {
                records.extend(results::decode(&batch?).map_err(|error| corrupt(&read, &error))?);
            }
            Ok(records)
        })
    });
    decoded.await.unwrap_or_else(|error| Err(corrupt(&at, &error)))
}
