//! Programs under test. Each is killed by its own pid when the test lets go of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A started program, its standard error in a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints goes to `<dir>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(dir: &Path, name: &str, mut command: Command) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed until now.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        let _ = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Kills it as `kill -9` does, and says whether it was alive until then.
    pub fn kill(&mut self) -> bool {
        let alive = !self.has_ended();
        let _ = self.child.kill();
        let _ = self.child.wait();
        alive
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to leave (SIGTERM).
    ///
    /// # Errors
    /// When `kill` cannot be run.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal("-TERM")
    }

    /// Sends it a signal, as `kill` names it (`-STOP`).
    ///
    /// # Errors
    /// When `kill` cannot be run.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        Command::new("kill").arg(signal).arg(self.pid().to_string()).status()?;
        Ok(())
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("{} did not end within {limit:?}; it printed:\n{}", self.name, self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// When there is none within `limit`.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program `evenkeel` or `evenkeel-worker`, of the build that this test belongs to.
///
/// # Panics
/// When it was not built: `make build` does.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("a test has a program");
    while dir.pop() {
        let candidate = dir.join(name);
        if candidate.is_file() {
            return candidate;
        }
    }
    panic!("{name} is not built: run `cargo build --release --workspace --bins`");
}

/// A command of `evenkeel`.
#[must_use]
pub fn evenkeel<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program("evenkeel"));
    command.args(args).env_remove("RUST_LOG");
    command
}

/// The same command line once more, with these words before it.
#[must_use]
pub fn again(before: &[&str], command: &Command) -> Command {
    let program = command.get_program();
    let words: Vec<&OsStr> =
        before.iter().map(OsStr::new).chain([program]).chain(command.get_args()).collect();
    let mut copy = Command::new(words[0]);
    copy.args(&words[1..]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    copy
}

/// Runs a command of `evenkeel` to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> anyhow::Result<Output> {
    Ok(evenkeel(args).stdin(Stdio::null()).output()?)
}

/// What a command printed on both streams.
#[must_use]
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A port that was free a moment ago. It is below those that the system gives to connections, so that a program that is
/// started again finds it still free, and no two tests of one program get the same.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    const PORTS: std::ops::Range<u32> = 10_000..30_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    for _ in PORTS {
        let offset = std::process::id().wrapping_mul(97).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + offset % (PORTS.end - PORTS.start))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free from {} to {}", PORTS.start, PORTS.end)
}

/// A real etcd with a data directory of its own.
#[derive(Debug)]
pub struct Etcd {
    /// Its process.
    pub process: Process,
    /// URL for clients.
    pub url: String,
}

impl Etcd {
    /// Starts one: `ETCD_BIN`, or `etcd` on the PATH. None, with a reason printed, when there is no etcd.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path) -> anyhow::Result<Option<Self>> {
        Self::start_with(dir, "http", &[])
    }

    /// The same for this scheme, with further arguments.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_with(dir: &Path, scheme: &str, more: &[&str]) -> anyhow::Result<Option<Self>> {
        let program = std::env::var_os("ETCD_BIN").unwrap_or_else(|| "etcd".into());
        if Command::new(&program).arg("--version").output().is_err() {
            eprintln!("skipped: there is no etcd here (ETCD_BIN names none); `make test` gets one");
            return Ok(None);
        }
        let (client, peer) = (free_port()?, free_port()?);
        let (url, peer) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new(program);
        command
            .args(more)
            .args(["--data-dir".as_ref(), dir.join("etcd").as_os_str()])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")]);
        let process = Process::start(dir, "etcd", command)?;
        let address = format!("127.0.0.1:{client}");
        until("etcd to listen", Duration::from_secs(20), || std::net::TcpStream::connect(&address).ok())?;
        Ok(Some(Self { process, url }))
    }

    /// The keys below `prefix`.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn keys(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let mut client = etcd_client::Client::connect([&self.url], None).await?;
        let found = client.get(prefix, Some(etcd_client::GetOptions::new().with_prefix())).await?;
        found.kvs().iter().map(|pair| Ok(pair.key_str()?.to_owned())).collect()
    }
}

/// A coordinator and the directory it keeps its store in.
#[derive(Debug)]
pub struct Coordinator {
    /// Its process.
    pub process: Process,
    /// URL for clients and workers.
    pub endpoint: String,
}

impl Coordinator {
    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(dir: &Path, name: &str, port: u16, etcd: Option<&str>) -> anyhow::Result<Self> {
        Self::start_with(dir, name, port, etcd, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_with(
        dir: &Path,
        name: &str,
        port: u16,
        etcd: Option<&str>,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Self::command(&dir.join("store").to_string_lossy(), port, more);
        if let Some(etcd) = etcd {
            command.args(["--etcd", etcd, "--cluster", "test"]);
        }
        let scheme = if more.contains(&"--tls-cert") { "https" } else { "http" };
        Self::launch(dir, name, format!("{scheme}://127.0.0.1:{port}"), command)
    }

    /// The command line of one on this store, to be added to and launched.
    #[must_use]
    pub fn command(store: &str, port: u16, more: &[&str]) -> Command {
        let address = format!("127.0.0.1:{port}");
        let scheme = if more.contains(&"--tls-cert") { "https" } else { "http" };
        let endpoint = format!("{scheme}://{address}");
        let mut command = evenkeel(["coordinator", "--listen", &address, "--store", store]);
        command.args(more);
        if !more.contains(&"--advertise") {
            command.args(["--advertise", &endpoint]);
        }
        if !more.contains(&"--http") {
            command.args(["--http", "127.0.0.1:0"]);
        }
        command
    }

    /// Starts a command line of a coordinator and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn launch(dir: &Path, name: &str, endpoint: String, command: Command) -> anyhow::Result<Self> {
        let mut process = Process::start(dir, name, command)?;
        until("the coordinator to serve", Duration::from_secs(30), || {
            let ended = process.child.try_wait().ok().flatten().is_some();
            (ended || process.log().contains("coordinator serving")).then_some(())
        })?;
        if !process.log().contains("coordinator serving") {
            bail!("the coordinator did not start:\n{}", process.log());
        }
        Ok(Self { process, endpoint })
    }
}

/// Starts a worker that registers in etcd or with a coordinator.
///
/// # Errors
/// When it cannot be started.
pub fn worker(dir: &Path, name: &str, registry: [&str; 2]) -> anyhow::Result<Process> {
    worker_with(dir, name, registry, &[])
}

/// The same with further arguments.
///
/// # Errors
/// When it cannot be started.
pub fn worker_with(dir: &Path, name: &str, registry: [&str; 2], more: &[&str]) -> anyhow::Result<Process> {
    Process::start(dir, name, worker_command(name, registry, more))
}

/// The command line of a worker, to be added to and started.
#[must_use]
pub fn worker_command(name: &str, registry: [&str; 2], more: &[&str]) -> Command {
    let mut command = Command::new(program("evenkeel-worker"));
    command
        .args(registry)
        .args(["--cluster", "test", "--name", name, "--listen", "127.0.0.1:0"])
        .args(["--device", "cpu"])
        .args(more)
        .env_remove("RUST_LOG");
    if !more.contains(&"--http") {
        command.args(["--http", "127.0.0.1:0"]);
    }
    command
}

/// The status of a sweep as the JSON of `evenkeel status --json`; none when the coordinator does not answer.
#[must_use]
pub fn status(endpoint: &str, sweep: &str) -> Option<serde_json::Value> {
    let output = run(["status", sweep, "--json", "--endpoint", endpoint]).ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// Durable trials of a sweep.
#[must_use]
pub fn done(status: &serde_json::Value) -> u64 {
    ["completed", "diverged", "failed"].iter().filter_map(|key| status[*key].as_u64()).sum()
}
