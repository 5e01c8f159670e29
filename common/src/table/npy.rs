//! Pairs of `.npy` files: an `[n, d]` array of features and an `[n]` array of classes.
//!
//! The format is numpy's own (numpy.lib.format, "Format Version 1.0" to 3.0): a magic string, a version, the
//! length of a header, the header (the literal of a Python dictionary with `descr`, `fortran_order` and
//! `shape`), then the elements.

use super::error::{Place, clip};
use super::{FeatureTable, Labels, MAX_BYTES, MAX_CELLS, TableError, TableSource, narrow, unpack};

const SAVE_AGAIN: &str =
    "a C array of little-endian f4, f8, i1 to i8, u1 to u8 or bool (numpy: `np.save(path, x.astype('<f4'))`)";

pub(super) fn read(source: &TableSource<'_>, bytes: &[u8]) -> Result<FeatureTable, TableError> {
    let file = source.path;
    let array = Array::parse(file, bytes)?;
    let &[rows, width] = array.shape.as_slice() else {
        return Err(array.wrong("two dimensions: [rows, features]"));
    };
    if rows.checked_mul(width).is_none_or(|cells| cells > MAX_CELLS) {
        return Err(TableError::TooManyCells { file: file.into(), limit: MAX_CELLS });
    }
    let (labels_file, labels_bytes) =
        source.labels.ok_or_else(|| TableError::LabelsNotNamed { file: file.into() })?;
    let labels_bytes = unpack(labels_file, labels_bytes, MAX_BYTES)?;
    let labels_array = Array::parse(labels_file, &labels_bytes)?;
    let count = match labels_array.shape.as_slice() {
        [count] | [count, 1] => *count,
        _ => return Err(labels_array.wrong("one dimension: the class of each row")),
    };
    if count != rows {
        let (file, labels_file) = (file.to_owned(), labels_file.to_owned());
        return Err(TableError::LabelCount { file, rows, labels_file, labels: count });
    }
    if rows == 0 {
        return Err(TableError::NoRows { file: file.into() });
    }
    let names: Vec<String> = (0..width).map(|feature| format!("feature_{feature}")).collect();
    let kept = kept(source, &names)?;

    let mut x = Vec::with_capacity(kept.len() * usize::try_from(rows).unwrap_or(0));
    for row in 0..rows {
        for column in &kept {
            let position =
                if array.fortran { *column as u64 * rows + row } else { row * width + *column as u64 };
            let place = Place::Row(row);
            let name = || names.get(*column).cloned().unwrap_or_default();
            let value = array.value(position).map_or(f64::NAN, Value::real);
            x.push(match narrow(value) {
                Some(value) => value,
                None if value.is_nan() => {
                    let (file, column, found) = (file.to_owned(), name(), "NaN".to_owned());
                    return Err(TableError::MissingValue { file, place, column, found });
                }
                None => {
                    let (file, column, found) = (file.to_owned(), name(), value.to_string());
                    return Err(TableError::NotANumber { file, place, column, found });
                }
            });
        }
    }
    let mut labels = Labels::new(labels_file, "the array".into(), false);
    for row in 0..rows {
        match labels_array.value(row) {
            Some(Value::Whole(class)) => labels.push(&class.to_string(), 0)?,
            Some(Value::Real(class)) if class.is_finite() => labels.push(&class.to_string(), 0)?,
            other => {
                return Err(TableError::NotANumber {
                    file: labels_file.to_owned(),
                    place: Place::Row(row),
                    column: "the array".into(),
                    found: other.map_or(f64::NAN, Value::real).to_string(),
                });
            }
        }
    }
    let names = kept.iter().filter_map(|column| names.get(*column).cloned()).collect();
    FeatureTable::build(source, x, names, labels)
}

fn kept(source: &TableSource<'_>, names: &[String]) -> Result<Vec<usize>, TableError> {
    let mut dropped = vec![false; names.len()];
    for name in source.drop {
        let position = names.iter().position(|other| other == name);
        match position.and_then(|position| dropped.get_mut(position)) {
            Some(slot) => *slot = true,
            None => {
                return Err(TableError::MissingColumn {
                    file: source.path.into(),
                    role: super::error::Role::Drop,
                    name: name.clone(),
                    columns: names.to_vec(),
                    nearest: None,
                });
            }
        }
    }
    Ok(dropped.iter().enumerate().filter(|(_, dropped)| !**dropped).map(|(position, _)| position).collect())
}

/// One element: whole numbers apart from others, since 2^53 + 1 is not a double.
#[derive(Clone, Copy)]
enum Value {
    Whole(i128),
    Real(f64),
}

impl Value {
    fn real(self) -> f64 {
        match self {
            Self::Whole(value) => value as f64,
            Self::Real(value) => value,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Float,
    Signed,
    Unsigned,
    Bool,
}

struct Array<'a> {
    file: &'a str,
    kind: Kind,
    /// Bytes of an element.
    width: usize,
    fortran: bool,
    shape: Vec<u64>,
    data: &'a [u8],
}

impl<'a> Array<'a> {
    fn parse(file: &'a str, bytes: &'a [u8]) -> Result<Self, TableError> {
        let bad = |reason: &str| TableError::Unreadable {
            file: file.into(),
            format: ".npy",
            reason: reason.into(),
        };
        let rest =
            bytes.strip_prefix(b"\x93NUMPY").ok_or_else(|| bad("it does not begin as numpy's files do"))?;
        let cut = || bad("it ends within its header");
        let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        let (length, rest) = match version {
            [1, _] => {
                let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
                (usize::from(u16::from_le_bytes(*length)), rest)
            }
            [2 | 3, _] => {
                let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
                (usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX), rest)
            }
            [major, minor] => {
                return Err(bad(&format!("its version {major}.{minor} is not known (1.0 to 3.0 are)")));
            }
        };
        let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
        let header = std::str::from_utf8(header).map_err(|_| bad("its header is not text"))?;
        let header = Header::parse(header).ok_or_else(|| bad(&format!("its header is {}", clip(header))))?;
        let wrong = || TableError::Array {
            file: file.into(),
            found: format!("the type {}", clip(&header.descr)),
            expected: SAVE_AGAIN,
        };
        let (kind, width) = element(&header.descr).ok_or_else(wrong)?;
        let elements = header.shape.iter().try_fold(1u64, |product, length| product.checked_mul(*length));
        let expected = elements.and_then(|elements| elements.checked_mul(width as u64));
        if expected != Some(data.len() as u64) {
            return Err(bad(&format!(
                "its header promises {:?} elements of {width} bytes, but {} bytes follow",
                header.shape,
                data.len()
            )));
        }
        Ok(Self { file, kind, width, fortran: header.fortran, shape: header.shape, data })
    }

    fn wrong(&self, expected: &'static str) -> TableError {
        TableError::Array { file: self.file.into(), found: format!("the shape {:?}", self.shape), expected }
    }

    fn value(&self, position: u64) -> Option<Value> {
        let start = usize::try_from(position).ok()?.checked_mul(self.width)?;
        let bytes = self.data.get(start..start.checked_add(self.width)?)?;
        // Widened to eight bytes: sign-extended for signed integers, else with zeros.
        let negative = matches!(self.kind, Kind::Signed) && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide.get_mut(..self.width)?.copy_from_slice(bytes);
        Some(match self.kind {
            Kind::Signed => Value::Whole(i64::from_le_bytes(wide).into()),
            Kind::Unsigned => Value::Whole(u64::from_le_bytes(wide).into()),
            Kind::Bool => Value::Whole(i128::from(u64::from_le_bytes(wide) != 0)),
            Kind::Float if self.width == 8 => Value::Real(f64::from_le_bytes(wide)),
            Kind::Float => Value::Real(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        })
    }
}

/// Kind and bytes of an element from numpy's type string, such as `<f4`.
fn element(descr: &str) -> Option<(Kind, usize)> {
    let (order, rest) = descr.split_at_checked(1)?;
    let (kind, width) = rest.split_at_checked(1)?;
    let width: usize = width.parse().ok()?;
    let known = match kind {
        "f" => matches!(width, 4 | 8).then_some(Kind::Float),
        "i" => matches!(width, 1 | 2 | 4 | 8).then_some(Kind::Signed),
        "u" => matches!(width, 1 | 2 | 4 | 8).then_some(Kind::Unsigned),
        "b" => (width == 1).then_some(Kind::Bool),
        _ => None,
    };
    let little = order == "<" || (order == "|" && width == 1);
    known.filter(|_| little).map(|kind| (kind, width))
}

/// The three entries of a header.
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<u64>,
}

impl Header {
    /// Reads `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }`: the keys in any order, each once.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" if descr.is_none() => {
                    let (value, after) = quoted(value)?;
                    descr = Some(value.to_owned());
                    after
                }
                "fortran_order" if fortran.is_none() => {
                    fortran = Some(value.starts_with("True"));
                    value.strip_prefix("True").or_else(|| value.strip_prefix("False"))?
                }
                "shape" if shape.is_none() => {
                    let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                    let lengths = inside.split(',').map(str::trim).filter(|length| !length.is_empty());
                    shape = Some(lengths.map(|length| length.parse().ok()).collect::<Option<Vec<u64>>>()?);
                    after
                }
                _ => return None,
            }
            .trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        Some(Self { descr: descr?, fortran: fortran?, shape: shape? })
    }
}

/// The text in single quotes at the start, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('\'')?.split_once('\'')
}
