//! What comes from outside, read from whatever bytes: it is read or refused with a reason, and nothing else happens. The
//! targets of `make fuzz` and the bounded run of the tests call the same function.

use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use evenkeel_common::grid::Grid;
use evenkeel_common::results::{
    ExecutionRecord, Measures, Status, TestOutputs, TrialOutcome, TrialRecord, batches_from_ipc, decode,
    encode, from_ipc, to_ipc, trials_of,
};
use evenkeel_common::spec::Spec;
use evenkeel_common::table::{TableSource, read as read_table};
use evenkeel_common::text::{Task, read_task};
use evenkeel_proto::v1;
use prost::Message as _;

/// A kind of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The spec of a study, and the grid it makes.
    Spec,
    /// A feature table as CSV.
    Csv,
    /// As Parquet.
    Parquet,
    /// As NumPy's format.
    Npy,
    /// A task's tab-separated file.
    Tsv,
    /// A task's file of JSON lines.
    JsonLines,
    /// Results as a worker sends them.
    Records,
    /// Messages of the protocol.
    Message,
}

impl Input {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Spec,
        Self::Csv,
        Self::Parquet,
        Self::Npy,
        Self::Tsv,
        Self::JsonLines,
        Self::Records,
        Self::Message,
    ];

    /// One that is as it should be, to begin from.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn valid(self) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Spec => SPEC.as_bytes().to_vec(),
            Self::Csv => b"a,class,b\n1,x,0.25\n2.5,y,-7\n-3e2,x,0\n0,y,1e-3\n".to_vec(),
            Self::Parquet => table()?,
            Self::Npy => npy("(4, 2)", &[0.0, 1.0, -2.0, 3.0, 4.0, 5.5, 6.0, 7.0]),
            Self::Tsv => b"sentence\tlabel\na fine film\t1\na dull \"film\"\t0\n".to_vec(),
            Self::JsonLines => b"{\"question\": \"q\", \"passage\": \"p\", \"label\": true, \"idx\": 0}\n\
                {\"question\": \"r\", \"passage\": \"p\", \"label\": false, \"idx\": 1}\n"
                .to_vec(),
            Self::Records => to_ipc(&encode(&records())?)?,
            Self::Message => v1::WorkResponse {
                message: Some(v1::work_response::Message::Failed(v1::PackFailed {
                    epoch: 3,
                    pack: 7,
                    kind: "transient".to_owned(),
                    message: "no luck".to_owned(),
                })),
            }
            .encode_to_vec(),
        })
    }

    /// Reads bytes as this kind of input. Gives whether they were accepted.
    ///
    /// # Errors
    /// When something is accepted that is not the same when written and read again, or is refused without saying which
    /// file it is about.
    pub fn feed(self, bytes: &[u8]) -> anyhow::Result<bool> {
        const FILE: &str = "some/file";
        let named = |error: String, file: &str| {
            anyhow::ensure!(
                error.contains(file) && error.len() > file.len() + 4,
                "says too little: {error:?}"
            );
            Ok(false)
        };
        match self {
            Self::Spec => {
                let spec = match Spec::parse(FILE, &String::from_utf8_lossy(bytes)) {
                    Ok(spec) => spec,
                    Err(error) => return named(error.to_string(), FILE),
                };
                let canonical = spec.to_canonical_json();
                let again = Spec::parse(FILE, &canonical).context("what was written cannot be read")?;
                anyhow::ensure!(
                    again.to_canonical_json() == canonical,
                    "read again it is another: {canonical}"
                );
                if let Ok(grid) = Grid::new(Arc::new(spec), &[]) {
                    for index in [0, grid.len() / 2, grid.len().saturating_sub(1)] {
                        anyhow::ensure!(grid.trial(index).is_some() == (index < grid.len()), "trial {index}");
                    }
                }
                Ok(true)
            }
            Self::Csv | Self::Parquet | Self::Npy => {
                let path = match self {
                    Self::Csv => "some/file.csv",
                    Self::Parquet => "some/file.parquet",
                    _ => "some/file.npy",
                };
                let classes = npy("(4,)", &[0.0, 1.0, 0.0, 1.0]);
                let labels = (self == Self::Npy).then_some(("labels.npy", classes.as_slice()));
                let label = (self != Self::Npy).then_some("class");
                match read_table(&TableSource { path, bytes, label, labels, drop: &[] }) {
                    Ok(table) => {
                        let cells = u64::from(table.rows) * u64::from(table.features);
                        anyhow::ensure!(
                            table.x.len() as u64 == cells && table.x.iter().all(|x| x.is_finite())
                        );
                        anyhow::ensure!(table.y.iter().all(|y| (*y as usize) < table.classes.len()));
                        Ok(true)
                    }
                    // It may be the file of classes that does not fit.
                    Err(error) => named(error.to_string().replace("labels.npy", path), path),
                }
            }
            Self::Tsv | Self::JsonLines => {
                let task = if self == Self::Tsv { Task::Sst2 } else { Task::Boolq };
                let strict = read_task(task, FILE, bytes, false);
                let lenient = read_task(task, FILE, bytes, true);
                anyhow::ensure!(strict.is_err() || lenient == strict, "leniency changes what is well-formed");
                strict.map_or_else(|error| named(error.to_string(), FILE), |_| Ok(true))
            }
            Self::Records => {
                let _ = from_ipc(bytes);
                let Ok(batches) = batches_from_ipc(bytes) else { return Ok(false) };
                for batch in batches {
                    // What is wrong with a row is found when it is looked at; what is taken in can be read for ever.
                    if trials_of(&batch).is_err() {
                        return Ok(false);
                    }
                    let records = decode(&batch).context("what is taken in cannot be read")?;
                    let again = from_ipc(&to_ipc(&encode(&records)?)?).context("again")?;
                    anyhow::ensure!(
                        format!("{again:?}") == format!("{records:?}"),
                        "read again they are others"
                    );
                }
                Ok(true)
            }
            Self::Message => {
                let work = v1::WorkResponse::decode(bytes);
                let _ = (v1::WorkRequest::decode(bytes), v1::SubmitRequest::decode(bytes));
                if let Ok(message) = &work {
                    let again = v1::WorkResponse::decode(message.encode_to_vec().as_slice())?;
                    anyhow::ensure!(
                        format!("{again:?}") == format!("{message:?}"),
                        "read again it is another"
                    );
                }
                Ok(work.is_ok())
            }
        }
    }
}

const SPEC: &str = "
apiVersion: evenkeel/v1
name: a-study
datasets:
  - synthetic: {generator: separable, samples: [60, 120], features: 16, margin: {logspace: [0.2, 2.0, 3]}, instances: 2}
strategies:
  - &head {name: head, setting: head, steps: 1000, learning_rate: 0.1}
  - {<<: *head, name: mhloss, mhloss: {heads: 4}}
seeds: 5
stability: {leave_one_out: 2}
";

fn table() -> anyhow::Result<Vec<u8>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Float64, false),
        Field::new("class", DataType::Utf8, false),
    ]));
    let a = Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0, 4.0]));
    let class = Arc::new(StringArray::from(vec!["x", "y", "x", "y"]));
    let batch = RecordBatch::try_new(schema.clone(), vec![a, class])?;
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(bytes)
}

/// NumPy's file of an array of this shape (numpy.lib.format, version 1.0).
fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{dictionary:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(118_u16.to_le_bytes());
    bytes.extend(header.as_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

fn records() -> Vec<TrialRecord> {
    (0..4_u64)
        .map(|trial| TrialRecord {
            outcome: TrialOutcome {
                trial_index: trial,
                status: if trial == 2 { Status::Failed } else { Status::Completed },
                error: (trial == 2).then(|| "transient: no luck".to_owned()),
                measures: Measures { score: Some(trial as f64 / 7.0), ..Measures::default() },
                distances: None,
                curve: Vec::new(),
                outputs: TestOutputs::default(),
            },
            execution: ExecutionRecord::default(),
        })
        .collect()
}
