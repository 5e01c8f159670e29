use evenkeel_common::results::{
    self, ExecutionRecord, Measures, Status, TestOutputs, TrialOutcome, TrialRecord,
};
use evenkeel_common::spec::Spec;

use super::*;
use crate::core::{PackStatus, StatusCounts};
use crate::store::{Sequence, StateRecord, StoredState, compact, to_parquet};

const SPEC: &str = "
apiVersion: evenkeel/v1
name: looked-at
datasets:
  - synthetic: {generator: separable, samples: 20, features: 4, margin: 0.5, instances: 10}
strategies:
  - {name: head, setting: head, steps: 10, learning_rate: 0.1}
  - {name: other, setting: head, steps: 10, learning_rate: [0.1, 0.2]}
seeds: 5
";

struct Desk {
    _dir: tempfile::TempDir,
    store: Store,
    live: Live,
    view: SweepView,
    names: Sequence,
}

fn record(trial_index: u64, status: Status, score: f64) -> TrialRecord {
    TrialRecord {
        outcome: TrialOutcome {
            trial_index,
            status,
            error: (status == Status::Failed).then(|| "transient: no luck".to_owned()),
            measures: Measures { score: Some(score), loo_mean: Some(score / 10.0), ..Measures::default() },
            distances: None,
            curve: Vec::new(),
            outputs: TestOutputs::default(),
        },
        execution: ExecutionRecord { worker: format!("w{}", trial_index % 2), ..ExecutionRecord::default() },
    }
}

fn score(trial: u64) -> f64 {
    (trial as f64 * 0.618_034).fract()
}

impl Desk {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().to_string_lossy()).expect("open");
        let spec = Spec::parse("x.yaml", SPEC).expect("spec");
        let sweep = Sweep::new("x.yaml", spec, Vec::new()).expect("sweep");
        store.create_sweep(&sweep.record(5)).await.expect("create");
        let view = SweepView {
            id: sweep.id.clone(),
            name: "looked-at".to_owned(),
            state: StoredState::Running,
            total: sweep.grid.len(),
            counts: StatusCounts::default(),
            running: 0,
            submitted_ms: 5,
            seconds: 1.0,
            priority: 1,
            trials_per_second: 0.0,
            notice: None,
            training: Vec::new(),
            trace: None,
        };
        assert_eq!(view.total, 150);
        Self { live: Live::new(store.clone()), _dir: dir, store, view, names: Sequence::new(3) }
    }

    async fn write(&self, records: &[TrialRecord]) {
        let bytes = to_parquet(&results::encode(records).expect("encode")).expect("parquet");
        let path = segment_path(&self.view.id, &self.names.next_name());
        self.store.create(&path, bytes).await.expect("segment");
    }

    /// Figures of a coordinator that has just begun.
    async fn fresh(&self) -> api::Live {
        Live::new(self.store.clone()).figures(&self.view).await.expect("figures")
    }

    /// Figures of the one that has read before, whatever it remembers of when.
    async fn known(&self) -> api::Live {
        let reading = self.live.reading(&self.view.id).await.expect("reading");
        reading.gate.lock().await.at = None;
        self.live.figures(&self.view).await.expect("figures")
    }

    async fn trials(&self, query: TrialQuery) -> Vec<u64> {
        let found = self.live.trials(&self.view.id, &TrialQuery { limit: 1000, ..query }, &[]).await;
        found.expect("trials").trials.iter().map(|row| row.trial_index).collect()
    }
}

fn text(live: &api::Live) -> serde_json::Value {
    let mut value = serde_json::to_value(live).expect("json");
    // Sums depend on the order in their last bits.
    for line in value["lines"].as_array_mut().expect("lines") {
        for (_, number) in line.as_object_mut().expect("line").iter_mut().filter(|(_, v)| v.is_f64()) {
            *number = format!("{:.9}", number.as_f64().expect("number")).into();
        }
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_grow_with_segments_and_are_those_of_reading_everything_at_once() {
    let desk = Desk::new().await;
    assert_eq!(desk.known().await.trials, 0);
    // Backwards, in small pieces, some trials twice: the first row counts.
    for start in (0..22).rev().map(|number| number * 7) {
        let records: Vec<_> = (start..(start + 9).min(150))
            .map(|trial| {
                record(trial, Status::Completed, score(trial) + if trial < start + 7 { 0.0 } else { 9.0 })
            })
            .collect();
        desk.write(&records).await;
    }
    let live = desk.known().await;
    assert_eq!((live.read, live.trials), (1.0, 150));
    assert_eq!(text(&live), text(&desk.fresh().await));
    let labels: Vec<&str> = live.lines.iter().map(|line| line.label.as_str()).collect();
    assert_eq!(labels, ["head", "other (learning_rate=0.1)", "other (learning_rate=0.2)"]);
    // By hand: groups are five neighbours, and each third group is of the first line.
    let groups = (0..30).filter(|group| group % 3 == 0);
    let (mut squares, mut degrees, mut sum) = (0.0, 0.0, 0.0);
    for group in groups {
        let scores: Vec<f64> = (group * 5..group * 5 + 5).map(score).collect();
        let mean = scores.iter().sum::<f64>() / 5.0;
        squares += scores.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>();
        (degrees, sum) = (degrees + 4.0, sum + mean);
    }
    let line = &live.lines[0];
    assert!((line.score_seed_sd.expect("sd") - (squares / degrees).sqrt()).abs() < 1e-12);
    assert!((line.score_mean.expect("mean") - sum / 10.0).abs() < 1e-12);
    assert!((line.loo_mean.expect("loo") - sum / 100.0).abs() < 1e-12);
    assert_eq!(line.sample.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_void_once_they_are_tried_again_and_compaction_changes_nothing() {
    let desk = Desk::new().await;
    for start in (0..150).step_by(10) {
        let status = |trial: u64| if trial % 10 == 3 { Status::Failed } else { Status::Completed };
        desk.write(&(start..start + 10).map(|t| record(t, status(t), score(t))).collect::<Vec<_>>()).await;
    }
    let live = desk.known().await;
    assert_eq!(live.lines.iter().map(|line| line.failed).sum::<u64>(), 15);
    assert_eq!((live.failures[0].trials, live.failures[0].first_trial), (15, 3));
    let failed = TrialQuery { status: Some(TrialState::Ended(Status::Failed)), ..TrialQuery::default() };
    assert_eq!(desk.trials(failed.clone()).await.len(), 15);

    compact(&desk.store, &desk.view.id, &desk.names, Duration::ZERO).await.expect("compact").expect("done");
    assert_eq!(text(&desk.known().await), text(&live));
    let by_worker = TrialQuery { worker: Some("w1".to_owned()), ..failed.clone() };
    assert_eq!(desk.trials(by_worker).await.len(), 15);

    let retry = StateRecord {
        format_version: evenkeel_common::FORMAT_VERSION,
        state: StoredState::Running,
        at_ms: 9,
        seconds: 1.5,
        counts: None,
        retries_failed: true,
    };
    desk.store.write_state(&desk.view.id, &desk.names.next_name(), &retry).await.expect("state");
    assert_eq!((desk.known().await.trials, desk.trials(failed).await.len()), (135, 0));
    let waiting = TrialQuery { status: Some(TrialState::Waiting), ..TrialQuery::default() };
    assert_eq!(desk.trials(waiting.clone()).await.len(), 15);
    desk.write(&[record(3, Status::Completed, score(3))]).await;
    assert_eq!(desk.known().await.trials, 136);
    assert_eq!(desk.trials(waiting).await[0], 13);
    let trial = desk.live.trial(&desk.view, 3, &[]).await.expect("trial").expect("in the grid");
    assert_eq!((trial.row.status, trial.measures["score"]), ("completed", score(3)));
    assert!(desk.live.trial(&desk.view, 150, &[]).await.expect("trial").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn trials_are_found_by_number_name_and_error_page_by_page() {
    let desk = Desk::new().await;
    let records: Vec<_> = (0..60)
        .map(|t| record(t, if t == 7 { Status::Failed } else { Status::Completed }, score(t)))
        .collect();
    desk.write(&records).await;
    let text = |text: &str| TrialQuery { text: Some(text.to_owned()), ..TrialQuery::default() };
    assert_eq!(desk.trials(text("42")).await, [42]);
    assert_eq!(desk.trials(text("NO LUCK")).await, [7]);
    assert_eq!(desk.trials(text("w1")).await.len(), 30);
    assert_eq!(desk.trials(text("other")).await.len(), 100);
    assert_eq!(desk.trials(text("nothing like it")).await, [0_u64; 0]);
    let strategy = TrialQuery { strategy: Some("head".to_owned()), ..TrialQuery::default() };
    assert_eq!(desk.trials(strategy).await.len(), 50);
    let mut query = TrialQuery { limit: 40, ..TrialQuery::default() };
    let mut seen = Vec::new();
    loop {
        let found = desk.live.trials(&desk.view.id, &query, &[]).await.expect("trials");
        seen.extend(found.trials.iter().map(|row| row.trial_index));
        assert!(found.trials.len() <= 40);
        let Some(next) = found.next else { break };
        query.after = Some(next);
    }
    assert_eq!(seen, (0..150).collect::<Vec<u64>>());
    let pack = PackStatus {
        worker: crate::core::WorkerId::from("w9".to_owned()),
        started: true,
        trials: crate::core::TrialSet::from_ranges(std::iter::once(58..70)),
    };
    let running = TrialQuery { status: Some(TrialState::Running), limit: 100, ..TrialQuery::default() };
    let found = desk.live.trials(&desk.view.id, &running, &[pack]).await.expect("trials");
    let rows: Vec<_> = found.trials.iter().map(|row| (row.trial_index, row.worker.as_deref())).collect();
    assert_eq!((rows.len(), rows[0]), (10, (60, Some("w9"))));
}
