//! Tokens and certificates over the real programs: who is let in, who is not, and what is said to whom.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use evenkeel_tests::http;
use evenkeel_tests::process::{Coordinator, Etcd, Process, free_port, printed, run, until, worker_with};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

const LIMIT: Duration = Duration::from_secs(240);

const READ: &str = "reader-4f1c9a7be0d2";
const SUBMIT: &str = "submitter-81d5c2f03b";
const ADMIN: &str = "administrator-77aa01";
const WORKER: &str = "machine-e91b55c08f2d";

const SPEC: &str = "
apiVersion: evenkeel/v1
name: guarded
datasets:
  - synthetic: {generator: separable, samples: 60, features: 8, margin: 0.5, instances: 2}
strategies:
  - {name: head, setting: head, steps: 200, learning_rate: 0.1}
seeds: 2
";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write(path: &Path, content: &str, mode: u32) -> String {
    fs::write(path, content).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    text(path)
}

/// A folder with a spec, the coordinator's tokens, and a file for each of them.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().expect("tempdir") };
        write(&desk.path("guarded.yaml"), SPEC, 0o644);
        let roles = [("read", READ), ("submit", SUBMIT), ("admin", ADMIN), ("worker", WORKER)];
        let lines: String = roles.map(|(role, token)| format!("{role} {token}\n")).concat();
        write(&desk.path("tokens"), &lines, 0o600);
        for (role, token) in roles {
            write(&desk.path(role), token, 0o600);
        }
        write(&desk.path("stranger"), "nobody-knows-this-one", 0o600);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    fn coordinator(&self, more: &[&str]) -> Coordinator {
        let port = free_port().expect("port");
        Coordinator::start_with(self.dir.path(), "coordinator", port, None, more).expect("coordinator")
    }

    fn worker(&self, name: &str, coordinator: &Coordinator, more: &[&str]) -> Process {
        let registry = ["--coordinator", &coordinator.endpoint];
        worker_with(self.dir.path(), name, registry, more).expect("worker")
    }

    /// Runs a command against the coordinator, with further arguments.
    fn ask(&self, command: &[&str], coordinator: &Coordinator, more: &[&str]) -> Output {
        run(command.iter().chain(&["--endpoint", &coordinator.endpoint]).chain(more)).expect("run")
    }

    /// Submits, waits for the end and fetches the report.
    fn sweep(&self, coordinator: &Coordinator, submitter: &[&str], reader: &[&str]) -> String {
        let output = self.ask(&["submit", &self.text("guarded.yaml"), "--wait"], coordinator, submitter);
        assert!(output.status.success(), "{}", printed(&output));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let sweep = stdout.lines().next().unwrap_or_default().to_owned();
        let out = self.text("fetched");
        let output = self.ask(&["results", &sweep, "--out", &out], coordinator, reader);
        assert!(output.status.success(), "{}", printed(&output));
        assert!(self.path("fetched").join("report.html").is_file());
        sweep
    }
}

fn get(address: &str, path: &str, token: Option<&str>) -> (String, String) {
    http::get(address, path, token).expect("an answer")
}

#[test]
fn with_tokens_each_role_may_do_its_own_and_no_log_shows_one() {
    let desk = Desk::new();
    let http = format!("127.0.0.1:{}", free_port().expect("port"));
    let coordinator = desk.coordinator(&["--tokens", &desk.text("tokens"), "--http", &http]);
    let of = |name: &str| ["--token-file".to_owned(), desk.text(name)];
    let ask = |command: &[&str], name: &str| {
        let token = of(name);
        desk.ask(command, &coordinator, &[&token[0], &token[1]])
    };
    let worker_token = of("worker");
    let worker = desk.worker("worker", &coordinator, &[&worker_token[0], &worker_token[1]]);

    let (submitter, reader) = (of("submit"), of("read"));
    let sweep = desk.sweep(&coordinator, &[&submitter[0], &submitter[1]], &[&reader[0], &reader[1]]);

    let refused = |output: Output, says: &str| {
        let printed = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains("the coordinator refuses: ") && printed.contains(says), "{printed}");
    };
    refused(desk.ask(&["list"], &coordinator, &[]), "--token-file");
    refused(ask(&["list"], "stranger"), "does not know this token");
    refused(ask(&["submit", &desk.text("guarded.yaml")], "read"), "the role submit is needed");
    refused(ask(&["pause", &sweep], "read"), "the role submit is needed");
    refused(ask(&["workers", "drain", "somebody"], "submit"), "the role admin is needed");
    refused(ask(&["list"], "worker"), "the role read is needed");
    for command in [&["list"][..], &["status", &sweep], &["watch", &sweep], &["workers"]] {
        for role in ["read", "submit", "admin"] {
            let output = ask(command, role);
            assert!(output.status.success(), "{command:?} as {role}: {}", printed(&output));
        }
    }
    let unknown = ask(&["workers", "drain", "somebody"], "admin");
    assert!(printed(&unknown).contains("somebody"), "{}", printed(&unknown));

    for path in ["/healthz", "/readyz", "/metrics"] {
        assert!(get(&http, path, None).0.contains(" 200 "), "{path} is not open");
    }
    for path in ["/", "/api/v1/sweeps", "/api/v1/workers"] {
        let (status, body) = get(&http, path, None);
        assert!(
            status.contains(" 401 ") && body.contains("Authorization: Bearer"),
            "{path}: {status} {body}"
        );
        assert!(get(&http, path, Some("nobody-knows-this-one")).0.contains(" 401 "));
        assert!(get(&http, path, Some(WORKER)).0.contains(" 403 "));
        assert!(get(&http, path, Some(READ)).0.contains(" 200 "));
    }

    let mut intruder = desk.worker("intruder", &coordinator, &[&submitter[0], &submitter[1]]);
    assert!(!intruder.wait(LIMIT).expect("end").success());
    assert!(intruder.log().contains("the role worker is needed"), "{}", intruder.log());
    let mut nameless = desk.worker("nameless", &coordinator, &[]);
    assert!(!nameless.wait(LIMIT).expect("end").success());
    assert!(nameless.log().contains("EVENKEEL_TOKEN"), "{}", nameless.log());

    // A token that is taken away is worth nothing, without a restart.
    write(&desk.path("tokens"), &format!("read {READ}\nworker {WORKER}\n"), 0o600);
    refused(ask(&["workers", "drain", "somebody"], "admin"), "does not know this token");

    for process in [&coordinator.process, &worker, &intruder, &nameless] {
        for token in [READ, SUBMIT, ADMIN, WORKER, "nobody-knows-this-one"] {
            assert!(!process.log().contains(token), "a token is in the log:\n{}", process.log());
        }
    }
}

#[tokio::test]
async fn no_method_answers_without_a_token_that_is_known() {
    let desk = Desk::new();
    let coordinator = desk.coordinator(&["--tokens", &desk.text("tokens")]);
    let descriptors = FileDescriptorSet::decode(evenkeel_proto::DESCRIPTORS).expect("descriptors");
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    // Workers have no tokens: who may command them is told by certificates.
    let methods: Vec<String> = services
        .filter(|service| service.name() != "WorkerService")
        .flat_map(|service| {
            let path = move |method: &str| format!("/evenkeel.v1.{}/{method}", service.name());
            service.method.iter().map(move |method| path(method.name()))
        })
        .collect();
    assert!(methods.len() >= 10, "{methods:?}");
    let channel = Channel::from_shared(coordinator.endpoint.clone()).expect("address").connect().await;
    let mut client = Grpc::new(channel.expect("connect"));
    let unknown = format!("Bearer {READ}x");
    let (cut, bare) = (format!("Bearer {}", &READ[..READ.len() - 1]), READ.to_owned());
    let shown = [
        None,
        Some(""),
        Some("Bearer "),
        Some(&unknown),
        Some(&cut),
        Some(&bare),
        Some("Basic cmVhZDpyZWFk"),
    ];
    for method in &methods {
        for authorization in shown {
            let mut request = tonic::Request::new(());
            if let Some(authorization) = authorization {
                request.metadata_mut().insert("authorization", authorization.parse().expect("visible"));
            }
            client.ready().await.expect("ready");
            let path = method.parse().expect("a path");
            let answer = client.server_streaming(request, path, ProstCodec::<(), ()>::default()).await;
            let refused = answer.err().map(|status| status.code());
            assert_eq!(refused, Some(tonic::Code::Unauthenticated), "{method} with {authorization:?}");
        }
    }
    println!("{} calls of {} methods, all refused", methods.len() * shown.len(), methods.len());
}

#[test]
fn a_file_of_tokens_that_others_can_read_is_refused_with_the_remedy() {
    let desk = Desk::new();
    let tokens = desk.text("tokens");
    let serve =
        || run(["coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tokens", &tokens]);
    for mode in [0o644, 0o604] {
        fs::set_permissions(&tokens, fs::Permissions::from_mode(mode)).expect("chmod");
        let output = serve().expect("run");
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(printed(&output).contains(&format!("`chmod 600 {tokens}`")), "{}", printed(&output));
    }
    write(Path::new(&tokens), "read short\n", 0o600);
    let output = serve().expect("run");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("line 1: a token has at least 16"), "{}", printed(&output));
    // The same for the file of a client.
    fs::set_permissions(desk.path("read"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let output = run(["list", "--token-file", &desk.text("read")]).expect("run");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("chmod 600"), "{}", printed(&output));
}

/// The flags that name a certificate of this kind, signed by the authority in this folder.
fn tls(certs: &Path, kind: &str) -> Vec<String> {
    let file = |name: String| text(&certs.join(name));
    let (cert, key) = (file(format!("{kind}.pem")), file(format!("{kind}.key")));
    ["--tls-ca", &file("ca.pem".into()), "--tls-cert", &cert, "--tls-key", &key].map(str::to_owned).to_vec()
}

fn strs(strings: &[String]) -> Vec<&str> {
    strings.iter().map(String::as_str).collect()
}

#[test]
fn certificates_are_made_once_and_their_keys_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().expect("tempdir");
    let certs = dir.path().join("certs");
    let make = || run(["certs", "--out", &text(&certs), "--days", "2", "--host", "a.example", "10.0.0.7"]);
    let output = make().expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    let said = printed(&output);
    assert!(said.contains("a.example, 10.0.0.7") && said.contains("--tls-key"), "{said}");
    for kind in ["ca", "coordinator", "worker", "client"] {
        let mode =
            |name: String| fs::metadata(certs.join(name)).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(format!("{kind}.key")), 0o600);
        assert!(certs.join(format!("{kind}.pem")).is_file());
    }
    let before = fs::read(certs.join("ca.key")).expect("key");
    let again = make().expect("run");
    assert_eq!(again.status.code(), Some(2), "{}", printed(&again));
    assert!(printed(&again).contains("is not overwritten"), "{}", printed(&again));
    assert_eq!(fs::read(certs.join("ca.key")).expect("key"), before);
}

#[test]
fn over_encrypted_connections_a_sweep_completes_and_strangers_are_refused() {
    let desk = Desk::new();
    let (certs, other) = (desk.path("certs"), desk.path("other"));
    for dir in [&certs, &other] {
        let output = run(["certs", "--out", &text(dir)]).expect("run");
        assert!(output.status.success(), "{}", printed(&output));
    }
    let with = |kind: &str, role: &str| {
        let mut flags = tls(&certs, kind);
        flags.extend(["--token-file".to_owned(), desk.text(role)]);
        flags
    };
    let mut served = tls(&certs, "coordinator");
    served.extend(["--tokens".to_owned(), desk.text("tokens")]);
    let coordinator = desk.coordinator(&strs(&served));
    assert!(coordinator.endpoint.starts_with("https://"));
    let worker = desk.worker("worker", &coordinator, &strs(&with("worker", "worker")));
    let (submitter, reader) = (with("client", "submit"), with("client", "read"));
    desk.sweep(&coordinator, &strs(&submitter), &strs(&reader));
    assert!(worker.log().contains("https://127.0.0.1"), "{}", worker.log());

    let began = std::time::Instant::now();
    let refused = |flags: &[&str], says: &str| {
        let mut more = vec!["--token-file".to_owned(), desk.text("read")];
        more.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let output = desk.ask(&["list"], &coordinator, &strs(&more));
        assert!(matches!(output.status.code(), Some(2 | 3)), "{}", printed(&output));
        assert!(printed(&output).contains(says), "{}", printed(&output));
    };
    let ca = text(&certs.join("ca.pem"));
    let file = |name: &str| text(&other.join(name));
    refused(&["--tls-ca", &ca], "--tls-cert and --tls-key");
    let stranger = ["--tls-ca", &ca, "--tls-cert", &file("client.pem"), "--tls-key", &file("client.key")];
    refused(&stranger, "--tls-cert and --tls-key");
    // A coordinator that another authority vouches for is not spoken to.
    refused(&strs(&tls(&other, "client")), "invalid peer certificate");
    refused(&[], "name who signs its certificate with --tls-ca");
    assert!(began.elapsed() < Duration::from_secs(20), "refusals took {:?}", began.elapsed());

    // A worker of another authority does not get in; nor is one dialled that does not encrypt.
    let mut flags = with("worker", "worker");
    flags[3] = file("worker.pem");
    flags[5] = file("worker.key");
    let stranger = desk.worker("stranger", &coordinator, &strs(&flags));
    until("the stranger to be refused", LIMIT, || {
        stranger.log().contains("registration not renewed").then_some(())
    })
    .expect("a refusal");
    assert!(!stranger.log().contains(" registered "), "{}", stranger.log());
    for process in [&coordinator.process, &worker, &stranger] {
        let keys = process.log().contains("PRIVATE KEY") || process.log().contains(WORKER);
        assert!(!keys, "a secret is in the log:\n{}", process.log());
    }
}

/// Certificates of a new authority in a folder of the desk's.
fn make_certs(desk: &Desk, name: &str) -> PathBuf {
    let dir = desk.path(name);
    let output = run(["certs", "--out", &text(&dir)]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    dir
}

#[test]
fn new_certificates_hold_without_a_restart_and_old_ones_no_longer() {
    let desk = Desk::new();
    let (used, newer) = (make_certs(&desk, "used"), make_certs(&desk, "newer"));
    let older = desk.path("older");
    fs::create_dir(&older).expect("folder");
    let files =
        |dir: &Path| fs::read_dir(dir).expect("list").flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    for file in files(&used) {
        fs::copy(&file, older.join(file.file_name().expect("name"))).expect("copy");
    }
    let coordinator = desk.coordinator(&strs(&tls(&used, "coordinator")));
    let worker = desk.worker("worker", &coordinator, &strs(&tls(&used, "worker")));
    let ask = |certs: &Path| desk.ask(&["list"], &coordinator, &strs(&tls(certs, "client")));
    assert!(ask(&older).status.success());
    assert!(!ask(&newer).status.success());

    for file in files(&newer) {
        let target = used.join(file.file_name().expect("name"));
        fs::copy(&file, target.with_extension("new")).expect("copy");
        fs::rename(target.with_extension("new"), target).expect("rename");
    }
    assert!(ask(&newer).status.success(), "{}", printed(&ask(&newer)));
    let refused = ask(&older);
    assert!(!refused.status.success(), "{}", printed(&refused));
    assert!(coordinator.process.log().contains("certificates read again"), "{}", coordinator.process.log());
    // Who was connected stays so, and a worker that comes now is spoken to by the new certificates.
    let second = desk.worker("second", &coordinator, &strs(&tls(&newer, "worker")));
    until("both workers to be ready", LIMIT, || {
        (coordinator.process.log().matches("worker ready").count() >= 2).then_some(())
    })
    .expect("ready");
    let client = tls(&newer, "client");
    desk.sweep(&coordinator, &strs(&client), &strs(&client));
    drop((worker, second));
}

#[test]
fn a_worker_takes_no_orders_from_the_owner_of_another_workers_certificate() {
    let desk = Desk::new();
    let certs = make_certs(&desk, "certs");
    let impostor = desk.coordinator(&strs(&tls(&certs, "worker")));
    let worker = desk.worker("worker", &impostor, &strs(&tls(&certs, "worker")));
    until("the impostor to be refused", LIMIT, || {
        impostor.process.log().contains("worker refused").then_some(())
    })
    .expect("a refusal");
    let log = impostor.process.log();
    assert!(log.contains("for the name evenkeel-coordinator") && !log.contains("worker ready"), "{log}");
    assert!(worker.log().contains("orders refused"), "{}", worker.log());
}

#[test]
fn what_one_client_may_ask_for_is_limited_and_others_are_served() {
    let desk = Desk::new();
    let flags = ["--max-trials", "10", "--max-sweeps", "1", "--max-requests", "5"];
    let mut all = flags.to_vec();
    let tokens = desk.text("tokens");
    all.extend(["--tokens", &tokens]);
    let coordinator = desk.coordinator(&all);
    let token = desk.text("submit");
    let submit = |name: &str, spec: &str| {
        let file = write(&desk.path(name), spec, 0o644);
        desk.ask(&["submit", &file], &coordinator, &["--token-file", &token])
    };
    let large = submit("large.yaml", &SPEC.replace("seeds: 2", "seeds: 100"));
    assert_eq!(large.status.code(), Some(2), "{}", printed(&large));
    let said = printed(&large);
    assert!(
        said.contains("200 trials") && said.contains("10 at most") && said.contains("--max-trials"),
        "{said}"
    );
    let first = submit("first.yaml", SPEC);
    assert!(first.status.success(), "{}", printed(&first));
    let again = submit("again.yaml", SPEC);
    assert!(again.status.success(), "the same sweep is no other: {}", printed(&again));
    let second = submit("second.yaml", &SPEC.replace("guarded", "second"));
    assert!(!second.status.success() && printed(&second).contains("--max-sweeps"), "{}", printed(&second));

    // One that asks without pause is told when to come back, while another is served.
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        use evenkeel_proto::v1::{ListSweepsRequest, sweep_service_client::SweepServiceClient};
        let client = SweepServiceClient::connect(coordinator.endpoint.clone()).await.expect("connect");
        let ask = async |token: &str| {
            let mut request = tonic::Request::new(ListSweepsRequest {});
            let header = format!("Bearer {token}").parse().expect("header");
            request.metadata_mut().insert("authorization", header);
            client.clone().list_sweeps(request).await
        };
        let mut refused = Vec::new();
        for _ in 0..50 {
            refused.extend(ask(READ).await.err());
        }
        assert!(refused.len() >= 20, "only {} of 50 were refused", refused.len());
        for status in &refused {
            assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
            let wait =
                status.metadata().get("grpc-retry-pushback-ms").expect("a hint").to_str().expect("text");
            assert!((1..=1000).contains(&wait.parse::<u64>().expect("a number")), "{wait}");
        }
        assert!(ask(ADMIN).await.is_ok());
    });
    // The command line heeds the hint.
    let reader = desk.text("read");
    let output = desk.ask(&["list"], &coordinator, &["--token-file", &reader]);
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
fn an_etcd_that_asks_for_certificates_and_a_password_gets_them() {
    let desk = Desk::new();
    let certs = make_certs(&desk, "certs");
    let file = |name: &str| text(&certs.join(name));
    let (ca, cert, key) = (file("ca.pem"), file("coordinator.pem"), file("coordinator.key"));
    let flags = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let Some(etcd) = Etcd::start_with(desk.dir.path(), "https", &flags).expect("etcd") else { return };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        use etcd_client::{
            Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions,
        };
        let read = |path: &str| fs::read_to_string(path).expect("read");
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(&ca)))
            .identity(Identity::from_pem(read(&cert), read(&key)));
        let options = ConnectOptions::new().with_tls(tls);
        let mut client = Client::connect([&etcd.url], Some(options)).await.expect("connect");
        client.user_add("root", "the-root-password", None).await.expect("root");
        client.user_grant_role("root", "root").await.expect("root's role");
        client.user_add("evenkeel", "a-good-password", None).await.expect("user");
        client.role_add("evenkeel").await.expect("role");
        // No more than the prefix of the cluster: SECURITY.md says that this suffices.
        let permission = Permission::new(PermissionType::Readwrite, "/evenkeel/test/").with_prefix();
        client.role_grant_permission("evenkeel", permission).await.expect("permission");
        client.user_grant_role("evenkeel", "evenkeel").await.expect("role");
        client.auth_enable().await.expect("auth");
    });
    let password = write(&desk.path("password"), "a-good-password\n", 0o600);
    let wrong = write(&desk.path("wrong"), "a-bad-password", 0o600);
    let (client_cert, client_key) = (file("client.pem"), file("client.key"));
    let with = |password: &str| {
        [
            "--etcd-ca",
            &ca,
            "--etcd-cert",
            &client_cert,
            "--etcd-key",
            &client_key,
            "--etcd-user",
            "evenkeel",
            "--etcd-password-file",
            password,
        ]
        .map(str::to_owned)
    };
    let port = || free_port().expect("port");
    let start = |name: &str, more: &[&str]| {
        Coordinator::start_with(desk.dir.path(), name, port(), Some(&etcd.url), more).expect("coordinator")
    };
    let coordinator = start("coordinator", &strs(&with(&password)));
    let registry = ["--etcd", etcd.url.as_str()];
    let worker = worker_with(desk.dir.path(), "worker", registry, &strs(&with(&password))).expect("worker");
    desk.sweep(&coordinator, &[], &[]);

    let locked_out = start("locked-out", &strs(&with(&wrong)));
    let nameless =
        worker_with(desk.dir.path(), "nameless", registry, &strs(&with(&wrong)[..6])).expect("worker");
    for (process, says) in [
        (&locked_out.process, "authentication failed"),
        (&nameless, "refuses: etcdserver: permission denied"),
    ] {
        until("etcd's refusal", LIMIT, || process.log().contains(says).then_some(()))
            .unwrap_or_else(|error| panic!("{error}: {}", process.log()));
        assert!(!process.log().contains("leading"), "{}", process.log());
    }
    for process in [&coordinator.process, &worker, &locked_out.process] {
        assert!(!process.log().contains("-password\""), "{}", process.log());
        assert!(!process.log().contains("a-good") && !process.log().contains("a-bad"), "{}", process.log());
    }
}
