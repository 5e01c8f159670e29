//! The node: what it holds, how it starts a pod, and what it tells pods of each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use serde_json::Value;

use super::container::Sandbox;
use super::network::Network;
use super::objects::{Identity, Objects};
use super::plan::Plan;
use super::pod::{Blueprint, Pod, Status};
use super::volumes;
use crate::helm::{containers, entries, items, name, selects};

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

/// All there is of a cluster.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) dir: tempfile::TempDir,
    pub(super) namespace: String,
    pub(super) network: Network,
    pub(super) objects: Objects,
    pub(super) pods: Mutex<BTreeMap<String, Entry>>,
    /// How pods stood that are no more.
    pub(super) left: Mutex<BTreeMap<String, Status>>,
    pub(super) hosts: Mutex<Vec<(String, String)>>,
    pub(super) started: AtomicU64,
}

/// A pod and how others find it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pod: Pod,
    pub(super) labels: Value,
    pub(super) address: String,
    pub(super) hostname: String,
    pub(super) subdomain: Option<String>,
    pub(super) ready: bool,
}

/// Locks; whoever panicked while it was locked is no reason not to.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(super) fn etc(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    pub(super) fn start(
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
        // A pod that is started anew has logs of its own: those of the one before stay.
        let logs = self.dir.path().join("logs").join(pod).join(format!("{number:05}"));
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
        let (node, changed) = (Arc::downgrade(self), pod.to_owned());
        // Who listens is told by the lock that the list of pods is under: it is there before the pod is ready.
        let mut pods = lock(&self.pods);
        let pod_started =
            Pod::start(Blueprint { sandbox, spec: spec.clone(), init, containers }, move |ready| {
                if let Some(node) = node.upgrade() {
                    if let Some(entry) = lock(&node.pods).get_mut(&changed) {
                        entry.ready = ready;
                    }
                    let _ = node.write_hosts();
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
    pub(super) fn write_hosts(&self) -> anyhow::Result<()> {
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
            } else if let Some(entry) = behind().next_back() {
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
    for container in containers(spec) {
        for (key, value) in entries(container) {
            let unknown_hook = key == "lifecycle" && value.get("postStart").is_some();
            if !CONTAINER_KEYS.contains(&key.as_str()) || unknown_hook {
                bail!("nothing here knows {key} of a container: {value}");
            }
        }
    }
    Ok(())
}
