//! Who is alive: by etcd on a cluster, by heartbeats to the coordinator itself without.

mod embedded;
mod etcd;

pub use embedded::Embedded;
pub use etcd::Etcd;
pub use evenkeel_common::runtime::WorkerRecord;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::WorkerId;

/// Who came and who left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// A worker registered, or registered anew.
    Up(WorkerRecord),
    /// A worker left, or its lease ran out.
    Down(WorkerId),
}

/// A source of membership.
pub trait Membership: Send {
    /// Reports who is there and then every change, until stopped or nobody listens.
    fn follow(
        self: Box<Self>,
        events: mpsc::Sender<MembershipEvent>,
        stop: CancellationToken,
    ) -> futures::future::BoxFuture<'static, ()>;
}
