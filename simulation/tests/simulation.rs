//! Seeds, one after the other. `START` and `SEEDS` say which (`make soak`); with `RUST_LOG` a run tells what its programs log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_simulation::engine::EXPECTED;
use evenkeel_simulation::faults::Fault;
use evenkeel_simulation::run::run;
use tracing_subscriber::EnvFilter;

/// What `make test` runs.
const SEEDS: u64 = 64;

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: expected a number")),
        Err(_) => otherwise,
    }
}

fn show_logs() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().try_init();
    }
}

#[test]
fn no_seed_breaks_an_invariant() {
    show_logs();
    let (start, seeds) = (number("START", 1), number("SEEDS", SEEDS));
    let began = Instant::now();
    let mut fired: BTreeMap<Fault, u32> = BTreeMap::new();
    let (mut failed, mut leaders, mut given_up) = (Vec::new(), 0, 0);
    let (mut virtual_time, mut longest) = (Duration::ZERO, Duration::ZERO);
    for seed in start..start.saturating_add(seeds) {
        let outcome = run(seed);
        for (fault, count) in &outcome.faults {
            *fired.entry(*fault).or_default() += count;
        }
        leaders += outcome.leaders;
        given_up += outcome.given_up;
        virtual_time += outcome.lasted;
        longest = longest.max(outcome.after_faults);
        if !outcome.violations.is_empty() {
            println!("{}\n", outcome.last_lines);
            println!("seed {seed} broke:\n{}", outcome.violations.join("\n"));
            println!(
                "replay it with `make soak START={seed} SEEDS=1` (and RUST_LOG=evenkeel=debug for more)\n"
            );
            failed.push(seed);
        }
    }
    println!(
        "{seeds} seeds in {:.1} s: {:.1} h of virtual time, {} trials, {leaders} leaders that wrote, {given_up} trials given up \
         with their workers, {:.1} s at most from the last fault to the end",
        began.elapsed().as_secs_f64(),
        virtual_time.as_secs_f64() / 3600.0,
        seeds * EXPECTED.len() as u64,
        longest.as_secs_f64(),
    );
    println!("faults that took effect: {fired:?}");
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    if seeds >= SEEDS {
        for fault in Fault::SCHEDULED {
            assert!(fired.contains_key(&fault), "{fault:?} never took effect");
        }
    }
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for seed in 1..=4 {
        let (first, second) = (run(seed), run(seed));
        let apart = first.log.iter().zip(&second.log).find(|(a, b)| a != b);
        assert!(first.digest == second.digest, "seed {seed} takes two courses, apart from {apart:?} on");
        assert!(first.log.len() > 200, "seed {seed} observed {} things only", first.log.len());
    }
}
