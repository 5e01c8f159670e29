//! From what is counted for Prometheus to OTLP: one set of metrics, defined once.
//!
//! After the [OpenTelemetry specification](https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/):
//! counters become monotonic sums, histograms keep their buckets and exemplars.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    self as otlp, AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, Sum, exemplar, metric, number_data_point,
};
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{self as model, MetricType};

/// These metrics, as they are at `now`; both times in nanoseconds since the Unix epoch.
pub(super) fn metrics(families: &[model::MetricFamily], started: u64, now: u64) -> Vec<Metric> {
    families.iter().filter_map(|family| of_family(family, started, now)).collect()
}

fn of_family(family: &model::MetricFamily, started: u64, now: u64) -> Option<Metric> {
    let number = |metric: &model::Metric, value: f64, exemplars: Vec<Exemplar>| NumberDataPoint {
        attributes: attributes(&metric.label),
        start_time_unix_nano: started,
        time_unix_nano: now,
        exemplars,
        flags: 0,
        value: Some(number_data_point::Value::AsDouble(value)),
    };
    let rows = family.metric.iter();
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = match family.r#type() {
        MetricType::Counter => metric::Data::Sum(Sum {
            data_points: rows
                .filter_map(|row| {
                    let counter = row.counter.as_ref()?;
                    Some(number(row, counter.value, counter.exemplar.iter().map(exemplar).collect()))
                })
                .collect(),
            aggregation_temporality,
            is_monotonic: true,
        }),
        MetricType::Gauge => {
            let points = rows.filter_map(|row| Some(number(row, row.gauge.as_ref()?.value, Vec::new())));
            metric::Data::Gauge(Gauge { data_points: points.collect() })
        }
        MetricType::Histogram => metric::Data::Histogram(Histogram {
            data_points: rows
                .filter_map(|row| {
                    Some(of_histogram(attributes(&row.label), row.histogram.as_ref()?, started, now))
                })
                .collect(),
            aggregation_temporality,
        }),
        // None of ours is of another type.
        MetricType::Summary | MetricType::Untyped | MetricType::GaugeHistogram => return None,
    };
    Some(Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        unit: ucum(&family.unit).to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    })
}

fn of_histogram(
    attributes: Vec<KeyValue>,
    histogram: &model::Histogram,
    started: u64,
    now: u64,
) -> HistogramDataPoint {
    // Prometheus counts what is below an end, OTLP what is between two; the last bucket of OTLP has no end.
    let bounded: Vec<_> = histogram.bucket.iter().filter(|bucket| bucket.upper_bound < f64::MAX).collect();
    let mut below = 0;
    let mut between = |cumulative: u64| {
        let count = cumulative.saturating_sub(below);
        below = cumulative;
        count
    };
    let mut bucket_counts: Vec<u64> = bounded.iter().map(|bucket| between(bucket.cumulative_count)).collect();
    bucket_counts.push(between(histogram.sample_count));
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: started,
        time_unix_nano: now,
        count: histogram.sample_count,
        sum: Some(histogram.sample_sum),
        bucket_counts,
        explicit_bounds: bounded.iter().map(|bucket| bucket.upper_bound).collect(),
        exemplars: histogram
            .bucket
            .iter()
            .filter_map(|bucket| bucket.exemplar.as_ref().map(exemplar))
            .collect(),
        ..HistogramDataPoint::default()
    }
}

/// Labels `trace_id` and `span_id` of an exemplar name the trace; others stay labels.
fn exemplar(found: &model::Exemplar) -> Exemplar {
    let bytes = |name: &str| {
        let label = found.label.iter().find(|label| label.name == name);
        label.and_then(|label| from_hex(&label.value)).unwrap_or_default()
    };
    let time = found.timestamp.as_ref().map_or(0, |time| {
        u64::try_from(time.seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.nanos).unwrap_or(0)
    });
    Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: time,
        span_id: bytes("span_id"),
        trace_id: bytes("trace_id"),
        value: Some(exemplar::Value::AsDouble(found.value)),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn attributes(labels: &[model::LabelPair]) -> Vec<KeyValue> {
    let value = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) };
    labels
        .iter()
        .map(|label| KeyValue {
            key: label.name.clone(),
            value: Some(value(&label.value)),
            ..KeyValue::default()
        })
        .collect()
}

/// A unit as OpenTelemetry writes it ([UCUM](https://ucum.org)).
fn ucum(unit: &str) -> &str {
    match unit {
        "seconds" => "s",
        "bytes" => "By",
        "ratios" | "ratio" => "1",
        "celsius" => "Cel",
        "watts" => "W",
        other => other,
    }
}

/// Everything in one message.
pub(super) fn request(
    resource: &opentelemetry_sdk::Resource,
    metrics: Vec<Metric>,
) -> opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest {
    let scope = opentelemetry_proto::tonic::common::v1::InstrumentationScope {
        name: "evenkeel".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let scope_metrics =
        vec![otlp::ScopeMetrics { scope: Some(scope), metrics, ..otlp::ScopeMetrics::default() }];
    opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest {
        resource_metrics: vec![otlp::ResourceMetrics {
            resource: Some(resource.into()),
            scope_metrics,
            ..otlp::ResourceMetrics::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_protobuf::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::HistogramWithExemplars;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::{Registry, Unit};

    use super::*;

    #[test]
    fn what_prometheus_scrapes_is_what_otlp_sends() {
        let mut registry = Registry::with_prefix("evenkeel");
        let trials: Family<[(&str, &str); 1], Counter> = Family::default();
        trials.get_or_create(&[("outcome", "failed")]).inc_by(3);
        registry.register("trials", "Trials", trials);
        let leader: Gauge = Gauge::default();
        leader.set(1);
        registry.register("leader", "Leads", leader);
        let pack = HistogramWithExemplars::<Vec<(String, String)>>::new([0.1, 1.0].into_iter());
        let labels = || {
            vec![
                ("trace_id".to_owned(), "0af7651916cd43dd8448eb211c80319c".to_owned()),
                ("span_id".to_owned(), "b7ad6b7169203331".to_owned()),
            ]
        };
        pack.observe(0.05, None, None);
        pack.observe(0.5, Some(labels()), None);
        pack.observe(7.0, None, None);
        registry.register_with_unit("pack", "Packs", Unit::Seconds, pack);

        let found = metrics(&encode(&registry).expect("encode"), 1, 2);
        let find = |name: &str| found.iter().find(|metric| metric.name == name).expect("metric");
        let Some(metric::Data::Sum(sum)) = &find("evenkeel_trials_total").data else { panic!("a sum") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(3.0)));
        assert_eq!(sum.data_points[0].attributes[0].key, "outcome");
        let Some(metric::Data::Gauge(gauge)) = &find("evenkeel_leader").data else { panic!("a gauge") };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(1.0)));
        let seconds = find("evenkeel_pack_seconds");
        assert_eq!(seconds.unit, "s");
        let Some(metric::Data::Histogram(histogram)) = &seconds.data else { panic!("a histogram") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (3, Some(7.55)));
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!(point.bucket_counts, [1, 1, 1]);
        assert_eq!(point.exemplars.len(), 1);
        assert_eq!(point.exemplars[0].span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert_eq!(point.exemplars[0].trace_id.len(), 16);
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
