//! Two sweeps beside each other: what changed, and whether it is more than noise.
//!
//! | module | holds |
//! |---|---|
//! | `load` | the trials of an output directory |
//! | `pairs` | which trials of the two belong together, and the statistics of their differences |
//! | `words` | the table and the sentences |

mod load;
mod pairs;
mod words;

pub use load::{LoadError, Side};
pub use pairs::{Comparison, LineDifference, compare};
pub use words::render;

#[cfg(test)]
mod tests;
