//! Members of the cluster, and what may ail one.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::network::{Cut, Host};
use crate::process::{Process, again};

/// A process that comes back: with the same arguments, on the same ports, over the same data.
#[derive(Debug)]
pub struct Member {
    name: String,
    command: Command,
    /// Where it runs, with a network of its own.
    host: Option<Host>,
    /// What runs, unless it was killed.
    pub process: Option<Process>,
    starts: u32,
    /// Ends what ails it.
    well_at: Option<Instant>,
    /// What it printed in earlier lives.
    logs: Vec<String>,
}

impl Member {
    /// One that was not started yet.
    pub fn new(name: &str, host: Option<Host>, command: Command) -> Self {
        let logs = Vec::new();
        Self { name: name.to_owned(), command, host, process: None, starts: 0, well_at: None, logs }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn start(&mut self, dir: &Path) -> anyhow::Result<()> {
        self.starts += 1;
        let name = format!("{}-{}", self.name, self.starts);
        let inside = self.host.as_ref().map(Host::inside);
        let command = again(inside.as_ref().map_or(&[], |words| words), &self.command);
        self.process = Some(Process::start(dir, &name, command)?);
        Ok(())
    }

    /// Whether nothing ails it.
    pub fn is_well(&self) -> bool {
        self.well_at.is_none()
    }

    /// `kill -9`; it is started again after this. Says whether it was alive.
    pub fn kill(&mut self, back_after: Duration) -> bool {
        let alive = self.process.as_mut().is_some_and(Process::kill);
        self.logs.extend(self.process.take().map(|process| process.log()));
        self.well_at = Some(Instant::now() + back_after);
        alive
    }

    /// SIGSTOP for so long. Says whether there was something to suspend.
    ///
    /// # Errors
    /// When `kill` cannot be run.
    pub fn freeze(&mut self, length: Duration) -> anyhow::Result<bool> {
        let Some(process) = &self.process else { return Ok(false) };
        process.signal("-STOP")?;
        self.well_at = Some(Instant::now() + length);
        Ok(true)
    }

    /// Lets packets vanish for so long. Says whether it has a network of its own.
    ///
    /// # Errors
    /// When its link cannot be cut.
    pub fn cut(&mut self, cut: Cut, length: Duration) -> anyhow::Result<bool> {
        let Some(host) = &self.host else { return Ok(false) };
        host.cut(cut)?;
        self.well_at = Some(Instant::now() + length);
        Ok(true)
    }

    /// Starts it again, thaws it or mends its link, when it is time. One that ended by itself is an error: whatever happens around it, it
    /// has to live on.
    ///
    /// # Errors
    /// That, and when it cannot be started.
    pub fn tend(&mut self, dir: &Path) -> anyhow::Result<()> {
        if let Some(process) = &mut self.process
            && process.has_ended()
        {
            bail!("{} ended by itself:\n{}", self.name, process.log());
        }
        if self.well_at.is_some_and(|at| at <= Instant::now()) {
            self.well_at = None;
            self.host.iter().for_each(Host::mend);
            match &self.process {
                Some(process) => process.signal("-CONT")?,
                None => self.start(dir)?,
            }
        }
        Ok(())
    }

    /// What it printed, in all its lives.
    pub fn log(&self) -> String {
        let now = self.process.iter().map(Process::log);
        self.logs.iter().cloned().chain(now).collect()
    }
}
