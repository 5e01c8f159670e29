//! What users do on the page.

use std::fs;
use std::path::Path;

use evenkeel_tests::browser::Browser;
use evenkeel_tests::http;
use serde_json::Value;

use super::cluster::{Cluster, LONG, SMALL};

/// Where pictures of pages go that are to be looked at, if they are.
pub fn picture(browser: &mut Browser, name: &str) {
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
pub fn looks_right(browser: &mut Browser, name: &str) {
    for width in [400, 1280] {
        browser.resize(width, 900).expect("size");
        let wider =
            browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
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
        return assert_eq!(browser.complaints(), Vec::<String>::new(), "{name}");
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
    assert_eq!(browser.complaints(), Vec::<String>::new(), "{name}");
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
    browser
        .until(&format!("document.querySelectorAll('#results svg circle').length > {dots}"))
        .expect("more dots");
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
    browser
        .until("document.querySelector('#status .state').textContent.includes('running')")
        .expect("running");
    browser.click("#actions [data-dialog]").expect("ask");
    assert_eq!(browser.eval("document.querySelector('dialog').open").expect("open"), true);
    picture(&mut browser, "confirm");
    browser.click("dialog form[method=dialog] button").expect("no");
    assert_eq!(cluster.get(&format!("/api/v1/sweeps/{sweep}")).1["state"], "running");
    browser.click("#actions [data-dialog]").expect("ask");
    browser.follow("dialog form[method=post] button").expect("yes");
    browser
        .until("document.querySelector('#status .state').textContent.includes('cancelled')")
        .expect("cancelled");
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
    browser
        .until("document.querySelector('#connection').textContent.includes('Connection lost')")
        .expect("lost");
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
