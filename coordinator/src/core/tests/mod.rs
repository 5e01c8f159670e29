//! Tests of the scheduler: events in, actions out.

mod dispatch;
mod env;
mod failures;
mod properties;
mod results;
mod scale;
mod simulation;
mod speculation;
mod sweeps;
