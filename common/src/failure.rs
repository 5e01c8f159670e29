//! Kinds of failure and what each means for the trials and for the worker.

use std::fmt;

/// Why a pack failed, as classified where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Something that may go away: an I/O error, a device fault, a panic, results that never came.
    Transient,
    /// The device had too little memory for the pack.
    OutOfMemory,
    /// The data of a trial cannot be read or do not fit its strategy.
    Data,
    /// Any other error that another attempt would only repeat.
    Permanent,
    /// The worker's process died while it ran the pack.
    WorkerCrashed,
    /// The pack was stopped on request.
    Cancelled,
    /// The worker is leaving and hands the pack back.
    WorkerDraining,
}

/// What the scheduler does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Charge an attempt and try again after a pause, elsewhere if possible; bisect after the second.
    Retry,
    /// Charge an attempt and try again at once; bisect after the second.
    RetryNow,
    /// Halve the pack and try the halves at once. Charges an attempt only to a trial that is alone.
    Halve,
    /// Another attempt is useless: bisect until the culprit is alone, then record it as failed.
    Isolate,
    /// Nobody's fault: back to the queue at once, no attempt charged.
    Requeue,
}

impl FailureKind {
    /// What to do about a failure of this kind.
    #[must_use]
    pub fn disposition(self) -> Disposition {
        match self {
            FailureKind::Transient => Disposition::Retry,
            FailureKind::WorkerCrashed => Disposition::RetryNow,
            FailureKind::OutOfMemory => Disposition::Halve,
            FailureKind::Data | FailureKind::Permanent => Disposition::Isolate,
            FailureKind::Cancelled | FailureKind::WorkerDraining => Disposition::Requeue,
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Transient,
        Self::OutOfMemory,
        Self::Data,
        Self::Permanent,
        Self::WorkerCrashed,
        Self::Cancelled,
        Self::WorkerDraining,
    ];

    /// From its name; `None` for one that a newer peer may know.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name used in records and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Transient => "transient",
            FailureKind::OutOfMemory => "out_of_memory",
            FailureKind::Data => "data",
            FailureKind::Permanent => "permanent",
            FailureKind::WorkerCrashed => "worker_crashed",
            FailureKind::Cancelled => "cancelled",
            FailureKind::WorkerDraining => "worker_draining",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
