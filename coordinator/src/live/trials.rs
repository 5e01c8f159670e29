//! Trials that users look for: found in memory, shown from the segments that hold their rows.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_common::grid::Grid;
use evenkeel_common::id::SweepId;
use evenkeel_common::results::{self, Status, TrialRecord};
use evenkeel_common::trial::Trial;
use roaring::RoaringTreemap;

use super::state::State;
use super::{LOOKING, Live, Reading, lock};
use crate::api;
use crate::core::PackStatus;
use crate::driver::{SweepView, TrainingView};
use crate::store::{StoreError, read_rows, segment_path};

/// Trials that one question looks at, most of all.
const LOOKED_AT: u64 = 1 << 20;

/// How a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialState {
    /// Has a durable result.
    Ended(Status),
    /// Is with a worker.
    Running,
    /// Neither.
    Waiting,
}

impl TrialState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Ended(Status::Completed),
        Self::Ended(Status::Diverged),
        Self::Ended(Status::Failed),
        Self::Running,
        Self::Waiting,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended(status) => status.name(),
            Self::Running => "running",
            Self::Waiting => "waiting",
        }
    }
}

/// Which trials are wanted.
#[derive(Clone, Debug, Default)]
pub struct TrialQuery {
    /// Only those that stand so.
    pub status: Option<TrialState>,
    /// Only those of the strategy of this name.
    pub strategy: Option<String>,
    /// Only those of this worker.
    pub worker: Option<String>,
    /// A trial's number, or a part of an error or of the name of a dataset, model, strategy or worker.
    pub text: Option<String>,
    /// Only those behind this one.
    pub after: Option<u64>,
    /// How many at most.
    pub limit: usize,
}

impl Live {
    /// The trials that a query wants, in the order of their numbers.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn trials(
        &self,
        id: &SweepId,
        query: &TrialQuery,
        in_flight: &[PackStatus],
    ) -> Result<api::Trials, StoreError> {
        let reading = self.fresh(id, LOOKING).await?;
        let (found, next, read) = {
            let state = lock(&reading.state);
            let (found, next) = find(&state, query, in_flight);
            (found, next, state.read())
        };
        let records = self.records(&reading, &found).await?;
        let state = lock(&reading.state);
        let rows = found.into_iter().filter_map(|index| {
            let trial = state.grid.trial(index)?;
            Some(row(&trial, records.get(&index), in_flight))
        });
        Ok(api::Trials { trials: rows.collect(), next, read })
    }

    /// Everything that is known of a trial; none when it is not in the grid.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn trial(
        &self,
        view: &SweepView,
        index: u64,
        in_flight: &[PackStatus],
    ) -> Result<Option<api::Trial>, StoreError> {
        let reading = self.fresh(&view.id, LOOKING).await?;
        let Some(trial) = reading.grid.trial(index) else { return Ok(None) };
        let record = self.records(&reading, &[index]).await?.remove(&index);
        let config = |text: String| serde_json::from_str(&text).unwrap_or_default();
        let outcome = record.as_ref().map(|record| &record.outcome);
        let trains = view.training.iter().find(|curve| curve.trial == index).filter(|_| outcome.is_none());
        let curve = match (outcome, trains) {
            (Some(outcome), _) => outcome.curve.iter().map(point).collect(),
            (None, Some(training)) => training_points(training),
            (None, None) => Vec::new(),
        };
        let measures = outcome.map(|outcome| outcome.measures.named()).into_iter().flatten();
        let distances = outcome.and_then(|outcome| outcome.distances.as_deref());
        Ok(Some(api::Trial {
            row: row(&trial, record.as_ref(), in_flight),
            sweep: view.id.to_string(),
            trial_id: trial.id().to_string(),
            dataset_config: config(trial.dataset.to_json()),
            model_config: config(trial.model.to_json()),
            strategy_config: config(trial.strategy.to_json()),
            measures: measures.filter(|(_, value)| value.is_finite()).collect(),
            distances: distances.and_then(|text| serde_json::from_str(text).ok()),
            curve,
            training: trains.is_some(),
        }))
    }

    /// The rows of these trials, from the segments that have them.
    async fn records(
        &self,
        reading: &Reading,
        trials: &[u64],
    ) -> Result<BTreeMap<u64, TrialRecord>, StoreError> {
        let mut wanted: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        {
            let state = lock(&reading.state);
            for trial in trials.iter().filter(|trial| state.seen.contains(**trial)) {
                if let Some(segment) = state.find_segment(*trial) {
                    wanted.entry(segment.to_owned()).or_default().insert(*trial);
                }
            }
        }
        let mut found = BTreeMap::new();
        for (segment, trials) in wanted {
            match read_rows(&self.store, &segment_path(&reading.id, &segment), trials).await {
                Ok(records) => {
                    found.extend(records.into_iter().map(|record| (record.outcome.trial_index, record)));
                }
                // It became a part of another a moment ago: the next look finds that.
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Which trials a query wants, and behind which it goes on.
fn find(state: &State, query: &TrialQuery, in_flight: &[PackStatus]) -> (Vec<u64>, Option<u64>) {
    let text = query.text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_lowercase);
    let flying = || {
        let held = |pack: &&PackStatus| query.worker.as_ref().is_none_or(|w| pack.worker.to_string() == *w);
        let mut set = RoaringTreemap::new();
        in_flight.iter().filter(held).for_each(|pack| set |= pack.trials.to_bitmap());
        set - &state.seen
    };
    // What narrows the search down to a set.
    let mut within: Option<RoaringTreemap> = None;
    let mut narrow = |set: RoaringTreemap| {
        within = Some(match within.take() {
            Some(known) => known & set,
            None => set,
        });
    };
    match query.status {
        Some(TrialState::Ended(status)) => {
            let place =
                [Status::Completed, Status::Diverged, Status::Failed].iter().position(|s| *s == status);
            narrow(place.and_then(|place| state.by_status.get(place)).cloned().unwrap_or_default());
        }
        Some(TrialState::Running) => narrow(flying()),
        Some(TrialState::Waiting) | None => {}
    }
    if let Some(worker) = &query.worker {
        narrow(state.workers.get(worker).cloned().unwrap_or_default() | flying());
    }
    let spec = state.grid.spec();
    let mut names = Matching { any: true, ..Matching::default() };
    if let Some(text) = &text {
        if let Ok(number) = text.trim_start_matches('#').replace(',', "").parse::<u64>() {
            narrow(std::iter::once(number).collect());
        } else {
            names = Matching::new(&state.grid, text);
            let mut found = RoaringTreemap::new();
            let hits = |word: &&String| word.to_lowercase().contains(text.as_str());
            state.errors.keys().filter(hits).filter_map(|e| state.errors.get(e)).for_each(|set| found |= set);
            state
                .workers
                .keys()
                .filter(hits)
                .filter_map(|w| state.workers.get(w))
                .for_each(|set| found |= set);
            if names.none() {
                narrow(found);
                names.any = true;
            } else {
                names.others = found;
            }
        }
    }
    let strategy = |at: usize| {
        query.strategy.as_ref().is_none_or(|name| spec.strategies.get(at).is_some_and(|s| s.name == *name))
    };
    let fits = |index: u64| {
        let Some(at) = state.grid.coordinates(index) else { return false };
        let waits = query.status != Some(TrialState::Waiting)
            || !(state.seen.contains(index) || in_flight.iter().any(|pack| pack.trials.contains(index)));
        waits && strategy(at.strategy) && (names.any || names.fit(index, at.dataset, at.model, at.strategy))
    };
    let start = query.after.map_or(0, |after| after.saturating_add(1));
    let (mut found, mut last) = (Vec::new(), None);
    let mut look = |candidates: &mut dyn Iterator<Item = u64>| {
        for (looked, index) in (0..).zip(candidates) {
            if found.len() >= query.limit || looked >= LOOKED_AT {
                return true;
            }
            last = Some(index);
            if fits(index) {
                found.push(index);
            }
        }
        false
    };
    let more = match &within {
        Some(set) => {
            let mut candidates = set.iter();
            candidates.advance_to(start);
            look(&mut candidates)
        }
        None => look(&mut (start..state.grid.len())),
    };
    (found, last.filter(|_| more))
}

/// Entries of a spec whose names hold a text.
#[derive(Default)]
struct Matching {
    any: bool,
    datasets: Vec<bool>,
    models: Vec<bool>,
    strategies: Vec<bool>,
    /// Trials that hold it elsewhere.
    others: RoaringTreemap,
}

impl Matching {
    fn new(grid: &Grid, text: &str) -> Self {
        let spec = grid.spec();
        let holds = |name: String| name.to_lowercase().contains(text);
        Self {
            any: false,
            datasets: spec.datasets.iter().map(|d| holds(evenkeel_common::grid::dataset_name(d))).collect(),
            models: spec.models.iter().map(|m| holds(evenkeel_common::grid::model_name(m))).collect(),
            strategies: spec.strategies.iter().map(|s| holds(s.name.clone())).collect(),
            others: RoaringTreemap::new(),
        }
    }

    fn none(&self) -> bool {
        !self.datasets.iter().chain(&self.models).chain(&self.strategies).any(|holds| *holds)
    }

    fn fit(&self, index: u64, dataset: usize, model: usize, strategy: usize) -> bool {
        let of = |list: &[bool], at: usize| list.get(at).copied().unwrap_or(false);
        of(&self.datasets, dataset)
            || of(&self.models, model)
            || of(&self.strategies, strategy)
            || self.others.contains(index)
    }
}

fn row(trial: &Trial, record: Option<&TrialRecord>, in_flight: &[PackStatus]) -> api::TrialRow {
    let outcome = record.map(|record| &record.outcome);
    let pack = in_flight.iter().find(|pack| outcome.is_none() && pack.trials.contains(trial.index));
    let state = match (outcome, pack) {
        (Some(outcome), _) => TrialState::Ended(outcome.status),
        (None, Some(_)) => TrialState::Running,
        (None, None) => TrialState::Waiting,
    };
    let execution = record.map(|record| &record.execution);
    let some = |word: &String| (!word.is_empty()).then(|| word.clone());
    let finite = |value: Option<f64>| value.and_then(api::finite);
    api::TrialRow {
        trial_index: trial.index,
        dataset: trial.dataset_name.clone(),
        model: trial.model_name.clone(),
        strategy: trial.strategy.name.clone(),
        seed: trial.seed,
        status: state.name(),
        score: finite(outcome.and_then(|outcome| outcome.measures.score)),
        loo_mean: finite(outcome.and_then(|outcome| outcome.measures.loo_mean)),
        error: outcome.and_then(|outcome| outcome.error.clone()),
        attempt: execution.map(|execution| execution.attempt),
        worker: match execution {
            Some(execution) => some(&execution.worker),
            None => pack.map(|pack| pack.worker.to_string()),
        },
        device: execution.and_then(|execution| some(&execution.device)),
        started_ms: execution.map(|execution| execution.started_ms),
        duration_s: execution.map(|execution| execution.duration_s),
    }
}

fn point(point: &results::CurvePoint) -> api::CurvePoint {
    api::CurvePoint {
        step: point.step,
        train_loss: api::finite(point.train_loss),
        eval_loss: api::finite(point.eval_loss),
        score: api::finite(point.score),
        loo_mean: api::finite(point.loo_mean),
    }
}

/// The curve of a trial that trains.
pub(super) fn training_points(curve: &TrainingView) -> Vec<api::CurvePoint> {
    let points = curve.curve.iter().map(|point| api::CurvePoint {
        step: point.step,
        train_loss: api::finite(point.train_loss),
        eval_loss: None,
        score: api::finite(point.score),
        loo_mean: None,
    });
    points.collect()
}
