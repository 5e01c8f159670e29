//! A cluster of real processes with faults: three etcd members, two coordinators, four workers.
//!
//! | module | holds |
//! |---|---|
//! | [`cluster`] | its processes and what they share |
//! | [`fault`] | what goes wrong, and whom it happens to |
//! | [`member`] | a process that comes back |
//! | [`network`] | a network for each, that can be cut |

mod cluster;
mod fault;
mod member;
pub mod network;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evenkeel_common::seed::{Key, Purpose};

pub use self::fault::Fault;

use self::cluster::Cluster;
use crate::process::{done, status};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Seconds from submission to the end.
    pub seconds: f64,
    /// Trials of the sweep.
    pub trials: u64,
    /// How often each fault fired.
    pub fired: BTreeMap<Fault, u32>,
    /// How often a coordinator began to lead.
    pub terms: usize,
    /// The output directory.
    pub out: PathBuf,
}

/// Runs the sweep on a fresh cluster in `dir`, with faults drawn by `seed` (none without) one after the other until all
/// trials are done. With `networks`, each member has its own, and packets are among what gets lost.
///
/// # Errors
/// When a process cannot be started, or the sweep does not end within `limit`.
pub fn run_cluster(
    dir: &Path,
    networks: bool,
    steps: u32,
    seed: Option<u64>,
    limit: Duration,
) -> anyhow::Result<Outcome> {
    let mut cluster = Cluster::start(dir, networks)?;
    let sweep = cluster.submit(steps)?;
    let began = Instant::now();
    let mut draws = Key::of_dataset(seed.unwrap_or(0), "chaos").stream(Purpose::Structure, 0, 0);
    // Each kind once, in an order by the seed, before any comes again.
    let mut bag: Vec<Fault> = Vec::new();
    let (mut fired, mut next) = (BTreeMap::new(), Instant::now() + Duration::from_secs(1));
    let last = loop {
        cluster.tend()?;
        if let Some(status) = status(&cluster.endpoints, &sweep)
            && status["state"] == "completed"
        {
            break status;
        }
        if began.elapsed() > limit {
            bail!(
                "the sweep did not end within {limit:?}, faults {fired:?}; the coordinators printed:\n{}",
                cluster.logs()
            );
        }
        if seed.is_some() && Instant::now() >= next {
            if bag.is_empty() {
                bag.extend(Fault::all(networks));
            }
            let at = draws.below(bag.len() as u64) as usize;
            if cluster.inject(bag[at], &sweep, &mut draws)? {
                *fired.entry(bag.remove(at)).or_insert(0) += 1;
            }
            next = Instant::now() + Duration::from_millis(500 + draws.below(1500));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let seconds = began.elapsed().as_secs_f64();
    // Whatever is still ill gets well before results are fetched.
    let patience = Instant::now() + Duration::from_secs(20);
    while !cluster.is_well() && Instant::now() < patience {
        cluster.tend()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let trials = last["trials"].as_u64().context("trials")?;
    if done(&last) != trials {
        bail!("{} of {trials} trials are accounted for: {last}", done(&last));
    }
    let terms = cluster.logs().matches("store loaded").count();
    Ok(Outcome { seconds, trials, fired, terms, out: cluster.fetch(&sweep)? })
}
