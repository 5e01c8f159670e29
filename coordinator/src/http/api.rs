//! What the JSON API answers.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use evenkeel_common::{FORMAT_VERSION, PROTOCOL_VERSION};
use evenkeel_proto::v1;
use evenkeel_proto::v1::sweep_service_server::SweepService as _;

use super::caller::Caller;
use super::{Refusal, Site};
use crate::api;
use crate::driver::WorkerState;
use crate::live::{TrialQuery, TrialState};
use crate::store::StoredState;

/// Trials of an answer, unless less or more is asked for.
const PAGE: usize = 100;
/// The most.
const MOST: usize = 1000;
/// What errors call a spec that has no file.
pub const SPEC: &str = "spec.yaml";

/// An answer, or why there is none.
type Answer<T> = Result<Json<T>, Refusal>;
/// What a question names.
type Names = Query<HashMap<String, String>>;

pub async fn sweeps(State(site): State<Site>, caller: Caller) -> Answer<api::Sweeps> {
    list(&site, &caller).await.map(Json)
}

/// All sweeps.
pub async fn list(site: &Site, caller: &Caller) -> Result<api::Sweeps, Refusal> {
    let answer = site.rpc.list_sweeps(caller.request(v1::ListSweepsRequest {})).await?.into_inner();
    Ok(api::Sweeps { sweeps: answer.sweeps.iter().map(api::SweepStatus::from).collect() })
}

pub async fn submit(
    State(site): State<Site>,
    caller: Caller,
    spec: String,
) -> Result<(StatusCode, Json<api::Submitted>), Refusal> {
    let submitted = take(&site, &caller, &spec).await?;
    let code = if submitted.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((code, Json(submitted)))
}

/// Submits a spec.
pub async fn take(site: &Site, caller: &Caller, spec: &str) -> Result<api::Submitted, Refusal> {
    let answer = site.rpc.submit_text(caller.authorization(), SPEC, spec).await?;
    let status = answer.status.unwrap_or_default();
    Ok(api::Submitted { status: (&status).into(), created: answer.created })
}

pub async fn sweep(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<api::SweepStatus> {
    let answer = site.rpc.get_sweep(caller.request(v1::GetSweepRequest { sweep_id: id })).await?;
    Ok(Json((&answer.into_inner()).into()))
}

/// Changes a sweep.
pub async fn change(
    site: &Site,
    caller: &Caller,
    sweep_id: String,
    change: v1::SweepChange,
) -> Result<api::SweepStatus, Refusal> {
    let request = v1::ChangeSweepRequest { sweep_id, change: change.into() };
    Ok((&site.rpc.change_sweep(caller.request(request)).await?.into_inner()).into())
}

macro_rules! changes {
    ($($name:ident: $change:ident),*) => {
        $(pub async fn $name(
            State(site): State<Site>,
            caller: Caller,
            Path(id): Path<String>,
        ) -> Answer<api::SweepStatus> {
            change(&site, &caller, id, v1::SweepChange::$change).await.map(Json)
        })*
    };
}

changes!(cancel: Cancel, pause: Pause, resume: Resume, retry: Retry);

pub async fn trials(
    State(site): State<Site>,
    Path(id): Path<String>,
    Query(names): Names,
) -> Answer<api::Trials> {
    find(&site, &id, &query(&names, PAGE)?).await.map(Json)
}

/// The trials that a query wants.
pub async fn find(site: &Site, id: &str, query: &TrialQuery) -> Result<api::Trials, Refusal> {
    let view = site.view(id).await?;
    let in_flight = site.in_flight(&view.id).await?;
    Ok(site.live.trials(&view.id, query, &in_flight).await?)
}

/// A query from what an address says; what is empty says nothing.
pub fn query(names: &HashMap<String, String>, page: usize) -> Result<TrialQuery, Refusal> {
    let text = |name: &str| names.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let number = |name: &str| {
        let parse = |text: &str| {
            let wrong = || Refusal::wrong(format!("`{name}` is \"{text}\", which is no whole number"));
            text.parse::<u64>().map_err(|_| wrong())
        };
        text(name).map(parse).transpose()
    };
    let state = |word: &str| {
        let known = TrialState::ALL.into_iter().find(|state| state.name() == word);
        known.ok_or_else(|| {
            let names = TrialState::ALL.map(|state| format!("`{}`", state.name())).join(", ");
            Refusal::wrong(format!("`status` is \"{word}\"; allowed: {names}"))
        })
    };
    let limit = number("limit")?.map_or(page, |limit| usize::try_from(limit).unwrap_or(MOST));
    Ok(TrialQuery {
        status: text("status").map(state).transpose()?,
        strategy: text("strategy").map(str::to_owned),
        worker: text("worker").map(str::to_owned),
        text: text("q").map(str::to_owned),
        after: number("after")?,
        limit: limit.clamp(1, MOST),
    })
}

pub async fn trial(
    State(site): State<Site>,
    Path((id, index)): Path<(String, String)>,
) -> Answer<api::Trial> {
    one_trial(&site, &id, &index).await.map(Json)
}

/// A trial by its number.
pub async fn one_trial(site: &Site, id: &str, index: &str) -> Result<api::Trial, Refusal> {
    let view = site.view(id).await?;
    let in_flight = site.in_flight(&view.id).await?;
    let number = index.parse().map_err(|_| Refusal::wrong(format!("\"{index}\" is no number of a trial")))?;
    site.live.trial(&view, number, &in_flight).await?.ok_or_else(|| {
        Refusal::not_found(format!("there is no trial {number}; the sweep has {}, from 0 on", view.total))
    })
}

pub async fn live(State(site): State<Site>, Path(id): Path<String>) -> Answer<api::Live> {
    let view = site.view(&id).await?;
    Ok(Json(site.live.figures(&view).await?))
}

pub async fn workers(State(site): State<Site>, caller: Caller) -> Answer<api::Workers> {
    list_workers(&site, &caller).await.map(Json)
}

/// All workers.
pub async fn list_workers(site: &Site, caller: &Caller) -> Result<api::Workers, Refusal> {
    let answer = site.rpc.list_workers(caller.request(v1::ListWorkersRequest {})).await?.into_inner();
    Ok(api::Workers { workers: answer.workers.iter().map(api::WorkerStatus::from).collect() })
}

pub async fn drain(
    State(site): State<Site>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<api::Draining> {
    site.rpc.drain_worker(caller.request(v1::DrainWorkerRequest { worker_id: id.clone() })).await?;
    Ok(Json(api::Draining { draining: id }))
}

pub async fn queue(State(site): State<Site>) -> Answer<api::Queue> {
    let now = site.seat.leading()?.snapshot();
    let ready = now.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count();
    Ok(Json(api::Queue { trials: now.waiting(), running: now.in_flight(), workers: ready }))
}

pub async fn health(State(site): State<Site>) -> Json<api::Health> {
    Json(state_of_health(&site))
}

/// How the coordinator does.
pub fn state_of_health(site: &Site) -> api::Health {
    let driver = site.seat.driver();
    let leader = if driver.is_some() { None } else { site.seat.leader() };
    let now = driver.as_ref().map(|driver| driver.snapshot()).unwrap_or_default();
    let unended = |state| matches!(state, StoredState::Running | StoredState::Paused);
    api::Health {
        leading: driver.is_some(),
        leader,
        epoch: driver.as_ref().map(|driver| driver.epoch()),
        store: site.seat.store().location().to_owned(),
        store_stalled: now.stalled.clone(),
        backlog_trials: now.awaiting,
        sweeps: now.sweeps.iter().filter(|sweep| unended(sweep.state)).count(),
        workers_ready: now.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count(),
        workers: now.workers.len(),
        version: env!("CARGO_PKG_VERSION"),
        protocol_version: PROTOCOL_VERSION,
        format_version: FORMAT_VERSION,
    }
}

pub async fn openapi() -> Json<serde_json::Value> {
    Json(super::document())
}
