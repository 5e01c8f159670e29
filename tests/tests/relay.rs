//! A coordinator that stands by answers as the leader does, by passing on what it is asked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use evenkeel_proto::v1;
use evenkeel_proto::v1::sweep_service_client::SweepServiceClient;
use evenkeel_tests::http;
use evenkeel_tests::process::{
    Coordinator, Etcd, Process, done, evenkeel, free_port, printed, run, status, until, worker_with,
};
use serde_json::Value;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const LIMIT: Duration = Duration::from_secs(120);
const SERVICE: &str = "evenkeel.v1.SweepService";
const RELAYED: (&str, &str) = ("evenkeel-relayed", "http");

const READ: &str = "reader-4f1c9a7be0d2";
const SUBMIT: &str = "submitter-81d5c2f03b";

const SHORT: &str = "
apiVersion: evenkeel/v1
name: short
datasets:
  - synthetic: {generator: separable, samples: 60, features: 8, margin: 0.5, instances: 4}
strategies:
  - {name: head, setting: head, steps: 400, learning_rate: 0.1}
seeds: 4
";

const LONG: &str = "
apiVersion: evenkeel/v1
name: long
datasets:
  - synthetic: {generator: separable, samples: 120, features: 24, margin: {logspace: [0.2, 2.0, 3]}, instances: 40}
strategies:
  - {name: head, setting: head, steps: 6000, learning_rate: 0.1}
seeds: 10
stability: {leave_one_out: 8}
";

/// One that leads, one that stands by, and a worker.
struct Pair {
    dir: tempfile::TempDir,
    etcd: Etcd,
    leader: Coordinator,
    standby: Coordinator,
    http: [String; 2],
    _worker: Process,
}

impl Pair {
    /// None without etcd.
    fn start(dir: tempfile::TempDir, leader: &[&str], standby: &[&str], worker: &[&str]) -> Option<Self> {
        let etcd = Etcd::start(dir.path()).expect("etcd")?;
        let http = [(); 2].map(|()| format!("127.0.0.1:{}", free_port().expect("port")));
        let start = |name: &str, http: &str, more: &[&str]| {
            let flags: Vec<&str> = ["--http", http].iter().chain(more).copied().collect();
            let port = free_port().expect("port");
            Coordinator::start_with(dir.path(), name, port, Some(&etcd.url), &flags).expect("coordinator")
        };
        let leader = start("leader", &http[0], leader);
        until("it to lead", LIMIT, || http::body(&http[0], "/leadz").ok()).expect("a leader");
        let standby = start("standby", &http[1], standby);
        let worker = worker_with(dir.path(), "worker", ["--etcd", &etcd.url], worker).expect("worker");
        Some(Self { leader, standby, http, _worker: worker, etcd, dir })
    }

    /// Two that speak to one another.
    fn plain(more: &[&str]) -> Option<Self> {
        let pair = Self::start(tempfile::tempdir().expect("tempdir"), more, more, &[])?;
        pair.until_ready();
        Some(pair)
    }

    fn until_ready(&self) {
        until("the standby to be ready", LIMIT, || http::body(&self.http[1], "/readyz").ok())
            .unwrap_or_else(|error| panic!("{error}: {}", self.standby.process.log()));
    }

    fn spec(&self, text: &str) -> String {
        write(&self.dir.path().join("spec.yaml"), text, 0o644)
    }

    /// A command against the one that stands by.
    fn ask(&self, command: &[&str], more: &[&str]) -> Output {
        run(command.iter().chain(&["--endpoint", &self.standby.endpoint]).chain(more)).expect("run")
    }

    /// The same, which has to go well: what it prints on standard output.
    fn get(&self, command: &[&str], more: &[&str]) -> String {
        let output = self.ask(command, more);
        assert!(output.status.success(), "{command:?}: {}", printed(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Calls by their labels, as one of them counted them.
    fn counted(&self, at: usize, metric: &str) -> BTreeMap<String, f64> {
        let text = http::body(&self.http[at], "/metrics").expect("metrics");
        let lines = text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
        let pairs = lines.filter_map(|line| line.split_once("} "));
        pairs.map(|(labels, count)| (labels.to_owned(), count.parse().expect("a number"))).collect()
    }
}

fn write(path: &Path, content: &str, mode: u32) -> String {
    fs::write(path, content).expect("write");
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
    path.to_string_lossy().into_owned()
}

/// Who leads, as a refusal tells it.
fn leader_of(refusal: &tonic::Status) -> &str {
    refusal.metadata().get("evenkeel-leader").expect("a leader").to_str().expect("text")
}

/// Code and body of an answer.
fn send(at: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let (status, rest) = http::send(at, method, path, headers, body).expect("an answer");
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, rest.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[test]
fn a_client_that_knows_only_a_standby_gets_what_the_leader_says() {
    let Some(pair) = Pair::plain(&[]) else { return };
    let long = pair.get(&["submit", &pair.spec(LONG)], &[]);
    until("the worker to be ready", LIMIT, || {
        pair.get(&["workers", "--json"], &[]).contains("\"ready\"").then_some(())
    })
    .expect("a worker");
    for command in ["pause", "resume", "cancel"] {
        pair.get(&[command, &long], &[]);
    }
    let short = pair.get(&["submit", &pair.spec(SHORT)], &[]);
    pair.get(&["watch", &short], &[]);
    let there: Value = serde_json::from_str(&pair.get(&["status", &short, "--json"], &[])).expect("json");
    assert_eq!((&there["state"], &there["notice"], done(&there)), (&"completed".into(), &Value::Null, 16));
    let out = pair.dir.path().join("results");
    pair.get(&["results", &short, "--out", &out.to_string_lossy()], &[]);
    assert!(out.join("summary.json").is_file());
    let unknown = pair.ask(&["status", "nothing-0000000000"], &[]);
    assert_eq!(unknown.status.code(), Some(2), "{}", printed(&unknown));
    // All of it went to the leader by the standby, and is measured there alone.
    let relayed = pair.counted(1, "evenkeel_relayed_calls_total");
    assert_eq!(relayed.len(), 7, "{relayed:?}");
    assert_eq!(relayed, pair.counted(0, "evenkeel_rpc_server_call_duration_seconds_count"));
    assert_eq!(pair.counted(1, "evenkeel_rpc_server_call_duration_seconds_count"), BTreeMap::new());
    let list = pair.get(&["list", "--json"], &[]);
    let direct = run(["list", "--json", "--endpoint", &pair.leader.endpoint]).expect("run");
    assert_eq!(list, String::from_utf8_lossy(&direct.stdout).trim());
}

#[test]
fn the_page_and_its_api_are_the_leaders_at_the_standby_too() {
    let Some(pair) = Pair::plain(&[]) else { return };
    let here = &pair.http[1];
    let (code, answer) = send(here, "POST", "/api/v1/sweeps", &[], LONG);
    assert_eq!(code, 201, "{answer}");
    let sweep: Value = serde_json::from_str(&answer).expect("json");
    let sweep = sweep["id"].as_str().expect("id");
    assert_eq!(send(here, "POST", "/api/v1/sweeps", &[], "{").0, 400);
    assert_eq!(send(here, "POST", "/api/v1/sweeps", &[], &"#".repeat(2 << 20)).0, 413);
    let (code, page) = send(here, "GET", &format!("/sweeps/{sweep}"), &[], "");
    assert!(code == 200 && page.contains("Cancel") && !page.contains("stands by"), "{page}");
    let (code, health) = send(here, "GET", "/api/v1/health", &[], "");
    assert!(code == 200 && health.contains("\"leading\":true"), "{health}");
    assert!(http::body(here, "/metrics").expect("metrics").contains("\nevenkeel_leader 0"));
    // Other sites are told from one's own by the host that the browser asked.
    let cancel = format!("/sweeps/{sweep}/cancel");
    for (origin, expected) in [("http://evil.example", 403), (&*format!("http://{}", pair.http[0]), 403)] {
        assert_eq!(send(here, "POST", &cancel, &[("Origin", origin)], "").0, expected);
    }
    let own = format!("http://{here}");
    assert_eq!(
        send(here, "POST", &cancel, &[("Origin", &own), ("Connection", "close, x-hop"), ("X-Hop", "1")], "")
            .0,
        303
    );
    until("the end", LIMIT, || status(&pair.leader.endpoint, sweep).filter(|s| s["state"] == "cancelled"))
        .expect("cancelled");
    // What was passed on once is not passed on again, over neither protocol.
    let (code, refusal) = send(here, "GET", "/api/v1/workers", &[RELAYED], "");
    assert!(code == 503 && refusal.contains(&pair.leader.endpoint), "{refusal}");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let mut client = SweepServiceClient::connect(pair.standby.endpoint.clone()).await.expect("connect");
        let mut request = Request::new(v1::ListWorkersRequest {});
        request.metadata_mut().insert("evenkeel-relayed", "grpc".parse().expect("value"));
        let refusal = client.list_workers(request).await.expect_err("answered");
        assert_eq!(refusal.code(), Code::Unavailable);
        assert_eq!(leader_of(&refusal), pair.leader.endpoint);
        let mut request = Request::new(v1::ListWorkersRequest {});
        request.set_timeout(LIMIT);
        client.list_workers(request).await.expect("an answer of the leader's");
    });
}

/// Certificates of a new authority.
fn certs(dir: &Path) -> PathBuf {
    let certs = dir.join("certs");
    let output = run(["certs", "--out", &certs.to_string_lossy()]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    certs
}

fn tls(certs: &Path, kind: &str) -> Vec<String> {
    let file = |name: String| certs.join(name).to_string_lossy().into_owned();
    let (ca, cert, key) = (file("ca.pem".into()), file(format!("{kind}.pem")), file(format!("{kind}.key")));
    ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key].map(str::to_owned).to_vec()
}

fn strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

#[test]
fn with_certificates_and_tokens_a_standby_is_no_way_around_them() {
    let dir = tempfile::tempdir().expect("tempdir");
    let certs = certs(dir.path());
    let tokens = format!("read {READ}\nsubmit {SUBMIT}\n");
    let tokens = write(&dir.path().join("tokens"), &tokens, 0o600);
    let mut leader = tls(&certs, "coordinator");
    let mut standby = leader.clone();
    leader.extend(["--tokens", &tokens, "--max-requests", "5"].map(str::to_owned));
    standby.extend(["--tokens", &tokens].map(str::to_owned));
    let (worker, client) = (tls(&certs, "worker"), tls(&certs, "client"));
    let as_client = |token: &str| {
        let file = write(&dir.path().join(token), token, 0o600);
        [client.clone(), vec!["--token-file".to_owned(), file]].concat()
    };
    let (reader, submitter) = (as_client(READ), as_client(SUBMIT));
    let Some(pair) = Pair::start(dir, &strs(&leader), &strs(&standby), &strs(&worker)) else { return };
    pair.until_ready();
    assert!(pair.standby.endpoint.starts_with("https://"));
    let submitted = pair.get(&["submit", &pair.spec(SHORT), "--wait"], &strs(&submitter));
    let sweep = submitted.lines().next().expect("an id");
    let out = pair.dir.path().join("results");
    pair.get(&["results", sweep, "--out", &out.to_string_lossy()], &strs(&reader));
    let refused = |command: &[&str], flags: &[String], says: &str| {
        let output = pair.ask(command, &strs(flags));
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(printed(&output).contains(says), "{}", printed(&output));
    };
    refused(&["list"], &client, "asks for a token");
    refused(&["pause", sweep], &reader, "the role submit is needed");
    let relayed = pair.counted(1, "evenkeel_relayed_calls_total");
    assert_eq!(relayed, pair.counted(0, "evenkeel_rpc_server_call_duration_seconds_count"));
    for (token, get, post) in [(None, 401, 401), (Some(READ), 200, 403), (Some(SUBMIT), 200, 200)] {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> =
            bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
        assert_eq!(send(&pair.http[1], "GET", "/api/v1/sweeps", &headers, "").0, get, "{token:?}");
        assert_eq!(send(&pair.http[1], "POST", "/api/v1/sweeps", &headers, SHORT).0, post, "{token:?}");
    }
    // The leader counts those who come without a token by their address: not the standby's, which has counted them.
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let read = |name: &str| fs::read(certs.join(name)).expect("read");
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("client.pem"), read("client.key")));
        let busy = async |endpoint: &str| {
            let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("address");
            let channel: Channel =
                endpoint.tls_config(config.clone()).expect("tls").connect().await.expect("connect");
            let mut busy = 0;
            for _ in 0..30 {
                let mut client = SweepServiceClient::new(channel.clone());
                let mut request = Request::new(v1::ListSweepsRequest {});
                // Whoever says so is not believed.
                request.metadata_mut().insert("x-forwarded-for", "10.0.0.1".parse().expect("value"));
                let refusal = client.list_sweeps(request).await.expect_err("answered");
                busy += u32::from(refusal.code() == Code::ResourceExhausted);
            }
            busy
        };
        assert_eq!(busy(&pair.standby.endpoint).await, 0);
        assert!(busy(&pair.leader.endpoint).await > 10);
    });
    for log in [pair.leader.process.log(), pair.standby.process.log()] {
        assert!(!log.contains(READ) && !log.contains(SUBMIT), "a token is in the log:\n{log}");
    }
}

/// How a coordinator's health is, as a whole and of its service.
async fn health(endpoint: &str) -> [i32; 2] {
    let channel = Endpoint::from_shared(endpoint.to_owned()).expect("address").connect_lazy();
    let mut client = HealthClient::new(channel);
    let mut all = [0; 2];
    for (found, service) in all.iter_mut().zip(["", SERVICE]) {
        let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await;
        *found = answer.expect("an answer").into_inner().status;
    }
    all
}

#[test]
fn probes_tell_who_leads_who_passes_on_and_who_can_do_neither() {
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    let Some(mut pair) = Pair::plain(&[]) else { return };
    let probe = |at: usize, path: &str| send(&pair.http[at], "GET", path, &[], "");
    let standing = (200, format!("standing by; {} leads\n", pair.leader.endpoint));
    assert_eq!((probe(0, "/readyz"), probe(1, "/readyz")), ((200, "ok\n".to_owned()), standing.clone()));
    assert_eq!((probe(0, "/leadz").0, probe(1, "/leadz")), (200, (503, standing.1)));
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let mut watching = runtime.block_on(async {
        let is = async |endpoint: &str| {
            while health(endpoint).await != [SERVING; 2] {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, is(&pair.leader.endpoint)).await.expect("a leader that serves");
        tokio::time::timeout(LIMIT, is(&pair.standby.endpoint)).await.expect("a standby that serves");
        let channel = Endpoint::from_shared(pair.standby.endpoint.clone()).expect("address").connect_lazy();
        let mut client = HealthClient::new(channel);
        let watching = client.watch(HealthCheckRequest { service: SERVICE.to_owned() }).await;
        watching.expect("a watch").into_inner()
    });
    // Without etcd nobody leads before long.
    assert!(pair.etcd.process.kill());
    let news: Vec<i32> = runtime.block_on(async {
        let mut news = Vec::new();
        while news.last() != Some(&NOT_SERVING) {
            news.push(watching.message().await.expect("news").expect("more").status);
        }
        news
    });
    assert_eq!(news, [SERVING, NOT_SERVING], "told when it changes, and only then");
    for (at, endpoint) in [&pair.leader.endpoint, &pair.standby.endpoint].into_iter().enumerate() {
        let reason = until("it to be unready", LIMIT, || {
            let (code, reason) = send(&pair.http[at], "GET", "/readyz", &[], "");
            (code == 503).then_some(reason)
        });
        let reason = reason.expect("unready");
        assert!(reason.contains("standing by; etcd"), "{reason}");
        let found = || (runtime.block_on(health(endpoint)) == [SERVING, NOT_SERVING]).then_some(());
        until("health to say so", LIMIT, found).expect("health");
        assert_eq!(send(&pair.http[at], "GET", "/healthz", &[], "").0, 200);
    }
}

#[test]
fn a_leader_that_a_standby_cannot_reach_is_named_and_the_store_is_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    let nobody = "http://127.0.0.1:1";
    let Some(pair) = Pair::start(dir, &["--advertise", nobody], &[], &[]) else { return };
    let unready = |at: &str, says: &str| {
        until("the reason", LIMIT, || {
            let (code, reason) = send(at, "GET", "/readyz", &[], "");
            (code == 503 && reason.contains(says)).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}: {}", send(at, "GET", "/readyz", &[], "").1));
    };
    unready(&pair.http[1], &format!("{nobody} leads, and is not reached from here"));
    let submitted =
        run(["submit", &pair.spec(SHORT), "--wait", "--endpoint", &pair.leader.endpoint]).expect("run");
    assert!(submitted.status.success(), "{}", printed(&submitted));
    let sweep = String::from_utf8_lossy(&submitted.stdout).lines().next().expect("id").to_owned();
    let there = status(&pair.standby.endpoint, &sweep).expect("status");
    assert!(there["notice"].as_str().is_some_and(|notice| notice.contains("stands by")), "{there}");
    assert_eq!(send(&pair.http[1], "GET", &format!("/api/v1/sweeps/{sweep}"), &[], "").0, 200);
    let (code, refusal) = send(&pair.http[1], "POST", "/api/v1/sweeps", &[], SHORT);
    assert!(code == 503 && refusal.contains(nobody), "{refusal}");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let refusal = runtime.block_on(async {
        let mut client = SweepServiceClient::connect(pair.standby.endpoint.clone()).await.expect("connect");
        client.list_workers(v1::ListWorkersRequest {}).await.expect_err("answered")
    });
    assert_eq!((refusal.code(), leader_of(&refusal)), (Code::Unavailable, nobody));

    // With a CA nothing is sent to a leader that does not encrypt.
    let flags = tls(&certs(pair.dir.path()), "coordinator");
    let http = format!("127.0.0.1:{}", free_port().expect("port"));
    let flags: Vec<&str> = strs(&flags).into_iter().chain(["--http", &http]).collect();
    let port = free_port().expect("port");
    let _careful = Coordinator::start_with(pair.dir.path(), "careful", port, Some(&pair.etcd.url), &flags)
        .expect("coordinator");
    unready(&http, "is not encrypted, but --tls-ca asks for it");
}

#[test]
fn connections_are_renewed_by_age_and_what_runs_goes_on() {
    let Some(pair) = Pair::plain(&["--max-connection-age", "1s"]) else { return };
    let sweep = pair.get(&["submit", &pair.spec(LONG)], &[]);
    let watch = |name: &str, endpoint: &str| {
        Process::start(pair.dir.path(), name, evenkeel(["watch", &sweep, "--endpoint", endpoint]))
            .expect("watch")
    };
    let mut watches = [watch("near", &pair.leader.endpoint), watch("far", &pair.standby.endpoint)];
    for coordinator in [&pair.leader, &pair.standby] {
        // A client that asks nothing is told to go away after a second (frame 7, GOAWAY; RFC 9113, 6.8).
        let mut stream =
            TcpStream::connect(coordinator.endpoint.trim_start_matches("http://")).expect("connect");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("write");
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).expect("a frame");
            if head[3] == 7 {
                break;
            }
            let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
            std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink()).expect("the frame");
        }
        pair.get(&["list"], &[]);
    }
    pair.get(&["cancel", &sweep], &[]);
    for watch in &mut watches {
        assert!(watch.wait(LIMIT).expect("end").success(), "{}", watch.log());
        assert!(!watch.log().contains("is gone"), "{}", watch.log());
    }
}
