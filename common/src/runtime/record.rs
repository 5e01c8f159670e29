//! What a worker says of itself when it registers.

use serde::{Deserialize, Serialize};

/// A registration; in etcd as JSON under `/evenkeel/<cluster>/workers/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its id.
    pub id: String,
    /// Where its service listens, as `http://host:port`.
    pub address: String,
    /// Version of its protocol.
    pub protocol_version: u32,
    /// Version of its program.
    pub version: String,
    /// How many packs it runs at once.
    pub slots: u32,
    /// Its device and model.
    pub device: String,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_ms: i64,
}

impl WorkerRecord {
    /// Checks what came from outside.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if self.id.is_empty() || self.id.len() > 120 || !self.id.bytes().all(fine) {
            return Err(format!(
                "worker id {:?}: expected 1 to 120 letters, digits, dots and dashes",
                self.id
            ));
        }
        let url =
            url::Url::parse(&self.address).map_err(|error| format!("address {:?}: {error}", self.address))?;
        if !matches!(url.scheme(), "http" | "https") || url.port_or_known_default().is_none() {
            return Err(format!("address {:?}: expected http://host:port", self.address));
        }
        if !(1..=1024).contains(&self.slots) {
            return Err(format!("{} slots: expected 1 to 1024", self.slots));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_makes_no_sense_is_refused() {
        let good = WorkerRecord {
            id: "host-1.gpu0".into(),
            address: "http://10.0.0.1:7071".into(),
            protocol_version: 1,
            version: "0.1.0".into(),
            slots: 2,
            device: "cpu".into(),
            started_ms: 0,
        };
        assert_eq!(good.check(), Ok(()));
        for bad in [
            WorkerRecord { id: "../x".into(), ..good.clone() },
            WorkerRecord { id: String::new(), ..good.clone() },
            WorkerRecord { address: "10.0.0.1:7071".into(), ..good.clone() },
            WorkerRecord { address: "file:///etc".into(), ..good.clone() },
            WorkerRecord { slots: 0, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?} was accepted");
        }
    }
}
