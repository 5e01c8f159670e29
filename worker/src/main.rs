//! `evenkeel-worker`: registers, takes packs of trials from a coordinator and trains them.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    evenkeel_worker::run(evenkeel_worker::config::Args::parse())
}
