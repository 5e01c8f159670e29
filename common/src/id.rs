//! Identifiers as types of their own, so that one is never passed for another.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Identifies a sweep: `<name>-<first ten hex digits of the identity hash>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SweepId(Arc<str>);

/// An identifier that came from outside and is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{found}` is not a sweep id: expected lower-case letters, digits and dashes, 1 to 80 of them")]
pub struct InvalidSweepId {
    found: String,
}

impl SweepId {
    /// Checks an id that came from outside.
    ///
    /// # Errors
    /// When it is empty, too long, or holds anything but `[a-z0-9-]`: ids become paths in the store.
    pub fn parse(text: &str) -> Result<Self, InvalidSweepId> {
        let valid = (1..=80).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-');
        if valid { Ok(Self(Arc::from(text))) } else { Err(InvalidSweepId { found: text.to_owned() }) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SweepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A BLAKE3 hash of 32 bytes, written as hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Hashes bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash as 64 hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// Identifies a trial by what it computes: the first 16 bytes of the hash of its canonical coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrialId(pub [u8; 16]);

impl fmt::Display for TrialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' - 10 + value });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_id_cannot_leave_its_folder() {
        for bad in ["", "..", "a/b", "A", "-a", "a.b", &"a".repeat(81)] {
            assert!(SweepId::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(SweepId::parse("margin-1a2b").map(|id| id.to_string()), Ok("margin-1a2b".into()));
    }

    #[test]
    fn ids_are_written_in_lower_case_hexadecimal() {
        let bytes: [u8; 16] = std::array::from_fn(|i| (i * 17) as u8);
        assert_eq!(TrialId(bytes).to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(TrialId([0x0a; 16]).to_string(), "0a".repeat(16));
    }
}
