//! Exit codes, and how failures are told.

use std::fmt::Display;
use std::process::ExitCode;

use crate::collect::CollectError;
use crate::driver::CommandError;
use crate::server::StartError;
use crate::store::StoreError;
use crate::submission::SubmissionError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done; all trials accounted for without a failure.
    Fine = 0,
    /// Finished, but some trials failed.
    SomeFailed = 1,
    /// Bad usage or a bad spec.
    Usage = 2,
    /// Something is not reachable.
    Unavailable = 3,
    /// Ctrl-C; state is safe.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A command that was not carried out.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    pub fn unavailable(message: impl Display) -> Self {
        Self { exit: Exit::Unavailable, message: message.to_string() }
    }

    /// The same, with what led to it in front.
    pub fn in_context(self, context: impl Display) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
    }

    /// Tells the user and gives the exit code.
    pub fn report(self) -> ExitCode {
        eprintln!("error: {}", self.message);
        self.exit.into()
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<SubmissionError> for Failure {
    fn from(error: SubmissionError) -> Self {
        Self::usage(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Location { .. } => Self::usage(error),
            _ => Self::unavailable(error),
        }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Store(_) | CommandError::Stopping => Self::unavailable(error),
            _ => Self::usage(error),
        }
    }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        Self::unavailable(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::unavailable(error)
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        match status.code() {
            // Another attempt would end in the same way: the user has to change something.
            Code::Unauthenticated | Code::PermissionDenied => {
                Self::usage(format!("the coordinator refuses: {}", status.message()))
            }
            Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::ResourceExhausted => {
                Self::usage(status.message())
            }
            _ => Self::unavailable(format!("the coordinator: {}", status.message())),
        }
    }
}
