//! `make chaos`: a sweep on a cluster of real processes, calm and then under faults, again and again. As root on Linux,
//! with iproute2, each process has a network of its own, and packets are lost too.
//!
//! `chaos [ROUNDS [SEED]]`: rounds are drawn by the seeds SEED, SEED + 1, …; a round that fails says its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_tests::chaos::network::Network;
use evenkeel_tests::chaos::{Fault, run_cluster};
use evenkeel_tests::results::assert_same_results;

/// Steps of each training: some ten seconds of work for two cores.
const STEPS: u32 = 10_000;
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| match arguments.next() {
        Some(text) => text.parse::<u64>().with_context(|| format!("{text:?} is no whole number")),
        None => Ok(default),
    };
    let (rounds, first) = (number(1)?, number(1)?);
    let dir = tempfile::tempdir()?;
    let networks = match Network::make().and_then(|mut network| network.host().map(drop)) {
        Ok(()) => true,
        Err(reason) => {
            println!("without faults of the network, which this machine does not allow to make: {reason:#}");
            false
        }
    };
    let calm = run_cluster(&dir.path().join("calm"), networks, STEPS, None, LIMIT)?;
    println!("calm: {} trials in {:.1} s", calm.trials, calm.seconds);
    let mut fired: BTreeMap<Fault, u32> = BTreeMap::new();
    let mut slower = Vec::new();
    for seed in first..first + rounds {
        let found = run_cluster(&dir.path().join(format!("seed-{seed}")), networks, STEPS, Some(seed), LIMIT)
            .with_context(|| format!("round with seed {seed}; again with `chaos 1 {seed}`"))?;
        assert_same_results(&calm.out, &found.out);
        let faults: u32 = found.fired.values().sum();
        println!(
            "seed {seed}: {} trials in {:.1} s ({:.1} times as long), {faults} faults, {} terms, results equal to the calm run",
            found.trials,
            found.seconds,
            found.seconds / calm.seconds,
            found.terms
        );
        slower.push(found.seconds / calm.seconds);
        for (fault, count) in found.fired {
            *fired.entry(fault).or_insert(0) += count;
        }
    }
    slower.sort_by(f64::total_cmp);
    println!("\n| fault | fired |\n|---|--:|");
    for (fault, count) in &fired {
        println!("| {fault:?} | {count} |");
    }
    let all: u32 = fired.values().sum();
    let median = slower.get(slower.len() / 2).copied().unwrap_or(f64::NAN);
    println!(
        "\n{rounds} rounds, {all} faults; results lost 0, doubled 0; median time {median:.1} times that of the calm run"
    );
    Ok(())
}
