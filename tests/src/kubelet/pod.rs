//! The life of a pod, in a thread of its own: what comes first, what runs, its probes, its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::container::{Container, Sandbox};
use super::plan::Plan;
use super::probe::{Probe, Verdict, act};

/// How often a pod is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long a container that ended waits to be started again. Kubernetes begins with 10 s and doubles them.
const BACK_OFF: Duration = Duration::from_secs(1);

/// How a pod stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Phase {
    /// It is being started.
    #[default]
    Pending,
    /// Its containers run.
    Running,
    /// All of them ended well.
    Succeeded,
    /// One of them did not, and is not started again.
    Failed,
}

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How it stands.
    pub phase: Phase,
    /// Whether Services lead to it.
    pub ready: bool,
    /// How often containers were started again.
    pub restarts: u32,
    /// How long it took to leave, once it was told to, and whether it had to be killed.
    pub left: Option<(Duration, bool)>,
    /// What a node would tell of it.
    pub events: Vec<String>,
}

/// A pod that is looked after by a thread.
#[derive(Debug)]
pub(super) struct Pod {
    status: Arc<Mutex<Status>>,
    stop: Arc<AtomicBool>,
    kill: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a pod is started from.
#[derive(Debug)]
pub(super) struct Blueprint {
    pub(super) sandbox: Sandbox,
    pub(super) spec: Value,
    pub(super) init: Vec<Plan>,
    pub(super) containers: Vec<Plan>,
}

impl Pod {
    /// Starts it. `changed` is called whenever it becomes ready, or is no more.
    pub(super) fn start(blueprint: Blueprint, changed: impl Fn(bool) + Send + 'static) -> Self {
        let status = Arc::new(Mutex::new(Status::default()));
        let flag = || Arc::new(AtomicBool::new(false));
        let (stop, kill, end) = (flag(), flag(), flag());
        let mut life = Life {
            blueprint,
            status: Arc::clone(&status),
            stop: Arc::clone(&stop),
            kill: Arc::clone(&kill),
            end: Arc::clone(&end),
            changed: Box::new(changed),
        };
        let thread = std::thread::spawn(move || {
            if let Err(error) = life.live() {
                life.tell(format!("{error:#}"));
                life.enter(Phase::Failed);
            }
            life.be_ready(false);
        });
        Self { status, stop, kill, end, thread: Some(thread) }
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills what runs in it, as the kernel does when memory runs out: it is started again where its policy says so.
    pub(super) fn kill(&self) {
        self.kill.store(true, Ordering::Relaxed);
    }

    /// Lets it leave; it takes the time that it is given.
    pub(super) fn leave(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it has left, or ended by itself.
    pub(super) fn has_left(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it without a word.
    pub(super) fn end_now(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Waits until it has left.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side of a pod.
struct Life {
    blueprint: Blueprint,
    status: Arc<Mutex<Status>>,
    stop: Arc<AtomicBool>,
    kill: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    changed: Box<dyn Fn(bool) + Send>,
}

/// A container and what is known of it.
struct Running {
    container: Container,
    startup: Option<Probe>,
    readiness: Option<Probe>,
    liveness: Option<Probe>,
    ready: bool,
    starts: u32,
    /// When it ended, and whether well.
    ended: Option<(Instant, bool)>,
}

impl Life {
    fn with_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn tell(&self, event: String) {
        self.with_status(|status| status.events.push(event));
    }

    fn enter(&self, phase: Phase) {
        self.with_status(|status| status.phase = phase);
    }

    fn be_ready(&self, ready: bool) {
        let mut before = ready;
        self.with_status(|status| before = std::mem::replace(&mut status.ready, ready));
        if before != ready {
            (self.changed)(ready);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.over()
    }

    fn over(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    fn start(&self, plan: &Plan, starts: u32) -> anyhow::Result<Running> {
        let container = Container::start(&self.blueprint.sandbox, plan, &format!("{}-{starts}", plan.name))
            .with_context(|| plan.name.clone())?;
        let probe = |name| Probe::of(&plan.spec, name);
        let readiness = probe("readinessProbe");
        Ok(Running {
            container,
            startup: probe("startupProbe"),
            ready: false,
            readiness,
            liveness: probe("livenessProbe"),
            starts,
            ended: None,
        })
    }

    fn live(&mut self) -> anyhow::Result<()> {
        for plan in &self.blueprint.init {
            let mut running = self.start(plan, 0)?;
            loop {
                if self.stopped() {
                    return Ok(());
                }
                if let Some(status) = running.container.ended() {
                    if !status.success() {
                        bail!("{} ended with {status}", plan.name);
                    }
                    break;
                }
                std::thread::sleep(TICK);
            }
        }
        let policy = self.blueprint.spec["restartPolicy"].as_str().unwrap_or("Always").to_owned();
        let mut all = Vec::new();
        for plan in &self.blueprint.containers {
            all.push(self.start(plan, 0)?);
        }
        self.enter(Phase::Running);
        while !self.stopped() {
            if self.kill.swap(false, Ordering::Relaxed) {
                for running in &mut all {
                    running.container.signal("-KILL")?;
                }
            }
            for (running, plan) in all.iter_mut().zip(&self.blueprint.containers) {
                self.look_at(running, plan, &policy)?;
            }
            self.be_ready(all.iter().all(|running| running.ready));
            if all.iter().all(|running| {
                running.ended.is_some_and(|(_, well)| policy == "Never" || well && policy == "OnFailure")
            }) {
                let well = all.iter().all(|running| running.ended.is_some_and(|(_, well)| well));
                self.enter(if well { Phase::Succeeded } else { Phase::Failed });
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
        self.be_ready(false);
        self.take_leave(&mut all)
    }

    fn look_at(&self, running: &mut Running, plan: &Plan, policy: &str) -> anyhow::Result<()> {
        if let Some((when, well)) = running.ended {
            let again = policy == "Always" || (policy == "OnFailure" && !well);
            if again && when.elapsed() > BACK_OFF {
                *running = self.start(plan, running.starts + 1)?;
                self.with_status(|status| status.restarts += 1);
            }
            return Ok(());
        }
        if let Some(status) = running.container.ended() {
            self.tell(format!("{} ended with {status}", plan.name));
            (running.ended, running.ready) = (Some((Instant::now(), status.success())), false);
            return Ok(());
        }
        let address = &self.blueprint.sandbox.network.address;
        let container = &running.container;
        let ask = |probe: &mut Option<Probe>, otherwise| {
            probe.as_mut().map_or(Ok(otherwise), |probe| probe.ask(container, &plan.spec, address))
        };
        // The others wait until the first has succeeded once.
        match ask(&mut running.startup, Verdict::Good)? {
            Verdict::Undecided => return Ok(()),
            Verdict::Good => running.startup = None,
            Verdict::Bad => {
                self.tell(format!("{} did not start: its probe failed", plan.name));
                return running.container.signal("-KILL");
            }
        }
        match ask(&mut running.readiness, Verdict::Good)? {
            Verdict::Undecided => {}
            verdict => running.ready = verdict == Verdict::Good,
        }
        if ask(&mut running.liveness, Verdict::Good)? == Verdict::Bad {
            self.tell(format!("{} is not alive: its probe failed", plan.name));
            running.container.signal("-KILL")?;
        }
        Ok(())
    }

    /// Tells all containers to leave, and kills those that take longer than the pod is given.
    fn take_leave(&self, all: &mut [Running]) -> anyhow::Result<()> {
        let began = Instant::now();
        let grace = self.blueprint.spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let until = began + Duration::from_secs(grace);
        for (running, plan) in all.iter_mut().zip(&self.blueprint.containers) {
            if let Some(hook) = plan.spec["lifecycle"].get("preStop")
                && !self.over()
            {
                let rest = until.saturating_duration_since(Instant::now());
                act(hook, &running.container, &plan.spec, &self.blueprint.sandbox.network.address, rest)?;
            }
            running.container.signal("-TERM")?;
        }
        let mut killed = false;
        while !self.over() && all.iter_mut().any(|running| running.container.ended().is_none()) {
            if Instant::now() > until {
                killed = true;
                for running in all.iter_mut() {
                    running.container.signal("-KILL")?;
                }
            }
            std::thread::sleep(TICK);
        }
        self.with_status(|status| status.left = Some((began.elapsed(), killed)));
        Ok(())
    }
}
