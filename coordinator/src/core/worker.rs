//! What is known about a worker: its speed and how it behaves.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_common::id::SweepId;

use super::CoreConfig;
use super::ids::PackId;

/// Units per second that a worker is taken to have if it says nothing sensible: a slow CPU core.
const FALLBACK_SPEED: f64 = 1e9;
/// Speeds beyond these are measuring errors: no device computes 10^18 operations per second.
const SPEED_RANGE: (f64, f64) = (1.0, 1e18);
/// The weight of the newest measurement: the estimate follows a change within about four packs.
const SPEED_WEIGHT: f64 = 0.4;
/// More slots than any device has; a larger number is a mistake that must not fill the memory.
const MAX_SLOTS: u32 = 1_024;
/// So many packs without a failure halve the pause that the next quarantine will have.
const CALM_PACKS: u32 = 8;

pub(super) struct Worker {
    pub slots: u32,
    prior_speed: f64,
    measured_speed: Option<f64>,
    /// Whether its first pack is through: before that its speed is a guess, and packs are small.
    pub probed: bool,
    /// Its packs in the order it got them: the first `slots` run, the others wait behind them.
    pub packs: Vec<PackId>,
    pub draining: bool,
    pub standing: Standing,
    /// What it was given last.
    pub last: Option<(SweepId, u64)>,
    /// How many trials of a sweep fit its memory, where that was found out the hard way.
    limits: BTreeMap<SweepId, u64>,
}

impl Worker {
    pub fn new(slots: u32, prior_speed: f64, standing: Standing) -> Worker {
        let usable = prior_speed.is_finite() && prior_speed > 0.0;
        let prior_speed = if usable { prior_speed } else { FALLBACK_SPEED };
        Worker {
            slots: slots.clamp(1, MAX_SLOTS),
            prior_speed: prior_speed.clamp(SPEED_RANGE.0, SPEED_RANGE.1),
            measured_speed: None,
            probed: false,
            packs: Vec::new(),
            draining: false,
            standing,
            last: None,
            limits: BTreeMap::new(),
        }
    }

    /// Units per second of one slot, as well as it is known.
    pub fn speed(&self) -> f64 {
        self.measured_speed.unwrap_or(self.prior_speed)
    }

    pub fn measured_speed(&self) -> Option<f64> {
        self.measured_speed
    }

    /// Whether it may get packs now.
    pub fn is_eligible(&self) -> bool {
        !self.draining && self.standing.until.is_none()
    }

    pub fn has_idle_slot(&self) -> bool {
        self.packs.len() < self.slots as usize
    }

    /// Learns from work that took a slot so long. Broken numbers teach nothing.
    pub fn measure(&mut self, cost: f64, seconds: f64) {
        if !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        let speed = (cost / seconds).clamp(SPEED_RANGE.0, SPEED_RANGE.1);
        self.measured_speed = Some(match self.measured_speed {
            Some(known) => known + SPEED_WEIGHT * (speed - known),
            None => speed,
        });
    }

    /// How many trials of a sweep a pack may have.
    pub fn trial_limit(&self, sweep: &SweepId) -> u64 {
        self.limits.get(sweep).copied().unwrap_or(u64::MAX)
    }

    /// Its memory was too small for so many trials of a sweep.
    pub fn lower_limit(&mut self, sweep: &SweepId, trials: u64) {
        let limit = self.limits.entry(sweep.clone()).or_insert(u64::MAX);
        *limit = (*limit).min(trials.div_ceil(2).max(1));
    }

    /// So many fitted. The limit creeps up, for trials of another part of the grid may be smaller.
    pub fn raise_limit(&mut self, sweep: &SweepId, trials: u64) {
        if let Some(limit) = self.limits.get_mut(sweep).filter(|limit| trials >= **limit) {
            *limit = limit.saturating_add(*limit / 32 + 1);
        }
    }

    pub fn forget_sweep(&mut self, sweep: &SweepId) {
        self.limits.remove(sweep);
    }
}

/// How a worker behaves. Outlives its connection, or a worker that crashes would start each life
/// without a past.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// All failures that were its own, as far as one can tell.
    pub failures: u32,
    /// Failures in a row, less one for each success since.
    pub streak: u32,
    /// How often the next pause is to be doubled.
    level: u32,
    /// Successes since the last failure.
    calm: u32,
    /// When it may get packs again.
    pub until: Option<Duration>,
}

impl Standing {
    /// Takes note of a failure. Returns until when the worker is to pause, if that is news.
    pub fn on_failure(&mut self, config: &CoreConfig, now: Duration) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        self.streak = self.streak.saturating_add(1);
        self.calm = 0;
        // Packs that were under way when a pause began say nothing new.
        if self.until.is_some() || self.streak < config.quarantine_after.max(1) {
            return None;
        }
        let pause = config.quarantine_base.saturating_mul(1 << self.level.min(20));
        let until = now.saturating_add(pause.min(config.quarantine_max));
        self.level = self.level.saturating_add(1);
        self.until = Some(until);
        Some(until)
    }

    pub fn on_success(&mut self) {
        self.streak = self.streak.saturating_sub(1);
        self.calm += 1;
        if self.calm >= CALM_PACKS {
            self.calm = 0;
            self.level = self.level.saturating_sub(1);
        }
    }

    /// Ends a pause that is over. One failure more begins the next one, one success is a way out.
    pub fn release(&mut self, config: &CoreConfig, now: Duration) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
            self.streak = self.streak.min(config.quarantine_after.max(1) - 1);
        }
    }

    pub fn is_clean(&self) -> bool {
        *self == Standing { failures: self.failures, ..Standing::default() }
    }
}
