//! What is wrong with a file of texts, where, and how to mend it.

use crate::table::Place;
use crate::table::error::{clip, list};

/// A file of texts that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The ending says nothing.
    #[error("{path}: the format is not known; allowed: .csv, .tsv, .jsonl or .parquet")]
    UnknownFormat {
        /// The file.
        path: String,
    },
    /// A column that is asked for is not in the header.
    #[error(
        "{path}: no column is named \"{column}\"; the columns are {}{}",
        list(.columns), unlabelled(.column)
    )]
    MissingColumn {
        /// The file.
        path: String,
        /// The name.
        column: String,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// A column that is asked for is in the header twice.
    #[error("{path}: the header has the column \"{column}\" twice; rename one of them")]
    DuplicateColumn {
        /// The file.
        path: String,
        /// The name.
        column: String,
    },
    /// Columns of different lengths.
    #[error("{path}: column \"{column}\" has {found} rows, but the label's has {expected}")]
    ColumnLength {
        /// The file.
        path: String,
        /// The name.
        column: String,
        /// Its rows.
        found: usize,
        /// Rows of the column of labels.
        expected: usize,
    },
    /// Nothing to train with.
    #[error("{path}: has no rows{}", passed_over(*.skipped))]
    NoRows {
        /// The file.
        path: String,
        /// Rows that were passed over.
        skipped: u32,
    },
    /// More rows than can be numbered.
    #[error("{path}: has more than {} rows", u32::MAX)]
    TooManyRows {
        /// The file.
        path: String,
    },
    /// A row that cannot be read.
    #[error(
        "{path}, {place}: found {found}, expected {expected}; \
         fix the row, or set `skip_malformed: true` to pass over such rows"
    )]
    Row {
        /// The file.
        path: String,
        /// Where.
        place: Place,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A class that the task, or the training file, does not have.
    #[error(
        "{path}, {place}: found the label \"{}\", expected one of {}; \
         correct it (`skip_malformed` does not pass over labels that are not known)",
        clip(.found), list(.allowed)
    )]
    UnknownLabel {
        /// The file.
        path: String,
        /// Where.
        place: Place,
        /// The label.
        found: String,
        /// The classes.
        allowed: Vec<String>,
    },
    /// One class only.
    #[error("{path}: every row has the label \"{}\"; at least two classes are needed", clip(.label))]
    OneClass {
        /// The file.
        path: String,
        /// The class.
        label: String,
    },
    /// A class of a task that no row has: a head would never learn it.
    #[error("{path}: no row has the label \"{label}\"; is the file whole?")]
    EmptyClass {
        /// The file.
        path: String,
        /// The class.
        label: String,
    },
    /// Parquet that cannot be read.
    #[error("{path}: cannot be read as Parquet: {reason}")]
    Parquet {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// More classes than a label has.
    #[error("{path}: the labels have more than {limit} distinct values; is that column the class?")]
    TooManyClasses {
        /// The file.
        path: String,
        /// The limit.
        limit: usize,
    },
}

fn unlabelled(column: &str) -> &'static str {
    match column {
        "label" | "gold_label" | "is_duplicate" | "Quality" => {
            "\n  (an official test file has no labels; use the development file)"
        }
        _ => "",
    }
}

fn passed_over(skipped: u32) -> String {
    match skipped {
        0 => String::new(),
        1 => " (one malformed row was passed over)".to_owned(),
        _ => format!(" ({skipped} malformed rows were passed over; leave out `skip_malformed` to see why)"),
    }
}
