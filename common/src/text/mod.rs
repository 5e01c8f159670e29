//! Texts with classes: the official files of GLUE and SuperGLUE, files of one's own, and the official scores.
//!
//! Everything here is pure: bytes in, rows out. What stands in a file comes from outside, so a row that
//! cannot be read is refused with its place, what was found and how to mend it, or passed over and counted
//! where that was asked for. A label that is none of the classes is always refused: passing over it would
//! hide that the file is another task's.

mod dataset;
mod error;
mod json;
mod metric;
mod own;
mod parquet;
mod rows;
mod spans;
mod task;
#[cfg(test)]
mod tests;
mod tsv;

pub use dataset::{Form, Source, TextData, read};
pub use error::TextError;
pub use metric::{Metric, accuracy, exact_match, f1, macro_f1, matthews};
pub use own::{OwnColumns, OwnFormat, OwnRow, OwnRows, index_own, own_from_columns, own_labels, read_own};
pub use task::Task;

/// A row: what an encoder reads, and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// One input of the encoder; for COPA two, one for each choice, of which `label` is the right one.
    pub segments: Vec<Segment>,
    /// The class, an index into the task's labels.
    pub label: u32,
    /// Number of the question, for `MultiRC`, whose rows are answers; from 0 in the order of the file.
    pub group: Option<u32>,
}

impl Example {
    fn of(segment: Segment, label: u32) -> Self {
        Self { segments: vec![segment], label, group: None }
    }
}

/// A text or a pair of texts that an encoder reads at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The text, as the file has it.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
}

/// The rows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examples {
    /// In the order of the file; at least one, at most `u32::MAX`.
    pub rows: Vec<Example>,
    /// Malformed rows that were passed over (for `MultiRC`, lines: each holds a paragraph with all its
    /// questions).
    pub skipped: u32,
}

/// Reads a file of a task in the layout of its official release.
///
/// `path` is what errors call the file, `bytes` its content (decompressed). GLUE's files are tab-separated
/// without quoting and have a header (CoLA's have none), in which columns are found by their names;
/// SuperGLUE's are JSON lines. The first text is the one that comes first in Hugging Face's `glue`, and for
/// BoolQ the passage, as in jiant. What the texts of the other tasks of SuperGLUE are made of:
///
/// - COPA: the premise with "What was the cause of this?" or "What happened as a result?", and one choice.
/// - WiC: both sentences with the word in question as `*word*`.
/// - WSC: the text with the noun phrase as `*phrase*` and the pronoun as `#pronoun#`.
/// - `MultiRC`: the paragraph, and the question with one answer.
///
/// # Errors
/// The first row that is malformed (unless `skip_malformed`) or has an unknown label, a column that is
/// missing, or a file without rows.
pub fn read_task(task: Task, path: &str, bytes: &[u8], skip_malformed: bool) -> Result<Examples, TextError> {
    let read = if task.is_json() { json::read } else { tsv::read };
    let (rows, skipped) = read(task, path, bytes, skip_malformed)?;
    Ok(Examples { rows, skipped })
}
