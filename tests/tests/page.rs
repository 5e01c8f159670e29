//! The page and the JSON API, over the real programs, in a real browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_tests::browser::Browser;
use evenkeel_tests::http;
use evenkeel_tests::process::{Coordinator, Etcd, Process, free_port, printed, run, status, until, worker, worker_with};
use evenkeel_tests::results::Rows;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(240);

/// A small sweep of two strategies, one of which leaves the numbers.
const SMALL: &str = "
apiVersion: evenkeel/v1
name: small
datasets:
  - synthetic: {generator: separable, samples: [30, 60], features: 8, margin: 0.5, instances: 3}
strategies:
  - {name: head, setting: head, steps: 200, learning_rate: 0.1, checkpoints: [50, 100]}
  - {name: wild, setting: head, steps: 200, learning_rate: 1.0e+6, weight_decay: 1.0e+3, bias: true}
  - {name: several, setting: head, steps: 200, learning_rate: 0.1, mhloss: {heads: [2, 5]}}
seeds: 6
stability: {leave_one_out: 4}
";

/// Two cores are busy with it for a good while: it is cancelled. The second dataset fits no machine.
const LONG: &str = "
apiVersion: evenkeel/v1
name: long
datasets:
  - synthetic: {generator: separable, samples: 10000000, features: 4000, margin: 0.5}
  - synthetic: {generator: separable, samples: 200, features: 64, margin: {linspace: [0.1, 4.0, 40]}, instances: 20}
strategies:
  - {name: head, setting: head, steps: 3000, learning_rate: 0.1}
  - {name: '<script>alert(1)</script>', setting: head, steps: 3000, learning_rate: 0.1, mhloss: {heads: 3}}
seeds: 10
stability: {leave_one_out: 20, exact_margin: false}
retries: {max_attempts: 1}
";

struct Cluster {
    dir: tempfile::TempDir,
    coordinator: Coordinator,
    _workers: Vec<Process>,
    http: String,
}

impl Cluster {
    fn start(workers: usize, more: &[&str], worker_flags: &[&str], dir: tempfile::TempDir) -> Self {
        let http = format!("127.0.0.1:{}", free_port().expect("port"));
        let flags: Vec<&str> = ["--http", &http].into_iter().chain(more.iter().copied()).collect();
        let port = free_port().expect("port");
        let coordinator =
            Coordinator::start_with(dir.path(), "coordinator", port, None, &flags).expect("coordinator");
        until("it to lead", LIMIT, || http::body(&http, "/readyz").ok()).expect("a leader");
        let registry = ["--coordinator", coordinator.endpoint.as_str()];
        let workers = (0..workers)
            .map(|i| worker_with(dir.path(), &format!("worker-{i}"), registry, worker_flags).expect("worker"))
            .collect();
        Self { dir, coordinator, _workers: workers, http }
    }

    fn plain(workers: usize) -> Self {
        Self::start(workers, &[], &[], tempfile::tempdir().expect("tempdir"))
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &[], "")
    }

    fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.send("POST", path, &[], body)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let (status, rest) = http::send(&self.http, method, path, headers, body).expect("an answer");
        let body = rest.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        (code(&status), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn submit(&self, spec: &str) -> String {
        let (code, answer) = self.post("/api/v1/sweeps", spec);
        assert_eq!(code, 201, "{answer}");
        answer["id"].as_str().expect("id").to_owned()
    }

    fn ended(&self, sweep: &str) -> Value {
        let path = format!("/api/v1/sweeps/{sweep}");
        let ended = until("the end", LIMIT, || {
            Some(self.get(&path).1).filter(|view| view["state"] == "completed" || view["state"] == "cancelled")
        });
        ended.unwrap_or_else(|error| panic!("{error}: {}", self.coordinator.process.log()))
    }

    fn cli(&self, args: &[&str]) -> Value {
        let output = run(args.iter().chain(&["--json", "--endpoint", &self.coordinator.endpoint])).expect("run");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {}", printed(&output)))
    }

    fn results(&self, sweep: &str) -> PathBuf {
        let out = self.dir.path().join("results");
        let output =
            run(["results", sweep, "--out", &out.to_string_lossy(), "--endpoint", &self.coordinator.endpoint]);
        assert!(out.join("summary.json").is_file(), "{}", printed(&output.expect("run")));
        out
    }
}

fn code(status: &str) -> u16 {
    status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{status}"))
}

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
            assert!(schema["properties"][name].is_object() || schema["properties"][name] == true, "{at}.{name} is not described");
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
    let (ours, theirs) = (live["lines"].as_array().expect("lines"), summary["strategies"].as_array().expect("lines"));
    assert_eq!((ours.len(), theirs.len()), (4, 4));
    let mut compared = 0;
    for (ours, theirs) in ours.iter().zip(theirs) {
        for (field, name) in [("score_mean", "score_mean"), ("score_seed_sd", "score_sd_pooled"), ("loo_mean", "loo_mean")] {
            let Some((a, b)) = ours[field].as_f64().zip(theirs[name].as_f64()) else {
                assert_eq!(ours[field], theirs[name], "{}: {field}", ours["label"]);
                continue;
            };
            assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{}: {field} is {a}, {name} is {b}", ours["label"]);
            compared += 1;
        }
        for field in ["label", "strategy", "completed", "diverged", "failed"] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
    }
    assert!(compared >= 9, "{compared}");
}

/// Where pictures of pages go that are to be looked at, if they are.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("EVENKEEL_PICTURES") {
        fs::create_dir_all(&folder).expect("folder");
        for dark in [false, true] {
            browser.dark(dark).expect("scheme");
            let name = format!("{name}{}.png", if dark { "-dark" } else { "" });
            browser.picture(&Path::new(&folder).join(name), true).expect("picture");
        }
        browser.dark(false).expect("scheme");
    }
}

/// Shows a page at both widths: it is no wider than the window, and nothing was complained about.
fn looks_right(browser: &mut Browser, name: &str) {
    for width in [400, 1280] {
        browser.resize(width, 900).expect("size");
        let wider = browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        if wider.as_ref().ok() != Some(&0.into()) {
            let out = browser.eval(
                "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map(e => e.outerHTML.slice(0, 200)).join('\\n')",
            );
            panic!("{name} is wider than a window of {width}: {wider:?} {out:?}");
        }
        picture(browser, &format!("{name}-{width}"));
    }
    if name == "report" {
        // Not of the page, which shows it as it is everywhere.
        return assert_eq!(browser.complaints(), [String::new(); 0], "{name}");
    }
    // Names for everything that can be worked with, one main heading, a caption for each table.
    let unnamed = browser.eval(
        "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels?.length).length \
         + [...document.querySelectorAll('button, a')].filter(e => !e.textContent.trim()).length \
         + [...document.querySelectorAll('table')].filter(e => !e.caption).length \
         + [...document.querySelectorAll('svg')].filter(e => !e.getAttribute('aria-label')).length \
         + Math.abs(document.querySelectorAll('h1').length - 1) + Math.abs(document.querySelectorAll('main').length - 1)",
    );
    assert_eq!(unnamed.expect("count"), 0, "{name} has something without a name");
    assert_eq!(browser.complaints(), [String::new(); 0], "{name}");
}

#[test]
fn a_sweep_is_submitted_watched_and_cancelled_on_the_page_and_its_failures_are_read() {
    let Some(mut browser) = Browser::start().expect("browser") else { return };
    let cluster = Cluster::plain(2);
    // A proxy serves it below a path: every address of the page is relative.
    let proxy = http::proxy(&cluster.http, "/tools/evenkeel").expect("proxy");
    browser.open(&format!("http://{proxy}/tools/evenkeel/")).expect("open");
    assert!(browser.text().expect("text").contains("There is no sweep yet"));
    looks_right(&mut browser, "empty");

    // A spec that is wrong comes back with the reason, and with what was written.
    let write = |spec: &str| format!("document.querySelector('#spec').value = {}; 0", Value::from(spec));
    browser.eval(&write(&LONG.replace("steps: 3000", "stepps: 3000"))).expect("write");
    browser.follow("#submit button").expect("submit");
    let text = browser.text().expect("text");
    assert!(text.contains("spec.yaml:") && text.contains("did you mean `steps`?"), "{text}");
    assert!(browser.eval("document.querySelector('#spec').value.includes('stepps')").expect("value") == true);
    browser.complaints();
    looks_right(&mut browser, "refused");

    browser.eval(&write(LONG)).expect("write");
    browser.follow("#submit button").expect("submit");
    let address = browser.eval("location.href").expect("address");
    let address = address.as_str().expect("text").to_owned();
    assert!(address.contains("/tools/evenkeel/sweeps/long-"), "{address}");
    let sweep = address.rsplit('/').next().expect("id").to_owned();

    // What is shown changes while nothing is loaded anew: a mark that is set now is there to the end.
    browser.eval("window.mark = 1; document.querySelector('#q').value = 'typed'; document.querySelector('#spec details').open = true; 0").expect("mark");
    browser.eval("document.querySelector('#q').focus(); 0").expect("focus");
    let bar = "document.querySelector('.headline progress').value";
    browser.until(&format!("{bar} > 20")).expect("progress");
    let before = browser.eval(bar).expect("value").as_f64().expect("number");
    browser.until(&format!("{bar} > {before}")).expect("more progress");
    browser.until("document.querySelectorAll('#results svg').length >= 2").expect("plots");
    browser.until("document.querySelector('#failures details') !== null").expect("failures");
    let kept = browser.eval("window.mark === 1 && document.querySelector('#q').value === 'typed' && document.activeElement.id === 'q' && document.querySelector('#spec details').open");
    assert_eq!(kept.expect("kept"), true, "what the user did is gone");
    browser.eval("document.querySelector('#spec details').open = false; document.querySelector('#q').value = ''; 0").expect("close");
    browser.eval("document.activeElement.blur(); 0").expect("blur");
    let dots = browser.eval("document.querySelectorAll('#results svg circle').length").expect("count");
    browser.until(&format!("document.querySelectorAll('#results svg circle').length > {dots}")).expect("more dots");
    assert!(browser.text().expect("text").contains("<script>alert(1)</script>"));
    looks_right(&mut browser, "sweep");

    // From the failures to a trial and its error.
    browser.click("#failures summary").expect("open");
    browser.follow("#failures details a").expect("trial");
    let text = browser.text().expect("text");
    assert!(text.contains("failed") && text.contains("more than this worker can have"), "{text}");
    looks_right(&mut browser, "trial-failed");
    browser.follow("a[rel=next]").expect("next");
    assert!(browser.text().expect("text").contains("Trial 1"));
    browser.follow("#ways a").expect("back");
    browser.open(&format!("{address}?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")).expect("search");
    assert!(browser.text().expect("text").contains("Trials"));
    browser.open(&format!("{address}?status=completed&strategy=head")).expect("search");
    browser.follow("#trials tbody a").expect("trial");
    assert!(browser.text().expect("text").contains("score"));
    looks_right(&mut browser, "trial");
    browser.open(&address.replace(&format!("sweeps/{sweep}"), "workers")).expect("workers");
    assert!(browser.text().expect("text").contains("worker-1"));
    looks_right(&mut browser, "workers");
    browser.open(&address.replace(&format!("sweeps/{sweep}"), "cluster")).expect("cluster");
    assert!(browser.text().expect("text").contains("this coordinator leads"));
    looks_right(&mut browser, "cluster");

    // Pause, resume, and cancel, which asks first.
    browser.open(&address).expect("sweep");
    browser.follow("form[action$=pause] button").expect("pause");
    browser.until("document.querySelector('#status .state').textContent.includes('paused')").expect("paused");
    browser.follow("form[action$=resume] button").expect("resume");
    browser.until("document.querySelector('#status .state').textContent.includes('running')").expect("running");
    browser.click("#actions [data-dialog]").expect("ask");
    assert_eq!(browser.eval("document.querySelector('dialog').open").expect("open"), true);
    picture(&mut browser, "confirm");
    browser.click("dialog form[method=dialog] button").expect("no");
    assert_eq!(cluster.get(&format!("/api/v1/sweeps/{sweep}")).1["state"], "running");
    browser.click("#actions [data-dialog]").expect("ask");
    browser.follow("dialog form[method=post] button").expect("yes");
    browser.until("document.querySelector('#status .state').textContent.includes('cancelled')").expect("cancelled");
    assert_eq!(cluster.ended(&sweep)["state"], "cancelled");

    // The report is that of the command line, and needs nothing from elsewhere.
    browser.follow("#actions a[href$=report]").expect("report");
    assert!(browser.text().expect("text").contains("Findings"));
    looks_right(&mut browser, "report");
    browser.open(&address.replace(&format!("sweeps/{sweep}"), "")).expect("sweeps");
    assert!(browser.text().expect("text").contains("cancelled"));
    looks_right(&mut browser, "sweeps");

    // A coordinator that is gone is told from one that has nothing new.
    let mut cluster = cluster;
    assert!(cluster.coordinator.process.kill());
    browser.until("document.querySelector('#connection').textContent.includes('Connection lost')").expect("lost");
}

#[test]
fn without_script_the_page_does_the_same() {
    let Some(mut browser) = Browser::start().expect("browser") else { return };
    let cluster = Cluster::plain(0);
    let sweep = cluster.submit(SMALL);
    browser.scripts(false).expect("scripts");
    let look = |browser: &mut Browser, says: &str| {
        // Asked of the document, not of a script in it.
        let root = browser.order("DOM.getDocument", serde_json::json!({})).expect("document");
        let node = serde_json::json!({ "nodeId": root["root"]["nodeId"] });
        let html = browser.order("DOM.getOuterHTML", node).expect("html");
        let html = html["outerHTML"].as_str().expect("text").to_owned();
        assert!(html.contains(says), "no {says} in {html}");
        html
    };
    browser.open(&format!("http://{}/sweeps/{sweep}", cluster.http)).expect("open");
    let html = look(&mut browser, "no worker is ready");
    assert!(html.contains(">Refresh</a>") && html.contains("/cancel\""));
    browser.open(&format!("http://{}/sweeps/{sweep}/cancel", cluster.http)).expect("question");
    look(&mut browser, "Cancel the sweep</button>");
    look(&mut browser, "Let it run");
}

const READ: &str = "reader-4f1c9a7be0d2";
const SUBMIT: &str = "submitter-81d5c2f03b";
const ADMIN: &str = "administrator-77aa01";

#[test]
fn with_tokens_the_page_asks_for_one_and_each_role_may_do_its_own() {
    let dir = tempfile::tempdir().expect("tempdir");
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, format!("read {READ}\nsubmit {SUBMIT}\nadmin {ADMIN}\nworker machine-e91b55c08f2d\n")).expect("write");
    fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let cluster = Cluster::start(0, &["--tokens", &tokens.to_string_lossy()], &[], dir);
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        http::send(&cluster.http, method, path, headers, body).expect("an answer")
    };
    // Nobody sees anything without a token, but the form that asks for one.
    let (status, page) = send("GET", "/", &[], "");
    assert!(code(&status) == 401 && page.contains("action=\"./sign-in\""), "{page}");
    for header in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "referrer-policy: same-origin"] {
        assert!(page.to_lowercase().contains(header), "{page}");
    }
    assert!(page.contains("frame-ancestors 'none'"), "{page}");
    assert_eq!(cluster.get("/api/v1/sweeps").0, 401);
    assert_eq!(code(&send("POST", "/sign-in", &[], "token=nobody-knows-this-one").0), 415);
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(code(&send("POST", "/sign-in", &[form], "token=nobody-knows-this-one").0), 401);
    assert_eq!(code(&send("POST", "/sign-in", &[form], "token=machine-e91b55c08f2d").0), 403);
    let sign_in = |token: &str| {
        let (status, answer) = send("POST", "/sign-in", &[form], &format!("token={token}"));
        assert_eq!(code(&status), 303);
        let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("cookie").to_owned();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains("Path"), "{set}");
        assert!(!set.contains(token), "{set}");
        set.split(';').next().expect("pair").to_owned()
    };
    let [reader, submitter, admin] = [READ, SUBMIT, ADMIN].map(sign_in);
    let as_is = |cookie: &str, method: &str, path: &str, more: &[(&str, &str)], body: &str| {
        let headers: Vec<(&str, &str)> = [("Cookie", cookie)].into_iter().chain(more.iter().copied()).collect();
        code(&send(method, path, &headers, body).0)
    };
    // Who reads changes nothing, neither on the page nor through the API.
    assert_eq!(as_is(&reader, "GET", "/", &[], ""), 200);
    assert_eq!(as_is(&reader, "POST", "/submit", &[form], "spec=x"), 403);
    assert_eq!(as_is(&reader, "POST", "/api/v1/sweeps", &[], SMALL), 403);
    let bearer = format!("Bearer {SUBMIT}");
    let (code_found, answer) = cluster.send("POST", "/api/v1/sweeps", &[("Authorization", &bearer)], SMALL);
    assert_eq!(code_found, 201, "{answer}");
    let sweep = answer["id"].as_str().expect("id").to_owned();
    let cancel = format!("/sweeps/{sweep}/cancel");
    let page = send("GET", &format!("/sweeps/{sweep}"), &[("Cookie", &reader)], "").1;
    assert!(!page.contains("/cancel") && page.contains("Sign out"), "{page}");
    for path in [cancel.clone(), format!("/api/v1{cancel}")] {
        assert_eq!(as_is(&reader, "POST", &path, &[], ""), 403, "{path}");
        assert_eq!(as_is("", "POST", &path, &[], ""), 401, "{path}");
        // Another site's page cannot make a browser do it.
        for foreign in [("Origin", "https://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
            assert_eq!(as_is(&submitter, "POST", &path, &[foreign], ""), 403, "{path} {foreign:?}");
        }
    }
    assert_eq!(as_is(&submitter, "POST", "/workers/nobody/drain", &[], ""), 403);
    assert_eq!(as_is(&admin, "POST", "/workers/nobody/drain", &[], ""), 404);
    let own = format!("http://{}", cluster.http);
    assert_eq!(as_is(&submitter, "POST", &cancel, &[("Origin", &own)], ""), 303);
    assert_eq!(as_is(&reader, "GET", &format!("/sweeps/{sweep}/report"), &[], ""), 200);

    // The same in a browser, below a path.
    let Some(mut browser) = Browser::start().expect("browser") else { return };
    let proxy = http::proxy(&cluster.http, "/keel").expect("proxy");
    browser.resize(1280, 900).expect("size");
    browser.open(&format!("http://{proxy}/keel/sweeps/{sweep}")).expect("open");
    browser.complaints();
    picture(&mut browser, "sign-in");
    browser.eval(&format!("document.querySelector('#token').value = '{READ}'; 0")).expect("write");
    browser.follow("form button").expect("sign in");
    browser.complaints();
    assert!(browser.text().expect("text").contains("small"));
    assert_eq!(browser.eval("document.cookie").expect("cookie"), "");
    browser.follow("#sweeps a").expect("sweep");
    let text = browser.text().expect("text");
    assert!(text.contains("cancelled") && !text.contains("Resume"), "{text}");
    looks_right(&mut browser, "signed-in");
    browser.follow("header form button").expect("sign out");
    assert!(browser.text().expect("text").contains("asks for a token"));
    let log = cluster.coordinator.process.log();
    assert!(![READ, SUBMIT, ADMIN].iter().any(|token| log.contains(token)), "{log}");
}

#[test]
fn a_coordinator_that_stands_by_says_who_leads_and_shows_what_is_durable() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Some(etcd) = Etcd::start(dir.path()).expect("etcd") else { return };
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port().expect("port")));
    let start = |name: &str, http: &str| {
        let port = free_port().expect("port");
        Coordinator::start_with(dir.path(), name, port, Some(&etcd.url), &["--http", http]).expect("coordinator")
    };
    let leader = start("leader", &addresses[0]);
    until("it to lead", LIMIT, || http::body(&addresses[0], "/readyz").ok()).expect("leader");
    let _second = start("second", &addresses[1]);
    let _worker = worker(dir.path(), "worker", ["--etcd", &etcd.url]).expect("worker");
    let (status_line, answer) = http::send(&addresses[0], "POST", "/api/v1/sweeps", &[], SMALL).expect("submit");
    assert_eq!(code(&status_line), 201, "{answer}");
    let body = |answer: &str| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    let sweep: Value = serde_json::from_str(&body(&answer)).expect("json");
    let sweep = sweep["id"].as_str().expect("id");
    until("the end", LIMIT, || status(&leader.endpoint, sweep).filter(|s| s["state"] == "completed")).expect("end");

    let page = http::body(&addresses[1], "/").expect("page");
    assert!(page.contains("stands by") && page.contains(&leader.endpoint) && page.contains(sweep), "{page}");
    let page = http::body(&addresses[1], &format!("/sweeps/{sweep}")).expect("page");
    assert!(page.contains("144 of 144") && !page.contains("<form method=\"post\""), "{page}");
    let trial = http::body(&addresses[1], &format!("/api/v1/sweeps/{sweep}/trials/3")).expect("trial");
    assert!(trial.contains("\"completed\""), "{trial}");
    for (method, path) in [("POST", format!("/api/v1/sweeps/{sweep}/cancel")), ("GET", "/api/v1/workers".to_owned())] {
        let (status_line, answer) = http::send(&addresses[1], method, &path, &[], "").expect("answer");
        assert!(code(&status_line) == 503 && answer.contains(&leader.endpoint), "{path}: {status_line} {answer}");
    }
    let health: Value = serde_json::from_str(&http::body(&addresses[1], "/api/v1/health").expect("health")).expect("json");
    assert_eq!((&health["leading"], &health["leader"]), (&false.into(), &leader.endpoint.as_str().into()));
}
