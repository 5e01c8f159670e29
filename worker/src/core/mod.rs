//! The worker's pure part: what it holds and what it does next, without sockets, threads and tensors.

mod outbox;
mod slots;

pub use outbox::Outbox;
pub use slots::{Job, PackKey, Slots, Stop};
