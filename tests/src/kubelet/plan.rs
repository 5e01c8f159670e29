//! A container as its pod describes it: what it runs, as whom, with which environment and which mounts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::objects::expand;
use crate::helm::items;
use crate::process::program;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// What stands for an image: a program of this build, which lies in `/usr/local/bin`.
#[derive(Debug)]
pub(super) struct Image {
    entrypoint: Vec<String>,
    pub(super) program: PathBuf,
    /// What lies in `/usr/local/lib`.
    pub(super) libraries: Option<PathBuf>,
}

impl Image {
    /// The one of this name.
    pub(super) fn named(name: &str) -> anyhow::Result<Self> {
        let ours = |name: &str| (vec![name.to_owned()], program(name));
        let ((entrypoint, program), libraries) = match name {
            _ if name.contains("evenkeel/coordinator:") => (ours("evenkeel"), None),
            _ if name.contains("evenkeel/worker:") => {
                let libtorch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/libtorch/lib");
                (ours("evenkeel-worker"), Some(fs::canonicalize(libtorch)?))
            }
            _ if name.contains("/etcd:") => {
                let found = std::env::var_os("ETCD_BIN").context("ETCD_BIN names no etcd")?;
                ((Vec::new(), fs::canonicalize(found)?), None)
            }
            _ => bail!("nothing here stands for the image {name}"),
        };
        Ok(Self { entrypoint, program, libraries })
    }
}

/// A container as its pod describes it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) image: Image,
    pub(super) spec: Value,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) command: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    pub(super) read_only: bool,
    user: u64,
    group: u64,
    groups: Vec<u64>,
}

/// A directory or a file of this machine, seen by a container.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    pub(super) source: PathBuf,
    pub(super) target: String,
    pub(super) read_only: bool,
}

impl Plan {
    /// Makes a plan of a container of a pod.
    pub(super) fn of(
        pod: &Value,
        container: &Value,
        mut environment: BTreeMap<String, String>,
        hostname: &str,
        volumes: &BTreeMap<String, PathBuf>,
    ) -> anyhow::Result<Self> {
        let name = container["name"].as_str().context("a container without a name")?.to_owned();
        let image = Image::named(container["image"].as_str().unwrap_or_default())?;
        for (key, value) in [("PATH", PATH), ("HOME", "/"), ("HOSTNAME", hostname)] {
            environment.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        let words = |key: &str| -> Vec<String> {
            let words = items(&container[key]).map(|word| word.as_str().unwrap_or_default());
            words.map(|word| expand(word, &environment)).collect()
        };
        let mut command = words("command");
        if command.is_empty() {
            command.clone_from(&image.entrypoint);
        }
        command.extend(words("args"));
        let mut mounts = Vec::new();
        for mount in items(&container["volumeMounts"]) {
            let volume = mount["name"].as_str().unwrap_or_default();
            let mut source = volumes.get(volume).with_context(|| format!("no volume {volume}"))?.clone();
            if let Some(inner) = mount["subPath"].as_str() {
                source.push(inner);
            }
            let target = mount["mountPath"].as_str().context("a mount without a path")?;
            mounts.push(Mount { source, target: target.to_owned(), read_only: mount["readOnly"] == true });
        }
        let security = |key: &str| {
            [&container["securityContext"][key], &pod["securityContext"][key]]
                .into_iter()
                .find(|it| !it.is_null())
        };
        let id = |key: &str| security(key).and_then(Value::as_u64);
        let user = id("runAsUser").unwrap_or(0);
        if security("runAsNonRoot") == Some(&Value::Bool(true)) && user == 0 {
            bail!("{name} runs as root, and may not");
        }
        let more = items(&pod["securityContext"]["supplementalGroups"]).filter_map(Value::as_u64);
        let groups = more.chain(pod["securityContext"]["fsGroup"].as_u64()).collect();
        let read_only = security("readOnlyRootFilesystem") == Some(&Value::Bool(true));
        let group = id("runAsGroup").unwrap_or(0);
        Ok(Self {
            name,
            image,
            spec: container.clone(),
            environment,
            command,
            mounts,
            read_only,
            user,
            group,
            groups,
        })
    }

    /// `setpriv` with the rights that the container has: those of its user, and nothing more.
    pub(super) fn rights(&self) -> String {
        let groups = match self.groups.iter().map(u64::to_string).collect::<Vec<_>>().join(",") {
            none if none.is_empty() => "--clear-groups".to_owned(),
            groups => format!("--groups {groups}"),
        };
        format!(
            "setpriv --reuid {} --regid {} {groups} --no-new-privs --bounding-set=-all --inh-caps=-all",
            self.user, self.group
        )
    }
}
