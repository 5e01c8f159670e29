//! A run: a cluster, a sweep, faults, and what has to hold afterwards.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use evenkeel_common::id::SweepId;
use evenkeel_common::results::{Status, TrialRecord};
use evenkeel_coordinator::store::{StoredState, read_records, segment_path};

use crate::engine::{CULPRIT, EXPECTED, Expected, Script};
use crate::faults::{Fault, Faults, LATENCY};
use crate::hosts::World;
use crate::random::stream;
use crate::store::plain;
use crate::wire::Odds;

/// Faults begin within this time.
const FAULTS_WITHIN: Duration = Duration::from_secs(25);
/// Without faults the sweep takes so long: as long as faults begin, about.
const WORK: (Duration, Duration) = (Duration::from_secs(12), Duration::from_secs(26));
/// The sweep is through so long after the last fault is over: twice its whole work, and what a cluster takes to find together
/// again (leases, pauses, workers that wait for packs because they had failed).
pub const BOUND: Duration = Duration::from_secs(2 * 26 + 30);
/// When all is over the cluster goes on for so long: what it still writes must be right, too.
const SETTLES: Duration = Duration::from_secs(15);
/// Virtual time between two looks at a host.
const TICK: Duration = Duration::from_millis(5);
/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(600);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What broke, if anything did.
    pub violations: Vec<String>,
    /// How often each fault took effect.
    pub faults: BTreeMap<Fault, u32>,
    /// How many leaders wrote something.
    pub leaders: usize,
    /// Virtual time of the whole run.
    pub lasted: Duration,
    /// Virtual time until the user saw the sweep completed.
    pub took: Duration,
    /// How long after the last fault was over, if it was then.
    pub after_faults: Duration,
    /// Trials that lost their workers so often that they were given up.
    pub given_up: usize,
    /// Hash of everything that was observed.
    pub digest: String,
    /// Everything that was observed.
    pub log: Vec<String>,
    /// The end of it.
    pub last_lines: String,
}

thread_local! {
    /// Panics on this thread: tokio keeps those of tasks to itself.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

/// One run at a time: tokio numbers tasks of all runtimes with one counter, and drops those of a runtime that ends in an
/// order that depends on the numbers, so that another run at the same moment would change the course of this one.
static ALONE: Mutex<()> = Mutex::new(());

/// Brings the counter of tasks to where every run begins.
fn align_tasks() {
    const EVERY: u64 = 256;
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let next = || runtime.spawn(async {}).id().to_string().parse::<u64>().unwrap_or(0);
    while !next().is_multiple_of(EVERY) {}
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    align_tasks();
    count_panics();
    PANICS.set(0);
    let mut draws = stream(seed, "run");
    let rate = match draws.below(3) {
        0 => 1.0,
        // As much as holders of leases reckon with.
        1 => 0.8 + draws.uniform() * 0.3,
        // Far more: a leader and its successor act at the same time.
        _ => 1.2 + draws.uniform(),
    };
    let coordinators: Vec<String> = (0..2 + draws.below(2)).map(|i| format!("c{i}")).collect();
    let workers: Vec<(String, u32)> =
        (0..2 + draws.below(3)).map(|i| (format!("w{i}"), 1 + draws.below(2) as u32)).collect();
    let slots: u32 = workers.iter().map(|(_, slots)| slots).sum();
    let work = WORK.0 + (WORK.1 - WORK.0).mul_f64(draws.uniform());
    let script = Script {
        trial: work * slots / EXPECTED.len() as u32,
        hiccups: draws.below(60),
        fits: if draws.below(4) == 0 { 4 + draws.below(12) as usize } else { usize::MAX },
    };
    let odds = Odds { doubled: draws.below(60), delayed: draws.below(40) };
    let world = World::new(seed, rate, script, odds);
    world.oracle.note("run", format!("seed {seed}, etcd's clock {rate:.2}, {:?}, {odds:?}", world.script));

    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(LATENCY * 4)
        .simulation_duration(LONGEST)
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    let etcd = world.etcd.clone();
    sim.host("etcd", move || etcd.clone().serve());
    for host in &coordinators {
        let (world, host_) = (world.clone(), host.clone());
        sim.host(host.as_str(), move || world.clone().coordinator(host_.clone()));
    }
    for (host, slots) in &workers {
        let (slots, world, host_) = (*slots, world.clone(), host.clone());
        sim.host(host.as_str(), move || world.clone().worker(host_.clone(), slots));
    }
    sim.client("user", world.clone().user(coordinators.clone()));

    let workers: Vec<String> = workers.into_iter().map(|(host, _)| host).collect();
    let mut faults = Faults::plan(&world, stream(seed, "faults"), FAULTS_WITHIN, &coordinators, &workers);
    let (mut over_since, mut done_at) = (None, None);
    loop {
        world.oracle.set_time(sim.elapsed());
        faults.step(&mut sim);
        match faults.are_over() {
            true => over_since = over_since.or(Some(sim.elapsed())),
            false => over_since = None,
        }
        match sim.step() {
            Ok(false) => {}
            Ok(true) => done_at = done_at.or(Some(sim.elapsed())),
            Err(error) => {
                world.oracle.broken(format!("the simulation ended: {error}"));
                break;
            }
        }
        if let (Some(over), Some(done)) = (over_since, done_at)
            && sim.elapsed() > over.max(done) + SETTLES
        {
            break;
        }
        if done_at.is_none() && over_since.is_some_and(|since| sim.elapsed() > since + BOUND) {
            let durable = world.oracle.durable_trials();
            world.oracle.broken(format!(
                "{BOUND:?} after the last fault {durable} of {} trials are durable, and the user waits",
                EXPECTED.len()
            ));
            break;
        }
        if !world.oracle.violations().is_empty() {
            break;
        }
    }
    let lasted = sim.elapsed();
    world.oracle.set_time(lasted);
    let took = done_at.unwrap_or(lasted);
    drop(sim);
    let mut given_up = 0;
    if world.oracle.violations().is_empty() {
        given_up = check_results(&world);
    }
    if PANICS.get() > 0 {
        world.oracle.broken(format!("{} tasks panicked", PANICS.get()));
    }
    Outcome {
        seed,
        violations: world.oracle.violations(),
        faults: world.oracle.faults(),
        leaders: world.oracle.writers(),
        lasted,
        took,
        after_faults: over_since.map_or(Duration::ZERO, |since| took.saturating_sub(since)),
        given_up,
        digest: world.oracle.digest(),
        log: world.oracle.log(),
        last_lines: world.oracle.last_lines(),
    }
}

/// Reads the store as a user's export does, and each segment by itself. Returns how many trials were given up.
fn check_results(world: &World) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let checked = match runtime {
        Ok(runtime) => runtime.block_on(compare(world)),
        Err(error) => Err(error.into()),
    };
    checked.unwrap_or_else(|error| {
        world.oracle.broken(format!("the results cannot be read: {error}"));
        0
    })
}

async fn compare(world: &World) -> anyhow::Result<usize> {
    let (store, oracle) = (plain(&world.objects), &world.oracle);
    let ids = store.sweep_ids().await?;
    let id: &SweepId = match ids.as_slice() {
        [id] => id,
        other => anyhow::bail!("there are {} sweeps", other.len()),
    };
    // One row a trial, with its numbers.
    let mut counts = [0_u64; 3];
    let mut given_up = 0;
    let mut next = 0;
    let mut windows = store.windows(id).await?;
    while let Some(window) = windows.next().await? {
        for record in &window {
            let trial = record.outcome.trial_index;
            if trial != next {
                oracle.broken(format!("trial {trial} follows {next} in the results"));
            }
            next = trial + 1;
            counts[record.outcome.status as usize] += 1;
            match difference(record) {
                Some(Difference::GivenUp) => given_up += 1,
                Some(Difference::Wrong(what)) => oracle.broken(what),
                None => {}
            }
        }
    }
    if next != EXPECTED.len() as u64 {
        oracle.broken(format!("the results have {next} of {} trials", EXPECTED.len()));
    }
    // What is said of the sweep is what is there.
    let loaded = store.load_state(id).await?;
    let said = [loaded.counts.completed, loaded.counts.diverged, loaded.counts.failed];
    if loaded.state != StoredState::Completed || said != counts {
        let state = loaded.state;
        oracle.broken(format!("the sweep is {state:?} with {said:?} trials, the results have {counts:?}"));
    }
    // No segment has a wrong row, not even one that does not count.
    for file in store.list(&format!("sweeps/{id}/segments")).await? {
        let name = file.trim_end_matches(".parquet");
        for record in read_records(&store, &segment_path(id, name)).await? {
            if let Some(Difference::Wrong(what)) = difference(&record) {
                oracle.broken(format!("segment {name}: {what}"));
            }
        }
    }
    Ok(given_up)
}

enum Difference {
    /// Its workers died too often while they ran it.
    GivenUp,
    Wrong(String),
}

fn difference(record: &TrialRecord) -> Option<Difference> {
    let outcome = &record.outcome;
    let trial = outcome.trial_index;
    let expected = usize::try_from(trial).ok().and_then(|at| EXPECTED.get(at));
    let error = outcome.error.as_deref().unwrap_or_default();
    match expected {
        Some(Expected::Outcome(expected)) if **expected == *outcome => None,
        Some(Expected::Culprit) if outcome.status == Status::Failed && error.contains(CULPRIT) => None,
        Some(_) if outcome.status == Status::Failed && error.starts_with("worker_crashed: ") => {
            Some(Difference::GivenUp)
        }
        _ => Some(Difference::Wrong(format!("trial {trial} is {outcome:?}"))),
    }
}
