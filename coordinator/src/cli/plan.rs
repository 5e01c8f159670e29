//! Commands that run nothing: `plan`, `schema`, `completions`.

use std::io::Write as _;

use clap::CommandFactory as _;
use evenkeel_common::grid::{dataset_name, model_name};
use evenkeel_common::inputs::{InputInfo, Place, places};
use evenkeel_common::spec::Spec;
use serde_json::json;

use super::args::{Cli, PlanArgs};
use super::exit::{Exit, Failure};
pub use crate::report::thousands;
use crate::submission::Sweep;

/// Floating-point operations a second of one CPU core, to guess with: a sgemm of this shape on a current server core.
const CORE_FLOPS: f64 = 6.0e10;
/// Work of a pack, in seconds.
const PACK_SECONDS: f64 = 1.5;

pub fn plan(args: &PlanArgs) -> Result<Exit, Failure> {
    let sweep = Sweep::from_file(&args.spec)?;
    let (grid, spec) = (&sweep.grid, sweep.grid.spec());
    let flops = grid.total_flops();
    let core_seconds = flops / CORE_FLOPS;
    // At most 16,384 trials a pack, and at least one pack.
    let packs = (core_seconds / PACK_SECONDS)
        .max(grid.len() as f64 / 16_384.0)
        .ceil()
        .clamp(1.0, (grid.len() as f64).max(1.0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let groups = grid.len() / grid.seeds().max(1);
    if args.json {
        let plan = json!({
            "sweep_id": sweep.id, "name": spec.name, "trials": grid.len(), "datasets": grid.datasets(),
            "groups": groups, "seeds": grid.seeds(), "strategies": spec.strategies.len(),
            "packs": packs as u64, "flops": flops, "core_seconds": core_seconds, "cores_here": cores,
            "seconds_here": core_seconds / cores as f64,
        });
        println!("{plan:#}");
        return Ok(Exit::Fine);
    }
    println!("sweep      {}", sweep.id);
    println!(
        "trials     {} = {} datasets × {} training configurations × {} seeds",
        thousands(grid.len()),
        thousands(grid.datasets()),
        thousands(groups / grid.datasets().max(1)),
        thousands(grid.seeds()),
    );
    for (place, input) in places(spec).zip(&sweep.inputs) {
        println!("{}", describe(spec, place, &input.info));
    }
    println!("packs      about {}", thousands(packs as u64));
    println!(
        "cost       {:.3e} floating-point operations, about {} on one core at 60 GFLOP/s, {} on the {cores} here",
        flops,
        duration(core_seconds),
        duration(core_seconds / cores as f64)
    );
    Ok(Exit::Fine)
}

/// What was found in the files of an entry.
fn describe(spec: &Spec, place: Place, info: &InputInfo) -> String {
    let name = match place {
        Place::Dataset(at) => spec.datasets.get(at).map(dataset_name),
        Place::Model(at) => spec.models.get(at).map(model_name),
    }
    .unwrap_or_default();
    match info {
        InputInfo::Features(info) => {
            let classes = info.class_counts.len();
            format!("data       {name}: {} rows, {} features, {classes} classes", info.rows, info.features)
        }
        InputInfo::Text(info) => {
            let rows: u32 = info.class_counts.iter().sum();
            let test = match info.test_rows {
                Some(rows) => format!("{} to test on", thousands(rows.into())),
                None => "the test set is cut from them".to_owned(),
            };
            let skipped = match info.skipped {
                0 => String::new(),
                skipped => format!(", {} malformed ones passed over", thousands(skipped.into())),
            };
            let classes = info.labels.join(", ");
            format!("data       {name}: {} rows, {test}; classes {classes}{skipped}", thousands(rows.into()))
        }
        InputInfo::Model(info) => format!(
            "model      {name}: {} layers, {} features, texts up to {} tokens, {}",
            info.layers,
            info.hidden,
            info.max_length,
            if info.pooler { "with a pooler" } else { "without a pooler" },
        ),
    }
}

pub fn schema() -> Result<Exit, Failure> {
    print_or_stop(&format!("{:#}\n", evenkeel_common::spec::json_schema()))
}

pub fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "evenkeel", &mut script);
    print_or_stop(&String::from_utf8_lossy(&script))
}

/// Prints; a reader that has gone (`| head`) is no failure.
fn print_or_stop(text: &str) -> Result<Exit, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::unavailable(error)),
        _ => Ok(Exit::Fine),
    }
}

/// A duration for people.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "under a second".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(
            [0.2, 61.0, 600.0, 90_000.0].map(duration),
            ["under a second", "61 s", "10 min", "25.0 h"]
        );
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
