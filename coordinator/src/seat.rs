//! The leader's seat: who sits in it, and what a coordinator that does not says to clients.

use std::time::Duration;

use evenkeel_common::id::SweepId;
use evenkeel_common::runtime::etcd::EtcdLink;
use evenkeel_common::runtime::trace::TraceContext;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataValue;

use crate::driver::{DriverHandle, SweepView, TraceView};
use crate::store::{Store, StoreError};
use crate::submission::Sweep;

/// Metadata of a refusal: the address of the coordinator that leads, or [`NOBODY`].
pub const LEADER: &str = "evenkeel-leader";
/// Where none leads at the moment.
pub const NOBODY: &str = "none";
/// How long etcd may take to say who leads.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whether this coordinator leads, and what it knows while it does not.
#[derive(Clone)]
pub struct Seat {
    leads: watch::Receiver<Option<DriverHandle>>,
    store: Store,
    election: Option<EtcdLink>,
    /// What others see of this coordinator.
    advertise: String,
}

impl Seat {
    /// Of a coordinator with this store and election; `leads` has its driver while it leads.
    #[must_use]
    pub fn new(
        leads: watch::Receiver<Option<DriverHandle>>,
        store: Store,
        election: Option<EtcdLink>,
        advertise: String,
    ) -> Self {
        Self { leads, store, election, advertise }
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
    pub async fn leading(&self) -> Result<DriverHandle, Status> {
        match self.driver() {
            Some(driver) => Ok(driver),
            None => Err(self.refusal().await),
        }
    }

    /// What is said to those who need the leader: `UNAVAILABLE`, with its address in the metadata.
    async fn refusal(&self) -> Status {
        let leader = self.leader().await;
        let mut status = Status::unavailable(match &leader {
            Some(leader) => format!("this coordinator stands by; {leader} leads"),
            None => "this coordinator stands by, and none leads at the moment; try again in a few seconds"
                .to_owned(),
        });
        let address = MetadataValue::try_from(leader.as_deref().unwrap_or(NOBODY));
        status.metadata_mut().insert(LEADER, address.unwrap_or(MetadataValue::from_static(NOBODY)));
        status
    }

    /// The address of another coordinator that leads, as the election tells it.
    pub async fn leader(&self) -> Option<String> {
        let etcd = self.election.as_ref()?;
        let ask = async { etcd.client().await.ok()?.leader(etcd.config().leader_key()).await.ok() };
        let found = tokio::time::timeout(ANSWER_WITHIN, ask).await.ok()??;
        let address = found.kv()?.value_str().ok()?.to_owned();
        (address != self.advertise && !address.is_empty()).then_some(address)
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
