//! What is kept as JSON: what was submitted, and how sweeps stand. Each object carries the hash of what it says.

use bytes::Bytes;
use evenkeel_common::FORMAT_VERSION;
use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::inputs::{FeatureInfo, FileRecord, InputInfo, InputRecord};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::core::StatusCounts;

/// `spec.json`: what was submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepRecord {
    /// Version of the store's format.
    pub format_version: u32,
    /// Its id.
    pub sweep_id: SweepId,
    /// When it was submitted first, in milliseconds since the Unix epoch.
    pub submitted_ms: i64,
    /// The canonical spec.
    pub spec: serde_json::Value,
    /// Its datasets and models that come in files, whose bytes lie in `data/`: datasets in the spec's order, then models.
    #[serde(default)]
    pub inputs: Vec<InputRecord>,
    /// The span that it was submitted in (W3C Trace Context), where somebody traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// How format 1 listed its feature files.
    #[serde(default, skip_serializing)]
    features: Vec<FeatureRecordV1>,
}

/// A feature dataset of a sweep in format 1.
#[derive(Clone, Debug, Deserialize)]
struct FeatureRecordV1 {
    info: FeatureInfo,
    file: String,
    #[serde(default)]
    labels: Option<String>,
}

impl SweepRecord {
    /// A sweep that is submitted now.
    #[must_use]
    pub fn new(
        sweep_id: SweepId,
        submitted_ms: i64,
        spec: serde_json::Value,
        inputs: Vec<InputRecord>,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            sweep_id,
            submitted_ms,
            spec,
            inputs,
            traceparent: None,
            features: Vec::new(),
        }
    }

    /// What an older format said otherwise, as this one says it.
    pub(super) fn upgrade(mut self) -> Self {
        for feature in self.features.drain(..) {
            let file = |role: &str, hash| FileRecord { role: role.to_owned(), hash };
            let mut files = vec![file("features", feature.file)];
            files.extend(feature.labels.map(|hash| file("labels", hash)));
            self.inputs.push(InputRecord { info: InputInfo::Features(feature.info), files });
        }
        self
    }
}

/// How a sweep stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredState {
    /// To be worked on.
    #[default]
    Running,
    /// Waits for the user.
    Paused,
    /// Every trial is accounted for.
    Completed,
    /// Given up by the user.
    Cancelled,
}

/// `state/<epoch>-<seq>.json`: a transition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateRecord {
    /// Version of the store's format.
    pub format_version: u32,
    /// The state from here on.
    pub state: StoredState,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Time spent running until then, in seconds.
    pub seconds: f64,
    /// How its trials had ended, for a sweep that has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<StoredCounts>,
    /// Failed rows of all segments before this transition no longer count: they are to be tried again.
    #[serde(default)]
    pub retries_failed: bool,
}

/// Trials by how they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the statuses of results")]
pub struct StoredCounts {
    pub completed: u64,
    pub diverged: u64,
    pub failed: u64,
}

impl From<StatusCounts> for StoredCounts {
    fn from(counts: StatusCounts) -> Self {
        Self { completed: counts.completed, diverged: counts.diverged, failed: counts.failed }
    }
}

impl From<StoredCounts> for StatusCounts {
    fn from(counts: StoredCounts) -> Self {
        Self { completed: counts.completed, diverged: counts.diverged, failed: counts.failed }
    }
}

/// How a sealed object begins: a hash of all that follows it.
const SEAL: &str = r#"{"blake3":""#;

/// A record as JSON, with a hash of itself in front. Programs that know nothing of hashes see one more field.
pub(super) fn seal(record: &impl Serialize) -> Bytes {
    let text = serde_json::to_string_pretty(record).unwrap_or_default();
    let rest = format!("\",{}", text.strip_prefix('{').unwrap_or(&text));
    format!("{SEAL}{}{rest}", ContentHash::of(rest.as_bytes()).to_hex()).into()
}

/// Reads a record and checks its hash. Those of earlier programs have none.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(path: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { path: path.to_owned(), reason };
    let sealed = bytes.strip_prefix(SEAL.as_bytes()).and_then(|rest| rest.split_at_checked(64));
    if let Some((hash, rest)) = sealed
        && ContentHash::of(rest).to_hex().as_bytes() != hash
    {
        return Err(corrupt("its content is not what it was when it was written (BLAKE3)".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))
}

pub(super) fn check_version(path: &str, version: u32) -> Result<(), StoreError> {
    if version > FORMAT_VERSION {
        let reason = format!("it has format version {version}, this program knows up to {FORMAT_VERSION}");
        return Err(StoreError::Corrupt { path: path.to_owned(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_byte_of_a_record_changes_it_is_noticed_and_older_ones_are_read() {
        let record = StateRecord {
            format_version: FORMAT_VERSION,
            state: StoredState::Paused,
            at_ms: 1_700_000_000_123,
            seconds: 0.1 + 0.2,
            counts: None,
            retries_failed: true,
        };
        let sealed = seal(&record);
        let read: StateRecord = parse("p", &sealed).expect("whole");
        assert_eq!((read.state, read.seconds, read.retries_failed), (StoredState::Paused, 0.1 + 0.2, true));
        let text = |record: &StateRecord| format!("{record:?}");
        for at in 0..sealed.len() {
            let mut bytes = sealed.to_vec();
            bytes[at] ^= 1;
            // A letter of the hash's name: the hash is then not looked for.
            let unsealed = at < SEAL.len();
            let found = parse::<StateRecord>("p", &bytes);
            assert!(
                found.is_err() || (unsealed && found.is_ok_and(|found| text(&found) == text(&record))),
                "byte {at}"
            );
        }
        let older = serde_json::to_vec(&record).expect("json");
        assert_eq!(text(&parse("p", &older).expect("older")), text(&record));
    }
}
