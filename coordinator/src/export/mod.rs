//! From records to an output directory.
//!
//! Records arrive sorted by trial number, so the trials of a group are neighbours, and so are the groups of a
//! dataset: tables are written as records pass, and only per-group aggregates are kept. Every file is written
//! under another name and gets its own at the end, so that a crash leaves no half file under a name that counts.
//!
//! | module | holds |
//! |---|---|
//! | `file` | one table in Parquet, CSV or JSON Lines, under a temporary name |
//! | `rows` | columns that are filled row by row |
//! | `outputs` | how far the seeds of a group part in predictions and representations |
//! | `points` | names and canonical forms of dataset and strategy points, each resolved once |
//! | `tables` | what each table holds |
//! | `groups` | the seeds of one configuration |
//! | `pairs` | groups against those of the baseline |
//! | `theory` | the bound of a group |
//! | `thin` | samples of what there is too much of to keep |
//! | `tally` | what the summary and the report need, in bounded memory |
//! | `summary` | what is said at the end |
//! | `ranks` | strategies ranked over datasets |
//! | `slopes` | how the leave-one-out distance depends on n, γ, H and t |

mod file;
mod groups;
mod outputs;
mod pairs;
mod points;
mod ranks;
mod rows;
mod slopes;
mod summary;
mod tables;
mod tally;
mod theory;
mod thin;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use arrow::error::ArrowError;
use evenkeel_common::grid::Grid;
use evenkeel_common::id::SweepId;
use evenkeel_common::results::{Status, TrialRecord};
use evenkeel_common::trial::TrialIds;
use parquet::errors::ParquetError;

use crate::report::Figure;
use file::{TableFile, TextFile};
use groups::{Group, Groups};
pub use outputs::PartingSummary;
pub(crate) use points::Lines;
use points::Points;
pub use ranks::{MeanRank, Ranks};
pub use slopes::{HeadsSlope, Slope};
pub use summary::{Failure, LineSummary, Summary};
use tables::Tables;
use tally::Tally;
pub use tally::{Alike, Block, Curve, CurveAt, GroupPoint, PlotLine, Plots};
pub use thin::Thinned;

/// Folder of the pictures.
pub const FIGURES: &str = "figures";
/// Rows that are turned into columns together. Fixed, so that files do not depend on the size of windows.
const BATCH_ROWS: usize = 8192;
/// Values that are turned into columns together, in bytes.
const BATCH_BYTES: usize = 32 << 20;

/// Format of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    #[default]
    Parquet,
    /// CSV with a header; lists as JSON.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl Format {
    /// The ending of its files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "parquet" => Ok(Self::Parquet),
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::Jsonl),
            other => Err(format!("unknown format \"{other}\"; allowed: `parquet`, `csv`, `jsonl`")),
        }
    }
}

/// How a sweep was run: what its results do not depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunInfo {
    /// Ids of the workers that gave results.
    pub workers: Vec<String>,
    /// Their devices and CPU models.
    pub devices: Vec<String>,
    /// How long it took, in seconds.
    pub wall_seconds: Option<f64>,
    /// Version of the program.
    pub version: String,
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub started_ms: Option<i64>,
    /// The command that ran it.
    pub command: Option<String>,
}

/// Why an output directory could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Parquet, or the file system below it.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// Columns that do not fit together: a mistake in this module.
    #[error("columns could not be built: {0}")]
    Arrow(#[from] ArrowError),
    /// Records out of order.
    #[error("trial {found} came after trial {previous}; records must rise from one to the next")]
    Order {
        /// The trial before.
        previous: u64,
        /// The trial that came.
        found: u64,
    },
    /// A record of another sweep.
    #[error("trial {index} is not in the grid of {trials} trials")]
    OutOfGrid {
        /// The trial.
        index: u64,
        /// Trials of the grid.
        trials: u64,
    },
    /// The thread of a table died: a mistake in this module.
    #[error("writing a table died")]
    Died,
    /// A plot could not be drawn: a mistake in the report.
    #[error("a plot could not be drawn: {0}")]
    Plot(String),
}

/// Writes the output directory of a sweep. Dropped without [`finish`](Self::finish), it leaves nothing behind.
pub struct Exporter {
    dir: PathBuf,
    grid: Grid,
    sweep: SweepId,
    points: Points,
    tables: Tables,
    groups: Groups,
    tally: Tally,
    /// A group, and the ids of its trials.
    ids: Option<(u64, TrialIds)>,
    /// Trials, and bytes of their outputs, that tables were not flushed after.
    waiting: (usize, usize),
    previous: Option<u64>,
}

impl Exporter {
    /// Opens the tables in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// When a file cannot be created.
    pub fn create(dir: &Path, grid: Grid, sweep: &SweepId, format: Format) -> Result<Self, ExportError> {
        std::fs::create_dir_all(dir).map_err(|source| ExportError::Io { path: dir.to_owned(), source })?;
        let points = Points::new(&grid);
        Ok(Self {
            dir: dir.to_owned(),
            tables: Tables::create(dir, format, &grid)?,
            groups: Groups::new(&grid, &points),
            tally: Tally::new(&grid, &points),
            points,
            grid,
            sweep: sweep.clone(),
            ids: None,
            waiting: (0, 0),
            previous: None,
        })
    }

    /// Adds records, sorted by trial number; numbers rise strictly from call to call as well.
    ///
    /// # Errors
    /// When they do not, when a trial is not in the grid, or when a file cannot be written.
    pub fn push(&mut self, records: &[TrialRecord]) -> Result<(), ExportError> {
        for record in records {
            let found = record.outcome.trial_index;
            if let Some(previous) = self.previous.filter(|previous| *previous >= found) {
                return Err(ExportError::Order { previous, found });
            }
            self.previous = Some(found);
            self.add(record)?;
            self.waiting.0 += 1;
            self.waiting.1 += record.outcome.outputs.bytes();
            if self.waiting.0 >= BATCH_ROWS || self.waiting.1 >= BATCH_BYTES {
                self.waiting = (0, 0);
                self.tables.flush()?;
            }
        }
        Ok(())
    }

    fn add(&mut self, record: &TrialRecord) -> Result<(), ExportError> {
        let outcome = &record.outcome;
        let index = outcome.trial_index;
        let out_of_grid = || ExportError::OutOfGrid { index, trials: self.grid.len() };
        let at = self.grid.coordinates(index).ok_or_else(out_of_grid)?;
        let place = self.points.place(&self.grid, &at, index).ok_or_else(out_of_grid)?;
        let group = index / self.grid.seeds().max(1);
        let ids = match self.ids.take() {
            Some((of, ids)) if of == group => ids,
            _ => {
                let (dataset, model, strategy) =
                    (&place.dataset.json, &place.model.json, &place.strategy.json);
                TrialIds::new(dataset, model, strategy, &self.grid.settings())
            }
        };
        let id = ids.of(place.seed);
        self.ids = Some((group, ids));
        self.tables.push(&self.sweep, &id, &place, record);
        if let Some(group) = self.groups.push(&at, &place, outcome) {
            end_group(&group, &mut self.groups, &mut self.tables, &mut self.tally)?;
        }
        self.tally.push(&at, outcome);
        Ok(())
    }

    /// Writes what is left, the summary and the report, and gives every file its name. Trials may be missing
    /// (still to come, or cancelled): the summary says `complete: false` then.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(mut self, run: &RunInfo) -> Result<Summary, ExportError> {
        if let Some(group) = self.groups.take() {
            end_group(&group, &mut self.groups, &mut self.tables, &mut self.tally)?;
        }
        self.groups.finish(&mut self.tables, &mut self.tally)?;
        self.tables.flush_all()?;
        let summary = summary::summarize(&self.grid, &self.sweep, &self.tally, self.groups.left_out(), run);
        let yaml = self.grid.spec().to_canonical_yaml();
        let plots = self.tally.plots();
        let drawn = crate::report::figures(&plots, &summary)?;
        let page = crate::report::page(&summary, &plots, &drawn, &yaml)?;
        let mut files = self.figures(&drawn)?;
        for (name, text) in [
            ("spec.yaml", yaml),
            ("report.html", page),
            ("summary.json", format!("{:#}\n", summary.to_json())),
        ] {
            files.push(TextFile::create(&self.dir, name, &text)?);
        }
        self.tables.commit()?;
        // The summary last: where it is, everything else is.
        files.into_iter().try_for_each(TextFile::commit)?;
        Ok(summary)
    }

    /// Each picture and its data, in a folder of their own.
    fn figures(&self, drawn: &[Figure]) -> Result<Vec<TextFile>, ExportError> {
        let dir = self.dir.join(FIGURES);
        std::fs::create_dir_all(&dir).map_err(|source| ExportError::Io { path: dir.clone(), source })?;
        let mut files = Vec::with_capacity(2 * drawn.len());
        for figure in drawn {
            files.push(TextFile::create(&dir, &format!("{}.svg", figure.slug), &figure.drawing.file)?);
            files.push(TextFile::create(&dir, &format!("{}.csv", figure.slug), &figure.data.csv()?)?);
        }
        Ok(files)
    }
}

/// Names of the files of an output directory, sorted; those of pictures with their folder, `figures/…`.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for (folder, prefix) in [(dir.to_owned(), String::new()), (dir.join(FIGURES), format!("{FIGURES}/"))] {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().filter(|_| entry.path().is_file());
            names.extend(name.map(|name| format!("{prefix}{name}")));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a name is one that [`files`] gives: no way out of the output directory.
#[must_use]
pub fn is_output_name(name: &str) -> bool {
    let plain = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
    plain(name) || name.strip_prefix(FIGURES).and_then(|rest| rest.strip_prefix('/')).is_some_and(plain)
}

fn end_group(
    group: &Group,
    groups: &mut Groups,
    tables: &mut Tables,
    tally: &mut Tally,
) -> Result<(), ExportError> {
    tables.stability(group);
    tally.end_group(group);
    groups.keep(group, tables, tally)
}

/// Whether a status has measures that statistics take in: a diverged run is counted, but its numbers are no
/// values of the quantity.
fn measured(status: Status) -> bool {
    status == Status::Completed
}

#[cfg(test)]
pub(crate) mod tests;
