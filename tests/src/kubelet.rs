//! A cluster of one node for what a chart renders: its pods are processes of this machine, with the real programs.
//!
//! | module | holds |
//! |---|---|
//! | `network` | a bridge, a network namespace and an address for each pod |
//! | `node` | all there is, how a pod is started, and names of hosts |
//! | `objects` | Secrets, ConfigMaps and what environments are made of |
//! | `volumes` | volumes, with the modes and groups that Kubernetes gives them |
//! | `plan` | a container as its pod describes it |
//! | `container` | a container that runs: namespaces, root file system, rights |
//! | `probe` | probes and hooks |
//! | `pod` | the life of a pod |
//!
//! What it takes seriously: addresses, names of hosts, read-only root file systems, users, groups, modes of files, the
//! environment, probes, hooks, signals, grace periods, restarts, volumes that outlive pods. What it has not: limits of memory
//! and CPU, NetworkPolicies, scheduling, images (programs of this build stand for them). A Service is a line in `/etc/hosts`
//! that leads to one ready pod. A manifest that says something else is an error, not passed over. Needs root.

mod container;
mod network;
mod node;
mod objects;
mod plan;
mod pod;
mod probe;
mod volumes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

pub use self::pod::{Phase, Status};

use self::network::Network;
use self::node::{Node, lock};
use self::objects::Objects;
use crate::helm::{items, name, pod_template};
use crate::process::until;

/// A cluster of one node. What runs in it ends with it.
#[derive(Debug)]
pub struct Cluster {
    node: Arc<Node>,
    replicas: Mutex<BTreeMap<String, u64>>,
}

impl Cluster {
    /// Makes one that has these objects; nothing runs yet. None, with a reason printed, where this machine does not let it; on
    /// CI (where `CI` is set) that is an error.
    ///
    /// # Errors
    /// On CI, and when nothing can be written.
    pub fn create(namespace: &str, objects: &[Value]) -> anyhow::Result<Option<Self>> {
        let network = match network::run(&["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"])
            .and_then(|()| Network::create())
        {
            Ok(network) => network,
            Err(error) if std::env::var_os("CI").is_some() => return Err(error),
            Err(error) => {
                eprintln!("skipped: pods cannot be run here (that takes root, ip and unshare): {error:#}");
                return Ok(None);
            }
        };
        let node = Node {
            dir: tempfile::tempdir()?,
            namespace: namespace.to_owned(),
            network,
            objects: Objects::default(),
            pods: Mutex::default(),
            left: Mutex::default(),
            hosts: Mutex::default(),
            started: AtomicU64::new(0),
        };
        let etc = node.etc();
        fs::create_dir_all(&etc)?;
        fs::write(etc.join("passwd"), "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532::/:/bin/sh\n")?;
        fs::write(etc.join("group"), "root:x:0:\nnonroot:x:65532:\n")?;
        fs::write(etc.join("nsswitch.conf"), "hosts: files\n")?;
        // Of this machine, as /usr is: where libraries are, and whom to trust.
        for file in ["ld.so.cache", "ssl/certs/ca-certificates.crt"] {
            let (here, there) = (Path::new("/etc").join(file), etc.join(file));
            if here.is_file() {
                fs::create_dir_all(there.parent().context("no folder")?)?;
                fs::copy(here, there)?;
            }
        }
        node.objects.put(objects);
        node.write_hosts()?;
        Ok(Some(Self { node: Arc::new(node), replicas: Mutex::default() }))
    }

    /// The address at which pods reach this machine.
    #[must_use]
    pub fn gateway(&self) -> String {
        self.node.network.gateway()
    }

    /// Gives an address a name that pods know.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn add_host(&self, name: &str, address: &str) -> anyhow::Result<()> {
        lock(&self.node.hosts).push((address.to_owned(), name.to_owned()));
        self.node.write_hosts()
    }

    /// Adds objects, in the place of those of the same kind and name. Pods that run stay as they are.
    pub fn put(&self, objects: &[Value]) {
        self.node.objects.put(objects);
    }

    /// Starts the pods of all StatefulSets.
    ///
    /// # Errors
    /// When a manifest says what nothing here knows.
    pub fn start_workloads(&self) -> anyhow::Result<()> {
        for kind in ["Deployment", "DaemonSet", "CronJob"] {
            if let Some(object) = self.node.objects.of_kind(kind).first() {
                bail!("nothing here runs a {kind}: {}", name(object));
            }
        }
        for set in self.node.objects.of_kind("StatefulSet") {
            self.scale(name(&set), set["spec"]["replicas"].as_u64().unwrap_or(1))?;
        }
        Ok(())
    }

    /// Gives a StatefulSet this many pods: those with the highest numbers leave, all at once. Returns when they have left.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn scale(&self, set: &str, replicas: u64) -> anyhow::Result<()> {
        let object = self.node.objects.get("StatefulSet", set).with_context(|| format!("no set {set}"))?;
        let before = lock(&self.replicas).insert(set.to_owned(), replicas).unwrap_or(0);
        self.remove(&(replicas..before).map(|ordinal| format!("{set}-{ordinal}")).collect::<Vec<_>>());
        for ordinal in before..replicas {
            self.start_ordinal(&object, ordinal)?;
        }
        Ok(())
    }

    fn start_ordinal(&self, set: &Value, ordinal: u64) -> anyhow::Result<()> {
        let pod = format!("{}-{ordinal}", name(set));
        let mut template = pod_template(set).context("no pods")?.clone();
        template["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = json!(pod);
        template["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
        template["spec"]["subdomain"] = set["spec"]["serviceName"].clone();
        let claims = items(&set["spec"]["volumeClaimTemplates"]).map(name);
        let claims = claims.map(|claim| (claim.to_owned(), format!("{claim}-{pod}"))).collect();
        self.node.start(&pod, &template, &claims).with_context(|| pod.clone())
    }

    /// Deletes a pod of a StatefulSet, which then starts it again, with another address. Returns when the new one was started.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn delete(&self, pod: &str) -> anyhow::Result<()> {
        let (set, ordinal) = pod.rsplit_once('-').context("no pod of a set")?;
        let object = self.node.objects.get("StatefulSet", set).with_context(|| format!("no set {set}"))?;
        self.remove(&[pod.to_owned()]);
        self.start_ordinal(&object, ordinal.parse()?)
    }

    /// Lets pods leave, all at once, and forgets them.
    fn remove(&self, pods: &[String]) {
        for pod in pods {
            if let Some(entry) = lock(&self.node.pods).get(pod) {
                entry.pod.leave();
            }
        }
        for pod in pods {
            // Others see it until it is gone, so it is not taken out before.
            let removed = until("a pod to leave", Duration::from_secs(600), || {
                lock(&self.node.pods).get(pod).is_none_or(|entry| entry.pod.has_left()).then_some(())
            });
            if removed.is_ok() {
                let entry = lock(&self.node.pods).remove(pod);
                if let Some(mut entry) = entry {
                    entry.pod.join();
                    lock(&self.node.left).insert(pod.clone(), entry.pod.status());
                }
            }
        }
        let _ = self.node.write_hosts();
    }

    /// Kills what runs in a pod, which then starts again where its policy says so.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn kill(&self, pod: &str) -> anyhow::Result<()> {
        lock(&self.node.pods).get(pod).with_context(|| format!("no pod {pod}"))?.pod.kill();
        Ok(())
    }

    /// Runs a Pod or a Job to its end: how it ended, and what it printed.
    ///
    /// # Errors
    /// When it does not end within `limit`, or when a manifest says what nothing here knows.
    pub fn run(&self, object: &Value, limit: Duration) -> anyhow::Result<(Phase, String)> {
        let mut template = pod_template(object).context("it makes no pods")?.clone();
        let number = self.node.started.load(Ordering::Relaxed);
        let pod = match object["kind"].as_str() {
            Some("Job") => {
                template["metadata"]["labels"]["batch.kubernetes.io/job-name"] = json!(name(object));
                if object["spec"]["completionMode"] == "Indexed" {
                    template["spec"]["hostname"] = json!(format!("{}-0", name(object)));
                }
                format!("{}-{number:05}", name(object))
            }
            _ => name(object).to_owned(),
        };
        self.node.start(&pod, &template, &BTreeMap::new())?;
        let ended = until(&format!("{pod} to end"), limit, || {
            let phase = self.status(&pod)?.phase;
            matches!(phase, Phase::Succeeded | Phase::Failed).then_some(phase)
        });
        let mut log = self.log(&pod);
        if !matches!(ended, Ok(Phase::Succeeded)) {
            let events = self.status(&pod).map(|status| status.events.join("\n"));
            log.push_str(&events.unwrap_or_default());
        }
        self.remove(&[pod]);
        Ok((ended.with_context(|| log.clone())?, log))
    }

    /// The pods of a StatefulSet that there are.
    #[must_use]
    pub fn pods(&self, set: &str) -> Vec<String> {
        let replicas = lock(&self.replicas).get(set).copied().unwrap_or(0);
        (0..replicas).map(|ordinal| format!("{set}-{ordinal}")).collect()
    }

    /// How a pod stands, or stood when it left.
    #[must_use]
    pub fn status(&self, pod: &str) -> Option<Status> {
        let running = lock(&self.node.pods).get(pod).map(|entry| entry.pod.status());
        running.or_else(|| lock(&self.node.left).get(pod).cloned())
    }

    /// The address of a pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn address(&self, pod: &str) -> anyhow::Result<String> {
        let pods = lock(&self.node.pods);
        Ok(pods.get(pod).with_context(|| format!("no pod {pod}"))?.address.clone())
    }

    /// Waits until every pod of all StatefulSets is ready.
    ///
    /// # Errors
    /// When one is not within `limit`, with its log.
    pub fn until_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let sets: Vec<String> = lock(&self.replicas).keys().cloned().collect();
        let pods: Vec<String> = sets.iter().flat_map(|set| self.pods(set)).collect();
        let waiting = || -> Vec<&String> {
            pods.iter().filter(|pod| !self.status(pod).is_some_and(|status| status.ready)).collect()
        };
        // One that comes to nothing again and again is not waited for.
        let hopeless =
            |pod: &&String| self.status(pod).is_some_and(|it| it.restarts > 5 || it.phase == Phase::Failed);
        let settled = until("pods to be ready", limit, || {
            let waiting = waiting();
            (waiting.is_empty() || waiting.iter().any(hopeless)).then_some(waiting.is_empty())
        });
        settled.and_then(|ready| if ready { Ok(()) } else { bail!("pods do not become ready") }).with_context(
            || {
                let mut text = String::new();
                for pod in waiting() {
                    let _ = writeln!(text, "{pod}: {:?}\n{}", self.status(pod), self.log(pod));
                }
                text
            },
        )
    }

    /// Where a PersistentVolumeClaim lies on this machine.
    #[must_use]
    pub fn claim(&self, claim: &str) -> PathBuf {
        self.node.dir.path().join("claims").join(claim)
    }

    /// What the containers of a pod printed in all their starts; of pods of this name that were before it, nothing.
    #[must_use]
    pub fn log(&self, pod: &str) -> String {
        let listed = |dir: &Path| -> Vec<PathBuf> {
            let entries =
                fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
            let mut paths: Vec<PathBuf> = entries.unwrap_or_default();
            paths.sort();
            paths
        };
        let pods = listed(&self.node.dir.path().join("logs").join(pod));
        let files = pods.last().map(|dir| listed(dir)).unwrap_or_default();
        files
            .iter()
            .map(|file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pods = std::mem::take(&mut *lock(&self.node.pods));
        for entry in pods.values() {
            entry.pod.end_now();
        }
        for mut entry in pods.into_values() {
            entry.pod.join();
        }
    }
}
