//! Dropout masks that depend on a trial's stream alone: not on the device, the thread or the trials beside it.
//!
//! Decision i of a mask takes 16 bits of Philox4x32-10 (Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*,
//! SC 2011), so one block makes 8 decisions. A counter needs no state from one block to the next, so that blocks are
//! computed side by side in vector registers. There are only integer operations up to the choice between 0 and the
//! scale, so that every CPU makes the same bits.

use tch::{Device, Kind, TchError, Tensor};

use crate::engine::kernel::{Instructions, instructions};

/// Blocks computed at once: two registers of AVX-512 for each word.
const BLOCKS: usize = 16;
/// Decisions of one block: four words of two 16-bit halves.
const DECISIONS: usize = 8;
/// Decisions made at once.
const GROUP: usize = BLOCKS * DECISIONS;

/// The masks of one training step, in the order the layers ask for them.
///
/// The counter of a block is (low and high half of its number, nonce), as in the streams of `evenkeel_common::seed`: give
/// each step of each trial a key and a nonce that no other stream has.
#[derive(Clone, Debug)]
pub struct Masks {
    key: [u32; 2],
    nonce: [u32; 2],
    block: u64,
}

impl Masks {
    /// The masks of this key and nonce, from the first one on.
    #[must_use]
    pub fn new(key: [u32; 2], nonce: [u32; 2]) -> Self {
        Self { key, nonce, block: 0 }
    }

    /// The next mask of inverted dropout (Srivastava et al. 2014, scaled at training time): an f32 tensor on the CPU that
    /// holds 1/q with probability q and 0 otherwise, with q = `kept_share(p)`. The mean is 1 exactly, whatever p.
    ///
    /// # Panics
    /// When there is too little memory or a length is negative; [`Masks::f_mask`] returns these.
    pub fn mask(&mut self, shape: &[i64], p: f64) -> Tensor {
        self.f_mask(shape, p).expect("a dropout mask can be allocated")
    }

    /// As [`Masks::mask`].
    ///
    /// # Errors
    /// When there is too little memory or a length is negative.
    pub fn f_mask(&mut self, shape: &[i64], p: f64) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
        let n = tensor.numel();
        if n > 0 {
            // SAFETY: `f_empty` just made this contiguous f32 memory of n elements on the CPU, aligned and with no other
            // reference to it. `fill` writes every element before anyone reads one, and any bits are an f32.
            self.fill(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), n) }, p);
        }
        Ok(tensor)
    }

    /// The next mask, into memory that is there already: fresh memory of some MiB costs more than the decisions, because
    /// the system clears it first.
    pub fn fill(&mut self, mask: &mut [f32], p: f64) {
        let threshold = threshold(p);
        let scale = if threshold == 0 { 0.0 } else { (1.0 / kept_share(p)) as f32 };
        fill(instructions(), mask, self.key, self.nonce, self.block, threshold, scale);
        self.block += mask.len().div_ceil(DECISIONS) as u64;
    }
}

/// The probability with which an element is really kept for the dropout probability p: 1 − p rounded to a multiple of
/// 2⁻¹⁶, but not down to 0 for p < 1. For p = 0.1 it is 58982/65536 = 0.899994.
#[must_use]
pub fn kept_share(p: f64) -> f64 {
    f64::from(threshold(p)) / 65_536.0
}

/// A decision keeps its element when its 16 bits are below this.
fn threshold(p: f64) -> u32 {
    if p >= 1.0 {
        return 0;
    }
    ((1.0 - p) * 65_536.0).round().clamp(1.0, 65_536.0) as u32
}

/// Fills a mask from a block on, with the given instructions.
fn fill(
    instructions: Instructions,
    mask: &mut [f32],
    key: [u32; 2],
    nonce: [u32; 2],
    block: u64,
    threshold: u32,
    scale: f32,
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
        fn avx512(mask: &mut [f32], key: [u32; 2], nonce: [u32; 2], block: u64, threshold: u32, scale: f32) {
            fill_body(mask, key, nonce, block, threshold, scale);
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(mask: &mut [f32], key: [u32; 2], nonce: [u32; 2], block: u64, threshold: u32, scale: f32) {
            fill_body(mask, key, nonce, block, threshold, scale);
        }
        match instructions {
            // SAFETY: `instructions()` says so only when the CPU has these instructions, and the tests ask for no more.
            Instructions::Avx512 => return unsafe { avx512(mask, key, nonce, block, threshold, scale) },
            // SAFETY: as above.
            Instructions::Avx2 => return unsafe { avx2(mask, key, nonce, block, threshold, scale) },
            Instructions::Baseline => {}
        }
    }
    let _ = instructions;
    fill_body(mask, key, nonce, block, threshold, scale);
}

#[inline(always)]
fn fill_body(mask: &mut [f32], key: [u32; 2], nonce: [u32; 2], mut block: u64, threshold: u32, scale: f32) {
    let (groups, rest) = mask.as_chunks_mut::<GROUP>();
    for group in groups {
        decide(group, key, nonce, block, threshold, scale);
        block += BLOCKS as u64;
    }
    if !rest.is_empty() {
        let mut group = [0.0; GROUP];
        decide(&mut group, key, nonce, block, threshold, scale);
        rest.copy_from_slice(&group[..rest.len()]);
    }
}

/// One group of decisions: [`BLOCKS`] blocks of Philox4x32-10, then their 16-bit parts in order, low half first.
#[inline(always)]
fn decide(group: &mut [f32; GROUP], key: [u32; 2], nonce: [u32; 2], block: u64, threshold: u32, scale: f32) {
    const LOW: u64 = 0xFFFF_FFFF;
    let mut words = [0u64; 2 * BLOCKS];
    for lane in 0..BLOCKS {
        let counter = block + lane as u64;
        // Words sit in the low halves of 64 bits, where products need no shuffling; what is above them is left over from
        // products and never read.
        let mut c = [counter, counter >> 32, u64::from(nonce[0]), u64::from(nonce[1])];
        let mut k = key;
        for _ in 0..10 {
            let a = (c[0] & LOW) * 0xD251_1F53;
            let b = (c[2] & LOW) * 0xCD9E_8D57;
            c = [(b >> 32) ^ c[1] ^ u64::from(k[0]), b, (a >> 32) ^ c[3] ^ u64::from(k[1]), a];
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        words[2 * lane] = (c[0] & LOW) | c[1] << 32;
        words[2 * lane + 1] = (c[2] & LOW) | c[3] << 32;
    }
    // SAFETY: both are plain numbers of the same size in all, and any bits are a u16.
    let parts: [u16; GROUP] = unsafe { std::mem::transmute(words.map(u64::to_le)) };
    for (out, part) in group.iter_mut().zip(parts) {
        *out = if u32::from(u16::from_le(part)) < threshold { scale } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_makes_the_same_bits() {
        let mut able = vec![Instructions::Baseline];
        if instructions() != Instructions::Baseline {
            // A CPU with AVX-512 also has AVX2.
            able.extend([Instructions::Avx2, instructions()]);
        }
        for n in [0, 1, 7, 8, 127, 128, 129, 5000] {
            for block in [0, 3, u64::from(u32::MAX) - 5] {
                for p in [0.0, 0.1, 0.5, 1.0] {
                    let masks = able.iter().map(|&instructions| {
                        let mut mask = vec![f32::NAN; n];
                        let kept = threshold(p);
                        fill(instructions, &mut mask, [7, 8], [9, 10], block, kept, 1.25);
                        mask.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    });
                    let masks: Vec<_> = masks.collect();
                    assert!(masks.iter().all(|mask| *mask == masks[0]), "{n} {block} {p}");
                }
            }
        }
    }

    #[test]
    fn the_share_that_is_kept_is_a_multiple_of_two_to_the_minus_sixteen() {
        assert_eq!(kept_share(0.1), 58_982.0 / 65_536.0);
        assert_eq!(kept_share(0.5), 0.5);
        assert_eq!(kept_share(0.0), 1.0);
        assert_eq!(kept_share(1e-9), 1.0);
        assert_eq!(kept_share(1.0 - 1e-9), 1.0 / 65_536.0);
        assert_eq!(kept_share(1.0), 0.0);
    }
}
