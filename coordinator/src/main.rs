//! `evenkeel`: runs stability sweeps, here or on a cluster.

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    evenkeel_coordinator::cli::run(evenkeel_coordinator::cli::Cli::parse())
}
