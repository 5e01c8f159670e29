//! One step of a run: its loss, and what the optimiser does with the gradient.

use std::collections::BTreeMap;

use evenkeel_common::seed::Purpose;
use evenkeel_common::spec::{ChildMode, Reduction};
use tch::{Kind, Tensor};

use super::forward::Perturbation;
use super::losses::{add_pull, cross_entropy, maximal_margin, noise_stability};
use super::optimizer::{Step, clip_factor, squared_norm, update};
use super::run::{Phase, Run};
use super::schedule;
use super::weights::{Mixout, Place};
use crate::engine::EngineError;

impl Run<'_> {
    /// Adds the gradient of a part of a batch; gives its loss. `counted` examples of the whole batch count.
    pub(super) fn tuning_loss(
        &mut self,
        leaves: &[Tensor],
        part: &[usize],
        counted: usize,
    ) -> Result<f64, EngineError> {
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

    pub(super) fn relearning_loss(
        &mut self,
        leaves: &[Tensor],
        part: &[usize],
        counted: usize,
    ) -> Result<f64, EngineError> {
        let Some(masked) = &self.masked else { return Ok(0.0) };
        masked.backward(self, leaves, part, counted)
    }

    /// Clips the gradient and moves the weights.
    pub(super) fn apply(&mut self, leaves: &[Tensor]) -> Result<(), EngineError> {
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
    pub(super) fn fisher_masks(&mut self, share: f64) -> Result<Vec<Option<Tensor>>, EngineError> {
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
}
