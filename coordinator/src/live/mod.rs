//! Live figures of sweeps, from what is durable alone: nothing here is in the driver's way.
//!
//! | module | holds |
//! |---|---|
//! | `state` | what is known of a sweep from the segments that were read |
//! | `trials` | which trials a user looks for, and their rows |
//!
//! A sweep is read when somebody asks, and only what is new of it: at most once a second, a few columns of each segment. Who asks
//! waits a moment for that and otherwise gets what is known until then.

mod state;
mod trials;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_common::grid::Grid;
use evenkeel_common::id::SweepId;
use futures::StreamExt as _;
use tokio::time::Instant;

use self::state::State;
pub use self::trials::{TrialQuery, TrialState};
use crate::api;
use crate::driver::SweepView;
use crate::store::{States, Store, StoreError, read_overview, segment_path};
use crate::submission::Sweep;

/// Sweeps that are kept in memory; those that nobody asked for longest go first.
const SWEEPS: usize = 32;
/// How long who asks waits for what is new.
const WAIT: Duration = Duration::from_millis(300);
/// How often the store is asked for what is new.
const EVERY: Duration = Duration::from_secs(1);
/// For people who look: all that is new, in a twentieth of the time.
const LOOKING: Pace = Pace { rest: 20, most: None };
/// For metrics, which are asked for all day: a hundredth of the time, however fast results come.
const SCRAPING: Pace = Pace { rest: 100, most: Some(Duration::from_millis(200)) };
/// Segments that are read at once.
const AT_ONCE: usize = 4;
/// How often reading begins anew when segments become others meanwhile.
const TRIES: u32 = 4;

/// Live figures of all sweeps that somebody looks at; clones share them.
#[derive(Clone)]
pub struct Live {
    store: Store,
    sweeps: Arc<Mutex<Sweeps>>,
}

/// Sweeps, and when each was asked for last.
type Sweeps = HashMap<SweepId, (Instant, Arc<Reading>)>;

/// A sweep that is read.
struct Reading {
    id: SweepId,
    grid: Arc<Grid>,
    state: Mutex<State>,
    /// Why the last reading did not come to its end.
    problem: Mutex<Option<String>>,
    /// Held by who reads.
    gate: Arc<tokio::sync::Mutex<Read>>,
}

/// How much is read, and how often.
#[derive(Clone, Copy)]
struct Pace {
    /// Pause after a reading, in times of what it took.
    rest: u32,
    /// Longest time of a reading; what is left is for the next one.
    most: Option<Duration>,
}

/// When it was read last, how long that took, and whether that was all there is.
#[derive(Default)]
struct Read {
    at: Option<Instant>,
    took: Duration,
    whole: bool,
}

impl Read {
    fn is_due(&self, pace: Pace) -> bool {
        let rested = self.at.is_none_or(|at| at.elapsed() > EVERY.max(self.took * pace.rest));
        // Who looks does not wait for what metrics left.
        rested || (pace.most.is_none() && !self.whole)
    }
}

impl Live {
    /// Of the sweeps of this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, sweeps: Arc::default() }
    }

    /// The figures of a sweep, as fresh as they are to be had in a moment.
    ///
    /// # Errors
    /// When there is no such sweep or the store does not answer.
    pub async fn figures(&self, view: &SweepView) -> Result<api::Live, StoreError> {
        let reading = self.fresh(&view.id, LOOKING).await?;
        let state = lock(&reading.state);
        let (failures, unlisted_failures) = state.failures();
        let training = view.training.iter().map(|curve| api::LiveCurve {
            trial: curve.trial,
            steps: curve.last.steps,
            points: trials::training_points(curve),
        });
        Ok(api::Live {
            sweep: view.id.to_string(),
            read: state.read(),
            problem: lock(&reading.problem).clone(),
            trials: state.seen.len(),
            lines: state.lines(true),
            failures,
            unlisted_failures,
            training: training.collect(),
        })
    }

    /// The spec of a sweep with every default written out, as YAML.
    ///
    /// # Errors
    /// When there is no such sweep or the store does not answer.
    pub async fn spec(&self, id: &SweepId) -> Result<String, StoreError> {
        Ok(self.reading(id).await?.grid.spec().to_canonical_yaml())
    }

    /// The figures as they are known, without samples and without waiting; what is new is read in the background.
    #[must_use]
    pub fn known(&self, id: &SweepId) -> Vec<api::LiveLine> {
        let known = lock(&self.sweeps).get(id).map(|(_, reading)| reading.clone());
        let lines = known.as_ref().map(|reading| lock(&reading.state).lines(false)).unwrap_or_default();
        let (live, id) = (self.clone(), id.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = live.fresh(&id, SCRAPING).await {
                    tracing::debug!(sweep.id = %id, %error, "no live figures");
                }
            });
        }
        lines
    }

    /// The sweep, read anew unless that was done a moment ago.
    async fn fresh(&self, id: &SweepId, pace: Pace) -> Result<Arc<Reading>, StoreError> {
        let reading = self.reading(id).await?;
        if let Ok(mut gate) = reading.gate.clone().try_lock_owned()
            && gate.is_due(pace)
        {
            let (reading, store) = (reading.clone(), self.store.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                let read = reading.read(&store, pace).await;
                gate.whole = matches!(read, Ok(true));
                *lock(&reading.problem) = read.err().map(|error| {
                    tracing::warn!(sweep.id = %reading.id, %error, "live figures are not up to date");
                    error.to_string()
                });
                gate.at = Some(Instant::now());
                gate.took = began.elapsed();
            });
        }
        let _ = tokio::time::timeout(WAIT, reading.gate.lock()).await;
        Ok(reading)
    }

    async fn reading(&self, id: &SweepId) -> Result<Arc<Reading>, StoreError> {
        if let Some((asked, reading)) = lock(&self.sweeps).get_mut(id) {
            *asked = Instant::now();
            return Ok(reading.clone());
        }
        let record = self.store.read_sweep(id).await?;
        let grid = Arc::new(Sweep::stored_grid(&record)?);
        let reading = Arc::new(Reading {
            id: id.clone(),
            state: Mutex::new(State::new(grid.clone(), None)),
            grid,
            problem: Mutex::default(),
            gate: Arc::default(),
        });
        let mut sweeps = lock(&self.sweeps);
        if sweeps.len() >= SWEEPS {
            let oldest = sweeps.iter().min_by_key(|(_, (asked, _))| *asked).map(|(id, _)| id.clone());
            oldest.iter().for_each(|oldest| {
                sweeps.remove(oldest);
            });
        }
        Ok(sweeps.entry(id.clone()).or_insert((Instant::now(), reading)).1.clone())
    }
}

impl Reading {
    /// Reads the segments that are new; says whether none is left.
    async fn read(&self, store: &Store, pace: Pace) -> Result<bool, StoreError> {
        let mut tries = 1;
        loop {
            match self.read_new(store, pace).await {
                // Segments became one, or the sweep was deleted and submitted again.
                Err(StoreError::Missing { .. }) if tries < TRIES => {
                    tries += 1;
                    let mut state = lock(&self.state);
                    *state = State::new(self.grid.clone(), state.retried.take());
                }
                read => return read,
            }
        }
    }

    async fn read_new(&self, store: &Store, pace: Pace) -> Result<bool, StoreError> {
        let began = Instant::now();
        let States { retried, .. } = store.states(&self.id).await?;
        let names = store.segment_names(&self.id).await?;
        let new: Vec<String> = {
            let mut state = lock(&self.state);
            let last = state.segments.last_key_value().map(|(name, _)| name.clone());
            let there = state.segments.keys().all(|name| names.binary_search(name).is_ok());
            let is_new = |name: &&String| !state.segments.contains_key(*name);
            let in_order =
                names.iter().filter(is_new).all(|name| last.as_ref().is_none_or(|last| name > last));
            if state.retried != retried || !there || !in_order {
                *state = State::new(self.grid.clone(), retried);
            }
            state.listed = names.len();
            names.into_iter().filter(|name| !state.segments.contains_key(name)).collect()
        };
        let reading = new.into_iter().map(|name| async move {
            let read = read_overview(store, &segment_path(&self.id, &name)).await;
            read.map(|(overview, errors)| (name, overview, errors))
        });
        let mut reading = futures::stream::iter(reading).buffered(AT_ONCE);
        while let Some(segment) = reading.next().await {
            let (name, overview, errors) = segment?;
            lock(&self.state).push(name, &overview, errors);
            if pace.most.is_some_and(|most| began.elapsed() > most) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
