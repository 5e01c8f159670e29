//! What a coordinator that stands by is asked over HTTP, the one that leads answers.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::{MAX_BODY, Refusal, Site};
use crate::limits::retry_after;
use crate::relay::Kind;

/// What concerns this coordinator alone, or is the same everywhere.
const OWN: [&str; 5] = ["/healthz", "/readyz", "/leadz", "/metrics", "/assets/"];

/// The leader's answer where another coordinator leads; where it is not reached, what can be said here.
pub async fn by_leader(State(site): State<Site>, request: Request, next: Next) -> Response {
    let own = OWN.iter().any(|own| request.uri().path().starts_with(own));
    let known = matches!(*request.method(), Method::GET | Method::HEAD | Method::POST);
    let Some(way) = site.relay.way(request.headers()).filter(|_| known && !own) else {
        return next.run(request).await;
    };
    // Kept, to be answered here if need be.
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, format!("a request has {MAX_BODY} bytes at most\n"))
            .into_response();
    };
    let request = Request::from_parts(head, body);
    match site.relay.pass(way, passed_on(&request), Kind::Http).await {
        Ok(answer) if !is_grpc(&answer) => answer.map(Body::new),
        Err(status) if retry_after(&status).is_some() => Refusal::from(status).into_response(),
        // The leader is gone, or of a version that does not know what this is.
        Ok(_) | Err(_) => next.run(request.map(Body::from)).await,
    }
}

/// A request as the next one gets it: all headers but those of this connection.
fn passed_on(request: &Request<Bytes>) -> tonic::codegen::http::Request<tonic::body::Body> {
    let mut next = request.clone();
    let headers = next.headers_mut();
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    let fixed =
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    // How long its body is, the next connection says in its own way.
    let counted = ["content-length", "expect"];
    for name in named.iter().map(String::as_str).chain(fixed).chain(counted) {
        headers.remove(name);
    }
    next.map(|body| tonic::body::Body::new(http_body_util::Full::new(body)))
}

fn is_grpc<B>(answer: &tonic::codegen::http::Response<B>) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}
