//! A connection to the coordinator that leads, whichever of several that is.

use std::future::Future;
use std::time::Duration;

use evenkeel_common::runtime::secret::Bearer;
use evenkeel_common::runtime::tls::{DialError, Tls, chain};
use evenkeel_common::runtime::trace::{self, Span, SpanKind, TRACEPARENT, TraceContext};
use evenkeel_proto::MAX_MESSAGE_BYTES;
use evenkeel_proto::v1::sweep_service_client::SweepServiceClient;
use tokio::time::Instant;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::args::ClientArgs;
use super::exit::Failure;
use crate::calls;
use crate::dispatch::connect;
use crate::limits::retry_after;
use crate::seat::{LEADER, NOBODY};

/// A client of one coordinator.
pub(super) type Client = SweepServiceClient<InterceptedService<Channel, Shown>>;

/// What every call carries: the token, and the trace it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Shown(Bearer);

impl Interceptor for Shown {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let mut request = self.0.call(request)?;
        let value = TraceContext::current().and_then(|context| context.to_string().parse().ok());
        if let Some(value) = value {
            request.metadata_mut().insert(TRACEPARENT, value);
        }
        Ok(request)
    }
}

/// How long an election may take: a lease runs out, and the store is loaded.
const ELECTION: Duration = Duration::from_secs(30);
/// How long a sweep is followed without a coordinator.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);
/// How long somebody is asked who takes connections and never answered.
const STRANGER: Duration = Duration::from_secs(5);

/// What is shown to coordinators, and what they are recognised by.
#[derive(Debug)]
struct Keys {
    bearer: Bearer,
    tls: Tls,
}

/// A connection that follows the leader.
pub(super) struct Connection {
    endpoints: Vec<String>,
    keys: Keys,
    client: Client,
    /// The endpoint it leads to.
    at: String,
    /// A coordinator has answered.
    heard: bool,
}

impl Connection {
    /// Connects to the first coordinator that answers.
    pub async fn open(args: &ClientArgs) -> Result<Self, Failure> {
        let endpoints = args.endpoint.clone();
        let keys = Keys {
            bearer: Bearer::find(args.token_file.as_deref()).map_err(Failure::usage)?,
            tls: Tls::for_client(args.tls.files()).map_err(Failure::usage)?,
        };
        let (at, client) = any(&endpoints, &keys).await?;
        Ok(Self { endpoints, keys, client, at, heard: false })
    }

    /// Asks the leader: a coordinator that stands by names it, and one that is gone is looked for at the other endpoints. What
    /// is asked may be asked twice.
    ///
    /// `method` is the call's name, for the trace.
    pub async fn ask<T, F>(&mut self, method: &'static str, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let give_up = Instant::now() + ELECTION;
        loop {
            let status = match traced(method, call(self.client.clone())).await {
                Ok(response) => {
                    self.heard = true;
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };
            let refusal = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok());
            match refusal {
                Some(leader) if leader != NOBODY && leader != self.at => {
                    if let Ok(client) = reach(leader, &self.keys).await {
                        (self.at, self.client) = (leader.to_owned(), client);
                        continue;
                    }
                }
                Some(_) => {}
                None if let Some(wait) = retry_after(&status) => {
                    if Instant::now() + wait >= give_up {
                        return Err(status.into());
                    }
                    tokio::time::sleep(wait).await;
                    continue;
                }
                None if is_locked_out(&status) => return Err(locked_out(&status)),
                None if is_gone(&status) => {
                    if !self.heard && Instant::now() >= give_up - ELECTION + STRANGER {
                        return Err(unheard(&self.at, &status));
                    }
                }
                None => return Err(status.into()),
            }
            if Instant::now() >= give_up {
                return Err(status.into());
            }
            // An election is on, or its winner is not heard yet.
            tokio::time::sleep(PAUSE).await;
            (self.at, self.client) = any(&self.endpoints, &self.keys).await?;
        }
    }

    /// Connects again after the coordinator was lost, with patience.
    pub async fn again(&mut self) -> Result<(), Failure> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            tokio::time::sleep(PAUSE).await;
            match any(&self.endpoints, &self.keys).await {
                Ok((at, client)) => {
                    (self.at, self.client) = (at, client);
                    return Ok(());
                }
                Err(failure) if Instant::now() >= give_up => return Err(failure),
                Err(_) => {}
            }
        }
    }
}

/// A call, shown as a part of the trace of the command.
async fn traced<T>(
    method: &'static str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    let shown = |parent: &TraceContext| trace::is_on() && parent.is_sampled();
    let Some(parent) = TraceContext::current().filter(shown) else { return call.await };
    let name = format!("evenkeel.v1.SweepService/{method}");
    let context = parent.child();
    let span = Span::begin(name.clone(), SpanKind::Client, context, Some(parent));
    let answer = context.within(call).await;
    let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
    let mut span = span
        .with("rpc.system.name", "grpc")
        .with("rpc.method", name)
        .with("rpc.response.status_code", calls::name(code));
    span.error = answer.as_ref().err().map(|status| status.message().to_owned());
    span.finish();
    answer
}

/// Whether a call failed because nobody is at the other end any more, or the leader is gone behind who passed it on.
pub(super) fn is_gone(status: &Status) -> bool {
    if status.metadata().contains_key(LEADER) {
        return true;
    }
    let transport = std::error::Error::source(status).is_some();
    transport && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

/// Whether the coordinator ended the connection because it does not accept the certificate, or wants one.
fn is_locked_out(status: &Status) -> bool {
    chain(status).contains("received fatal alert")
}

fn locked_out(status: &Status) -> Failure {
    let why = chain(status);
    let alert = why.rsplit("received fatal alert: ").next().unwrap_or_default();
    Failure::usage(format!(
        "the coordinator does not accept this client's certificate, or it has none ({alert}): name one that the \
         coordinator's authority signed with --tls-cert and --tls-key"
    ))
}

fn unheard(endpoint: &str, status: &Status) -> Failure {
    let hint = if endpoint.starts_with("https:") {
        "is it a coordinator's gRPC port?"
    } else {
        "is it a coordinator's gRPC port? If it is encrypted, give its address as https:// and name who signs its certificate \
         with --tls-ca"
    };
    Failure::unavailable(format!(
        "{endpoint} takes connections but does not answer as a coordinator does ({}); {hint}",
        chain(status)
    ))
}

async fn reach(endpoint: &str, keys: &Keys) -> Result<Client, DialError> {
    let channel = connect(endpoint, &keys.tls).await?;
    Ok(SweepServiceClient::with_interceptor(channel, Shown(keys.bearer.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// The first endpoint that answers.
async fn any(endpoints: &[String], keys: &Keys) -> Result<(String, Client), Failure> {
    let mut tried = Vec::new();
    for endpoint in endpoints {
        match reach(endpoint, keys).await {
            Ok(client) => return Ok((endpoint.clone(), client)),
            Err(error) => tried.push(format!("{endpoint}: {error}")),
        }
    }
    Err(Failure::unavailable(format!(
        "no coordinator answers at {}\n  start one with `evenkeel coordinator`, or name another with --endpoint",
        tried.join(", nor at ")
    )))
}
