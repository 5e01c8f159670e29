//! CSV with a header.

use ::csv::{ByteRecord, ReaderBuilder, Trim};

use super::error::{Place, clip, quoted};
use super::{Columns, FeatureTable, Labels, MAX_CELLS, TableError, TableSource, narrow};

/// What stands for a value that is not there (the defaults of pandas that occur in practice).
const MISSING: [&str; 8] = ["", "na", "n/a", "nan", "null", "none", "?", "<na>"];

pub(super) fn read(source: &TableSource<'_>, bytes: &[u8]) -> Result<FeatureTable, TableError> {
    let file = source.path;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let unreadable = |reason: String| TableError::Unreadable { file: file.into(), format: "CSV", reason };
    // Rows of other lengths are reported here, with their line.
    let mut reader = ReaderBuilder::new().flexible(true).trim(Trim::All).from_reader(bytes);
    let names: Vec<String> = reader
        .byte_headers()
        .map_err(|error| unreadable(error.to_string()))?
        .iter()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    if names.is_empty() {
        return Err(TableError::NoRows { file: file.into() });
    }
    let columns = Columns::assign(source, &names)?;
    let label_name = names.get(columns.label).cloned().unwrap_or_default();
    let mut labels = Labels::new(file, format!("column \"{}\"", clip(&label_name)), true);
    let mut x = Vec::new();
    let mut record = ByteRecord::new();
    let mut lines = Lines { offset: 0, line: 1 };
    while reader.read_byte_record(&mut record).map_err(|error| unreadable(error.to_string()))? {
        let line = lines.at(bytes, record.position().map_or(0, ::csv::Position::byte));
        let place = Place::Line(line);
        if record.len() != names.len() {
            let (found, expected) = (record.len(), names.len());
            return Err(TableError::Ragged { file: file.into(), place, found, expected });
        }
        let text = |position: usize| {
            let cell = record.get(position).unwrap_or_default();
            std::str::from_utf8(cell)
                .map_err(|_| unreadable(format!("{place} is not UTF-8 text; save the file as UTF-8")))
        };
        let missing = |position: usize, found: &str| TableError::MissingValue {
            file: file.into(),
            place,
            column: names.get(position).cloned().unwrap_or_default(),
            found: quoted(found),
        };
        let label = text(columns.label)?;
        // A class may be named "none"; it may not be empty or NaN.
        if label.is_empty() || label.eq_ignore_ascii_case("nan") {
            return Err(missing(columns.label, label));
        }
        labels.push(label, line)?;
        for position in &columns.features {
            let cell = text(*position)?;
            let value = match number(cell) {
                Some(value) => value,
                None if is_missing(cell) => return Err(missing(*position, cell)),
                None => {
                    return Err(TableError::NotANumber {
                        file: file.into(),
                        place,
                        column: names.get(*position).cloned().unwrap_or_default(),
                        found: quoted(cell),
                    });
                }
            };
            x.push(value);
        }
        if x.len() as u64 > MAX_CELLS {
            return Err(TableError::TooManyCells { file: file.into(), limit: MAX_CELLS });
        }
    }
    FeatureTable::build(source, x, columns.names(&names), labels)
}

/// Counts lines up to an offset. The reader's own count is one short after `\r\n` and before blank lines.
struct Lines {
    offset: usize,
    line: u64,
}

impl Lines {
    /// The line of the record that was read from `offset` on; offsets rise from call to call.
    fn at(&mut self, bytes: &[u8], offset: u64) -> u64 {
        let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let start = bytes.len() - rest.len() + blank;
        let passed = bytes.get(self.offset..start).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.offset = start;
        self.line
    }
}

fn is_missing(cell: &str) -> bool {
    MISSING.iter().any(|missing| cell.eq_ignore_ascii_case(missing))
}

fn number(cell: &str) -> Option<f32> {
    match cell.parse::<f64>() {
        Ok(value) => narrow(value),
        Err(_) if cell.eq_ignore_ascii_case("true") => Some(1.0),
        Err(_) if cell.eq_ignore_ascii_case("false") => Some(0.0),
        Err(_) => None,
    }
}
