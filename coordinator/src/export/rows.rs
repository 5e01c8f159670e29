//! Columns that are filled row by row, in the order of their fields.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float32Builder, Float64Builder, Int32Builder, ListBuilder, RecordBatch,
    StringArray, StringBuilder, TimestampMillisecondBuilder, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

/// As an offset: the name needs a table of time zones wherever times are written as text.
const UTC: &str = "+00:00";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text that repeats: a dictionary.
    Word,
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Whole,
    /// A whole number of 32 bits.
    Small,
    /// A double.
    Real,
    /// Milliseconds since the Unix epoch, UTC.
    Time,
    /// A list of whole numbers of 32 bits.
    Smalls,
    /// A list of floats of 32 bits.
    Singles,
}

/// A dictionary in the making. Rows are sorted: mostly, a word is that of the row before.
#[derive(Default)]
struct Words {
    keys: Int32Builder,
    known: HashMap<String, i32>,
    /// In the order of their keys.
    words: Vec<String>,
    last: i32,
}

impl Words {
    fn push(&mut self, word: Option<&str>) {
        let Some(word) = word else { return self.keys.append_null() };
        let last = usize::try_from(self.last).ok().and_then(|last| self.words.get(last));
        if last.is_none_or(|last| last != word) {
            self.last = match self.known.get(word) {
                Some(key) => *key,
                None => {
                    let key = self.words.len() as i32;
                    self.known.insert(word.to_owned(), key);
                    self.words.push(word.to_owned());
                    key
                }
            };
        }
        self.keys.append_value(self.last);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let Self { mut keys, words, .. } = std::mem::take(self);
        let words: StringArray = words.into_iter().map(Some).collect();
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys.finish(), Arc::new(words))?))
    }
}

enum Cells {
    Word(Words),
    Text(StringBuilder),
    Whole(UInt64Builder),
    Small(UInt32Builder),
    Real(Float64Builder),
    Time(TimestampMillisecondBuilder),
    Smalls(ListBuilder<UInt32Builder>),
    Singles(ListBuilder<Float32Builder>),
}

impl Cells {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Word => Self::Word(Words::default()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Whole => Self::Whole(UInt64Builder::new()),
            Kind::Small => Self::Small(UInt32Builder::new()),
            Kind::Real => Self::Real(Float64Builder::new()),
            Kind::Time => Self::Time(TimestampMillisecondBuilder::new().with_timezone(UTC)),
            Kind::Smalls => Self::Smalls(ListBuilder::new(UInt32Builder::new())),
            Kind::Singles => Self::Singles(ListBuilder::new(Float32Builder::new())),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Word(cells) => cells.finish()?,
            Self::Text(cells) => Arc::new(cells.finish()),
            Self::Whole(cells) => Arc::new(cells.finish()),
            Self::Small(cells) => Arc::new(cells.finish()),
            Self::Real(cells) => Arc::new(cells.finish()),
            Self::Time(cells) => Arc::new(cells.finish()),
            Self::Smalls(cells) => Arc::new(cells.finish()),
            Self::Singles(cells) => Arc::new(cells.finish()),
        })
    }
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Word => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Kind::Text => DataType::Utf8,
        Kind::Whole => DataType::UInt64,
        Kind::Small => DataType::UInt32,
        Kind::Real => DataType::Float64,
        Kind::Time => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
        Kind::Smalls => DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true))),
        Kind::Singles => DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true))),
    }
}

/// A table in the making. Cells are pushed in the order of the fields; a cell of another kind than its column's
/// is not taken, which makes the columns' lengths differ and [`Rows::batch`] fail.
pub(super) struct Rows {
    schema: SchemaRef,
    cells: Vec<Cells>,
    next: usize,
    rows: usize,
}

impl Rows {
    pub fn new<N: AsRef<str>>(fields: impl IntoIterator<Item = (N, Kind)>) -> Self {
        let fields: Vec<(N, Kind)> = fields.into_iter().collect();
        let schema = fields.iter().map(|(name, kind)| Field::new(name.as_ref(), data_type(*kind), true));
        Self {
            schema: Arc::new(Schema::new(schema.collect::<Vec<_>>())),
            cells: fields.iter().map(|(_, kind)| Cells::new(*kind)).collect(),
            next: 0,
            rows: 0,
        }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    fn next(&mut self) -> Option<&mut Cells> {
        let at = self.next;
        self.next += 1;
        if self.next >= self.cells.len() {
            self.next = 0;
            self.rows += 1;
        }
        self.cells.get_mut(at)
    }

    pub fn text(&mut self, value: Option<&str>) -> &mut Self {
        match self.next() {
            Some(Cells::Word(cells)) => cells.push(value),
            Some(Cells::Text(cells)) => cells.append_option(value),
            _ => {}
        }
        self
    }

    pub fn whole(&mut self, value: Option<u64>) -> &mut Self {
        match self.next() {
            Some(Cells::Whole(cells)) => cells.append_option(value),
            Some(Cells::Small(cells)) => {
                cells.append_option(value.and_then(|value| u32::try_from(value).ok()))
            }
            _ => {}
        }
        self
    }

    /// A number that is not finite becomes null.
    pub fn real(&mut self, value: Option<f64>) -> &mut Self {
        if let Some(Cells::Real(cells)) = self.next() {
            cells.append_option(value.filter(|value| value.is_finite()));
        }
        self
    }

    pub fn time(&mut self, millis: i64) -> &mut Self {
        if let Some(Cells::Time(cells)) = self.next() {
            cells.append_value(millis);
        }
        self
    }

    pub fn smalls(&mut self, values: Option<&[u32]>) -> &mut Self {
        if let Some(Cells::Smalls(cells)) = self.next() {
            if let Some(values) = values {
                cells.values().append_slice(values);
            }
            cells.append(values.is_some());
        }
        self
    }

    pub fn singles(&mut self, values: Option<&[f32]>) -> &mut Self {
        if let Some(Cells::Singles(cells)) = self.next() {
            if let Some(values) = values {
                cells.values().append_slice(values);
            }
            cells.append(values.is_some());
        }
        self
    }

    /// The rows as a batch, and none left.
    pub fn batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let columns = self.cells.iter_mut().map(Cells::finish).collect::<Result<_, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}
