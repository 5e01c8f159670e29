//! `evenkeel-worker`: registers, takes packs of trials from a coordinator and trains them.

use std::process::ExitCode;

use clap::Parser as _;
use evenkeel_common::spec::Precision;
use evenkeel_worker::engine::EngineError;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, n, d, steps] = arguments.as_slice()
        && command == "bench-engine"
    {
        return bench_engine(n, d, steps);
    }
    if let [command, data, samples, steps, buckets, precision] = arguments.as_slice()
        && command == "bench-finetune"
    {
        return bench_finetune(data, samples, steps, buckets == "buckets", precision);
    }
    evenkeel_worker::run(evenkeel_worker::config::Args::parse())
}

/// For `make bench`: prints rates of full fine-tuning as JSON.
fn bench_finetune(data: &str, samples: &str, steps: &str, buckets: bool, precision: &str) -> ExitCode {
    let precision = match precision {
        "bf16" => Precision::Bf16,
        _ => Precision::Fp32,
    };
    let (Ok(samples), Ok(steps)) = (samples.parse(), steps.parse()) else {
        eprintln!(
            "error: usage: evenkeel-worker bench-finetune FOLDER SAMPLES STEPS buckets|plain fp32|bf16"
        );
        return ExitCode::from(2);
    };
    print(evenkeel_worker::finetune::bench::rates(data.as_ref(), samples, steps, buckets, precision))
}

fn print<T: serde::Serialize>(found: Result<T, EngineError>) -> ExitCode {
    match found {
        Ok(found) => {
            println!("{}", serde_json::to_string(&found).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}

/// For `make bench`: prints rates of the engine as JSON.
fn bench_engine(n: &str, d: &str, steps: &str) -> ExitCode {
    let (Ok(n), Ok(d), Ok(steps)) = (n.parse(), d.parse(), steps.parse()) else {
        eprintln!("error: usage: evenkeel-worker bench-engine SAMPLES FEATURES STEPS");
        return ExitCode::from(2);
    };
    print(evenkeel_worker::engine::bench::engine_ratios(n, d, steps))
}
