//! A short round of `make chaos`: whatever happens to a cluster of real processes, results are those of a calm one.

use std::time::Duration;

use evenkeel_tests::chaos::run_cluster;
use evenkeel_tests::process::Etcd;
use evenkeel_tests::results::assert_same_results;

/// Of each training: so that the sweep outlasts a few faults.
const STEPS: u32 = 4_000;
const SEED: u64 = 7;
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn a_cluster_under_faults_ends_with_the_results_of_a_calm_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    if Etcd::start(dir.path()).expect("etcd").is_none() {
        return;
    }
    let calm = run_cluster(&dir.path().join("calm"), false, STEPS, None, LIMIT).expect("calm");
    let found = run_cluster(&dir.path().join("chaos"), false, STEPS, Some(SEED), LIMIT).expect("chaos");
    let fired: u32 = found.fired.values().sum();
    assert!(fired >= 3, "only {fired} faults fired: {:?}", found.fired);
    assert_same_results(&calm.out, &found.out);
}
