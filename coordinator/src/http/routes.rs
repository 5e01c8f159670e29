//! The routes of the JSON API, in one table: what is served is what is described.

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Site, api as answers};
use crate::access::Role;
use crate::api;

/// A route.
struct Route {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    role: Role,
    /// Of the question behind the path: name, type, meaning.
    query: &'static [(&'static str, &'static str, &'static str)],
    /// Whether a spec comes with it.
    spec: bool,
    answer: fn(&mut SchemaGenerator) -> Schema,
    handler: fn() -> MethodRouter<Site>,
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const TRIALS: &[(&str, &str, &str)] = &[
    ("status", "string", "only trials that are `completed`, `diverged`, `failed`, `running` or `waiting`"),
    ("strategy", "string", "only trials of the strategy of this name"),
    ("worker", "string", "only trials of this worker"),
    (
        "q",
        "string",
        "a trial's number, or a part of an error or of the name of a dataset, model, strategy or worker",
    ),
    ("after", "integer", "only trials behind this one: `next` of the answer before"),
    ("limit", "integer", "how many at most: 100 unless said otherwise, 1000 at most"),
];

macro_rules! routes {
    (@or $default:expr,) => { $default };
    (@or $default:expr, $given:expr) => { $given };
    ($($method:ident $path:literal $role:ident $answer:ty, $handler:path, $summary:literal $(, query $query:expr)? $(, spec $spec:expr)?;)*) => {
        &[$(Route {
            method: stringify!($method),
            path: concat!("/api/v1/", $path),
            summary: $summary,
            role: Role::$role,
            query: routes!(@or &[], $($query)?),
            spec: routes!(@or false, $($spec)?),
            answer: of::<$answer>,
            handler: || $method($handler),
        }),*]
    };
}

const ROUTES: &[Route] = routes![
    get "sweeps" Read api::Sweeps, answers::sweeps, "All sweeps, as `evenkeel list --json` prints them";
    post "sweeps" Submit api::Submitted, answers::submit,
        "Submits a sweep whose spec needs no files. The same spec again finds the sweep there is (200 instead of 201)", spec true;
    get "sweeps/{id}" Read api::SweepStatus, answers::sweep, "How a sweep stands, as `evenkeel status --json` prints it";
    post "sweeps/{id}/cancel" Submit api::SweepStatus, answers::cancel, "Stops a sweep; what is durable stays";
    post "sweeps/{id}/pause" Submit api::SweepStatus, answers::pause, "Sends nothing more of it out for a while";
    post "sweeps/{id}/resume" Submit api::SweepStatus, answers::resume, "Goes on after a pause or a cancellation";
    post "sweeps/{id}/retry" Submit api::SweepStatus, answers::retry, "Runs the failed trials of a completed sweep again";
    get "sweeps/{id}/trials" Read api::Trials, answers::trials, "Trials in the order of their numbers, a page at a time", query TRIALS;
    get "sweeps/{id}/trials/{index}" Read api::Trial, answers::trial, "Everything that is known of a trial";
    get "sweeps/{id}/live" Read api::Live, answers::live, "Stability so far: what the plots of the page show";
    get "workers" Read api::Workers, answers::workers, "All workers, as `evenkeel workers --json` prints them";
    post "workers/{id}/drain" Admin api::Draining, answers::drain, "Lets a worker finish what it runs and leave";
    get "queue" Read api::Queue, answers::queue, "How much there is to do, for autoscalers";
    get "health" Read api::Health, answers::health, "How the coordinator does, also while it stands by";
    get "openapi.json" Read Value, answers::openapi, "This description";
];

/// All of them.
pub fn router() -> Router<Site> {
    ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
}

/// The description of the API: OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = of::<api::Error>(&mut generator).to_value();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let answer = (route.answer)(&mut generator).to_value();
        let operation = operation(route, &answer, &error);
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(route.method.to_owned(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Evenkeel",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The JSON API of a coordinator. Paths are relative to where its HTTP port is served.",
        },
        "servers": [{ "url": "../.." }],
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, answer: &Value, error: &Value) -> Value {
    let content = |schema: &Value| json!({ "application/json": { "schema": schema } });
    let named = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let kind = |name: &str| if name == "index" { "integer" } else { "string" };
    let mut parameters: Vec<Value> = named
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind(name) } }))
        .collect();
    parameters.extend(route.query.iter().map(|(name, kind, meaning)| {
        json!({ "name": name, "in": "query", "description": meaning, "schema": { "type": kind } })
    }));
    let words: Vec<&str> = route.path.trim_start_matches("/api/v1/").split(['/', '.']).collect();
    let words: String = words.iter().map(|word| format!("-{}", word.trim_matches(['{', '}']))).collect();
    let ok = json!({ "description": "The answer", "content": content(answer) });
    let mut operation = json!({
        "operationId": format!("{}{words}", route.method),
        "summary": route.summary,
        "description": format!("Needs the role `{}` where the coordinator asks for tokens.", route.role.name()),
        "parameters": parameters,
        "responses": {
            "200": ok,
            "default": { "description": "Why there is no answer", "content": content(error) },
        },
    });
    if route.spec {
        operation["responses"]["201"] = ok;
        operation["requestBody"] = json!({
            "required": true,
            "description": "A spec, in YAML or JSON (`evenkeel schema` describes it)",
            "content": { "application/yaml": {}, "application/json": {} },
        });
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let document = document();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method];
            assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 10), "{}", route.path);
        }
        let text = document.to_string();
        let mut references = 0;
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("name");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
            references += 1;
        }
        assert!(references > ROUTES.len(), "{references}");
        assert!(!text.contains("$defs"));
    }
}
