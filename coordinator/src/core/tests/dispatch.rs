//! Who gets which pack, and how large it is.

use std::collections::BTreeMap;

use evenkeel_common::failure::FailureKind;

use super::super::*;
use super::env::*;

#[test]
fn the_first_pack_of_a_worker_is_a_small_probe() {
    let mut env = TestEnv::new();
    env.add("s", grid(100_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch_of("a", &set(&[0..100]));
    assert_eq!((probe.attempt, probe.cost), (1, 0.1 * SPEED));
    env.assert_no_more_actions();
}

#[test]
fn packs_take_about_a_second_and_a_half_and_one_waits_behind_each() {
    let mut env = TestEnv::new();
    env.add("s", grid(100_000, 0.001)).join("a", 2);
    let (first, second) = (env.expect_dispatch(), env.expect_dispatch());
    env.finish(&first);
    let mut sent = env.drain_dispatches();
    env.finish(&second);
    sent.extend(env.drain_dispatches());
    let lengths: Vec<u64> = sent.iter().map(|sent| sent.trials.len()).collect();
    assert_eq!(lengths, [1_500; 4]);
    assert_eq!(env.worker("a").packs, 4);
}

#[test]
fn the_measured_speed_replaces_the_guess_and_follows_changes() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.results(&probe, &probe.trials).expect_persist(&probe.trials);
    // The probe shows twice the speed that was guessed.
    env.send(Event::PackFinished { worker: probe.worker, pack: probe.pack, seconds_busy: 0.05 });
    assert_eq!(env.worker("a").measured_speed, Some(2.0 * SPEED));
    let second = env.expect_dispatch();
    assert_eq!(second.trials.len(), 3_000);
    env.results(&second, &second.trials).expect_persist(&second.trials);
    env.send(Event::PackFinished { worker: second.worker, pack: second.pack, seconds_busy: 3.0 });
    let third = env.expect_dispatch().trials.len();
    assert!((1_500..3_000).contains(&third), "{third} trials");
}

#[test]
fn broken_speeds_and_durations_teach_nothing() {
    let mut env = TestEnv::new();
    env.add("s", grid(100_000, 0.001));
    for prior_speed in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
        env.send(Event::WorkerJoined { worker: "a".into(), slots: 0, prior_speed });
    }
    for seconds_busy in [f64::NAN, f64::NEG_INFINITY, 0.0, -3.0] {
        let sent = env.drain_dispatches().pop().expect("a pack");
        env.send(Event::PackProgressed { worker: "a".into(), pack: sent.pack, fraction: f64::NAN });
        env.results(&sent, &sent.trials);
        env.send(Event::PackFinished { worker: "a".into(), pack: sent.pack, seconds_busy });
        assert_eq!(env.worker("a").measured_speed, None);
    }
}

#[test]
fn a_pack_has_at_most_16384_trials() {
    let mut env = TestEnv::new();
    env.add("s", grid(10_000_000, 1e-9)).join("a", 1);
    let probe = env.expect_dispatch();
    assert_eq!(probe.trials.len(), 16_384);
    env.finish(&probe);
    assert!(env.drain_dispatches().iter().all(|sent| sent.trials.len() == 16_384));
}

#[test]
fn packs_shrink_when_the_work_runs_out() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(10_000, 0.001)).join("a", 1).join("b", 1);
    let mut flying = env.drain_dispatches();
    let mut lengths = Vec::new();
    while !flying.is_empty() {
        let sent = flying.remove(0);
        env.finish(&sent);
        lengths.push(sent.trials.len());
        flying.extend(env.drain_dispatches());
    }
    let packs = &lengths[2..lengths.len() - 1];
    assert!(packs.is_sorted_by(|a, b| a >= b), "{packs:?}");
    assert_eq!(packs.first(), Some(&1_500));
    assert_eq!(packs.last(), Some(&150), "{packs:?}");
    assert_eq!(lengths.iter().sum::<u64>(), 10_000);
}

#[test]
fn a_trial_that_takes_long_is_a_pack_of_its_own() {
    let mut env = TestEnv::new();
    env.add("s", grid(10, 60.0)).join("a", 2);
    env.expect_dispatch_of("a", &set(&[0..1]));
    env.expect_dispatch_of("a", &set(&[1..2]));
    env.assert_no_more_actions();
}

#[test]
fn packs_end_where_affinity_groups_end() {
    let mut env = TestEnv::without_queues();
    env.add("s", Grid { group: 400, ..grid(100_000, 0.001) }).join("a", 1);
    let probe = env.expect_dispatch_of("a", &set(&[0..100]));
    env.finish(&probe);
    // 1,500 would fit: three groups and the rest of the first are whole.
    let second = env.expect_dispatch_of("a", &set(&[100..1_600]));
    env.finish(&second);
    env.expect_dispatch_of("a", &set(&[1_600..2_800]));
}

#[test]
fn idle_slots_are_served_before_any_queue() {
    let mut env = TestEnv::new();
    env.add("s", grid(3_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.send(Event::StoreStalled);
    env.finish(&probe).join("b", 1);
    env.send(Event::StoreRecovered);
    let workers: Vec<String> = env.drain_dispatches().iter().map(|sent| sent.worker.to_string()).collect();
    assert_eq!(workers, ["a", "b", "a"]);
}

#[test]
fn sweeps_share_the_workers_by_priority() {
    let mut env = TestEnv::without_queues();
    env.send(Event::StoreStalled);
    env.add_with("low", grid(1_000_000, 0.01), 1, 3, Default::default());
    env.add_with("high", grid(1_000_000, 0.01), 3, 3, Default::default());
    env.join("a", 1).send(Event::StoreRecovered);
    let mut work: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..200 {
        let sent = env.expect_dispatch();
        *work.entry(sent.sweep.to_string()).or_default() += sent.cost;
        env.finish(&sent);
    }
    let ratio = work["high"] / work["low"];
    assert!((2.8..3.2).contains(&ratio), "{work:?}");
}

#[test]
fn a_sweep_that_comes_late_does_not_shut_out_the_others() {
    let mut env = TestEnv::without_queues();
    env.add("early", grid(1_000_000, 0.001)).join("a", 1);
    for _ in 0..50 {
        let sent = env.expect_dispatch();
        env.finish(&sent);
    }
    env.send(Event::SweepAdded {
        sweep: sweep_id("late"),
        shape: std::sync::Arc::new(grid(1_000_000, 0.001)),
        priority: 1,
        max_attempts: 3,
        done: Default::default(),
        counts: StatusCounts::default(),
    });
    let mut served = Vec::new();
    for _ in 0..20 {
        let sent = env.expect_dispatch();
        served.push(sent.sweep.to_string());
        env.finish(&sent);
    }
    let late = served.iter().filter(|sweep| *sweep == "late").count();
    assert!((9..=11).contains(&late), "{served:?}");
}

#[test]
fn a_worker_that_drains_gets_nothing_more() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.send(Event::WorkerDraining { worker: "a".into() });
    env.finish(&probe).assert_no_more_actions();
    assert!(env.worker("a").draining);
}

#[test]
fn what_the_network_makes_up_changes_nothing() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    let (ghost, nowhere) = (WorkerId::from("ghost"), sweep_id("nowhere"));
    for (worker, pack) in [(ghost.clone(), probe.pack), (probe.worker.clone(), PackId(u64::MAX))] {
        env.send(Event::PackProgressed { worker: worker.clone(), pack, fraction: 0.5 });
        env.send(Event::PackFinished { worker: worker.clone(), pack, seconds_busy: 1.0 });
        let message = String::new();
        env.send(Event::PackFailed { worker, pack, kind: FailureKind::Permanent, message });
    }
    env.gone("ghost", GoneReason::Crashed).send(Event::WorkerDraining { worker: ghost });
    env.send(Event::SweepPaused { sweep: nowhere.clone() });
    env.send(Event::SweepResumed { sweep: nowhere.clone() });
    env.send(Event::SweepCancelled { sweep: nowhere.clone() });
    env.send(Event::FailedRetried { sweep: nowhere, trials: (0..3).collect() });
    env.durable("nowhere", &set(&[0..5]));
    env.durable("s", &set(&[1_000..u64::MAX]));
    env.add("s", grid(7, 1.0)).assert_no_more_actions();
    env.results(&probe, &set(&[2_000..u64::MAX])).expect_acknowledge("a", probe.pack);
    assert_eq!((env.sweep("s").running, env.sweep("s").total), (100, 1_000));
}

#[test]
fn the_clock_may_stand_still_or_run_backwards() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1).wait(10.0);
    env.now = std::time::Duration::from_secs(1);
    let probe = env.expect_dispatch();
    env.finish(&probe);
    assert_eq!(env.drain_dispatches().len(), 1);
}

#[test]
fn packs_without_faults_are_an_exact_and_disjoint_partition() {
    for (total, seconds, group, workers) in
        [(1, 1.0, 1, 1), (1_000, 0.01, 7, 3), (5_000, 0.004, 900, 2), (30_000, 0.0001, 64, 5)]
    {
        let mut env = TestEnv::new();
        env.add("s", Grid { group, ..grid(total, seconds) });
        for worker in 0..workers {
            env.join(&format!("w{worker}"), 1 + worker % 2);
        }
        let mut flying = env.drain_dispatches();
        let mut covered: Vec<std::ops::Range<u64>> = Vec::new();
        while !flying.is_empty() {
            let sent = flying.remove(flying.len() / 2);
            covered.extend(sent.trials.ranges().iter().cloned());
            env.finish(&sent).durable("s", &sent.trials);
            flying.extend(env.drain_dispatches());
        }
        covered.sort_by_key(|range| range.start);
        let ends = covered.iter().map(|range| range.end);
        let starts: Vec<u64> = covered.iter().map(|range| range.start).collect();
        let expected: Vec<u64> = std::iter::once(0).chain(ends).collect();
        assert_eq!(expected, [starts, vec![total]].concat());
        assert_eq!(env.sweep("s").state, SweepState::Completed);
    }
}
