//! What a trial yields, and its Arrow form: the same columns on the wire and in the store's segments.

mod batch;
mod columns;
mod outcome;
mod overview;

pub use batch::{batches_from_ipc, concat, filter, trials_of};
pub use columns::{DecodeError, decode, encode, from_ipc, schema, to_ipc};
pub use outcome::{
    CurvePoint, ExecutionRecord, Features, Measures, Status, TestOutputs, TrialOutcome, TrialRecord,
};
pub use overview::{Overview, OverviewRow, errors_of, overview_of};
