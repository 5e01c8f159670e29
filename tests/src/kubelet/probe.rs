//! Probes of containers, asked as Kubernetes asks: from the node, at the pod's address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::container::Container;
use crate::helm::{entries, items};

/// A probe of a container, and how it went until now.
#[derive(Debug)]
pub(super) struct Probe {
    spec: Value,
    next: Instant,
    successes: u64,
    failures: u64,
}

/// What a probe knows by now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Undecided,
    Good,
    Bad,
}

impl Probe {
    /// The probe of this name that a container has, if it has one.
    pub(super) fn of(container: &Value, name: &str) -> Option<Self> {
        let spec = container.get(name)?.clone();
        let delay = Duration::from_secs(spec["initialDelaySeconds"].as_u64().unwrap_or(0));
        Some(Self { spec, next: Instant::now() + delay, successes: 0, failures: 0 })
    }

    /// Asks, if it is time to.
    pub(super) fn ask(
        &mut self,
        container: &Container,
        spec: &Value,
        address: &str,
    ) -> anyhow::Result<Verdict> {
        let seconds = |key: &str, otherwise| self.spec[key].as_u64().unwrap_or(otherwise);
        if Instant::now() >= self.next {
            self.next = Instant::now() + Duration::from_secs(seconds("periodSeconds", 10));
            let limit = Duration::from_secs(seconds("timeoutSeconds", 1));
            if act(&self.spec, container, spec, address, limit)? {
                (self.successes, self.failures) = (self.successes + 1, 0);
            } else {
                (self.successes, self.failures) = (0, self.failures + 1);
            }
        }
        let count = |key: &str, otherwise| self.spec[key].as_u64().unwrap_or(otherwise);
        Ok(match () {
            () if self.successes >= count("successThreshold", 1) => Verdict::Good,
            () if self.failures >= count("failureThreshold", 3) => Verdict::Bad,
            () => Verdict::Undecided,
        })
    }
}

/// Keys of a probe that say when it is asked, and not how.
const TIMES: [&str; 6] = [
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
    "terminationGracePeriodSeconds",
];

/// Does what a probe or a hook says: whether it succeeded.
pub(super) fn act(
    action: &Value,
    container: &Container,
    spec: &Value,
    address: &str,
    limit: Duration,
) -> anyhow::Result<bool> {
    let kinds: Vec<&String> =
        entries(action).map(|(key, _)| key).filter(|key| !TIMES.contains(&key.as_str())).collect();
    let [kind] = kinds[..] else { bail!("nothing here knows such a probe: {action}") };
    let action = &action[kind];
    match kind.as_str() {
        "grpc" => Ok(serves(address, &action["port"], action["service"].as_str().unwrap_or_default(), limit)),
        "httpGet" => {
            if action.get("scheme").is_some_and(|scheme| scheme != "HTTP") || action.get("host").is_some() {
                bail!("nothing here knows such a probe: {action}");
            }
            let path = action["path"].as_str().unwrap_or("/");
            Ok(answers(address, port(spec, &action["port"])?, path, limit).is_ok_and(|good| good))
        }
        "tcpSocket" => Ok(connect(address, port(spec, &action["port"])?, limit).is_ok()),
        "exec" => {
            let words = items(&action["command"]).map(|word| word.as_str().unwrap_or_default().to_owned());
            container.execute(&words.collect::<Vec<_>>(), limit)
        }
        "sleep" => {
            std::thread::sleep(Duration::from_secs(action["seconds"].as_u64().unwrap_or(0)).min(limit));
            Ok(true)
        }
        _ => bail!("nothing here knows a probe by {kind}"),
    }
}

/// A port by its number or by its name.
fn port(container: &Value, port: &Value) -> anyhow::Result<u16> {
    let number = match port.as_str() {
        None => port.as_u64(),
        Some(name) => {
            let named = items(&container["ports"]).find(|port| port["name"] == name);
            named.and_then(|port| port["containerPort"].as_u64())
        }
    };
    Ok(u16::try_from(number.with_context(|| format!("no port {port}"))?)?)
}

fn connect(address: &str, port: u16, limit: Duration) -> anyhow::Result<TcpStream> {
    let address: SocketAddr = format!("{address}:{port}").parse()?;
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    Ok(stream)
}

fn answers(address: &str, port: u16, path: &str, limit: Duration) -> anyhow::Result<bool> {
    let mut stream = connect(address, port, limit)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}:{port}\r\nUser-Agent: kube-probe/1.34\r\n\r\n")?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let code = std::str::from_utf8(&line[9..])?.parse::<u16>()?;
    Ok((200..400).contains(&code))
}

/// Whether a service says by gRPC that it serves.
fn serves(address: &str, port: &Value, service: &str, limit: Duration) -> bool {
    let ask = async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}:{port}"))?;
        let channel = endpoint.connect_timeout(limit).timeout(limit).connect().await?;
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel).check(request).await?;
        anyhow::Ok(answer.into_inner().status() == ServingStatus::Serving)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.is_ok_and(|runtime| runtime.block_on(ask).is_ok_and(|serving| serving))
}
