//! `SweepService`: what users call.

use std::collections::HashMap;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use evenkeel_common::PROTOCOL_VERSION;
use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::inputs::{Place, places};
use evenkeel_common::runtime::{blocking, check_log_filter, set_log_filter};
use evenkeel_common::spec::Spec;
use evenkeel_proto::v1;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{Access, Role};
use crate::collect::{CollectError, Exported};
use crate::core::WorkerId;
use crate::dispatch::{chunks, other_protocol};
use crate::driver::{Change, CommandError, DriverHandle, SweepView, WorkerState};
use crate::export::Format;
use crate::limits::{Limits, Throttle};
use crate::seat::Seat;
use crate::store::{StoreError, StoredState};
use crate::submission::{InputFile, SubmissionError, Sweep};

/// Largest feature file that is taken, in bytes.
const MAX_FILE_BYTES: usize = 1 << 30;
/// Largest submission, in bytes: it is held in memory.
const MAX_SUBMISSION_BYTES: usize = 4 << 30;

/// The service of a coordinator: all of it while it leads, what the store can tell while it stands by.
#[derive(Clone)]
pub struct SweepRpc {
    seat: Seat,
    access: Access,
    limits: Limits,
    throttle: Throttle,
}

impl SweepRpc {
    /// Serves from this seat, who may be served, and not too much of it.
    #[must_use]
    pub fn new(seat: Seat, access: Access, limits: Limits, throttle: Throttle) -> Self {
        Self { seat, access, limits, throttle }
    }

    /// Refuses a sweep that is too large, or one too many.
    fn check_size(&self, sweep: &Sweep, driver: &DriverHandle) -> Result<(), Status> {
        let (trials, most) = (sweep.grid.len(), self.limits.trials);
        if trials > most {
            return Err(Status::invalid_argument(format!(
                "the sweep has {trials} trials, and this coordinator takes {most} at most: make it smaller, or start the \
                 coordinator with a larger --max-trials"
            )));
        }
        let snapshot = driver.snapshot();
        let unended = |view: &&SweepView| matches!(view.state, StoredState::Running | StoredState::Paused);
        let known = snapshot.sweeps.iter().any(|view| view.id == sweep.id);
        if !known && snapshot.sweeps.iter().filter(unended).count() >= self.limits.sweeps {
            return Err(Status::resource_exhausted(format!(
                "{} sweeps have not ended, and this coordinator takes no more (--max-sweeps): wait for one, or cancel one",
                self.limits.sweeps
            )));
        }
        Ok(())
    }

    /// Takes a spec that needs no files, as [`submit`](v1::sweep_service_server::SweepService::submit) does; `file` is what
    /// errors call it.
    ///
    /// # Errors
    /// When the spec or the sweep it makes is refused.
    pub async fn submit_text(
        &self,
        authorization: Option<&[u8]>,
        file: &str,
        text: &str,
    ) -> Result<v1::SubmitResponse, Status> {
        self.access.check(authorization, Role::Submit)?;
        let driver = self.seat.leading()?;
        let _place = self.throttle.heavy()?;
        let spec = Spec::parse(file, text).map_err(|error| submission_status(&error.into()))?;
        if let Some(place) = places(&spec).next() {
            let at = match place {
                Place::Dataset(at) => format!("datasets[{at}]"),
                Place::Model(at) => format!("models[{at}]"),
            };
            return Err(Status::invalid_argument(format!(
                "{file}: {at}: it is read from files, which cannot be sent this way: use `evenkeel submit`, which sends them along"
            )));
        }
        self.take_in(&driver, file.to_owned(), spec, Vec::new()).await
    }

    async fn take_in(
        &self,
        driver: &DriverHandle,
        file: String,
        spec: Spec,
        inputs: Vec<Vec<InputFile>>,
    ) -> Result<v1::SubmitResponse, Status> {
        let sweep = blocking(move || Sweep::new(&file, spec, inputs))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| submission_status(&error))?;
        driver.refresh().await.map_err(|error| to_status(&error))?;
        self.check_size(&sweep, driver)?;
        let (view, created) = driver.submit(sweep).await.map_err(|error| to_status(&error))?;
        Ok(v1::SubmitResponse { status: Some(self.status(&view)), created })
    }

    /// How a view is told.
    #[must_use]
    pub fn status(&self, view: &SweepView) -> v1::SweepStatus {
        status(view, self.seat.driver().map_or(0, |driver| ready_workers(&driver)))
    }

    async fn find(&self, id: &str) -> Result<SweepView, Status> {
        let id = parse_id(id)?;
        let found =
            self.seat.find_sweep(&id).await.map_err(|error| to_status(&CommandError::Store(error)))?;
        found.ok_or_else(|| to_status(&CommandError::UnknownSweep { id }))
    }
}

fn ready_workers(driver: &DriverHandle) -> usize {
    driver.snapshot().workers.iter().filter(|worker| worker.state == WorkerState::Ready).count()
}

/// An id from outside.
///
/// # Errors
/// When it is none.
pub fn parse_id(id: &str) -> Result<SweepId, Status> {
    SweepId::parse(id).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// An error of a command as a status.
#[must_use]
pub fn to_status(error: &CommandError) -> Status {
    let message = error.to_string();
    match error {
        CommandError::UnknownSweep { .. } | CommandError::UnknownWorker { .. } => Status::not_found(message),
        CommandError::NotNow { .. } => Status::failed_precondition(message),
        CommandError::Store(StoreError::Corrupt { .. }) => Status::data_loss(message),
        CommandError::Store(_) | CommandError::Stopping => Status::unavailable(message),
    }
}

fn submission_status(error: &SubmissionError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn status(view: &SweepView, workers: usize) -> v1::SweepStatus {
    let state = match view.state {
        StoredState::Running => v1::SweepState::Running,
        StoredState::Paused => v1::SweepState::Paused,
        StoredState::Completed => v1::SweepState::Completed,
        StoredState::Cancelled => v1::SweepState::Cancelled,
    };
    v1::SweepStatus {
        sweep_id: view.id.to_string(),
        name: view.name.clone(),
        state: state.into(),
        total: view.total,
        completed: view.counts.completed,
        diverged: view.counts.diverged,
        failed: view.counts.failed,
        running: view.running,
        submitted_ms: view.submitted_ms,
        seconds: view.seconds,
        workers: u32::try_from(workers).unwrap_or(u32::MAX),
        notice: view.notice.clone().unwrap_or_default(),
        priority: view.priority,
        trials_per_second: view.trials_per_second,
        training: view.training.iter().map(|training| training.last).collect(),
        trace_id: view.trace.as_ref().map(|trace| trace.id.clone()).unwrap_or_default(),
        trace_url: view.trace.as_ref().and_then(|trace| trace.url.clone()).unwrap_or_default(),
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;
type Statuses = Pin<Box<dyn Stream<Item = Result<v1::SweepStatus, Status>> + Send>>;

#[tonic::async_trait]
impl v1::sweep_service_server::SweepService for SweepRpc {
    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        self.access.check_call(&request, Role::Submit)?;
        let driver = self.seat.leading()?;
        let _place = self.throttle.heavy()?;
        let mut inbox = request.into_inner();
        let first = inbox.message().await?.and_then(|request| request.message);
        let Some(v1::submit_request::Message::Spec(header)) = first else {
            return Err(Status::invalid_argument("the first message of a submission has to hold the spec"));
        };
        if header.protocol_version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition(other_protocol(
                header.protocol_version,
                "of the client",
            )));
        }
        let spec =
            Spec::parse(&header.file, &header.spec).map_err(|error| submission_status(&error.into()))?;
        let files = receive_files(&mut inbox).await?;
        let find = |file: &v1::InputFile| {
            let bytes = files.get(&file.hash).cloned().ok_or_else(|| {
                let (role, hash) = (file.role.clone(), file.hash.clone());
                submission_status(&SubmissionError::MissingData { role, hash })
            })?;
            Ok(InputFile { role: file.role.clone(), bytes })
        };
        let inputs = header
            .inputs
            .iter()
            .map(|input| input.files.iter().map(find).collect::<Result<Vec<_>, Status>>())
            .collect::<Result<Vec<_>, Status>>()?;
        Ok(Response::new(self.take_in(&driver, header.file.clone(), spec, inputs).await?))
    }

    async fn list_sweeps(
        &self,
        request: Request<v1::ListSweepsRequest>,
    ) -> Result<Response<v1::ListSweepsResponse>, Status> {
        self.access.check_call(&request, Role::Read)?;
        let views = self.seat.sweeps().await.map_err(|error| to_status(&CommandError::Store(error)))?;
        let sweeps = views.iter().map(|view| self.status(view)).collect();
        Ok(Response::new(v1::ListSweepsResponse { sweeps }))
    }

    async fn get_sweep(
        &self,
        request: Request<v1::GetSweepRequest>,
    ) -> Result<Response<v1::SweepStatus>, Status> {
        self.access.check_call(&request, Role::Read)?;
        if let Some(driver) = self.seat.driver() {
            driver.refresh().await.map_err(|error| to_status(&error))?;
        }
        let view = self.find(&request.into_inner().sweep_id).await?;
        Ok(Response::new(self.status(&view)))
    }

    type WatchSweepStream = Statuses;

    async fn watch_sweep(
        &self,
        request: Request<v1::WatchSweepRequest>,
    ) -> Result<Response<Self::WatchSweepStream>, Status> {
        self.access.check_call(&request, Role::Read)?;
        let driver = self.seat.leading()?;
        // Who has just begun to lead knows its sweeps from the next snapshot on.
        driver.refresh().await.map_err(|error| to_status(&error))?;
        let id = self.find(&request.into_inner().sweep_id).await?.id;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut snapshots = driver.watch();
            let mut last = None;
            loop {
                let Some(view) = driver.find_sweep(&id) else { return };
                let status = status(&view, ready_workers(&driver));
                let ended = matches!(view.state, StoredState::Completed | StoredState::Cancelled);
                if last.as_ref() != Some(&status) && sender.send(Ok(status.clone())).await.is_err() {
                    return;
                }
                last = Some(status);
                if ended || snapshots.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn change_sweep(
        &self,
        request: Request<v1::ChangeSweepRequest>,
    ) -> Result<Response<v1::SweepStatus>, Status> {
        self.access.check_call(&request, Role::Submit)?;
        let request = request.into_inner();
        let change = match request.change() {
            v1::SweepChange::Cancel => Change::Cancel,
            v1::SweepChange::Pause => Change::Pause,
            v1::SweepChange::Resume => Change::Resume,
            v1::SweepChange::Retry => Change::Retry,
            v1::SweepChange::Unspecified => {
                return Err(Status::invalid_argument("`change` is missing or unknown to this version"));
            }
        };
        let driver = self.seat.leading()?;
        let view =
            driver.change(&parse_id(&request.sweep_id)?, change).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(self.status(&view)))
    }

    type ExportSweepStream = Chunks;

    async fn export_sweep(
        &self,
        request: Request<v1::ExportSweepRequest>,
    ) -> Result<Response<Self::ExportSweepStream>, Status> {
        self.access.check_call(&request, Role::Read)?;
        let request = request.into_inner();
        let format: Format =
            request.format.parse().map_err(|error: String| Status::invalid_argument(error))?;
        let view = self.find(&request.sweep_id).await?;
        let place = self.throttle.heavy()?;
        let (sender, receiver) = mpsc::channel(4);
        let store = self.seat.store().clone();
        tokio::spawn(async move {
            let _place = place;
            let exported = export(&store, &view, format, &request.files, &sender).await;
            if let Err(status) = exported {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        self.access.check_call(&request, Role::Read)?;
        let driver = self.seat.leading()?;
        driver.refresh().await.map_err(|error| to_status(&error))?;
        let snapshot = driver.snapshot();
        let workers = snapshot.workers.iter().map(|worker| v1::WorkerStatus {
            id: worker.record.id.clone(),
            address: worker.record.address.clone(),
            version: worker.record.version.clone(),
            device: worker.record.device.clone(),
            slots: worker.record.slots,
            state: worker.state.name().to_owned(),
            packs: worker.packs,
            sweep_id: worker.sweep.as_ref().map(ToString::to_string).unwrap_or_default(),
            speed: worker.speed.unwrap_or(0.0),
            failures: worker.failures,
            reason: worker.reason.clone(),
            trials_done: worker.trials_done,
        });
        Ok(Response::new(v1::ListWorkersResponse { workers: workers.collect() }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        self.access.check_call(&request, Role::Admin)?;
        let worker = WorkerId::from(request.into_inner().worker_id);
        self.seat.leading()?.drain_worker(worker).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(v1::DrainWorkerResponse {}))
    }

    async fn set_log_filter(
        &self,
        request: Request<v1::SetLogFilterRequest>,
    ) -> Result<Response<v1::SetLogFilterResponse>, Status> {
        self.access.check_call(&request, Role::Admin)?;
        let v1::SetLogFilterRequest { filter, worker_ids, all_workers } = request.into_inner();
        check_log_filter(&filter).map_err(Status::invalid_argument)?;
        let mut told = 0;
        if all_workers || !worker_ids.is_empty() {
            let named = worker_ids.into_iter().map(WorkerId::from).filter(|_| !all_workers).collect();
            let driver = self.seat.leading()?;
            told = driver.set_log_filter(filter.clone(), named).await.map_err(|error| to_status(&error))?;
        } else {
            set_log_filter(&filter).map_err(Status::invalid_argument)?;
        }
        tracing::info!(filter, workers = told, "log filter changed");
        Ok(Response::new(v1::SetLogFilterResponse { workers: u32::try_from(told).unwrap_or(u32::MAX) }))
    }
}

async fn receive_files(inbox: &mut Streaming<v1::SubmitRequest>) -> Result<HashMap<String, Bytes>, Status> {
    let mut parts: HashMap<String, BytesMut> = HashMap::new();
    let mut files = HashMap::new();
    let mut total = 0;
    while let Some(message) = inbox.message().await? {
        let Some(v1::submit_request::Message::Data(chunk)) = message.message else {
            return Err(Status::invalid_argument("only data may follow the spec of a submission"));
        };
        let bytes = parts.entry(chunk.name.clone()).or_default();
        if bytes.len() + chunk.data.len() > MAX_FILE_BYTES {
            return Err(Status::invalid_argument(format!(
                "a feature file may have {MAX_FILE_BYTES} bytes at most"
            )));
        }
        total += chunk.data.len();
        if total > MAX_SUBMISSION_BYTES {
            return Err(Status::invalid_argument(format!(
                "the files of a submission may have {MAX_SUBMISSION_BYTES} bytes at most together"
            )));
        }
        bytes.extend_from_slice(&chunk.data);
        if chunk.last {
            let bytes = parts.remove(&chunk.name).unwrap_or_default().freeze();
            if ContentHash::of(&bytes).to_hex() != chunk.name {
                return Err(Status::data_loss(format!("the file {} arrived changed", chunk.name)));
            }
            files.insert(chunk.name, bytes);
        }
    }
    Ok(files)
}

/// Exports into a folder of its own, then sends its files.
async fn export(
    store: &crate::store::Store,
    view: &SweepView,
    format: Format,
    wanted: &[String],
    sender: &mpsc::Sender<Result<v1::Chunk, Status>>,
) -> Result<(), Status> {
    let internal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let exported = Exported::new(store, view, format).await.map_err(|error| collect_status(&error))?;
    for name in &exported.files().map_err(|error| internal(&error))? {
        if !(wanted.is_empty() || wanted.contains(name)) {
            continue;
        }
        let bytes: Bytes = exported.read(name).await.map_err(|error| internal(&error))?.into();
        for chunk in chunks(name, &bytes) {
            if sender.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Why there is no output directory, as a status.
#[must_use]
pub fn collect_status(error: &CollectError) -> Status {
    match error {
        CollectError::Store(StoreError::Corrupt { .. }) => Status::data_loss(error.to_string()),
        CollectError::Store(_) => Status::unavailable(error.to_string()),
        error => Status::internal(error.to_string()),
    }
}
