//! A cluster of one node for what a chart renders: its pods are processes of this machine, with the real programs.
//!
//! | module | holds |
//! |---|---|
//! | `network` | a bridge, a network namespace and an address for each pod |
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

pub use self::pod::{Phase, Status};

use self::container::Sandbox;
use self::network::Network;
use self::objects::{Identity, Objects};
use self::plan::Plan;
use self::pod::{Blueprint, Pod};
use crate::helm::{entries, items, name, pod_template, selects};
use crate::process::until;

/// Keys of a pod's spec that are read here, or say where a pod runs, which is here.
const POD_KEYS: [&str; 19] = [
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "hostname",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "priorityClassName",
    "restartPolicy",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];
/// The same of containers.
const CONTAINER_KEYS: [&str; 16] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "terminationMessagePolicy",
    "volumeMounts",
];

/// A cluster of one node. What runs in it ends with it.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    replicas: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug)]
struct Shared {
    dir: tempfile::TempDir,
    namespace: String,
    network: Network,
    objects: Objects,
    pods: Mutex<BTreeMap<String, Entry>>,
    /// How pods stood that are no more.
    left: Mutex<BTreeMap<String, Status>>,
    hosts: Mutex<Vec<(String, String)>>,
    started: AtomicU64,
}

/// A pod and how others find it.
#[derive(Debug)]
struct Entry {
    pod: Pod,
    labels: Value,
    address: String,
    hostname: String,
    subdomain: Option<String>,
    ready: bool,
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
        let shared = Shared {
            dir: tempfile::tempdir()?,
            namespace: namespace.to_owned(),
            network,
            objects: Objects::default(),
            pods: Mutex::default(),
            left: Mutex::default(),
            hosts: Mutex::default(),
            started: AtomicU64::new(0),
        };
        let etc = shared.etc();
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
        shared.objects.put(objects);
        shared.write_hosts()?;
        Ok(Some(Self { shared: Arc::new(shared), replicas: Mutex::default() }))
    }

    /// The address at which pods reach this machine.
    #[must_use]
    pub fn gateway(&self) -> String {
        self.shared.network.gateway()
    }

    /// Gives an address a name that pods know.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn add_host(&self, name: &str, address: &str) -> anyhow::Result<()> {
        lock(&self.shared.hosts).push((address.to_owned(), name.to_owned()));
        self.shared.write_hosts()
    }

    /// Adds objects, in the place of those of the same kind and name. Pods that run stay as they are.
    pub fn put(&self, objects: &[Value]) {
        self.shared.objects.put(objects);
    }

    /// Starts the pods of all StatefulSets.
    ///
    /// # Errors
    /// When a manifest says what nothing here knows.
    pub fn start_workloads(&self) -> anyhow::Result<()> {
        for kind in ["Deployment", "DaemonSet", "CronJob"] {
            if let Some(object) = self.shared.objects.of_kind(kind).first() {
                bail!("nothing here runs a {kind}: {}", name(object));
            }
        }
        for set in self.shared.objects.of_kind("StatefulSet") {
            self.scale(name(&set), set["spec"]["replicas"].as_u64().unwrap_or(1))?;
        }
        Ok(())
    }

    /// Gives a StatefulSet this many pods: those with the highest numbers leave, all at once. Returns when they have left.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn scale(&self, set: &str, replicas: u64) -> anyhow::Result<()> {
        let object = self.shared.objects.get("StatefulSet", set).with_context(|| format!("no set {set}"))?;
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
        self.shared.start(&pod, &template, &claims).with_context(|| pod.clone())
    }

    /// Deletes a pod of a StatefulSet, which then starts it again, with another address. Returns when the new one was started.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn delete(&self, pod: &str) -> anyhow::Result<()> {
        let (set, ordinal) = pod.rsplit_once('-').context("no pod of a set")?;
        let object = self.shared.objects.get("StatefulSet", set).with_context(|| format!("no set {set}"))?;
        self.remove(&[pod.to_owned()]);
        self.start_ordinal(&object, ordinal.parse()?)
    }

    /// Lets pods leave, all at once, and forgets them.
    fn remove(&self, pods: &[String]) {
        for pod in pods {
            if let Some(entry) = lock(&self.shared.pods).get(pod) {
                entry.pod.leave();
            }
        }
        for pod in pods {
            // Others see it until it is gone, so it is not taken out before.
            let removed = until("a pod to leave", Duration::from_secs(600), || {
                lock(&self.shared.pods).get(pod).is_none_or(|entry| entry.pod.has_left()).then_some(())
            });
            if removed.is_ok() {
                let entry = lock(&self.shared.pods).remove(pod);
                if let Some(mut entry) = entry {
                    entry.pod.join();
                    lock(&self.shared.left).insert(pod.clone(), entry.pod.status());
                }
            }
        }
        let _ = self.shared.write_hosts();
    }

    /// Kills what runs in a pod, which then starts again where its policy says so.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn kill(&self, pod: &str) -> anyhow::Result<()> {
        lock(&self.shared.pods).get(pod).with_context(|| format!("no pod {pod}"))?.pod.kill();
        Ok(())
    }

    /// Runs a Pod or a Job to its end: how it ended, and what it printed.
    ///
    /// # Errors
    /// When it does not end within `limit`, or when a manifest says what nothing here knows.
    pub fn run(&self, object: &Value, limit: Duration) -> anyhow::Result<(Phase, String)> {
        let mut template = pod_template(object).context("it makes no pods")?.clone();
        let number = self.shared.started.load(Ordering::Relaxed);
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
        self.shared.start(&pod, &template, &BTreeMap::new())?;
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
        let running = lock(&self.shared.pods).get(pod).map(|entry| entry.pod.status());
        running.or_else(|| lock(&self.shared.left).get(pod).cloned())
    }

    /// The address of a pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn address(&self, pod: &str) -> anyhow::Result<String> {
        let pods = lock(&self.shared.pods);
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
        self.shared.dir.path().join("claims").join(claim)
    }

    /// What the containers of a pod printed, in all its starts.
    #[must_use]
    pub fn log(&self, pod: &str) -> String {
        let mut text = String::new();
        let mut files: Vec<PathBuf> = fs::read_dir(self.shared.dir.path().join("logs").join(pod))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.sort();
        for file in files {
            text.push_str(&String::from_utf8_lossy(&fs::read(file).unwrap_or_default()));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pods = std::mem::take(&mut *lock(&self.shared.pods));
        for entry in pods.values() {
            entry.pod.end_now();
        }
        for mut entry in pods.into_values() {
            entry.pod.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn etc(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    fn start(
        self: &Arc<Self>,
        pod: &str,
        template: &Value,
        claims: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let spec = &template["spec"];
        refuse_unknown(spec)?;
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let network = self.network.join()?;
        let own = Identity {
            name: pod.to_owned(),
            namespace: self.namespace.clone(),
            uid: format!("{number:08x}-{:04x}-4000-8000-000000000000", std::process::id() & 0xffff),
            address: network.address.clone(),
            metadata: template["metadata"].clone(),
        };
        let place = self.dir.path().join("pods").join(format!("{pod}.{number}"));
        let logs = self.dir.path().join("logs").join(pod);
        fs::create_dir_all(&logs)?;
        let volumes = volumes::make(
            &self.objects,
            spec,
            &place.join("volumes"),
            &self.dir.path().join("claims"),
            claims,
        )?;
        let hostname = spec["hostname"].as_str().unwrap_or(pod).to_owned();
        let plans = |key: &str| -> anyhow::Result<Vec<Plan>> {
            items(&spec[key])
                .map(|container| {
                    let environment = self.objects.environment(container, &own)?;
                    Plan::of(spec, container, environment, &hostname, &volumes)
                })
                .collect()
        };
        let (init, containers) = (plans("initContainers")?, plans("containers")?);
        let address = network.address.clone();
        let sandbox = Sandbox {
            network,
            hostname: hostname.clone(),
            etc: self.etc(),
            logs,
            roots: place.join("roots"),
        };
        let (shared, changed) = (Arc::downgrade(self), pod.to_owned());
        // Who listens is told by the lock that the list of pods is under: it is there before the pod is ready.
        let mut pods = lock(&self.pods);
        let pod_started =
            Pod::start(Blueprint { sandbox, spec: spec.clone(), init, containers }, move |ready| {
                if let Some(shared) = shared.upgrade() {
                    if let Some(entry) = lock(&shared.pods).get_mut(&changed) {
                        entry.ready = ready;
                    }
                    let _ = shared.write_hosts();
                }
            });
        pods.insert(
            pod.to_owned(),
            Entry {
                pod: pod_started,
                labels: template["metadata"]["labels"].clone(),
                address,
                hostname,
                subdomain: spec["subdomain"].as_str().map(str::to_owned),
                ready: false,
            },
        );
        drop(pods);
        self.write_hosts()
    }

    /// Writes down who is where, as the cluster's DNS would tell: a Service leads to one of its ready pods (the last), a
    /// headless one to all of them, and a pod of its own has a name below it.
    fn write_hosts(&self) -> anyhow::Result<()> {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (address, name) in lock(&self.hosts).iter() {
            writeln!(text, "{address} {name}")?;
        }
        let names = |name: &str| -> String {
            let namespace = &self.namespace;
            format!("{name} {name}.{namespace} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local")
        };
        let pods = lock(&self.pods);
        for service in self.objects.of_kind("Service") {
            let own = name(&service);
            let early = service["spec"]["publishNotReadyAddresses"] == true;
            let behind = || {
                let selected =
                    pods.values().filter(|entry| selects(&service["spec"]["selector"], &entry.labels));
                selected.filter(|entry| entry.ready || early)
            };
            if service["spec"]["clusterIP"] == "None" {
                for entry in behind() {
                    writeln!(text, "{} {}", entry.address, names(own))?;
                    if entry.subdomain.as_deref() == Some(own) {
                        writeln!(text, "{} {}", entry.address, names(&format!("{}.{own}", entry.hostname)))?;
                    }
                }
            } else if let Some(entry) = behind().last() {
                writeln!(text, "{} {}", entry.address, names(own))?;
            }
        }
        let (file, new) = (self.etc().join("hosts"), self.etc().join("hosts.new"));
        fs::write(&new, text)?;
        fs::rename(new, file)?;
        Ok(())
    }
}

/// Fails on what a pod's spec says and nothing here does.
fn refuse_unknown(spec: &Value) -> anyhow::Result<()> {
    for (key, _) in entries(spec) {
        if !POD_KEYS.contains(&key.as_str()) {
            bail!("nothing here knows {key} of a pod");
        }
    }
    for key in ["automountServiceAccountToken", "enableServiceLinks"] {
        if spec[key] != false {
            bail!("{key} is not false, and nothing here does it");
        }
    }
    for container in crate::helm::containers(spec) {
        for (key, value) in entries(container) {
            let unknown_hook = key == "lifecycle" && value.get("postStart").is_some();
            if !CONTAINER_KEYS.contains(&key.as_str()) || unknown_hook {
                bail!("nothing here knows {key} of a container: {value}");
            }
        }
    }
    Ok(())
}
