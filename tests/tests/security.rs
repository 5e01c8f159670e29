//! Tokens and certificates over the real programs: who is let in, who is not, and what is said to whom.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use evenkeel_tests::process::{Coordinator, Process, free_port, printed, run, until, worker_with};

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

/// The status line and the body of `GET path` over HTTP.
fn get(address: &str, path: &str, token: Option<&str>) -> (String, String) {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n");
    let mut stream = std::net::TcpStream::connect(address).expect("connect");
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    let (status, rest) = answer.split_once("\r\n").expect("a status line");
    (status.to_owned(), rest.to_owned())
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

#[test]
fn a_file_of_tokens_that_others_can_read_is_refused_with_the_remedy() {
    let desk = Desk::new();
    let tokens = desk.text("tokens");
    let serve =
        || run(["coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tokens", &tokens]);
    for mode in [0o644, 0o640] {
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
