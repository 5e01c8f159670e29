//! HTTP beside gRPC: health for Kubernetes, metrics for Prometheus, JSON for scripts.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::access::{Access, Denied, Role};
use crate::driver::{DriverHandle, Snapshot, SweepView, WorkerState, WorkerView, state_name};
use crate::metrics::{self, Exposition};

/// The routes; `driver` is none until this coordinator leads. What probes and Prometheus ask is open to all.
pub fn router(
    driver: tokio::sync::watch::Receiver<Option<DriverHandle>>,
    exposition: Exposition,
    access: Access,
) -> Router {
    Router::new()
        .route("/api/v1/sweeps", get(sweeps))
        .route("/api/v1/sweeps/{id}", get(sweep))
        .route("/api/v1/workers", get(workers))
        .route("/", get(page))
        .route_layer(middleware::from_fn_with_state(access, readers_only))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(driver)
        .merge(Router::new().route("/metrics", get(exposed)).with_state(exposition))
}

async fn readers_only(State(access): State<Access>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    let denied = match access.check(shown, Role::Read) {
        Ok(()) => return next.run(request).await,
        Err(denied) => denied,
    };
    let says = match denied {
        Denied::Missing => "this coordinator asks for a token: send `Authorization: Bearer TOKEN`".to_owned(),
        denied => denied.to_string(),
    };
    let body = Json(json!({ "error": says }));
    match denied {
        Denied::TooSmall { .. } => (StatusCode::FORBIDDEN, body).into_response(),
        _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response(),
    }
}

type Driver = State<tokio::sync::watch::Receiver<Option<DriverHandle>>>;

fn snapshot(driver: &Driver) -> Option<std::sync::Arc<Snapshot>> {
    driver.borrow().as_ref().map(DriverHandle::snapshot)
}

fn standby() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "another coordinator leads; this one stands by\n").into_response()
}

async fn readyz(driver: Driver) -> Response {
    match snapshot(&driver) {
        None => standby(),
        Some(now) => match &now.stalled {
            Some(reason) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("the store takes no results: {reason}\n"))
                    .into_response()
            }
            None => "ok\n".into_response(),
        },
    }
}

async fn sweeps(driver: Driver) -> Response {
    let Some(now) = snapshot(&driver) else { return standby() };
    Json(json!({ "sweeps": now.sweeps.iter().map(sweep_json).collect::<Vec<_>>() })).into_response()
}

async fn sweep(driver: Driver, Path(id): Path<String>) -> Response {
    let Some(now) = snapshot(&driver) else { return standby() };
    match now.sweeps.iter().find(|sweep| sweep.id.as_str() == id) {
        Some(view) => Json(sweep_json(view)).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "there is no such sweep" }))).into_response(),
    }
}

async fn workers(driver: Driver) -> Response {
    let Some(now) = snapshot(&driver) else { return standby() };
    Json(json!({ "workers": now.workers.iter().map(worker_json).collect::<Vec<_>>() })).into_response()
}

/// A sweep as the JSON of the API and of `--json`.
#[must_use]
pub fn sweep_json(view: &SweepView) -> Value {
    json!({
        "id": view.id, "name": view.name, "state": state_name(view.state), "trials": view.total,
        "completed": view.counts.completed, "diverged": view.counts.diverged, "failed": view.counts.failed,
        "running": view.running, "submitted_ms": view.submitted_ms, "seconds": view.seconds,
        "priority": view.priority, "trials_per_second": view.trials_per_second, "notice": view.notice,
    })
}

fn worker_json(view: &WorkerView) -> Value {
    json!({
        "id": view.record.id, "address": view.record.address, "version": view.record.version,
        "device": view.record.device, "slots": view.record.slots, "state": view.state.name(),
        "reason": view.reason, "packs": view.packs, "sweep": view.sweep, "flops_per_second": view.speed,
        "failures": view.failures, "trials_done": view.trials_done,
    })
}

async fn exposed(State(exposition): State<Exposition>) -> Response {
    match exposition.text() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn page(driver: Driver) -> Response {
    let Some(now) = snapshot(&driver) else { return standby() };
    let mut rows = String::new();
    for sweep in &now.sweeps {
        let done = sweep.counts.total();
        let _ = write!(
            rows,
            "<tr><td>{}<td>{}<td>{done} / {}<td>{}<td>{:.0}",
            sweep.id,
            state_name(sweep.state),
            sweep.total,
            sweep.counts.failed,
            sweep.trials_per_second
        );
    }
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2><title>Evenkeel</title>\
         <meta name=viewport content='width=device-width'><style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 \
         system-ui;margin:2rem}}td,th{{padding:.2rem 1rem;text-align:left}}</style><h1>Evenkeel</h1><p>{} workers ready\
         <table><tr><th>sweep<th>state<th>trials<th>failed<th>trials/s{rows}</table>",
        now.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count(),
    ))
    .into_response()
}
