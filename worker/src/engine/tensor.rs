//! Training a block of heads by tensor operations alone: for devices whose memory Rust does not reach.

use evenkeel_common::spec::Optimizer;
use tch::{Kind, Tensor};

use super::block::{Block, Inputs, LEAST, Snapshot};
use super::{EngineError, kernel};

/// As [`super::cpu::train`], on `device` and always in primal or Gram form as the block says.
///
/// Kernels are queued; the device is only waited for at snapshots and every [`QUEUED_STEPS`] steps.
///
/// # Errors
/// When memory runs out, the device fails, or `tick` says to stop.
pub fn train(
    device: tch::Device,
    inputs: &Inputs,
    block: &Block,
    tick: &mut dyn FnMut() -> Result<(), EngineError>,
    emit: &mut dyn FnMut(Snapshot<'_>),
) -> Result<(), EngineError> {
    let mut state = State::new(device, inputs, block)?;
    let mut snapshots = block.snapshots.iter().copied().peekable();
    for step in 0..=block.steps {
        if snapshots.next_if_eq(&step).is_some() {
            let weights = state.weights()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
            let mut values = vec![0.0f32; block.rows() * inputs.width];
            let count = values.len();
            weights.f_copy_data(&mut values, count)?;
            emit(Snapshot { step, weights: &values });
        }
        if step < block.steps {
            state.step(step + 1)?;
            if step % QUEUED_STEPS == QUEUED_STEPS - 1 {
                // Reading one number waits for the queue, so that progress and cancellation keep pace with the device.
                state.moving.f_narrow(0, 0, 1)?.f_narrow(1, 0, 1)?.f_double_value(&[0, 0])?;
            }
            tick()?;
        }
    }
    Ok(())
}

/// Steps queued before the device is waited for.
const QUEUED_STEPS: u32 = 64;

struct State<'a> {
    block: &'a Block,
    rows: i64,
    n: i64,
    x: Tensor,
    by: Tensor,
    /// ±1 [1, n], or one-hot [1, C, n].
    targets: Tensor,
    /// Weight of each sample's residual, zero for those left out [rows, n].
    factors: Tensor,
    eta: Tensor,
    mu: Tensor,
    /// λ, zero for the bias [rows, width or 1].
    lambda: Tensor,
    moving: Tensor,
    first: Option<Tensor>,
    second: Option<Tensor>,
    gram: Option<(Tensor, Tensor, Tensor, Tensor)>,
}

impl<'a> State<'a> {
    fn new(device: tch::Device, inputs: &Inputs, block: &'a Block) -> Result<Self, EngineError> {
        let classes = block.classes_rows;
        let rows = block.rows().max(LEAST.div_ceil(classes) * classes);
        let (n, width) = (inputs.n, inputs.width);
        let send = |values: &[f32], shape: &[i64]| -> Result<Tensor, EngineError> {
            Ok(Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device)?)
        };
        let (rows_i, n_i, width_i) = (rows as i64, n as i64, width as i64);
        let column = |of: &dyn Fn(&super::block::HeadParameters) -> f64| {
            let mut values = vec![0.0f32; rows];
            for (row, value) in values[..block.rows()].iter_mut().enumerate() {
                *value = of(&block.heads[row / classes]) as f32;
            }
            values
        };
        let sign = if block.optimizer == Optimizer::Gd { 1.0 } else { -1.0 };
        let factor = column(&|head| sign * head.scale * if sign > 0.0 { head.eta } else { 1.0 });
        let mut factors: Vec<f32> =
            factor.iter().flat_map(|factor| std::iter::repeat_n(*factor, n)).collect();
        for at in &block.omitted {
            factors[*at] = 0.0;
        }
        let decay = column(&|head| head.lambda);
        let lambda = if block.gram || width == inputs.d {
            send(&decay, &[rows_i, 1])?
        } else {
            let each = |lambda: &f32| {
                let lambda = *lambda;
                (0..width).map(move |j| if j < inputs.d { lambda } else { 0.0 })
            };
            send(&decay.iter().flat_map(each).collect::<Vec<f32>>(), &[rows_i, width_i])?
        };
        let mut initial = block.initial.clone();
        initial.resize(rows * width, 0.0);
        let start = send(&initial, &[rows_i, width_i])?;
        let x = send(inputs.x.values(), &[n_i, width_i])?;
        let options = (Kind::Float, device);
        let (moving, by, gram) = if block.gram {
            let by = x.f_mm(&x.f_tr()?)?;
            let logits = start.f_mm(&x.f_tr()?)?;
            let one = Tensor::f_ones([rows_i, 1], options)?;
            let zero = Tensor::f_zeros([rows_i, 1], options)?;
            (Tensor::f_zeros([rows_i, n_i], options)?, by, Some((start, logits, one, zero)))
        } else {
            (start, x.f_tr()?, None)
        };
        let shape = moving.size();
        let targets_shape = if classes == 1 { [1, n_i, 0] } else { [1, classes as i64, n_i] };
        let moment = |wanted: bool| wanted.then(|| Tensor::f_zeros(shape.as_slice(), options)).transpose();
        Ok(Self {
            block,
            rows: rows_i,
            n: n_i,
            targets: send(&inputs.targets, &targets_shape[..if classes == 1 { 2 } else { 3 }])?,
            factors: send(&factors, &[rows_i, n_i])?,
            eta: send(&column(&|head| head.eta), &[rows_i, 1])?,
            mu: send(&column(&|head| head.mu), &[rows_i, 1])?,
            lambda,
            first: moment(block.optimizer != Optimizer::Gd)?,
            second: moment(block.optimizer == Optimizer::Adam)?,
            moving,
            x,
            by,
            gram,
        })
    }

    fn step(&mut self, t: u32) -> Result<(), EngineError> {
        let mut z = self.moving.f_mm(&self.by)?;
        if let Some((_, logits, a, _)) = &self.gram {
            z = z.f_add(&logits.f_mul(a)?)?;
        }
        let residual = if self.block.classes_rows == 1 {
            let margin = z.f_mul(&self.targets)?.f_neg()?;
            margin.f_sigmoid()?.f_mul(&self.targets)?
        } else {
            let classes = self.block.classes_rows as i64;
            let p = z.f_reshape([self.rows / classes, classes, self.n])?.f_softmax(1, Kind::Float)?;
            self.targets.f_sub(&p)?.f_reshape([self.rows, self.n])?
        };
        let residual = residual.f_mul(&self.factors)?;
        let g = if self.gram.is_some() { residual } else { residual.f_mm(&self.x)? };
        self.update(&g, t)
    }

    fn update(&mut self, g: &Tensor, t: u32) -> Result<(), EngineError> {
        match (self.block.optimizer, &mut self.first, &mut self.second) {
            (Optimizer::Momentum, Some(v), _) => {
                let _ = v.f_mul_(&self.mu)?.f_add_(&self.moving.f_mul(&self.lambda)?)?.f_add_(g)?;
                let _ = self.moving.f_sub_(&v.f_mul(&self.eta)?)?;
                if let Some((_, _, a, velocity)) = &mut self.gram {
                    let _ = velocity.f_mul_(&self.mu)?.f_add_(&a.f_mul(&self.lambda)?)?;
                    let _ = a.f_sub_(&velocity.f_mul(&self.eta)?)?;
                }
            }
            (Optimizer::Adam, Some(m), Some(v)) => {
                let (beta1, beta2, epsilon) = kernel::ADAM;
                let (beta1, beta2) = (f64::from(beta1), f64::from(beta2));
                let g = g.f_add(&self.moving.f_mul(&self.lambda)?)?;
                let _ = m.f_mul_scalar_(beta1)?.f_add_(&g.f_mul_scalar(1.0 - beta1)?)?;
                let _ = v.f_mul_scalar_(beta2)?.f_add_(&g.f_square()?.f_mul_scalar(1.0 - beta2)?)?;
                let corrected = 1.0 - libm::pow(beta1, f64::from(t));
                let root = libm::sqrt(1.0 - libm::pow(beta2, f64::from(t)));
                let scale = v.f_sqrt()?.f_div_scalar(root)?.f_add_scalar(f64::from(epsilon))?;
                let step = m.f_mul(&self.eta)?.f_div_scalar(corrected)?.f_div(&scale)?;
                let _ = self.moving.f_sub_(&step)?;
            }
            _ => {
                let decay = self.eta.f_mul(&self.lambda)?;
                let keep = decay.f_neg()?.f_add_scalar(1.0)?;
                let _ = self.moving.f_mul_(&keep)?.f_add_(g)?;
                if let Some((_, _, a, _)) = &mut self.gram {
                    let _ = a.f_mul_(&keep)?;
                }
            }
        }
        Ok(())
    }

    fn weights(&self) -> Result<Tensor, EngineError> {
        let all = match &self.gram {
            Some((start, _, a, _)) => self.moving.f_mm(&self.x)?.f_add(&start.f_mul(a)?)?,
            None => self.moving.f_mul_scalar(1.0)?,
        };
        Ok(all.f_narrow(0, 0, self.block.rows() as i64)?)
    }
}
