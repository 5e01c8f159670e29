//! What values do.

use std::process::Output;

use evenkeel_tests::helm::{self, RELEASE, chart, find, name, of_kind, pod_template};
use evenkeel_tests::process::printed;
use serde_json::{Value, json};

use super::tools;

fn template(args: &[&str]) -> Output {
    tools().expect("tools").try_template("helm", RELEASE, args).expect("helm")
}

fn rendered(args: &[&str]) -> Vec<Value> {
    let output = template(args);
    helm::objects(&helm::text(&output).expect("rendered")).expect("YAML")
}

/// The pods' template of the object of this kind and name.
fn pod_of<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    pod_template(find(objects, kind, name).unwrap_or_else(|| panic!("no {kind} {name}"))).expect("pods")
}

#[test]
fn what_changes_for_a_pod_replaces_it_and_what_does_not_leaves_it() {
    if tools().is_none() {
        return;
    }
    // Tokens of one's own, since others are generated for each rendering.
    let rendered = |args: &[&str]| rendered(&[&["--set", "auth.existingSecret=mine"], args].concat());
    let before = rendered(&[]);
    let coordinator = |objects: &[Value]| pod_of(objects, "StatefulSet", "evenkeel-coordinator").clone();
    let worker = |objects: &[Value]| pod_of(objects, "StatefulSet", "evenkeel-worker-cpu").clone();
    let after = rendered(&["--set", "workers.cpu.slots=2"]);
    assert_ne!(worker(&before), worker(&after));
    assert_eq!(coordinator(&before), coordinator(&after), "coordinators restart for a change of workers");
    let after = rendered(&["--set", "workers.cpu.replicas=5,coordinator.pdb.enabled=false"]);
    assert_eq!(worker(&before), worker(&after), "workers restart when there are more");
    assert_eq!(coordinator(&before), coordinator(&after));

    // Tokens of the chart's own are drawn anew for each rendering: a worker reads its token once, a coordinator looks again.
    let (one, other) = (self::rendered(&[]), self::rendered(&[]));
    let token = |objects: &[Value]| worker(objects)["metadata"]["annotations"]["checksum/token"].clone();
    assert!(token(&one).is_string(), "{}", worker(&one)["metadata"]);
    assert_ne!(token(&one), token(&other), "another token leaves workers as they are");
    assert_eq!(coordinator(&one), coordinator(&other), "another token restarts coordinators");

    // A job cannot be changed: another spec makes another job, and the same spec the same.
    let sweep = |seeds: u32| {
        let spec = json!({"apiVersion": "evenkeel/v1", "name": "s", "datasets": [{"synthetic": {}}],
            "strategies": [{"name": "head"}], "seeds": seeds});
        let spec = format!("sweeps.specs=[{spec}]");
        let objects = rendered(&["--set-json", &spec]);
        let job = of_kind(&objects, "Job").next().expect("a job");
        name(job).to_owned()
    };
    assert_eq!(sweep(1), sweep(1));
    assert_ne!(sweep(1), sweep(2));
}

#[test]
fn values_that_make_no_sense_are_refused_with_words_that_help() {
    if tools().is_none() {
        return;
    }
    // What is set, and what the message has to name.
    let cases: &[(&str, &[&str])] = &[
        ("coordinator.replica=2", &["coordinator", "replica"]),
        ("coordinator.replicas=2", &["coordinator.replicas is 2", "etcd"]),
        ("coordinator.replicas=-1", &["replicas", "-1"]),
        ("coordinator.replicas=2,etcd.enabled=true", &["coordinator.replicas is 2", "store.url"]),
        ("etcd.enabled=true,etcd.endpoints={http://etcd:2379}", &["etcd.enabled and etcd.endpoints"]),
        ("etcd.endpoints={https://etcd:2379}", &["etcd.tls.existingSecret"]),
        ("etcd.enabled=true,etcd.replicas=2", &["etcd", "replicas"]),
        ("tls.mode=on", &["tls", "mode"]),
        ("logFormat=xml", &["logFormat"]),
        ("store.url=ftp://host/path", &["store", "url"]),
        ("store.persistence.size=much", &["size"]),
        ("workers.Big.replicas=1", &["workers", "Big"]),
        ("workers.cpu.slots=0", &["slots"]),
        ("workers.cpu.slots=two", &["slots"]),
        ("workers.cpu.gpus=1", &["workers", "cpu", "gpus"]),
        ("workers.gpu.gpu.enabled=true,workers.gpu.slots=2", &["workers.gpu", "slots is 2"]),
        ("workers.cpu.autoscaling.engine=knative", &["engine"]),
        ("workers.cpu.autoscaling.minReplicas=20", &["minReplicas is 20", "maxReplicas is 10"]),
        ("workers.cpu.resources.requests.cpu=lots", &["cpu"]),
        ("coordinator.ingress.http.enabled=true", &["coordinator.ingress.http", "host"]),
        ("coordinator.image.digest=abc", &["digest"]),
        ("image.pullPolicy=Sometimes", &["pullPolicy"]),
    ];
    let mut faults = Vec::new();
    for (values, words) in cases {
        let output = template(&["--set", values]);
        let said = printed(&output);
        if output.status.success() {
            faults.push(format!("{values}: it is taken"));
        } else if let Some(word) = words.iter().find(|word| !said.contains(**word)) {
            faults.push(format!("{values}: the message does not say {word:?}: {said}"));
        }
    }
    let output = tools()
        .expect("tools")
        .command("helm")
        .args(["template", RELEASE])
        .arg(chart())
        .args(["--kube-version", "1.25"])
        .output();
    let said = printed(&output.expect("helm"));
    if !said.contains("kubeVersion") {
        faults.push(format!("Kubernetes 1.25: {said}"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(
        template(&["--set", "global.anything=1"]).status.success(),
        "a chart around this one has globals"
    );
}
