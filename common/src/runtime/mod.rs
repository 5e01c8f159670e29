//! What both programs need of the world: etcd, the object store, the record a worker registers, secrets,
//! encryption, and what they tell of themselves: log lines, traces, metrics.
//!
//! Apart from the pure core, behind the feature `runtime`.

pub mod etcd;
pub mod flags;
mod logging;
pub mod net;
pub mod objects;
mod record;
pub mod secret;
pub mod telemetry;
pub mod tls;
pub mod trace;

pub use logging::{LogFormat, check_log_filter, set_log_filter};
pub use record::WorkerRecord;

/// The name that the certificate of a coordinator is for, beside those it is reached at: workers take orders from no other.
pub const COORDINATOR_NAME: &str = "evenkeel-coordinator";

/// Runs work that takes a while on a thread of its own; on the caller's where there is but one (in a simulation, whose
/// course must not depend on how the system runs threads).
///
/// # Errors
/// When the work panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => tokio::task::spawn_blocking(work).await,
    }
}

/// Milliseconds since the Unix epoch, by this machine's clock.
#[must_use]
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
