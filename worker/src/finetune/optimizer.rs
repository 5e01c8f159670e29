//! Optimisers of full fine-tuning: one step on one parameter.
//!
//! On the CPU a step is one pass over the memory: each weight, gradient and moment is read once and written once, where
//! libtorch's operations on tensors would go over it eight times and more. The pass is compiled for AVX-512, for AVX2 with
//! FMA, and for the baseline, as the kernels of [`crate::engine::kernel`] are, and like theirs the bits of an element do
//! not depend on its position, its neighbours or the thread. Elsewhere (another device, another kind, memory that is not
//! contiguous) libtorch's operations do the same.
//!
//! Tensors of tch share memory when they are shallow clones, which Rust's borrows do not see: no other thread may touch
//! the tensors of a step while it runs.

use tch::{Device, Kind, TchError, Tensor};

use crate::engine::kernel::{fma, kernel};

/// What a step does with a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019) and bias correction, as `torch.optim.AdamW`:
    /// w ← w − ηλw; m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; w ← w − η/(1 − β₁ᵗ) · m/(√v/√(1 − β₂ᵗ) + ε).
    AdamW {
        /// Decay rate β₁ of the first moment.
        beta1: f64,
        /// Decay rate β₂ of the second moment.
        beta2: f64,
        /// What is added to the denominator, ε.
        epsilon: f64,
    },
    /// Gradient descent with momentum (without Nesterov's, without dampening), as `torch.optim.SGD`:
    /// m ← μm + (g + λw); w ← w − ηm. With μ = 0 no m is kept.
    Sgd {
        /// Momentum μ.
        momentum: f64,
    },
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Learning rate η of this step.
    pub learning_rate: f64,
    /// Weight decay λ of this parameter.
    pub weight_decay: f64,
    /// The gradient is multiplied by this before anything else: clipping, 1/accumulated batches.
    pub gradient_scale: f64,
    /// Number t of the step, counted from 1, for the bias correction.
    pub number: u64,
}

/// What a rule remembers of one parameter from step to step.
#[derive(Debug)]
pub struct Moments {
    /// First moment of AdamW, momentum of SGD; absent for SGD without momentum.
    pub m: Option<Tensor>,
    /// Second moment of AdamW; absent for SGD.
    pub v: Option<Tensor>,
}

impl Moments {
    /// Zeros, shaped like the parameter and on its device. SGD's first momentum is then the first gradient, as PyTorch's.
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn zeros(rule: &Rule, weights: &Tensor) -> Result<Self, TchError> {
        let zeros = || tch::no_grad(|| weights.f_zeros_like());
        Ok(match *rule {
            Rule::AdamW { .. } => Self { m: Some(zeros()?), v: Some(zeros()?) },
            Rule::Sgd { momentum } => {
                Self { m: if momentum == 0.0 { None } else { Some(zeros()?) }, v: None }
            }
        })
    }
}

/// One step on one parameter. With `mask` (child-tuning, Xu et al. 2021) the gradient is multiplied by it element by
/// element; what the mask freezes still decays, and moves on with its moments, if those are not zero.
///
/// # Errors
/// When shapes differ, the gradient is undefined or the moments are another rule's, and when libtorch fails.
pub fn update(
    rule: &Rule,
    step: &Step,
    weights: &mut Tensor,
    gradient: &Tensor,
    moments: &mut Moments,
    mask: Option<&Tensor>,
) -> Result<(), TchError> {
    check_moments(rule, weights, moments)?;
    for (what, tensor) in [("gradient", Some(gradient)), ("mask", mask)] {
        if let Some(tensor) = tensor {
            check_shape(what, tensor, &weights.size())?;
        }
    }
    let formula = Formula::new(rule, step);
    if let Some(memory) = Memory::of(weights, gradient, moments, mask) {
        // SAFETY: `Memory::of` gives non-null, aligned, contiguous f32 memory of that many initialised elements, where what
        // is written overlaps nothing else; the tensors keep it alive and the caller touches them from no other thread.
        unsafe { memory.update(&formula) };
        return Ok(());
    }
    tch::no_grad(|| formula.update_tensors(weights, gradient, moments, mask))
}

/// Sum of the squares of all elements, for the norm of a gradient. Not finite as soon as an element is NaN or infinite.
///
/// # Panics
/// When libtorch fails, which it does not for f32 tensors on the CPU; [`f_squared_norm`] returns that.
#[must_use]
pub fn squared_norm(tensors: &[Tensor]) -> f64 {
    f_squared_norm(tensors).expect("libtorch can take a norm")
}

/// As [`squared_norm`]. On the CPU squares of f32 are exact in f64 and are summed in an order that depends on the shapes
/// alone: the bits are the same with any instructions and on any thread.
///
/// # Errors
/// When libtorch fails.
pub fn f_squared_norm(tensors: &[Tensor]) -> Result<f64, TchError> {
    let mut sum = 0.0;
    // Partial sums stay on their device, and are waited for once.
    let mut elsewhere: Option<Tensor> = None;
    for tensor in tensors {
        if let Some((start, elements)) = cpu_memory(tensor) {
            let mut part = 0.0;
            // SAFETY: as in `update`, only read.
            squared_norm_kernel(unsafe { std::slice::from_raw_parts(start, elements) }, &mut part);
            sum += part;
        } else if tensor.numel() > 0 {
            let norm = tch::no_grad(|| {
                tensor.f_reshape([-1])?.f_linalg_norm(2.0, [0].as_slice(), false, Kind::Double)?.f_square()
            })?;
            elsewhere = Some(match elsewhere {
                Some(others) => others.f_add(&norm.f_to_device(others.device())?)?,
                None => norm,
            });
        }
    }
    if let Some(elsewhere) = elsewhere {
        sum += f64::try_from(elsewhere)?;
    }
    Ok(sum)
}

/// What a gradient of this norm is multiplied by so that its norm is at most `max_norm`: min(1, max_norm/(norm + 1e-6)),
/// as `torch.nn.utils.clip_grad_norm_`. NaN for a norm that is NaN.
#[must_use]
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    // Not `min`, which would make 1 of NaN.
    if factor > 1.0 { 1.0 } else { factor }
}

fn check_shape(what: &str, tensor: &Tensor, expected: &[i64]) -> Result<(), TchError> {
    if !tensor.defined() {
        return Err(TchError::Shape(format!("the {what} is undefined")));
    }
    if tensor.size() != expected {
        return Err(TchError::Shape(format!("the {what} is {:?}, not {expected:?}", tensor.size())));
    }
    Ok(())
}

fn check_moments(rule: &Rule, weights: &Tensor, moments: &Moments) -> Result<(), TchError> {
    let (needs_m, needs_v) = match *rule {
        Rule::AdamW { .. } => (true, true),
        Rule::Sgd { momentum } => (momentum != 0.0, false),
    };
    for (what, moment, needed) in
        [("first moment", &moments.m, needs_m), ("second moment", &moments.v, needs_v)]
    {
        match moment {
            Some(moment) if needed => check_shape(what, moment, &weights.size())?,
            None if !needed => {}
            _ => return Err(TchError::Shape(format!("the {what} is another rule's"))),
        }
    }
    Ok(())
}

/// Start and length of a tensor that the kernels can work on.
fn cpu_memory(tensor: &Tensor) -> Option<(*mut f32, usize)> {
    if tensor.device() != Device::Cpu || tensor.kind() != Kind::Float || tensor.is_sparse() {
        return None;
    }
    let (start, elements) = (tensor.data_ptr().cast::<f32>(), tensor.numel());
    (tensor.is_contiguous() && elements > 0 && !start.is_null()).then_some((start, elements))
}

/// The memory of one parameter and of what updates it.
struct Memory {
    elements: usize,
    weights: *mut f32,
    gradient: *const f32,
    m: Option<*mut f32>,
    v: Option<*mut f32>,
    mask: Option<*const f32>,
}

impl Memory {
    /// None when one of the tensors is not contiguous f32 memory on the CPU, or when one that is written shares memory
    /// with another.
    fn of(weights: &Tensor, gradient: &Tensor, moments: &Moments, mask: Option<&Tensor>) -> Option<Self> {
        let written = [Some(weights), moments.m.as_ref(), moments.v.as_ref()];
        let read = [Some(gradient), mask];
        let mut areas = [None; 5];
        for (area, tensor) in areas.iter_mut().zip(written.into_iter().chain(read)) {
            if let Some(tensor) = tensor {
                *area = Some(cpu_memory(tensor)?);
            }
        }
        for (i, a) in areas[..written.len()].iter().enumerate() {
            for b in &areas[i + 1..] {
                if let (Some((a, a_elements)), Some((b, b_elements))) = (a, b)
                    && *a < b.wrapping_add(*b_elements)
                    && *b < a.wrapping_add(*a_elements)
                {
                    return None;
                }
            }
        }
        let start = |i: usize| areas[i].map(|(start, _)| start);
        Some(Self {
            elements: weights.numel(),
            weights: start(0)?,
            m: start(1),
            v: start(2),
            gradient: start(3)?,
            mask: start(4).map(<*mut f32>::cast_const),
        })
    }

    /// Updates the weights.
    ///
    /// # Safety
    /// The memory must be alive, and nothing else may access it meanwhile.
    unsafe fn update(&self, formula: &Formula) {
        // SAFETY: as the caller says; the areas are apart from each other, so that no two slices overlap of which one is
        // written.
        let (w, m, v, g, mask) = unsafe {
            let slice = |start: *mut f32| std::slice::from_raw_parts_mut(start, self.elements);
            (
                slice(self.weights),
                self.m.map(slice),
                self.v.map(slice),
                std::slice::from_raw_parts(self.gradient, self.elements),
                self.mask.map(|mask| std::slice::from_raw_parts(mask, self.elements)),
            )
        };
        match (formula, m, v) {
            (Formula::AdamW(numbers), Some(m), Some(v)) => adamw_kernel(w, m, v, g, mask, numbers),
            (Formula::Sgd(numbers), Some(m), _) => momentum_kernel(w, m, g, mask, numbers),
            (Formula::Sgd(numbers), None, _) => descend_kernel(w, g, mask, numbers),
            (Formula::AdamW(_), ..) => unreachable!("check_moments saw both moments"),
        }
    }
}

/// A rule with the numbers of a step.
enum Formula {
    AdamW(AdamW),
    Sgd(Sgd),
}

/// In f64: on the CPU they are rounded to f32 as they are used, as libtorch rounds them.
#[derive(Clone, Copy)]
struct AdamW {
    scale: f64,
    /// ηλ. Not 1 − ηλ, whose rounding to f32 would be a decay of its own: 3e-8 a step, always to one side.
    decay: f64,
    /// 1 − β₁.
    first: f64,
    beta2: f64,
    /// η/(1 − β₁ᵗ).
    size: f64,
    /// 1/√(1 − β₂ᵗ).
    root: f64,
    epsilon: f64,
}

#[derive(Clone, Copy)]
struct Sgd {
    scale: f64,
    decay: f64,
    momentum: f64,
    rate: f64,
}

impl Formula {
    fn new(rule: &Rule, step: &Step) -> Self {
        let scale = step.gradient_scale;
        match *rule {
            Rule::AdamW { beta1, beta2, epsilon } => {
                let t = step.number as f64;
                Self::AdamW(AdamW {
                    scale,
                    decay: step.learning_rate * step.weight_decay,
                    first: 1.0 - beta1,
                    beta2,
                    size: step.learning_rate / (1.0 - libm::pow(beta1, t)),
                    root: 1.0 / (1.0 - libm::pow(beta2, t)).sqrt(),
                    epsilon,
                })
            }
            Rule::Sgd { momentum } => {
                Self::Sgd(Sgd { scale, decay: step.weight_decay, momentum, rate: step.learning_rate })
            }
        }
    }

    /// The step in libtorch's operations, for any device and kind.
    fn update_tensors(
        &self,
        weights: &mut Tensor,
        gradient: &Tensor,
        moments: &mut Moments,
        mask: Option<&Tensor>,
    ) -> Result<(), TchError> {
        let scaled = |scale: f64| {
            let g = gradient.f_mul_scalar(scale)?;
            mask.map_or(Ok(g.shallow_clone()), |mask| g.f_mul(mask))
        };
        match (self, &mut moments.m, &mut moments.v) {
            (Self::AdamW(n), Some(m), Some(v)) => {
                let g = scaled(n.scale)?;
                decay_tensor(weights, n.decay)?;
                let _ = m.f_lerp_(&g, n.first)?;
                let _ = v.f_mul_scalar_(n.beta2)?.f_add_(&g.f_square()?.f_mul_scalar_(1.0 - n.beta2)?)?;
                let mut denominator = v.f_sqrt()?;
                let _ = denominator.f_mul_scalar_(n.root)?.f_add_scalar_(n.epsilon)?;
                let _ = weights.f_sub_(&m.f_div(&denominator)?.f_mul_scalar_(n.size)?)?;
            }
            (Self::Sgd(n), m, _) => {
                let mut g = scaled(n.scale)?;
                if n.decay != 0.0 {
                    g = g.f_add(&weights.f_mul_scalar(n.decay)?)?;
                }
                if let Some(m) = m {
                    let _ = m.f_mul_scalar_(n.momentum)?.f_add_(&g)?;
                    g = m.shallow_clone();
                }
                let _ = weights.f_sub_(&g.f_mul_scalar(n.rate)?)?;
            }
            (Self::AdamW(_), ..) => unreachable!("check_moments saw both moments"),
        }
        Ok(())
    }
}

fn decay_tensor(weights: &mut Tensor, decay: f64) -> Result<(), TchError> {
    if decay != 0.0 {
        let _ = weights.f_sub_(&weights.f_mul_scalar(decay)?)?;
    }
    Ok(())
}

kernel! {
    fn adamw_kernel => adamw_body(
        w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], mask: Option<&[f32]>, numbers: &AdamW,
    )
}

#[inline(always)]
fn adamw_body<const FUSED: bool>(
    w: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    g: &[f32],
    mask: Option<&[f32]>,
    numbers: &AdamW,
) {
    let (scale, decay) = (numbers.scale as f32, numbers.decay as f32);
    let (first, beta2, second) = (numbers.first as f32, numbers.beta2 as f32, (1.0 - numbers.beta2) as f32);
    let (size, root, epsilon) = (numbers.size as f32, numbers.root as f32, numbers.epsilon as f32);
    let one = |w: &mut f32, m: &mut f32, v: &mut f32, g: f32| {
        *m = fma::<FUSED>(first, g - *m, *m);
        *v = fma::<FUSED>(second * g, g, beta2 * *v);
        let ratio = *m / fma::<FUSED>(v.sqrt(), root, epsilon);
        // Rounded between decay and step, as PyTorch does.
        let decayed = fma::<FUSED>(-decay, *w, *w);
        *w = fma::<FUSED>(-size, ratio, decayed);
    };
    let weights = w.iter_mut().zip(m).zip(v).zip(g);
    match mask {
        None => weights.for_each(|(((w, m), v), g)| one(w, m, v, scale * *g)),
        Some(mask) => {
            weights.zip(mask).for_each(|((((w, m), v), g), mask)| one(w, m, v, scale * *g * *mask));
        }
    }
}

kernel! {
    fn momentum_kernel => momentum_body(w: &mut [f32], m: &mut [f32], g: &[f32], mask: Option<&[f32]>, numbers: &Sgd)
}

#[inline(always)]
fn momentum_body<const FUSED: bool>(
    w: &mut [f32],
    m: &mut [f32],
    g: &[f32],
    mask: Option<&[f32]>,
    numbers: &Sgd,
) {
    let (scale, decay) = (numbers.scale as f32, numbers.decay as f32);
    let (momentum, rate) = (numbers.momentum as f32, numbers.rate as f32);
    let one = |w: &mut f32, m: &mut f32, g: f32| {
        *m = fma::<FUSED>(momentum, *m, fma::<FUSED>(decay, *w, g));
        *w = fma::<FUSED>(-rate, *m, *w);
    };
    let weights = w.iter_mut().zip(m).zip(g);
    match mask {
        None => weights.for_each(|((w, m), g)| one(w, m, scale * *g)),
        Some(mask) => weights.zip(mask).for_each(|(((w, m), g), mask)| one(w, m, scale * *g * *mask)),
    }
}

kernel! {
    fn descend_kernel => descend_body(w: &mut [f32], g: &[f32], mask: Option<&[f32]>, numbers: &Sgd)
}

#[inline(always)]
fn descend_body<const FUSED: bool>(w: &mut [f32], g: &[f32], mask: Option<&[f32]>, numbers: &Sgd) {
    let (scale, decay, rate) = (numbers.scale as f32, numbers.decay as f32, numbers.rate as f32);
    let one = |w: &mut f32, g: f32| *w = fma::<FUSED>(-rate, fma::<FUSED>(decay, *w, g), *w);
    let weights = w.iter_mut().zip(g);
    match mask {
        None => weights.for_each(|(w, g)| one(w, scale * *g)),
        Some(mask) => weights.zip(mask).for_each(|((w, g), mask)| one(w, scale * *g * *mask)),
    }
}

/// Partial sums of [`squared_norm_kernel`]: enough that no sum waits for the one before it.
const SUMS: usize = 32;

kernel! {
    fn squared_norm_kernel => squared_norm_body(values: &[f32], sum: &mut f64)
}

/// The square of an f32 is exact in f64, so that fused and other sums round alike: FUSED changes nothing here.
#[inline(always)]
fn squared_norm_body<const FUSED: bool>(values: &[f32], sum: &mut f64) {
    let mut sums = [0.0f64; SUMS];
    let (full, rest) = values.as_chunks::<SUMS>();
    for chunk in full {
        for k in 0..SUMS {
            let value = f64::from(chunk[k]);
            sums[k] += value * value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*value) * f64::from(*value);
    }
    let mut half = SUMS / 2;
    while half > 0 {
        for k in 0..half {
            sums[k] += sums[k + half];
        }
        half /= 2;
    }
    *sum = sums[0];
}
