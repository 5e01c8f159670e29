//! Stragglers and their twins.

use evenkeel_common::failure::FailureKind;

use super::super::*;
use super::env::*;

/// Two trials of ten seconds: one on each worker, and `b` is through with its own.
fn straggler() -> (TestEnv, Sent) {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(2, 10.0)).join("a", 1).join("b", 1);
    let (slow, fast) = (env.expect_dispatch(), env.expect_dispatch());
    env.wait(10.0).finish(&fast).assert_no_more_actions();
    (env, slow)
}

#[test]
fn a_straggler_gets_one_twin_on_an_idle_worker() {
    let (mut env, slow) = straggler();
    env.wait(9.9).assert_no_more_actions();
    env.wait_for_deadline();
    assert_eq!(env.now.as_secs_f64(), 20.0);
    let twin = env.expect_dispatch_of("b", &slow.trials);
    assert_ne!(twin.pack, slow.pack);
    env.join("c", 1).wait(100.0).assert_no_more_actions();
    assert_eq!(env.sweep("s").running, 1);
}

#[test]
fn the_first_result_wins_and_the_loser_is_cancelled() {
    for twin_wins in [true, false] {
        let (mut env, slow) = straggler();
        env.wait(10.0);
        let twin = env.expect_dispatch();
        let (winner, loser) = if twin_wins { (twin, slow) } else { (slow, twin) };
        env.results(&winner, &winner.trials).expect_persist(&winner.trials).expect_cancel(&loser);
        env.results(&loser, &loser.trials).fail(&loser, FailureKind::Cancelled).end(&winner);
        env.assert_no_more_actions();
        env.durable("s", &set(&[0..2]));
        env.actions.retain(|action| !matches!(action, Action::Acknowledge { .. }));
        env.expect_finish("s", SweepState::Completed).assert_no_more_actions();
    }
}

#[test]
fn while_one_of_two_twins_lives_nothing_is_retried() {
    for reason in [GoneReason::Lost, GoneReason::Crashed, GoneReason::Drained] {
        let (mut env, slow) = straggler();
        env.wait(10.0);
        let twin = env.expect_dispatch();
        env.gone("a", reason).assert_no_more_actions();
        env.finish(&twin).assert_no_more_actions();
        env.results(&slow, &slow.trials).assert_no_more_actions();
    }
    let (mut env, slow) = straggler();
    env.wait(10.0);
    let twin = env.expect_dispatch();
    env.fail(&twin, FailureKind::Permanent).assert_no_more_actions();
    env.fail(&slow, FailureKind::Permanent);
    env.expect_failed(slow.trials.first().expect("a trial"));
}

#[test]
fn a_pack_that_is_nearly_through_gets_no_twin() {
    let (mut env, slow) = straggler();
    env.send(Event::PackProgressed { worker: "a".into(), pack: slow.pack, fraction: 0.9 });
    env.wait(10.0).assert_no_more_actions();
    // The rest would take it longer than the whole takes another one only after 90 s.
    env.wait_for_deadline();
    assert_eq!(env.now.as_secs_f64().round(), 90.0);
    env.expect_dispatch_of("b", &slow.trials);
}

#[test]
fn twins_run_only_what_is_not_delivered() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100, 0.0001)).join("a", 1).join("b", 1);
    let sent = env.expect_dispatch();
    env.results(&sent, &set(&[0..30, 40..100])).expect_persist(&set(&[0..30, 40..100]));
    env.wait(1.9).assert_no_more_actions();
    env.wait(0.1).expect_dispatch_of("b", &set(&[30..40]));
}

#[test]
fn a_slow_worker_is_known_for_it_even_if_its_packs_are_cancelled() {
    let (mut env, slow) = straggler();
    env.wait(10.0);
    let twin = env.expect_dispatch();
    env.wait(10.0).results(&twin, &twin.trials).expect_persist(&twin.trials).expect_cancel(&slow);
    let speed = env.worker("a").measured_speed.expect("a measurement");
    assert_eq!(speed, SPEED / 3.0);
}

#[test]
fn there_are_no_twins_while_the_store_is_stalled_or_the_sweep_is_paused() {
    let (mut env, _) = straggler();
    env.send(Event::StoreStalled).wait(30.0).assert_no_more_actions();
    env.send(Event::SweepPaused { sweep: sweep_id("s") });
    env.send(Event::StoreRecovered).wait(1.0).assert_no_more_actions();
    assert_eq!(env.core.next_deadline(), None);
    env.send(Event::SweepResumed { sweep: sweep_id("s") }).expect_dispatch();
}
