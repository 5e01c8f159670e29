//! The few columns that live figures are made of, without turning rows into records.

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int32Type, UInt64Type};

use super::batch::trials_of;
use super::columns::{DecodeError, LATER_REALS, LATER_SMALLS, REALS, primitive};
use super::outcome::{Measures, Status};

/// A row as live figures see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverviewRow {
    /// The trial.
    pub trial: u64,
    /// How it ended.
    pub status: Status,
    /// Its score.
    pub score: Option<f64>,
    /// Its mean leave-one-out distance.
    pub loo_mean: Option<f64>,
    /// Position of its worker in [`Overview::workers`].
    pub worker: usize,
}

/// The rows of a batch, in brief.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// The rows.
    pub rows: Vec<OverviewRow>,
    /// Names of their workers.
    pub workers: Vec<String>,
}

impl Overview {
    /// The columns it is made of.
    pub const COLUMNS: [&'static str; 5] = ["trial_index", "status", "score", "loo_mean", "worker"];
}

/// Appends a batch that has these columns at least.
///
/// # Errors
/// When a column is missing or of another type.
pub fn overview_of(batch: &RecordBatch, into: &mut Overview) -> Result<(), DecodeError> {
    let trials = trials_of(batch)?;
    let score = primitive::<Float64Type>(batch, "score")?;
    let loo = primitive::<Float64Type>(batch, "loo_mean")?;
    let column = batch.column_by_name("worker").ok_or(DecodeError::Column("worker"))?;
    let workers = column.as_dictionary_opt::<Int32Type>().ok_or(DecodeError::Column("worker"))?;
    let names = workers.values().as_string_opt::<i32>().ok_or(DecodeError::Column("worker"))?;
    // Batches have dictionaries of their own.
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let name = name.unwrap_or_default();
        let known = into.workers.iter().position(|known| known == name);
        places.push(known.unwrap_or_else(|| {
            into.workers.push(name.to_owned());
            into.workers.len() - 1
        }));
    }
    into.rows.reserve(trials.len());
    for (row, (trial, status)) in trials.into_iter().enumerate() {
        let worker = workers.key(row).and_then(|key| places.get(key)).copied();
        into.rows.push(OverviewRow {
            trial,
            status,
            score: score.is_valid(row).then(|| score.value(row)),
            loo_mean: loo.is_valid(row).then(|| loo.value(row)),
            worker: worker.ok_or(DecodeError::Null { row, column: "worker" })?,
        });
    }
    Ok(())
}

/// The errors of the rows that have one, with their trials.
///
/// # Errors
/// When a column is missing or of another type.
pub fn errors_of(batch: &RecordBatch) -> Result<Vec<(u64, String)>, DecodeError> {
    let index = primitive::<UInt64Type>(batch, "trial_index")?;
    let column = batch.column_by_name("error").ok_or(DecodeError::Column("error"))?;
    let errors: &StringArray = column.as_string_opt::<i32>().ok_or(DecodeError::Column("error"))?;
    let rows = (0..batch.num_rows()).filter(|row| errors.is_valid(*row));
    Ok(rows.map(|row| (index.value(row), errors.value(row).to_owned())).collect())
}

impl Measures {
    /// Those numbers that there are, by the names of their columns.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        let reals = REALS.iter().chain(LATER_REALS).map(|(name, get, _)| (*name, get(self)));
        let smalls = LATER_SMALLS.iter().map(|(name, get, _)| (*name, get(self).map(f64::from)));
        let count = [("loo_count", self.loo_count.map(f64::from))];
        reals.chain(count).chain(smalls).filter_map(|(name, value)| Some((name, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ExecutionRecord, TestOutputs, TrialOutcome, TrialRecord, encode};
    use super::*;

    #[test]
    fn batches_of_several_workers_are_summed_up_with_their_errors() {
        let record = |trial_index, worker: &str, error: Option<&str>| TrialRecord {
            outcome: TrialOutcome {
                trial_index,
                status: if error.is_some() { Status::Failed } else { Status::Completed },
                error: error.map(str::to_owned),
                measures: Measures { score: error.is_none().then_some(0.5), ..Measures::default() },
                distances: None,
                curve: Vec::new(),
                outputs: TestOutputs::default(),
            },
            execution: ExecutionRecord { worker: worker.into(), ..ExecutionRecord::default() },
        };
        let batches = [
            encode(&[record(3, "a", None), record(1, "b", Some("oh"))]).expect("encode"),
            encode(&[record(7, "b", None)]).expect("encode"),
        ];
        let mut overview = Overview::default();
        batches.iter().for_each(|batch| overview_of(batch, &mut overview).expect("overview"));
        let rows: Vec<_> = overview.rows.iter().map(|r| (r.trial, r.score, r.worker)).collect();
        assert_eq!(rows, [(3, Some(0.5), 0), (1, None, 1), (7, Some(0.5), 1)]);
        assert_eq!(errors_of(&batches[0]).expect("errors"), [(1, "oh".to_owned())]);
        let measures = Measures { score: Some(0.25), loo_count: Some(4), ..Measures::default() };
        assert_eq!(measures.named().collect::<Vec<_>>(), [("score", 0.25), ("loo_count", 4.0)]);
    }
}
