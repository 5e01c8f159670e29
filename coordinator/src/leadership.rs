//! Who leads, and under which epoch.
//!
//! The epoch fences: it travels on every assignment and names every object a leader writes. With etcd it is the revision
//! at which the election's key was created; without, the store hands out the next number.

use std::time::Duration;

use etcd_client::Client;
use evenkeel_common::runtime::etcd::{EtcdConfig, Session};

use crate::store::{Store, StoreError};

/// Leadership that was won.
#[derive(Debug)]
pub struct Leadership {
    epoch: u64,
    session: Option<Session>,
}

/// Why leadership was not won.
#[derive(Debug, thiserror::Error)]
pub enum LeadershipError {
    /// etcd.
    #[error("etcd: {0}")]
    Etcd(#[from] etcd_client::Error),
    /// The store that hands out epochs.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Leadership {
    /// Leads alone: the store hands out the epoch.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn alone(store: &Store) -> Result<Self, LeadershipError> {
        Ok(Self { epoch: store.next_epoch().await?, session: None })
    }

    /// Stands for election in etcd and waits until it is won. `address` is what others see of the leader.
    ///
    /// # Errors
    /// When etcd refuses; a lease that is lost while waiting starts the campaign over.
    pub async fn campaign(
        config: &EtcdConfig,
        client: &Client,
        address: &str,
    ) -> Result<Self, LeadershipError> {
        const PAUSE: Duration = Duration::from_millis(500);
        loop {
            let session = Session::open(client.clone()).await?;
            let mut campaigner = client.clone();
            let won = tokio::select! {
                won = campaigner.campaign(config.leader_key(), address, session.lease()) => Some(won?),
                () = session.lost() => None,
            };
            if let Some(key) = won.as_ref().and_then(|won| won.leader()) {
                // Read it back: a campaign that waited long may have been won with a key that is gone by now.
                let found = client.clone().get(key.key(), None).await?;
                let epoch = found.kvs().first().map(etcd_client::KeyValue::create_revision);
                if epoch == Some(key.rev()) && !session.is_lost() {
                    return Ok(Self { epoch: key.rev().unsigned_abs(), session: Some(session) });
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Completes when leadership is lost or could be; never without etcd.
    pub async fn lost(&self) {
        match &self.session {
            Some(session) => session.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Gives leadership back, so that a successor need not wait for the lease.
    pub async fn resign(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}
