//! Adding, pausing, cancelling and repeating.

use evenkeel_common::failure::FailureKind;

use super::super::*;
use super::env::*;

#[test]
fn a_sweep_that_was_done_before_is_finished_at_once() {
    let mut env = TestEnv::new();
    env.add_with("full", grid(100, 1.0), 1, 3, (0..100).collect());
    env.expect_finish("full", SweepState::Completed);
    env.add("empty", grid(0, 1.0)).expect_finish("empty", SweepState::Completed);
    env.join("a", 1).assert_no_more_actions();
}

#[test]
fn a_resumed_sweep_dispatches_only_what_is_not_durable() {
    let mut env = TestEnv::without_queues();
    // Two numbers are beyond the grid: an earlier version of it may have been longer.
    let done = (0..10).chain(20..90).chain([95, 100, 4_000]).collect();
    env.add_with("s", grid(100, 0.001), 1, 3, done).join("a", 1);
    assert_eq!(env.sweep("s").counts.total(), 81);
    let sent = env.expect_dispatch_of("a", &set(&[10..20, 90..95, 96..100]));
    env.finish(&sent).durable("s", &sent.trials).expect_acknowledge("a", sent.pack);
    env.expect_finish("s", SweepState::Completed).assert_no_more_actions();
}

#[test]
fn a_paused_sweep_lets_its_packs_go_on_and_dispatches_no_more() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.send(Event::SweepPaused { sweep: sweep_id("s") });
    env.finish(&probe).assert_no_more_actions();
    assert_eq!(env.sweep("s").state, SweepState::Paused);
    env.send(Event::SweepResumed { sweep: sweep_id("s") });
    assert_eq!(env.expect_dispatch().trials.first(), Some(100));
}

#[test]
fn a_sweep_that_was_paused_does_not_catch_up_on_what_others_got() {
    let mut env = TestEnv::without_queues();
    env.add("a", grid(1_000_000, 0.001)).add("b", grid(1_000_000, 0.001));
    env.send(Event::SweepPaused { sweep: sweep_id("a") }).join("w", 1);
    for _ in 0..50 {
        let sent = env.expect_dispatch();
        assert_eq!(sent.sweep.as_str(), "b");
        env.finish(&sent);
    }
    env.send(Event::SweepResumed { sweep: sweep_id("a") });
    let mut served = 0;
    for _ in 0..20 {
        let sent = env.expect_dispatch();
        served += u32::from(sent.sweep.as_str() == "a");
        env.finish(&sent);
    }
    assert!((9..=11).contains(&served), "{served} of 20");
}

#[test]
fn a_cancelled_sweep_ends_when_what_was_delivered_is_durable() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1).join("b", 1);
    let (first, second) = (env.expect_dispatch(), env.expect_dispatch());
    env.results(&first, &set(&[0..40])).expect_persist(&set(&[0..40]));
    env.send(Event::SweepCancelled { sweep: sweep_id("s") });
    env.expect_cancel(&first).expect_cancel(&second).assert_no_more_actions();
    // What comes later is not wanted.
    env.results(&second, &second.trials).expect_acknowledge("b", second.pack);
    env.end(&second).fail(&first, FailureKind::Cancelled).assert_no_more_actions();
    env.results(&first, &set(&[0..50])).assert_no_more_actions();
    env.durable("s", &set(&[0..40])).expect_acknowledge("a", first.pack);
    env.expect_finish("s", SweepState::Cancelled);
    env.send(Event::SweepCancelled { sweep: sweep_id("s") });
    env.send(Event::SweepResumed { sweep: sweep_id("s") }).assert_no_more_actions();
    assert_eq!((env.sweep("s").pending, env.sweep("s").counts.total()), (960, 40));
}

#[test]
fn a_cancel_with_nothing_delivered_ends_the_sweep_at_once() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.send(Event::SweepCancelled { sweep: sweep_id("s") });
    env.expect_cancel(&probe).expect_finish("s", SweepState::Cancelled).assert_no_more_actions();
    // The slot is free for others.
    env.add("t", grid(10, 0.001)).expect_dispatch_of("a", &set(&[0..10]));
}

#[test]
fn failed_trials_are_tried_again_on_request() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1, 0.001)).join("a", 1);
    let sent = env.expect_dispatch();
    env.fail(&sent, FailureKind::Permanent);
    assert_eq!(env.expect_failed(0), (1, FailureKind::Permanent));
    let failed = StatusCounts { failed: 1, ..StatusCounts::default() };
    env.send(Event::ResultsDurable { sweep: sweep_id("s"), trials: set(&[0..1]), counts: failed });
    env.expect_finish("s", SweepState::Completed);
    // More trials than have failed: that is a mistake.
    env.send(Event::FailedRetried { sweep: sweep_id("s"), trials: Default::default() });
    env.assert_no_more_actions();
    env.send(Event::FailedRetried { sweep: sweep_id("s"), trials: (0..5).collect() });
    let again = env.expect_dispatch_of("a", &set(&[0..1]));
    assert_eq!((again.attempt, env.sweep("s").state), (1, SweepState::Running));
    env.finish(&again).durable("s", &again.trials).expect_acknowledge("a", again.pack);
    env.expect_finish("s", SweepState::Completed).assert_no_more_actions();
    assert_eq!(env.sweep("s").counts, completed(1));
}

#[test]
fn a_retry_that_names_more_trials_than_failed_is_ignored() {
    let mut env = TestEnv::new();
    env.add_with("s", grid(10, 0.001), 1, 3, (0..10).collect()).expect_finish("s", SweepState::Completed);
    env.send(Event::FailedRetried { sweep: sweep_id("s"), trials: (0..3).collect() });
    env.assert_no_more_actions();
    assert_eq!(env.sweep("s").state, SweepState::Completed);
}
