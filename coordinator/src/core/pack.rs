//! A pack in flight.

use std::time::Duration;

use evenkeel_common::id::SweepId;

use super::ids::{PackId, WorkerId};
use super::sweep::History;
use super::trials::TrialSet;

pub(super) struct Pack {
    pub sweep: SweepId,
    pub worker: WorkerId,
    /// What was dispatched.
    pub trials: TrialSet,
    /// Those of them that are still wanted: nobody has delivered them.
    pub open: TrialSet,
    /// The work of `trials`, in units.
    pub cost: f64,
    /// What the trials had been through before.
    pub history: History,
    pub dispatched_at: Duration,
    /// How long it should take from then on, with the wait behind other packs, in seconds.
    pub expected: f64,
    /// Whether its worker said that it works on it.
    pub started: bool,
    /// How much of it is done, as its worker said.
    pub fraction: f64,
    /// The other execution of the same trials, if it is a straggler or the twin of one.
    pub twin: Option<PackId>,
    /// Whether another execution failed: a further one would probably only do the same.
    pub last_chance: bool,
}

impl Pack {
    /// The work of the trials that are still wanted, taking them for average ones.
    pub fn open_cost(&self) -> f64 {
        self.cost * self.open.len() as f64 / self.trials.len().max(1) as f64
    }

    /// When it counts as a straggler for a worker of `speed`: it took twice as long as expected, and at
    /// the pace it shows that worker would be through before it.
    pub fn overdue_at(&self, speed: f64, at_least: Duration) -> Duration {
        let fraction = self.fraction.min(0.999);
        // The rest, elapsed × (1 - fraction) / fraction, is longer than `own` from here on.
        let own = self.open_cost() / speed;
        let outrun = own * fraction / (1.0 - fraction);
        self.dispatched_at.saturating_add(at_least.max(seconds((2.0 * self.expected).max(outrun))))
    }
}

/// A number of seconds that may be broken as a duration; a year stands for all that is longer.
pub(super) fn seconds(seconds: f64) -> Duration {
    const YEAR: f64 = 365.0 * 86_400.0;
    if seconds.is_nan() { Duration::ZERO } else { Duration::from_secs_f64(seconds.clamp(0.0, YEAR)) }
}
