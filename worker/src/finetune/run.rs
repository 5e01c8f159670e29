//! One training run: from the pre-trained weights through its phases, step by step.

use evenkeel_common::seed::{Key, Purpose, Stream};
use evenkeel_common::spec::{ChildMode, Optimizer, Select};
use evenkeel_common::text::Metric;
use evenkeel_common::trial::{FullConfig, StrategyConfig};
use tch::{Device, Tensor};

use super::batches::epoch;
use super::dropout::Masks;
use super::evaluate::{Seen, evaluate};
use super::forward::Forward;
use super::initial::{fresh_heads, start_anew};
use super::losses::Head;
use super::optimizer::{Moments, Rule, squared_norm};
use super::prepared::{Encoder, Prepared};
use super::relearn::Objective;
use super::weights::{Place, Weights};
use crate::engine::EngineError;

/// What all runs of a trial (the model itself and its refits) share.
pub struct Setup<'a> {
    /// The encoder.
    pub encoder: &'a Encoder,
    /// The dataset.
    pub data: &'a Prepared,
    /// How to train.
    pub strategy: &'a StrategyConfig,
    /// The part of it that only full fine-tuning has.
    pub full: &'a FullConfig,
    /// What draws depend on beside the seed.
    pub key: Key,
    /// The trial's seed for each source of randomness, 0 where it does not control it.
    pub seeds: Seeds,
    /// Places of the training examples that `data_perturbation` keeps.
    pub kept: Vec<usize>,
    /// Places of those that are left out, one at a time, by refits.
    pub left_out: Vec<usize>,
    /// Tokens of each training example.
    pub lengths: Vec<usize>,
    /// The score.
    pub metric: Metric,
    /// Where tensors live.
    pub device: Device,
}

/// Seeds of the sources of randomness.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// Heads, adapters and layers that start anew.
    pub initialization: u64,
    /// Order of the examples.
    pub order: u64,
    /// Dropout and what else is drawn in each step.
    pub dropout: u64,
}

/// The part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Phase {
    /// Masked tokens, without labels.
    Relearn,
    /// Fine-tuning.
    Tune,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Steps of fine-tuning done.
    pub step: u32,
    /// Mean loss over the examples since the point before.
    pub train_loss: f64,
    /// Mean cross-entropy on the test set.
    pub eval_loss: f64,
    /// Score on the test set.
    pub score: f64,
    /// Score on the validation set; NaN without one, or where nothing depends on it.
    pub validation: f64,
}

/// The weights of the best evaluation so far.
pub struct Best {
    /// Validation score.
    pub score: f64,
    /// All values.
    pub values: Vec<Tensor>,
}

/// A run.
pub struct Run<'a> {
    /// What it shares.
    pub setup: &'a Setup<'a>,
    /// The training example that is masked out, for a refit.
    pub left_out: Option<usize>,
    /// Where it is.
    pub phase: Phase,
    /// Steps done in the phase.
    pub step: u32,
    /// Its tensors.
    pub weights: Weights,
    /// Moments of those that are trained.
    pub moments: Vec<Option<Moments>>,
    /// The encoder's values where fine-tuning began.
    pub origin: Vec<Tensor>,
    /// ‖w − w_pre-trained‖ where it began.
    pub relearned: Option<f64>,
    /// Gradient masks of Child-Tuning_D.
    pub child: Vec<Option<Tensor>>,
    /// Its curve.
    pub curve: Vec<Point>,
    /// Sum of losses since the last point, and of how many examples.
    pub losses: (f64, f64),
    /// The weights that `select: best` would give.
    pub best: Option<Best>,
    /// Evaluations since the validation score last rose.
    pub stale: u32,
    /// Whether a loss or gradient was not finite.
    pub diverged: bool,
    /// What the weights say of the test set, as long as they are those of the last evaluation.
    tested: Option<Seen>,
    /// The objective of the phase without labels.
    pub(super) masked: Option<Objective>,
    /// Places of the classifiers among the tensors.
    head: (usize, Option<usize>),
    /// The epoch at work and its batches.
    order: Option<(u32, Vec<Vec<usize>>)>,
}

impl<'a> Run<'a> {
    /// A run at its start.
    ///
    /// # Errors
    /// When memory is short, or the encoder cannot do what the strategy asks for.
    pub fn new(setup: &'a Setup<'a>, left_out: Option<usize>) -> Result<Self, EngineError> {
        let pretrained = setup.data.values(setup.encoder)?;
        let mut values = Vec::with_capacity(pretrained.len());
        for value in &pretrained {
            values.push(value.f_detach_copy()?);
        }
        let mut run = Self {
            setup,
            left_out,
            phase: Phase::Tune,
            step: 0,
            weights: Weights::new(&setup.encoder.parameters, values),
            moments: Vec::new(),
            origin: Vec::new(),
            relearned: None,
            child: Vec::new(),
            curve: Vec::new(),
            losses: (0.0, 0.0),
            best: None,
            stale: 0,
            diverged: false,
            tested: None,
            masked: None,
            head: (0, None),
            order: None,
        };
        if let Some(surt) = setup.full.surt {
            run.phase = Phase::Relearn;
            run.masked = Some(Objective::new(setup, surt.mask, &mut run.weights)?);
            run.reset_moments()?;
        } else {
            run.begin_tuning()?;
        }
        Ok(run)
    }

    /// Steps of the phase it is in.
    #[must_use]
    pub fn steps(&self) -> u32 {
        let n = self.setup.kept.len() as u32;
        match self.phase {
            Phase::Relearn => self.setup.full.surt_steps(n),
            Phase::Tune => self.setup.full.total_steps(n, self.setup.strategy.steps),
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn ended(&self) -> bool {
        let stopped = self.setup.full.patience.is_some_and(|patience| self.stale >= patience);
        self.diverged || (self.phase == Phase::Tune && (stopped || self.step >= self.steps()))
    }

    /// From the phase without labels to the one with them.
    fn begin_tuning(&mut self) -> Result<(), EngineError> {
        let setup = self.setup;
        self.phase = Phase::Tune;
        self.step = 0;
        self.order = None;
        if self.masked.take().is_some() {
            // The head for masked tokens has done its work.
            let encoder = self.weights.encoder_len();
            self.weights.values.truncate(encoder);
            self.weights.parts.truncate(encoder);
            let mut squares = 0.0;
            for (value, before) in self.weights.values.iter().zip(setup.data.values(setup.encoder)?) {
                squares += squared_norm(&[value.f_sub(&before)?]);
            }
            self.relearned = Some(libm::sqrt(squares));
        }
        self.prepare_encoder()?;
        self.origin = self.weights.values.iter().map(Tensor::f_detach_copy).collect::<Result<_, _>>()?;
        self.push_heads()?;
        if let Some((rank, alpha)) = setup.full.lora {
            let seed = setup.seeds.initialization;
            // Positions above those of re-initialised tensors.
            let draws = |at: usize| setup.key.stream(Purpose::Reinitialization, seed, 1 << 32 | at as u64);
            self.weights.adapt(rank, alpha, draws)?;
        }
        self.reset_moments()?;
        if let Some((ChildMode::Fisher, share)) = setup.full.child_tuning {
            self.child = self.fisher_masks(share)?;
        }
        Ok(())
    }

    /// Layers that start anew, and step sizes by layer.
    fn prepare_encoder(&mut self) -> Result<(), EngineError> {
        let setup = self.setup;
        let layers = setup.encoder.network.layers();
        if let Some(count) = setup.full.reinit {
            for at in 0..self.weights.encoder_len() {
                let part = &self.weights.parts[at];
                let anew = match part.place {
                    Place::Layer(layer) => layer + count >= layers,
                    Place::Pooler => count > 0,
                    Place::Embeddings | Place::Head => false,
                };
                if anew {
                    let norm = !part.decays && part.name.ends_with("weight");
                    let mut value = self.weights.values[at].shallow_clone();
                    let stream =
                        setup.key.stream(Purpose::Reinitialization, setup.seeds.initialization, at as u64);
                    start_anew(&setup.encoder.network, &mut value, norm, stream)?;
                }
            }
        }
        if let Some(decay) = setup.full.llrd {
            for part in &mut self.weights.parts {
                // Layer ℓ of L counts from 1 here; the embeddings are layer 0.
                let below_top = match part.place {
                    Place::Embeddings => layers,
                    Place::Layer(layer) => layers.saturating_sub(layer + 1),
                    Place::Pooler | Place::Head => 0,
                };
                part.rate = libm::pow(decay, f64::from(below_top));
            }
        }
        Ok(())
    }

    fn push_heads(&mut self) -> Result<(), EngineError> {
        let (weight, bias) = fresh_heads(self.setup)?;
        self.head.0 = self.weights.push_head("classifier.weight", weight);
        self.head.1 = bias.map(|bias| self.weights.push_head("classifier.bias", bias));
        Ok(())
    }

    fn reset_moments(&mut self) -> Result<(), EngineError> {
        let rule = self.rule();
        let moments = self.weights.values.iter().zip(&self.weights.parts);
        self.moments = moments
            .map(|(value, part)| part.trained.then(|| Moments::zeros(&rule, value)).transpose())
            .collect::<Result<_, tch::TchError>>()?;
        Ok(())
    }

    pub(super) fn rule(&self) -> Rule {
        match self.setup.strategy.optimizer {
            Optimizer::Sgd => Rule::Sgd { momentum: self.setup.strategy.momentum },
            _ => Rule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
        }
    }

    /// The classifiers among some tensors.
    #[must_use]
    pub fn head<'t>(&self, tensors: &'t [Tensor]) -> Head<'t> {
        Head {
            weight: &tensors[self.head.0],
            bias: self.head.1.and_then(|at| tensors.get(at)),
            heads: i64::from(self.setup.strategy.heads),
        }
    }

    /// The examples of the next step.
    fn batch(&mut self) -> Vec<usize> {
        let setup = self.setup;
        let size = setup.full.batch_size as usize;
        let each = (setup.kept.len().div_ceil(size.max(1)).max(1)) as u32;
        let (number, place) = (self.step / each, (self.step % each) as usize);
        if self.order.as_ref().is_none_or(|(known, _)| *known != number) {
            let phase = if self.phase == Phase::Relearn { 1 << 32 } else { 0 };
            let mut stream =
                setup.key.stream(Purpose::DataOrder, setup.seeds.order, phase | u64::from(number));
            let batches = epoch(&setup.lengths, &setup.kept, size, setup.full.length_buckets, &mut stream);
            self.order = Some((number, batches));
        }
        self.order.as_ref().and_then(|(_, batches)| batches.get(place)).cloned().unwrap_or_default()
    }

    /// The stream of this step for a purpose; `place` tells parts of a batch apart.
    pub(super) fn stream(&self, purpose: Purpose, place: usize) -> Stream {
        let phase = u64::from(self.phase == Phase::Relearn) << 63;
        let position = phase | u64::from(self.step) << 32 | place as u64;
        self.setup.key.stream(purpose, self.setup.seeds.dropout, position)
    }

    pub(super) fn masks(&self, purpose: Purpose, place: usize) -> Masks {
        let (key, nonce) = self.stream(purpose, place).generator();
        Masks::new(key, nonce)
    }

    /// A way through the encoder as training takes it.
    pub(super) fn forward(&self, place: usize) -> Forward<'a> {
        let setup = self.setup;
        let masks = Some(self.masks(Purpose::Dropout, place));
        Forward::new(setup.encoder, setup.data, setup.device, setup.full.dropout, masks)
    }

    /// Makes one step, and the evaluation that is due after it. Gives the new point of the curve if there is one.
    ///
    /// # Errors
    /// When memory is short or the device fails.
    pub fn advance(&mut self) -> Result<Option<Point>, EngineError> {
        let tuning = self.phase == Phase::Tune;
        self.advance_without_point()?;
        if self.diverged || !tuning {
            return Ok(None);
        }
        // Nobody looks at the curve of a refit.
        if self.left_out.is_some() && !self.watches_validation() {
            return Ok(None);
        }
        let every = self.setup.full.evaluation_steps(self.steps());
        if self.step.is_multiple_of(every) || self.step >= self.steps() {
            return self.point().map(Some);
        }
        Ok(None)
    }

    /// Makes one step.
    ///
    /// # Errors
    /// When memory is short or the device fails.
    pub fn advance_without_point(&mut self) -> Result<(), EngineError> {
        let _ = self.step_within_phase()?;
        if self.phase == Phase::Relearn && !self.diverged && self.step >= self.steps() {
            self.begin_tuning()?;
        }
        Ok(())
    }

    /// Makes one step and stays in its phase. Gives the loss of the batch's parts.
    ///
    /// # Errors
    /// When memory is short or the device fails.
    pub(super) fn step_within_phase(&mut self) -> Result<f64, EngineError> {
        self.tested = None;
        let batch = self.batch();
        let counted = batch.iter().filter(|place| Some(**place) != self.left_out).count();
        let leaves = self.weights.leaves()?;
        let mut sum = 0.0;
        if counted > 0 {
            let parts = self.setup.full.accumulation.max(1) as usize;
            for part in batch.chunks(batch.len().div_ceil(parts).max(1)) {
                let loss = match self.phase {
                    Phase::Relearn => self.relearning_loss(&leaves, part, counted)?,
                    Phase::Tune => self.tuning_loss(&leaves, part, counted)?,
                };
                self.diverged |= !loss.is_finite();
                sum += loss;
            }
        }
        if !self.diverged {
            self.apply(&leaves)?;
        }
        self.step += 1;
        Ok(sum)
    }

    /// Whether training depends on the validation score: evaluating it costs time.
    fn watches_validation(&self) -> bool {
        self.setup.full.select == Select::Best || self.setup.full.patience.is_some()
    }

    /// Evaluates, and remembers the weights where they are the best yet.
    fn point(&mut self) -> Result<Point, EngineError> {
        let setup = self.setup;
        let test = match self.left_out {
            None => self.evaluate(&setup.data.data.test)?,
            Some(_) => Seen::default(),
        };
        let validation = match self.watches_validation() && !setup.data.data.validation.is_empty() {
            true => self.evaluate(&setup.data.data.validation)?.score(setup).unwrap_or(f64::NAN),
            false => f64::NAN,
        };
        let point = Point {
            step: self.step,
            train_loss: self.losses.0 / self.losses.1.max(1.0),
            eval_loss: test.mean_loss(),
            score: test.score(setup).unwrap_or(f64::NAN),
            validation,
        };
        self.tested = self.left_out.is_none().then_some(test);
        self.losses = (0.0, 0.0);
        self.curve.push(point);
        self.diverged |= !point.eval_loss.is_finite();
        let rises = self.best.as_ref().is_none_or(|best| validation > best.score);
        if rises && validation.is_finite() {
            self.stale = 0;
            // Weights are kept only where they may be asked for.
            let values = match setup.full.select {
                Select::Best => {
                    self.weights.values.iter().map(Tensor::f_detach_copy).collect::<Result<_, _>>()?
                }
                Select::Last => Vec::new(),
            };
            self.best = Some(Best { score: validation, values });
        } else {
            self.stale += 1;
        }
        Ok(point)
    }

    /// What the model says of the test set.
    ///
    /// # Errors
    /// When memory is short or the device fails.
    pub fn test(&self) -> Result<Seen, EngineError> {
        match &self.tested {
            Some(seen) => Ok(seen.clone()),
            None => self.evaluate(&self.setup.data.data.test),
        }
    }

    /// What the model says of some examples.
    ///
    /// # Errors
    /// When memory is short or the device fails.
    pub fn evaluate(&self, examples: &[crate::data::text::TokenExample]) -> Result<Seen, EngineError> {
        let _guard = tch::no_grad_guard();
        let setup = self.setup;
        let seen = self.weights.effective(&self.weights.values, None, setup.full.precision)?;
        let (weight, bias) = self.head(&self.weights.values).mean()?;
        let head = Head { weight: &weight, bias: bias.as_ref(), heads: 1 };
        evaluate(setup, &seen, &head, examples)
    }

    /// Goes back to the best weights where the strategy asks for them. Called once, at the end.
    pub fn choose(&mut self) {
        if self.setup.full.select == Select::Best
            && let Some(best) = self.best.take().filter(|best| !best.values.is_empty())
        {
            self.weights.values = best.values;
            self.tested = None;
        }
    }

    /// The encoder with adapters worked in, and the classifier that predicts: what distances are measured between.
    ///
    /// # Errors
    /// When memory is short.
    pub fn result(&self) -> Result<Vec<Tensor>, EngineError> {
        let mut all = self.weights.merged()?;
        let (weight, bias) = self.head(&self.weights.values).mean()?;
        all.push(weight);
        all.extend(bias);
        Ok(all)
    }

    /// Where the tensors of [`Run::result`] belong.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let encoder = self.weights.parts.iter().take(self.weights.encoder_len()).map(|part| part.place);
        encoder.chain(std::iter::repeat_n(Place::Head, 1 + usize::from(self.setup.strategy.bias))).collect()
    }

    /// Goes to a phase without the work before it: what that changed is put in place from a checkpoint.
    pub(super) fn resume(&mut self, phase: Phase) -> Result<(), EngineError> {
        if self.phase == Phase::Relearn && phase == Phase::Tune {
            self.begin_tuning()?;
        }
        Ok(())
    }

    /// Where fine-tuning began, in the order of [`Run::result`].
    ///
    /// # Errors
    /// When memory is short.
    pub fn start(&self) -> Result<Vec<Tensor>, EngineError> {
        let mut all: Vec<Tensor> = self.origin.iter().map(Tensor::shallow_clone).collect();
        // The classifiers' first weights are drawn again: they are not kept.
        let (weight, bias) = fresh_heads(self.setup)?;
        let head = Head { weight: &weight, bias: bias.as_ref(), heads: i64::from(self.setup.strategy.heads) };
        let (weight, bias) = head.mean()?;
        all.push(weight);
        all.extend(bias);
        Ok(all)
    }
}
