//! Tab-separated files: GLUE's, and the columns of one's own.
//!
//! No cell is quoted: quote characters are text, as in GLUE's files, many of whose cells begin with one.

use super::rows::{Fault, Gathered, class, lines};
use super::{Example, Segment, Task, TextError};

/// Columns of CoLA's files, which have no header.
const COLA: [&str; 4] = ["source", "label", "mark", "sentence"];

pub(super) fn read(
    task: Task,
    path: &str,
    bytes: &[u8],
    skip_malformed: bool,
) -> Result<(Vec<Example>, u32), TextError> {
    let (first, second, label) = columns(task);
    let mut lines = lines(bytes);
    let header: Vec<&str> = match task {
        Task::Cola => COLA.to_vec(),
        _ => match lines.next() {
            Some((place, header)) => cells(header.map_err(|fault| unreadable(path, place, fault))?),
            None => return Err(TextError::NoRows { path: path.to_owned(), skipped: 0 }),
        },
    };
    let columns = Columns::find(path, &header, first, second, label)?;
    let mut gathered = Gathered::new(path, skip_malformed, task.labels());
    for (place, line) in lines {
        let row = line.and_then(|line| {
            let (segment, label) = columns.take(&cells(line))?;
            Ok([Example::of(segment, class(label, task.labels())?)])
        });
        gathered.add(place, row)?;
    }
    gathered.finish()
}

/// Names of the columns of the first text, the second text and the label. The order of texts is Hugging
/// Face's.
fn columns(task: Task) -> (&'static str, Option<&'static str>, &'static str) {
    match task {
        Task::Mrpc => ("#1 String", Some("#2 String"), "Quality"),
        Task::Qqp => ("question1", Some("question2"), "is_duplicate"),
        Task::Mnli | Task::MnliMismatched => ("sentence1", Some("sentence2"), "gold_label"),
        Task::Qnli => ("question", Some("sentence"), "label"),
        Task::Rte | Task::Wnli => ("sentence1", Some("sentence2"), "label"),
        // Others are JSON, which `read_task` reads elsewhere.
        _ => ("sentence", None, "label"),
    }
}

/// The cells of a line.
pub(super) fn cells(line: &str) -> Vec<&str> {
    line.split('\t').collect()
}

/// A header that cannot be read is no row that could be passed over.
pub(super) fn unreadable(path: &str, place: crate::table::Place, fault: Fault) -> TextError {
    let (found, expected) = match fault {
        Fault::Malformed { found, expected } => (found, expected),
        Fault::Label(label) => (label, "a header".to_owned()),
    };
    TextError::Row { path: path.to_owned(), place, found, expected }
}

/// Where the texts and the label of a row stand.
pub(super) struct Columns {
    first: usize,
    second: Option<usize>,
    label: usize,
    count: usize,
}

impl Columns {
    /// Finds columns by their names in the header.
    pub fn find(
        path: &str,
        header: &[&str],
        first: &str,
        second: Option<&str>,
        label: &str,
    ) -> Result<Self, TextError> {
        let position = |name: &str| {
            let mut of_name = (0..).zip(header).filter(|(_, column)| column.trim() == name.trim());
            match (of_name.next(), of_name.next()) {
                (Some((position, _)), None) => Ok(position),
                (Some(_), Some(_)) => {
                    Err(TextError::DuplicateColumn { path: path.to_owned(), column: name.to_owned() })
                }
                (None, _) => Err(TextError::MissingColumn {
                    path: path.to_owned(),
                    column: name.to_owned(),
                    columns: header.iter().map(|column| (*column).to_owned()).collect(),
                }),
            }
        };
        Ok(Self {
            first: position(first)?,
            second: second.map(position).transpose()?,
            label: position(label)?,
            count: header.len(),
        })
    }

    /// The texts and the label of a row.
    pub fn take<'c>(&self, cells: &[&'c str]) -> Result<(Segment, &'c str), Fault> {
        if cells.len() != self.count {
            return Err(wrong_count(cells.len(), self.count));
        }
        let cell = |position: usize| {
            cells.get(position).copied().ok_or_else(|| wrong_count(cells.len(), self.count))
        };
        let second = self.second.map(cell).transpose()?;
        let segment = Segment { first: cell(self.first)?.to_owned(), second: second.map(str::to_owned) };
        Ok((segment, cell(self.label)?))
    }
}

fn wrong_count(found: usize, expected: usize) -> Fault {
    let s = if found == 1 { "" } else { "s" };
    Fault::new(format!("{found} column{s}"), format!("{expected} columns"))
}
