//! The helm chart as it is rendered: what Kubernetes takes, what is safe, what fits together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use evenkeel_tests::helm::{
    self, RELEASE, Tools, chart, containers, entries, find, items, name, of_kind, pod_template, selects,
    title,
};
use evenkeel_tests::process::{printed, program};
use serde_json::{Value, json};

/// A set of values and what is rendered with it.
struct Set {
    name: String,
    file: PathBuf,
    values: Value,
    yaml: String,
    objects: Vec<Value>,
}

impl Set {
    /// Every pod that the set makes, with the object that makes it.
    fn pods(&self) -> Vec<(&Value, &Value)> {
        self.objects.iter().filter_map(|object| Some((object, pod_template(object)?))).collect()
    }
}

fn tools() -> Option<Tools> {
    Tools::find().expect("tools")
}

/// All sets of values, rendered by helm 4. None without it.
fn sets() -> Option<&'static [Set]> {
    static SETS: OnceLock<Option<Vec<Set>>> = OnceLock::new();
    let render = || {
        let tools = tools()?;
        let render = |(name, file): (String, PathBuf)| {
            let yaml = tools.template(["--values".as_ref(), file.as_os_str()]);
            let yaml = yaml.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let objects = helm::objects(&yaml).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let values = fs::read_to_string(&file).expect("values");
            let values = helm::objects(&values).expect("YAML").pop().unwrap_or_default();
            Set { name, file, values, yaml, objects }
        };
        let sets: Vec<Set> = helm::value_sets().expect("sets").into_iter().map(render).collect();
        assert!(sets.len() >= 12, "only {} sets of values", sets.len());
        Some(sets)
    };
    SETS.get_or_init(render).as_deref()
}

/// Runs a check over all sets. It says what is wrong by calling what it is given.
fn check(faults_of: impl Fn(&Set, &mut dyn FnMut(String))) {
    let Some(sets) = sets() else { return };
    let mut faults = Vec::new();
    for set in sets {
        faults_of(set, &mut |fault| faults.push(format!("{}: {fault}", set.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn template(args: &[&str]) -> Output {
    tools().expect("tools").try_template("helm", RELEASE, args).expect("helm")
}

fn rendered(args: &[&str]) -> Vec<Value> {
    let output = template(args);
    helm::objects(&helm::text(&output).expect("rendered")).expect("YAML")
}

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

#[test]
fn every_port_has_a_way_in_and_every_way_in_a_port() {
    check(|set, fault| {
        for (owner, pod) in set.pods() {
            let labels = &pod["metadata"]["labels"];
            let open = |list: &str, ports: &str, kind| {
                let selected =
                    of_kind(&set.objects, kind).filter(|it| selects(&it["spec"]["selector"], labels));
                let found: BTreeSet<String> = selected
                    .flat_map(|it| items(&it["spec"][list]))
                    .map(|port| port[ports].as_str().unwrap_or_default().to_owned())
                    .collect();
                found
            };
            let mut ways = open("ports", "targetPort", "Service");
            ways.extend(open("podMetricsEndpoints", "port", "PodMonitor"));
            let ports: BTreeSet<String> = containers(&pod["spec"])
                .flat_map(|container| items(&container["ports"]))
                .map(|port| port["name"].as_str().unwrap_or_default().to_owned())
                .collect();
            if ways != ports {
                fault(format!("{}: ports {ports:?}, and ways to {ways:?}", title(owner)));
            }
            if of_kind(&set.objects, "NetworkPolicy").next().is_none() {
                continue;
            }
            let policies: Vec<&Value> = of_kind(&set.objects, "NetworkPolicy")
                .filter(|policy| selects(&policy["spec"]["podSelector"], labels))
                .collect();
            let allowed: BTreeSet<String> = policies
                .iter()
                .flat_map(|policy| items(&policy["spec"]["ingress"]))
                .flat_map(|rule| items(&rule["ports"]))
                .map(|port| port["port"].as_str().unwrap_or_default().to_owned())
                .collect();
            if policies.len() != 1 || allowed != ports {
                let count = policies.len();
                fault(format!("{}: {count} policies let in to {allowed:?}, it has {ports:?}", title(owner)));
            }
        }
    });
}

#[test]
fn selectors_select_what_is_there() {
    check(|set, fault| {
        let pods: Vec<&Value> = set.pods().iter().map(|(_, pod)| &pod["metadata"]["labels"]).collect();
        let no_workers = !set
            .pods()
            .iter()
            .any(|(_, pod)| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "worker");
        let mut must_select = |owner: &Value, selector: &Value, among: &[&Value]| {
            if entries(selector.get("matchLabels").unwrap_or(selector)).next().is_none() {
                fault(format!("{}: an empty selector: {selector}", title(owner)));
            }
            // Who has no workers may have a Service for those to come.
            let of_workers = selector.to_string().contains("\"app.kubernetes.io/component\":\"worker\"");
            if !among.iter().any(|labels| selects(selector, labels)) && !(of_workers && no_workers) {
                fault(format!("{}: nothing is as {selector}", title(owner)));
            }
        };
        let services: Vec<&Value> =
            of_kind(&set.objects, "Service").map(|service| &service["metadata"]["labels"]).collect();
        for object in &set.objects {
            let spec = &object["spec"];
            match object["kind"].as_str().unwrap_or_default() {
                "Service" | "PodDisruptionBudget" | "PodMonitor" => {
                    must_select(object, &spec["selector"], &pods)
                }
                "ServiceMonitor" => must_select(object, &spec["selector"], &services),
                "NetworkPolicy" => {
                    must_select(object, &spec["podSelector"], &pods);
                    let rules = [("ingress", "from"), ("egress", "to")];
                    for peer in rules
                        .iter()
                        .flat_map(|(list, _)| items(&spec[list]))
                        .flat_map(|rule| rules.iter().flat_map(|(_, peers)| items(&rule[peers])))
                        .filter(|peer| peer.get("namespaceSelector").is_none())
                    {
                        if let Some(selector) = peer.get("podSelector") {
                            must_select(object, selector, &pods);
                        }
                    }
                }
                _ => {}
            }
            if let Some(pod) = pod_template(object) {
                let own = [&pod["metadata"]["labels"]];
                if let Some(selector) = spec.get("selector") {
                    must_select(object, selector, &own);
                }
                for constraint in items(&pod["spec"]["topologySpreadConstraints"]) {
                    must_select(object, &constraint["labelSelector"], &own);
                }
                for term in items(
                    &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"],
                ) {
                    must_select(object, &term["labelSelector"], &own);
                }
            }
        }
        // Pods of two workloads never answer to the same selector of a workload or a budget.
        for kind in ["StatefulSet", "PodDisruptionBudget"] {
            for (_, pod) in set.pods() {
                let labels = &pod["metadata"]["labels"];
                let owners: Vec<String> = of_kind(&set.objects, kind)
                    .filter(|object| selects(&object["spec"]["selector"], labels))
                    .map(title)
                    .collect();
                if owners.len() > 1 {
                    fault(format!("{owners:?} select the same pods"));
                }
            }
        }
        for object in &set.objects {
            let target = match object["kind"].as_str().unwrap_or_default() {
                "StatefulSet" => ("Service", &object["spec"]["serviceName"]),
                "HorizontalPodAutoscaler" => ("StatefulSet", &object["spec"]["scaleTargetRef"]["name"]),
                _ => continue,
            };
            let found = find(&set.objects, target.0, target.1.as_str().unwrap_or_default());
            let headless = target.0 != "Service" || found.is_some_and(|it| it["spec"]["clusterIP"] == "None");
            if found.is_none() || !headless {
                fault(format!("{}: there is no such {} as {}", title(object), target.0, target.1));
            }
        }
    });
}

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
        if let Some(runbook) = rule["annotations"].get_mut("runbook_url") {
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
