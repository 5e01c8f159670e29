//! What counts, once.

use super::super::*;
use super::env::*;

#[test]
fn results_are_acknowledged_when_they_are_durable_and_not_before() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100, 0.0001)).join("a", 1);
    let sent = env.expect_dispatch();
    env.finish(&sent).assert_no_more_actions();
    assert_eq!(env.sweep("s").awaiting, 100);
    env.durable("s", &set(&[0..60])).assert_no_more_actions();
    env.durable("s", &set(&[60..100])).expect_acknowledge("a", sent.pack);
    env.expect_finish("s", SweepState::Completed).assert_no_more_actions();
    assert_eq!(env.sweep("s").counts, completed(100));
}

#[test]
fn results_that_come_twice_are_written_once_and_acknowledged_each_time() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1);
    let sent = env.expect_dispatch();
    env.results(&sent, &set(&[0..50])).expect_persist(&set(&[0..50]));
    env.results(&sent, &set(&[0..50])).assert_no_more_actions();
    // A delivery that repeats some and adds others.
    env.results(&sent, &set(&[40..100])).expect_persist(&set(&[50..100]));
    env.durable("s", &set(&[0..50])).assert_no_more_actions();
    env.durable("s", &set(&[50..100])).expect_acknowledge("a", sent.pack);
    env.durable("s", &set(&[0..100])).assert_no_more_actions();
    env.results(&sent, &set(&[0..100])).expect_acknowledge("a", sent.pack).assert_no_more_actions();
    assert_eq!(env.sweep("s").counts, completed(100));
}

#[test]
fn another_worker_that_delivers_the_same_is_acknowledged_when_that_is_durable() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1);
    let sent = env.expect_dispatch();
    env.results(&sent, &sent.trials).expect_persist(&sent.trials);
    let copy = Sent { worker: "b".into(), pack: PackId(77), ..sent.clone() };
    env.results(&copy, &copy.trials).assert_no_more_actions();
    env.durable("s", &sent.trials).expect_acknowledge("a", sent.pack).expect_acknowledge("b", copy.pack);
    env.assert_no_more_actions();
}

#[test]
fn results_of_packs_that_an_earlier_leader_dispatched_count() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001));
    let unknown = Sent {
        worker: "b".into(),
        sweep: sweep_id("s"),
        pack: PackId(9_000),
        attempt: 1,
        trials: set(&[20..40, 500..700]),
        cost: 1.0,
    };
    env.results(&unknown, &unknown.trials).expect_persist(&unknown.trials);
    env.join("a", 1).expect_dispatch_of("a", &set(&[0..20, 40..120]));
    assert_eq!(env.sweep("s").pending, 680);
    env.durable("s", &unknown.trials).expect_acknowledge("b", unknown.pack);
}

#[test]
fn late_results_of_a_lost_worker_stop_the_second_execution() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100, 0.0001)).join("a", 1).join("b", 1);
    let sent = env.expect_dispatch_of("a", &set(&[0..100]));
    env.gone("a", GoneReason::Lost);
    let again = env.expect_dispatch_of("b", &set(&[0..100]));
    env.results(&sent, &set(&[0..70])).expect_persist(&set(&[0..70])).assert_no_more_actions();
    env.results(&sent, &set(&[70..100])).expect_persist(&set(&[70..100])).expect_cancel(&again);
    env.assert_no_more_actions();
    assert_eq!(env.worker("b").packs, 0);
}

#[test]
fn late_results_are_withdrawn_from_the_queue() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100, 0.0001)).join("a", 1);
    let sent = env.expect_dispatch();
    env.gone("a", GoneReason::Lost);
    env.results(&sent, &set(&[0..99])).expect_persist(&set(&[0..99]));
    assert_eq!(env.sweep("s").pending, 1);
    env.join("b", 1).expect_dispatch_of("b", &set(&[99..100]));
}

#[test]
fn rows_that_are_durable_unasked_are_not_run_again() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(1_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.durable("s", &set(&[0..150])).expect_cancel(&probe);
    env.expect_dispatch_of("a", &set(&[150..250]));
    assert_eq!(env.sweep("s").counts, completed(150));
}

#[test]
fn results_of_an_unknown_sweep_are_acknowledged_and_forgotten() {
    let mut env = TestEnv::new();
    let ghost = Sent {
        worker: "a".into(),
        sweep: sweep_id("ghost"),
        pack: PackId(3),
        attempt: 1,
        trials: set(&[0..4]),
        cost: 1.0,
    };
    env.results(&ghost, &ghost.trials).expect_acknowledge("a", ghost.pack).assert_no_more_actions();
}

#[test]
fn a_stalled_store_pauses_dispatch_and_nothing_else() {
    let mut env = TestEnv::without_queues();
    env.add("s", grid(100_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.send(Event::StoreStalled);
    env.finish(&probe).join("b", 1).assert_no_more_actions();
    assert!(env.core.waits_for_store());
    assert_eq!(env.core.next_deadline(), None);
    env.send(Event::StoreRecovered);
    assert_eq!(env.drain_dispatches().len(), 2);
}

#[test]
fn dispatch_waits_when_too_many_results_await_the_store() {
    let mut env = TestEnv::with(CoreConfig { max_awaiting: 100, packs_per_slot: 1, ..CoreConfig::default() });
    env.add("s", grid(100_000, 0.001)).join("a", 1);
    let probe = env.expect_dispatch();
    env.finish(&probe).assert_no_more_actions();
    env.durable("s", &set(&[0..1])).expect_dispatch();
}
