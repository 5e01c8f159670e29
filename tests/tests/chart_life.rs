//! The chart over the life of a release, against a Kubernetes API in memory: install, test, upgrade, roll back, uninstall.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use evenkeel_tests::helm::{self, NAMESPACE, RELEASE, Tools, chart, find, title};
use evenkeel_tests::http;
use evenkeel_tests::process::{Process, printed, until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// Kinds that operators add.
const CRDS: [&str; 7] = [
    "monitoring.coreos.com/v1:servicemonitors:ServiceMonitor",
    "monitoring.coreos.com/v1:podmonitors:PodMonitor",
    "monitoring.coreos.com/v1:prometheusrules:PrometheusRule",
    "keda.sh/v1alpha1:scaledjobs:ScaledJob",
    "keda.sh/v1alpha1:triggerauthentications:TriggerAuthentication",
    "cert-manager.io/v1:certificates:Certificate",
    "cert-manager.io/v1:issuers:Issuer",
];

/// A Kubernetes API in memory, and a helm that talks to it.
struct Kubernetes {
    tools: Tools,
    helm: &'static str,
    address: String,
    config: PathBuf,
    _server: Process,
    _dir: tempfile::TempDir,
}

impl Kubernetes {
    /// Starts one. None without the tools.
    fn start(helm: &'static str) -> Option<Self> {
        let tools = Tools::find().expect("tools")?;
        let dir = tempfile::tempdir().expect("directory");
        let mut command = tools.command("python");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/api.py"));
        command.args(["--namespace", NAMESPACE]).args(CRDS.iter().flat_map(|crd| ["--crd", crd]));
        let server = Process::start(dir.path(), "api", command).expect("start");
        let url = until("the API to listen", LIMIT, || server.log().lines().next().map(str::to_owned));
        let url = url.unwrap_or_else(|error| panic!("{error}: {}", server.log()));
        let config = dir.path().join("config");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: '{url}'}}}}], \
             users: [{{name: u, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {NAMESPACE}}}}}]}}"
        );
        fs::write(&config, text).expect("write");
        let address = url.trim_start_matches("http://").to_owned();
        Some(Self { tools, helm, address, config, _server: server, _dir: dir })
    }

    fn try_helm(&self, args: &[&str]) -> Output {
        self.tools.command(self.helm).args(args).env("KUBECONFIG", &self.config).output().expect("helm")
    }

    fn helm(&self, args: &[&str]) -> String {
        let output = self.try_helm(args);
        assert!(output.status.success(), "{} {args:?}: {}", self.helm, printed(&output));
        printed(&output)
    }

    /// `helm install` or `helm upgrade` with a set of values.
    fn put(&self, verb: &str, values: &Path, more: &[&str]) -> String {
        let (chart, values) = (chart(), values.to_string_lossy().into_owned());
        let args = [verb, RELEASE, &chart.to_string_lossy(), "--values", &values, "--timeout", "30s"];
        let reset: &[&str] = if verb == "upgrade" { &["--reset-values"] } else { &[] };
        self.helm(&[&args, reset, more].concat())
    }

    /// All objects but the release's history.
    fn objects(&self) -> Vec<Value> {
        let text = http::body(&self.address, "/objects").expect("objects");
        let all: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        all.into_iter()
            .filter(|object| object["type"] != "helm.sh/release.v1" && object["kind"] != "Namespace")
            .collect()
    }
}

fn titles(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(title).collect()
}

/// What somebody asked for, without what the server adds; by kind and name.
fn wanted(objects: &[Value]) -> BTreeMap<String, Value> {
    let part =
        |object: &Value| serde_json::json!([object["spec"], object["data"], object["metadata"]["labels"]]);
    objects.iter().map(|object| (title(object), part(object))).collect()
}

fn keeps(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
}

fn values(name: &str) -> PathBuf {
    chart().join("ci").join(format!("{name}.yaml"))
}

fn a_release_lives(helm: &'static str) {
    let Some(kubernetes) = Kubernetes::start(helm) else { return };
    let set = values("ha-generated-tls");
    let notes = kubernetes.put("install", &set, &["--wait"]);
    assert!(notes.contains("evenkeel"), "no notes: {notes}");
    let installed = kubernetes.objects();
    let rendered = kubernetes.tools.template(["--values".as_ref(), set.as_os_str()]).expect("rendered");
    let of_release = |object: &&Value| object["metadata"]["annotations"].get("helm.sh/hook").is_none();
    let rendered =
        helm::objects(&rendered).expect("YAML").iter().filter(of_release).cloned().collect::<Vec<_>>();
    assert_eq!(titles(&installed), titles(&rendered));
    let tested = kubernetes.helm(&["test", RELEASE, "--logs"]);
    assert!(tested.contains("Succeeded"), "{tested}");

    // An upgrade keeps tokens and certificates, and whatever it is not about.
    kubernetes.put("upgrade", &set, &["--wait", "--set", "workers.cpu.replicas=7"]);
    let upgraded = kubernetes.objects();
    let (before, mut after) = (wanted(&installed), wanted(&upgraded));
    after.retain(|title, _| before.contains_key(title)); // without what the test left
    let changed: Vec<&String> =
        before.iter().filter(|(title, part)| after.get(*title) != Some(part)).map(|it| it.0).collect();
    assert_eq!(changed, ["StatefulSet evenkeel-worker-cpu"]);
    let workers = find(&upgraded, "StatefulSet", "evenkeel-worker-cpu").expect("workers");
    assert_eq!(workers["spec"]["replicas"], 7);

    kubernetes.helm(&["rollback", RELEASE, "1", "--wait", "--timeout", "30s"]);
    let mut back = wanted(&kubernetes.objects());
    back.retain(|title, _| before.contains_key(title));
    assert_eq!(back, before);

    // What holds data or keys stays, and the next installation takes it up again.
    let kept = |objects: &[Value]| -> BTreeMap<String, Value> {
        let all = wanted(objects);
        let names = objects.iter().filter(|object| keeps(object)).map(title);
        names.map(|title| (title.clone(), all[&title].clone())).collect()
    };
    let should_stay = kept(&kubernetes.objects());
    kubernetes.helm(&["uninstall", RELEASE, "--wait"]);
    let left = kubernetes.objects();
    let hooks = |object: &&Value| object["metadata"]["annotations"].get("helm.sh/hook").is_some();
    let without_hooks: Vec<Value> = left.iter().filter(|object| !hooks(object)).cloned().collect();
    assert_eq!(wanted(&without_hooks), should_stay);
    kubernetes.put("install", &set, &[]);
    assert_eq!(kept(&kubernetes.objects()), should_stay);
}

#[test]
fn a_release_is_installed_tested_upgraded_rolled_back_and_uninstalled_by_helm_4() {
    a_release_lives("helm");
}

#[test]
fn a_release_is_installed_tested_upgraded_rolled_back_and_uninstalled_by_helm_3() {
    a_release_lives("helm3");
}

#[test]
fn any_values_can_follow_any_others() {
    let Some(kubernetes) = Kubernetes::start("helm") else { return };
    let default = values("default");
    kubernetes.put("install", &default, &[]);
    let before = titles(&kubernetes.objects());
    for (name, file) in helm::value_sets().expect("sets") {
        kubernetes.put("upgrade", &file, &[]);
        let rendered = kubernetes.tools.template(["--values".as_ref(), file.as_os_str()]).expect("rendered");
        let rendered = helm::objects(&rendered).expect("YAML");
        let rendered: Vec<Value> = rendered
            .into_iter()
            .filter(|object| object["metadata"]["annotations"].get("helm.sh/hook").is_none())
            .collect();
        let there: Vec<Value> = kubernetes
            .objects()
            .into_iter()
            .filter(|object| titles(&rendered).contains(&title(object)) || !keeps(object))
            .collect();
        assert_eq!(titles(&there), titles(&rendered), "{name}");
    }
    kubernetes.put("upgrade", &default, &[]);
    assert!(titles(&kubernetes.objects()).is_superset(&before));
}

#[test]
fn what_a_cluster_cannot_take_is_refused() {
    let Some(kubernetes) = Kubernetes::start("helm") else { return };
    let args = |verb| -> Vec<String> {
        [verb, RELEASE, &chart().to_string_lossy(), "--timeout", "5s"].map(str::to_owned).to_vec()
    };
    let said = |args: &[String], more: &[&str]| {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let output = kubernetes.try_helm(&args);
        assert!(!output.status.success(), "{args:?} is taken");
        printed(&output)
    };
    // The API is as strict as it should be: a field that is not there, and one that must not change.
    let unknown =
        r#"extraObjects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dat": {}}]"#;
    let message = said(&args("install"), &["--set-json", unknown]);
    assert!(message.contains("dat"), "{message}");
    let _ = kubernetes.try_helm(&["uninstall", RELEASE]);
    kubernetes.put("install", &values("default"), &[]);
    let moved = said(&args("upgrade"), &["--set", "nameOverride=other,fullnameOverride=evenkeel"]);
    assert!(moved.contains("immutable"), "{moved}");
}
