//! The standard variables of OpenTelemetry
//! ([specification](https://opentelemetry.io/docs/specs/otel/protocol/exporter/)), as far as the exporters do not read them
//! themselves.

use std::env;
use std::time::Duration;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Counters, gauges and histograms.
    Metrics,
    /// Log lines.
    Logs,
}

impl Signal {
    fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }
}

/// A configuration of OpenTelemetry that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A variable.
    #[error("{variable} is `{found}`: expected {expected}")]
    Variable {
        /// Its name.
        variable: String,
        /// What it says.
        found: String,
        /// What it may say.
        expected: &'static str,
    },
    /// An exporter did not start.
    #[error("exporting {what} by OTLP cannot be started: {reason}; check the OTEL_EXPORTER_OTLP_… variables")]
    Exporter {
        /// Of what.
        what: &'static str,
        /// What it says.
        reason: String,
    },
}

pub(super) fn failed(signal: Signal, error: &dyn std::fmt::Display) -> TelemetryError {
    let what = match signal {
        Signal::Traces => "traces",
        Signal::Metrics => "metrics",
        Signal::Logs => "logs",
    };
    TelemetryError::Exporter { what, reason: error.to_string() }
}

/// The value of a variable; one that is empty is not set.
fn find(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// `OTEL_EXPORTER_OTLP_<signal>_<name>`, or what holds for all signals.
fn find_for(signal: Signal, name: &str) -> Option<String> {
    find(&format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.variable()))
        .or_else(|| find(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// Whether a signal is to be exported: when an endpoint is named, or its exporter is; nobody listens on a default port unless
/// somebody says so.
pub(super) fn wanted(signal: Signal) -> Result<bool, TelemetryError> {
    if find("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let variable = format!("OTEL_{}_EXPORTER", signal.variable());
    match find(&variable).as_deref() {
        None => Ok(find_for(signal, "ENDPOINT").is_some()),
        Some("otlp") => Ok(true),
        Some("none") => Ok(false),
        // Metrics are always there for Prometheus to scrape.
        Some("prometheus") if signal == Signal::Metrics => Ok(false),
        Some(other) => {
            Err(TelemetryError::Variable { variable, found: other.to_owned(), expected: "`otlp` or `none`" })
        }
    }
}

/// With this name, unless the environment gives another.
pub(super) fn named(resource: Resource, name: &'static str) -> Resource {
    let key = Key::from_static_str("service.name");
    let given = resource.get(&key).filter(|found| !found.as_str().starts_with("unknown_service"));
    if given.is_some() {
        return resource;
    }
    let rest = resource.iter().filter(|(other, _)| **other != key);
    let rest: Vec<KeyValue> = rest.map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    Resource::builder_empty().with_attributes(rest).with_attribute(KeyValue::new(key, name)).build()
}

/// How metrics are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// By HTTP, or else by gRPC.
    pub http: bool,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub every: Duration,
    pub timeout: Duration,
}

/// Where metrics are sent.
pub(super) fn metrics_target() -> Result<Target, TelemetryError> {
    let signal = Signal::Metrics;
    let protocol = find_for(signal, "PROTOCOL");
    let http = match protocol.as_deref() {
        None | Some("http/protobuf") => true,
        Some("grpc") => false,
        Some(other) => {
            return Err(TelemetryError::Variable {
                variable: "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(),
                found: other.to_owned(),
                expected: "`grpc` or `http/protobuf`",
            });
        }
    };
    let own = find("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
    let default = if http { "http://localhost:4318" } else { "http://localhost:4317" };
    let base = find("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_else(|| default.to_owned());
    let url = match own {
        Some(url) => url,
        None if http => format!("{}/{}", base.trim_end_matches('/'), signal.path()),
        None => base,
    };
    let headers = find_for(signal, "HEADERS").unwrap_or_default();
    let milliseconds = |name: String, default: u64| match find(&name) {
        None => Ok(Duration::from_millis(default)),
        Some(text) => match text.parse::<u64>() {
            Ok(count) if count > 0 => Ok(Duration::from_millis(count)),
            _ => Err(TelemetryError::Variable {
                variable: name,
                found: text,
                expected: "a number of milliseconds",
            }),
        },
    };
    Ok(Target {
        http,
        url,
        headers: headers
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        every: milliseconds("OTEL_METRIC_EXPORT_INTERVAL".to_owned(), 60_000)?,
        timeout: milliseconds("OTEL_METRIC_EXPORT_TIMEOUT".to_owned(), 10_000)?,
    })
}
