//! The element-wise part of a training step on the CPU: residuals and optimiser updates, in f32.
//!
//! Each kernel is compiled for AVX-512, for AVX2 with FMA, and for the baseline, and chosen when the process starts. No
//! kernel sums over elements, and vector bodies and remainders round alike, so the bits of an element do not depend on its
//! position or on its neighbours. They may differ between CPU families (with and without fused multiply-add).

use std::sync::LazyLock;

/// Which instructions the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// AVX-512.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// What every CPU of the architecture has.
    Baseline,
}

static INSTRUCTIONS: LazyLock<Instructions> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if fma
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
        {
            return Instructions::Avx512;
        }
        if fma {
            return Instructions::Avx2;
        }
    }
    Instructions::Baseline
});

/// The instructions that the kernels of this process use.
#[must_use]
pub fn instructions() -> Instructions {
    *INSTRUCTIONS
}

/// Declares a kernel: one body, three compilations, chosen by [`instructions`].
macro_rules! kernel {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident => $body:ident ( $($arg:ident : $type:ty),* $(,)? )) => {
        $(#[$meta])*
        $visibility fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
                fn avx512($($arg: $type),*) {
                    $body::<true>($($arg),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) {
                    $body::<true>($($arg),*);
                }
                match $crate::engine::kernel::instructions() {
                    // SAFETY: chosen only when the CPU has these instructions.
                    $crate::engine::kernel::Instructions::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::engine::kernel::Instructions::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::engine::kernel::Instructions::Baseline => {}
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*);
        }
    };
}

pub(crate) use kernel;

/// a·b + c, fused where the CPU can: `f32::mul_add` without such an instruction calls a slow function.
#[inline(always)]
pub(crate) fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// e^x for x clamped to [−86, 86]; relative error below 2e-7. Range reduction by Cody & Waite, polynomial from Cephes
/// (Moshier). A NaN becomes a number: divergence is found in the weights.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    // 1.5·2^23: adding it rounds to a whole number, which then sits in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > -86.0 { x } else { -86.0 };
    let x = if x < 86.0 { x } else { 86.0 };
    let shifted = fma::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FUSED>(n, -LN2_HIGH, x);
    let r = fma::<FUSED>(n, -LN2_LOW, r);
    let mut p = 1.987_569_1e-4;
    p = fma::<FUSED>(p, r, 1.398_199_9e-3);
    p = fma::<FUSED>(p, r, 8.333_452e-3);
    p = fma::<FUSED>(p, r, 4.166_579_6e-2);
    p = fma::<FUSED>(p, r, 0.166_666_65);
    p = fma::<FUSED>(p, r, 0.5);
    let p = fma::<FUSED>(p, r * r, r) + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

kernel! {
    /// Residuals of the logistic loss, in place: z ← factor·s/(1 + e^{s·z}), with s = ±1 the class of each sample; with
    /// factor = −1 that is the derivative of ln(1 + e^{−s·z}) in z. Written with s·z, so that a small residual keeps its
    /// relative accuracy. One row of logits.
    pub fn logistic => logistic_body(z: &mut [f32], signs: &[f32], factor: f32)
}

#[inline(always)]
fn logistic_body<const FUSED: bool>(z: &mut [f32], signs: &[f32], factor: f32) {
    lanes(z, signs, signs, |z, s, _| factor * s / (1.0 + exp::<FUSED>(s * z)));
}

/// Elements that [`lanes`] takes at once: one register of AVX-512.
const LANES: usize = 16;

/// z ← f(z, a, b), element by element. The rest that does not fill a register is computed with the elements before it, from
/// what they were: a scalar loop over it would cost as much as a third of a short row.
#[inline(always)]
fn lanes(z: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) {
    let n = z.len().min(a.len()).min(b.len());
    let (z, a, b) = (&mut z[..n], &a[..n], &b[..n]);
    let register = |z: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]| {
        for k in 0..LANES {
            z[k] = f(z[k], a[k], b[k]);
        }
    };
    let (Some(last), Some(last_a), Some(last_b)) = (z.last_chunk(), a.last_chunk(), b.last_chunk()) else {
        // Shorter than a register.
        for ((z, a), b) in z.iter_mut().zip(a).zip(b) {
            *z = f(*z, *a, *b);
        }
        return;
    };
    let mut last: [f32; LANES] = *last;
    register(&mut last, last_a, last_b);
    let (full, _) = z.as_chunks_mut::<LANES>();
    for ((z, a), b) in full.iter_mut().zip(a.as_chunks().0).zip(b.as_chunks().0) {
        register(z, a, b);
    }
    if let Some(end) = z.last_chunk_mut() {
        *end = last;
    }
}

kernel! {
    /// As [`logistic`], for the logits z + scale·start.
    pub fn logistic_from => logistic_from_body(z: &mut [f32], signs: &[f32], factor: f32, start: &[f32], scale: f32)
}

#[inline(always)]
fn logistic_from_body<const FUSED: bool>(
    z: &mut [f32],
    signs: &[f32],
    factor: f32,
    start: &[f32],
    scale: f32,
) {
    lanes(z, signs, start, |z, s, start| {
        let logit = fma::<FUSED>(scale, start, z);
        factor * s / (1.0 + exp::<FUSED>(s * logit))
    });
}

/// Samples that the softmax kernel takes at once.
const CHUNK: usize = 64;

kernel! {
    /// Residuals of the softmax loss, in place: z_c ← −factor·(p_c − [c = y]), for logits [C, n] of one head and the classes
    /// one-hot, [C, n]. The residual of the true class is minus the sum of the others', which keeps its relative accuracy.
    pub fn softmax => softmax_body(z: &mut [f32], one_hot: &[f32], n: usize, factor: f32)
}

#[inline(always)]
fn softmax_body<const FUSED: bool>(z: &mut [f32], one_hot: &[f32], n: usize, factor: f32) {
    let classes = z.len() / n.max(1);
    for from in (0..n).step_by(CHUNK) {
        let len = CHUNK.min(n - from);
        let mut most = [f32::NEG_INFINITY; CHUNK];
        for c in 0..classes {
            for (most, z) in most[..len].iter_mut().zip(&z[c * n + from..][..len]) {
                *most = if *z > *most { *z } else { *most };
            }
        }
        let (mut own, mut others) = ([0.0f32; CHUNK], [0.0f32; CHUNK]);
        for c in 0..classes {
            let (z, hot) = (&mut z[c * n + from..][..len], &one_hot[c * n + from..][..len]);
            for k in 0..len {
                let e = exp::<FUSED>(z[k] - most[k]);
                z[k] = e;
                own[k] = fma::<FUSED>(hot[k], e, own[k]);
                others[k] = fma::<FUSED>(1.0 - hot[k], e, others[k]);
            }
        }
        let mut scale = [0.0f32; CHUNK];
        for k in 0..len {
            scale[k] = factor / (own[k] + others[k]);
        }
        for c in 0..classes {
            let (z, hot) = (&mut z[c * n + from..][..len], &one_hot[c * n + from..][..len]);
            for k in 0..len {
                let residual = hot[k] * others[k] - (1.0 - hot[k]) * z[k];
                z[k] = residual * scale[k];
            }
        }
    }
}

kernel! {
    /// z ← z + scale·start.
    pub fn add_scaled => add_scaled_body(z: &mut [f32], start: &[f32], scale: f32)
}

#[inline(always)]
fn add_scaled_body<const FUSED: bool>(z: &mut [f32], start: &[f32], scale: f32) {
    for (z, start) in z.iter_mut().zip(start) {
        *z = fma::<FUSED>(scale, *start, *z);
    }
}

kernel! {
    /// Gradient descent: w ← keep·w + g, where g is −η times the gradient and keep is 1 − ηλ.
    pub fn descend => descend_body(w: &mut [f32], g: &[f32], keep: f32)
}

#[inline(always)]
fn descend_body<const FUSED: bool>(w: &mut [f32], g: &[f32], keep: f32) {
    for (w, g) in w.iter_mut().zip(g) {
        *w = fma::<FUSED>(keep, *w, *g);
    }
}

kernel! {
    /// Momentum in PyTorch's form: v ← μv + λw + g, then w ← w − ηv.
    pub fn momentum => momentum_body(w: &mut [f32], v: &mut [f32], g: &[f32], mu: f32, lambda: f32, eta: f32)
}

#[inline(always)]
fn momentum_body<const FUSED: bool>(w: &mut [f32], v: &mut [f32], g: &[f32], mu: f32, lambda: f32, eta: f32) {
    for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
        *v = fma::<FUSED>(mu, *v, fma::<FUSED>(lambda, *w, *g));
        *w = fma::<FUSED>(-eta, *v, *w);
    }
}

/// First and second decay rate and ε of Adam (Kingma & Ba 2015).
pub const ADAM: (f32, f32, f32) = (0.9, 0.999, 1e-8);

kernel! {
    /// Adam: m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← w − step·m/(√v/root + ε), with g the gradient plus λw,
    /// step = η/(1 − β₁ᵗ) and root = √(1 − β₂ᵗ): the bias correction of Kingma & Ba 2015 in PyTorch's order.
    pub fn adam => adam_body(
        w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], lambda: f32, step: f32, root: f32,
    )
}

#[inline(always)]
fn adam_body<const FUSED: bool>(
    w: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    g: &[f32],
    lambda: f32,
    step: f32,
    root: f32,
) {
    let (beta1, beta2, epsilon) = ADAM;
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        let g = fma::<FUSED>(lambda, *w, *g);
        *m = fma::<FUSED>(beta1, *m, (1.0 - beta1) * g);
        *v = fma::<FUSED>(beta2, *v, (1.0 - beta2) * (g * g));
        *w -= step * *m / (v.sqrt() / root + epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logistic_residuals_are_accurate_to_a_few_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -8000..8000 {
            let logit = i as f32 * 0.01;
            for sign in [-1.0f32, 1.0] {
                let mut z = [logit];
                logistic(&mut z, &[sign], -0.25);
                let exact = -0.25 * f64::from(sign) / (1.0 + f64::from(sign * logit).exp());
                worst = worst.max(((f64::from(z[0]) - exact) / exact).abs());
            }
        }
        assert!(worst < 5e-7, "{worst}");
    }

    #[test]
    fn softmax_of_two_classes_is_the_logistic_function() {
        let n = 131;
        let logits: Vec<f32> = (0..2 * n).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.1).collect();
        let hot: Vec<f32> = (0..2 * n).map(|i| f32::from((i % n % 2 == 0) == (i < n))).collect();
        let mut z = logits.clone();
        softmax(&mut z, &hot, n, -1.0);
        for j in 0..n {
            let difference = f64::from(logits[n + j]) - f64::from(logits[j]);
            let p = 1.0 / (1.0 + (-difference).exp());
            assert!((f64::from(z[n + j]) - (p - f64::from(hot[n + j]))).abs() < 1e-6);
            assert!((f64::from(z[j]) + f64::from(z[n + j])).abs() < 1e-6);
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_position() {
        let z: Vec<f32> = (0..77).map(|i| (i as f32 - 38.0) * 0.37).collect();
        let signs: Vec<f32> = (0..77).map(|i| if i % 3 == 0 { 1.0 } else { -1.0 }).collect();
        let mut all = z.clone();
        logistic(&mut all, &signs, 0.01);
        for i in 0..77 {
            let mut one = [z[i]];
            logistic(&mut one, &signs[i..=i], 0.01);
            assert_eq!(one[0].to_bits(), all[i].to_bits());
        }
    }
}
