//! A coordinator that stands by passes calls on to the one that leads, so that any of them may be asked.
//!
//! gRPC and HTTP take the same way, over one connection between the gRPC ports: encrypted where those are. What was passed on
//! once carries [`RELAYED`] and is not passed on again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use evenkeel_common::runtime::COORDINATOR_NAME;
use evenkeel_common::runtime::tls::{Peer, chain};
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tower::{Layer, Service, ServiceExt as _};

use crate::access::{Access, Role};
use crate::limits::{busy, retry_after};
use crate::seat::{LEADER, NOBODY, Seat};

/// The header of what was passed on.
pub const RELAYED: &str = "evenkeel-relayed";
/// Calls at once that are passed on. Fewer than a connection may have, so that none waits for another unseen.
pub const MOST_AT_ONCE: u32 = 1000;
/// When to ask again if that is not enough.
const RETRY: Duration = Duration::from_secs(2);
/// What the store can answer, too.
const READS: [&str; 3] = ["/ListSweeps", "/GetSweep", "/ExportSweep"];
/// Largest question of those, in bytes.
const MOST_KEPT: usize = 1 << 20;

/// What is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call of the service.
    Grpc,
    /// A request for the page or its API.
    Http,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }

    /// What a request is that was passed on.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let name = headers.get(RELAYED)?;
        [Self::Grpc, Self::Http].into_iter().find(|kind| kind.name() == name)
    }
}

/// Whether a coordinator passed a call on, by its certificate: it has counted what its client asks already.
#[must_use]
pub fn is_from_coordinator(headers: &HeaderMap, peer: Option<&Peer>) -> bool {
    headers.contains_key(RELAYED) && peer.is_some_and(|peer| peer.has_name(COORDINATOR_NAME))
}

/// Marks an answer that the leader gave.
#[derive(Clone, Copy, Debug)]
pub struct Relayed;

/// Passes calls on; clones share the places.
#[derive(Clone, Debug)]
pub struct Relay {
    seat: Seat,
    access: Access,
    places: Arc<Semaphore>,
}

impl Relay {
    /// For a coordinator in this seat.
    #[must_use]
    pub fn new(seat: Seat, access: Access) -> Self {
        Self { seat, access, places: Arc::new(Semaphore::new(MOST_AT_ONCE as usize)) }
    }

    /// The way that a request with these headers has to take; none when it is answered here.
    #[must_use]
    pub fn way(&self, headers: &HeaderMap) -> Option<Channel> {
        if headers.contains_key(RELAYED) { None } else { self.seat.way() }
    }

    /// The leader's answer, its body still to come.
    ///
    /// # Errors
    /// When too much is passed on already, with the time to ask again ([`retry_after`]), or the leader is gone.
    pub async fn pass(
        &self,
        way: Channel,
        mut request: Request<Body>,
        kind: Kind,
    ) -> Result<Response<Body>, Status> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            busy(format!("{MOST_AT_ONCE} calls are passed on already; ask again in a moment"), RETRY)
        })?;
        request.headers_mut().insert(RELAYED, HeaderValue::from_static(kind.name()));
        // What is known of the client's connection is nothing to the next.
        request.extensions_mut().clear();
        *request.version_mut() = Version::HTTP_2;
        let answer = way.oneshot(request).await.map_err(|error| Status::from_error(error.into()))?;
        let mut answer = answer.map(|body| Body::new(Passing { body, kind, _place: place }));
        answer.extensions_mut().insert(Relayed);
        Ok(answer)
    }

    /// A call of the service: the leader's answer, or without it what can be said here.
    async fn call<S>(self, way: Channel, here: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let (head, body) = request.into_parts();
        let (kept, body) = if READS.iter().any(|read| head.uri.path().ends_with(read)) {
            let Ok(body) = Limited::new(body, MOST_KEPT).collect().await else {
                return Status::invalid_argument(format!("a question has {MOST_KEPT} bytes at most"))
                    .into_http();
            };
            let body = Full::new(body.to_bytes());
            (Some(Request::from_parts(head.clone(), Body::new(body.clone()))), Body::new(body))
        } else {
            (None, body)
        };
        let shown = head.headers.get(header::AUTHORIZATION).cloned();
        let status = match self.pass(way, Request::from_parts(head, body), Kind::Grpc).await {
            Ok(answer) => return answer,
            Err(status) => status,
        };
        if retry_after(&status).is_some() {
            return status.into_http();
        }
        tracing::debug!(reason = chain(&status), "call not passed on");
        match kept {
            Some(request) => match here.oneshot(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            },
            // Who leads is told to those who may read.
            None => match self.access.check(shown.as_ref().map(HeaderValue::as_bytes), Role::Read) {
                Ok(()) => self.seat.refusal().into_http(),
                Err(denied) => Status::from(denied).into_http(),
            },
        }
    }
}

/// The body of an answer on its way.
struct Passing {
    body: Body,
    kind: Kind,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let passing = self.get_mut();
        match ready!(Pin::new(&mut passing.body).poll_frame(cx)) {
            Some(Err(status)) if passing.kind == Kind::Grpc => {
                passing.body = Body::empty();
                Poll::Ready(Some(gone(&status).map(Frame::trailers)))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a client hears when the leader dies in the middle of an answer: as of one that stands by, so that it asks again.
fn gone(reason: &Status) -> Result<HeaderMap, Status> {
    let mut status = Status::unavailable(format!(
        "the coordinator that led is gone in the middle of its answer ({}); ask again in a few seconds",
        chain(reason)
    ));
    status.metadata_mut().insert(LEADER, MetadataValue::from_static(NOBODY));
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

/// A service whose calls the leader answers, if another coordinator leads.
#[derive(Clone, Debug)]
pub struct Relaying<S> {
    /// The service here.
    pub here: S,
    /// What passes them on.
    pub relay: Relay,
}

impl<S: NamedService> NamedService for Relaying<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Relaying<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.here.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(way) = self.relay.way(request.headers()) else { return Box::pin(self.here.call(request)) };
        let (relay, here) = (self.relay.clone(), self.here.clone());
        Box::pin(async move { Ok(relay.call(way, here, request).await) })
    }
}

/// The other end of the way: requests for the page that come to the gRPC port because they were passed on.
#[derive(Clone, Debug)]
pub struct Arrivals(pub Option<Router>);

impl<S> Layer<S> for Arrivals {
    type Service = Arriving<S>;

    fn layer(&self, grpc: S) -> Arriving<S> {
        Arriving { grpc, http: self.0.clone() }
    }
}

/// A service beside which the page is served to other coordinators.
#[derive(Clone, Debug)]
pub struct Arriving<S> {
    grpc: S,
    http: Option<Router>,
}

impl<S> Service<Request<Body>> for Arriving<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.http.clone().filter(|_| Kind::of(request.headers()) == Some(Kind::Http)) {
            Some(http) => Box::pin(async move { Ok(http.oneshot(request).await?.map(Body::new)) }),
            None => Box::pin(self.grpc.call(request)),
        }
    }
}

#[cfg(test)]
mod tests;
