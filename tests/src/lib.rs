//! What the end-to-end tests share: the real programs, started, watched and killed by pid.
//!
//! | module | holds |
//! |---|---|
//! | [`chaos`] | a cluster that is killed and frozen while it works |
//! | [`process`] | programs under test, which die with the test |
//! | [`results`] | output directories, compared row by row |
//! | [`toy`] | a model folder and texts, small enough for tests |

pub mod chaos;
pub mod process;
pub mod results;
pub mod toy;
