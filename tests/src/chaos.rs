//! A cluster of real processes with faults: three etcd members, two coordinators, four workers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evenkeel_common::seed::{Key, Purpose, Stream};

use crate::process::{Process, done, evenkeel, free_port, printed, program, run, status};

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

/// A process that comes back: with the same arguments, on the same ports, over the same data.
struct Member {
    name: String,
    command: Box<dyn Fn() -> Command>,
    process: Option<Process>,
    starts: u32,
    /// Ends what ails it.
    well_at: Option<Instant>,
    /// What it printed in earlier lives.
    logs: Vec<String>,
}

impl Member {
    fn new(name: &str, command: impl Fn() -> Command + 'static) -> Self {
        let command = Box::new(command);
        Self { name: name.to_owned(), command, process: None, starts: 0, well_at: None, logs: Vec::new() }
    }

    fn start(&mut self, dir: &Path) -> anyhow::Result<()> {
        self.starts += 1;
        let name = format!("{}-{}", self.name, self.starts);
        self.process = Some(Process::start(dir, &name, (self.command)())?);
        Ok(())
    }

    fn is_well(&self) -> bool {
        self.well_at.is_none()
    }

    fn kill(&mut self, back_after: Duration) -> bool {
        let alive = self.process.as_mut().is_some_and(Process::kill);
        self.logs.extend(self.process.take().map(|process| process.log()));
        self.well_at = Some(Instant::now() + back_after);
        alive
    }

    fn freeze(&mut self, length: Duration) -> anyhow::Result<bool> {
        let Some(process) = &self.process else { return Ok(false) };
        process.signal("-STOP")?;
        self.well_at = Some(Instant::now() + length);
        Ok(true)
    }

    /// Starts it again or thaws it, when it is time. One that ended by itself is an error: whatever happens around it, it
    /// has to live on.
    fn tend(&mut self, dir: &Path) -> anyhow::Result<()> {
        if let Some(process) = &mut self.process
            && process.has_ended()
        {
            bail!("{} ended by itself:\n{}", self.name, process.log());
        }
        if self.well_at.is_some_and(|at| at <= Instant::now()) {
            self.well_at = None;
            match &self.process {
                Some(process) => process.signal("-CONT")?,
                None => self.start(dir)?,
            }
        }
        Ok(())
    }

    fn log(&self) -> String {
        let now = self.process.iter().map(Process::log);
        self.logs.iter().cloned().chain(now).collect()
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a worker.
    WorkerKilled,
    /// SIGSTOP of a worker, for some seconds.
    WorkerFrozen,
    /// `kill -9` of the coordinator that leads.
    LeaderKilled,
    /// SIGSTOP of the coordinator that leads, for longer than its lease.
    LeaderFrozen,
    /// `kill -9` of the coordinator that stands by.
    StandbyKilled,
    /// `kill -9` of a member of etcd.
    EtcdKilled,
    /// SIGSTOP of a member of etcd, for some seconds.
    EtcdFrozen,
    /// No segment can be written, for some seconds.
    StoreUnwritable,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WorkerKilled,
        Self::WorkerFrozen,
        Self::LeaderKilled,
        Self::LeaderFrozen,
        Self::StandbyKilled,
        Self::EtcdKilled,
        Self::EtcdFrozen,
        Self::StoreUnwritable,
    ];
}

/// The cluster.
struct Cluster {
    dir: PathBuf,
    etcd: Vec<Member>,
    coordinators: Vec<Member>,
    workers: Vec<Member>,
    endpoints: String,
    /// When segments can be written again.
    writable_at: Option<Instant>,
}

impl Cluster {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut peers = Vec::new();
        let mut urls = Vec::new();
        for number in 0..3 {
            peers.push(format!("etcd-{number}=http://127.0.0.1:{}", free_port()?));
            urls.push(format!("http://127.0.0.1:{}", free_port()?));
        }
        let etcd = (0..3).map(|number| {
            let (name, url, all) = (format!("etcd-{number}"), urls[number].clone(), peers.join(","));
            let peer = peers[number].split_once('=').map(|(_, peer)| peer.to_owned()).unwrap_or_default();
            let data = dir.join(&name);
            let named = name.clone();
            Member::new(&name, move || {
                let mut command = Command::new(std::env::var_os("ETCD_BIN").unwrap_or_else(|| "etcd".into()));
                command
                    .args(["--name", &named, "--data-dir"])
                    .arg(&data)
                    .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                    .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                    .args(["--initial-cluster", &all]);
                command
            })
        });
        let etcd = etcd.collect();
        let etcds = urls.join(",");
        let (mut coordinators, mut endpoints) = (Vec::new(), Vec::new());
        for number in 0..2 {
            let address = format!("127.0.0.1:{}", free_port()?);
            endpoints.push(format!("http://{address}"));
            let (etcds, store) = (etcds.clone(), dir.join("store"));
            coordinators.push(Member::new(&format!("coordinator-{number}"), move || {
                let mut command = evenkeel(["coordinator", "--listen", &address, "--http", "127.0.0.1:0"]);
                command.args(["--advertise", &format!("http://{address}"), "--etcd", &etcds]);
                command.args(["--cluster", "chaos", "--store"]).arg(&store);
                command
            }));
        }
        let workers = (0..4).map(|number| {
            let (name, etcds) = (format!("worker-{number}"), etcds.clone());
            let named = name.clone();
            Member::new(&name, move || {
                let mut command = Command::new(program("evenkeel-worker"));
                command
                    .args(["--etcd", &etcds, "--cluster", "chaos", "--name", &named, "--device", "cpu"])
                    .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
                    .env_remove("RUST_LOG");
                command
            })
        });
        let workers = workers.collect();
        let endpoints = endpoints.join(",");
        let mut cluster =
            Self { dir: dir.to_owned(), etcd, coordinators, workers, endpoints, writable_at: None };
        for member in &mut cluster.etcd {
            member.start(dir)?;
        }
        for url in &urls {
            let address = url.trim_start_matches("http://").to_owned();
            let connected = || std::net::TcpStream::connect(&address).ok();
            crate::process::until("etcd to listen", Duration::from_secs(30), connected)?;
        }
        for member in cluster.coordinators.iter_mut().chain(&mut cluster.workers) {
            member.start(dir)?;
        }
        Ok(cluster)
    }

    fn submit(&self, steps: u32) -> anyhow::Result<String> {
        let spec = self.dir.join("chaos.yaml");
        fs::write(&spec, SPEC.replace("{steps}", &steps.to_string()))?;
        let submitted = run(["submit", &spec.to_string_lossy(), "--endpoint", &self.endpoints])?;
        if !submitted.status.success() {
            bail!("not submitted: {}", printed(&submitted));
        }
        Ok(String::from_utf8_lossy(&submitted.stdout).trim().to_owned())
    }

    /// Fetches the output directory.
    fn fetch(&self, sweep: &str) -> anyhow::Result<PathBuf> {
        let out = self.dir.join("out");
        let fetched =
            run(["results", sweep, "--out", &out.to_string_lossy(), "--endpoint", &self.endpoints])?;
        if !fetched.status.success() {
            bail!("no results: {}", printed(&fetched));
        }
        Ok(out)
    }

    /// The coordinator that led last.
    fn leader(&self) -> Option<usize> {
        let epoch = |member: &Member| {
            let log = member.process.as_ref()?.log();
            let at = log.rfind("leading")?;
            let digits = log.get(at..)?.split_once("epoch=")?.1;
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let led = self.coordinators.iter().enumerate().filter_map(|(at, member)| Some((epoch(member)?, at)));
        led.max().map(|(_, at)| at)
    }

    /// Lets a fault happen, if it can now: what ails already is left alone, and etcd keeps its majority.
    fn inject(&mut self, fault: Fault, sweep: &str, draws: &mut Stream) -> anyhow::Result<bool> {
        let mut seconds =
            |from: u64, to: u64| Duration::from_millis(from * 1000 + draws.below((to - from) * 1000));
        let (short, long) = (seconds(1, 3), seconds(6, 9));
        let leader = self.leader();
        let standby = leader.map(|leader| 1 - leader);
        let pick = |members: &[Member], draws: &mut Stream| {
            let well: Vec<usize> = (0..members.len()).filter(|at| members[*at].is_well()).collect();
            (!well.is_empty()).then(|| well[draws.below(well.len() as u64) as usize])
        };
        let well = |at: Option<usize>, of: &[Member]| at.filter(|at| of[*at].is_well());
        let whole_etcd = self.etcd.iter().all(Member::is_well);
        Ok(match fault {
            Fault::WorkerKilled => pick(&self.workers, draws).is_some_and(|at| self.workers[at].kill(short)),
            Fault::WorkerFrozen => match pick(&self.workers, draws) {
                Some(at) => self.workers[at].freeze(if draws.below(2) == 0 { short } else { long })?,
                None => false,
            },
            Fault::LeaderKilled => {
                well(leader, &self.coordinators).is_some_and(|at| self.coordinators[at].kill(short))
            }
            Fault::StandbyKilled => {
                well(standby, &self.coordinators).is_some_and(|at| self.coordinators[at].kill(short))
            }
            Fault::LeaderFrozen => match well(leader, &self.coordinators) {
                Some(at) => self.coordinators[at].freeze(long)?,
                None => false,
            },
            Fault::EtcdKilled | Fault::EtcdFrozen if !whole_etcd => false,
            Fault::EtcdKilled => pick(&self.etcd, draws).is_some_and(|at| self.etcd[at].kill(short)),
            Fault::EtcdFrozen => match pick(&self.etcd, draws) {
                Some(at) => self.etcd[at].freeze(long)?,
                None => false,
            },
            Fault::StoreUnwritable => {
                let segments = self.segments(sweep);
                let can = self.writable_at.is_none() && segments.is_dir();
                if can {
                    fs::rename(&segments, segments.with_extension("away"))?;
                    fs::write(&segments, "in the way")?;
                    self.writable_at = Some(Instant::now() + short);
                }
                can
            }
        })
    }

    fn segments(&self, sweep: &str) -> PathBuf {
        self.dir.join("store/sweeps").join(sweep).join("segments")
    }

    /// Ends faults whose time is over.
    fn tend(&mut self, sweep: &str) -> anyhow::Result<()> {
        if self.writable_at.is_some_and(|at| at <= Instant::now()) {
            let segments = self.segments(sweep);
            fs::remove_file(&segments)?;
            fs::rename(segments.with_extension("away"), &segments)?;
            self.writable_at = None;
        }
        let dir = self.dir.clone();
        let mut all = self.etcd.iter_mut().chain(&mut self.coordinators).chain(&mut self.workers);
        all.try_for_each(|member| member.tend(&dir))
    }

    fn logs(&self, of: impl Fn(&Self) -> &Vec<Member>) -> String {
        of(self).iter().map(Member::log).collect()
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Seconds from submission to the end.
    pub seconds: f64,
    /// Trials of the sweep.
    pub trials: u64,
    /// How often each fault fired.
    pub fired: BTreeMap<Fault, u32>,
    /// How often a coordinator began to lead.
    pub terms: usize,
    /// The output directory.
    pub out: PathBuf,
}

/// Runs the sweep on a fresh cluster in `dir`, with faults drawn by `seed` (none without) one after the other until all
/// trials are done.
///
/// # Errors
/// When a process cannot be started, or the sweep does not end within `limit`.
pub fn run_cluster(dir: &Path, steps: u32, seed: Option<u64>, limit: Duration) -> anyhow::Result<Outcome> {
    let mut cluster = Cluster::start(dir)?;
    let sweep = cluster.submit(steps)?;
    let began = Instant::now();
    let mut draws = Key::of_dataset(seed.unwrap_or(0), "chaos").stream(Purpose::Structure, 0, 0);
    // Each kind once, in an order by the seed, before any comes again.
    let mut bag: Vec<Fault> = Vec::new();
    let (mut fired, mut next) = (BTreeMap::new(), Instant::now() + Duration::from_secs(1));
    let last = loop {
        cluster.tend(&sweep)?;
        if let Some(status) = status(&cluster.endpoints, &sweep)
            && status["state"] == "completed"
        {
            break status;
        }
        if began.elapsed() > limit {
            bail!(
                "the sweep did not end within {limit:?}, faults {fired:?}; the coordinators printed:\n{}",
                cluster.logs(|cluster| &cluster.coordinators)
            );
        }
        if seed.is_some() && Instant::now() >= next {
            if bag.is_empty() {
                bag.extend(Fault::ALL);
            }
            let at = draws.below(bag.len() as u64) as usize;
            if cluster.inject(bag[at], &sweep, &mut draws)? {
                *fired.entry(bag.remove(at)).or_insert(0) += 1;
            }
            next = Instant::now() + Duration::from_millis(500 + draws.below(1500));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let seconds = began.elapsed().as_secs_f64();
    // Whatever is still ill gets well before results are fetched.
    let patience = Instant::now() + Duration::from_secs(20);
    let ill =
        |cluster: &Cluster| cluster.coordinators.iter().chain(&cluster.etcd).any(|member| !member.is_well());
    while (ill(&cluster) || cluster.writable_at.is_some()) && Instant::now() < patience {
        cluster.tend(&sweep)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let trials = last["trials"].as_u64().context("trials")?;
    if done(&last) != trials {
        bail!("{} of {trials} trials are accounted for: {last}", done(&last));
    }
    let terms = cluster.logs(|cluster| &cluster.coordinators).matches("store loaded").count();
    Ok(Outcome { seconds, trials, fired, terms, out: cluster.fetch(&sweep)? })
}
