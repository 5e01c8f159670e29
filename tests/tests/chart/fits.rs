//! Whether the objects fit together.

use std::collections::BTreeSet;

use evenkeel_tests::helm::{containers, entries, find, items, of_kind, pod_template, selects, title};
use serde_json::Value;

use super::check;

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
            let found = among.iter().any(|labels| selects(selector, labels));
            if !(found || of_workers && no_workers) {
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
