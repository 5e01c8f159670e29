//! HTTP beside gRPC: health for Kubernetes, metrics for Prometheus.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::hub::HubStatus;
use crate::metrics::{Exposition, MEDIA_TYPE};

/// The routes.
pub fn router(status: watch::Receiver<HubStatus>, exposition: Exposition) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(status)
        .merge(Router::new().route("/metrics", get(metrics)).with_state(exposition))
}

async fn readyz(State(status): State<watch::Receiver<HubStatus>>) -> Response {
    if status.borrow().ready_slots > 0 {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no slot is ready\n").into_response()
    }
}

async fn metrics(State(exposition): State<Exposition>) -> Response {
    match exposition.text() {
        Ok(text) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
