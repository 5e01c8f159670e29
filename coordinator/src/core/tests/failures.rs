//! What becomes of trials whose pack failed, and of the workers.

use std::time::Duration;

use evenkeel_common::failure::FailureKind;

use super::super::*;
use super::env::*;

/// A sweep of `total` trials that are dispatched as one pack.
fn one_pack(total: u64, workers: &[&str]) -> (TestEnv, Sent) {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(total, 0.0001));
    for worker in workers {
        env.join(worker, 1);
    }
    let sent = env.expect_dispatch_of(workers.first().expect("a worker"), &set(&[0..total]));
    env.assert_no_more_actions();
    (env, sent)
}

#[test]
fn the_packs_of_a_lost_worker_return_at_once_and_no_attempt_is_charged() {
    for reason in [GoneReason::Lost, GoneReason::Drained] {
        let (mut env, _) = one_pack(100, &["a", "b"]);
        env.gone("a", reason);
        let again = env.expect_dispatch_of("b", &set(&[0..100]));
        assert_eq!(again.attempt, 1);
        env.assert_no_more_actions();
        assert_eq!(env.core.workers().count(), 1);
    }
}

#[test]
fn a_worker_that_joins_again_lost_what_it_had() {
    let (mut env, old) = one_pack(100, &["a"]);
    env.join("a", 1);
    let again = env.expect_dispatch_of("a", &set(&[0..100]));
    assert_ne!(again.pack, old.pack);
    env.end(&old).assert_no_more_actions();
}

#[test]
fn a_failed_pack_waits_and_is_retried_on_another_worker() {
    let (mut env, sent) = one_pack(100, &["a", "b"]);
    env.fail(&sent, FailureKind::Transient).assert_no_more_actions();
    let pause = env.core.next_deadline().expect("a deadline") - env.now;
    assert!((Duration::from_millis(250)..=Duration::from_millis(500)).contains(&pause), "{pause:?}");
    env.wait_for_deadline();
    let again = env.expect_dispatch_of("b", &set(&[0..100]));
    assert_eq!(again.attempt, 2);
}

#[test]
fn a_failed_pack_returns_to_its_worker_if_no_other_takes_it() {
    let (mut env, sent) = one_pack(100, &["a"]);
    env.fail(&sent, FailureKind::Transient).wait_for_deadline();
    let second = env.expect_dispatch_of("a", &set(&[0..100]));
    env.fail(&second, FailureKind::Transient).join("b", 2);
    env.add("other", grid(2, 1_000.0));
    env.expect_dispatch_of("a", &set(&[0..1]));
    assert_eq!(env.expect_dispatch().worker.as_str(), "b");
    assert_eq!(env.drain_dispatches().len(), 0);
}

#[test]
fn the_pause_doubles_and_differs_from_pack_to_pack() {
    let mut env = TestEnv::with(CoreConfig { quarantine_after: 1_000, ..CoreConfig::default() });
    env.add_with("s", grid(1, 10.0), 1, 12, Default::default()).join("a", 1);
    let mut pauses = Vec::new();
    for _ in 0..11 {
        let sent = env.expect_dispatch();
        env.fail(&sent, FailureKind::Transient);
        pauses.push((env.core.next_deadline().expect("a deadline") - env.now).as_secs_f64());
        env.wait_for_deadline();
    }
    for (index, pause) in pauses.iter().enumerate() {
        let full = (0.5 * f64::from(1 << index)).min(30.0);
        assert!((full / 2.0..=full).contains(pause), "{pauses:?}");
    }
    let last: Vec<&f64> = pauses.iter().skip(7).collect();
    assert!(last.windows(2).all(|pair| pair[0] != pair[1]), "{pauses:?}");
}

/// Runs a sweep in which packs with the poison trial fail as `kind`. Returns how many executions failed,
/// how the trial was recorded, and how many packs held it alone.
fn find_poison(total: u64, poison: u64, kind: FailureKind) -> (u32, u32, u32) {
    let mut env = TestEnv::new();
    env.add("s", grid(total, 0.0001)).join("a", 1).join("b", 1);
    let (mut failed, mut alone, mut recorded) = (0, 0, None);
    loop {
        while let Some(action) = env.actions.pop_front() {
            match action {
                Action::Dispatch { .. } => {
                    env.actions.push_front(action);
                    let sent = env.expect_dispatch();
                    if sent.trials.contains(poison) {
                        failed += 1;
                        alone += u32::from(sent.trials.len() == 1);
                        env.fail(&sent, kind);
                    } else {
                        env.results(&sent, &sent.trials).end(&sent).durable("s", &sent.trials);
                    }
                }
                Action::RecordFailed { trial, attempts, kind: recorded_as, message, .. } => {
                    assert_eq!((trial, recorded_as), (poison, kind));
                    assert_eq!(message, format!("{kind}!"));
                    assert!(recorded.replace(attempts).is_none());
                    let failed = StatusCounts { failed: 1, ..StatusCounts::default() };
                    let trials = set(&[trial..trial + 1]);
                    env.send(Event::ResultsDurable { sweep: sweep_id("s"), trials, counts: failed });
                }
                Action::FinishSweep { state, .. } => {
                    assert_eq!(state, SweepState::Completed);
                    let counts = StatusCounts { completed: total - 1, diverged: 0, failed: 1 };
                    assert_eq!(env.sweep("s").counts, counts);
                    return (failed, recorded.expect("a record"), alone);
                }
                _ => {}
            }
        }
        env.wait_for_deadline();
    }
}

#[test]
fn a_poison_trial_is_found_by_halving_and_gets_all_its_attempts_alone() {
    let (failed, attempts, alone) = find_poison(1_024, 700, FailureKind::Transient);
    assert_eq!((attempts, alone), (failed, 3));
    // Twice whole, once for each of nine halvings, thrice alone.
    assert!((10..=14).contains(&failed), "{failed} executions");
}

#[test]
fn bad_data_are_isolated_without_a_second_attempt() {
    for kind in [FailureKind::Data, FailureKind::Permanent] {
        let (failed, attempts, alone) = find_poison(1_024, 0, kind);
        assert_eq!((attempts, alone), (failed, 1));
        assert!(failed <= 11, "{failed} executions");
    }
}

#[test]
fn bad_data_are_isolated_without_waiting() {
    let (mut env, sent) = one_pack(4, &["a"]);
    env.fail(&sent, FailureKind::Data);
    let half = env.expect_dispatch_of("a", &set(&[0..2]));
    env.fail(&half, FailureKind::Data);
    env.expect_dispatch_of("a", &set(&[2..4]));
}

#[test]
fn a_pack_without_memory_is_halved_at_once_and_only_a_single_trial_is_charged() {
    let (failed, attempts, alone) = find_poison(1_024, 1_023, FailureKind::OutOfMemory);
    assert_eq!((attempts, alone), (3, 3));
    assert!(failed <= 13, "{failed} executions");
    let (mut env, sent) = one_pack(5, &["a"]);
    env.fail(&sent, FailureKind::OutOfMemory);
    assert_eq!(env.expect_dispatch_of("a", &set(&[0..3])).attempt, 1);
}

#[test]
fn later_packs_of_a_worker_respect_the_memory_it_has() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.finish(&probe);
    let large = env.expect_dispatch_of("a", &set(&[100..1_600]));
    env.fail(&large, FailureKind::OutOfMemory);
    for _ in 0..2 {
        let half = env.expect_dispatch();
        assert_eq!((half.trials.len(), half.attempt), (750, 1));
        env.finish(&half);
    }
    let next = env.expect_dispatch().trials.len();
    assert!((750..850).contains(&next), "{next} trials");
}

#[test]
fn a_pack_that_was_stopped_or_handed_back_is_queued_again() {
    let (mut env, sent) = one_pack(100, &["a", "b"]);
    env.fail(&sent, FailureKind::Cancelled);
    let again = env.expect_dispatch_of("a", &set(&[0..100]));
    env.fail(&again, FailureKind::WorkerDraining);
    assert_eq!(env.expect_dispatch_of("b", &set(&[0..100])).attempt, 1);
    assert!(env.worker("a").draining);
    assert_eq!(env.worker("a").failures, 0);
}

#[test]
fn two_crashes_of_workers_start_the_search() {
    let (mut env, _) = one_pack(100, &["a", "b", "c"]);
    env.gone("a", GoneReason::Crashed);
    assert_eq!(env.expect_dispatch_of("b", &set(&[0..100])).attempt, 2);
    env.gone("b", GoneReason::Crashed);
    let half = env.expect_dispatch_of("c", &set(&[0..50]));
    assert_eq!(half.attempt, 3);
    env.assert_no_more_actions();
}

#[test]
fn a_pack_that_loses_two_workers_in_a_row_is_a_suspect() {
    let (mut env, _) = one_pack(100, &["a", "b", "c"]);
    env.gone("a", GoneReason::Lost);
    assert_eq!(env.expect_dispatch_of("b", &set(&[0..100])).attempt, 1);
    env.gone("b", GoneReason::Lost);
    assert_eq!(env.expect_dispatch_of("c", &set(&[0..50])).attempt, 2);
}

#[test]
fn a_trial_that_kills_every_worker_is_given_up() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1, 0.001)).join("w0", 1);
    for life in 0..4 {
        env.expect_dispatch_of(&format!("w{life}"), &set(&[0..1]));
        env.gone(&format!("w{life}"), GoneReason::Lost);
        if life < 3 {
            env.join(&format!("w{}", life + 1), 1);
        }
    }
    // The first death could have been an accident: it is not charged.
    assert_eq!(env.expect_failed(0), (3, FailureKind::WorkerCrashed));
    env.assert_no_more_actions();
}

#[test]
fn a_pack_that_only_waited_behind_another_is_no_suspect() {
    let mut env = TestEnv::new();
    env.add("s", grid(100_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.finish(&probe);
    let (ran, waited) = (env.expect_dispatch(), env.expect_dispatch());
    env.gone("a", GoneReason::Crashed).join("b", 1);
    let again = env.expect_dispatch();
    assert_eq!((&again.trials, again.attempt), (&ran.trials, 2));
    env.finish(&again);
    let sent = env.drain_dispatches();
    assert_eq!((sent[0].trials.first(), sent[0].attempt), (waited.trials.first(), 1));
}

#[test]
fn results_that_never_came_are_a_failure() {
    let (mut env, sent) = one_pack(100, &["a", "b"]);
    env.results(&sent, &set(&[0..90])).expect_persist(&set(&[0..90]));
    env.end(&sent).assert_no_more_actions();
    env.wait_for_deadline();
    assert_eq!(env.expect_dispatch_of("b", &set(&[90..100])).attempt, 2);
}

#[test]
fn results_received_before_a_failure_count() {
    let (mut env, sent) = one_pack(100, &["a"]);
    env.results(&sent, &set(&[0..60])).expect_persist(&set(&[0..60]));
    env.fail(&sent, FailureKind::Permanent);
    env.expect_dispatch_of("a", &set(&[60..80]));
}

#[test]
fn a_worker_that_fails_often_pauses_longer_each_time_and_comes_back() {
    let mut env = TestEnv::without_queues();
    // Long trials: each pack is one that never failed before.
    env.add_with("s", grid(1_000, 10.0), 1, 1, Default::default()).join("a", 1);
    let mut pauses = Vec::new();
    while pauses.len() < 9 {
        let sent = env.expect_dispatch();
        env.fail(&sent, FailureKind::Transient);
        if matches!(env.actions.front(), Some(Action::QuarantineWorker { .. })) {
            let until = env.expect_quarantine("a");
            env.expect_failed(sent.trials.first().expect("a trial"));
            assert_eq!(env.worker("a").quarantined_until, Some(until));
            assert_eq!(env.core.next_deadline(), Some(until));
            env.assert_no_more_actions();
            pauses.push((until - env.now).as_secs());
            env.wait_for_deadline();
            assert_eq!(env.worker("a").quarantined_until, None);
        } else {
            env.expect_failed(sent.trials.first().expect("a trial"));
        }
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(env.worker("a").failures, 11);
}

#[test]
fn success_makes_up_for_failures() {
    let mut env = TestEnv::without_queues();
    env.add_with("s", grid(1_000, 10.0), 1, 1, Default::default()).join("a", 1);
    for _ in 0..10 {
        let bad = env.expect_dispatch();
        env.fail(&bad, FailureKind::Transient).expect_failed(bad.trials.first().expect("a trial"));
        let good = env.expect_dispatch();
        env.finish(&good);
    }
    assert_eq!(env.worker("a").quarantined_until, None);
    assert_eq!(env.worker("a").failures, 10);
}

#[test]
fn a_worker_that_crashes_does_not_get_rid_of_its_past() {
    let mut env = TestEnv::without_queues();
    env.add_with("s", grid(1_000, 10.0), 1, 1, Default::default());
    for _ in 0..2 {
        env.join("a", 1);
        let sent = env.expect_dispatch();
        env.gone("a", GoneReason::Crashed).expect_failed(sent.trials.first().expect("a trial"));
    }
    env.join("a", 1);
    let sent = env.expect_dispatch();
    env.gone("a", GoneReason::Crashed).expect_quarantine("a");
    env.expect_failed(sent.trials.first().expect("a trial"));
    env.join("a", 1).assert_no_more_actions();
    env.wait_for_deadline().expect_dispatch();
}

#[test]
fn a_poison_trial_does_not_put_its_workers_into_quarantine() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_024, 0.00001)).join("a", 1);
    for _ in 0..13 {
        let sent = env.drain_dispatches().pop();
        let Some(sent) = sent else {
            env.wait_for_deadline();
            continue;
        };
        env.fail(&sent, FailureKind::Transient);
        assert!(!env.actions.iter().any(|action| matches!(action, Action::QuarantineWorker { .. })));
    }
}
