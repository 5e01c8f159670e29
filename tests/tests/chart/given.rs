//! Whether what pods are given is there.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use evenkeel_tests::helm::{self, chart, containers, entries, find, items, name, of_kind, title};
use evenkeel_tests::process::{printed, program};
use serde_json::Value;

use super::{check, sets, tools};

/// What a program says of itself.
fn help(command: &[&str]) -> String {
    let output = Command::new(program(command[0])).args(&command[1..]).arg("--help").output().expect("help");
    printed(&output).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_programs_know_every_flag_and_variable_they_are_given() {
    let coordinator = help(&["evenkeel", "coordinator"]);
    let worker = help(&["evenkeel-worker"]);
    // Where a script calls several commands, each variable belongs to one of them.
    let client = ["submit", "watch", "results"].map(|command| help(&["evenkeel", command])).join(" ");
    check(|set, fault| {
        for (owner, pod) in set.pods() {
            for container in items(&pod["spec"]["containers"]) {
                let image = container["image"].as_str().unwrap_or_default();
                let known = match () {
                    () if image.contains("evenkeel/worker") => &worker,
                    () if !image.contains("evenkeel/coordinator") => continue,
                    () if container["args"][0] == "coordinator" => &coordinator,
                    () => &client,
                };
                for variable in
                    items(&container["env"]).map(|variable| variable["name"].as_str().unwrap_or_default())
                {
                    if variable.starts_with("EVENKEEL_") && !known.contains(&format!("[env: {variable}=")) {
                        fault(format!("{}: nobody reads {variable}", title(owner)));
                    }
                }
                for flag in
                    items(&container["args"]).filter_map(Value::as_str).filter(|arg| arg.starts_with("--"))
                {
                    let flag = flag.split('=').next().unwrap_or_default();
                    if !known.contains(&format!("{flag} ")) {
                        fault(format!("{}: there is no {flag}", title(owner)));
                    }
                }
            }
        }
    });
}

/// All text in a value.
fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            found.insert(text.clone());
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, found)),
        Value::Object(map) => map.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// What a pod refers to: kind, name, keys.
fn references(spec: &Value) -> Vec<(&'static str, &Value, Vec<&Value>)> {
    let mut found = Vec::new();
    for it in items(&spec["volumes"])
        .flat_map(|volume| std::iter::once(volume).chain(items(&volume["projected"]["sources"])))
    {
        if let Some(secret) = it.get("secret") {
            let name = secret.get("secretName").unwrap_or(&secret["name"]);
            found.push(("Secret", name, items(&secret["items"]).map(|item| &item["key"]).collect()));
        }
        if let Some(map) = it.get("configMap") {
            found.push(("ConfigMap", &map["name"], items(&map["items"]).map(|item| &item["key"]).collect()));
        }
        if let Some(claim) = it.get("persistentVolumeClaim") {
            found.push(("PersistentVolumeClaim", &claim["claimName"], Vec::new()));
        }
    }
    for container in containers(spec) {
        for from in items(&container["envFrom"]) {
            for (key, kind) in [("secretRef", "Secret"), ("configMapRef", "ConfigMap")] {
                if let Some(reference) = from.get(key) {
                    found.push((kind, &reference["name"], Vec::new()));
                }
            }
        }
        for variable in items(&container["env"]) {
            for (key, kind) in [("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")] {
                if let Some(reference) = variable["valueFrom"].get(key) {
                    found.push((kind, &reference["name"], vec![&reference["key"]]));
                }
            }
        }
    }
    found
}

#[test]
fn whatever_a_pod_refers_to_is_rendered_or_named_in_the_values() {
    check(|set, fault| {
        let mut given = BTreeSet::new();
        texts(&set.values, &mut given);
        // A Certificate makes a Secret with these keys.
        let certificates: BTreeSet<&str> =
            of_kind(&set.objects, "Certificate").filter_map(|it| it["spec"]["secretName"].as_str()).collect();
        for (owner, pod) in set.pods() {
            for (kind, reference, keys) in references(&pod["spec"]) {
                let wanted = reference.as_str().unwrap_or_default();
                match find(&set.objects, kind, wanted) {
                    Some(object) => {
                        for key in keys.iter().filter_map(|key| key.as_str()) {
                            if object["data"].get(key).is_none() {
                                fault(format!("{}: {kind} {wanted} has no {key}", title(owner)));
                            }
                        }
                    }
                    None if kind == "Secret" && certificates.contains(wanted) => {}
                    None if given.contains(wanted) => {}
                    None => fault(format!("{}: there is no {kind} {wanted}", title(owner))),
                }
            }
            if let Some(account) = pod["spec"]["serviceAccountName"].as_str() {
                let known = find(&set.objects, "ServiceAccount", account).is_some();
                if !known && account != "default" && !given.contains(account) {
                    fault(format!("{}: there is no ServiceAccount {account}", title(owner)));
                }
            }
            for container in containers(&pod["spec"]) {
                let claims = items(&owner["spec"]["volumeClaimTemplates"]).map(name);
                let volumes: BTreeSet<&str> = items(&pod["spec"]["volumes"])
                    .filter_map(|volume| volume["name"].as_str())
                    .chain(claims)
                    .collect();
                for mount in items(&container["volumeMounts"]) {
                    if !volumes.contains(mount["name"].as_str().unwrap_or_default()) {
                        fault(format!("{}: there is no volume {}", title(owner), mount["name"]));
                    }
                }
            }
        }
        for job in of_kind(&set.objects, "ScaledJob") {
            for trigger in items(&job["spec"]["triggers"]) {
                let Some(reference) = trigger["authenticationRef"]["name"].as_str() else { continue };
                let Some(found) = find(&set.objects, "TriggerAuthentication", reference) else {
                    fault(format!("{}: there is no TriggerAuthentication {reference}", title(job)));
                    continue;
                };
                for secret in items(&found["spec"]["secretTargetRef"]) {
                    let wanted = secret["name"].as_str().unwrap_or_default();
                    let key = secret["key"].as_str().unwrap_or_default();
                    let rendered = find(&set.objects, "Secret", wanted);
                    if rendered.map_or(!given.contains(wanted), |it| it["data"].get(key).is_none()) {
                        fault(format!("{}: there is no {key} in Secret {wanted}", title(found)));
                    }
                }
            }
        }
    });
}

#[test]
fn names_leave_room_for_what_kubernetes_adds() {
    let Some(tools) = tools() else { return };
    check(|set, fault| {
        for object in &set.objects {
            // Pods of a StatefulSet have a label of its name and a hash of 10; pods of a job its name and -0-abcde.
            let most = match object["kind"].as_str().unwrap_or_default() {
                "StatefulSet" => 52,
                "Job" => 55,
                "ScaledJob" => 45,
                _ => 63,
            };
            if name(object).len() > most {
                fault(format!("{}: {} characters, {most} at most", title(object), name(object).len()));
            }
        }
    });
    // The longest name that helm takes for a release.
    let longest = "a".repeat(53);
    for (_, file) in helm::value_sets().expect("sets") {
        let output =
            tools.try_template("helm", &longest, ["--values".as_ref(), file.as_os_str()]).expect("helm");
        let objects = helm::objects(&helm::text(&output).expect("rendered")).expect("YAML");
        for object in &objects {
            let most = if object["kind"] == "StatefulSet" { 52 } else { 63 };
            assert!(name(object).len() <= most, "{}: {} characters", title(object), name(object).len());
        }
    }
}

#[test]
fn dashboards_and_rules_are_those_of_the_files() {
    let Some(sets) = sets() else { return };
    let set = sets.iter().find(|set| set.name == "monitoring").expect("set");
    let mut shipped = 0;
    for entry in fs::read_dir(chart().join("dashboards")).expect("dashboards").flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).expect("dashboard");
        let in_maps = of_kind(&set.objects, "ConfigMap").filter_map(|map| map["data"].get(&file)?.as_str());
        let same = in_maps.filter(|found| found.trim_end() == text.trim_end()).count();
        assert_eq!(same, 1, "{file} is in {same} ConfigMaps");
        shipped += 1;
    }
    assert!(shipped >= 3, "only {shipped} dashboards");
    let text = fs::read_to_string(chart().join("rules/evenkeel.yaml")).expect("rules");
    let mut rules = helm::objects(&text).expect("YAML").pop().expect("rules");
    for rule in rules["groups"]
        .as_array_mut()
        .expect("groups")
        .iter_mut()
        .flat_map(|it| it["rules"].as_array_mut().expect("rules"))
    {
        if let Some(runbook) = rule.pointer_mut("/annotations/runbook_url") {
            let moved =
                runbook.as_str().expect("text").replace("docs/runbooks/", "https://example.org/runbooks/");
            *runbook = Value::String(moved);
        }
    }
    let shipped = of_kind(&set.objects, "PrometheusRule").next().expect("rules");
    assert_eq!(shipped["spec"], rules);
}

#[test]
fn images_are_those_that_the_values_name() {
    check(|set, fault| {
        let locked = set.name == "locked-down";
        for (owner, pod) in set.pods() {
            for container in items(&pod["spec"]["containers"]) {
                let image = container["image"].as_str().unwrap_or_default();
                let fixed = image.contains(':') && !image.ends_with(":latest") && !image.ends_with(':');
                let from_mirror = image.starts_with("registry.example.org/mirror/");
                let by_digest = image.contains("@sha256:") || !image.contains("/evenkeel/");
                if !fixed || (locked && !(from_mirror && by_digest)) {
                    fault(format!("{}: image {image}", title(owner)));
                }
                let gpu =
                    entries(&container["resources"]["limits"]).any(|(key, _)| key.starts_with("nvidia.com/"));
                if gpu != image.ends_with("-cuda") {
                    fault(format!("{}: image {image}, a GPU: {gpu}", title(owner)));
                }
            }
            let pull: Vec<&str> = items(&pod["spec"]["imagePullSecrets"])
                .filter_map(|secret| secret["name"].as_str())
                .collect();
            if locked && !(pull.contains(&"pull") && pull.contains(&"global-pull")) {
                fault(format!("{}: pull secrets {pull:?}", title(owner)));
            }
        }
    });
}
