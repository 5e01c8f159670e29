//! What stands in for the engines: trials take a scripted time and yield numbers computed from their coordinates.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::grid::Grid;
use evenkeel_common::id::ContentHash;
use evenkeel_common::results::{
    self, ExecutionRecord, Measures, Status, TestOutputs, TrialOutcome, TrialRecord,
};
use evenkeel_common::seed::Stream;
use evenkeel_common::spec::Spec;
use evenkeel_worker::core::Job;
use evenkeel_worker::executor::{PackWork, Report};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::oracle::Oracle;

/// What is run: small, but of several datasets and strategies.
pub const SPEC: &str = "
apiVersion: evenkeel/v1
name: simulated
datasets:
  - synthetic: {generator: blobs, samples: 90, features: 8, classes: 3, instances: 4}
  - synthetic: {generator: separable, samples: 120, features: 24, margin: {logspace: [0.2, 2.0, 2]}, instances: 2}
strategies:
  - {name: head, setting: head, steps: 9000, learning_rate: 0.1}
  - {name: mhloss, setting: head, steps: 6000, learning_rate: 0.1, mhloss: {heads: 4}}
seeds: 40
";

/// What a trial comes to.
#[derive(Clone, Debug)]
pub enum Expected {
    /// A row with these numbers.
    Outcome(Box<TrialOutcome>),
    /// It fails whoever runs it.
    Culprit,
}

/// Why a culprit fails.
pub const CULPRIT: &str = "the script wants this trial to fail";

/// What every trial of the sweep comes to, by its number.
pub static EXPECTED: LazyLock<Vec<Expected>> = LazyLock::new(|| {
    let spec = Spec::parse("simulated.yaml", SPEC).unwrap_or_else(|error| panic!("{error}"));
    let grid = Grid::new(Arc::new(spec), &[]).unwrap_or_else(|error| panic!("{error}"));
    (0..grid.len()).filter_map(|index| Some(expected(index, &grid.trial(index)?.id().to_string()))).collect()
});

fn expected(index: u64, id: &str) -> Expected {
    let hash = ContentHash::of(id.as_bytes()).0;
    let word = |at: usize| f64::from(u16::from_le_bytes([hash[at], hash[at + 1]])) / f64::from(u16::MAX);
    if hash[31] == 7 {
        return Expected::Culprit;
    }
    let status = if hash[30] < 8 { Status::Diverged } else { Status::Completed };
    let measures = Measures {
        score: Some(word(0)),
        accuracy: Some(word(2)),
        train_loss: Some(word(4)),
        eval_loss: Some(word(6)),
        ..Measures::default()
    };
    Expected::Outcome(Box::new(TrialOutcome {
        trial_index: index,
        status,
        error: None,
        measures,
        distances: None,
        curve: Vec::new(),
        outputs: TestOutputs::default(),
    }))
}

/// How an engine behaves.
#[derive(Clone, Debug)]
pub struct Script {
    /// How long a trial takes, about.
    pub trial: Duration,
    /// Of a thousand first executions of packs so many fail for once.
    pub hiccups: u64,
    /// Packs of more trials than this do not fit into memory.
    pub fits: usize,
}

/// A slot of a worker.
pub struct Slot {
    /// Its number.
    pub number: usize,
    /// Which worker, and which life of it.
    pub life: String,
    /// How far its wall clock is off, in milliseconds.
    pub skew_ms: i64,
    /// How it behaves.
    pub script: Script,
    /// Random numbers.
    pub draws: Stream,
    /// The observer.
    pub oracle: Oracle,
}

impl Slot {
    /// Runs packs one after the other, as the thread of a slot does.
    pub async fn serve(mut self, mut jobs: mpsc::Receiver<Job<PackWork>>, reports: mpsc::Sender<Report>) {
        if reports.send(Report::Ready).await.is_err() {
            return;
        }
        while let Some(job) = jobs.recv().await {
            let began = Instant::now();
            let (slot, key) = (self.number, job.key);
            let report = match self.run(&job, &reports).await {
                Ok(trials) => Report::Finished { slot, key, busy: began.elapsed(), trials, traced: false },
                Err((kind, message)) => Report::Failed { slot, key, kind, message, poisoned: false },
            };
            if reports.send(report).await.is_err() {
                return;
            }
        }
    }

    async fn run(
        &mut self,
        job: &Job<PackWork>,
        reports: &mpsc::Sender<Report>,
    ) -> Result<u64, (FailureKind, String)> {
        let ranges = job.work.ranges.iter();
        let trials: Vec<u64> = ranges.flat_map(|(first, count)| *first..*first + *count).collect();
        self.oracle.starts(&self.life, job.key, &trials);
        if trials.len() > self.script.fits {
            return Err((FailureKind::OutOfMemory, "the script has no room".to_owned()));
        }
        let hiccup = job.work.attempt == 1 && self.draws.below(1000) < self.script.hiccups;
        let stumbles_at = hiccup.then(|| self.draws.below(trials.len().max(1) as u64) as usize);
        // A pack is delivered in one to three parts.
        let part = trials.len().div_ceil(1 + self.draws.below(3) as usize).max(1);
        let mut records = Vec::new();
        let mut failure = None;
        for (at, trial) in trials.iter().enumerate() {
            let micros = self.script.trial.as_micros() as u64;
            tokio::time::sleep(Duration::from_micros(micros / 2 + self.draws.below(micros))).await;
            if job.stop.is_set() {
                let leaves = job.stop.is_leaving();
                let kind = if leaves { FailureKind::WorkerDraining } else { FailureKind::Cancelled };
                failure = Some((kind, "stopped".to_owned()));
                break;
            }
            if stumbles_at == Some(at) {
                failure = Some((FailureKind::Transient, "the script stumbles".to_owned()));
                break;
            }
            match EXPECTED.get(usize::try_from(*trial).unwrap_or(usize::MAX)) {
                Some(Expected::Outcome(outcome)) => records.push((**outcome).clone()),
                Some(Expected::Culprit) => {
                    failure = Some((FailureKind::Permanent, CULPRIT.to_owned()));
                    break;
                }
                None => {
                    failure = Some((FailureKind::Permanent, format!("there is no trial {trial}")));
                    break;
                }
            }
            if (at + 1) % part == 0 {
                self.deliver(job, reports, std::mem::take(&mut records)).await;
                let fraction = (at + 1) as f64 / trials.len() as f64;
                let _ =
                    reports.try_send(Report::Progress(job.key, job.work.sweep.clone(), fraction, Vec::new()));
            }
        }
        self.deliver(job, reports, records).await;
        failure.map_or(Ok(trials.len() as u64), Err)
    }

    async fn deliver(
        &self,
        job: &Job<PackWork>,
        reports: &mpsc::Sender<Report>,
        outcomes: Vec<TrialOutcome>,
    ) {
        if outcomes.is_empty() {
            return;
        }
        let now = turmoil::sim_elapsed().unwrap_or_default().as_millis() as i64;
        let execution = ExecutionRecord {
            attempt: job.work.attempt,
            worker: self.life.clone(),
            device: "script".to_owned(),
            started_ms: now + self.skew_ms,
            duration_s: self.script.trial.as_secs_f64(),
        };
        let records: Vec<TrialRecord> = outcomes
            .into_iter()
            .map(|outcome| TrialRecord { outcome, execution: execution.clone() })
            .collect();
        match results::encode(&records).and_then(|batch| results::to_ipc(&batch)) {
            Ok(bytes) => {
                let trials = records.iter().map(|record| record.outcome.trial_index).collect();
                self.oracle.delivers(&self.life, job.key, trials);
                let _ = reports.send(Report::Results(job.key, job.work.sweep.clone(), bytes.into())).await;
            }
            Err(error) => self.oracle.broken(format!("results cannot be encoded: {error}")),
        }
    }
}
