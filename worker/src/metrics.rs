//! Every metric of a worker: what happened is counted as it happens, what is the case is read when somebody asks.
//!
//! Names follow OpenMetrics: seconds and bytes, counters end in `_total`. docs/observability.md lists them.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use evenkeel_common::failure::FailureKind;
use evenkeel_common::runtime::WorkerRecord;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::gpu::Gpu;
use crate::hub::HubStatus;

/// The media type of what [`Exposition::text`] gives.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counts what happens; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    finished: Counter,
    failed: Family<[(&'static str, &'static str); 1], Counter>,
    trials: Counter,
    busy: Counter<f64, AtomicU64>,
    pack: Histogram,
    registrations: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            finished: Counter::default(),
            failed: Family::default(),
            trials: Counter::default(),
            busy: Counter::default(),
            // From 1 ms to about an hour.
            pack: Histogram::new(exponential_buckets(0.001, 2.0, 22)),
            registrations: Counter::default(),
        }
    }
}

impl Metrics {
    /// A pack is through.
    pub fn finished(&self, busy: Duration, trials: u64) {
        self.finished.inc();
        self.trials.inc_by(trials);
        self.busy.inc_by(busy.as_secs_f64());
        self.pack.observe(busy.as_secs_f64());
    }

    /// A pack was given up.
    pub fn failed(&self, kind: FailureKind) {
        self.failed.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// The worker is in the registry, for the first time or again.
    pub fn registered(&self) {
        self.registrations.inc();
    }

    /// All that can be asked for.
    #[must_use]
    pub fn exposition(
        &self,
        record: &WorkerRecord,
        status: watch::Receiver<HubStatus>,
        gpu: Option<Gpu>,
    ) -> Exposition {
        let mut registry = Registry::with_prefix("evenkeel_worker");
        let build = [
            ("version", record.version.clone()),
            ("worker", record.id.clone()),
            ("device", record.device.clone()),
        ];
        registry.register("build", "The program that answers, and what it runs on", Info::new(build));
        registry.register("packs_finished", "Packs that were finished", self.finished.clone());
        registry.register(
            "packs_failed",
            "Packs that were given up, by kind of failure",
            self.failed.clone(),
        );
        registry.register("trials", "Trials of finished packs", self.trials.clone());
        registry.register_with_unit(
            "busy",
            "Time that slots worked on packs that they finished",
            Unit::Seconds,
            self.busy.clone(),
        );
        registry.register_with_unit("pack", "Work on a finished pack", Unit::Seconds, self.pack.clone());
        registry.register(
            "registrations",
            "Times this worker entered the registry: more than one means that a lease was lost",
            self.registrations.clone(),
        );
        registry.register_collector(Box::new(Now { slots: record.slots, status, gpu }));
        Exposition(Arc::new(registry))
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Exposition(Arc<Registry>);

impl Exposition {
    /// The metrics themselves.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.0.clone()
    }

    /// In the text format of OpenMetrics.
    ///
    /// # Errors
    /// When it cannot be formatted.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// What is the case.
#[derive(Debug)]
struct Now {
    slots: u32,
    status: watch::Receiver<HubStatus>,
    gpu: Option<Gpu>,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = *self.status.borrow();
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
        };
        gauge("slots", "Packs that can run at a time.", None, self.slots.into())?;
        gauge("packs_running", "Packs that run.", None, now.running as f64)?;
        gauge("packs_waiting", "Packs that wait.", None, now.waiting as f64)?;
        let outbox = now.outbox_bytes as f64;
        gauge("outbox", "Results that wait for acknowledgement.", Some(&Unit::Bytes), outbox)?;
        gauge("connected", "Whether a coordinator is connected.", None, u8::from(now.connected).into())?;
        if let Some(bytes) = resident_bytes() {
            gauge("memory", "Main memory of the process.", Some(&Unit::Bytes), bytes)?;
        }
        let Some(gpu) = &self.gpu else { return Ok(()) };
        let health = gpu.health();
        let celsius = Unit::Other("celsius".to_owned());
        let watts = Unit::Other("watts".to_owned());
        let of_gpu = [
            (
                "gpu_utilization",
                "Share of the time that something ran on the GPU.",
                Unit::Ratios,
                health.utilization,
            ),
            (
                "gpu_memory_used",
                "Memory of the GPU in use, by all processes.",
                Unit::Bytes,
                health.memory_used,
            ),
            ("gpu_memory_total", "Memory of the GPU.", Unit::Bytes, health.memory_total),
            ("gpu_temperature", "Temperature of the GPU.", celsius, health.temperature),
            ("gpu_power", "Power that the GPU draws.", watts, health.power),
        ];
        of_gpu
            .iter()
            .filter_map(|(name, help, unit, value)| Some((name, help, unit, (*value)?)))
            .try_for_each(|(name, help, unit, value)| gauge(name, help, Some(unit), value))
    }
}

/// Resident memory of this process, where the system says it (Linux: `proc(5)`, `VmRSS`).
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}
