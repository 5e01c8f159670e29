//! One trial of full fine-tuning: the model itself, then its leave-one-out refits.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_common::results::{CurvePoint, Features, Measures, Status, TestOutputs, TrialOutcome};
use evenkeel_common::trial::Trial;
use tch::{Kind, Tensor};

use super::checkpoint::{Checkpoints, restore, save};
use super::curvature;
use super::evaluate::{Seen, classify, encode, log_probabilities};
use super::losses::{Head, class_distance};
use super::optimizer::squared_norm;
use super::run::{Run, Setup};
use super::weights::Place;
use crate::engine::metrics::majority;
use crate::engine::{EngineError, PackWatch, Sample};

/// The model itself, once trained.
pub struct Finished {
    /// Its tensors: the encoder's, and the classifier that predicts.
    pub result: Vec<Tensor>,
    /// Where each belongs.
    pub places: Vec<Place>,
    /// What it says of the training examples.
    pub train: Seen,
    /// What is reported, without leave-one-out measures.
    pub outcome: TrialOutcome,
}

/// A refit without one example, compared with the model.
pub struct Refit {
    /// Distance of all weights.
    pub total: f64,
    /// Whether the left-out example is classified otherwise.
    pub flipped: bool,
    /// How much greater its loss is, in nats.
    pub rise: f64,
    /// Squared distance by place, in the order of [`Place`].
    pub squares: Vec<f64>,
}

/// A trial under way.
pub struct Course<'a> {
    /// What its runs share.
    pub setup: &'a Setup<'a>,
    /// The model, once trained.
    pub base: Option<Finished>,
    /// Refits that are through.
    pub refits: Vec<Refit>,
    /// The run at work.
    pub run: Run<'a>,
}

impl<'a> Course<'a> {
    /// A trial at its start.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(setup: &'a Setup<'a>) -> Result<Self, EngineError> {
        Ok(Self { setup, base: None, refits: Vec::new(), run: Run::new(setup, None)? })
    }
}

/// Trains a trial to its end, from its last checkpoint if there is one.
///
/// # Errors
/// When cancelled, or when memory is short.
pub fn train(
    trial: &Trial,
    setup: &Setup<'_>,
    checkpoints: &dyn Checkpoints,
    watch: &mut dyn PackWatch,
    mut progress: impl FnMut(&mut dyn PackWatch, f64),
) -> Result<TrialOutcome, EngineError> {
    let id = trial.id().to_string();
    let mut course = Course::new(setup)?;
    if let Some(bytes) = checkpoints.load(&id) {
        match restore(&id, Course::new(setup)?, &bytes) {
            Some(restored) => {
                tracing::info!(trial.id = %id, step = restored.run.step, "trial goes on from its checkpoint");
                course = restored;
            }
            None => tracing::warn!(trial.id = %id, "checkpoint does not fit, the trial begins anew"),
        }
    }
    let mut saved = Instant::now();
    let runs = 1.0 + setup.left_out.len() as f64;
    let outcome = loop {
        while !course.run.ended() {
            if watch.is_cancelled() {
                if watch.is_leaving() {
                    checkpoints.save(&id, save(&id, &course)?);
                }
                return Err(EngineError::Cancelled);
            }
            let point = course.run.advance()?;
            let within = f64::from(course.run.step) / f64::from(course.run.steps().max(1));
            let done = course.refits.len() as f64 + f64::from(u8::from(course.base.is_some()));
            progress(watch, (done + within) / runs);
            if let (Some(point), None) = (point, &course.base) {
                watch.sample(Sample {
                    trial: trial.index,
                    step: point.step,
                    steps: course.run.steps(),
                    train_loss: point.train_loss,
                    score: point.score,
                });
            }
            if checkpoints.due(saved) && !course.run.ended() {
                checkpoints.save(&id, save(&id, &course)?);
                saved = Instant::now();
            }
        }
        if course.run.diverged {
            break diverged(trial, setup, &course);
        }
        course.run.choose();
        match &course.base {
            None => course.base = Some(finish(trial, &course.run, watch)?),
            Some(base) => {
                let left_out = course.run.left_out.unwrap_or_default();
                course.refits.push(compare(base, &course.run, left_out)?);
            }
        }
        match setup.left_out.get(course.refits.len()) {
            Some(next) => course.run = Run::new(setup, Some(*next))?,
            None => break complete(&course)?,
        }
    };
    checkpoints.forget(&id);
    Ok(outcome)
}

fn diverged(trial: &Trial, setup: &Setup<'_>, course: &Course<'_>) -> TrialOutcome {
    let curve = match &course.base {
        Some(base) => base.outcome.curve.clone(),
        None => curve(&course.run),
    };
    TrialOutcome {
        trial_index: trial.index,
        status: Status::Diverged,
        error: None,
        measures: about_data(trial, setup),
        distances: None,
        curve,
        outputs: TestOutputs::default(),
    }
}

/// Measures that do not depend on training.
fn about_data(trial: &Trial, setup: &Setup<'_>) -> Measures {
    let data = &setup.data.data;
    let labels: Vec<u32> = data.test.iter().map(|example| example.label).collect();
    let skipped = match &trial.dataset {
        evenkeel_common::trial::DatasetConfig::Text(text) => Some(text.skipped),
        _ => None,
    };
    Measures {
        majority: majority(&labels, data.classes),
        truncated: Some(data.truncated),
        skipped_rows: skipped,
        ..Measures::default()
    }
}

fn curve(run: &Run<'_>) -> Vec<CurvePoint> {
    let finite = |p: &&super::run::Point| p.eval_loss.is_finite();
    let point = |p: &super::run::Point| CurvePoint {
        step: p.step,
        train_loss: p.train_loss,
        eval_loss: p.eval_loss,
        score: p.score,
        loo_mean: f64::NAN,
        direction_residual: f64::NAN,
    };
    run.curve.iter().filter(finite).map(point).collect()
}

/// Measures the model itself.
fn finish(trial: &Trial, run: &Run<'_>, watch: &dyn PackWatch) -> Result<Finished, EngineError> {
    let _guard = tch::no_grad_guard();
    let setup = run.setup;
    let data = &setup.data.data;
    let seen = run.weights.effective(&run.weights.values, None, setup.full.precision)?;
    let (weight, bias) = run.head(&run.weights.values).mean()?;
    let head = Head { weight: &weight, bias: bias.as_ref(), heads: 1 };
    let features = encode(setup.encoder, setup.data, &seen, &data.train, |_| Ok(()))?;
    let train = classify(&head, &features, &data.train)?;
    let test = run.test()?;
    let validation = match data.validation.is_empty() {
        true => None,
        false => run.evaluate(&data.validation)?.score(setup),
    };
    // What was trained on: without the examples that `data_perturbation` removed.
    let kept: Vec<i64> = setup.kept.iter().map(|place| *place as i64).collect();
    let rows = Tensor::f_from_slice(&kept)?.f_to_device(setup.device)?;
    let labels: Vec<i64> =
        setup.kept.iter().filter_map(|place| data.train.get(*place)).map(|e| i64::from(e.label)).collect();
    let on_kept = train.part(&setup.kept);

    let (result, places) = (run.result()?, run.places());
    let start = run.start()?;
    let moved = squares(&result, &start, &places)?;
    let zeros: Vec<Tensor> = result.iter().map(Tensor::f_zeros_like).collect::<Result<_, _>>()?;
    let norm = squares(&result, &zeros, &places)?.values().sum::<f64>();
    let mut check = || if watch.is_cancelled() { Err(EngineError::Cancelled) } else { Ok(()) };
    let curved = match trial.settings.curvature {
        true => Some(curvature::measure(setup, [&start, &result], &mut check)?),
        false => None,
    };
    let measures = Measures {
        lipschitz: curved.map(|c| c.lipschitz),
        smoothness: curved.map(|c| c.smoothness),
        curvature: curved.and_then(|c| c.curvature),
        least_curvature: curved.map(|c| c.least),
        score: test.score(setup),
        accuracy: test.accuracy(),
        train_accuracy: on_kept.accuracy(),
        train_loss: Some(on_kept.mean_loss()),
        eval_loss: (!data.test.is_empty()).then(|| test.mean_loss()),
        weight_distance: Some(libm::sqrt(moved.values().sum())),
        weight_norm: Some(libm::sqrt(norm)),
        validation_score: validation,
        surt_distance: run.relearned,
        class_distance: class_distance(&features.f_index_select(0, &rows)?, &labels, data.classes)?,
        trained_steps: Some(run.step + setup.full.surt_steps(setup.kept.len() as u32)),
        ..about_data(trial, setup)
    };
    let moved = moved.into_iter().map(|(place, square)| (place, (libm::sqrt(square), None))).collect();
    let outcome = TrialOutcome {
        trial_index: trial.index,
        status: Status::Completed,
        error: None,
        measures,
        distances: Some(distances_json(&moved)),
        curve: curve(run),
        outputs: outputs(trial, setup, &head, &seen, test)?,
    };
    Ok(Finished { result, places, train, outcome })
}

/// What the sweep keeps of what the model says of the test set.
fn outputs(
    trial: &Trial,
    setup: &Setup<'_>,
    head: &Head<'_>,
    seen: &[Tensor],
    test: Seen,
) -> Result<TestOutputs, EngineError> {
    let examples = &setup.data.data.test;
    let kept = trial.settings.predictions;
    let count = (trial.settings.representations as usize).min(examples.len());
    let mut outputs = TestOutputs { classes: kept.classes().then_some(test.classes), ..Default::default() };
    let needed = if kept.probabilities() { examples.len() } else { count };
    if needed == 0 {
        return Ok(outputs);
    }
    let features = encode(setup.encoder, setup.data, seen, &examples[..needed], |_| Ok(()))?;
    if kept.probabilities() {
        outputs.log_probabilities = Some(floats(&log_probabilities(head, &features)?)?);
    }
    if count > 0 {
        let values = floats(&features.f_narrow(0, 0, count as i64)?)?;
        outputs.features = Some(Features { examples: count as u32, values });
    }
    Ok(outputs)
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>, EngineError> {
    let flat =
        tensor.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_flatten(0, -1)?;
    Ok(Vec::try_from(flat)?)
}

/// Squared distance by place.
fn squares(a: &[Tensor], b: &[Tensor], places: &[Place]) -> Result<BTreeMap<Place, f64>, EngineError> {
    let mut sums = BTreeMap::new();
    for ((a, b), place) in a.iter().zip(b).zip(places) {
        *sums.entry(*place).or_insert(0.0) += squared_norm(&[a.f_sub(b)?]);
    }
    Ok(sums)
}

/// `{"embeddings": {"moved": …, "loo": …}, …}`, with numbers that read back to the same bits.
fn distances_json(by_place: &BTreeMap<Place, (f64, Option<f64>)>) -> String {
    let mut object = serde_json::Map::new();
    for (place, (moved, loo)) in by_place {
        let mut entry = serde_json::Map::new();
        entry.insert("moved".to_owned(), (*moved).into());
        if let Some(loo) = loo {
            entry.insert("loo".to_owned(), (*loo).into());
        }
        object.insert(place.name(), entry.into());
    }
    serde_json::Value::Object(object).to_string()
}

/// Compares a refit with the model.
fn compare(base: &Finished, run: &Run<'_>, left_out: usize) -> Result<Refit, EngineError> {
    let by_place = squares(&run.result()?, &base.result, &base.places)?;
    let example = run.setup.data.data.train.get(left_out).cloned();
    let seen = run.evaluate(example.as_slice())?;
    let (class, loss) = (seen.classes.first().copied(), seen.losses.first().copied());
    let (known, before) =
        (base.train.classes.get(left_out).copied(), base.train.losses.get(left_out).copied());
    Ok(Refit {
        total: libm::sqrt(by_place.values().sum()),
        flipped: class != known,
        rise: loss.unwrap_or(f64::NAN) - before.unwrap_or(f64::NAN),
        squares: by_place.into_values().collect(),
    })
}

/// The outcome with leave-one-out measures (Bousquet & Elisseeff 2002): base run and refits share the order of the data, the
/// dropout masks and all other draws, and differ by the example that is masked out of the loss. Distances are those of the
/// weights themselves, not of directions: fine-tuned weights do not grow without bound (Fu, So, Collier 2023, §3).
fn complete(course: &Course<'_>) -> Result<TrialOutcome, EngineError> {
    let Some(base) = &course.base else {
        return Err(EngineError::Other("a trial ended before its model was trained".to_owned()));
    };
    let mut outcome = base.outcome.clone();
    let count = course.refits.len();
    if count == 0 {
        return Ok(outcome);
    }
    let k = count as f64;
    let mean_of = |f: &dyn Fn(&Refit) -> f64| course.refits.iter().map(f).sum::<f64>() / k;
    let mean = mean_of(&|refit| refit.total);
    let most = course.refits.iter().map(|refit| refit.total).reduce(f64::max);
    let m = &mut outcome.measures;
    (m.loo_mean, m.loo_raw_mean) = (Some(mean), Some(mean));
    (m.loo_max, m.loo_raw_max) = (most, most);
    if count > 1 {
        let square: f64 = course.refits.iter().map(|refit| (refit.total - mean).powi(2)).sum();
        m.loo_se = Some(libm::sqrt(square / (k - 1.0) / k));
    }
    m.loo_flip_rate = Some(mean_of(&|refit| f64::from(u8::from(refit.flipped))));
    m.loo_loss_change = Some(mean_of(&|refit| refit.rise));
    m.loo_count = Some(count as u32);
    if let Some(last) = outcome.curve.last_mut() {
        last.loo_mean = mean;
    }
    let start = course.run.start()?;
    let moved = squares(&base.result, &start, &base.places)?;
    let by_place = moved.into_iter().enumerate().map(|(at, (place, square))| {
        let loo = mean_of(&|refit| libm::sqrt(refit.squares.get(at).copied().unwrap_or(0.0)));
        (place, (libm::sqrt(square), Some(loo)))
    });
    outcome.distances = Some(distances_json(&by_place.collect()));
    Ok(outcome)
}
