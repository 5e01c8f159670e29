//! A network of its own for every member, where the machine allows it: Linux network namespaces on one bridge, made with
//! `ip` and cut with `tc` (iproute2). That takes the rights of root.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Links have names of at most 15 bytes.
const PREFIX: &str = "ekn";
const MOST_HOSTS: usize = 99;

/// Which packets of a host vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All.
    Both,
    /// Those to it.
    Inbound,
    /// Those from it.
    Outbound,
}

/// A bridge, which this process is on too; gone with it, and the hosts on it.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    subnet: String,
    hosts: Vec<Host>,
}

/// A namespace on the bridge.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, also that of the bridge's end of its link.
    namespace: String,
    /// Its IP address.
    pub address: String,
}

impl Network {
    /// Makes a network.
    ///
    /// # Errors
    /// What the machine does not allow.
    pub fn make() -> anyhow::Result<Self> {
        remove_abandoned()?;
        let pid = std::process::id();
        let bridge = format!("{PREFIX}{pid}");
        // 198.18.0.0/15 is for tests of networks (RFC 2544, appendix C.2.2).
        let subnet = format!("198.18.{}", pid % 256);
        let network = Self { bridge, subnet, hosts: Vec::new() };
        ip(&["link", "add", &network.bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}.1/24", network.subnet), "dev", &network.bridge])?;
        ip(&["link", "set", &network.bridge, "up"])?;
        Ok(network)
    }

    /// Adds a host.
    ///
    /// # Errors
    /// What the machine does not allow.
    pub fn host(&mut self) -> anyhow::Result<Host> {
        let number = self.hosts.len() + 2;
        if number > MOST_HOSTS {
            bail!("a network has at most {} hosts", MOST_HOSTS - 1);
        }
        let namespace = format!("{}-{number}", self.bridge);
        let host = Host { address: format!("{}.{number}", self.subnet), namespace };
        ip(&["netns", "add", &host.namespace])?;
        self.hosts.push(host.clone());
        let (namespace, inside) = (host.namespace.as_str(), ["-n", host.namespace.as_str()]);
        ip(&["link", "add", namespace, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
        ip(&["link", "set", namespace, "master", &self.bridge])?;
        ip(&["link", "set", namespace, "up"])?;
        ip(&[&inside[..], &["addr", "add", &format!("{}/24", host.address), "dev", "eth0"]].concat())?;
        for link in ["eth0", "lo"] {
            ip(&[&inside[..], &["link", "set", link, "up"]].concat())?;
        }
        // Whether links can be cut is known before the first process runs.
        host.cut(Cut::Both)?;
        host.mend();
        Ok(host)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            remove(&host.namespace);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

impl Host {
    /// What runs a command line inside, put before it. The process has the id of what it is put before.
    #[must_use]
    pub fn inside(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.namespace]
    }

    /// Lets packets vanish, without a word to either side.
    ///
    /// # Errors
    /// When `tc` fails.
    pub fn cut(&self, cut: Cut) -> anyhow::Result<()> {
        if cut != Cut::Outbound {
            run("tc", &["qdisc", "replace", "dev", &self.namespace, "root", "blackhole"])?;
        }
        if cut != Cut::Inbound {
            let inside = ["-n", &self.namespace, "qdisc", "replace", "dev", "eth0", "root", "blackhole"];
            run("tc", &inside)?;
        }
        Ok(())
    }

    /// Ends whatever cut there is.
    pub fn mend(&self) {
        // Deleting what is not there is an error, and means nothing.
        let _ = run("tc", &["qdisc", "del", "dev", &self.namespace, "root"]);
        let _ = run("tc", &["-n", &self.namespace, "qdisc", "del", "dev", "eth0", "root"]);
    }
}

/// Removes a host. The kernel takes its time with the links of a namespace, and the next network has links of the same names.
fn remove(namespace: &str) {
    let _ = ip(&["link", "del", namespace]);
    let _ = ip(&["netns", "del", namespace]);
}

/// Networks of runs that were killed.
fn remove_abandoned() -> anyhow::Result<()> {
    let Ok(links) = fs::read_dir("/sys/class/net") else { return Ok(()) };
    for link in links.flatten() {
        let name = link.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.parse::<u32>().ok());
        if pid.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            for host in 2..=MOST_HOSTS {
                remove(&format!("{name}-{host}"));
            }
            ip(&["link", "del", &name])?;
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("{program} is not here"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}
