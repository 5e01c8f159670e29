//! What happened, and what must not: every observation goes into a log, and what breaks an invariant is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_worker::core::PackKey;

use crate::faults::Fault;

/// What happens within this time happens at the same moment.
const AT_ONCE: Duration = Duration::from_millis(20);
/// Lines of the log that a failure shows.
const LAST_LINES: usize = 60;

#[derive(Default)]
struct Ledger {
    now: Duration,
    log: Vec<String>,
    broken: Vec<String>,
    fired: BTreeMap<Fault, u32>,
    /// Trials that are in a segment.
    durable: BTreeSet<u64>,
    /// Who writes under an epoch.
    writers: BTreeMap<u64, String>,
    /// The first results of each pack that a worker delivered.
    delivered: BTreeMap<(String, PackKey), Vec<u64>>,
    /// The epoch a worker follows, and since when.
    followed: BTreeMap<String, (u64, Duration)>,
}

/// The observer; clones share it.
#[derive(Clone, Default)]
pub struct Oracle(Arc<Mutex<Ledger>>);

impl Oracle {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Between two steps of the simulation no host's clock runs.
        if let Some(now) = turmoil::sim_elapsed() {
            ledger.now = now;
        }
        ledger
    }

    /// Writes a line into the log.
    pub fn note(&self, who: &str, what: impl Display) {
        self.ledger().note(who, what);
    }

    /// An invariant does not hold.
    pub fn broken(&self, what: impl Display) {
        self.ledger().breaks(what);
    }

    /// A fault took effect.
    pub fn fired(&self, fault: Fault, on: &str) {
        let mut ledger = self.ledger();
        *ledger.fired.entry(fault).or_insert(0) += 1;
        ledger.note("fault", format!("{fault:?} {on}"));
    }

    /// Somebody writes an object under an epoch: nobody else may, ever.
    pub fn writes(&self, life: &str, epoch: u64, path: &str) {
        let mut ledger = self.ledger();
        let first = ledger.writers.entry(epoch).or_insert_with(|| life.to_owned()).clone();
        if first != life {
            ledger.breaks(format!("{life} writes {path}, but epoch {epoch} is {first}'s"));
        }
    }

    /// A segment is in the store.
    pub fn durable(&self, trials: impl Iterator<Item = u64>) {
        self.ledger().durable.extend(trials);
    }

    /// Trials that are in a segment.
    #[must_use]
    pub fn durable_trials(&self) -> usize {
        self.ledger().durable.len()
    }

    /// A worker answered the greeting of a leader.
    pub fn follows(&self, life: &str, epoch: u64) {
        let mut ledger = self.ledger();
        let now = ledger.now;
        let (before, _) = ledger.followed.insert(life.to_owned(), (epoch, now)).unwrap_or_default();
        ledger.note(life, format!("follows {epoch}"));
        if epoch < before {
            ledger.breaks(format!("{life} follows epoch {epoch} after {before}"));
        }
    }

    /// A worker begins a pack: it must not be one of an earlier leader than it follows. (A slot may take up at the very
    /// moment of the greeting what it was given just before.)
    pub fn starts(&self, life: &str, key: PackKey, trials: &[u64]) {
        let mut ledger = self.ledger();
        let (follows, since) = ledger.followed.get(life).copied().unwrap_or_default();
        ledger.note(life, format!("starts {key:?} {trials:?}"));
        if key.epoch < follows && ledger.now > since + AT_ONCE {
            ledger.breaks(format!("{life} follows epoch {follows}, and begins {key:?}"));
        }
    }

    /// A worker keeps results until they are acknowledged.
    pub fn delivers(&self, life: &str, key: PackKey, trials: Vec<u64>) {
        let mut ledger = self.ledger();
        ledger.note(life, format!("delivers {key:?} {trials:?}"));
        ledger.delivered.entry((life.to_owned(), key)).or_insert(trials);
    }

    /// A worker may forget a pack. Its first results have been received before that, so they must be durable. (Later ones
    /// may be on their way: a worker that forgets those has them run again if they get lost.)
    pub fn acknowledged(&self, life: &str, key: PackKey) {
        let mut ledger = self.ledger();
        ledger.note(life, format!("may forget {key:?}"));
        let first = ledger.delivered.get(&(life.to_owned(), key)).cloned().unwrap_or_default();
        let lost: Vec<u64> = first.into_iter().filter(|trial| !ledger.durable.contains(trial)).collect();
        if !lost.is_empty() {
            ledger.breaks(format!("{life} was told to forget {key:?}, but {lost:?} are not durable"));
        }
    }

    /// Says what time it is between two steps.
    pub fn set_time(&self, now: Duration) {
        self.ledger().now = now;
    }

    /// What broke.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.ledger().broken.clone()
    }

    /// How often each fault took effect.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<Fault, u32> {
        self.ledger().fired.clone()
    }

    /// How many leaders wrote something.
    #[must_use]
    pub fn writers(&self) -> usize {
        self.ledger().writers.len()
    }

    /// A hash of the whole log.
    #[must_use]
    pub fn digest(&self) -> String {
        blake3::hash(self.ledger().log.join("\n").as_bytes()).to_hex().to_string()
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.ledger().log.clone()
    }

    /// The end of the log.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let ledger = self.ledger();
        let from = ledger.log.len().saturating_sub(LAST_LINES);
        ledger.log.get(from..).unwrap_or_default().join("\n")
    }
}

impl Ledger {
    fn note(&mut self, who: &str, what: impl Display) {
        let line = format!("{:9.3} {who}: {what}", self.now.as_secs_f64());
        tracing::debug!(target: "evenkeel_simulation", "{line}");
        self.log.push(line);
    }

    fn breaks(&mut self, what: impl Display) {
        let line = format!("{:9.3} BROKEN: {what}", self.now.as_secs_f64());
        self.log.push(line.clone());
        self.broken.push(line);
    }
}
