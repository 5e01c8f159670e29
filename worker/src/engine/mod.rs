//! The head engine: many trials of one dataset as rows of one weight matrix.
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | from trials to heads that are trained once each, and to blocks of them |
//! | [`block`] | a block of heads, and the training set as the engine needs it |
//! | [`cpu`] | training a block on the CPU |
//! | [`tensor`] | training a block on another device |
//! | [`kernel`] | element-wise kernels of a step |
//! | [`matrix`] | matrices that libtorch multiplies and Rust reads and writes |
//! | [`margin`] | the exact hard margin |
//! | [`metrics`] | from weights to outcomes |
//! | [`cache`] | datasets and what was derived from them, for packs that split a dataset |
//! | [`bench`] | rates of the engine beside libtorch's own |
//!
//! A trial's outcome is a function of the trial alone: not of the pack, the block or the order it was trained in.

pub mod bench;
pub mod block;
pub mod cache;
pub mod cpu;
pub mod kernel;
pub mod margin;
pub mod matrix;
pub mod metrics;
pub mod plan;
pub mod tensor;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::results::TrialOutcome;
use evenkeel_common::seed::Key;
use evenkeel_common::spec::Setting;
use evenkeel_common::trial::{Trial, refits};

pub use crate::data::{DataError, Inputs};
use crate::device::Device;
use cache::{Cache, Prepared};
use metrics::{Yardstick, majority, outcome};
use plan::{Draws, Plan, measured_steps, rows_of_head};

/// Floating-point operations between two looks at the caller: a few milliseconds on one core.
const LOOK_FLOPS: f64 = 2e8;
/// Weights that the trials of one block of outcomes may hold: 64 MiB.
const CHUNK_NUMBERS: f64 = 16.0 * 1024.0 * 1024.0;

/// Who asked for a pack.
pub trait PackWatch {
    /// Whether to stop.
    fn is_cancelled(&self) -> bool;
    /// Whether to stop because another worker is to go on with it.
    fn is_leaving(&self) -> bool {
        false
    }
    /// Tells which share of the pack is done, in [0, 1].
    fn progress(&mut self, fraction: f64);
    /// Tells of a new point of a curve.
    fn sample(&mut self, sample: Sample);
    /// Hands over outcomes, in the order of the trials.
    fn deliver(&mut self, outcomes: Vec<TrialOutcome>);
}

/// A point of a trial's curve, while it trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The trial's number.
    pub trial: u64,
    /// Steps done.
    pub step: u32,
    /// Steps there are.
    pub steps: u32,
    /// Mean loss over the examples since the point before, in nats.
    pub train_loss: f64,
    /// On the test set.
    pub score: f64,
}

/// Why a pack was not finished. What was delivered before stays valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The device has too little memory.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The data of a trial do not fit it.
    #[error("{0}")]
    Data(String),
    /// The data of a trial could not be fetched.
    #[error("{0}")]
    Unavailable(String),
    /// The device failed, or is not there.
    #[error("device: {0}")]
    Device(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl EngineError {
    /// What it means for the trials.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Cancelled => FailureKind::Cancelled,
            Self::OutOfMemory(_) => FailureKind::OutOfMemory,
            Self::Data(_) => FailureKind::Data,
            Self::Unavailable(_) | Self::Device(_) => FailureKind::Transient,
            Self::Other(_) => FailureKind::Permanent,
        }
    }
}

impl From<tch::TchError> for EngineError {
    fn from(error: tch::TchError) -> Self {
        let message = error.to_string();
        let lower = message.to_lowercase();
        // libtorch says "out of memory" of a GPU, "can't allocate memory" of the CPU.
        if lower.contains("out of memory") || lower.contains("allocate memory") {
            Self::OutOfMemory(first_line(&message))
        } else if lower.contains("cuda") {
            Self::Device(first_line(&message))
        } else {
            Self::Other(first_line(&message))
        }
    }
}

/// libtorch appends a stack trace.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

impl From<DataError> for EngineError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Unavailable(message) => Self::Unavailable(message),
            DataError::Invalid(message) => Self::Data(message),
            DataError::TooLarge(message) => Self::OutOfMemory(message),
        }
    }
}

/// Trains packs of trials on one device. Lives on one OS thread: its tensors never leave it.
pub struct HeadEngine {
    device: Device,
    cache: Cache,
}

impl HeadEngine {
    /// An engine on a device.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn new(device: Device) -> Result<Self, EngineError> {
        device.check()?;
        Ok(Self { device, cache: Cache::default() })
    }

    /// Trains a pack. Trials of one dataset should be neighbours. Outcomes are delivered in order, some trials of a dataset
    /// at a time, as soon as they are there.
    ///
    /// # Errors
    /// When cancelled, or when trials cannot be trained. A diverging trial is no error.
    pub fn run(
        &mut self,
        trials: &[Trial],
        inputs: &dyn Inputs,
        watch: &mut dyn PackWatch,
    ) -> Result<(), EngineError> {
        let _guard = tch::no_grad_guard();
        let total: f64 = trials.iter().map(Trial::flops).sum();
        let mut progress =
            Progress { watch, total: total.max(1.0), done: 0.0, chunk: 0.0, within: 0.0, unseen: 0.0 };
        let alike = |a: &Trial, b: &Trial| {
            a.dataset == b.dataset
                && a.model == b.model
                && a.settings.sweep_seed == b.settings.sweep_seed
                && a.settings.exact_margin == b.settings.exact_margin
        };
        for trials in trials.chunk_by(alike) {
            progress.look()?;
            let first = &trials[0];
            if trials.iter().any(|trial| trial.strategy.setting != Setting::Head) {
                return Err(EngineError::Data("the head engine trains `setting: head` only".to_owned()));
            }
            let key = Key::of_dataset(first.settings.sweep_seed, &first.dataset.to_json());
            let prepared = self.cache.get(first, inputs)?;
            let (n, d) = (prepared.data.train_rows(), prepared.data.features);
            let mut draws = Draws::new(key, n, d, rows_of_head(prepared.data.classes));
            let mut rest = trials;
            while !rest.is_empty() {
                let (chunk, later) = rest.split_at(chunk_length(rest));
                rest = later;
                progress.begin(chunk.iter().map(Trial::flops).sum());
                let outcomes = self.chunk(chunk, &prepared, &mut draws, &mut progress)?;
                progress.end();
                progress.watch.deliver(outcomes);
            }
        }
        progress.watch.progress(1.0);
        Ok(())
    }

    fn chunk(
        &self,
        trials: &[Trial],
        prepared: &Prepared,
        draws: &mut Draws,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<TrialOutcome>, EngineError> {
        let mut plan = Plan::new(trials, draws);
        let blocks = plan.blocks(draws, self.device.is_cpu());
        let mut work = Vec::with_capacity(blocks.len());
        for numbers in blocks {
            let inputs = prepared.inputs(plan.bias(&numbers))?;
            let block = plan.block(&numbers, draws, inputs);
            work.push((numbers, block, inputs));
        }
        let flops: f64 =
            work.iter().map(|(_, block, inputs)| block.step_flops(inputs) * f64::from(block.steps)).sum();
        for (numbers, block, inputs) in &work {
            let step = block.step_flops(inputs);
            let mut tick = || progress.add(step, flops);
            let mut emit = |at: block::Snapshot<'_>| plan.take(numbers, inputs, at.step, at.weights);
            if self.device.is_cpu() {
                cpu::train(inputs, block, &mut tick, &mut emit)?;
            } else {
                tensor::train(self.device.tch_device(), inputs, block, &mut tick, &mut emit)?;
            }
        }
        let mut outcomes = Vec::with_capacity(trials.len());
        let majority = majority(&prepared.data.y_test, prepared.data.classes);
        for (trial, planned) in trials.iter().zip(&plan.trials) {
            let margin = trial.settings.exact_margin.then(|| prepared.margin(trial.strategy.bias));
            let yard = Yardstick { data: &prepared.data, margin, majority };
            outcomes.push(outcome(trial, planned, &plan, &yard, draws));
        }
        Ok(outcomes)
    }
}

/// How many of the next trials (at least one) are trained before outcomes are delivered.
fn chunk_length(trials: &[Trial]) -> usize {
    let mut numbers = 0.0;
    for (i, trial) in trials.iter().enumerate() {
        let (n, d, classes) = trial.shape();
        let heads =
            f64::from(trial.strategy.heads) * (1.0 + f64::from(refits(n, trial.settings.leave_one_out)));
        let snapshots = measured_steps(&trial.strategy).len() as f64;
        numbers += heads * snapshots * f64::from(d + 1) * rows_of_head(classes as usize) as f64;
        if numbers > CHUNK_NUMBERS {
            return i.max(1);
        }
    }
    trials.len()
}

/// How far a pack is, and when to look at the caller.
struct Progress<'a> {
    watch: &'a mut dyn PackWatch,
    /// Planned operations of the pack, of what is done, and of the chunk at work.
    total: f64,
    done: f64,
    chunk: f64,
    /// Share of the chunk that is done.
    within: f64,
    /// Operations since the last look.
    unseen: f64,
}

impl Progress<'_> {
    fn begin(&mut self, flops: f64) {
        (self.chunk, self.within) = (flops, 0.0);
    }

    fn end(&mut self) {
        self.done += self.chunk;
        (self.chunk, self.within) = (0.0, 0.0);
    }

    /// Counts operations of a chunk that has `all` of them.
    fn add(&mut self, flops: f64, all: f64) -> Result<(), EngineError> {
        self.within += flops / all;
        // Also counts what a step costs beside its products.
        self.unseen += flops + 1e5;
        if self.unseen >= LOOK_FLOPS { self.look() } else { Ok(()) }
    }

    fn look(&mut self) -> Result<(), EngineError> {
        self.unseen = 0.0;
        if self.watch.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.watch.progress(((self.done + self.within * self.chunk) / self.total).clamp(0.0, 1.0));
        Ok(())
    }
}
