//! From bytes to lines, and from lines to checked rows.

use super::TextError;
use crate::table::Place;

/// Why a row cannot be used.
pub(super) enum Fault {
    /// It cannot be read.
    Malformed {
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// Its label is none of the classes.
    Label(String),
}

impl Fault {
    pub fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Malformed { found: found.into(), expected: expected.into() }
    }
}

/// The bytes without the mark of byte order that some editors (and MRPC's release) put in front.
pub(super) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The lines that are not empty, each with where it stands. Only `\n` and `\r\n` end a line: other separators
/// that Unicode has stand within texts.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (Place, Result<&str, Fault>)> {
    (1..)
        .zip(without_bom(bytes).split(|byte| *byte == b'\n'))
        .map(|(number, line)| (number, line.strip_suffix(b"\r").unwrap_or(line)))
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| (Place::Line(number), utf8(line)))
}

/// The text of bytes.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        let byte = error.valid_up_to() + 1;
        Fault::new(format!("bytes that are not UTF-8 (from byte {byte} of the row or cell on)"), "UTF-8 text")
    })
}

/// The class of a label.
pub(super) fn class(label: &str, labels: &[&str]) -> Result<u32, Fault> {
    (0..)
        .zip(labels)
        .find(|(_, name)| **name == label)
        .map_or_else(|| Err(Fault::Label(label.to_owned())), |(class, _)| Ok(class))
}

/// Gathers the rows of a file and decides what becomes of those that cannot be read.
pub(super) struct Gathered<'a, T> {
    path: &'a str,
    skip_malformed: bool,
    labels: &'a [&'a str],
    rows: Vec<T>,
    skipped: u32,
}

impl<'a, T> Gathered<'a, T> {
    /// None yet; `labels` are the classes that errors list.
    pub fn new(path: &'a str, skip_malformed: bool, labels: &'a [&'a str]) -> Self {
        Self { path, skip_malformed, labels, rows: Vec::new(), skipped: 0 }
    }

    /// Adds what was read at a place.
    pub fn add(
        &mut self,
        place: Place,
        read: Result<impl IntoIterator<Item = T>, Fault>,
    ) -> Result<(), TextError> {
        match read {
            Ok(rows) => self.rows.extend(rows),
            Err(Fault::Malformed { .. }) if self.skip_malformed => {
                self.skipped = self.skipped.saturating_add(1);
            }
            Err(Fault::Malformed { found, expected }) => {
                return Err(TextError::Row { path: self.path.to_owned(), place, found, expected });
            }
            // Never passed over: it would be the sign of another task's file, and change what the classes
            // are.
            Err(Fault::Label(found)) => {
                return Err(TextError::UnknownLabel {
                    path: self.path.to_owned(),
                    place,
                    found,
                    allowed: self.labels.iter().map(|label| (*label).to_owned()).collect(),
                });
            }
        }
        Ok(())
    }

    /// The rows and how many were passed over.
    pub fn finish(self) -> Result<(Vec<T>, u32), TextError> {
        let Self { path, rows, skipped, .. } = self;
        if rows.is_empty() {
            return Err(TextError::NoRows { path: path.to_owned(), skipped });
        }
        if u32::try_from(rows.len()).is_err() {
            return Err(TextError::TooManyRows { path: path.to_owned() });
        }
        Ok((rows, skipped))
    }
}
