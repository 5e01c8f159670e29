//! Feature files: CSV, Parquet and `.npy` pairs, each also with `.gz`, from bytes to a checked table.
//!
//! Files come from outside, so every size is checked before it is trusted and every error names the file,
//! the place, what was found and how to mend it. What can be told from the file alone is refused here, before
//! anything runs: a missing label column, values that are no finite numbers, a class with one sample.

mod csv;
pub(crate) mod error;
mod labels;
mod npy;
mod parquet;

use std::borrow::Cow;
use std::io::Read as _;

pub use error::{Place, TableError};
use labels::Labels;

use crate::id::ContentHash;
use crate::inputs::FeatureInfo;

/// Most bytes a file may have once decompressed: 4 GiB.
pub const MAX_BYTES: u64 = 4 << 30;
/// Most cells of a feature matrix: 2^30, which is 4 GiB of 32-bit floats.
const MAX_CELLS: u64 = 1 << 30;
/// Most classes, as in synthetic datasets; more mean that the label is not a class.
const MAX_CLASSES: usize = 10_000;

/// A feature matrix with a class for each row.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureTable {
    /// Features, row-major `[rows, features]`, all finite.
    pub x: Vec<f32>,
    /// Class of each row, an index into `classes`.
    pub y: Vec<u32>,
    /// Rows n.
    pub rows: u32,
    /// Features d.
    pub features: u32,
    /// Names of the classes: in numerical order if all are numbers, in the order of their bytes if not.
    pub classes: Vec<String>,
    /// Rows of each class, at least 2.
    pub class_counts: Vec<u32>,
    /// Names of the feature columns, in the file's order (`feature_0` … for `.npy`).
    pub names: Vec<String>,
}

/// The bytes of a feature dataset and what its spec says of them.
#[derive(Clone, Copy, Debug)]
pub struct TableSource<'a> {
    /// Path as the spec has it: its ending decides the format, and errors name it.
    pub path: &'a str,
    /// The file.
    pub bytes: &'a [u8],
    /// Column that holds the class (CSV and Parquet).
    pub label: Option<&'a str>,
    /// Path and bytes of the file of classes (`.npy`).
    pub labels: Option<(&'a str, &'a [u8])>,
    /// Columns to leave out.
    pub drop: &'a [String],
}

/// Reads and checks a feature file.
///
/// # Errors
/// With the file, the place, what was found and how to mend it.
pub fn read(source: &TableSource<'_>) -> Result<FeatureTable, TableError> {
    let bytes = unpack(source.path, source.bytes, MAX_BYTES)?;
    match format(source.path)? {
        Format::Csv => csv::read(source, &bytes),
        Format::Parquet => parquet::read(source, bytes.into_owned()),
        Format::Npy => npy::read(source, &bytes),
    }
}

impl FeatureTable {
    /// What the grid needs to know of the file; `content` is the hash of its bytes
    /// (see [`content_hash`](crate::grid::content_hash)).
    #[must_use]
    pub fn info(&self, content: &ContentHash) -> FeatureInfo {
        FeatureInfo {
            rows: self.rows,
            features: self.features,
            class_counts: self.class_counts.clone(),
            content: content.to_hex(),
        }
    }

    /// Joins the parts that a format's reader found, and checks what all formats share.
    fn build(
        source: &TableSource<'_>,
        x: Vec<f32>,
        names: Vec<String>,
        labels: Labels,
    ) -> Result<Self, TableError> {
        let file = source.path;
        if names.is_empty() {
            return Err(TableError::NoFeatures { file: file.into() });
        }
        if labels.is_empty() {
            return Err(TableError::NoRows { file: file.into() });
        }
        let too_large = || TableError::TooManyCells { file: file.into(), limit: MAX_CELLS };
        let rows = u32::try_from(labels.len()).map_err(|_| too_large())?;
        let features = u32::try_from(names.len()).map_err(|_| too_large())?;
        let (y, classes, class_counts) = labels.finish()?;
        Ok(Self { x, y, rows, features, classes, class_counts, names })
    }
}

enum Format {
    Csv,
    Parquet,
    Npy,
}

fn format(path: &str) -> Result<Format, TableError> {
    let lower = path.to_ascii_lowercase();
    match lower.strip_suffix(".gz").unwrap_or(&lower).rsplit_once('.') {
        Some((_, "csv")) => Ok(Format::Csv),
        Some((_, "parquet")) => Ok(Format::Parquet),
        Some((_, "npy")) => Ok(Format::Npy),
        _ => Err(TableError::UnknownFormat { file: path.into() }),
    }
}

/// Decompresses a file whose name ends in `.gz`, up to a limit; others are passed on if they keep to it.
fn unpack<'a>(path: &str, bytes: &'a [u8], limit: u64) -> Result<Cow<'a, [u8]>, TableError> {
    let too_large = || TableError::TooLarge { file: path.into(), limit };
    if !path.to_ascii_lowercase().ends_with(".gz") {
        return if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(Cow::Borrowed(bytes)) };
    }
    let mut unpacked = Vec::new();
    flate2::bufread::MultiGzDecoder::new(bytes)
        .take(limit.saturating_add(1))
        .read_to_end(&mut unpacked)
        .map_err(|error| TableError::Unreadable {
            file: path.into(),
            format: "gzip",
            reason: error.to_string(),
        })?;
    if unpacked.len() as u64 > limit { Err(too_large()) } else { Ok(Cow::Owned(unpacked)) }
}

/// Which columns of a file with a header are what.
struct Columns {
    label: usize,
    /// Positions of the features in the file.
    features: Vec<usize>,
}

impl Columns {
    /// Finds the label and the features among the columns of a file.
    fn assign(source: &TableSource<'_>, names: &[String]) -> Result<Self, TableError> {
        let file = || source.path.to_owned();
        let missing = |role, name: &str| TableError::MissingColumn {
            file: file(),
            role,
            name: name.to_owned(),
            nearest: nearest(name, names),
            columns: names.to_vec(),
        };
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(TableError::DuplicateColumn { file: file(), column: twice.clone() });
        }
        let wanted = source
            .label
            .ok_or_else(|| TableError::LabelNotNamed { file: file(), columns: names.to_vec() })?;
        let label = names
            .iter()
            .position(|name| name == wanted)
            .ok_or_else(|| missing(error::Role::Label, wanted))?;
        for name in source.drop {
            if !seen.contains(name.as_str()) {
                return Err(missing(error::Role::Drop, name));
            }
            if name == wanted {
                return Err(TableError::DropsLabel { file: file(), column: name.clone() });
            }
        }
        let mut features = Vec::with_capacity(names.len());
        for (position, name) in names.iter().enumerate() {
            if position == label || source.drop.contains(name) {
                continue;
            }
            // What pandas calls its row numbers: taken for a feature they would give the order of the file away.
            if name.is_empty() || name.starts_with("__index_level_") {
                return Err(TableError::IndexColumn {
                    file: file(),
                    column: name.clone(),
                    position: position + 1,
                });
            }
            features.push(position);
        }
        if features.is_empty() {
            return Err(TableError::NoFeatures { file: file() });
        }
        Ok(Self { label, features })
    }

    fn names(&self, names: &[String]) -> Vec<String> {
        self.features.iter().filter_map(|position| names.get(*position).cloned()).collect()
    }
}

fn nearest(name: &str, names: &[String]) -> Option<String> {
    let similarity = |other: &String| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    names
        .iter()
        // A whole header in one cell is near to none of its names.
        .filter(|other| !other.contains([';', '\t', '|']))
        .map(|other| (similarity(other), other))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other.clone())
}

/// A value as a 32-bit feature; `None` when it is not finite as such.
fn narrow(value: f64) -> Option<f32> {
    let narrow = value as f32;
    narrow.is_finite().then_some(narrow)
}

#[cfg(test)]
mod tests;
