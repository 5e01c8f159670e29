//! Who leads, and under which epoch.
//!
//! The epoch fences: it travels on every assignment and names every object a leader writes. With etcd it is the revision
//! at which the election's key was created; without, the store hands out the next number.

use std::time::Duration;

use evenkeel_common::runtime::etcd::{EtcdError, EtcdLink, Session};
use evenkeel_common::runtime::trace::{Span, SpanKind, TraceContext};

use crate::store::{Store, StoreError};

/// Leadership that was won.
#[derive(Debug)]
pub struct Leadership {
    epoch: u64,
    session: Option<Session>,
    /// From the election to its end.
    term: Span,
}

impl Leadership {
    /// Leads alone: the store hands out the epoch.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn alone(store: &Store) -> Result<Self, StoreError> {
        let epoch = store.next_epoch().await?;
        Ok(Self { epoch, session: None, term: term(epoch, TraceContext::root(), None) })
    }

    /// Stands for election in etcd and waits until it is won, through whatever happens to etcd meanwhile. `address` is what
    /// others see of the leader.
    pub async fn campaign(etcd: &EtcdLink, address: &str) -> Self {
        const PAUSE: Duration = Duration::from_millis(500);
        let election = Span::begin("leader.election", SpanKind::Internal, TraceContext::root(), None)
            .with("evenkeel.cluster", etcd.config().cluster.clone());
        loop {
            match Self::stand(etcd, address).await {
                Ok(Some((epoch, session))) => {
                    let term = term(epoch, election.context.child(), Some(election.context));
                    election.with("leader.epoch", epoch.cast_signed()).finish();
                    return Self { epoch, session: Some(session), term };
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "standing for election again"),
            }
            etcd.forget().await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One candidacy; none when its lease was lost meanwhile.
    async fn stand(etcd: &EtcdLink, address: &str) -> Result<Option<(u64, Session)>, EtcdError> {
        let failed = |source| etcd.config().failed(source);
        let mut client = etcd.client().await?;
        let session = Session::open(client.clone()).await.map_err(failed)?;
        let won = tokio::select! {
            biased;
            won = client.campaign(etcd.config().leader_key(), address, session.lease()) => won.map_err(failed)?,
            () = session.lost() => return Ok(None),
        };
        let Some(key) = won.leader() else { return Ok(None) };
        // Read it back: a campaign that waited long may have been won with a key that is gone by now.
        let found = client.get(key.key(), None).await.map_err(failed)?;
        let epoch = found.kvs().first().map(etcd_client::KeyValue::create_revision);
        let held = epoch == Some(key.rev()) && !session.is_lost();
        Ok(held.then(|| (key.rev().unsigned_abs(), session)))
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
        let lost = self.session.as_ref().is_some_and(Session::is_lost);
        match lost {
            true => self.term.failed("its lease is lost, or could be").finish(),
            false => self.term.finish(),
        }
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}

fn term(epoch: u64, context: TraceContext, election: Option<TraceContext>) -> Span {
    Span::begin("leader.term", SpanKind::Internal, context, election)
        .with("leader.epoch", epoch.cast_signed())
}
