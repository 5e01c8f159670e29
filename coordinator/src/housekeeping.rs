//! What a leader does beside leading: it compacts sweeps that have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::SweepId;
use tokio::time::Instant;

use crate::driver::DriverHandle;
use crate::store::{Sequence, Store, StoredState, compact};

/// Compacts each sweep that has ended for `after`, one at a time, and leaves those who are reading it as long to come to an end.
/// Never returns; whoever stops it in the middle leaves nothing but work for the next.
pub async fn compact_ended(driver: DriverHandle, store: Store, sequence: Arc<Sequence>, after: Duration) {
    /// After something went wrong.
    const AGAIN_AFTER: Duration = Duration::from_secs(600);
    let mut ended: BTreeMap<SweepId, Instant> = BTreeMap::new();
    let mut done: BTreeSet<SweepId> = BTreeSet::new();
    loop {
        tokio::time::sleep(after.clamp(Duration::from_secs(1), Duration::from_secs(10))).await;
        let now = Instant::now();
        for sweep in &driver.snapshot().sweeps {
            if matches!(sweep.state, StoredState::Completed | StoredState::Cancelled) {
                ended.entry(sweep.id.clone()).or_insert(now + after);
            } else {
                ended.remove(&sweep.id);
                done.remove(&sweep.id);
            }
        }
        let due = ended.iter().find(|(id, due)| **due <= now && !done.contains(*id));
        let Some(id) = due.map(|(id, _)| id.clone()) else { continue };
        match compact(&store, &id, &sequence, after).await {
            Ok(compacted) => {
                if let Some((before, now)) = compacted {
                    tracing::info!(sweep.id = %id, before, now, "segments compacted");
                }
                done.insert(id);
            }
            Err(error) => {
                tracing::warn!(sweep.id = %id, %error, "segments not compacted, nothing is lost");
                ended.insert(id, now + AGAIN_AFTER);
            }
        }
    }
}
