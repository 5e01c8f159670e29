//! Random numbers of the simulation.

use evenkeel_common::seed::{Key, Purpose, Stream};

/// The stream of a seed for a purpose.
#[must_use]
pub fn stream(seed: u64, purpose: &str) -> Stream {
    Key::of_dataset(seed, purpose).stream(Purpose::Structure, 0, 0)
}
