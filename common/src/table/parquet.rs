//! Parquet: numeric and boolean columns are features.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::error::{Place, clip};
use super::{Columns, FeatureTable, Labels, MAX_CELLS, TableError, TableSource, narrow};
use crate::dictionary;

pub(super) fn read(source: &TableSource<'_>, bytes: Vec<u8>) -> Result<FeatureTable, TableError> {
    // The reader checks much, but not all, of a malformed file before it indexes into it.
    catch_unwind(AssertUnwindSafe(|| read_checked(source, bytes)))
        .unwrap_or_else(|_| Err(unreadable(source, "the file is malformed")))
}

fn unreadable(source: &TableSource<'_>, reason: impl ToString) -> TableError {
    let mut reason = reason.to_string();
    // What the library says of a codec that it was built without.
    if reason.contains("Disabled feature") {
        reason.push_str("; write the file with compression \"snappy\" or \"none\"");
    }
    TableError::Unreadable { file: source.path.into(), format: "Parquet", reason }
}

fn read_checked(source: &TableSource<'_>, bytes: Vec<u8>) -> Result<FeatureTable, TableError> {
    let file = source.path;
    let bytes = Bytes::from(bytes);
    dictionary::check(&bytes).map_err(|error| unreadable(source, error))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| unreadable(source, error))?;
    let schema = builder.schema().clone();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let columns = Columns::assign(source, &names)?;
    for position in &columns.features {
        check_feature(source, schema.field(*position))?;
    }
    let label_field = schema.field(columns.label);
    let claimed = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(u64::MAX);
    let too_many = || TableError::TooManyCells { file: file.into(), limit: MAX_CELLS };
    if claimed.checked_mul(columns.features.len() as u64).is_none_or(|cells| cells > MAX_CELLS) {
        return Err(too_many());
    }

    // Dropped columns are not decoded: they may be of any type.
    let wanted = columns.features.iter().copied().chain([columns.label]);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let reader = builder.with_projection(mask).build().map_err(|error| unreadable(source, error))?;
    let mut labels = Labels::new(file, format!("column \"{}\"", clip(label_field.name())), false);
    let mut x = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| unreadable(source, error))?;
        append_labels(source, &batch, label_field, &mut labels)?;
        append_features(source, &batch, &columns.names(&names), &mut x)?;
        if x.len() as u64 > MAX_CELLS {
            return Err(too_many());
        }
    }
    FeatureTable::build(source, x, columns.names(&names), labels)
}

fn check_feature(source: &TableSource<'_>, field: &Field) -> Result<(), TableError> {
    let data_type = field.data_type();
    if data_type.is_numeric() || *data_type == DataType::Boolean {
        return Ok(());
    }
    let found = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            "text".to_owned()
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            "a list in each row (write one column a feature)".to_owned()
        }
        other => format!("of the type {other}"),
    };
    Err(TableError::ColumnType { file: source.path.into(), column: field.name().clone(), found })
}

/// A column of a batch by name: projection keeps the file's order, not ours.
fn column<'a>(
    source: &TableSource<'_>,
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a ArrayRef, TableError> {
    batch
        .column_by_name(name)
        .ok_or_else(|| unreadable(source, format!("column \"{name}\" is not in every part")))
}

fn append_labels(
    source: &TableSource<'_>,
    batch: &RecordBatch,
    field: &Field,
    labels: &mut Labels,
) -> Result<(), TableError> {
    let array = column(source, batch, field.name())?;
    let wrong_type = || TableError::LabelType {
        file: source.path.into(),
        column: field.name().clone(),
        found: format!("of the type {}", field.data_type()),
    };
    let usable = match field.data_type() {
        DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => values.is_string() || values.is_numeric(),
        other => other.is_numeric(),
    };
    if !usable {
        return Err(wrong_type());
    }
    let texts = cast(array, &DataType::Utf8).map_err(|_| wrong_type())?;
    let texts = texts.as_string_opt::<i32>().ok_or_else(wrong_type)?;
    for text in texts {
        let found = match text.map(str::trim) {
            Some(text) if !text.is_empty() && !text.eq_ignore_ascii_case("nan") => {
                labels.push(text, 0)?;
                continue;
            }
            Some("") => "an empty text",
            Some(_) => "NaN",
            None => "null",
        };
        return Err(TableError::MissingValue {
            file: source.path.into(),
            place: Place::Row(labels.len() as u64),
            column: field.name().clone(),
            found: found.to_owned(),
        });
    }
    Ok(())
}

fn append_features(
    source: &TableSource<'_>,
    batch: &RecordBatch,
    names: &[String],
    x: &mut Vec<f32>,
) -> Result<(), TableError> {
    let (base, width) = (x.len(), names.len());
    let first_row = base / width.max(1);
    x.resize(base + batch.num_rows() * width, 0.0);
    let Some(part) = x.get_mut(base..) else { return Ok(()) };
    for (position, name) in names.iter().enumerate() {
        let array = column(source, batch, name)?;
        let reals = cast(array, &DataType::Float64).map_err(|error| unreadable(source, error))?;
        let reals = reals
            .as_primitive_opt::<Float64Type>()
            .ok_or_else(|| unreadable(source, format!("column \"{name}\" is not numeric")))?;
        // Strides through the row-major part: one cell a row.
        let cells = part.iter_mut().skip(position).step_by(width.max(1));
        for (row, (value, cell)) in reals.iter().zip(cells).enumerate() {
            let place = Place::Row((first_row + row) as u64);
            let at = || (source.path.to_owned(), name.clone());
            *cell = match value {
                Some(value) if value.is_nan() => {
                    let (file, column) = at();
                    return Err(TableError::MissingValue { file, place, column, found: "NaN".into() });
                }
                Some(value) => narrow(value).ok_or_else(|| {
                    let (file, column) = at();
                    TableError::NotANumber { file, place, column, found: value.to_string() }
                })?,
                None => {
                    let (file, column) = at();
                    let found = if array.is_null(row) { "null" } else { "a number too large to be read" };
                    return Err(TableError::MissingValue { file, place, column, found: found.into() });
                }
            };
        }
    }
    Ok(())
}
