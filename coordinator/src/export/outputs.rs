//! How far the seeds of a group part in what they predict, example by example, and in how they represent the examples.

use serde::Serialize;

use super::tally::Mean;
use evenkeel_common::results::{Features, TestOutputs};
use evenkeel_common::stats::{
    Agreement, Representation, RepresentationDistances, Votes, mean_jensen_shannon,
};

/// Runs of a group whose probabilities are compared, and most pairs of them.
const PROBABILITIES: (usize, usize) = (256, 1024);
/// Runs of a group whose features are compared, and most pairs of them: a pair takes singular values.
const FEATURES: (usize, usize) = (64, 64);

/// Outputs of a group whose trials still arrive.
#[derive(Default)]
pub(super) struct Outputs {
    votes: Votes,
    log_probabilities: Vec<Vec<f64>>,
    features: Vec<Features>,
}

/// What differs between two seeds, as a mean over pairs of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parting {
    /// Predicted classes.
    pub classes: Option<Agreement>,
    /// Jensen–Shannon divergence of predicted probabilities, in nats.
    pub jensen_shannon: Option<f64>,
    /// Features of test examples.
    pub features: Option<RepresentationDistances>,
}

impl Outputs {
    pub fn push(&mut self, outputs: &TestOutputs) {
        if let Some(classes) = &outputs.classes {
            self.votes.push(classes);
        }
        if let Some(values) = &outputs.log_probabilities
            && self.log_probabilities.len() < PROBABILITIES.0
        {
            self.log_probabilities.push(doubles(values));
        }
        if let Some(features) = &outputs.features
            && self.features.len() < FEATURES.0
        {
            self.features.push(features.clone());
        }
    }

    /// Compares the runs, whose examples have so many classes.
    pub fn close(self, classes: u32) -> Parting {
        let values: Vec<Vec<f64>> = self.features.iter().map(|features| doubles(&features.values)).collect();
        let runs: Option<Vec<Representation<'_>>> = values
            .iter()
            .zip(&self.features)
            .map(|(values, features)| {
                let examples = features.examples as usize;
                Representation::new(values, examples, values.len().checked_div(examples)?)
            })
            .collect();
        Parting {
            classes: self.votes.agreement(),
            jensen_shannon: mean_jensen_shannon(&self.log_probabilities, classes as usize, PROBABILITIES.1),
            features: runs.and_then(|runs| RepresentationDistances::between(&runs, FEATURES.1)),
        }
    }
}

/// Means over groups of what differs between two seeds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PartingMeans {
    disagreement: Mean,
    kappa: Mean,
    jensen_shannon: Mean,
    cka: Mean,
    svcca: Mean,
    procrustes: Mean,
}

impl PartingMeans {
    pub fn push(&mut self, group: &Parting) {
        let (classes, features) = (group.classes, group.features);
        self.disagreement.push(classes.map(|a| a.disagreement));
        self.kappa.push(classes.and_then(|a| a.kappa));
        self.jensen_shannon.push(group.jensen_shannon);
        self.cka.push(features.map(|f| f.cka));
        self.svcca.push(features.map(|f| f.svcca));
        self.procrustes.push(features.map(|f| f.procrustes));
    }

    pub fn summary(&self) -> PartingSummary {
        PartingSummary {
            disagreement: self.disagreement.get(),
            fleiss_kappa: self.kappa.get(),
            jensen_shannon: self.jensen_shannon.get(),
            cka_distance: self.cka.get(),
            svcca_distance: self.svcca.get(),
            procrustes_distance: self.procrustes.get(),
        }
    }
}

/// What differs between two seeds of a strategy, averaged over pairs of seeds and then over groups. None where the sweep
/// does not keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PartingSummary {
    /// Share of test points that they predict to be of different classes.
    pub disagreement: Option<f64>,
    /// Fleiss' κ of the predicted classes.
    pub fleiss_kappa: Option<f64>,
    /// Jensen–Shannon divergence of their predicted probabilities, in nats.
    pub jensen_shannon: Option<f64>,
    /// 1 − linear CKA of the features of test points.
    pub cka_distance: Option<f64>,
    /// 1 − the mean canonical correlation of these features (SVCCA).
    pub svcca_distance: Option<f64>,
    /// Orthogonal Procrustes distance of these features.
    pub procrustes_distance: Option<f64>,
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}
