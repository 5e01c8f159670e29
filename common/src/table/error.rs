//! What is wrong with a feature file, where, and how to mend it.

use std::fmt;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a text file, from 1; the header counts.
    Line(u64),
    /// A row of a table, from 0, as pandas and numpy count.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row} (from 0)"),
        }
    }
}

/// What a column is named for in the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `label`.
    Label,
    /// `drop`.
    Drop,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Label => "label",
            Self::Drop => "drop",
        })
    }
}

/// A feature file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The ending says nothing.
    #[error("{file}: the format is not known; allowed: .csv, .parquet or .npy, each also with .gz")]
    UnknownFormat {
        /// The file.
        file: String,
    },
    /// Not of the format its name says.
    #[error("{file}: cannot be read as {format}: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// The format.
        format: &'static str,
        /// What its reader said.
        reason: String,
    },
    /// Too many bytes.
    #[error(
        "{file}: has more than {limit} bytes (decompressed); write the features as 32-bit floats or fewer of them"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Too many cells.
    #[error("{file}: has more than {limit} cells (rows × features)")]
    TooManyCells {
        /// The file.
        file: String,
        /// The limit.
        limit: u64,
    },
    /// A named column is not there.
    #[error("{file}: no column is named \"{name}\", which `{role}` asks for; the columns are {}{}{}", list(.columns), separator(.columns), mean(.nearest.as_deref()))]
    MissingColumn {
        /// The file.
        file: String,
        /// The field of the spec that names it.
        role: Role,
        /// The name.
        name: String,
        /// The columns there are.
        columns: Vec<String>,
        /// The one nearest to the name.
        nearest: Option<String>,
    },
    /// The spec names no label.
    #[error("{file}: `label` is missing: name the column that holds the class; the columns are {}", list(.columns))]
    LabelNotNamed {
        /// The file.
        file: String,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// The spec names no file of classes.
    #[error("{file}: `labels` is missing: name the .npy file that holds the class of each row")]
    LabelsNotNamed {
        /// The file.
        file: String,
    },
    /// The label is dropped.
    #[error("{file}: column \"{column}\" is both `label` and in `drop`")]
    DropsLabel {
        /// The file.
        file: String,
        /// The column.
        column: String,
    },
    /// Two columns of one name.
    #[error("{file}: the header has the column \"{column}\" twice; rename one of them")]
    DuplicateColumn {
        /// The file.
        file: String,
        /// The name.
        column: String,
    },
    /// Row numbers among the features.
    #[error(
        "{file}: column {position} is named \"{column}\", as pandas names row numbers, which are no feature; \
         write the file with index=False, or leave it out with `drop: [\"{column}\"]`"
    )]
    IndexColumn {
        /// The file.
        file: String,
        /// Its name.
        column: String,
        /// Its position, from 1.
        position: usize,
    },
    /// Nothing to train on.
    #[error("{file}: has no feature column beside the label and the dropped ones")]
    NoFeatures {
        /// The file.
        file: String,
    },
    /// Nothing to train with.
    #[error("{file}: has no rows")]
    NoRows {
        /// The file.
        file: String,
    },
    /// A row with more or fewer cells than the header.
    #[error("{file}, {place}: found {found} cells, expected {expected} as in the header")]
    Ragged {
        /// The file.
        file: String,
        /// Where.
        place: Place,
        /// Cells of the row.
        found: usize,
        /// Cells of the header.
        expected: usize,
    },
    /// A cell that holds no value.
    #[error(
        "{file}, {place}, column \"{column}\": found {found}, a missing value; \
         fill it in, or leave out the row, or the column with `drop: [\"{column}\"]`"
    )]
    MissingValue {
        /// The file.
        file: String,
        /// Where.
        place: Place,
        /// The column.
        column: String,
        /// What the cell holds.
        found: String,
    },
    /// A feature that is no number.
    #[error(
        "{file}, {place}, column \"{column}\": found {found}, expected a finite number; \
         correct it, or leave the column out with `drop: [\"{column}\"]`"
    )]
    NotANumber {
        /// The file.
        file: String,
        /// Where.
        place: Place,
        /// The column.
        column: String,
        /// What the cell holds.
        found: String,
    },
    /// A column whose type cannot be a feature.
    #[error(
        "{file}: column \"{column}\" is {found}, expected numbers or booleans; \
         encode it as numbers, or leave it out with `drop: [\"{column}\"]`"
    )]
    ColumnType {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// A label that cannot be a class.
    #[error("{file}: the label column \"{column}\" is {found}, expected whole numbers, booleans or text")]
    LabelType {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// An array of a shape or type that is of no use.
    #[error("{file}: found an array of {found}, expected {expected}")]
    Array {
        /// The file.
        file: String,
        /// Its type or shape.
        found: String,
        /// What is expected.
        expected: &'static str,
    },
    /// As many labels as rows are needed.
    #[error("{labels_file}: has {labels} labels, but {file} has {rows} rows")]
    LabelCount {
        /// The file of features.
        file: String,
        /// Its rows.
        rows: u64,
        /// The file of labels.
        labels_file: String,
        /// Its length.
        labels: u64,
    },
    /// One class only.
    #[error("{file}: every row has the class \"{class}\" in {column}; at least two classes are needed")]
    OneClass {
        /// The file.
        file: String,
        /// Where the label stands.
        column: String,
        /// The class.
        class: String,
    },
    /// A class that cannot be both trained on and tested.
    #[error(
        "{file}, {place}: the class \"{class}\" in {column} has only this row ({small} of {classes} classes have one); \
         at least two are needed to train on one and test on another. Leave such rows out, or join classes"
    )]
    LoneClass {
        /// The file.
        file: String,
        /// Where its row is.
        place: Place,
        /// Where the label stands.
        column: String,
        /// The class.
        class: String,
        /// Classes with one row.
        small: usize,
        /// Classes.
        classes: usize,
    },
    /// More classes than a label has.
    #[error("{file}: {column} has more than {limit} distinct values; is it the class?")]
    TooManyClasses {
        /// The file.
        file: String,
        /// Where the label stands.
        column: String,
        /// The limit.
        limit: usize,
    },
}

/// Shows at most this many names: an error is to be read.
const SHOWN: usize = 30;

pub(crate) fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("\"{}\"", clip(name))).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn separator(columns: &[String]) -> String {
    let [only] = columns else { return String::new() };
    match [';', '\t', '|'].into_iter().find(|separator| only.contains(*separator)) {
        Some(found) => format!("; it seems that {found:?} separates the cells, where a comma should"),
        None => String::new(),
    }
}

fn mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("\n  did you mean `{name}`?"))
}

/// A piece of a text from outside, short enough for an error.
pub(crate) fn clip(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A cell from outside as errors show it.
pub(super) fn quoted(text: &str) -> String {
    if text.is_empty() { "an empty cell".to_owned() } else { format!("\"{}\"", clip(text)) }
}
