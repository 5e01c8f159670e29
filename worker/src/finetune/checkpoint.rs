//! A long trial, saved so that another worker goes on where this one stopped, to the same bits.
//!
//! Every draw depends on the trial and the step alone, so what is saved is what steps have changed: weights, moments, the
//! curve, and what earlier runs of the trial gave. Numbers are stored as tensors and not as text: no bit is lost.

use std::collections::HashMap;

use evenkeel_common::results;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::evaluate::Seen;
use super::optimizer::Moments;
use super::run::{Best, Phase, Point, Run};
use super::trial::{Course, Finished, Refit};
use crate::engine::EngineError;

/// Version of the format: another one is not read, and the trial begins anew.
const FORMAT: u32 = 1;
const META: &str = "evenkeel";

/// Where checkpoints are kept.
pub trait Checkpoints {
    /// The newest checkpoint of a trial.
    fn load(&self, trial: &str) -> Option<Vec<u8>>;
    /// Keeps a checkpoint in place of the one before.
    fn save(&self, trial: &str, bytes: Vec<u8>);
    /// Forgets a trial's checkpoint: it has ended.
    fn forget(&self, trial: &str);
    /// Whether one is due, given when the last was made.
    fn due(&self, since: std::time::Instant) -> bool;
}

/// Nowhere: trials are too short to be worth it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheckpoints;

impl Checkpoints for NoCheckpoints {
    fn load(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
    fn save(&self, _: &str, _: Vec<u8>) {}
    fn forget(&self, _: &str) {}
    fn due(&self, _: std::time::Instant) -> bool {
        false
    }
}

/// What is no tensor.
#[derive(Serialize, Deserialize)]
struct Meta {
    format: u32,
    trial: String,
    phase: Phase,
    step: u32,
    stale: u32,
    /// Whether the model itself has ended, and refits are under way.
    base: bool,
    best: bool,
}

/// Tensors by name, in the making.
#[derive(Default)]
struct Saved(Vec<(String, Tensor)>);

impl Saved {
    fn push(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<(), EngineError> {
        self.0.push((name.into(), tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?));
        Ok(())
    }

    fn push_all(&mut self, name: &str, tensors: &[Tensor]) -> Result<(), EngineError> {
        (0..).zip(tensors).try_for_each(|(at, tensor): (usize, _)| self.push(format!("{name}.{at}"), tensor))
    }

    fn numbers(&mut self, name: &str, values: &[f64]) -> Result<(), EngineError> {
        self.push(name, &Tensor::f_from_slice(values)?)
    }
}

/// The state of a trial as bytes.
///
/// # Errors
/// When memory is short.
pub fn save(trial: &str, course: &Course<'_>) -> Result<Vec<u8>, EngineError> {
    let run = &course.run;
    let mut saved = Saved::default();
    saved.push_all("value", &run.weights.values)?;
    for (at, moments) in run.moments.iter().enumerate() {
        let Some(moments) = moments else { continue };
        for (name, tensor) in [("m", &moments.m), ("v", &moments.v)] {
            if let Some(tensor) = tensor {
                saved.push(format!("{name}.{at}"), tensor)?;
            }
        }
    }
    saved.push_all("origin", &run.origin)?;
    for (at, mask) in run.child.iter().enumerate() {
        if let Some(mask) = mask {
            saved.push(format!("child.{at}"), mask)?;
        }
    }
    if let Some(best) = &run.best {
        saved.push_all("best", &best.values)?;
    }
    let curve: Vec<f64> = run
        .curve
        .iter()
        .flat_map(|p| [f64::from(p.step), p.train_loss, p.eval_loss, p.score, p.validation])
        .collect();
    saved.numbers("curve", &curve)?;
    let best = run.best.as_ref().map_or(f64::NAN, |best| best.score);
    saved.numbers("numbers", &[run.losses.0, run.losses.1, run.relearned.unwrap_or(f64::NAN), best])?;
    if let Some(base) = &course.base {
        saved.push_all("base.result", &base.result)?;
        saved.numbers("base.losses", &base.train.losses)?;
        let classes: Vec<i64> = base.train.classes.iter().map(|class| i64::from(*class)).collect();
        saved.push("base.classes", &Tensor::f_from_slice(&classes)?)?;
        let outcome = results::TrialRecord { outcome: base.outcome.clone(), execution: Default::default() };
        let bytes = results::encode(&[outcome])
            .and_then(|batch| results::to_ipc(&batch))
            .map_err(|error| EngineError::Other(format!("a checkpoint cannot be written: {error}")))?;
        saved.push("base.outcome", &Tensor::f_from_slice(&bytes)?)?;
    }
    for (at, refit) in course.refits.iter().enumerate() {
        let numbers: Vec<f64> = [refit.total, f64::from(u8::from(refit.flipped)), refit.rise]
            .into_iter()
            .chain(refit.squares.iter().copied())
            .collect();
        saved.numbers(&format!("refit.{at}"), &numbers)?;
    }
    let meta = Meta {
        format: FORMAT,
        trial: trial.to_owned(),
        phase: run.phase,
        step: run.step,
        stale: run.stale,
        base: course.base.is_some(),
        best: run.best.is_some(),
    };
    to_bytes(&saved, &meta)
}

fn to_bytes(saved: &Saved, meta: &Meta) -> Result<Vec<u8>, EngineError> {
    let fail = |error: &dyn std::fmt::Debug| {
        EngineError::Other(format!("a checkpoint cannot be written: {error:?}"))
    };
    let mut views = Vec::with_capacity(saved.0.len());
    for (name, tensor) in &saved.0 {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            Kind::Uint8 => Dtype::U8,
            other => return Err(fail(&other)),
        };
        let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
        // SAFETY: the tensor is contiguous and on the CPU (see `push`), lives as long as `saved`, and is not changed.
        let data = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>().cast_const(), bytes) };
        let shape = tensor.size().iter().map(|length| *length as usize).collect();
        let data = if bytes == 0 { &[][..] } else { data };
        views.push((name.clone(), TensorView::new(dtype, shape, data).map_err(|e| fail(&e))?));
    }
    let meta = serde_json::to_string(meta).map_err(|e| fail(&e))?;
    let meta = HashMap::from([(META.to_owned(), meta)]);
    safetensors::serialize(views, &Some(meta)).map_err(|e| fail(&e))
}

/// Tensors by name.
struct Loaded {
    tensors: HashMap<String, Tensor>,
    device: Device,
}

impl Loaded {
    fn get(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name)?.f_to_device(self.device).ok()
    }

    fn all(&self, name: &str) -> Vec<Tensor> {
        (0..).map_while(|at| self.get(&format!("{name}.{at}"))).collect()
    }

    fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        Vec::try_from(self.tensors.get(name)?).ok()
    }
}

/// Puts a trial where a checkpoint left it; none when the bytes are not a checkpoint of this trial, of this format.
/// `course` is the trial at its start.
#[must_use]
pub fn restore<'a>(trial: &str, mut course: Course<'a>, bytes: &[u8]) -> Option<Course<'a>> {
    let (loaded, meta) = read(bytes, course.setup.device)?;
    if meta.format != FORMAT || meta.trial != trial {
        return None;
    }
    if meta.base {
        let outcome: Vec<u8> = Vec::try_from(loaded.tensors.get("base.outcome")?).ok()?;
        let classes: Vec<i64> = Vec::try_from(loaded.tensors.get("base.classes")?).ok()?;
        course.base = Some(Finished {
            result: loaded.all("base.result"),
            places: course.run.places(),
            train: Seen {
                classes: classes.into_iter().map(|class| class as u32).collect(),
                losses: loaded.numbers("base.losses")?,
                ..Seen::default()
            },
            outcome: results::from_ipc(&outcome).ok()?.pop()?.outcome,
        });
        for at in 0.. {
            let Some(numbers) = loaded.numbers(&format!("refit.{at}")) else { break };
            let [total, flipped, rise, squares @ ..] = &numbers[..] else { return None };
            let (total, flipped, rise) = (*total, *flipped > 0.5, *rise);
            course.refits.push(Refit { total, flipped, rise, squares: squares.to_vec() });
        }
        let left_out = *course.setup.left_out.get(course.refits.len())?;
        course.run = Run::new(course.setup, Some(left_out)).ok()?;
    }
    let run = &mut course.run;
    run.resume(meta.phase).ok()?;
    (run.step, run.stale) = (meta.step, meta.stale);
    let values = loaded.all("value");
    let same =
        |a: &[Tensor], b: &[Tensor]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.size() == b.size());
    if !same(&values, &run.weights.values) {
        return None;
    }
    run.weights.values = values;
    for (at, moments) in run.moments.iter_mut().enumerate() {
        if let Some(moments) = moments {
            let part = |name: &str, old: &Option<Tensor>| match old {
                Some(_) => loaded.get(&format!("{name}.{at}")).map(Some),
                None => Some(None),
            };
            *moments = Moments { m: part("m", &moments.m)?, v: part("v", &moments.v)? };
        }
    }
    run.origin = loaded.all("origin");
    for at in 0..run.child.len() {
        run.child[at] = loaded.get(&format!("child.{at}"));
    }
    run.curve.clear();
    for point in loaded.numbers("curve")?.chunks_exact(5) {
        let [step, train_loss, eval_loss, score, validation] = point else { return None };
        let step = *step as u32;
        let (train_loss, eval_loss, score, validation) = (*train_loss, *eval_loss, *score, *validation);
        run.curve.push(Point { step, train_loss, eval_loss, score, validation });
    }
    let numbers = loaded.numbers("numbers")?;
    let [sum, count, relearned, best] = numbers[..] else { return None };
    run.losses = (sum, count);
    run.relearned = (!relearned.is_nan()).then_some(relearned);
    run.best = meta.best.then(|| Best { score: best, values: loaded.all("best") });
    Some(course)
}

fn read(bytes: &[u8], device: Device) -> Option<(Loaded, Meta)> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    let meta = serde_json::from_str(metadata.metadata().as_ref()?.get(META)?).ok()?;
    let mut tensors = HashMap::new();
    for (name, view) in SafeTensors::deserialize(bytes).ok()?.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            Dtype::U8 => Kind::Uint8,
            _ => return None,
        };
        let shape: Vec<i64> = view.shape().iter().map(|length| *length as i64).collect();
        tensors.insert(name, Tensor::f_from_data_size(view.data(), &shape, kind).ok()?);
    }
    Some((Loaded { tensors, device }, meta))
}
