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
mod watching;
mod workers;

pub use args::Cli;

use std::process::ExitCode;

use evenkeel_common::runtime::LogFormat;
use evenkeel_common::runtime::telemetry::{Service, Telemetry};
use evenkeel_common::runtime::trace::{self, Span, SpanKind, TraceContext};

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
    let name = match &cli.command {
        // One has a name and a life of its own; the others are over before anybody could look.
        Command::Coordinator(_)
        | Command::Plan(_)
        | Command::Schema
        | Command::Certs(_)
        | Command::Fsck(_)
        | Command::Gc(_)
        | Command::Completions { .. } => return carry_out(cli.command).await,
        Command::Run(_) => "evenkeel run",
        Command::Submit(_) => "evenkeel submit",
        Command::Watch(_) => "evenkeel watch",
        Command::Cancel(_) | Command::Pause(_) | Command::Resume(_) | Command::Retry(_) => "evenkeel change",
        Command::Results(_) | Command::Report(_) => "evenkeel results",
        _ => "evenkeel",
    };
    let service = Service { name: "evenkeel", instance: std::process::id().to_string() };
    let level = if std::env::var_os("RUST_LOG").is_some() { "info" } else { "error" };
    let telemetry = Telemetry::start(&service, level, LogFormat::Text).map_err(Failure::usage)?;
    // Whoever calls this program may trace it: the variable is the environment's form of the header.
    let caller = std::env::var("TRACEPARENT").ok().and_then(|text| TraceContext::parse(&text));
    let span = trace::is_on().then(|| {
        let context = caller.map_or_else(TraceContext::root, TraceContext::child);
        Span::begin(name, SpanKind::Internal, context, caller)
    });
    let outcome = match span.as_ref().map(|span| span.context).or(caller) {
        Some(context) => context.within(carry_out(cli.command)).await,
        None => carry_out(cli.command).await,
    };
    if let Some(mut span) = span.filter(|span| span.context.is_sampled()) {
        span.error = outcome.as_ref().err().map(ToString::to_string);
        span.finish();
    }
    telemetry.shutdown().await;
    outcome
}

async fn carry_out(command: Command) -> Result<Exit, Failure> {
    match command {
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
        Command::Trace(args) => watching::trace(args).await,
        Command::LogLevel(args) => watching::log_level(args).await,
    }
}
