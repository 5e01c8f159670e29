//! The JSON API beside its description, the command line and the results.

use std::fs;

use evenkeel_tests::results::Rows;
use serde_json::Value;

use super::cluster::{Cluster, SMALL};

/// Whether a value is what a schema says: its type, its fields, and those of what is in it.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/components/schemas/").expect("a component");
        return fits(document, &document["components"]["schemas"][name], value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let null = any.iter().any(|schema| schema["type"] == "null");
        if null && value.is_null() {
            return;
        }
        return fits(document, &any[0], value, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let fitting = types.contains(&kind) || (kind == "integer" && types.contains(&"number"));
    assert!(fitting, "{at} is {value}, not {types:?}");
    if let Some(object) = value.as_object().filter(|_| schema["properties"].is_object()) {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(object.contains_key(required), "{at} has no {required}");
        }
        for (name, value) in object {
            assert!(
                schema["properties"][name].is_object() || schema["properties"][name] == true,
                "{at}.{name} is not described"
            );
            fits(document, &schema["properties"][name], value, &format!("{at}.{name}"));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item, &format!("{at}[]"));
    }
}

#[test]
fn the_api_is_as_described_and_says_what_the_command_line_and_the_results_say() {
    let cluster = Cluster::plain(2);
    let sweep = cluster.submit(SMALL);
    let (code, again) = cluster.post("/api/v1/sweeps", SMALL);
    assert_eq!((code, &again["id"], &again["created"]), (200, &sweep.as_str().into(), &false.into()));
    for (spec, says) in [
        (SMALL.replace("steps: 200", "stepps: 200"), "spec.yaml:7: strategies[0].stepps: unknown field"),
        (SMALL.replace("synthetic: {generator: separable, samples: [30, 60], features: 8, margin: 0.5, instances: 3}", "features: {path: x.csv, label: y}"), "evenkeel submit"),
        ("{".to_owned(), "spec.yaml:1"),
    ] {
        let (code, answer) = cluster.post("/api/v1/sweeps", &spec);
        assert!(code == 400 && answer["error"].as_str().is_some_and(|error| error.contains(says)), "{answer}");
    }
    let ended = cluster.ended(&sweep);
    assert_eq!((&ended["trials"], &ended["failed"]), (&144.into(), &0.into()), "{ended}");
    assert!(ended["diverged"].as_u64() > Some(0), "{ended}");

    // Every route that is described answers, and with what is described.
    let document = cluster.get("/api/v1/openapi.json").1;
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let id = if path.contains("/workers/") { "nobody" } else { &sweep };
            let asked = path.replace("{id}", id).replace("{index}", "17");
            let (code, answer) = cluster.send(&method.to_uppercase(), &asked, &[], "{");
            routes += 1;
            if method == "get" {
                assert_eq!(code, 200, "{asked}: {answer}");
                let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
                fits(&document, schema, &answer, &asked);
            } else {
                // Nothing of this can be done with a sweep that has ended, or with a worker that is not there.
                assert!([200, 400, 404, 409].contains(&code), "{method} {asked}: {code} {answer}");
                let schema = &operation["responses"]["default"]["content"]["application/json"]["schema"];
                if code != 200 {
                    fits(&document, schema, &answer, &asked);
                }
            }
        }
    }
    assert!(routes >= 14, "{routes}");
    for (path, expected) in [
        ("/api/v1/sweeps/none-0", 404),
        ("/api/v1/sweeps/NOT%20AN%20ID", 400),
        (&*format!("/api/v1/sweeps/{sweep}/trials/144"), 404),
        (&*format!("/api/v1/sweeps/{sweep}/trials/x"), 400),
        (&*format!("/api/v1/sweeps/{sweep}/trials?status=lost"), 400),
        (&*format!("/api/v1/sweeps/{sweep}/trials?after=x"), 400),
    ] {
        let (code, answer) = cluster.get(path);
        assert!(code == expected && answer["error"].is_string(), "{path}: {code} {answer}");
    }
    // The retry above found nothing that failed, and the sweep is as it was.
    let ended = cluster.ended(&sweep);

    // The command line prints the same.
    let still = |mut value: Value| {
        for worker in value["workers"].as_array_mut().into_iter().flatten() {
            worker["flops_per_second"] = Value::Null;
        }
        value
    };
    assert_eq!(cluster.cli(&["status", &sweep]), ended);
    assert_eq!(cluster.cli(&["list"]), cluster.get("/api/v1/sweeps").1);
    assert_eq!(still(cluster.cli(&["workers"])), still(cluster.get("/api/v1/workers").1));

    // Each trial is its row of results.parquet, by itself and in the list.
    let out = cluster.results(&sweep);
    let rows = Rows::read(&out.join("results.parquet")).expect("results");
    let executions = Rows::read(&out.join("execution.parquet")).expect("executions");
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = cluster.get(&format!("/api/v1/sweeps/{sweep}/trials?limit=50&after={after}")).1;
        listed.extend(page["trials"].as_array().expect("trials").clone());
        let Some(next) = page["next"].as_u64() else { break };
        after = next.to_string();
    }
    assert_eq!((listed.len(), rows.rows.len()), (144, 144));
    let text = |value: &Value| match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for (at, row) in listed.iter().enumerate() {
        for column in ["trial_index", "dataset", "model", "strategy", "seed", "status", "error"] {
            assert_eq!(text(&row[column]), rows.column(column)[at], "trial {at}: {column}");
        }
        assert_eq!(text(&row["worker"]), executions.column("worker")[at], "trial {at}");
    }
    for at in [0, 17, 100, 143] {
        let trial = cluster.get(&format!("/api/v1/sweeps/{sweep}/trials/{at}")).1;
        assert_eq!(text(&trial["trial_id"]), rows.column("trial_id")[at]);
        let measures = trial["measures"].as_object().expect("measures");
        assert!(measures.len() > 5, "{trial}");
        for (name, value) in measures {
            let found: f64 = rows.column(name)[at].parse().unwrap_or_else(|_| panic!("{name} of trial {at}"));
            // The reader of JSON here may be off by the last bit.
            let off = (value.as_f64().expect("number") - found).abs();
            assert!(off <= found.abs() * 1e-15, "trial {at}: {name} is {value}, not {found}");
        }
        assert!(at >= 6 || trial["curve"].as_array().expect("curve").len() == 3, "{trial}");
    }

    // At the end, live figures are those of the report.
    let summary: Value =
        serde_json::from_slice(&fs::read(out.join("summary.json")).expect("summary")).expect("json");
    let live = cluster.get(&format!("/api/v1/sweeps/{sweep}/live")).1;
    let (ours, theirs) =
        (live["lines"].as_array().expect("lines"), summary["strategies"].as_array().expect("lines"));
    assert_eq!((ours.len(), theirs.len()), (4, 4));
    let mut compared = 0;
    for (ours, theirs) in ours.iter().zip(theirs) {
        for (field, name) in
            [("score_mean", "score_mean"), ("score_seed_sd", "score_sd_pooled"), ("loo_mean", "loo_mean")]
        {
            let Some((a, b)) = ours[field].as_f64().zip(theirs[name].as_f64()) else {
                assert_eq!(ours[field], theirs[name], "{}: {field}", ours["label"]);
                continue;
            };
            assert!(
                (a - b).abs() <= 1e-12 * b.abs().max(1.0),
                "{}: {field} is {a}, {name} is {b}",
                ours["label"]
            );
            compared += 1;
        }
        for field in ["label", "strategy", "completed", "diverged", "failed"] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
    }
    assert!(compared >= 9, "{compared}");
}
