//! What a trial yields, and its Arrow form: the same columns on the wire and in the store's segments.

mod columns;
mod outcome;

pub use columns::{DecodeError, decode, encode, from_ipc, schema, to_ipc};
pub use outcome::{CurvePoint, ExecutionRecord, Measures, Prediction, Status, TrialOutcome, TrialRecord};
