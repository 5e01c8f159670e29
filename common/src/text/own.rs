//! Files of one's own: texts and labels in columns of CSV or TSV, or in fields of JSON lines.

use std::collections::{BTreeSet, HashMap};

use csv::{ByteRecord, Position, ReaderBuilder};

use super::json::{Object, parse};
use super::rows::{Fault, Gathered, lines, utf8, without_bom};
use super::tsv::{Columns, cells, unreadable};
use super::{Example, Examples, Segment, TextError};
use crate::table::Place;

/// Most classes, as in files of features; more mean that the label is not a class.
const MAX_CLASSES: usize = 10_000;

/// The columns (or fields of JSON) of a file of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnFormat<'a> {
    /// The text.
    pub text: &'a str,
    /// The second text, where rows are pairs.
    pub text_pair: Option<&'a str>,
    /// The class.
    pub label: &'a str,
}

/// A row of a file of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRow {
    /// Its text or texts.
    pub segment: Segment,
    /// Its label without blanks around it; `true`, `false` and numbers of JSON as they are written.
    pub label: String,
    /// Where it stands.
    pub place: Place,
}

/// The rows of a file of one's own, whose labels are not numbered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRows {
    /// In the order of the file; at least one, at most `u32::MAX`.
    pub rows: Vec<OwnRow>,
    /// Malformed rows that were passed over.
    pub skipped: u32,
}

/// The columns of a file that was read elsewhere (Parquet), all of one length; None is a missing value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnColumns {
    /// The texts.
    pub text: Vec<Option<String>>,
    /// The second texts, where rows are pairs.
    pub text_pair: Option<Vec<Option<String>>>,
    /// The labels.
    pub label: Vec<Option<String>>,
}

/// Reads a `.csv`, `.tsv` or `.jsonl`, as the ending of `path` says (`.gz` after it does not matter: `bytes`
/// are decompressed).
///
/// CSV may quote cells (RFC 4180); TSV has no quoting, so that quote characters are text and no cell holds a
/// tab or a line break. A row is malformed if a text or the label is missing or blank, or the label is NaN.
///
/// # Errors
/// An ending that is not known, a column that is missing, the first malformed row (unless `skip_malformed`),
/// or a file without rows.
pub fn read_own(
    path: &str,
    bytes: &[u8],
    format: &OwnFormat<'_>,
    skip_malformed: bool,
) -> Result<OwnRows, TextError> {
    let lower = path.to_ascii_lowercase();
    let read = match lower.strip_suffix(".gz").unwrap_or(&lower).rsplit_once('.') {
        Some((_, "csv")) => read_csv,
        Some((_, "tsv")) => read_tsv,
        Some((_, "jsonl")) => read_jsonl,
        _ => return Err(TextError::UnknownFormat { path: path.to_owned() }),
    };
    let mut gathered = Gathered::new(path, skip_malformed, &[]);
    read(path, bytes, format, &mut gathered)?;
    let (rows, skipped) = gathered.finish()?;
    Ok(OwnRows { rows, skipped })
}

/// Checks the columns of a file that was read elsewhere, as [`read_own`] checks rows; places are row numbers.
///
/// # Errors
/// Columns of different lengths, the first malformed row (unless `skip_malformed`), or no rows.
pub fn own_from_columns(
    path: &str,
    format: &OwnFormat<'_>,
    columns: OwnColumns,
    skip_malformed: bool,
) -> Result<OwnRows, TextError> {
    let OwnColumns { text, text_pair, label } = columns;
    let expected = label.len();
    let lengths = [
        (format.text, Some(text.len())),
        (format.text_pair.unwrap_or("text_pair"), text_pair.as_ref().map(Vec::len)),
    ];
    for (column, found) in lengths {
        if let Some(found) = found.filter(|found| *found != expected) {
            let (path, column) = (path.to_owned(), column.to_owned());
            return Err(TextError::ColumnLength { path, column, found, expected });
        }
    }
    let mut pairs = text_pair.map(Vec::into_iter);
    let mut gathered = Gathered::new(path, skip_malformed, &[]);
    for ((row, text), label) in (0..).zip(text).zip(label) {
        let place = Place::Row(row);
        let second = pairs.as_mut().map(|pairs| pairs.next().flatten().unwrap_or_default());
        let segment = Segment { first: text.unwrap_or_default(), second };
        gathered.add(place, checked(format, segment, &label.unwrap_or_default(), place).map(Some))?;
    }
    let (rows, skipped) = gathered.finish()?;
    Ok(OwnRows { rows, skipped })
}

/// The distinct labels of a training file: in numerical order if all are whole numbers, in the order of their
/// bytes if not.
///
/// # Errors
/// Fewer than two labels, or more than 10,000.
pub fn own_labels(path: &str, train: &OwnRows) -> Result<Vec<String>, TextError> {
    let distinct: BTreeSet<&str> = train.rows.iter().map(|row| row.label.as_str()).collect();
    if distinct.len() > MAX_CLASSES {
        return Err(TextError::TooManyClasses { path: path.to_owned(), limit: MAX_CLASSES });
    }
    let mut labels: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
    if let [] | [_] = labels.as_slice() {
        let label = labels.pop().unwrap_or_default();
        return Err(TextError::OneClass { path: path.to_owned(), label });
    }
    if labels.iter().all(|label| label.parse::<i128>().is_ok()) {
        // Stable: `1` and `01` stay two labels, in the order of their bytes.
        labels.sort_by_key(|label| label.parse::<i128>().unwrap_or_default());
    }
    Ok(labels)
}

/// Numbers the labels of a file by their place in `labels`, which are those of the training file.
///
/// # Errors
/// A label that is not among them, with the file and the place.
pub fn index_own(path: &str, own: OwnRows, labels: &[String]) -> Result<Examples, TextError> {
    let classes: HashMap<&str, u32> = labels.iter().map(String::as_str).zip(0..).collect();
    let numbered = |row: OwnRow| match classes.get(row.label.as_str()) {
        Some(class) => Ok(Example::of(row.segment, *class)),
        None => Err(TextError::UnknownLabel {
            path: path.to_owned(),
            place: row.place,
            found: row.label,
            allowed: labels.to_vec(),
        }),
    };
    let rows = own.rows.into_iter().map(numbered).collect::<Result<_, _>>()?;
    Ok(Examples { rows, skipped: own.skipped })
}

fn read_csv(
    path: &str,
    bytes: &[u8],
    format: &OwnFormat<'_>,
    gathered: &mut Gathered<'_, OwnRow>,
) -> Result<(), TextError> {
    let bytes = without_bom(bytes);
    let mut lines = LineOf { bytes, byte: 0, line: 1 };
    // The header is read as a row, and rows of other lengths are reported here, with their line.
    let mut reader = ReaderBuilder::new().flexible(true).has_headers(false).from_reader(bytes);
    let mut record = ByteRecord::new();
    let mut columns = None;
    // Reading from memory cannot fail, and bytes are taken as they are.
    while reader.read_byte_record(&mut record).unwrap_or(false) {
        let place = Place::Line(lines.at(record.position().map_or(0, Position::byte)));
        let cells = record.iter().map(utf8).collect::<Result<Vec<_>, _>>();
        match &columns {
            None => {
                let header = cells.map_err(|fault| unreadable(path, place, fault))?;
                columns = Some(Columns::find(path, &header, format.text, format.text_pair, format.label)?);
            }
            Some(columns) => {
                let row = cells.and_then(|cells| columns.take(&cells));
                let row = row.and_then(|(segment, label)| checked(format, segment, label, place));
                gathered.add(place, row.map(Some))?;
            }
        }
    }
    Ok(())
}

fn read_tsv(
    path: &str,
    bytes: &[u8],
    format: &OwnFormat<'_>,
    gathered: &mut Gathered<'_, OwnRow>,
) -> Result<(), TextError> {
    let mut lines = lines(bytes);
    let Some((place, header)) = lines.next() else { return Ok(()) };
    let header = cells(header.map_err(|fault| unreadable(path, place, fault))?);
    let columns = Columns::find(path, &header, format.text, format.text_pair, format.label)?;
    for (place, line) in lines {
        let row = line.and_then(|line| columns.take(&cells(line)));
        let row = row.and_then(|(segment, label)| checked(format, segment, label, place));
        gathered.add(place, row.map(Some))?;
    }
    Ok(())
}

fn read_jsonl(
    _path: &str,
    bytes: &[u8],
    format: &OwnFormat<'_>,
    gathered: &mut Gathered<'_, OwnRow>,
) -> Result<(), TextError> {
    for (place, line) in lines(bytes) {
        let row = line.and_then(parse).and_then(|fields| {
            let row = Object::of(&fields);
            let first = row.text(format.text)?.to_owned();
            let second = format.text_pair.map(|key| row.text(key)).transpose()?.map(str::to_owned);
            checked(format, Segment { first, second }, &row.label(format.label)?, place)
        });
        gathered.add(place, row.map(Some))?;
    }
    Ok(())
}

/// A row none of whose values is missing.
fn checked(format: &OwnFormat<'_>, segment: Segment, label: &str, place: Place) -> Result<OwnRow, Fault> {
    let blank = |column: &str, expected: &str| Err(Fault::new(format!("nothing in \"{column}\""), expected));
    if segment.first.trim().is_empty() {
        return blank(format.text, "a text");
    }
    if let (Some(column), Some("")) = (format.text_pair, segment.second.as_deref().map(str::trim)) {
        return blank(column, "a text");
    }
    let label = label.trim();
    if label.is_empty() {
        return blank(format.label, "a label");
    }
    // How pandas writes a missing value.
    if label.eq_ignore_ascii_case("nan") {
        return Err(Fault::new(format!("\"{label}\" in \"{}\"", format.label), "a label"));
    }
    Ok(OwnRow { segment, label: label.to_owned(), place })
}

/// Counts the lines before a byte. The reader of CSV counts differently after `\r\n` and empty lines.
struct LineOf<'a> {
    bytes: &'a [u8],
    byte: usize,
    line: u64,
}

impl LineOf<'_> {
    /// The line of the record that the reader began at `byte`, which may lie before empty lines; bytes only
    /// rise.
    fn at(&mut self, byte: u64) -> u64 {
        let rest = usize::try_from(byte).ok().and_then(|byte| self.bytes.get(byte..)).unwrap_or_default();
        let empty = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let start = self.bytes.len() - rest.len() + empty;
        let passed = self.bytes.get(self.byte..start).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.byte = start;
        self.line
    }
}
