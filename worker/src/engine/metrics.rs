//! From trained weights to a trial's outcome, in f64.

use evenkeel_common::results::{CurvePoint, Measures, Status, TestOutputs, TrialOutcome};
use evenkeel_common::spec::Predictions;
use evenkeel_common::text::Metric;
use evenkeel_common::trial::Trial;

use super::margin::HardMargin;
use super::matrix::{dot_inputs, dot64};
use super::plan::{Draws, Plan, TrialPlan};
use crate::data::Dataset;

/// What all trials of a dataset are measured against.
pub struct Yardstick<'a> {
    /// The dataset.
    pub data: &'a Dataset,
    /// Hard margin of its training set, where it was asked for.
    pub margin: Option<&'a HardMargin>,
    /// Share of the most frequent class in the test set; none for an empty one.
    pub majority: Option<f64>,
}

impl Yardstick<'_> {
    /// What is known of every trial of the dataset, trained or not.
    fn known(&self) -> Measures {
        let known = Measures { majority: self.majority, ..Measures::default() };
        match self.margin {
            Some(HardMargin::Separable { margin, dual_max, support, norm, .. }) => Measures {
                margin: Some(*margin),
                dual_max: Some(*dual_max),
                feature_norm: Some(*norm),
                support_vectors: Some(*support),
                ..known
            },
            _ => known,
        }
    }
}

/// Share of the most frequent class.
#[must_use]
pub fn majority(y: &[u32], classes: usize) -> Option<f64> {
    let mut counts = vec![0u32; classes];
    y.iter().for_each(|class| counts[*class as usize] += 1);
    let most = counts.into_iter().max().filter(|_| !y.is_empty())?;
    Some(f64::from(most) / y.len() as f64)
}

/// A head in f64: weights [rows, width], where width is d or, with a bias, d + 1.
struct Head<'a> {
    w: &'a [f64],
    rows: usize,
    d: usize,
}

/// A sample under a head.
struct Seen {
    class: u32,
    /// Cross-entropy in nats.
    loss: f64,
    /// Logit of the true class minus the greatest other; for two classes ± the logit.
    margin: f64,
}

impl Head<'_> {
    fn logits(&self, x: &[f32], logits: &mut [f64]) {
        let width = self.w.len() / self.rows;
        for (logit, w) in logits.iter_mut().zip(self.w.chunks_exact(width)) {
            *logit = dot_inputs(x, &w[..self.d]) + w.get(self.d).copied().unwrap_or(0.0);
        }
    }

    fn see(&self, x: &[f32], y: u32, logits: &mut [f64]) -> Seen {
        self.logits(x, logits);
        if self.rows == 1 {
            let margin = if y == 1 { logits[0] } else { -logits[0] };
            return Seen { class: u32::from(logits[0] > 0.0), loss: softplus(-margin), margin };
        }
        let own = logits[y as usize];
        let (mut class, mut other) = (0, f64::NEG_INFINITY);
        for (c, logit) in logits.iter().enumerate() {
            if *logit > logits[class] {
                class = c;
            }
            if c != y as usize {
                other = other.max(*logit);
            }
        }
        Seen { class: class as u32, loss: log_sum(logits) - own, margin: own - other }
    }
}

/// ln Σ e^xᵢ without overflow.
fn log_sum(logits: &[f64]) -> f64 {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| libm::exp(logit - most)).sum();
    libm::log(sum) + most
}

/// ln(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// A set of samples under a head.
#[derive(Default)]
struct SetView {
    loss: f64,
    accuracy: f64,
    /// Least margin, not divided by ‖w‖.
    margin: f64,
    classes: Vec<u32>,
}

fn view(head: &Head<'_>, x: &[f32], y: &[u32], mask: Option<&[bool]>) -> SetView {
    let mut view = SetView { margin: f64::INFINITY, ..SetView::default() };
    let mut logits = vec![0.0; head.rows];
    let (mut count, mut right) = (0u32, 0u32);
    for (i, (x, y)) in x.chunks_exact(head.d).zip(y).enumerate() {
        if mask.is_some_and(|mask| !mask[i]) {
            continue;
        }
        let seen = head.see(x, *y, &mut logits);
        count += 1;
        right += u32::from(seen.class == *y);
        view.loss += seen.loss;
        view.margin = view.margin.min(seen.margin);
        if mask.is_none() {
            view.classes.push(seen.class);
        }
    }
    view.loss /= f64::from(count);
    view.accuracy = f64::from(right) / f64::from(count);
    view
}

fn norm(w: &[f64]) -> f64 {
    libm::sqrt(dot64(w, w))
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    libm::sqrt(a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum())
}

/// ‖a/‖a‖ − b/‖b‖‖; none when one is zero.
fn direction_distance(a: &[f64], b: &[f64]) -> Option<f64> {
    let (na, nb) = (norm(a), norm(b));
    let square = a.iter().zip(b).map(|(a, b)| (a / na - b / nb) * (a / na - b / nb)).sum();
    (na > 0.0 && nb > 0.0).then(|| libm::sqrt(square))
}

/// The prediction head: the mean of the H weight matrices (Fu, So, Collier 2023), for refit `refit` (0 is the model
/// itself) after `step` steps.
fn averaged(plan: &Plan, trial: &TrialPlan, heads: usize, refit: usize, step: u32) -> Vec<f64> {
    let runs = &trial.runs[refit * heads..][..heads];
    let mut sum: Vec<f64> = Vec::new();
    for run in runs {
        let weights = plan.runs[*run].weights(step);
        sum.resize(weights.len(), 0.0);
        sum.iter_mut().zip(weights).for_each(|(sum, w)| *sum += f64::from(*w));
    }
    sum.iter_mut().for_each(|w| *w /= heads as f64);
    sum
}

fn finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Measures a trial whose runs were trained.
///
/// The training set of `train_loss`, `train_accuracy` and `trained_margin` is what the trial was trained on, without the
/// samples that `data_perturbation` removed; γ and the hard-margin direction are those of the whole training set. Weights
/// include the bias. A trial has diverged when a weight of the model or of one of its refits is NaN or infinite at its end
/// or at a checkpoint; its curve then ends before, and only what the dataset alone says is
/// known.
#[must_use]
pub fn outcome(
    trial: &Trial,
    planned: &TrialPlan,
    plan: &Plan,
    yard: &Yardstick<'_>,
    draws: &mut Draws,
) -> TrialOutcome {
    let heads = trial.strategy.heads as usize;
    let known = yard.known();
    let mut out = TrialOutcome {
        trial_index: trial.index,
        status: Status::Completed,
        error: None,
        measures: known,
        distances: None,
        curve: Vec::with_capacity(planned.steps.len()),
        outputs: TestOutputs::default(),
    };
    for step in &planned.steps {
        let all: Vec<Vec<f64>> =
            (0..=planned.left_out.len()).map(|refit| averaged(plan, planned, heads, refit, *step)).collect();
        if !all.iter().all(|w| finite(w)) {
            out.status = Status::Diverged;
            out.measures = known;
            out.outputs = TestOutputs::default();
            return out;
        }
        // Only the last of these stay.
        let (measures, outputs) = measure(planned, &all, yard, trial.settings.predictions);
        let nan = f64::NAN;
        out.curve.push(CurvePoint {
            step: *step,
            train_loss: measures.train_loss.unwrap_or(nan),
            eval_loss: measures.eval_loss.unwrap_or(nan),
            score: measures.score.unwrap_or(nan),
            loo_mean: measures.loo_mean.unwrap_or(nan),
            direction_residual: measures.direction_residual.unwrap_or(nan),
        });
        out.measures = measures;
        out.measures.trained_steps = Some(*step);
        out.measures.weight_distance = Some(distance(&all[0], &initial(trial, draws, all[0].len())));
        out.outputs = outputs;
    }
    out
}

/// The averaged head before training, [rows, width].
fn initial(trial: &Trial, draws: &mut Draws, len: usize) -> Vec<f64> {
    let strategy = &trial.strategy;
    let seed = if strategy.seed_controls.initialization { trial.seed } else { 0 };
    let mut sum = vec![0.0; len];
    for head in 0..strategy.heads {
        let drawn = draws.initial(seed, head, strategy.init_std);
        let (rows, d) = draws.head_shape();
        for (sum, drawn) in sum.chunks_exact_mut(len / rows).zip(drawn.chunks_exact(d)) {
            sum.iter_mut().zip(drawn).for_each(|(sum, w)| *sum += f64::from(*w));
        }
    }
    sum.iter_mut().for_each(|w| *w /= f64::from(strategy.heads));
    sum
}

/// Measures of the model `all[0]` and its refits, and what it says of the test set.
fn measure(
    planned: &TrialPlan,
    all: &[Vec<f64>],
    yard: &Yardstick<'_>,
    kept: Predictions,
) -> (Measures, TestOutputs) {
    let data = yard.data;
    let rows = super::plan::rows_of_head(data.classes);
    let head = Head { w: &all[0], rows, d: data.features };
    let train = view(&head, &data.x_train, &data.y_train, Some(&planned.kept.mask));
    let test = view(&head, &data.x_test, &data.y_test, None);
    let weight_norm = norm(head.w);
    let residual = match yard.margin {
        Some(HardMargin::Separable { direction, .. }) => direction_distance(head.w, direction),
        _ => None,
    };
    let tested = !data.y_test.is_empty();
    let accuracy = tested.then_some(test.accuracy);
    let score = match data.metric {
        Metric::Accuracy => accuracy,
        metric => metric.score(&data.y_test, &test.classes, data.groups_test.as_deref(), data.classes),
    };
    let mut measures = Measures {
        score,
        accuracy,
        train_accuracy: Some(train.accuracy),
        train_loss: Some(train.loss),
        eval_loss: tested.then_some(test.loss),
        trained_margin: (weight_norm > 0.0).then(|| train.margin / weight_norm),
        weight_norm: Some(weight_norm),
        direction_residual: residual,
        ..yard.known()
    };
    leave_one_out(&mut measures, planned, &head, all, data);
    let log_probabilities = kept.probabilities().then(|| log_probabilities(&head, &data.x_test));
    let classes = kept.classes().then_some(test.classes);
    (measures, TestOutputs { classes, log_probabilities, features: None })
}

/// ln of the softmax of the logits of each sample, class by class.
fn log_probabilities(head: &Head<'_>, x: &[f32]) -> Vec<f32> {
    let mut logits = vec![0.0; head.rows];
    let mut found = Vec::with_capacity(x.len() / head.d * head.rows.max(2));
    for x in x.chunks_exact(head.d) {
        head.logits(x, &mut logits);
        if let [logit] = logits[..] {
            found.extend([-softplus(logit) as f32, -softplus(-logit) as f32]);
            continue;
        }
        let normalizer = log_sum(&logits);
        found.extend(logits.iter().map(|logit| (logit - normalizer) as f32));
    }
    found
}

/// Leave-one-out model stability (Bousquet & Elisseeff 2002; for head tuning Fu, So, Collier 2023, §4).
fn leave_one_out(
    measures: &mut Measures,
    planned: &TrialPlan,
    head: &Head<'_>,
    all: &[Vec<f64>],
    data: &Dataset,
) {
    let count = planned.left_out.len();
    if count == 0 {
        return;
    }
    let k = count as f64;
    let (mut directions, mut raw) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut flips, mut rise) = (0u32, 0.0);
    let mut logits = vec![0.0; head.rows];
    for (left_out, refit) in planned.left_out.iter().map(|i| *i as usize).zip(&all[1..]) {
        directions.extend(direction_distance(head.w, refit));
        raw.push(distance(head.w, refit));
        let (x, y) = (&data.x_train[left_out * data.features..][..data.features], data.y_train[left_out]);
        let with = head.see(x, y, &mut logits);
        let without = Head { w: refit, ..*head }.see(x, y, &mut logits);
        flips += u32::from(with.class != without.class);
        rise += without.loss - with.loss;
    }
    let most = |values: &[f64]| values.iter().copied().reduce(f64::max);
    // A head of zeros has no direction.
    if directions.len() == count {
        let mean = directions.iter().sum::<f64>() / k;
        measures.loo_mean = Some(mean);
        measures.loo_max = most(&directions);
        if count > 1 {
            let square: f64 = directions.iter().map(|x| (x - mean) * (x - mean)).sum();
            measures.loo_se = Some(libm::sqrt(square / (k - 1.0) / k));
        }
    }
    measures.loo_raw_mean = Some(raw.iter().sum::<f64>() / k);
    measures.loo_raw_max = most(&raw);
    measures.loo_flip_rate = Some(f64::from(flips) / k);
    measures.loo_loss_change = Some(rise / k);
    measures.loo_count = Some(count as u32);
}
