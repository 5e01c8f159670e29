//! Files that get their name only when they are whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, SchemaRef, UInt32Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::{ExportError, Format};

/// Rows of a row group.
const ROW_GROUP: usize = 64 * 1024;
/// Encoded bytes of a row group, about.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A name in waiting: `.NAME.partial` until it is renamed; removed if that never comes.
struct Partial {
    partial: PathBuf,
    name: PathBuf,
    kept: bool,
}

impl Partial {
    fn create(dir: &Path, name: &str) -> Result<(Self, File), ExportError> {
        let partial = dir.join(format!(".{name}.partial"));
        let file =
            File::create(&partial).map_err(|source| ExportError::Io { path: partial.clone(), source })?;
        Ok((Self { partial, name: dir.join(name), kept: false }, file))
    }

    fn fail(&self, source: std::io::Error) -> ExportError {
        ExportError::Io { path: self.name.clone(), source }
    }

    fn commit(mut self, file: &File) -> Result<(), ExportError> {
        file.sync_all()
            .and_then(|()| std::fs::rename(&self.partial, &self.name))
            .map_err(|e| self.fail(e))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// A small text, written at once.
pub(super) struct TextFile {
    name: Partial,
    file: File,
}

impl TextFile {
    pub fn create(dir: &Path, name: &str, text: &str) -> Result<Self, ExportError> {
        let (name, mut file) = Partial::create(dir, name)?;
        file.write_all(text.as_bytes()).map_err(|error| name.fail(error))?;
        Ok(Self { name, file })
    }

    pub fn commit(self) -> Result<(), ExportError> {
        self.name.commit(&self.file)
    }
}

enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Csv(Box<csv::Writer<File>>),
    Jsonl(BufWriter<File>),
}

/// A table that is written batch by batch, on a thread of its own: encoding takes longer than making rows.
pub(super) struct TableFile {
    batches: Option<SyncSender<RecordBatch>>,
    thread: Option<JoinHandle<Written>>,
}

/// A file that is whole, or why it is not.
type Written = Result<(Partial, File), ExportError>;

/// Batches that wait to be written.
const WAITING: usize = 2;

impl TableFile {
    pub fn create(dir: &Path, stem: &str, format: Format, schema: &SchemaRef) -> Result<Self, ExportError> {
        let (name, file) = Partial::create(dir, &format!("{stem}.{}", format.extension()))?;
        let writer = Writer::create(&name, file, format, schema)?;
        let (batches, inbox) = sync_channel::<RecordBatch>(WAITING);
        let write = move || -> Written {
            let mut writer = writer;
            inbox.iter().try_for_each(|batch| writer.write(&batch, &name))?;
            let file = writer.finish(&name)?;
            Ok((name, file))
        };
        Ok(Self { batches: Some(batches), thread: Some(std::thread::spawn(write)) })
    }

    pub fn write(&mut self, batch: RecordBatch) -> Result<(), ExportError> {
        let sent = self.batches.as_ref().is_some_and(|batches| batches.send(batch).is_ok());
        // Nobody listens when writing has failed.
        if sent { Ok(()) } else { self.finish().map(drop) }
    }

    pub fn commit(mut self) -> Result<(), ExportError> {
        let (name, file) = self.finish()?;
        name.commit(&file)
    }

    /// Waits for the thread, and takes what it made.
    fn finish(&mut self) -> Written {
        self.batches = None;
        let joined = self.thread.take().map(JoinHandle::join);
        joined.and_then(Result::ok).unwrap_or(Err(ExportError::Died))
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        // What is not committed is removed before anybody looks.
        if self.thread.is_some() {
            let _ = self.finish();
        }
    }
}

impl Writer {
    fn create(name: &Partial, file: File, format: Format, schema: &SchemaRef) -> Result<Self, ExportError> {
        Ok(match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_max_row_group_row_count(Some(ROW_GROUP))
                    .build();
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
                    .map_err(|source| ExportError::Parquet { path: name.name.clone(), source })?;
                Self::Parquet(Box::new(writer))
            }
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().buffer_capacity(1 << 16).from_writer(file);
                writer
                    .write_record(schema.fields().iter().map(|field| field.name()))
                    .map_err(|error| name.fail(error.into()))?;
                Self::Csv(Box::new(writer))
            }
            Format::Jsonl => Self::Jsonl(BufWriter::with_capacity(1 << 16, file)),
        })
    }

    fn write(&mut self, batch: &RecordBatch, name: &Partial) -> Result<(), ExportError> {
        match self {
            Self::Parquet(writer) => {
                let written = writer.write(batch);
                // Rows with long lists make a row group before there are many of them.
                let full = writer.in_progress_size() >= ROW_GROUP_BYTES;
                written
                    .and_then(|()| if full { writer.flush() } else { Ok(()) })
                    .map_err(|source| ExportError::Parquet { path: name.name.clone(), source })
            }
            Self::Csv(writer) => write_csv(writer, batch, name),
            Self::Jsonl(writer) => write_jsonl(writer, batch, name),
        }
    }

    fn finish(self, name: &Partial) -> Result<File, ExportError> {
        match self {
            Self::Parquet(writer) => {
                writer.into_inner().map_err(|source| ExportError::Parquet { path: name.name.clone(), source })
            }
            Self::Csv(writer) => writer
                .into_inner()
                .map_err(|error| name.fail(std::io::Error::other(error.error().to_string()))),
            Self::Jsonl(writer) => writer
                .into_inner()
                .map_err(|error| name.fail(std::io::Error::other(error.error().to_string()))),
        }
    }
}

fn write_csv(writer: &mut csv::Writer<File>, batch: &RecordBatch, name: &Partial) -> Result<(), ExportError> {
    let options = FormatOptions::default();
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>()?;
    for row in 0..batch.num_rows() {
        for column in &columns {
            writer.write_field(column.value(row).to_string()).map_err(|error| name.fail(error.into()))?;
        }
        writer.write_record(None::<&[u8]>).map_err(|error| name.fail(error.into()))?;
    }
    Ok(())
}

fn write_jsonl(writer: &mut BufWriter<File>, batch: &RecordBatch, name: &Partial) -> Result<(), ExportError> {
    let schema = batch.schema();
    let options = FormatOptions::default();
    // Times and the like as text.
    let texts: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>()?;
    for row in 0..batch.num_rows() {
        let mut object = serde_json::Map::new();
        for ((field, column), text) in schema.fields().iter().zip(batch.columns()).zip(&texts) {
            let value = if column.is_null(row) {
                serde_json::Value::Null
            } else {
                json(column.as_ref(), row).unwrap_or_else(|| text.value(row).to_string().into())
            };
            object.insert(field.name().clone(), value);
        }
        serde_json::to_writer(&mut *writer, &object)
            .map_err(std::io::Error::from)
            .and_then(|()| writer.write_all(b"\n"))
            .map_err(|error| name.fail(error))?;
    }
    Ok(())
}

/// A cell as a JSON number, text or list; none for other types.
fn json(column: &dyn Array, row: usize) -> Option<serde_json::Value> {
    Some(match column.data_type() {
        DataType::UInt64 => column.as_primitive_opt::<UInt64Type>()?.value(row).into(),
        DataType::UInt32 => column.as_primitive_opt::<UInt32Type>()?.value(row).into(),
        DataType::Float64 => column.as_primitive_opt::<Float64Type>()?.value(row).into(),
        DataType::Float32 => f64::from(column.as_primitive_opt::<Float32Type>()?.value(row)).into(),
        DataType::Utf8 => column.as_string_opt::<i32>()?.value(row).into(),
        DataType::Dictionary(..) => {
            let words = column.as_dictionary_opt::<Int32Type>()?;
            json(words.values().as_ref(), words.key(row)?)?
        }
        DataType::List(_) => {
            let items = column.as_list_opt::<i32>()?.value(row);
            (0..items.len()).map(|item| json(items.as_ref(), item)).collect::<Option<Vec<_>>>()?.into()
        }
        _ => return None,
    })
}
