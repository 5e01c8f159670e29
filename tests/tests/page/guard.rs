//! Tokens, other sites, a coordinator that stands by.

use std::fs;

use evenkeel_tests::browser::Browser;
use evenkeel_tests::http;
use evenkeel_tests::process::{Coordinator, Etcd, free_port, status, until, worker};
use serde_json::Value;

use super::browse::{looks_right, picture};
use super::cluster::{Cluster, LIMIT, SMALL, code};

const READ: &str = "reader-4f1c9a7be0d2";
const SUBMIT: &str = "submitter-81d5c2f03b";
const ADMIN: &str = "administrator-77aa01";

#[test]
fn with_tokens_the_page_asks_for_one_and_each_role_may_do_its_own() {
    let dir = tempfile::tempdir().expect("tempdir");
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, format!("read {READ}\nsubmit {SUBMIT}\nadmin {ADMIN}\nworker machine-e91b55c08f2d\n"))
        .expect("write");
    fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let cluster = Cluster::start(0, &["--tokens", &tokens.to_string_lossy()], &[], dir);
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        http::send(&cluster.http, method, path, headers, body).expect("an answer")
    };
    // Nobody sees anything without a token, but the form that asks for one.
    let (status, page) = send("GET", "/", &[], "");
    assert!(code(&status) == 401 && page.contains("action=\"./sign-in\""), "{page}");
    for header in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: same-origin",
    ] {
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
        let set =
            answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("cookie").to_owned();
        assert!(
            set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains("Path"),
            "{set}"
        );
        assert!(!set.contains(token), "{set}");
        set.split(';').next().expect("pair").to_owned()
    };
    let [reader, submitter, admin] = [READ, SUBMIT, ADMIN].map(sign_in);
    let as_is = |cookie: &str, method: &str, path: &str, more: &[(&str, &str)], body: &str| {
        let headers: Vec<(&str, &str)> =
            [("Cookie", cookie)].into_iter().chain(more.iter().copied()).collect();
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
        for foreign in
            [("Origin", "https://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")]
        {
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
        Coordinator::start_with(dir.path(), name, port, Some(&etcd.url), &["--http", http])
            .expect("coordinator")
    };
    let leader = start("leader", &addresses[0]);
    until("it to lead", LIMIT, || http::body(&addresses[0], "/readyz").ok()).expect("leader");
    let _second = start("second", &addresses[1]);
    let _worker = worker(dir.path(), "worker", ["--etcd", &etcd.url]).expect("worker");
    let (status_line, answer) =
        http::send(&addresses[0], "POST", "/api/v1/sweeps", &[], SMALL).expect("submit");
    assert_eq!(code(&status_line), 201, "{answer}");
    let body =
        |answer: &str| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    let sweep: Value = serde_json::from_str(&body(&answer)).expect("json");
    let sweep = sweep["id"].as_str().expect("id");
    until("the end", LIMIT, || status(&leader.endpoint, sweep).filter(|s| s["state"] == "completed"))
        .expect("end");

    // Asked by another coordinator, or while the leader is not reached, it answers itself.
    let relayed = ("evenkeel-relayed", "http");
    let ask = |method: &str, path: &str| {
        http::send(&addresses[1], method, path, &[relayed], "").expect("an answer")
    };
    let page_of = |path: &str| {
        let (status_line, answer) = ask("GET", path);
        assert_eq!(code(&status_line), 200, "{path}: {answer}");
        body(&answer)
    };
    let told = || page_of("/").contains(&leader.endpoint).then_some(());
    until("it to know who leads", LIMIT, told).expect("a leader");
    let page = page_of("/");
    assert!(page.contains("stands by") && page.contains(&leader.endpoint) && page.contains(sweep), "{page}");
    let page = page_of(&format!("/sweeps/{sweep}"));
    assert!(page.contains("144 of 144") && !page.contains("<form method=\"post\""), "{page}");
    let trial = page_of(&format!("/api/v1/sweeps/{sweep}/trials/3"));
    assert!(trial.contains("\"completed\""), "{trial}");
    for (method, path) in
        [("POST", format!("/api/v1/sweeps/{sweep}/cancel")), ("GET", "/api/v1/workers".to_owned())]
    {
        let (status_line, answer) = ask(method, &path);
        assert!(
            code(&status_line) == 503 && answer.contains(&leader.endpoint),
            "{path}: {status_line} {answer}"
        );
    }
    let health: Value = serde_json::from_str(&page_of("/api/v1/health")).expect("json");
    assert_eq!((&health["leading"], &health["leader"]), (&false.into(), &leader.endpoint.as_str().into()));
}
