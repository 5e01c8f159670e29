//! The leader's seat: who sits in it, and what a coordinator that does not says to clients.

use evenkeel_common::id::SweepId;
use evenkeel_common::runtime::trace::TraceContext;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::driver::{DriverHandle, SweepView, TraceView};
use crate::lookout::Known;
use crate::store::{Store, StoreError};
use crate::submission::Sweep;

/// Metadata of a refusal: the address of the coordinator that leads, or [`NOBODY`].
pub const LEADER: &str = "evenkeel-leader";
/// Where none leads at the moment.
pub const NOBODY: &str = "none";

/// Whether this coordinator leads, and what it knows while it does not.
#[derive(Clone)]
pub struct Seat {
    leads: watch::Receiver<Option<DriverHandle>>,
    store: Store,
    known: watch::Receiver<Known>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("leads", &self.driver().is_some()).finish_non_exhaustive()
    }
}

impl Seat {
    /// Of a coordinator with this store; `leads` has its driver while it leads, `known` who else does.
    #[must_use]
    pub fn new(
        leads: watch::Receiver<Option<DriverHandle>>,
        store: Store,
        known: watch::Receiver<Known>,
    ) -> Self {
        Self { leads, store, known }
    }

    /// The driver, while this coordinator leads.
    #[must_use]
    pub fn driver(&self) -> Option<DriverHandle> {
        self.leads.borrow().clone()
    }

    /// The driver.
    ///
    /// # Errors
    /// While this coordinator does not lead: a refusal that says who does.
    pub fn leading(&self) -> Result<DriverHandle, Status> {
        self.driver().ok_or_else(|| self.refusal())
    }

    /// What is said to those who need the leader: `UNAVAILABLE`, with its address in the metadata.
    #[must_use]
    pub fn refusal(&self) -> Status {
        let Known { leader, trouble, .. } = self.known.borrow().clone();
        let mut status = Status::unavailable(match (&leader, trouble.is_empty()) {
            (Some(leader), true) => format!("this coordinator stands by; {leader} leads"),
            (None, true) => "this coordinator stands by; try again in a few seconds".to_owned(),
            (_, false) => format!("this coordinator stands by; {trouble}"),
        });
        let address = MetadataValue::try_from(leader.as_deref().unwrap_or(NOBODY));
        status.metadata_mut().insert(LEADER, address.unwrap_or(MetadataValue::from_static(NOBODY)));
        status
    }

    /// The address of another coordinator that leads, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        self.known.borrow().leader.clone()
    }

    /// The connection to another coordinator that leads, if there is one.
    #[must_use]
    pub fn way(&self) -> Option<Channel> {
        if self.driver().is_some() { None } else { self.known.borrow().way.clone() }
    }

    /// Whether calls are answered as the leader answers them, here or by passing them on.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<String, String> {
        if let Some(driver) = self.driver() {
            return match &driver.snapshot().stalled {
                Some(reason) => Err(format!("the store takes no results: {reason}")),
                None => Ok("ok".to_owned()),
            };
        }
        match &*self.known.borrow() {
            Known { leader: Some(leader), way: Some(_), .. } => Ok(format!("standing by; {leader} leads")),
            Known { trouble, .. } if trouble.is_empty() => Err("standing by".to_owned()),
            Known { trouble, .. } => Err(format!("standing by; {trouble}")),
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A sweep as the leader sees it, or as the store has it where another leads; none when there is none.
    ///
    /// # Errors
    /// When the store does not answer or is damaged.
    pub async fn find_sweep(&self, id: &SweepId) -> Result<Option<SweepView>, StoreError> {
        match self.driver() {
            Some(driver) => Ok(driver.find_sweep(id)),
            None => match stored_view(&self.store, id).await {
                Ok(view) => Ok(Some(view)),
                Err(StoreError::Missing { .. }) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// All sweeps, in the same way. One that is damaged is left out.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sweeps(&self) -> Result<Vec<SweepView>, StoreError> {
        if let Some(driver) = self.driver() {
            return Ok(driver.snapshot().sweeps.clone());
        }
        let mut views = Vec::new();
        for id in self.store.sweep_ids().await? {
            match stored_view(&self.store, &id).await {
                Ok(view) => views.push(view),
                Err(error @ (StoreError::Corrupt { .. } | StoreError::Missing { .. })) => {
                    tracing::warn!(sweep.id = %id, %error, "sweep left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(views)
    }
}

/// A sweep by what is durable of it.
async fn stored_view(store: &Store, id: &SweepId) -> Result<SweepView, StoreError> {
    let loaded = store.load_state(id).await?;
    let sweep = Sweep::from_store(store, &loaded.record).await?;
    let spec = sweep.grid.spec();
    Ok(SweepView {
        id: id.clone(),
        name: spec.name.clone(),
        state: loaded.state,
        total: sweep.grid.len(),
        counts: loaded.counts,
        running: 0,
        submitted_ms: loaded.record.submitted_ms,
        seconds: loaded.seconds,
        priority: spec.priority,
        trials_per_second: 0.0,
        notice: Some(
            "from a coordinator that stands by: what is durable, without what is running".to_owned(),
        ),
        training: Vec::new(),
        trace: loaded
            .record
            .traceparent
            .as_deref()
            .and_then(TraceContext::parse)
            .map(|context| TraceView { id: context.trace_id(), url: None }),
    })
}
