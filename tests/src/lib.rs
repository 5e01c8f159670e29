//! What the end-to-end tests share: the real programs, started, watched and killed by pid.
//!
//! | module | holds |
//! |---|---|
//! | [`browser`] | a headless Chromium |
//! | [`chaos`] | a cluster that is killed and frozen while it works |
//! | [`cost`] | what telemetry costs |
//! | [`fuzz`] | inputs of every kind, read from whatever bytes |
//! | [`harm`] | bytes, broken in many ways |
//! | [`helm`] | the chart, rendered |
//! | [`http`] | one question, one answer |
//! | [`kubelet`] | a cluster of one node whose pods are processes |
//! | [`otlp`] | a receiver of OpenTelemetry |
//! | [`process`] | programs under test, which die with the test |
//! | [`prometheus`] | a real Prometheus |
//! | [`results`] | output directories, compared row by row |
//! | [`s3`] | a server that speaks S3 |
//! | [`toy`] | a model folder and texts, small enough for tests |

pub mod browser;
pub mod chaos;
pub mod cost;
pub mod fuzz;
pub mod harm;
pub mod helm;
pub mod http;
pub mod kubelet;
pub mod otlp;
pub mod process;
pub mod prometheus;
pub mod results;
pub mod s3;
pub mod toy;
