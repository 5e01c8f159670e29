//! Curves of long trials while they train: what users see before there is a result.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_proto::v1;

/// Trials of a sweep whose curves are kept: more are not looked at.
const TRIALS: usize = 256;
/// Scores of a trial that are kept: the newest.
const POINTS: usize = 40;
/// Points of its curve: from the first to the newest, the fewer in between the longer it is.
const CURVE: usize = 64;

/// The curve of a trial that trains.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingView {
    /// The trial.
    pub trial: u64,
    /// The newest point.
    pub last: v1::TrialSample,
    /// Scores of the newest points, the latest last; NaN where none was measured.
    pub scores: VecDeque<f64>,
    /// Points of the whole curve, the newest last.
    pub curve: Vec<CurvePoint>,
    /// Points that were passed over since the last one that was kept, and how many are passed over between two.
    passed: (u32, u32),
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Steps done.
    pub step: u32,
    /// Training loss in nats.
    pub train_loss: f64,
    /// Score on the test set; NaN where none was measured.
    pub score: f64,
}

impl TrainingView {
    fn keep(&mut self, sample: v1::TrialSample) {
        let point = CurvePoint { step: sample.step, train_loss: sample.train_loss, score: sample.score };
        // The newest always stands at the end; what stands between kept ones goes when the next comes.
        if self.passed.0 > 0 {
            self.curve.pop();
        }
        self.curve.push(point);
        self.passed.0 = (self.passed.0 + 1) % (self.passed.1 + 1);
        if self.curve.len() > CURVE {
            let mut place = 0;
            self.curve.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.passed = (0, 2 * self.passed.1 + 1);
        }
    }
}

/// The curves of a sweep.
#[derive(Debug, Default)]
pub(super) struct Training(BTreeMap<u64, TrainingView>);

impl Training {
    /// Takes in a point. One that is not after the last begins the curve anew: the trial runs again.
    pub fn add(&mut self, sample: v1::TrialSample) {
        if !self.0.contains_key(&sample.trial) && self.0.len() >= TRIALS {
            self.0.pop_first();
        }
        let view = self.0.entry(sample.trial).or_insert_with(|| TrainingView {
            trial: sample.trial,
            last: sample,
            scores: VecDeque::new(),
            curve: Vec::new(),
            passed: (0, 0),
        });
        if sample.step <= view.last.step {
            view.scores.clear();
            view.curve.clear();
            view.passed = (0, 0);
        }
        if view.scores.len() >= POINTS {
            view.scores.pop_front();
        }
        view.scores.push_back(sample.score);
        view.keep(sample);
        view.last = sample;
    }

    /// Forgets a trial: it has ended.
    pub fn end(&mut self, trial: u64) {
        self.0.remove(&trial);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The curves, by trial.
    pub fn views(&self) -> Vec<TrainingView> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(trial: u64, step: u32) -> v1::TrialSample {
        v1::TrialSample { trial, step, steps: 100, train_loss: 0.5, score: f64::from(step) / 100.0 }
    }

    #[test]
    fn a_curve_grows_ends_and_begins_anew_when_its_trial_runs_again() {
        let mut training = Training::default();
        for step in [10, 20, 30] {
            training.add(sample(7, step));
        }
        assert_eq!(training.views()[0].scores, [0.1, 0.2, 0.3]);
        training.add(sample(7, 10));
        assert_eq!(training.views()[0].scores, [0.1]);
        assert_eq!(training.views()[0].curve.len(), 1);
        training.end(7);
        assert!(training.views().is_empty());
    }

    #[test]
    fn curves_are_bounded() {
        let mut training = Training::default();
        for trial in 0..1000 {
            for step in 1..100 {
                training.add(sample(trial, step));
            }
        }
        assert_eq!(training.views().len(), TRIALS);
        assert!(training.views().iter().all(|view| view.scores.len() == POINTS));
        for trial in training.views() {
            let steps: Vec<u32> = trial.curve.iter().map(|point| point.step).collect();
            assert!(steps.len() <= CURVE && steps.is_sorted(), "{steps:?}");
            assert_eq!((steps.first(), steps.last()), (Some(&1), Some(&99)));
        }
    }
}
