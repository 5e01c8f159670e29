//! One training run: from the pre-trained weights through its phases, step by step.

use std::collections::BTreeMap;

use evenkeel_common::seed::{Key, Purpose, Stream};
use evenkeel_common::spec::{ChildMode, Optimizer, Reduction, Select};
use evenkeel_common::text::Metric;
use evenkeel_common::trial::{FullConfig, StrategyConfig};
use tch::{Device, Kind, Tensor};

use super::batches::epoch;
use super::dropout::Masks;
use super::evaluate::{Seen, evaluate};
use super::forward::{Forward, Perturbation};
use super::losses::{Head, add_pull, cross_entropy, maximal_margin, noise_stability};
use super::optimizer::{Moments, Rule, Step, clip_factor, squared_norm, update};
use super::prepared::{Encoder, Prepared};
use super::relearn::MaskedTokens;
use super::schedule;
use super::weights::{Mixout, Place, Weights};
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
    masked: Option<MaskedTokens>,
    head: (usize, Option<usize>),
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
            masked: None,
            head: (0, None),
            order: None,
        };
        if let Some(surt) = setup.full.surt {
            run.phase = Phase::Relearn;
            run.masked = Some(MaskedTokens::new(setup, surt.mask, &mut run.weights)?);
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
        let layers = setup.encoder.config.layers;
        if let Some(count) = setup.full.reinit {
            for at in 0..self.weights.encoder_len() {
                let part = &self.weights.parts[at];
                let anew = match part.place {
                    Place::Layer(layer) => layer + count >= layers,
                    Place::Pooler => count > 0,
                    Place::Embeddings | Place::Head => false,
                };
                if anew {
                    let (linear, norm) = (part.linear, !part.decays && part.name.ends_with("weight"));
                    let mut value = self.weights.values[at].shallow_clone();
                    let stream =
                        setup.key.stream(Purpose::Reinitialization, setup.seeds.initialization, at as u64);
                    start_anew(&mut value, linear, norm, stream)?;
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

    fn rule(&self) -> Rule {
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
        let batch = self.batch();
        let counted = batch.iter().filter(|place| Some(**place) != self.left_out).count();
        let leaves = self.weights.leaves()?;
        if counted > 0 {
            let parts = self.setup.full.accumulation.max(1) as usize;
            for part in batch.chunks(batch.len().div_ceil(parts).max(1)) {
                let loss = match self.phase {
                    Phase::Relearn => self.relearning_loss(&leaves, part, counted)?,
                    Phase::Tune => self.tuning_loss(&leaves, part, counted)?,
                };
                self.diverged |= !loss.is_finite();
            }
        }
        if !self.diverged {
            self.apply(&leaves)?;
        }
        self.step += 1;
        if self.phase == Phase::Relearn && !self.diverged && self.step >= self.steps() {
            self.begin_tuning()?;
        }
        Ok(())
    }

    /// Adds the gradient of a part of a batch; gives its loss. `counted` examples of the whole batch count.
    fn tuning_loss(&mut self, leaves: &[Tensor], part: &[usize], counted: usize) -> Result<f64, EngineError> {
        let setup = self.setup;
        let examples: Vec<_> = part.iter().filter_map(|place| setup.data.data.train.get(*place)).collect();
        let labels: Vec<i64> = examples.iter().map(|example| i64::from(example.label)).collect();
        let present: Vec<bool> = part.iter().map(|place| Some(*place) != self.left_out).collect();
        let weights: Vec<f32> = present.iter().map(|present| f32::from(u8::from(*present))).collect();
        let weights = Tensor::f_from_slice(&weights)?.f_to_device(setup.device)?;
        let targets = Tensor::f_from_slice(&labels)?.f_to_device(setup.device)?;
        let share = present.iter().filter(|present| **present).count() as f64 / counted as f64;

        // Every part of a batch sees the same mixed weights.
        let mut mixing = setup.full.mixout.filter(|p| *p > 0.0).map(|p| (p, self.masks(Purpose::Mixout, 0)));
        let mixout = mixing.as_mut().map(|(p, masks)| Mixout { origin: &self.origin, p: *p, masks });
        let seen = self.weights.effective(leaves, mixout, setup.full.precision)?;
        let place = part.first().copied().unwrap_or(0);
        let perturbation = setup.full.lnsr.filter(|lnsr| lnsr.lambda > 0.0).map(|lnsr| Perturbation {
            layer: lnsr.layer,
            sigma: lnsr.sigma,
            noise: self.stream(Purpose::LayerNoise, place),
        });
        let head = self.head(leaves);
        let loss_of = |features: &Tensor, noisy: Option<&Tensor>| {
            let cross = cross_entropy(&head.logits(features)?, &targets, &weights)?;
            let heads = match setup.strategy.reduction {
                Reduction::Mean => f64::from(setup.strategy.heads),
                Reduction::Sum => 1.0,
            };
            let mut loss = cross.f_mul_scalar(1.0 / (heads * counted as f64))?;
            if let Some(alpha) = setup.full.mmr.filter(|alpha| *alpha > 0.0)
                && let Some(margin) = maximal_margin(features, &labels, &present, setup.data.data.classes)?
            {
                loss = loss.f_add(&margin.f_mul_scalar(alpha * share)?)?;
            }
            if let (Some(lnsr), Some(noisy)) = (setup.full.lnsr, noisy) {
                let penalty = noise_stability(features, noisy, &weights)?;
                loss = loss.f_add(&penalty.f_mul_scalar(lnsr.lambda / counted as f64)?)?;
            }
            // What is reported is the cross-entropy a head, without the regularisers.
            let reported = f64::try_from(cross.f_detach()?)? / f64::from(setup.strategy.heads);
            Ok((loss, reported))
        };
        let forward = self.forward(place);
        let reported = if setup.full.gradient_checkpointing && perturbation.is_none() {
            forward.backward_by_layers(&seen, &examples, |features| loss_of(features, None))?
        } else {
            let (features, noisy) = forward.features(&seen, &examples, perturbation)?;
            let (loss, reported) = loss_of(&features, noisy.as_ref())?;
            loss.f_backward()?;
            reported
        };
        self.losses.0 += reported;
        self.losses.1 += present.iter().filter(|present| **present).count() as f64;
        Ok(reported)
    }

    fn relearning_loss(
        &mut self,
        leaves: &[Tensor],
        part: &[usize],
        counted: usize,
    ) -> Result<f64, EngineError> {
        let Some(masked) = &self.masked else { return Ok(0.0) };
        masked.backward(self, leaves, part, counted)
    }

    /// Clips the gradient and moves the weights.
    fn apply(&mut self, leaves: &[Tensor]) -> Result<(), EngineError> {
        let setup = self.setup;
        let mut gradients: Vec<Option<Tensor>> = Vec::with_capacity(leaves.len());
        for (leaf, part) in leaves.iter().zip(&self.weights.parts) {
            let gradient = leaf.grad();
            gradients.push((part.trained && gradient.defined()).then_some(gradient));
        }
        if let (Some((lambda, head)), Phase::Tune) = (setup.full.l2_sp, self.phase) {
            for (at, gradient) in gradients.iter_mut().enumerate() {
                let origin = self.origin.get(at);
                let lambda = if origin.is_some() { lambda } else { head };
                if let (Some(gradient), true) = (gradient, lambda > 0.0) {
                    add_pull(gradient, &self.weights.values[at], origin, lambda)?;
                }
            }
        }
        let present: Vec<Tensor> = gradients.iter().flatten().map(Tensor::shallow_clone).collect();
        let norm = libm::sqrt(squared_norm(&present));
        if !norm.is_finite() {
            self.diverged = true;
            return Ok(());
        }
        let clip = setup.full.clip;
        let scale = if clip > 0.0 { clip_factor(norm, clip) } else { 1.0 };
        let peak = match (self.phase, setup.full.surt) {
            (Phase::Relearn, Some(surt)) => surt.learning_rate,
            _ => setup.strategy.learning_rate,
        };
        let total = self.steps();
        let warmup = libm::round(setup.full.warmup * f64::from(total)) as u64;
        let rate = schedule::rate(setup.full.schedule, peak, u64::from(self.step), warmup, u64::from(total));
        let rule = self.rule();
        let mut free = match (setup.full.child_tuning, self.phase) {
            (Some((ChildMode::Free, share)), Phase::Tune) if share < 1.0 => {
                Some((share, self.masks(Purpose::ChildTuning, 0)))
            }
            _ => None,
        };
        for (at, gradient) in gradients.iter().enumerate() {
            let (Some(gradient), Some(Some(moments))) = (gradient, self.moments.get_mut(at)) else {
                continue;
            };
            let part = &self.weights.parts[at];
            let drawn = match &mut free {
                Some((share, masks)) if matches!(part.place, Place::Layer(_)) => {
                    Some(masks.f_mask(&gradient.size(), 1.0 - *share)?.f_to_device(setup.device)?)
                }
                _ => None,
            };
            let mask = drawn.as_ref().or_else(|| self.child.get(at).and_then(Option::as_ref));
            let step = Step {
                learning_rate: rate * part.rate,
                weight_decay: if part.decays { setup.strategy.weight_decay } else { 0.0 },
                gradient_scale: scale,
                number: u64::from(self.step) + 1,
            };
            update(&rule, &step, &mut self.weights.values[at], gradient, moments, mask)?;
        }
        Ok(())
    }

    /// Child-Tuning_D (Xu et al. 2021, eq. 6–8): 1 for the share of the layers' weights with the greatest squared
    /// gradients, summed over the batches of an epoch, 0 for the others.
    fn fisher_masks(&mut self, share: f64) -> Result<Vec<Option<Tensor>>, EngineError> {
        let in_layer = |part: &super::weights::Part| matches!(part.place, Place::Layer(_)) && part.trained;
        let mut sums: BTreeMap<usize, Tensor> = BTreeMap::new();
        let size = self.setup.full.batch_size as usize;
        let kept = self.setup.kept.clone();
        for batch in kept.chunks(size.max(1)) {
            let counted = batch.iter().filter(|place| Some(**place) != self.left_out).count();
            if counted == 0 {
                continue;
            }
            let leaves = self.weights.leaves()?;
            let parts = self.setup.full.accumulation.max(1) as usize;
            for part in batch.chunks(batch.len().div_ceil(parts).max(1)) {
                self.tuning_loss(&leaves, part, counted)?;
            }
            for (at, leaf) in leaves.iter().enumerate() {
                let gradient = leaf.grad();
                if in_layer(&self.weights.parts[at]) && gradient.defined() {
                    let square = gradient.f_mul(&gradient)?;
                    match sums.get_mut(&at) {
                        Some(sum) => *sum = sum.f_add(&square)?,
                        None => {
                            sums.insert(at, square);
                        }
                    }
                }
            }
        }
        self.losses = (0.0, 0.0);
        let all: Vec<Tensor> = sums.values().map(|sum| sum.f_flatten(0, -1)).collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let all = Tensor::f_cat(&all, 0)?;
        let count = all.numel() as i64;
        // The place of the threshold in rising order.
        let rank = (count - libm::round(share * count as f64) as i64).clamp(1, count);
        let (threshold, _) = all.f_kthvalue(rank, 0, false)?;
        let mut masks: Vec<Option<Tensor>> = (0..self.weights.values.len()).map(|_| None).collect();
        for (at, sum) in &sums {
            let kept = if share >= 1.0 {
                sum.f_ones_like()?
            } else {
                sum.f_gt_tensor(&threshold)?.f_to_kind(Kind::Float)?
            };
            masks[*at] = Some(kept);
        }
        Ok(masks)
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

/// H classifiers, weights [H·C, d] and biases [H·C], each with initial weights that depend on the dataset, the seed and its
/// number alone: strategies and refits share them (common random numbers).
fn fresh_heads(setup: &Setup<'_>) -> Result<(Tensor, Option<Tensor>), tch::TchError> {
    let (heads, d) = (setup.strategy.heads, setup.encoder.config.hidden);
    let classes = setup.data.data.classes as i64;
    let mut weights: Vec<f32> = Vec::new();
    for head in 0..heads {
        let mut stream =
            setup.key.stream(Purpose::HeadInitialization, setup.seeds.initialization, u64::from(head));
        weights.extend((0..classes * d).map(|_| (setup.strategy.init_std * stream.normal()) as f32));
    }
    let rows = i64::from(heads) * classes;
    let weight = Tensor::f_from_slice(&weights)?.f_view([rows, d])?.f_to_device(setup.device)?;
    let bias = match setup.strategy.bias {
        true => Some(Tensor::f_zeros([rows], (Kind::Float, setup.device))?),
        false => None,
    };
    Ok((weight, bias))
}

/// Draws a tensor anew: N(0, 0.02²) for the weights of linear layers, 1 for those of layer norms, 0 for biases (the
/// initialisation of BERT, Devlin et al. 2019).
fn start_anew(value: &mut Tensor, linear: bool, norm: bool, mut stream: Stream) -> Result<(), tch::TchError> {
    let fresh: Vec<f32> = match (linear, norm) {
        (true, _) => (0..value.numel()).map(|_| (0.02 * stream.normal()) as f32).collect(),
        (false, true) => vec![1.0; value.numel()],
        (false, false) => vec![0.0; value.numel()],
    };
    value.f_copy_(&Tensor::f_from_slice(&fresh)?.f_view(&value.size()[..])?)
}
