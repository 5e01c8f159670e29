//! Columns of text from Parquet.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::TextError;
use super::own::{OwnColumns, OwnFormat, OwnRows, own_from_columns};
use crate::dictionary;

/// Text that a file may unfold to: a dictionary can hold a long text once for a billion rows.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// Reads the columns that a format names. Labels may be text, whole numbers or booleans.
pub(super) fn read(
    path: &str,
    bytes: &[u8],
    format: &OwnFormat<'_>,
    skip_malformed: bool,
) -> Result<OwnRows, TextError> {
    // The reader checks much, but not all, of a malformed file before it indexes into it.
    let malformed =
        || TextError::Parquet { path: path.to_owned(), reason: "the file is malformed".to_owned() };
    catch_unwind(AssertUnwindSafe(|| read_checked(path, bytes, format, skip_malformed)))
        .unwrap_or_else(|_| Err(malformed()))
}

fn read_checked(
    path: &str,
    bytes: &[u8],
    format: &OwnFormat<'_>,
    skip_malformed: bool,
) -> Result<OwnRows, TextError> {
    let fail = |reason: &dyn std::fmt::Display| TextError::Parquet {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let bytes = Bytes::copy_from_slice(bytes);
    dictionary::check(&bytes).map_err(|e| fail(&e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| fail(&e))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let wanted = [Some(format.text), format.text_pair, Some(format.label)];
    if let Some(missing) = wanted.iter().flatten().find(|name| !names.iter().any(|known| known == *name)) {
        return Err(TextError::MissingColumn {
            path: path.to_owned(),
            column: (**missing).to_owned(),
            columns: names,
        });
    }
    let mut columns = OwnColumns { text_pair: format.text_pair.map(|_| Vec::new()), ..OwnColumns::default() };
    let roots = wanted.iter().flatten().filter_map(|name| names.iter().position(|known| known == *name));
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut unfolded = 0;
    for batch in builder.with_projection(mask).build().map_err(|e| fail(&e))? {
        let batch = batch.map_err(|e| fail(&e))?;
        unfolded += batch.get_array_memory_size();
        if unfolded > MAX_TEXT_BYTES {
            return Err(fail(&"it holds more than 1 GiB of text; take fewer rows"));
        }
        let take = |name: &str| -> Result<Vec<Option<String>>, TextError> {
            let column = batch.column_by_name(name).ok_or_else(|| fail(&format!("no column {name}")))?;
            let text: ArrayRef = cast(column, &DataType::Utf8).map_err(|e| fail(&e))?;
            let text =
                text.as_string_opt::<i32>().ok_or_else(|| fail(&format!("column {name} is no text")))?;
            Ok((0..text.len()).map(|row| text.is_valid(row).then(|| text.value(row).to_owned())).collect())
        };
        columns.text.extend(take(format.text)?);
        columns.label.extend(take(format.label)?);
        if let (Some(name), Some(pairs)) = (format.text_pair, &mut columns.text_pair) {
            pairs.extend(take(name)?);
        }
    }
    own_from_columns(path, format, columns, skip_malformed)
}
