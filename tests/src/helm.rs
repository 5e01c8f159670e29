//! The chart, rendered by a real helm, and what it renders, looked at as Kubernetes would.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use crate::process::printed;

/// The name and the namespace that tests install it under.
pub const RELEASE: &str = "evenkeel";
/// The namespace.
pub const NAMESPACE: &str = "lab";
/// The version of Kubernetes that it is rendered for.
pub const KUBERNETES: &str = "1.34";

/// The chart.
#[must_use]
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/evenkeel")
}

/// The sets of values it is tested with, by name.
///
/// # Errors
/// When there is no directory of them.
pub fn value_sets() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut sets = Vec::new();
    for entry in fs::read_dir(chart().join("ci"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sets.push((name, path));
    }
    sets.sort();
    Ok(sets)
}

/// What the chart is tested with: the directory that `scripts/kubernetes.sh` prints.
#[derive(Clone, Debug)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Finds them: `KUBERNETES_TOOLS`. None, with a reason printed, when it names none; on CI (where `CI` is set) that is an
    /// error.
    ///
    /// # Errors
    /// On CI, without.
    pub fn find() -> anyhow::Result<Option<Self>> {
        let directory = PathBuf::from(std::env::var_os("KUBERNETES_TOOLS").unwrap_or_default());
        if directory.join("bin/helm").is_file() {
            return Ok(Some(Self { directory }));
        }
        let reason = "there is no helm here (KUBERNETES_TOOLS names none); `make test` gets one";
        if std::env::var_os("CI").is_some() {
            bail!("{reason}");
        }
        eprintln!("skipped: {reason}");
        Ok(None)
    }

    /// One of its programs: `helm`, `helm3`, `kubectl`, `python`, `node`, `trivy`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.directory.join("bin").join(program));
        // Whatever a user's helm knows is not for tests.
        for name in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.directory.join("home"));
        }
        command.env_remove("KUBECONFIG").env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        command
    }

    /// Renders the chart with these further arguments.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn try_template<S: AsRef<std::ffi::OsStr>>(
        &self,
        program: &str,
        release: &str,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Output> {
        let mut command = self.command(program);
        command.args(["template", release]).arg(chart());
        command.args(["--namespace", NAMESPACE, "--kube-version", KUBERNETES]).args(args);
        Ok(command.output()?)
    }

    /// The same, when it has to succeed.
    ///
    /// # Errors
    /// When helm refuses.
    pub fn template<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        text(&self.try_template("helm", RELEASE, args)?)
    }

    /// What `tests/kubernetes/validate.py` has against these manifests (name, YAML), a line for each fault.
    ///
    /// # Errors
    /// When it cannot tell.
    pub fn faults(&self, manifests: &[(String, String)]) -> anyhow::Result<Vec<String>> {
        let list: Vec<Value> =
            manifests.iter().map(|(name, yaml)| serde_json::json!({"name": name, "yaml": yaml})).collect();
        let mut child = self
            .command("python")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/validate.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("its input")?.write_all(serde_json::to_string(&list)?.as_bytes())?;
        let output = child.wait_with_output()?;
        let mut lines: Vec<String> = printed(&output).lines().map(str::to_owned).collect();
        let summary = lines.pop().unwrap_or_default();
        if !summary.starts_with(&format!("{} manifests, ", manifests.len())) {
            bail!("validate.py failed: {}", printed(&output));
        }
        Ok(lines)
    }
}

/// What a program printed, when it succeeded.
///
/// # Errors
/// When it did not.
pub fn text(output: &Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{}", printed(output));
    }
    Ok(String::from_utf8(output.stdout.clone())?)
}

/// The objects of a manifest. Numbers are read as Kubernetes reads them: `0440` is octal.
///
/// # Errors
/// When it is no YAML.
pub fn objects(manifest: &str) -> anyhow::Result<Vec<Value>> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(manifest, options)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The name of an object.
#[must_use]
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Kind and name of an object.
#[must_use]
pub fn title(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or_default(), name(object))
}

/// The one of this kind and name.
#[must_use]
pub fn find<'a>(objects: &'a [Value], kind: &str, wanted: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && name(object) == wanted)
}

/// All of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The pods that an object makes: metadata and spec.
#[must_use]
pub fn pod_template(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => Some(object),
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => Some(&object["spec"]["template"]),
        "ScaledJob" => Some(&object["spec"]["jobTargetRef"]["template"]),
        "CronJob" => Some(&object["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// All containers of a pod's spec, those that run before the others first.
pub fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|key| items(&spec[key]))
}

/// The members of a list, none where there is no list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The entries of a mapping, none where there is no mapping.
pub fn entries(mapping: &Value) -> impl Iterator<Item = (&String, &Value)> {
    mapping.as_object().into_iter().flat_map(Map::iter)
}

/// Whether labels are those that a selector asks for: `matchLabels`, or a Service's plain mapping. An empty one asks for none.
///
/// # Panics
/// On `matchExpressions`, which nothing here reads.
#[must_use]
pub fn selects(selector: &Value, labels: &Value) -> bool {
    assert!(selector.get("matchExpressions").is_none(), "unknown selector: {selector}");
    let wanted = selector.get("matchLabels").unwrap_or(selector);
    entries(wanted).all(|(label, value)| labels.get(label) == Some(value))
}
