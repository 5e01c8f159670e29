//! What helm, Kubernetes and a scanner say of what is rendered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use evenkeel_tests::helm::{self, RELEASE, Tools, chart, containers, items, pod_template, title};
use evenkeel_tests::process::printed;
use serde_json::{Value, json};

use super::{check, sets, tools};

#[test]
fn helm_4_and_helm_3_find_nothing_to_complain_about() {
    let (Some(tools), Some(sets)) = (tools(), sets()) else { return };
    for set in sets {
        for program in ["helm", "helm3"] {
            let mut command = tools.command(program);
            let output =
                command.args(["lint", "--strict"]).arg(chart()).arg("--values").arg(&set.file).output();
            let output = output.expect("helm");
            assert!(output.status.success(), "{program}: {}: {}", set.name, printed(&output));
        }
    }
}

/// What of an object does not differ from one rendering to the next: all but generated Secrets and sums of them.
fn lasting(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] == "Secret" {
        object["data"] = Value::Null;
    }
    let mut pods = &mut object;
    for key in ["spec", "jobTargetRef", "template"] {
        if pods.get(key).is_some() {
            pods = &mut pods[key];
        }
    }
    if let Some(annotations) = pods.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !name.starts_with("checksum/"));
    }
    object
}

#[test]
fn helm_3_renders_what_helm_4_renders() {
    let (Some(tools), Some(sets)) = (tools(), sets()) else { return };
    for set in sets {
        let values = ["--values".as_ref(), set.file.as_os_str()];
        let output = tools.try_template("helm3", RELEASE, values).expect("helm3");
        let objects = helm::objects(&helm::text(&output).expect("rendered")).expect("YAML");
        let by_title = |objects: &[Value]| -> BTreeMap<String, Value> {
            objects.iter().map(|object| (title(object), lasting(object))).collect()
        };
        assert_eq!(by_title(&objects), by_title(&set.objects), "{}", set.name);
    }
}

#[test]
fn nothing_but_generated_secrets_differs_when_it_is_rendered_again() {
    let (Some(tools), Some(sets)) = (tools(), sets()) else { return };
    let mut equal = 0;
    for set in sets {
        let again = tools.template(["--values".as_ref(), set.file.as_os_str()]).expect("rendered");
        let generated = set.objects.iter().any(|object| object["kind"] == "Secret");
        if generated {
            let again = helm::objects(&again).expect("YAML");
            let lasting = |objects: &[Value]| objects.iter().map(lasting).collect::<Vec<_>>();
            assert_eq!(lasting(&again), lasting(&set.objects), "{}", set.name);
        } else {
            assert_eq!(again, set.yaml, "{}", set.name);
            equal += 1;
        }
    }
    assert!(equal > 0, "every set generates a Secret");
}

#[test]
fn kubernetes_and_its_operators_would_take_all_that_is_rendered() {
    let (Some(tools), Some(sets)) = (tools(), sets()) else { return };
    let mut manifests: Vec<(String, String)> =
        sets.iter().map(|set| (set.name.clone(), set.yaml.clone())).collect();
    let longest = "a".repeat(53);
    for set in ["ha-generated-tls", "sweeps", "monitoring"] {
        let file = chart().join("ci").join(format!("{set}.yaml"));
        let values = ["--values".as_ref(), file.as_os_str()];
        let output = tools.try_template("helm", &longest, values).expect("helm");
        manifests.push((format!("{set}, long name"), helm::text(&output).expect("rendered")));
    }
    assert_eq!(tools.faults(&manifests).expect("validate.py"), Vec::<String>::new());
}

#[test]
fn what_kubernetes_would_not_take_is_found() {
    let Some(tools) = tools() else { return };
    let wrong = [
        (
            "unknown field",
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selectors: {a: b}}}",
            "selectors",
        ),
        ("wrong type", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {a: 1}}", "data.a"),
        ("unknown kind", "{apiVersion: v1, kind: Servise, metadata: {name: a}}", "knows no Servise"),
        ("bad name", "{apiVersion: v1, kind: ConfigMap, metadata: {name: A_b}}", "no name"),
        (
            "bad label",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {a: 1.0+b}}}",
            "no label",
        ),
        ("twice", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, name: b}}", "twice"),
        (
            "unknown field of a custom kind",
            "{apiVersion: cert-manager.io/v1, kind: Issuer, metadata: {name: a}, spec: {selfsigned: {}}}",
            "spec.selfsigned",
        ),
        (
            "unknown custom kind",
            "{apiVersion: keda.sh/v1alpha1, kind: ScaledJobs, metadata: {name: a}}",
            "ScaledJobs",
        ),
    ];
    for (what, yaml, expected) in wrong {
        let faults = tools.faults(&[(what.to_owned(), yaml.to_owned())]).expect("validate.py");
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{what}: {faults:?}");
    }
}

/// What trivy finds that is grave in objects.
fn grave<'a>(tools: &Tools, objects: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    for (number, object) in objects.into_iter().enumerate() {
        fs::write(dir.path().join(format!("{number}.json")), object).expect("write");
    }
    let mut command = tools.command("trivy");
    command.args([
        "config",
        "--skip-check-update",
        "--quiet",
        "--severity",
        "HIGH,CRITICAL",
        "--format",
        "json",
    ]);
    command.args(["--cache-dir".as_ref(), dir.path().join("cache").as_os_str()]);
    let output = command.arg(dir.path()).output().expect("trivy");
    let report: Value = serde_json::from_str(&helm::text(&output).expect("report")).expect("JSON");
    let looked_at = items(&report["Results"]).map(|result| &result["MisconfSummary"]["Successes"]);
    assert!(looked_at.filter_map(Value::as_u64).sum::<u64>() > 10, "nothing was looked at: {report}");
    items(&report["Results"])
        .flat_map(|result| items(&result["Misconfigurations"]))
        .map(|found| format!("{} {}", found["ID"], found["Message"]))
        .collect()
}

#[test]
fn trivy_finds_nothing_grave() {
    let (Some(tools), Some(sets)) = (tools(), sets()) else { return };
    // Each workload once: most look the same in most sets.
    let mut different = BTreeSet::new();
    for object in sets.iter().flat_map(|set| &set.objects).filter(|object| pod_template(object).is_some()) {
        different.insert(object.to_string());
    }
    assert_eq!(grave(&tools, &different), Vec::<String>::new());
    let bad = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {"containers": [
        {"name": "bad", "image": "bad", "securityContext": {"privileged": true}}]}});
    assert!(!grave(&tools, [&bad.to_string()]).is_empty(), "it does not find what is grave");
}

#[test]
fn every_container_has_no_rights_and_says_what_it_needs() {
    check(|set, fault| {
        for (owner, pod) in set.pods() {
            let spec = &pod["spec"];
            let mut must = |holds: bool, what: &str| {
                if !holds {
                    fault(format!("{}: {what}", title(owner)));
                }
            };
            must(spec["automountServiceAccountToken"] == false, "it gets the token of a ServiceAccount");
            must(spec["enableServiceLinks"] == false, "Services become environment variables");
            must(spec["securityContext"]["runAsNonRoot"] == true, "it may run as root");
            must(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp profile");
            for key in ["hostNetwork", "hostPID", "hostIPC"] {
                must(spec.get(key).is_none_or(|value| value == false), key);
            }
            must(
                items(&spec["volumes"]).all(|volume| volume.get("hostPath").is_none()),
                "it mounts the host",
            );
            must(items(&spec["containers"]).count() > 0, "no containers");
            for container in containers(spec) {
                let security = &container["securityContext"];
                must(security["runAsNonRoot"] == true, "a container may run as root");
                must(security["readOnlyRootFilesystem"] == true, "a root file system can be written");
                must(security["allowPrivilegeEscalation"] == false, "a container may get more rights");
                must(security["capabilities"] == json!({"drop": ["ALL"]}), "a container has capabilities");
                must(
                    security["seccompProfile"]["type"] == "RuntimeDefault",
                    "a container has no seccomp profile",
                );
                must(security.get("privileged").is_none(), "privileged");
                for key in ["cpu", "memory"] {
                    must(!container["resources"]["requests"][key].is_null(), "a container asks for no share");
                }
                must(
                    !container["resources"]["limits"]["memory"].is_null(),
                    "a container's memory has no limit",
                );
            }
        }
    });
}
