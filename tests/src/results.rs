//! Output directories, compared row by row.

use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A table: its column names and its rows as text. Numbers are written so that equal text means equal bits.
#[derive(Debug, PartialEq, Eq)]
pub struct Rows {
    /// Column names.
    pub columns: Vec<String>,
    /// One text a cell.
    pub rows: Vec<Vec<String>>,
}

impl Rows {
    /// Reads a Parquet file.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let columns = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut rows = Vec::new();
        for batch in builder.build()? {
            append(&mut rows, &batch?)?;
        }
        Ok(Self { columns, rows })
    }

    /// The cells of a column.
    ///
    /// # Panics
    /// When there is no such column.
    #[must_use]
    pub fn column(&self, name: &str) -> Vec<&str> {
        let position = self.columns.iter().position(|column| column == name).expect("column exists");
        self.rows.iter().map(|row| row[position].as_str()).collect()
    }
}

fn append(rows: &mut Vec<Vec<String>>, batch: &RecordBatch) -> anyhow::Result<()> {
    let options = FormatOptions::default().with_null("null");
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        rows.push(columns.iter().map(|column| column.value(row).to_string()).collect());
    }
    Ok(())
}

/// Asserts that two `results.parquet` hold the same rows with the same values.
///
/// # Panics
/// When they do not, naming the first difference.
pub fn assert_same_results(undisturbed: &Path, disturbed: &Path) {
    let [a, b] =
        [undisturbed, disturbed].map(|dir| Rows::read(&dir.join("results.parquet")).expect("results"));
    assert_eq!(a.columns, b.columns, "columns differ");
    assert_eq!(a.rows.len(), b.rows.len(), "number of rows differs");
    for (x, y) in a.rows.iter().zip(&b.rows) {
        for ((x, y), column) in x.iter().zip(y).zip(&a.columns) {
            assert_eq!(x, y, "column {column} differs in {x:?} against {y:?}");
        }
    }
}
