//! What both programs need of the world: etcd, the object store, the record a worker registers, secrets,
//! encryption, logging.
//!
//! Apart from the pure core, behind the feature `runtime`.

pub mod etcd;
pub mod flags;
mod logging;
pub mod objects;
mod record;
pub mod secret;
pub mod tls;

pub use logging::{LogFormat, init_logging};
pub use record::WorkerRecord;

/// The name that the certificate of a coordinator is for, beside those it is reached at: workers take orders from no other.
pub const COORDINATOR_NAME: &str = "evenkeel-coordinator";

/// Milliseconds since the Unix epoch, by this machine's clock.
#[must_use]
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
