//! Outcomes as Arrow columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, ListBuilder, PrimitiveBuilder,
    RecordBatch, StringArray, StringDictionaryBuilder, UInt32Array, UInt64Array,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
    UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;

use super::batch::read_stream;
use super::outcome::{
    CurvePoint, ExecutionRecord, Features, Measures, Status, TestOutputs, TrialOutcome, TrialRecord,
};

/// Columns of [`Measures`], with how to read and write each: one list for schema, encoder and decoder.
type Real = (&'static str, fn(&Measures) -> Option<f64>, fn(&mut Measures) -> &mut Option<f64>);

macro_rules! reals {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), (|m| m.$name) as fn(&Measures) -> Option<f64>, (|m| &mut m.$name) as fn(&mut Measures) -> &mut Option<f64>)),*]
    };
}

pub(crate) const REALS: &[Real] = reals![
    score,
    accuracy,
    train_accuracy,
    majority,
    train_loss,
    eval_loss,
    margin,
    trained_margin,
    weight_distance,
    weight_norm,
    direction_residual,
    loo_mean,
    loo_max,
    loo_se,
    loo_raw_mean,
    loo_raw_max,
    loo_flip_rate,
    loo_loss_change,
];

/// Columns that came later: older records lack them.
pub(crate) const LATER_REALS: &[Real] = reals![
    validation_score,
    surt_distance,
    class_distance,
    dual_max,
    feature_norm,
    lipschitz,
    smoothness,
    curvature,
    least_curvature,
];

type Small = (&'static str, fn(&Measures) -> Option<u32>, fn(&mut Measures) -> &mut Option<u32>);

macro_rules! smalls {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), (|m| m.$name) as fn(&Measures) -> Option<u32>, (|m| &mut m.$name) as fn(&mut Measures) -> &mut Option<u32>)),*]
    };
}

/// Whole numbers that came later.
pub(crate) const LATER_SMALLS: &[Small] = smalls![trained_steps, truncated, skipped_rows, support_vectors];

pub(super) type CurveColumn = (&'static str, fn(&CurvePoint) -> f64, fn(&mut CurvePoint) -> &mut f64);

macro_rules! curve_columns {
    ($($column:literal => $name:ident),* $(,)?) => {
        &[$(($column, (|p| p.$name) as fn(&CurvePoint) -> f64, (|p| &mut p.$name) as fn(&mut CurvePoint) -> &mut f64)),*]
    };
}

pub(super) const CURVE: &[CurveColumn] = curve_columns![
    "curve_train_loss" => train_loss, "curve_eval_loss" => eval_loss, "curve_score" => score,
    "curve_loo_mean" => loo_mean, "curve_direction_residual" => direction_residual,
];

/// A batch that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not Arrow.
    #[error("not a readable Arrow stream: {0}")]
    Arrow(#[from] ArrowError),
    /// Columns differ.
    #[error("column `{0}` is missing or of another type")]
    Column(&'static str),
    /// A status that does not exist.
    #[error("row {row} has the unknown status \"{found}\"")]
    Status {
        /// Row in the batch.
        row: usize,
        /// What it says.
        found: String,
    },
    /// A value that must be there is null.
    #[error("row {row} has no `{column}`")]
    Null {
        /// Row in the batch.
        row: usize,
        /// The column.
        column: &'static str,
    },
}

/// The columns of records, on the wire and in segments.
#[must_use]
pub fn schema() -> SchemaRef {
    let list = |name: &str, of: DataType| {
        Field::new(name, DataType::List(Arc::new(Field::new("item", of, true))), true)
    };
    let word = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("trial_index", DataType::UInt64, false),
        Field::new("status", word(), false),
        Field::new("error", DataType::Utf8, true),
    ];
    fields.extend(REALS.iter().map(|(name, ..)| Field::new(*name, DataType::Float64, true)));
    fields.push(Field::new("loo_count", DataType::UInt32, true));
    fields.push(list("curve_step", DataType::UInt32));
    fields.extend(CURVE.iter().map(|(name, ..)| list(name, DataType::Float64)));
    fields.push(list("predictions", DataType::UInt32));
    fields.extend([
        Field::new("attempt", DataType::UInt32, false),
        Field::new("worker", word(), false),
        Field::new("device", word(), false),
        Field::new("started_ms", DataType::Int64, false),
        Field::new("duration_s", DataType::Float64, false),
    ]);
    fields.extend(LATER_REALS.iter().map(|(name, ..)| Field::new(*name, DataType::Float64, true)));
    fields.extend(LATER_SMALLS.iter().map(|(name, ..)| Field::new(*name, DataType::UInt32, true)));
    fields.push(Field::new("distances", DataType::Utf8, true));
    fields.push(list("log_probabilities", DataType::Float32));
    fields.push(Field::new("feature_examples", DataType::UInt32, true));
    fields.push(list("feature_values", DataType::Float32));
    Arc::new(Schema::new(fields))
}

/// The name of a column of [`schema`] as errors hold it.
pub(super) fn static_name(name: &str) -> &'static str {
    let reals = REALS.iter().map(|(name, ..)| *name);
    let curve = CURVE.iter().map(|(name, ..)| *name);
    let later = LATER_REALS.iter().map(|(name, ..)| *name).chain(LATER_SMALLS.iter().map(|(name, ..)| *name));
    let others = [
        "trial_index",
        "status",
        "error",
        "loo_count",
        "curve_step",
        "predictions",
        "attempt",
        "worker",
        "device",
        "started_ms",
        "duration_s",
        "distances",
        "log_probabilities",
        "feature_examples",
        "feature_values",
    ];
    reals.chain(curve).chain(later).chain(others).find(|known| *known == name).unwrap_or("(unknown)")
}

/// Turns records into a batch of [`schema`].
///
/// # Errors
/// When Arrow refuses the columns, which would be a mistake in this module.
pub fn encode(records: &[TrialRecord]) -> Result<RecordBatch, ArrowError> {
    let outcomes = || records.iter().map(|record| &record.outcome);
    let executions = || records.iter().map(|record| &record.execution);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(outcomes().map(|o| o.trial_index).collect::<UInt64Array>()),
        words(outcomes().map(|o| o.status.name())),
        Arc::new(outcomes().map(|o| o.error.as_deref()).collect::<StringArray>()),
    ];
    for (_, get, _) in REALS {
        columns.push(Arc::new(outcomes().map(|o| get(&o.measures)).collect::<Float64Array>()));
    }
    columns.push(Arc::new(outcomes().map(|o| o.measures.loo_count).collect::<UInt32Array>()));
    columns.push(lists::<UInt32Type, _>(
        outcomes().map(|o| some_if_any(&o.curve).map(|c| c.iter().map(|p| p.step))),
    ));
    for (_, get, _) in CURVE {
        columns.push(lists::<Float64Type, _>(
            outcomes().map(|o| some_if_any(&o.curve).map(|c| c.iter().map(get))),
        ));
    }
    let outputs = || outcomes().map(|o| &o.outputs);
    columns.push(lists::<UInt32Type, _>(outputs().map(|o| o.classes.as_ref().map(|c| c.iter().copied()))));
    columns.push(Arc::new(executions().map(|e| Some(e.attempt)).collect::<UInt32Array>()));
    columns.push(words(executions().map(|e| e.worker.as_str())));
    columns.push(words(executions().map(|e| e.device.as_str())));
    columns.push(Arc::new(executions().map(|e| Some(e.started_ms)).collect::<Int64Array>()));
    columns.push(Arc::new(executions().map(|e| Some(e.duration_s)).collect::<Float64Array>()));
    for (_, get, _) in LATER_REALS {
        columns.push(Arc::new(outcomes().map(|o| get(&o.measures)).collect::<Float64Array>()));
    }
    for (_, get, _) in LATER_SMALLS {
        columns.push(Arc::new(outcomes().map(|o| get(&o.measures)).collect::<UInt32Array>()));
    }
    columns.push(Arc::new(outcomes().map(|o| o.distances.as_deref()).collect::<StringArray>()));
    columns.push(lists::<Float32Type, _>(
        outputs().map(|o| o.log_probabilities.as_ref().map(|p| p.iter().copied())),
    ));
    let features = || outputs().map(|o| o.features.as_ref());
    columns.push(Arc::new(features().map(|f| f.map(|f| f.examples)).collect::<UInt32Array>()));
    columns.push(lists::<Float32Type, _>(features().map(|f| f.map(|f| f.values.iter().copied()))));
    RecordBatch::try_new(schema(), columns)
}

fn some_if_any(curve: &[CurvePoint]) -> Option<&[CurvePoint]> {
    (!curve.is_empty()).then_some(curve)
}

fn words<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for value in values {
        builder.append_value(value);
    }
    Arc::new(builder.finish())
}

fn lists<P: ArrowPrimitiveType, I: Iterator<Item = P::Native>>(
    rows: impl Iterator<Item = Option<I>>,
) -> ArrayRef {
    let mut builder = ListBuilder::new(PrimitiveBuilder::<P>::new());
    for row in rows {
        match row {
            Some(values) => {
                builder.values().extend(values.map(Some));
                builder.append(true);
            }
            None => builder.append(false),
        }
    }
    Arc::new(builder.finish())
}

/// Turns a batch back into records; columns are found by name, so that more may be added.
///
/// # Errors
/// When a column is missing or of another type, or a value that must be there is not.
pub fn decode(batch: &RecordBatch) -> Result<Vec<TrialRecord>, DecodeError> {
    let index = primitive::<UInt64Type>(batch, "trial_index")?;
    let status = text(batch, "status")?;
    let error = text(batch, "error")?;
    let reals: Vec<_> =
        REALS.iter().map(|(name, ..)| primitive::<Float64Type>(batch, name)).collect::<Result<_, _>>()?;
    let loo_count = primitive::<UInt32Type>(batch, "loo_count")?;
    let steps = Lists::<UInt32Type>::new(batch, "curve_step")?;
    let curves: Vec<Lists<'_, Float64Type>> =
        CURVE.iter().map(|(name, ..)| Lists::new(batch, name)).collect::<Result<_, _>>()?;
    let predictions = Lists::<UInt32Type>::new(batch, "predictions")?;
    let attempt = primitive::<UInt32Type>(batch, "attempt")?;
    let worker = text(batch, "worker")?;
    let device = text(batch, "device")?;
    let started = primitive::<Int64Type>(batch, "started_ms")?;
    let duration = primitive::<Float64Type>(batch, "duration_s")?;
    let later_reals: Vec<_> = LATER_REALS
        .iter()
        .map(|(name, ..)| later(batch, name, primitive::<Float64Type>))
        .collect::<Result<_, _>>()?;
    let later_smalls: Vec<_> = LATER_SMALLS
        .iter()
        .map(|(name, ..)| later(batch, name, primitive::<UInt32Type>))
        .collect::<Result<_, _>>()?;
    let distances = later(batch, "distances", text)?;
    let probabilities = later(batch, "log_probabilities", Lists::<Float32Type>::new)?;
    let feature_examples = later(batch, "feature_examples", primitive::<UInt32Type>)?;
    let feature_values = later(batch, "feature_values", Lists::<Float32Type>::new)?;

    let mut records = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let missing = |column| DecodeError::Null { row, column };
        let status_name = at_text(&status, row).ok_or_else(|| missing("status"))?;
        let mut measures = Measures { loo_count: at(loo_count, row), ..Measures::default() };
        for ((_, _, slot), column) in REALS.iter().zip(&reals) {
            *slot(&mut measures) = at(column, row);
        }
        for ((_, _, slot), column) in LATER_REALS.iter().zip(&later_reals) {
            *slot(&mut measures) = column.and_then(|column| at(column, row));
        }
        for ((_, _, slot), column) in LATER_SMALLS.iter().zip(&later_smalls) {
            *slot(&mut measures) = column.and_then(|column| at(column, row));
        }
        let mut curve: Vec<CurvePoint> = steps
            .get(row)?
            .unwrap_or_default()
            .iter()
            .map(|step| CurvePoint { step: *step, ..CurvePoint::default() })
            .collect();
        for ((name, _, slot), column) in CURVE.iter().zip(&curves) {
            let column = column.get(row)?.unwrap_or_default();
            if column.len() != curve.len() {
                return Err(DecodeError::Column(name));
            }
            for (point, value) in curve.iter_mut().zip(column) {
                *slot(point) = *value;
            }
        }
        let floats = |column: &Option<Lists<'_, Float32Type>>| match column {
            Some(column) => Ok(column.get(row)?.map(<[f32]>::to_vec)),
            None => Ok::<_, DecodeError>(None),
        };
        let examples = feature_examples.and_then(|column| at(column, row));
        let features = examples.zip(floats(&feature_values)?);
        records.push(TrialRecord {
            outcome: TrialOutcome {
                trial_index: at(index, row).ok_or_else(|| missing("trial_index"))?,
                status: Status::from_name(status_name)
                    .ok_or_else(|| DecodeError::Status { row, found: status_name.to_owned() })?,
                error: at_text(&error, row).map(str::to_owned),
                measures,
                distances: distances.as_ref().and_then(|column| at_text(column, row)).map(str::to_owned),
                curve,
                outputs: TestOutputs {
                    classes: predictions.get(row)?.map(<[u32]>::to_vec),
                    log_probabilities: floats(&probabilities)?,
                    features: features.map(|(examples, values)| Features { examples, values }),
                },
            },
            execution: ExecutionRecord {
                attempt: at(attempt, row).ok_or_else(|| missing("attempt"))?,
                worker: at_text(&worker, row).unwrap_or_default().to_owned(),
                device: at_text(&device, row).unwrap_or_default().to_owned(),
                started_ms: at(started, row).ok_or_else(|| missing("started_ms"))?,
                duration_s: at(duration, row).ok_or_else(|| missing("duration_s"))?,
            },
        });
    }
    Ok(records)
}

pub(super) fn primitive<'a, P: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &'static str,
) -> Result<&'a arrow::array::PrimitiveArray<P>, DecodeError> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_primitive_opt::<P>())
        .ok_or(DecodeError::Column(name))
}

/// A column that older records lack.
fn later<'a, T>(
    batch: &'a RecordBatch,
    name: &'static str,
    read: impl Fn(&'a RecordBatch, &'static str) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    batch.column_by_name(name).map(|_| read(batch, name)).transpose()
}

fn text(batch: &RecordBatch, name: &'static str) -> Result<StringArray, DecodeError> {
    let column = batch.column_by_name(name).ok_or(DecodeError::Column(name))?;
    if let Some(dictionary) = column.as_dictionary_opt::<Int32Type>() {
        let words = dictionary.downcast_dict::<StringArray>().ok_or(DecodeError::Column(name))?;
        return Ok(words.into_iter().collect());
    }
    column.as_string_opt::<i32>().cloned().ok_or(DecodeError::Column(name))
}

pub(super) fn list<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a ListArray, DecodeError> {
    batch.column_by_name(name).and_then(|column| column.as_list_opt::<i32>()).ok_or(DecodeError::Column(name))
}

fn at<P: ArrowPrimitiveType>(column: &arrow::array::PrimitiveArray<P>, row: usize) -> Option<P::Native> {
    column.is_valid(row).then(|| column.value(row))
}

fn at_text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// A column of lists, as slices.
struct Lists<'a, P: ArrowPrimitiveType> {
    column: &'a ListArray,
    items: &'a [P::Native],
    name: &'static str,
}

impl<'a, P: ArrowPrimitiveType> Lists<'a, P> {
    fn new(batch: &'a RecordBatch, name: &'static str) -> Result<Self, DecodeError> {
        let column = list(batch, name)?;
        let items = column.values().as_primitive_opt::<P>().ok_or(DecodeError::Column(name))?.values();
        Ok(Self { column, items, name })
    }

    /// The list of a row; none where it is null.
    fn get(&self, row: usize) -> Result<Option<&'a [P::Native]>, DecodeError> {
        if !self.column.is_valid(row) {
            return Ok(None);
        }
        let end = |at: usize| self.column.value_offsets().get(at).and_then(|end| usize::try_from(*end).ok());
        let range = end(row).zip(end(row + 1)).and_then(|(from, to)| self.items.get(from..to));
        range.map(Some).ok_or(DecodeError::Column(self.name))
    }
}

/// Writes a batch as an Arrow IPC stream.
///
/// # Errors
/// When Arrow cannot write it.
pub fn to_ipc(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema())?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Reads records from an Arrow IPC stream.
///
/// # Errors
/// When it is not one, or not of [`schema`].
pub fn from_ipc(bytes: &[u8]) -> Result<Vec<TrialRecord>, DecodeError> {
    let mut records = Vec::new();
    for batch in read_stream(bytes)? {
        records.extend(decode(&batch)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64) -> TrialRecord {
        TrialRecord {
            outcome: TrialOutcome {
                trial_index: index,
                status: if index.is_multiple_of(2) { Status::Completed } else { Status::Failed },
                error: (!index.is_multiple_of(2)).then(|| "no such file".to_owned()),
                distances: (index == 3).then(|| r#"{"head":{"moved":0.5}}"#.to_owned()),
                measures: Measures {
                    validation_score: (index == 2).then_some(0.75),
                    truncated: (index == 1).then_some(4),
                    score: Some(0.5),
                    loo_count: (index > 2).then_some(20),
                    loo_mean: None,
                    ..Measures::default()
                },
                curve: (0..index as u32)
                    .map(|step| CurvePoint { step, train_loss: 0.25, ..Default::default() })
                    .collect(),
                outputs: TestOutputs {
                    classes: (index == 1).then(|| vec![0, 1, 1]),
                    log_probabilities: (index == 2).then(|| vec![-0.5, f32::NEG_INFINITY]),
                    features: (index == 4)
                        .then(|| Features { examples: 2, values: vec![0.5, -1.0, 2.0, 0.0] }),
                },
            },
            execution: ExecutionRecord {
                attempt: 2,
                worker: "w".into(),
                device: "cpu".into(),
                started_ms: 5,
                duration_s: 0.125,
            },
        }
    }

    #[test]
    fn records_survive_the_wire_unchanged() {
        let records: Vec<TrialRecord> = (0..5).map(record).collect();
        let bytes = to_ipc(&encode(&records).expect("encode")).expect("ipc");
        assert_eq!(from_ipc(&bytes).expect("decode"), records);
    }

    #[test]
    fn bytes_from_outside_that_are_no_records_are_refused_without_a_panic() {
        let bytes = to_ipc(&encode(&[record(4)]).expect("encode")).expect("ipc");
        for length in (0..bytes.len()).step_by(97) {
            let _ = from_ipc(&bytes[..length]);
        }
        let batch = encode(&[record(4)]).expect("encode");
        let fewer = batch.project(&[0, 1]).expect("project");
        assert!(matches!(decode(&fewer), Err(DecodeError::Column("error"))));
    }
}
