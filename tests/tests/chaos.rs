//! A short round of `make chaos`: whatever happens to a cluster of real processes, results are those of a calm one.

use std::time::Duration;

use evenkeel_tests::chaos::run_cluster;
use evenkeel_tests::process::Etcd;
use evenkeel_tests::results::assert_same_results;

/// Of each training, the first number that is enough for a sweep to outlast a few faults: machines differ.
const STEPS: [u32; 3] = [4_000, 12_000, 36_000];
/// How long a calm sweep should take, in seconds: a fault comes each one or two.
const LONG_ENOUGH: f64 = 10.0;
const SEED: u64 = 7;
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn a_cluster_under_faults_ends_with_the_results_of_a_calm_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    if Etcd::start(dir.path()).expect("etcd").is_none() {
        return;
    }
    let mut steps = STEPS.into_iter();
    let (calm, steps) = loop {
        let steps = steps.next().expect("a sweep that takes a while");
        let folder = dir.path().join(format!("calm-{steps}"));
        let calm = run_cluster(&folder, false, steps, None, LIMIT).expect("calm");
        if calm.seconds >= LONG_ENOUGH || steps == STEPS[STEPS.len() - 1] {
            break (calm, steps);
        }
    };
    let found = run_cluster(&dir.path().join("chaos"), false, steps, Some(SEED), LIMIT).expect("chaos");
    let fired: u32 = found.fired.values().sum();
    assert!(fired >= 3, "only {fired} faults fired: {:?}", found.fired);
    assert_same_results(&calm.out, &found.out);
}
