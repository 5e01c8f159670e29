//! The processes of a cluster, and what they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::member::Member;
use super::network::{Host, Network};
use crate::process::{evenkeel, free_port, printed, program, run, until};

/// What keeps four workers busy for a while. `{steps}` says for how long.
const SPEC: &str = "
apiVersion: evenkeel/v1
name: chaos
datasets:
  - synthetic: {generator: separable, samples: [60, 120], features: 24, margin: {logspace: [0.2, 2.0, 3]}, instances: 12}
  - synthetic: {generator: blobs, samples: 90, features: 8, classes: 3, instances: 6}
strategies:
  - {name: head, setting: head, steps: {steps}, learning_rate: 0.1}
  - {name: mhloss, setting: head, steps: {steps}, learning_rate: 0.1, mhloss: {heads: 4}}
seeds: 5
stability: {leave_one_out: 8}
";

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    /// Members of etcd.
    pub etcd: Vec<Member>,
    /// Coordinators.
    pub coordinators: Vec<Member>,
    /// Workers.
    pub workers: Vec<Member>,
    /// The coordinators' addresses, for clients.
    pub endpoints: String,
    /// What they keep results in.
    pub store: Store,
    /// What members have for a network, if each has its own. Held to be taken down, after all else.
    _network: Option<Network>,
}

impl Cluster {
    /// Starts all members, each with a network of its own if asked for.
    ///
    /// # Errors
    /// When one cannot be started, or the machine does not allow networks.
    pub fn start(dir: &Path, networks: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut network = networks.then(Network::make).transpose()?;
        let mut seat = || -> anyhow::Result<(Option<Host>, String)> {
            let host = network.as_mut().map(Network::host).transpose()?;
            let address = host.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |host| host.address.clone());
            Ok((host, address))
        };

        let seats =
            (0..3).map(|_| Ok((seat()?, free_port()?, free_port()?))).collect::<anyhow::Result<Vec<_>>>()?;
        let urls: Vec<String> =
            seats.iter().map(|((_, address), port, _)| format!("http://{address}:{port}")).collect();
        let peers: Vec<String> =
            seats.iter().map(|((_, address), _, port)| format!("http://{address}:{port}")).collect();
        let all: Vec<String> =
            peers.iter().enumerate().map(|(number, peer)| format!("etcd-{number}={peer}")).collect();
        let etcd = seats.into_iter().enumerate().map(|(number, ((host, _), _, _))| {
            let (name, url, peer) = (format!("etcd-{number}"), &urls[number], &peers[number]);
            let mut command = Command::new(std::env::var_os("ETCD_BIN").unwrap_or_else(|| "etcd".into()));
            command
                .args(["--name", &name, "--data-dir"])
                .arg(dir.join(&name))
                .args(["--listen-client-urls", url, "--advertise-client-urls", url])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &all.join(",")]);
            Member::new(&name, host, command)
        });
        let etcd = etcd.collect();

        let store = Store::new(dir.join("store"));
        let etcds = urls.join(",");
        let (mut coordinators, mut endpoints) = (Vec::new(), Vec::new());
        for number in 0..2 {
            let (host, address) = seat()?;
            let address = format!("{address}:{}", free_port()?);
            let mut command = evenkeel(["coordinator", "--listen", &address, "--http", "127.0.0.1:0"]);
            command.args(["--advertise", &format!("http://{address}"), "--etcd", &etcds]);
            command.args(["--cluster", "chaos", "--store"]).arg(store.path());
            coordinators.push(Member::new(&format!("coordinator-{number}"), host, command));
            endpoints.push(format!("http://{address}"));
        }
        let mut workers = Vec::new();
        for number in 0..4 {
            let (host, address) = seat()?;
            let name = format!("worker-{number}");
            let mut command = Command::new(program("evenkeel-worker"));
            command
                .args(["--etcd", &etcds, "--cluster", "chaos", "--name", &name, "--device", "cpu"])
                .args(["--listen", &format!("{address}:0"), "--http", "127.0.0.1:0"])
                .env_remove("RUST_LOG");
            workers.push(Member::new(&name, host, command));
        }
        let endpoints = endpoints.join(",");
        let mut cluster =
            Self { dir: dir.to_owned(), etcd, coordinators, workers, endpoints, store, _network: network };
        for member in &mut cluster.etcd {
            member.start(dir)?;
        }
        for url in &urls {
            let address = url.trim_start_matches("http://");
            let connected = || std::net::TcpStream::connect(address).ok();
            until("etcd to listen", Duration::from_secs(30), connected)?;
        }
        for member in cluster.coordinators.iter_mut().chain(&mut cluster.workers) {
            member.start(dir)?;
        }
        Ok(cluster)
    }

    /// Submits the sweep, and returns its id.
    ///
    /// # Errors
    /// When it is refused.
    pub fn submit(&self, steps: u32) -> anyhow::Result<String> {
        let spec = self.dir.join("chaos.yaml");
        fs::write(&spec, SPEC.replace("{steps}", &steps.to_string()))?;
        let submitted = run(["submit", &spec.to_string_lossy(), "--endpoint", &self.endpoints])?;
        if !submitted.status.success() {
            bail!("not submitted: {}", printed(&submitted));
        }
        Ok(String::from_utf8_lossy(&submitted.stdout).trim().to_owned())
    }

    /// Fetches the output directory.
    ///
    /// # Errors
    /// When it is refused.
    pub fn fetch(&self, sweep: &str) -> anyhow::Result<PathBuf> {
        let out = self.dir.join("out");
        let fetched =
            run(["results", sweep, "--out", &out.to_string_lossy(), "--endpoint", &self.endpoints])?;
        if !fetched.status.success() {
            bail!("no results: {}", printed(&fetched));
        }
        Ok(out)
    }

    /// The coordinator that led last.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let epoch = |member: &Member| {
            let log = member.process.as_ref()?.log();
            let at = log.rfind("leading")?;
            let digits = log.get(at..)?.split_once("epoch=")?.1;
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let led = self.coordinators.iter().enumerate().filter_map(|(at, member)| Some((epoch(member)?, at)));
        led.max().map(|(_, at)| at)
    }

    /// Ends faults whose time is over.
    ///
    /// # Errors
    /// When a member ended by itself, or cannot be started again.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        self.store.tend()?;
        let dir = self.dir.clone();
        let mut all = self.etcd.iter_mut().chain(&mut self.coordinators).chain(&mut self.workers);
        all.try_for_each(|member| member.tend(&dir))
    }

    /// Whether results can be fetched.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let mut members = self.coordinators.iter().chain(&self.etcd);
        self.store.withheld.is_none() && members.all(Member::is_well)
    }

    /// What the coordinators printed.
    #[must_use]
    pub fn logs(&self) -> String {
        self.coordinators.iter().map(Member::log).collect()
    }
}

/// The directory that coordinators share.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// The folder in which nothing can be written, and until when.
    withheld: Option<(PathBuf, Instant)>,
}

impl Store {
    fn new(path: PathBuf) -> Self {
        Self { path, withheld: None }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Lets no segment of a sweep be written for so long. Says whether that could be done.
    ///
    /// # Errors
    /// When files cannot be moved.
    pub fn withhold(&mut self, sweep: &str, length: Duration) -> anyhow::Result<bool> {
        let segments = self.path.join("sweeps").join(sweep).join("segments");
        if self.withheld.is_some() || !segments.is_dir() {
            return Ok(false);
        }
        fs::rename(&segments, segments.with_extension("away"))?;
        fs::write(&segments, "in the way")?;
        self.withheld = Some((segments, Instant::now() + length));
        Ok(true)
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        if let Some((segments, _)) = self.withheld.take_if(|(_, until)| *until <= Instant::now()) {
            fs::remove_file(&segments)?;
            fs::rename(segments.with_extension("away"), &segments)?;
        }
        Ok(())
    }
}
