//! `evenkeel-worker`: registers, takes packs of trials from a coordinator and trains them.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, n, d, steps] = arguments.as_slice()
        && command == "bench-engine"
    {
        return bench_engine(n, d, steps);
    }
    evenkeel_worker::run(evenkeel_worker::config::Args::parse())
}

/// For `make bench`: prints rates of the engine as JSON.
fn bench_engine(n: &str, d: &str, steps: &str) -> ExitCode {
    let (Ok(n), Ok(d), Ok(steps)) = (n.parse(), d.parse(), steps.parse()) else {
        eprintln!("error: usage: evenkeel-worker bench-engine SAMPLES FEATURES STEPS");
        return ExitCode::from(2);
    };
    match evenkeel_worker::engine::bench::engine_ratios(n, d, steps) {
        Ok(ratios) => {
            println!("{}", serde_json::to_string(&ratios).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}
