//! The counter-based generator behind every random number.
//!
//! Philox4x32-10 (Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011) keyed by what the
//! numbers are for. A stream depends on its key alone, so that initial weights, splits and synthetic data are
//! the same on any worker, in any pack, at any attempt. Transcendental functions come from `libm`, written in
//! Rust, so that the bits do not depend on the machine's C library.

use crate::id::ContentHash;

/// What a stream of random numbers is for. Streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Structure of a synthetic distribution (directions, centres).
    Structure,
    /// Training samples.
    TrainSamples,
    /// Test samples.
    TestSamples,
    /// Split of a feature file.
    Split,
    /// Initial weights of a head.
    HeadInitialization,
    /// Which samples a seed leaves out.
    DataPerturbation,
    /// Which points are left out one at a time.
    LeaveOneOut,
    /// Order of the examples of an epoch.
    DataOrder,
    /// Dropout masks of a step.
    Dropout,
    /// Which weights fall back to their pre-trained values in a step (mixout).
    Mixout,
    /// Noise on a layer's output in a step (LNSR).
    LayerNoise,
    /// Which gradients are applied in a step (Child-Tuning).
    ChildTuning,
    /// Weights of layers that start anew, low-rank adapters and the masked-token head.
    Reinitialization,
    /// Which tokens or features are to be guessed in a step (SURT, pre-training).
    MaskedTokens,
    /// Validation samples.
    ValidationSamples,
    /// Unlabelled samples that encoders are pre-trained on.
    Corpus,
    /// Where the search for a Hessian's eigenvalues begins.
    Curvature,
}

impl Purpose {
    fn tag(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::TrainSamples => "train_samples",
            Self::TestSamples => "test_samples",
            Self::Split => "split",
            Self::HeadInitialization => "head_initialization",
            Self::DataPerturbation => "data_perturbation",
            Self::LeaveOneOut => "leave_one_out",
            Self::DataOrder => "data_order",
            Self::Dropout => "dropout",
            Self::Mixout => "mixout",
            Self::LayerNoise => "layer_noise",
            Self::ChildTuning => "child_tuning",
            Self::Reinitialization => "reinitialization",
            Self::MaskedTokens => "masked_tokens",
            Self::ValidationSamples => "validation_samples",
            Self::Corpus => "corpus",
            Self::Curvature => "curvature",
        }
    }
}

/// Key of a family of streams: a sweep seed and what is drawn for (a dataset's canonical form).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// Derives the key of a dataset within a sweep.
    #[must_use]
    pub fn of_dataset(sweep_seed: u64, dataset: &str) -> Self {
        let mut bytes = sweep_seed.to_le_bytes().to_vec();
        bytes.extend_from_slice(dataset.as_bytes());
        Self(ContentHash::of(&bytes).0)
    }

    /// The stream for a purpose, a seed and a position (a head, a class…).
    #[must_use]
    pub fn stream(&self, purpose: Purpose, seed: u64, position: u64) -> Stream {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(purpose.tag().as_bytes());
        bytes.extend_from_slice(&seed.to_le_bytes());
        bytes.extend_from_slice(&position.to_le_bytes());
        let hash = ContentHash::of(&bytes).0;
        let word =
            |i: usize| u32::from_le_bytes([hash[4 * i], hash[4 * i + 1], hash[4 * i + 2], hash[4 * i + 3]]);
        Stream {
            key: [word(0), word(1)],
            nonce: [word(2), word(3)],
            block: 0,
            buffer: [0; 4],
            used: 4,
            spare: None,
        }
    }
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    nonce: [u32; 2],
    block: u64,
    buffer: [u32; 4],
    used: usize,
    spare: Option<f64>,
}

impl Stream {
    /// Key and nonce of its generator: what kernels that draw many numbers at once start from.
    #[must_use]
    pub fn generator(&self) -> ([u32; 2], [u32; 2]) {
        (self.key, self.nonce)
    }

    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [self.block as u32, (self.block >> 32) as u32, self.nonce[0], self.nonce[1]];
            self.buffer = philox4x32(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        let word = self.buffer[self.used];
        self.used += 1;
        word
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n without bias (Lemire 2019); 0 when n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Standard normal (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        let angle = 2.0 * std::f64::consts::PI * self.uniform();
        self.spare = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// Shuffles in place (Fisher & Yates, Durstenfeld's form).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }

    /// k different numbers of 0..n in rising order; all of them when k ≥ n.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        for i in 0..k.min(n) {
            let j = i + self.below((n - i) as u64) as usize;
            all.swap(i, j);
        }
        all.truncate(k.min(n));
        all.sort_unstable();
        all
    }
}

/// Philox4x32 with ten rounds, as in the reference of Salmon et al. 2011.
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_its_authors() {
        // Random123's kat_vectors for philox4x32 with 10 rounds.
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn stream(seed: u64) -> Stream {
        Key::of_dataset(7, "d").stream(Purpose::HeadInitialization, seed, 0)
    }

    #[test]
    fn a_stream_depends_on_each_part_of_its_key() {
        let first = |mut s: Stream| s.next_u64();
        let base = first(stream(0));
        assert_eq!(base, first(stream(0)));
        let key = Key::of_dataset(7, "d");
        for other in [
            first(stream(1)),
            first(key.stream(Purpose::HeadInitialization, 0, 1)),
            first(key.stream(Purpose::LeaveOneOut, 0, 0)),
            first(Key::of_dataset(8, "d").stream(Purpose::HeadInitialization, 0, 0)),
            first(Key::of_dataset(7, "e").stream(Purpose::HeadInitialization, 0, 0)),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn normals_have_the_moments_of_the_standard_normal() {
        let mut s = stream(3);
        let draws: Vec<f64> = (0..200_000).map(|_| s.normal()).collect();
        let moment = |k: i32| draws.iter().map(|x| x.powi(k)).sum::<f64>() / draws.len() as f64;
        assert!(moment(1).abs() < 0.01, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.1, "{}", moment(4));
    }

    #[test]
    fn samples_are_distinct_in_range_and_sorted() {
        let picked = stream(1).sample(50, 20);
        assert_eq!(picked.len(), 20);
        assert!(picked.windows(2).all(|w| w[0] < w[1]) && picked[19] < 50);
        assert_eq!(stream(1).sample(5, 9), [0, 1, 2, 3, 4]);
    }
}
