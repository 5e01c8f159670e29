//! HTTP beside gRPC: health for Kubernetes, metrics for Prometheus.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::hub::HubStatus;

/// The routes.
pub fn router(status: watch::Receiver<HubStatus>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status)
}

async fn readyz(State(status): State<watch::Receiver<HubStatus>>) -> Response {
    if status.borrow().ready_slots > 0 {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no slot is ready\n").into_response()
    }
}

async fn metrics(State(status): State<watch::Receiver<HubStatus>>) -> Response {
    let now = *status.borrow();
    let mut text = String::new();
    for (name, kind, help, value) in [
        ("evenkeel_worker_packs_running", "gauge", "Packs that run.", now.running as u64),
        ("evenkeel_worker_packs_waiting", "gauge", "Packs that wait.", now.waiting as u64),
        ("evenkeel_worker_packs_finished_total", "counter", "Packs that were finished.", now.finished),
        ("evenkeel_worker_packs_failed_total", "counter", "Packs that were given up.", now.failed),
        ("evenkeel_worker_trials_total", "counter", "Trials that were delivered.", now.trials),
        (
            "evenkeel_worker_outbox_bytes",
            "gauge",
            "Results that wait for acknowledgement.",
            now.outbox_bytes as u64,
        ),
        (
            "evenkeel_worker_connected",
            "gauge",
            "Whether a coordinator is connected.",
            u64::from(now.connected),
        ),
    ] {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
