//! The commands of `evenkeel`.

mod args;
mod certs;
mod client;
mod compare;
mod connection;
mod coordinator;
mod exit;
mod local;
mod plan;
mod progress;
mod upkeep;
mod workers;

pub use args::Cli;

use std::process::ExitCode;

use self::args::Command;
use self::exit::{Exit, Failure};

/// Runs a command line.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    // The only provider of cryptography in the program; an error would say that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::unavailable(format!("no threads: {error}")).report(),
    };
    let outcome = runtime.block_on(dispatch(cli));
    // Blocking tasks that are left (a read from a terminal) must not keep the program.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

async fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Run(args) => local::run(args).await,
        Command::Plan(args) => plan::plan(&args),
        Command::Schema => plan::schema(),
        Command::Coordinator(args) => coordinator::serve(*args).await,
        Command::Certs(args) => certs::certs(&args),
        Command::Fsck(args) => upkeep::fsck(args).await,
        Command::Gc(args) => upkeep::gc(args).await,
        Command::Completions { shell } => plan::completions(shell),
        Command::Submit(args) => client::submit(args).await,
        Command::List(args) => client::list(args).await,
        Command::Status(args) => client::status(args).await,
        Command::Watch(args) => client::watch(args).await,
        Command::Cancel(args) => client::change(args, evenkeel_proto::v1::SweepChange::Cancel).await,
        Command::Pause(args) => client::change(args, evenkeel_proto::v1::SweepChange::Pause).await,
        Command::Resume(args) => client::change(args, evenkeel_proto::v1::SweepChange::Resume).await,
        Command::Retry(args) => client::change(args, evenkeel_proto::v1::SweepChange::Retry).await,
        Command::Results(args) => client::results(args).await,
        Command::Report(args) => client::report(args).await,
        Command::Compare(args) => compare::compare(args).await,
        Command::Workers(args) => client::workers(args).await,
    }
}
