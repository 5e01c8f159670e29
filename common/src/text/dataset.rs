//! The files of a dataset of texts, read together.

use super::own::{OwnFormat, OwnRows, index_own, own_labels, read_own};
use super::{Examples, Task, TextError, parquet, read_task};
use crate::id::ContentHash;
use crate::inputs::TextInfo;
use crate::spec::TextSpec;
use crate::trial::TextConfig;

/// What form the files have.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Those of an official task.
    Task(Task),
    /// Columns of a file of one's own.
    Own(OwnFormat<'a>),
}

impl<'a> Form<'a> {
    /// As a spec says.
    #[must_use]
    pub fn of(spec: &'a TextSpec) -> Self {
        let own = OwnFormat {
            text: spec.text.as_deref().unwrap_or_default(),
            text_pair: spec.text_pair.as_deref(),
            label: spec.label.as_deref().unwrap_or_default(),
        };
        spec.task.as_deref().and_then(Task::from_name).map_or(Self::Own(own), Self::Task)
    }

    /// As a trial's configuration says.
    #[must_use]
    pub fn of_config(config: &'a TextConfig) -> Self {
        match (config.task.as_deref().and_then(Task::from_name), &config.columns) {
            (Some(task), _) => Self::Task(task),
            (None, Some((text, pair, label))) => {
                Self::Own(OwnFormat { text, text_pair: pair.as_deref(), label })
            }
            (None, None) => Self::Own(OwnFormat { text: "", text_pair: None, label: "" }),
        }
    }
}

/// The files of a dataset.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Their form.
    pub form: Form<'a>,
    /// What errors call the training file, or its folder; an own file's ending tells its format.
    pub path: &'a str,
    /// What errors call the test file; as `path` if none.
    pub test_path: Option<&'a str>,
    /// The training file.
    pub train: &'a [u8],
    /// The test file, if there is one.
    pub test: Option<&'a [u8]>,
    /// Whether malformed rows are passed over.
    pub skip_malformed: bool,
}

/// A dataset of texts, not split yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextData {
    /// What the classes are called, in class order.
    pub labels: Vec<String>,
    /// Rows of the training file.
    pub train: Examples,
    /// Rows of the test file, if there is one.
    pub test: Option<Examples>,
}

impl TextData {
    /// What the grid needs to know of it.
    #[must_use]
    pub fn info(&self, content: &ContentHash) -> TextInfo {
        let mut class_counts = vec![0u32; self.labels.len()];
        for example in &self.train.rows {
            if let Some(count) = class_counts.get_mut(example.label as usize) {
                *count += 1;
            }
        }
        let all = || self.train.rows.iter().chain(self.test.iter().flat_map(|test| &test.rows));
        let segments = || all().flat_map(|example| &example.segments);
        let characters: usize = segments()
            .map(|s| s.first.chars().count() + s.second.as_ref().map_or(0, |t| t.chars().count()))
            .sum();
        TextInfo {
            content: content.to_hex(),
            labels: self.labels.clone(),
            class_counts,
            test_rows: self.test.as_ref().map(|test| test.rows.len() as u32),
            mean_characters: (characters / segments().count().max(1)) as u32,
            skipped: self.train.skipped + self.test.as_ref().map_or(0, |test| test.skipped),
        }
    }
}

/// Reads a dataset of texts.
///
/// # Errors
/// As [`read_task`] and [`read_own`]; every class of a task must have a row to train on.
pub fn read(source: &Source<'_>) -> Result<TextData, TextError> {
    let test_path = source.test_path.unwrap_or(source.path);
    match source.form {
        Form::Task(task) => {
            let name = |file: &str| format!("{}/{file}", source.path.trim_end_matches('/'));
            let train = read_task(task, &name(task.train_file()), source.train, source.skip_malformed)?;
            let test = source
                .test
                .map(|bytes| read_task(task, &name(task.test_file()), bytes, source.skip_malformed))
                .transpose()?;
            let labels: Vec<String> = task.labels().iter().map(|label| (*label).to_owned()).collect();
            for (class, label) in (0..).zip(&labels) {
                if train.rows.iter().all(|example| example.label != class) {
                    let (path, label) = (name(task.train_file()), label.clone());
                    return Err(TextError::EmptyClass { path, label });
                }
            }
            Ok(TextData { labels, train, test })
        }
        Form::Own(format) => {
            let rows = |path: &str, bytes: &[u8]| -> Result<OwnRows, TextError> {
                if path.to_ascii_lowercase().ends_with(".parquet") {
                    return parquet::read(path, bytes, &format, source.skip_malformed);
                }
                read_own(path, bytes, &format, source.skip_malformed)
            };
            let train = rows(source.path, source.train)?;
            let labels = own_labels(source.path, &train)?;
            let test = match source.test {
                Some(bytes) => Some(index_own(test_path, rows(test_path, bytes)?, &labels)?),
                None => None,
            };
            Ok(TextData { train: index_own(source.path, train, &labels)?, labels, test })
        }
    }
}
