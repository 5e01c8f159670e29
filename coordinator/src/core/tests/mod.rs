//! Tests of the scheduler: events in, actions out.

// A set of one range is written like one of several.
#![allow(clippy::single_range_in_vec_init)]

mod dispatch;
mod env;
mod failures;
mod properties;
mod results;
mod scale;
mod simulation;
mod speculation;
mod sweeps;
