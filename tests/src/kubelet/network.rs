//! A network of the pods' own: a bridge, and a network namespace with an address for each pod.

use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use anyhow::{Context as _, bail};

/// Runs a program of the system.
///
/// # Errors
/// When it fails.
pub(super) fn run(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).output().with_context(|| words.join(" "))?;
    if !output.status.success() {
        bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The network of a cluster. This machine has its first address.
#[derive(Debug)]
pub(super) struct Network {
    /// What names of this network begin with: no other test has it.
    id: String,
    /// The first three numbers of its addresses.
    prefix: String,
    next: AtomicU8,
}

impl Network {
    pub(super) fn create() -> anyhow::Result<Self> {
        remove_leftovers();
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed));
        let known = String::from_utf8(Command::new("ip").args(["-4", "addr"]).output()?.stdout)?;
        let free = (0..100).map(|offset| format!("10.{}.{}", 100 + (number + offset) % 100, pid % 251));
        let prefix = free
            .into_iter()
            .find(|prefix| !known.contains(&format!("inet {prefix}.")))
            .context("no network is free")?;
        let network = Self { id: format!("ek{pid:x}-{number}"), prefix, next: AtomicU8::new(2) };
        let bridge = network.bridge();
        run(&["ip", "link", "add", &bridge, "type", "bridge"])?;
        run(&["ip", "addr", "add", &format!("{}/24", network.gateway()), "dev", &bridge])?;
        run(&["ip", "link", "set", &bridge, "up"])?;
        Ok(network)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.id)
    }

    /// The address at which pods reach this machine.
    pub(super) fn gateway(&self) -> String {
        format!("{}.1", self.prefix)
    }

    /// A new namespace with an address that no pod had before.
    pub(super) fn join(&self) -> anyhow::Result<Namespace> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number == 255 {
            bail!("there are no addresses left");
        }
        let (name, link) = (format!("{}n{number}", self.id), format!("{}v{number}", self.id));
        let namespace = Namespace { address: format!("{}.{number}", self.prefix), name };
        let name = namespace.name.as_str();
        run(&["ip", "netns", "add", name])?;
        run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        run(&["ip", "link", "set", &link, "master", &self.bridge(), "up"])?;
        run(&["ip", "-n", name, "addr", "add", &format!("{}/24", namespace.address), "dev", "eth0"])?;
        run(&["ip", "-n", name, "link", "set", "eth0", "up"])?;
        run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run(&["ip", "link", "del", &self.bridge()]);
    }
}

/// Removes what tests left behind that were killed. Others may do the same at the same time, so that none minds a failure.
fn remove_leftovers() {
    let remove = |list: &[&str], delete: &[&str]| {
        let Ok(output) = Command::new("ip").args(list).output() else { return };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(name) = line.split_whitespace().next().filter(|name| is_leftover(name)) {
                let _ = run(&[delete, &[name]].concat());
            }
        }
    };
    remove(&["netns", "list"], &["ip", "netns", "del"]);
    remove(&["-brief", "link", "show", "type", "bridge"], &["ip", "link", "del"]);
}

/// Whether a name is one of a test that is no more: `ek`, its process id, and a number.
fn is_leftover(name: &str) -> bool {
    let pid = name.strip_prefix("ek").and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
    let pid = pid.and_then(|pid| u32::from_str_radix(pid, 16).ok());
    pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
}

/// A network namespace, as long as this is held.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    pub(super) address: String,
}

impl Namespace {
    pub(super) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(&["ip", "netns", "del", &self.name]);
    }
}
