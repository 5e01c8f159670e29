//! Packs on their way: when each went out, for what is measured of them.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::core::{PackId, WorkerId};
use crate::metrics::{Metrics, PackEnd};

/// The packs that are out; as many as the scheduler has in flight, and those whose cancellation was not answered.
pub(super) struct PacksOut {
    metrics: Metrics,
    out: BTreeMap<PackId, (WorkerId, Instant)>,
}

impl PacksOut {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, out: BTreeMap::new() }
    }

    pub fn sent(&mut self, pack: PackId, worker: &WorkerId, attempt: u32) {
        self.metrics.dispatched(attempt);
        self.out.insert(pack, (worker.clone(), Instant::now()));
    }

    /// `busy` is the part that the worker worked on it, in seconds, as it says.
    pub fn finished(&mut self, pack: PackId, busy: f64) {
        let Some(seconds) = self.take(pack) else { return };
        self.metrics.pack_ended(PackEnd::Finished, seconds);
        self.metrics.pack_waited((seconds - busy).max(0.0));
    }

    pub fn failed(&mut self, pack: PackId) {
        if let Some(seconds) = self.take(pack) {
            self.metrics.pack_ended(PackEnd::Failed, seconds);
        }
    }

    pub fn lost(&mut self, worker: &WorkerId) {
        self.out.retain(|_, (holder, since)| {
            let stays = holder != worker;
            if !stays {
                self.metrics.pack_ended(PackEnd::Lost, since.elapsed().as_secs_f64());
            }
            stays
        });
    }

    fn take(&mut self, pack: PackId) -> Option<f64> {
        self.out.remove(&pack).map(|(_, since)| since.elapsed().as_secs_f64())
    }
}
