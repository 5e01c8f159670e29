//! Ten million trials. Slow only if some step looks at all of them.

use super::super::*;
use super::env::*;

#[test]
fn ten_million_trials_are_resumed_and_run_to_the_end() {
    const TOTAL: u64 = 10_000_000;
    let mut core = Core::new(CoreConfig::default());
    let mut done = roaring::RoaringTreemap::new();
    done.insert_range(3_000_000..5_000_000);
    done.extend((0..1_000_000).filter(|trial| trial % 1_000 == 7));
    let resumed = done.len();
    let mut pending: std::collections::VecDeque<Action> = Default::default();
    pending.extend(core.handle(
        Event::SweepAdded {
            sweep: sweep_id("s"),
            shape: std::sync::Arc::new(Grid { group: 1_000, ..grid(TOTAL, 1e-5) }),
            priority: 1,
            max_attempts: 3,
            done,
            counts: completed(resumed),
        },
        std::time::Duration::ZERO,
    ));
    for name in ["a", "b"] {
        let joined = Event::WorkerJoined { worker: name.into(), slots: 4, prior_speed: SPEED };
        pending.extend(core.handle(joined, std::time::Duration::ZERO));
    }
    let (mut packs, mut trials_run, mut finished) = (0_u64, 0, false);
    while let Some(action) = pending.pop_front() {
        let events = match action {
            Action::Dispatch { worker, sweep, pack, trials, cost, .. } => {
                packs += 1;
                trials_run += trials.len();
                vec![
                    Event::ResultsReceived { worker: worker.clone(), sweep, pack, trials },
                    Event::PackFinished { worker, pack, seconds_busy: cost / SPEED },
                ]
            }
            Action::Persist { sweep, trials, .. } => {
                let counts = completed(trials.len());
                vec![Event::ResultsDurable { sweep, trials, counts }]
            }
            Action::FinishSweep { state, .. } => {
                finished = state == SweepState::Completed;
                vec![]
            }
            _ => vec![],
        };
        for event in events {
            pending.extend(core.handle(event, std::time::Duration::ZERO));
        }
    }
    core.sanity_check();
    assert!(finished);
    assert_eq!(trials_run, TOTAL - resumed);
    assert!((500..2_000).contains(&packs), "{packs} packs");
    assert_eq!(core.packs_in_flight(), 0);
}
