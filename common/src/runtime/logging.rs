//! Log lines on standard error, each with the trace and the span it belongs to.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use serde_json::json;
use tracing::{Event, Subscriber};
use tracing_serde::AsSerde as _;
use tracing_serde::fields::AsMap as _;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::trace::TraceContext;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

type Filter = reload::Handle<EnvFilter, Registry>;
static FILTER: OnceLock<Filter> = OnceLock::new();

/// Starts logging; `RUST_LOG` overrides `default` (as in `info,evenkeel=debug`). Lines go to `bridge` as well. A second call changes
/// nothing.
pub(super) fn start<L>(default: &str, format: LogFormat, bridge: Option<L>)
where
    L: Layer<Filtered> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(terminal).fmt_fields(Traced(DefaultFields::new())).boxed(),
        LogFormat::Auto if terminal => lines.fmt_fields(Traced(DefaultFields::new())).boxed(),
        LogFormat::Auto | LogFormat::Json => lines.event_format(Json).boxed(),
    };
    // What exporting itself says must not be exported.
    let elsewhere = |target: &str| {
        ["opentelemetry", "hyper", "h2", "tonic", "tower", "reqwest"]
            .iter()
            .any(|own| target.starts_with(own))
    };
    let bridge = bridge.map(|bridge| bridge.with_filter(filter_fn(move |event| !elsewhere(event.target()))));
    let subscriber = Registry::default().with(filter).with(bridge).with(lines);
    // An error only says that somebody (a test) started logging before.
    if subscriber.try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// What is below lines and bridge.
pub(super) type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

/// Whether these are directives as in `RUST_LOG` (`debug`, `info,evenkeel_coordinator=trace`).
///
/// # Errors
/// In words, when they are not.
pub fn check_log_filter(directives: &str) -> Result<(), String> {
    parsed(directives).map(drop)
}

/// Changes which lines are written from now on.
///
/// # Errors
/// In words, when these are no directives, or logging was not started.
pub fn set_log_filter(directives: &str) -> Result<(), String> {
    let filter = parsed(directives)?;
    let handle = FILTER.get().ok_or("logging was not started here")?;
    handle.reload(filter).map_err(|error| error.to_string())
}

fn parsed(directives: &str) -> Result<EnvFilter, String> {
    let expected = "expected such as `debug`, or `info,evenkeel_coordinator=debug`";
    // An empty list would silence everything.
    if directives.trim().is_empty() {
        return Err(format!("no log filter was given; {expected}"));
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| format!("`{directives}` is no log filter ({error}); {expected}"))
}

/// Fields for people, and behind them the trace.
struct Traced(DefaultFields);

impl<'writer> FormatFields<'writer> for Traced {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        match TraceContext::current() {
            Some(context) => {
                write!(writer, " trace_id={} span_id={}", context.trace_id(), context.span_id())
            }
            None => Ok(()),
        }
    }
}

/// A JSON object a line.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let mut line = json!({
            "timestamp": timestamp,
            "level": metadata.level().as_serde(),
            "target": metadata.target(),
            "fields": event.field_map(),
        });
        if let (Some(context), Some(line)) = (TraceContext::current(), line.as_object_mut()) {
            line.insert("trace_id".to_owned(), context.trace_id().into());
            line.insert("span_id".to_owned(), context.span_id().into());
        }
        writeln!(writer, "{line}")
    }
}
