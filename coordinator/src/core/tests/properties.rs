//! What holds whatever happens.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use evenkeel_common::failure::FailureKind;

use super::super::*;
use super::env::{Grid, SPEED};
use super::simulation::Simulation;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn any_grid(most: u64) -> impl Strategy<Value = Grid> {
    let seconds = prop_oneof![Just(1e-6), Just(0.01), Just(0.2), Just(5.0)];
    (1..=most, seconds, 1..=20_u64).prop_map(|(total, seconds, group)| Grid {
        total,
        cost: seconds * SPEED,
        group,
    })
}

fn harmful() -> impl Strategy<Value = FailureKind> {
    use FailureKind::{Data, OutOfMemory, Permanent, Transient, WorkerCrashed};
    prop_oneof![Just(Data), Just(OutOfMemory), Just(Permanent), Just(Transient), Just(WorkerCrashed)]
}

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn every_trial_is_accounted_for_exactly_once_whatever_happens(
        grid in any_grid(150),
        doomed in any_grid(60),
        poison in btree_set(0_u64..150, 0..4),
        kind in harmful(),
        script in vec((any::<u8>(), any::<u64>()), 0..160),
    ) {
        let mut simulation = Simulation::new(CoreConfig { max_awaiting: 100, ..CoreConfig::default() });
        let poison = poison.into_iter().filter(|trial| *trial < grid.total).collect();
        simulation.add("s", grid, poison);
        simulation.add("doomed", doomed, Default::default());
        for worker in 0..3 {
            simulation.join(format!("w{worker}"));
        }
        for (code, number) in script {
            simulation.disturb(code, number);
        }
        simulation.run_to_the_end(kind);
        simulation.settle_accounts();
    }

    #[test]
    fn only_poison_trials_fail_when_nothing_else_goes_wrong(
        grid in any_grid(400),
        poison in btree_set(0_u64..400, 0..6),
        kind in harmful(),
    ) {
        let mut simulation = Simulation::new(CoreConfig::default());
        let poison: roaring::RoaringTreemap = poison.into_iter().filter(|trial| *trial < grid.total).collect();
        simulation.add("s", grid, poison.clone());
        simulation.run_to_the_end(kind);
        simulation.settle_accounts();
        for account in simulation.accounts.values() {
            prop_assert_eq!(&account.failed, &poison);
            prop_assert_eq!(account.finished, Some(SweepState::Completed));
        }
    }

    #[test]
    fn sets_of_trials_agree_with_bitmaps(
        a in vec((0_u64..300, 0_u64..20), 0..12),
        b in vec((0_u64..300, 0_u64..20), 0..12),
        cut in 0_u64..320,
    ) {
        let set = |pairs: &[(u64, u64)]| TrialSet::from_ranges(pairs.iter().map(|(at, len)| *at..at + len));
        let (a, b) = (set(&a), set(&b));
        let (x, y) = (a.to_bitmap(), b.to_bitmap());
        prop_assert_eq!(a.len(), x.len());
        prop_assert_eq!(a.union(&b).to_bitmap(), &x | &y);
        prop_assert_eq!(a.intersection(&b).to_bitmap(), &x & &y);
        prop_assert_eq!(a.difference(&b).to_bitmap(), &x - &y);
        prop_assert_eq!(a.difference_bitmap(&y), a.difference(&b));
        prop_assert_eq!(a.overlaps(&b), !x.is_disjoint(&y));
        prop_assert_eq!(a.below(cut).iter().collect::<Vec<_>>(), x.iter().filter(|t| *t < cut).collect::<Vec<_>>());
        let (head, tail) = a.split_at(cut.min(a.len()));
        prop_assert_eq!(head.len(), cut.min(a.len()));
        prop_assert_eq!(head.union(&tail), a.clone());
        prop_assert!(!head.overlaps(&tail));
        prop_assert_eq!(TrialSet::from_bitmap(&x), a);
    }
}
