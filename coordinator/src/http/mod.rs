//! HTTP beside gRPC: health for Kubernetes, metrics for Prometheus, a JSON API for programs and a page for people.
//!
//! | module | holds |
//! |---|---|
//! | `api` | what the JSON API answers |
//! | `routes` | its routes in one table, and the document that describes them |
//! | `caller` | who asks: a token in a header or in the page's cookie; requests that another site caused |
//! | `relay` | what the coordinator that leads answers instead |
//! | `page` | the page |

mod api;
mod caller;
mod page;
mod relay;
mod routes;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use evenkeel_common::id::SweepId;
use tonic::{Code, Status};

use self::caller::Caller;
pub use self::routes::document;
use crate::access::{Access, Denied, Role};
use crate::collect::CollectError;
use crate::core::PackStatus;
use crate::driver::{CommandError, SweepView};
use crate::limits::Throttle;
use crate::live::Live;
use crate::metrics::{self, Exposition};
use crate::relay::Relay;
use crate::rpc::{SweepRpc, collect_status, parse_id, to_status};
use crate::seat::Seat;
use crate::store::StoreError;

/// Largest body of a request, in bytes: a spec.
const MAX_BODY: usize = 1 << 20;

/// What answers are made from; cheap to clone.
#[derive(Clone)]
pub struct Site {
    /// The service that gRPC serves: both give the same answers and refusals.
    pub rpc: SweepRpc,
    /// Who leads.
    pub seat: Seat,
    /// The way to who leads.
    pub relay: Relay,
    /// Who may do what.
    pub access: Access,
    /// How much of it.
    pub throttle: Throttle,
    /// Figures of sweeps.
    pub live: Live,
    /// Metrics.
    pub exposition: Exposition,
}

/// All routes. What probes and Prometheus ask, the files of the page and signing in are open to all.
pub fn router(site: Site) -> Router {
    let readers = |router: Router<Site>, denied: fn(&Site, &Request, Denied) -> Response| {
        let check = move |State(site): State<Site>, caller: Caller, request: Request, next: Next| async move {
            match site.access.check(caller.authorization(), Role::Read) {
                Ok(()) => next.run(request).await,
                Err(reason) => denied(&site, &request, reason),
            }
        };
        router.route_layer(middleware::from_fn_with_state(site.clone(), check))
    };
    readers(routes::router(), |_, _, reason| Refusal::from(reason).into_response())
        .merge(readers(page::router(), page::denied))
        .merge(page::open_router())
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/leadz", get(leadz))
        .route("/metrics", get(exposed))
        .layer(middleware::from_fn_with_state(site.clone(), relay::by_leader))
        .layer(middleware::from_fn(own_site_only))
        .layer(middleware::from_fn(guarded))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(site)
}

/// Refuses changes that a page of another site makes a browser ask for.
async fn own_site_only(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    match caller::foreign(request.headers()).filter(|_| changes) {
        Some(reason) => Refusal::from(Status::permission_denied(reason)).into_response(),
        None => next.run(request).await,
    }
}

/// Headers that keep what is shown to itself.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
             frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The origin is what a change is checked by: `no-referrer` would hide it.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Whether calls are answered, here or by the leader.
async fn readyz(State(site): State<Site>) -> Response {
    match site.seat.ready() {
        Ok(how) => format!("{how}\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// Whether this is the one that leads, for who looks for it.
async fn leadz(State(site): State<Site>) -> Response {
    match site.seat.driver() {
        Some(driver) => format!("leading, epoch {}\n", driver.epoch()).into_response(),
        None => {
            let who = site
                .seat
                .leader()
                .map_or_else(|| "none known".to_owned(), |leader| format!("{leader} leads"));
            (StatusCode::SERVICE_UNAVAILABLE, format!("standing by; {who}\n")).into_response()
        }
    }
}

async fn exposed(State(site): State<Site>) -> Response {
    match site.exposition.text() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Site {
    /// A sweep, as fresh as it is to be had.
    async fn view(&self, id: &str) -> Result<SweepView, Refusal> {
        let id = parse_id(id)?;
        if let Some(driver) = self.seat.driver() {
            driver.refresh().await?;
        }
        self.seat.find_sweep(&id).await?.ok_or_else(|| CommandError::UnknownSweep { id }.into())
    }

    /// Its packs in flight; none where another coordinator leads.
    async fn in_flight(&self, id: &SweepId) -> Result<Vec<PackStatus>, Refusal> {
        match self.seat.driver() {
            Some(driver) => Ok(driver.in_flight(id).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Whether who asks may do what this role may.
    fn may(&self, caller: &Caller, role: Role) -> bool {
        self.access.check(caller.authorization(), role).is_ok()
    }
}

/// Why there is no answer: a gRPC status, as HTTP says it.
#[derive(Debug)]
struct Refusal(Status);

impl Refusal {
    fn code(&self) -> StatusCode {
        match self.0.code() {
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn message(&self) -> &str {
        self.0.message()
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self(Status::not_found(message))
    }

    fn wrong(message: impl Into<String>) -> Self {
        Self(Status::invalid_argument(message))
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Self(to_status(&error))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let missing = matches!(error, StoreError::Missing { .. });
        if missing { Self::not_found(error.to_string()) } else { CommandError::Store(error).into() }
    }
}

impl From<CollectError> for Refusal {
    fn from(error: CollectError) -> Self {
        Self(collect_status(&error))
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self(match denied {
            Denied::Missing => Status::unauthenticated(
                "this coordinator asks for a token: send `Authorization: Bearer TOKEN`",
            ),
            denied => denied.into(),
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(crate::api::Error { error: self.message().to_owned() });
        let mut response = (self.code(), body).into_response();
        let headers = response.headers_mut();
        if self.0.code() == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = crate::limits::retry_after(&self.0) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}
