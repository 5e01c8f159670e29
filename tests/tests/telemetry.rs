//! What the programs tell of themselves by OpenTelemetry, through a real receiver of OTLP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_tests::http;
use evenkeel_tests::otlp::{Receiver, hex, text};
use evenkeel_tests::process::{
    Coordinator, Etcd, Process, evenkeel, free_port, printed, run, status, until, worker_command,
};
use evenkeel_tests::prometheus::Prometheus;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Trials that ask the store for an encoder: a worker whose store is broken cannot run them.
const ENCODERS: &str = "
apiVersion: evenkeel/v1
name: encoders
datasets:
  - synthetic: {generator: token_sequences, samples: 40, classes: 2, instances: 8}
models:
  - {encoder: transformer, layers: 1, hidden: 16, pretrain: {samples: 200, epochs: 1}}
strategies:
  - {name: full, setting: full, epochs: 2, learning_rate: 5.0e-4}
seeds: 2
retries: {max_attempts: 5}
";

const HEADS: &str = "
apiVersion: evenkeel/v1
name: heads
datasets:
  - synthetic: {generator: separable, samples: 60, features: 8, margin: 0.5, instances: 40}
strategies:
  - {name: head, setting: head, steps: 400, learning_rate: 0.1}
seeds: 20
";

/// Programs that send everything to one receiver.
struct Cluster {
    dir: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
    coordinator: Coordinator,
    http: String,
}

impl Cluster {
    /// `endpoint` is where OTLP is sent by `protocol`.
    fn start(endpoint: &str, protocol: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let variables = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
            ("OTEL_BLRP_SCHEDULE_DELAY", "200".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "300".to_owned()),
        ];
        let (port, http) = (free_port().expect("port"), format!("127.0.0.1:{}", free_port().expect("port")));
        let mut arguments = vec!["--http", http.as_str()];
        arguments.extend(more);
        let mut command = Coordinator::command(&dir.path().join("store").to_string_lossy(), port, &arguments);
        command.envs(variables.iter().cloned());
        let endpoint = format!("http://127.0.0.1:{port}");
        let coordinator = Coordinator::launch(dir.path(), "coordinator", endpoint, command).expect("start");
        Self { dir, variables, coordinator, http }
    }

    fn worker(&self, name: &str, more: &[&str]) -> Process {
        let mut command = worker_command(name, ["--coordinator", &self.coordinator.endpoint], more);
        command.envs(self.variables.iter().cloned());
        Process::start(self.dir.path(), name, command).expect("worker")
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command =
            evenkeel(arguments.iter().chain(&["--endpoint", self.coordinator.endpoint.as_str()]));
        command.envs(self.variables.iter().cloned());
        command
    }

    fn submit(&self, spec: &str) -> String {
        let file = self.dir.path().join("spec.yaml");
        fs::write(&file, spec).expect("write");
        let output = self.client(&["submit", &file.to_string_lossy()]).output().expect("run");
        assert!(output.status.success(), "{}", printed(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn ended(&self, sweep: &str) -> Value {
        until("the sweep to end", LIMIT, || {
            status(&self.coordinator.endpoint, sweep).filter(|status| status["state"] == "completed")
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.coordinator.process.log()))
    }
}

fn grpc(receiver: &Receiver) -> String {
    format!("http://{}", receiver.grpc)
}

fn number(span: &Span, key: &str) -> i64 {
    text(&span.attributes, key)
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{key}: {span:?}"))
}

fn is_failed(span: &Span) -> bool {
    // STATUS_CODE_ERROR
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

/// The spans of a trace, when it has these.
fn trace(receiver: &Receiver, id: &str, has: impl Fn(&[(String, Span)]) -> bool) -> Vec<(String, Span)> {
    until("the trace to be whole", LIMIT, || {
        let mut spans = receiver.received.spans();
        spans.retain(|(_, span)| hex(&span.trace_id) == id);
        has(&spans).then_some(spans)
    })
    .unwrap_or_else(|error| {
        let names: Vec<_> =
            receiver.received.spans().into_iter().map(|(service, span)| (service, span.name)).collect();
        panic!("{error}: {names:?}")
    })
}

fn named<'a>(spans: &'a [(String, Span)], name: &str) -> Vec<&'a (String, Span)> {
    spans.iter().filter(|(_, span)| span.name == name).collect()
}

#[test]
fn a_sweep_is_one_trace_over_three_processes_in_which_retries_are_linked_to_what_failed() {
    let receiver = Receiver::start().expect("receiver");
    let cluster =
        Cluster::start(&grpc(&receiver), "grpc", &["--trace-url", "http://jaeger/trace/{trace_id}"]);
    let broken = cluster.dir.path().join("broken");
    fs::create_dir(&broken).expect("folder");
    fs::write(broken.join("encoders"), "in the way").expect("file");
    let sick = cluster.worker("sick", &["--store", &broken.to_string_lossy()]);
    let sweep = cluster.submit(ENCODERS);
    until("a pack to fail", LIMIT, || sick.log().contains("pack failed").then_some(())).expect("failure");
    let _healthy = cluster.worker("healthy", &[]);
    let view = cluster.ended(&sweep);
    let id = view["trace_id"].as_str().expect("a trace").to_owned();
    assert_eq!(view["trace_url"], format!("http://jaeger/trace/{id}"));

    // The end of the sweep, and the last pack's two halves.
    let spans = trace(&receiver, &id, |spans| {
        let ends = |name| named(spans, name).len();
        ends("sweep") == 1
            && ends("evenkeel submit") == 1
            && ends("pack.execute") > 1
            && ends("store.put") > 0
    });
    let by_id: BTreeMap<String, &(String, Span)> =
        spans.iter().map(|entry| (hex(&entry.1.span_id), entry)).collect();
    assert_eq!(by_id.len(), spans.len(), "span ids are unique");
    let parent = |span: &Span| by_id.get(&hex(&span.parent_span_id)).copied();
    for (service, span) in &spans {
        let root = span.name == "evenkeel submit";
        assert_eq!(parent(span).is_none(), root, "{service} {}: its parent is not there", span.name);
    }
    let chain = |span: &Span| -> Vec<String> {
        let mut chain = vec![span.name.clone()];
        let mut at = parent(span);
        while let Some((service, span)) = at {
            chain.push(format!("{service}: {}", span.name));
            at = parent(span);
        }
        chain
    };
    let trial = &named(&spans, "trial").first().expect("a trial").1;
    assert_eq!(
        chain(trial),
        [
            "trial",
            "evenkeel-worker: pack.execute",
            "evenkeel-coordinator: pack.dispatch",
            "evenkeel-coordinator: sweep",
            "evenkeel-coordinator: evenkeel.v1.SweepService/Submit",
            "evenkeel: evenkeel.v1.SweepService/Submit",
            "evenkeel: evenkeel submit",
        ]
    );
    let calls = named(&spans, "evenkeel.v1.SweepService/Submit");
    let kinds: BTreeSet<_> = calls.iter().map(|(service, span)| (service.as_str(), span.kind())).collect();
    assert_eq!(
        kinds,
        BTreeSet::from([("evenkeel", SpanKind::Client), ("evenkeel-coordinator", SpanKind::Server)])
    );

    // What failed is there, and what ran again points at it.
    let dispatched = named(&spans, "pack.dispatch");
    let failed: Vec<&Span> = dispatched.iter().map(|(_, span)| span).filter(|span| is_failed(span)).collect();
    assert!(!failed.is_empty());
    let mut retried = 0;
    for (_, span) in &dispatched {
        assert_eq!(span.kind(), SpanKind::Producer);
        assert_eq!(text(&span.attributes, "sweep.id").as_deref(), Some(sweep.as_str()));
        if number(span, "attempt") > 1 {
            retried += 1;
            assert!(!span.links.is_empty(), "a retry that is linked to nothing: {span:?}");
        }
        for link in &span.links {
            assert_eq!(hex(&link.trace_id), id);
            let earlier = by_id.get(&hex(&link.span_id)).map(|(_, span)| span);
            let earlier = earlier.unwrap_or_else(|| panic!("linked to what is not there: {span:?}"));
            assert_eq!(earlier.name, "pack.dispatch");
            assert!(
                is_failed(earlier) || text(&earlier.attributes, "outcome").as_deref() == Some("handed back")
            );
            assert!(earlier.end_time_unix_nano <= span.start_time_unix_nano);
        }
    }
    assert!(retried > 0, "nothing ran again");
    for (service, span) in named(&spans, "pack.execute") {
        assert_eq!((service.as_str(), span.kind()), ("evenkeel-worker", SpanKind::Consumer));
        let (_, dispatch) = parent(span).expect("a dispatch");
        for key in ["pack.id", "attempt", "worker.id"] {
            assert_eq!(text(&span.attributes, key), text(&dispatch.attributes, key), "{key}");
        }
        assert_eq!(is_failed(span), is_failed(dispatch));
    }

    // Log lines name it, where they are written and where they are sent.
    let line: Value = sick
        .log()
        .lines()
        .find(|line| line.contains("pack failed"))
        .and_then(|line| serde_json::from_str(line).ok())
        .expect("a line of JSON");
    assert_eq!(line["trace_id"], id.as_str(), "{line}");
    let of_line = line["span_id"].as_str().expect("a span");
    assert_eq!(by_id.get(of_line).map(|(_, span)| span.name.as_str()), Some("pack.execute"), "{line}");
    until("a log record of the failure", LIMIT, || {
        receiver.received.logs().into_iter().find(|(service, record)| {
            service == "evenkeel-worker"
                && hex(&record.trace_id) == id
                && format!("{:?}", record.body).contains("pack failed")
        })
    })
    .expect("a record");

    let page = http::body(&cluster.http, &format!("/sweeps/{sweep}")).expect("page");
    assert!(page.contains(&format!("href=\"http://jaeger/trace/{id}\"")), "{page}");
    let shown = cluster.client(&["trace", &sweep]).output().expect("run");
    assert_eq!(printed(&shown).trim(), format!("http://jaeger/trace/{id}"));
    let shown =
        cluster.client(&["trace", &sweep, "--trace-url", "http://tempo/{trace_id}"]).output().expect("run");
    assert_eq!(printed(&shown).trim(), format!("http://tempo/{id}"));
    let wrong = cluster.client(&["trace", &sweep, "--trace-url", "http://tempo/"]).output().expect("run");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(printed(&wrong).contains("{trace_id}"), "{}", printed(&wrong));
}

#[test]
fn a_run_on_one_machine_is_a_trace_of_all_its_processes_within_that_of_its_caller() {
    let receiver = Receiver::start().expect("receiver");
    let dir = tempfile::tempdir().expect("directory");
    let (spec, out) = (dir.path().join("spec.yaml"), dir.path().join("out"));
    fs::write(&spec, HEADS).expect("write");
    let id = "0af7651916cd43dd8448eb211c80319c";
    let arguments =
        ["run", &spec.to_string_lossy(), "--out", &out.to_string_lossy(), "--quiet", "--workers", "1"];
    let output = evenkeel(arguments)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", grpc(&receiver))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("TRACEPARENT", format!("00-{id}-b7ad6b7169203331-01"))
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    let spans = trace(&receiver, id, |spans| {
        named(spans, "evenkeel run").len() == 1 && !named(spans, "pack.execute").is_empty()
    });
    assert_eq!(hex(&named(&spans, "evenkeel run")[0].1.parent_span_id), "b7ad6b7169203331");
    let (_, sweep) = named(&spans, "sweep")[0];
    assert_eq!(sweep.parent_span_id, named(&spans, "evenkeel run")[0].1.span_id);
    for (service, span) in named(&spans, "pack.execute") {
        assert_eq!(service, "evenkeel-worker");
        let dispatched =
            named(&spans, "pack.dispatch").into_iter().any(|(_, d)| d.span_id == span.parent_span_id);
        assert!(dispatched, "{span:?}");
    }
}

#[test]
fn metrics_are_sent_too_and_their_examples_are_traces_that_exist() {
    let receiver = Receiver::start().expect("receiver");
    // By HTTP, as the specification has it without a word.
    let cluster = Cluster::start(&format!("http://{}", receiver.http), "http/protobuf", &[]);
    let _worker = cluster.worker("worker", &[]);
    let prometheus = Prometheus::start(cluster.dir.path(), &[&cluster.http]).expect("Prometheus");
    let sweep = cluster.submit(HEADS);
    let view = cluster.ended(&sweep);
    let trials = view["trials"].as_f64().expect("trials");
    until("the count of trials", LIMIT, || {
        let received = receiver.received.metrics();
        let sums = received.iter().filter(|(_, metric)| metric.name == "evenkeel_trials_total");
        let values = sums.filter_map(|(_, metric)| match &metric.data {
            Some(metric::Data::Sum(sum)) => sum.data_points.iter().find_map(|point| match point.value {
                Some(number_data_point::Value::AsDouble(value)) => {
                    (text(&point.attributes, "outcome")? == "completed").then_some(value)
                }
                _ => None,
            }),
            _ => None,
        });
        (values.max_by(f64::total_cmp) == Some(trials)).then_some(())
    })
    .expect("all trials");
    for (of, name) in [
        ("evenkeel-coordinator", "evenkeel_pack_seconds"),
        ("evenkeel-worker", "evenkeel_worker_trials_total"),
    ] {
        until(name, LIMIT, || {
            receiver
                .received
                .metrics()
                .into_iter()
                .find(|(service, metric)| service == of && metric.name == name)
        })
        .expect("sent");
    }

    // "… # {trace_id="…",span_id="…"} 0.7": where a histogram is, an example of each bucket.
    let exposed = http::body(&cluster.http, "/metrics").expect("metrics");
    let after = |line: &str, key: &str| -> Option<String> {
        Some(line.split_once(&format!("{key}=\""))?.1.split_once('"')?.0.to_owned())
    };
    let examples: Vec<(String, String)> = exposed
        .lines()
        .filter(|line| line.starts_with("evenkeel_pack_seconds_bucket"))
        .filter_map(|line| Some((after(line, "trace_id")?, after(line, "span_id")?)))
        .collect();
    assert!(!examples.is_empty(), "no examples in {exposed}");
    for (trace_id, span_id) in &examples {
        assert_eq!(Some(trace_id.as_str()), view["trace_id"].as_str());
        until("the span of an example", LIMIT, || {
            receiver.received.spans().into_iter().find(|(_, span)| {
                span.name == "pack.dispatch"
                    && hex(&span.span_id) == *span_id
                    && hex(&span.trace_id) == *trace_id
            })
        })
        .unwrap_or_else(|error| panic!("{error}: {span_id}"));
    }
    let Some(prometheus) = prometheus else { return };
    until("Prometheus to have an example", LIMIT, || {
        let found = prometheus.exemplars("evenkeel_pack_seconds_bucket").ok()?;
        found.iter().any(|labels| labels["trace_id"] == view["trace_id"]).then_some(())
    })
    .expect("an example");
}

#[test]
fn of_a_healthy_sweep_no_more_is_shown_than_was_allowed() {
    let receiver = Receiver::start().expect("receiver");
    let cluster = Cluster::start(&grpc(&receiver), "grpc", &["--trace-packs", "3"]);
    let workers = [cluster.worker("one", &[]), cluster.worker("two", &[])];
    let began = Instant::now();
    let sweep = cluster.submit(&HEADS.replace("instances: 40", "instances: 400"));
    let view = cluster.ended(&sweep);
    let id = view["trace_id"].as_str().expect("a trace").to_owned();
    let spans = trace(&receiver, &id, |spans| named(spans, "sweep").len() == 1);
    // Three at once and three a minute, unless a pack was slow or lost.
    let allowed = 3 + 3 * usize::try_from(began.elapsed().as_secs()).expect("seconds").div_ceil(60);
    for (name, least) in [("pack.dispatch", 1), ("store.put", 1)] {
        let ordinary = named(&spans, name).into_iter().filter(|(_, span)| {
            !is_failed(span) && text(&span.attributes, "slow").as_deref() != Some("true")
        });
        let count = ordinary.count();
        assert!((least..=allowed).contains(&count), "{count} spans {name}, allowed are {allowed}");
    }
    let packs = http::body(&cluster.http, "/metrics").expect("metrics");
    let finished =
        packs.lines().find_map(|line| line.strip_prefix("evenkeel_packs_total{outcome=\"finished\"} "));
    let finished: usize = finished.and_then(|count| count.parse().ok()).expect("packs");
    assert!(finished > allowed, "there were too few packs to leave any out: {finished}");
    // Trials of a pack are shown as examples.
    let executed = named(&spans, "pack.execute");
    for (_, execute) in &executed {
        let trials =
            named(&spans, "trial").into_iter().filter(|(_, trial)| trial.parent_span_id == execute.span_id);
        assert!(trials.count() <= 64);
    }
    drop(workers);
}

/// Whether the results of a sweep are there, whatever becomes of its telemetry.
fn works_without(endpoint: &str, protocol: &str) {
    let cluster = Cluster::start(endpoint, protocol, &[]);
    let mut worker = cluster.worker("worker", &[]);
    let began = Instant::now();
    let sweep = cluster.submit(HEADS);
    assert!(began.elapsed() < Duration::from_secs(10), "submitting took {:?}", began.elapsed());
    let view = cluster.ended(&sweep);
    assert_eq!(view["completed"], 800, "{view}");
    let out = cluster.dir.path().join("out");
    let fetched = run([
        "results",
        &sweep,
        "--out",
        &out.to_string_lossy(),
        "--endpoint",
        &cluster.coordinator.endpoint,
    ]);
    assert!(fetched.expect("run").status.success());
    worker.terminate().expect("told");
    assert!(worker.wait(Duration::from_secs(20)).expect("an end").success(), "{}", worker.log());
}

#[test]
fn a_receiver_that_is_not_there_is_not_noticed() {
    let nobody = format!("http://127.0.0.1:{}", free_port().expect("port"));
    works_without(&nobody, "grpc");
    works_without(&nobody, "http/protobuf");
}

#[test]
fn a_receiver_that_takes_connections_and_says_nothing_is_not_noticed() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("port");
    let address = silent.local_addr().expect("address");
    std::thread::spawn(move || {
        let kept: Vec<_> = silent.incoming().collect();
        drop(kept);
    });
    works_without(&format!("http://{address}"), "grpc");
}

#[test]
fn what_is_logged_is_changed_while_programs_run() {
    let receiver = Receiver::start().expect("receiver");
    let cluster = Cluster::start(&grpc(&receiver), "grpc", &[]);
    let worker = cluster.worker("worker", &[]);
    let ready =
        || http::body(&cluster.http, "/metrics").ok().filter(|text| text.contains("{state=\"ready\"} 1"));
    until("the worker", LIMIT, ready).expect("ready");
    let sweep = cluster.submit(HEADS);
    cluster.ended(&sweep);
    assert!(!cluster.coordinator.process.log().contains("pack dispatched"));
    for arguments in
        [&["log-level", "info,evenkeel_coordinator=debug"][..], &["log-level", "debug", "--workers"]]
    {
        let output = cluster.client(arguments).output().expect("run");
        assert!(output.status.success(), "{}", printed(&output));
    }
    until("the worker to hear of it", LIMIT, || worker.log().contains("log filter changed").then_some(()))
        .expect("told");
    let other = cluster.submit(&HEADS.replace("name: heads", "name: others"));
    cluster.ended(&other);
    assert!(cluster.coordinator.process.log().contains("pack dispatched"));
    for (arguments, says) in [
        (&["log-level", "evenkeel=loud"][..], "no log filter"),
        (&["log-level", ""], "no log filter was given"),
        (&["log-level", "debug", "--worker", "nobody"], "there is no worker nobody"),
    ] {
        let output = cluster.client(arguments).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", printed(&output));
        assert!(printed(&output).contains(says), "{arguments:?}: {}", printed(&output));
    }
}

#[test]
fn elections_terms_and_sessions_are_traced() {
    let dir = tempfile::tempdir().expect("directory");
    let Some(etcd) = Etcd::start(dir.path()).expect("etcd") else { return };
    let receiver = Receiver::start().expect("receiver");
    let mut cluster = Cluster::start(&grpc(&receiver), "grpc", &["--etcd", &etcd.url, "--cluster", "test"]);
    until("it to lead", LIMIT, || http::body(&cluster.http, "/readyz").ok()).expect("leading");
    cluster.coordinator.process.terminate().expect("told");
    assert!(cluster.coordinator.process.wait(LIMIT).expect("end").success());
    let spans = receiver.received.spans();
    for name in ["leader.election", "leader.term", "etcd.session"] {
        let found = named(&spans, name);
        assert!(
            !found.is_empty(),
            "no {name} in {:?}",
            spans.iter().map(|(_, span)| &span.name).collect::<Vec<_>>()
        );
        assert!(found.iter().all(|(service, span)| service == "evenkeel-coordinator" && !is_failed(span)));
    }
    let (_, term) = named(&spans, "leader.term")[0];
    assert_eq!(term.parent_span_id, named(&spans, "leader.election")[0].1.span_id);
}

#[test]
fn a_configuration_that_cannot_be_followed_is_refused_with_its_remedy() {
    let dir = tempfile::tempdir().expect("directory");
    let refused = |name: &str, value: &str| {
        let store = dir.path().join("store");
        let mut command = Coordinator::command(&store.to_string_lossy(), free_port().expect("port"), &[]);
        let output = command.env(name, value).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        printed(&output)
    };
    let said = refused("OTEL_TRACES_EXPORTER", "zipkin");
    assert!(said.contains("OTEL_TRACES_EXPORTER is `zipkin`: expected `otlp` or `none`"), "{said}");
    let said = refused("OTEL_EXPORTER_OTLP_ENDPOINT", "no address");
    assert!(said.contains("OTEL_EXPORTER_OTLP_"), "{said}");
}
