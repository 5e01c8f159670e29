//! The official scores of text tasks.
//!
//! Definitions are those of scikit-learn 1.7 with `zero_division=0`; `scripts/golden_text.py` makes the
//! values they are tested against. Classes are numbers below `classes`; all scores are 1 at best.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A score of predicted classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of rows whose class is right.
    Accuracy,
    /// F1 of class 1, for two classes.
    F1,
    /// Mean of accuracy and F1 of class 1 (a paraphrase in MRPC, a duplicate in QQP).
    F1Accuracy,
    /// Matthews' correlation.
    Matthews,
    /// Mean of accuracy and macro F1 (CB).
    AccuracyMacroF1,
    /// Mean of F1 over all answers and of the share of questions with every answer right (`MultiRC`).
    F1aExactMatch,
    /// Mean of the F1 of each class.
    MacroF1,
}

impl Metric {
    /// The name in specs and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::F1Accuracy => "f1_accuracy",
            Self::Matthews => "matthews",
            Self::AccuracyMacroF1 => "accuracy_macro_f1",
            Self::F1aExactMatch => "f1a_exact_match",
            Self::MacroF1 => "macro_f1",
        }
    }

    /// Whether rows must belong to groups (`MultiRC`'s questions).
    #[must_use]
    pub const fn needs_groups(self) -> bool {
        matches!(self, Self::F1aExactMatch)
    }

    /// Whether class 1 is scored as the positive one of two; with more classes the score says nothing of the
    /// others.
    #[must_use]
    pub const fn needs_two_classes(self) -> bool {
        matches!(self, Self::F1 | Self::F1Accuracy | Self::F1aExactMatch)
    }

    /// The score of the classes `predicted` for rows whose classes are `truth`; `groups` is the group of each
    /// row.
    ///
    /// None if there is no row, the lengths differ, a class is not below `classes`, or the score needs groups
    /// and has none.
    #[must_use]
    pub fn score(
        self,
        truth: &[u32],
        predicted: &[u32],
        groups: Option<&[u32]>,
        classes: usize,
    ) -> Option<f64> {
        let known = |class: &u32| (*class as usize) < classes;
        if !truth.iter().chain(predicted).all(known) {
            return None;
        }
        match self {
            Self::Accuracy => accuracy(truth, predicted),
            Self::F1 => f1(truth, predicted),
            Self::F1Accuracy => mean(f1(truth, predicted), accuracy(truth, predicted)),
            Self::Matthews => matthews(truth, predicted),
            Self::AccuracyMacroF1 => mean(accuracy(truth, predicted), macro_f1(truth, predicted)),
            Self::F1aExactMatch => mean(f1(truth, predicted), exact_match(truth, predicted, groups?)),
            Self::MacroF1 => macro_f1(truth, predicted),
        }
    }
}

/// Share of rows whose class is right. None if there is no row or the lengths differ.
#[must_use]
pub fn accuracy(truth: &[u32], predicted: &[u32]) -> Option<f64> {
    if !comparable(truth, predicted) {
        return None;
    }
    let right = truth.iter().zip(predicted).filter(|(truth, predicted)| truth == predicted).count();
    Some(right as f64 / truth.len() as f64)
}

/// F1 of class 1: 2·TP / (2·TP + FP + FN), the harmonic mean of precision and recall (van Rijsbergen 1979), 0
/// where class 1 neither occurs nor is predicted. None if there is no row or the lengths differ.
///
/// Class 1 is the one that GLUE counts as positive: a paraphrase in MRPC, a duplicate in QQP; a right answer
/// in `MultiRC`, where this is SuperGLUE's F1a. In QNLI and RTE class 1 is `not_entailment`.
#[must_use]
pub fn f1(truth: &[u32], predicted: &[u32]) -> Option<f64> {
    if !comparable(truth, predicted) {
        return None;
    }
    Some(Tally::of_classes(truth, predicted).get(&1).map_or(0.0, Tally::f1))
}

/// Mean F1 of the classes that occur or are predicted (scikit-learn's `average="macro"`, which SuperGLUE's CB
/// is scored with). None if there is no row or the lengths differ.
#[must_use]
pub fn macro_f1(truth: &[u32], predicted: &[u32]) -> Option<f64> {
    if !comparable(truth, predicted) {
        return None;
    }
    let tallies = Tally::of_classes(truth, predicted);
    Some(tallies.values().map(Tally::f1).sum::<f64>() / tallies.len() as f64)
}

/// Matthews' correlation (Matthews 1975) in its form for any number of classes (Gorodkin 2004, eq. 8); 0
/// where truth or prediction has one class only. None if there is no row or the lengths differ.
#[must_use]
pub fn matthews(truth: &[u32], predicted: &[u32]) -> Option<f64> {
    if !comparable(truth, predicted) {
        return None;
    }
    let tallies = Tally::of_classes(truth, predicted);
    let sum = |of: fn(&Tally) -> i128| tallies.values().map(of).sum::<i128>();
    let rows = truth.len() as i128;
    let covariance = sum(|tally| tally.right) * rows - sum(|tally| tally.truth * tally.predicted);
    let of_truth = rows * rows - sum(|tally| tally.truth * tally.truth);
    let of_predicted = rows * rows - sum(|tally| tally.predicted * tally.predicted);
    if of_truth == 0 || of_predicted == 0 {
        return Some(0.0);
    }
    // One root of the product: exactly 1 where all is right.
    Some(covariance as f64 / (of_truth as f64 * of_predicted as f64).sqrt())
}

/// Share of groups in which every row is right: SuperGLUE's EM of `MultiRC`, whose groups are the answers to
/// one question (Khashabi et al. 2018, §5). None if there is no row or the lengths differ.
#[must_use]
pub fn exact_match(truth: &[u32], predicted: &[u32], groups: &[u32]) -> Option<f64> {
    if !comparable(truth, predicted) || groups.len() != truth.len() {
        return None;
    }
    let mut all_right = BTreeMap::new();
    for ((truth, predicted), group) in truth.iter().zip(predicted).zip(groups) {
        *all_right.entry(group).or_insert(true) &= truth == predicted;
    }
    Some(all_right.values().filter(|right| **right).count() as f64 / all_right.len() as f64)
}

fn comparable(truth: &[u32], predicted: &[u32]) -> bool {
    !truth.is_empty() && truth.len() == predicted.len()
}

fn mean(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(f64::midpoint(a?, b?))
}

/// How often one class occurs, is predicted, and is predicted where it occurs.
#[derive(Default)]
struct Tally {
    truth: i128,
    predicted: i128,
    right: i128,
}

impl Tally {
    /// Of each class that occurs or is predicted; ordered, so that sums do not depend on the run.
    fn of_classes(truth: &[u32], predicted: &[u32]) -> BTreeMap<u32, Self> {
        let mut tallies: BTreeMap<u32, Self> = BTreeMap::new();
        for (truth, predicted) in truth.iter().zip(predicted) {
            tallies.entry(*truth).or_default().truth += 1;
            let tally = tallies.entry(*predicted).or_default();
            tally.predicted += 1;
            tally.right += i128::from(truth == predicted);
        }
        tallies
    }

    fn f1(&self) -> f64 {
        // Never 0 / 0: a class has a tally only if it occurs or is predicted.
        (2 * self.right) as f64 / (self.truth + self.predicted) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Metric; 7] = [
        Metric::Accuracy,
        Metric::F1,
        Metric::F1Accuracy,
        Metric::Matthews,
        Metric::AccuracyMacroF1,
        Metric::F1aExactMatch,
        Metric::MacroF1,
    ];

    #[derive(Deserialize)]
    struct Case {
        what: String,
        classes: usize,
        truth: Vec<u32>,
        predicted: Vec<u32>,
        groups: Vec<u32>,
        exact_match: f64,
        scores: BTreeMap<String, f64>,
    }

    #[test]
    fn scores_equal_those_of_scikit_learn() {
        let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/text_metrics.json"));
        let cases: Vec<Case> = serde_json::from_str(golden).expect("golden");
        assert!(cases.len() >= 12);
        for case in cases {
            let Case { what, truth, predicted, groups, .. } = &case;
            let part = exact_match(truth, predicted, groups).expect("rows");
            assert!((part - case.exact_match).abs() < 1e-12, "{what}: {part}");
            for metric in ALL {
                let expected = case.scores[metric.name()];
                let found = metric.score(truth, predicted, Some(groups), case.classes).expect("score");
                assert!((found - expected).abs() < 1e-12, "{what}, {}: {found}, {expected}", metric.name());
            }
        }
    }

    #[test]
    fn nothing_to_score_has_no_score() {
        for metric in ALL {
            assert_eq!(metric.score(&[], &[], Some(&[]), 2), None);
            assert_eq!(metric.score(&[0, 1], &[0], Some(&[0, 0]), 2), None, "lengths differ");
            assert_eq!(metric.score(&[0, 2], &[0, 1], Some(&[0, 0]), 2), None, "class 2 of 2");
            assert_eq!(metric.score(&[0, 1], &[0, 1], None, 2).is_none(), metric.needs_groups());
            assert_eq!(metric.score(&[0, 1], &[0, 1], Some(&[0, 0]), 2), Some(1.0));
        }
        assert_eq!(exact_match(&[0, 1], &[0, 1], &[0]), None);
    }

    #[test]
    fn the_rows_of_a_group_need_not_be_neighbours() {
        assert_eq!(exact_match(&[1, 0, 1, 1], &[1, 0, 0, 1], &[5, 9, 5, 9]), Some(0.5));
    }

    #[test]
    fn a_name_is_how_a_spec_spells_the_score() {
        for metric in ALL {
            let spelled = serde_json::to_value(metric).expect("serialize");
            assert_eq!(spelled, metric.name());
        }
    }
}
