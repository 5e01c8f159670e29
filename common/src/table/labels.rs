//! Labels as they are read, and the classes they make.

use std::collections::HashMap;

use super::error::Place;
use super::{MAX_CLASSES, TableError};

/// The labels of a file: each distinct text once.
pub(super) struct Labels {
    /// The file they are read from.
    file: String,
    /// What errors call the label.
    column: String,
    /// Whether places are lines of text, not rows.
    lines: bool,
    ids: HashMap<String, u32>,
    /// Where each distinct label was first seen.
    first: Vec<Place>,
    of_row: Vec<u32>,
}

impl Labels {
    pub fn new(file: &str, column: String, lines: bool) -> Self {
        Self {
            file: file.to_owned(),
            column,
            lines,
            ids: HashMap::new(),
            first: Vec::new(),
            of_row: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.of_row.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of_row.is_empty()
    }

    /// Adds the label of the next row; `line` is where it stands in a text file.
    pub fn push(&mut self, label: &str, line: u64) -> Result<(), TableError> {
        let id = match self.ids.get(label) {
            Some(id) => *id,
            None => {
                if self.ids.len() >= MAX_CLASSES {
                    let (file, column) = (self.file.clone(), self.column.clone());
                    return Err(TableError::TooManyClasses { file, column, limit: MAX_CLASSES });
                }
                let id = self.first.len() as u32;
                self.first.push(if self.lines {
                    Place::Line(line)
                } else {
                    Place::Row(self.of_row.len() as u64)
                });
                self.ids.insert(label.to_owned(), id);
                id
            }
        };
        self.of_row.push(id);
        Ok(())
    }

    /// Class of each row, names of the classes in order, rows of each class.
    #[allow(clippy::type_complexity, reason = "three parts of one table")]
    pub fn finish(self) -> Result<(Vec<u32>, Vec<String>, Vec<u32>), TableError> {
        let Self { file, column, ids, first, of_row, .. } = self;
        let mut by_id: Vec<(&str, u32)> = ids.iter().map(|(label, id)| (label.as_str(), *id)).collect();
        by_id.sort_unstable_by_key(|(_, id)| *id);
        let texts: Vec<&str> = by_id.into_iter().map(|(label, _)| label).collect();
        let (classes, class_of_id) = classes(&texts);

        let mut counts = vec![0u32; classes.len()];
        let mut y = of_row;
        for label in &mut y {
            let class = class_of_id.get(*label as usize).copied().unwrap_or_default();
            *label = class;
            if let Some(count) = counts.get_mut(class as usize) {
                *count = count.saturating_add(1);
            }
        }
        if let [class] = classes.as_slice() {
            return Err(TableError::OneClass { file, column, class: super::error::clip(class) });
        }
        if let Some((class, name)) =
            classes.iter().enumerate().find(|(class, _)| counts.get(*class) == Some(&1))
        {
            let id = class_of_id.iter().position(|of| *of as usize == class);
            return Err(TableError::LoneClass {
                file,
                place: id.and_then(|id| first.get(id)).copied().unwrap_or(Place::Row(0)),
                column,
                class: super::error::clip(name),
                small: counts.iter().filter(|count| **count == 1).count(),
                classes: classes.len(),
            });
        }
        Ok((y, classes, counts))
    }
}

/// The classes of distinct labels in order, and the class of each label: `1` and `1.0` are one class.
fn classes(labels: &[&str]) -> (Vec<String>, Vec<u32>) {
    // Whole numbers apart from others: 2^53 + 1 is not a double.
    if let Some(keys) = labels.iter().map(|label| label.parse::<i128>().ok()).collect::<Option<Vec<i128>>>() {
        return ranked(&keys, i128::cmp, i128::to_string);
    }
    let real =
        |label: &&str| label.parse::<f64>().ok().filter(|value| value.is_finite()).map(|value| value + 0.0);
    if let Some(keys) = labels.iter().map(real).collect::<Option<Vec<f64>>>() {
        return ranked(&keys, f64::total_cmp, f64::to_string);
    }
    ranked(labels, Ord::cmp, |label| (*label).to_owned())
}

fn ranked<K: Clone>(
    keys: &[K],
    compare: impl Fn(&K, &K) -> std::cmp::Ordering,
    name: impl Fn(&K) -> String,
) -> (Vec<String>, Vec<u32>) {
    let mut sorted = keys.to_vec();
    sorted.sort_by(&compare);
    sorted.dedup_by(|a, b| compare(a, b).is_eq());
    let rank = |key: &K| sorted.partition_point(|other| compare(other, key).is_lt()) as u32;
    let of_key = keys.iter().map(rank).collect();
    (sorted.iter().map(name).collect(), of_key)
}
