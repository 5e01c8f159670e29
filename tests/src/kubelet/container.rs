//! A container that runs: its program in namespaces of its own, on a root file system of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::network::Namespace;
use super::plan::{Mount, Plan};
use crate::process::{Process, until};

/// Files of the machine that programs expect.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What the containers of a pod share.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) network: Namespace,
    pub(super) hostname: String,
    /// What lies in `/etc`: names of hosts.
    pub(super) etc: PathBuf,
    pub(super) logs: PathBuf,
    /// Where root file systems are made.
    pub(super) roots: PathBuf,
}

/// A program that was started as the first of its namespace of processes.
#[derive(Debug)]
pub(super) struct Container {
    process: Process,
    rights: String,
    environment: Vec<(String, String)>,
}

impl Container {
    /// Starts it. What it prints goes into the file `log`.
    pub(super) fn start(sandbox: &Sandbox, plan: &Plan, log: &str) -> anyhow::Result<Self> {
        let root = sandbox.roots.join(&plan.name);
        let script = script(sandbox, plan, &root)?;
        let environment: Vec<(String, String)> = plan.environment.clone().into_iter().collect();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", sandbox.network.path()))
            .args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-c", &script, "sh"])
            .args(&plan.command)
            .env_clear()
            .envs(environment.iter().cloned());
        let process = Process::start(&sandbox.logs, log, command)?;
        Ok(Self { process, rights: plan.rights(), environment })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.has_ended().then(|| self.process.wait(Duration::ZERO).ok()).flatten()
    }

    /// The process id of its program on this machine.
    fn program(&self) -> Option<String> {
        let pid = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    /// Sends its program a signal, as `kill` names it (`-TERM`).
    pub(super) fn signal(&mut self, signal: &str) -> anyhow::Result<()> {
        let process = &mut self.process;
        if process.has_ended() {
            return Ok(());
        }
        let pid = until("a container's program", Duration::from_secs(10), || self.program())?;
        Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status()?;
        Ok(())
    }

    /// Runs a command in it: whether it succeeded within `limit`.
    pub(super) fn execute(&self, words: &[String], limit: Duration) -> anyhow::Result<bool> {
        let pid = self.program().context("it does not run")?;
        let mut command = Command::new("nsenter");
        command.args([
            "--target", &pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/", "--",
        ]);
        command.args(self.rights.split_whitespace()).arg("--").args(words);
        command.env_clear().envs(self.environment.iter().cloned());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A script that mounts the root file system of a container and then becomes its program.
fn script(sandbox: &Sandbox, plan: &Plan, root: &Path) -> anyhow::Result<String> {
    fs::create_dir_all(root)?;
    for dir in ["proc", "dev", "etc", "run", "tmp", "var"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let mut mounts = Vec::new();
    let read_only =
        |source: &Path, target: String| Mount { source: source.to_owned(), target, read_only: true };
    // Programs and libraries of this machine stand for those of the image; but not what is in /usr/local.
    for dir in ["usr", "bin", "sbin", "lib", "lib64"] {
        let host = Path::new("/").join(dir);
        match fs::read_link(&host) {
            Ok(target) if root.join(dir).symlink_metadata().is_err() => symlink(target, root.join(dir))?,
            Err(_) if host.is_dir() => mounts.push(read_only(&host, dir.to_owned())),
            _ => {}
        }
    }
    let local = sandbox.roots.join(format!("{}.local", plan.name));
    for dir in ["bin", "lib"] {
        fs::create_dir_all(local.join(dir))?;
    }
    let program = plan.image.program.file_name().context("no program")?.to_string_lossy();
    fs::write(local.join("bin").join(&*program), "")?;
    mounts.push(Mount { source: local, target: "usr/local".to_owned(), read_only: false });
    mounts.push(read_only(&plan.image.program, format!("usr/local/bin/{program}")));
    if let Some(libraries) = &plan.image.libraries {
        mounts.push(read_only(libraries, "usr/local/lib".to_owned()));
    }
    mounts.push(read_only(&sandbox.etc, "etc".to_owned()));
    for device in DEVICES {
        let source = Path::new("/dev").join(device);
        mounts.push(Mount { source, target: format!("dev/{device}"), read_only: false });
    }
    mounts.extend(plan.mounts.iter().cloned());

    let place = |target: &str| root.join(target.trim_start_matches('/')).display().to_string();
    let mut lines = vec!["set -eu".to_owned(), format!("mount --bind '{0}' '{0}'", root.display())];
    lines.push(format!("mount -t proc proc '{}'", place("proc")));
    for mount in &mounts {
        let (target, source) = (place(&mount.target), mount.source.display().to_string());
        if source.contains('\'') || target.contains('\'') {
            bail!("a quote in a path: {source} {target}");
        }
        // What is below /usr is there already, it is this machine's; and what is below /etc lies in the one that pods share.
        let target_name = mount.target.trim_start_matches('/');
        if !target_name.starts_with("usr/") {
            let point = match target_name.strip_prefix("etc/") {
                Some(inner) => sandbox.etc.join(inner),
                None => PathBuf::from(&target),
            };
            if mount.source.is_dir() {
                fs::create_dir_all(&point)?;
            } else if !point.exists() {
                fs::create_dir_all(point.parent().context("no folder")?)?;
                fs::write(&point, "")?;
            }
        }
        lines.push(format!("mount --bind '{source}' '{target}'"));
        if mount.read_only {
            lines.push(format!("mount -o remount,bind,ro '{target}'"));
        }
    }
    if plan.read_only {
        lines.push(format!("mount -o remount,bind,ro '{}'", root.display()));
    }
    lines.push(format!("hostname '{}'", sandbox.hostname));
    lines.push(format!("exec chroot '{}' {} --pdeathsig KILL -- \"$@\"", root.display(), plan.rights()));
    Ok(lines.join("\n"))
}
