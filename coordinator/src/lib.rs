//! The coordinator of Evenkeel and its command line.
//!
//! | module | holds |
//! |---|---|
//! | [`core`] | the scheduler: pure, events in, actions out |
//! | [`driver`] | the one loop around it: carries actions out |
//! | [`dispatch`] | one stream to each worker |
//! | [`membership`] | who is alive: etcd, or heartbeats |
//! | [`leadership`] | who leads, and under which epoch |
//! | [`lookout`], [`relay`] | who else leads; calls that are passed on to it |
//! | [`store`] | what is true: immutable objects in a directory or S3 |
//! | [`submission`] | from a spec and its files to a checked sweep |
//! | [`collect`], [`export`], [`report`] | from segments to the output directory |
//! | [`compare`] | two output directories beside each other |
//! | [`rpc`], [`http`], [`server`] | what is served, and the whole put together |
//! | [`api`], [`live`] | what the JSON API says; live figures from what is durable |
//! | [`housekeeping`] | compaction of what has ended |
//! | [`access`], [`limits`] | who may do what, and how much of it |
//! | [`cli`] | the commands |

pub mod access;
pub mod api;
pub mod calls;
pub mod cli;
pub mod collect;
pub mod compare;
pub mod core;
pub mod dispatch;
pub mod driver;
pub mod export;
pub mod housekeeping;
pub mod http;
pub mod leadership;
pub mod limits;
pub mod live;
pub mod lookout;
pub mod membership;
pub mod metrics;
pub mod relay;
pub mod report;
pub mod rpc;
pub mod seat;
pub mod server;
pub mod store;
pub mod submission;
