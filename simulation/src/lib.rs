//! Coordinators and workers under faults: in virtual time, on one thread, replayed from a seed.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@run`] | a run of a seed, and what has to hold when it is over |
//! | [`oracle`] | what is observed, and what must not happen meanwhile |
//! | [`faults`] | what goes wrong, drawn before a run begins |
//! | [`hosts`] | what runs: etcd, coordinators, workers, a user |
//! | [`network`] | tonic over turmoil's sockets |
//! | [`etcd`] | a stand-in for etcd that speaks its protocol |
//! | [`store`] | one object store for all, with faults |
//! | [`engine`] | a script in the place of libtorch |
//! | [`wire`] | messages doubled and held up |
//! | [`random`] | random numbers |
//!
//! **Real** are the coordinator (server, election, membership, links, driver, scheduler, store), the worker but for its
//! engines (loop, service, outbox, registration), etcd-client, and tonic with hyper and h2 under both. **Stand-ins** are the
//! network (turmoil), etcd, the object store's bytes (in memory) and the engine. Not simulated: the command line, HTTP,
//! encryption, and coordinators without etcd.
//!
//! # What has to hold
//!
//! - Every trial has one row in the results, with the numbers that the script computes from its coordinates; so has every
//!   row of every segment. What is recorded of the sweep agrees with its rows.
//! - What a worker is told to forget is in a segment. (It is looked at the moment the worker hears it.)
//! - Nobody writes under an epoch but the leader whose epoch it is, and that one only while it leads; where etcd's clock is
//!   so fast that two lead at once, the former still holds.
//! - A worker that answered a leader follows no earlier one, and begins no pack of an earlier one.
//! - The sweep is through within [`run::BOUND`] after the last fault is over, and the user is told so.
//! - No task panics, and no process ends but for a reason that was given.
//!
//! # The same seed, the same course
//!
//! Every run of a seed observes the same things at the same times; a test compares two. That takes some care in what is
//! simulated: time by tokio's clock, `biased` in `select!`, ordered maps where order decides, work inline instead of on other
//! threads (`evenkeel_common::runtime::blocking`). Runs in one process follow one another, because tokio numbers tasks by one
//! counter and drops them in an order that depends on it. What remains is not seeded: tokio's random choices in `select!` of
//! tonic and in the wake-ups of `watch` channels, and h2's clock for streams that were reset. They have not been seen to
//! change a course in any of the runs that were compared; a seed that takes two courses one day has met one of them.
//!
//! # How far it reaches
//!
//! A link that drops a segment is broken for good, because turmoil sends nothing again: a partition is harsher than TCP's, and
//! what ends it are pings. A message is doubled above gRPC, not on the wire. All hosts' monotonic clocks agree; what differs
//! are etcd's, which is up to 2.2 times as fast, so that two coordinators believe at once that they lead (as when a process
//! was frozen), and the workers' wall clocks, which nothing decides by. etcd is one member whose state survives: its own
//! consensus is not under test.
//!
//! # That it can fail
//!
//! Breaking the code on purpose, 64 seeds each: results acknowledged before they are durable, 64 seeds fail; packs of a lost
//! worker not given back, 13; a failed write taken for a durable one, 13; a write whose answer was lost taken for another
//! leader's, 12; a leader that goes on after its lease, 9; a worker that keeps the packs of an earlier leader, 9; results not
//! offered again to the next leader, 11; the same epoch for every leader, 58; a worker that does not register again, 12; a
//! link that is not opened again, 1.

pub mod engine;
pub mod etcd;
pub mod faults;
pub mod hosts;
pub mod network;
pub mod oracle;
pub mod random;
pub mod run;
pub mod store;
pub mod wire;
