//! Samples of what there is too much of to keep.

/// A sample of at most some thousand items, chosen by a hash of their number: the same ones in every run, and
/// none of the grid's axes is favoured, as taking every k-th would.
#[derive(Clone, Debug)]
pub struct Thinned<T> {
    pub(super) items: Vec<(u64, T)>,
    most: usize,
    /// An item is kept when so many leading bits of its hash are zero.
    bits: u32,
    pub(super) seen: u64,
}

impl<T> Thinned<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { items: Vec::new(), most, bits: 0, seen: 0 }
    }

    /// Offers the item of a number; it is made only when it is kept.
    pub(super) fn offer(&mut self, number: u64, item: impl FnOnce() -> T) {
        self.seen += 1;
        let hash = mix(number);
        if hash.leading_zeros() < self.bits {
            return;
        }
        self.items.push((hash, item()));
        while self.items.len() > self.most && self.bits < 64 {
            self.bits += 1;
            let bits = self.bits;
            self.items.retain(|(hash, _)| hash.leading_zeros() >= bits);
        }
    }

    /// The items kept.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, item)| item)
    }

    /// The items kept, in an order that depends on their numbers alone.
    pub fn in_order(&self) -> impl Iterator<Item = &T> {
        let mut order: Vec<&(u64, T)> = self.items.iter().collect();
        order.sort_by_key(|(hash, _)| *hash);
        order.into_iter().map(|(_, item)| item)
    }

    /// How many were kept, of how many.
    #[must_use]
    pub fn share(&self) -> (u64, u64) {
        (self.items.len() as u64, self.seen)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood, *Fast splittable pseudorandom number generators*, 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
