//! All sweeps, and the form that submits one.

use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::super::caller::Caller;
use super::super::{Refusal, Site, api as answers};
use super::html::{escape, left, percent, progress, significant, state, table, thousands, time};
use super::{Page, refused, see};
use crate::access::Role;
use crate::api::SweepStatus;

/// What the form begins with.
const EXAMPLE: &str = include_str!("example.yaml");
/// Sweeps of the first page: those that go on, and the newest of the others.
const SHOWN: usize = 200;

/// What the form sends.
#[derive(Deserialize)]
pub struct Spec {
    spec: String,
}

/// The first page.
pub async fn page(State(site): State<Site>, caller: Caller, headers: HeaderMap) -> Response {
    show(&site, &caller, &headers, None).await
}

/// Submits what is in the form.
pub async fn submit(
    State(site): State<Site>,
    caller: Caller,
    headers: HeaderMap,
    Form(Spec { spec }): Form<Spec>,
) -> Response {
    // Browsers end lines as network protocols do.
    let spec = spec.replace("\r\n", "\n");
    match answers::take(&site, &caller, &spec).await {
        Ok(submitted) => see(&format!("./sweeps/{}", submitted.status.id)),
        Err(refusal) => show(&site, &caller, &headers, Some((&spec, refusal))).await,
    }
}

async fn show(
    site: &Site,
    caller: &Caller,
    headers: &HeaderMap,
    refused_spec: Option<(&str, Refusal)>,
) -> Response {
    let sweeps = match answers::list(site, caller).await {
        Ok(list) => list.sweeps,
        Err(refusal) => return refused(site, caller, headers, "./", &refusal).await,
    };
    let mut page = Page::new(site, caller, headers, "./", "Sweeps");
    page.section = "Sweeps";
    page.again_after = if site.seat.driver().is_none() { 10 } else { 1 };
    if let Some((_, refusal)) = &refused_spec {
        page.code = refusal.code();
        page.title = "The spec was not taken".to_owned();
    }
    let error = refused_spec.as_ref().map(|(_, refusal)| refusal.message());
    let form = form(refused_spec.as_ref().map_or(EXAMPLE, |(spec, _)| spec), error, page.may(Role::Submit));
    let list = list(sweeps, "./");
    if error.is_some() {
        page.fixed("submit", form);
        page.live("sweeps", list);
    } else {
        page.live("sweeps", list);
        page.fixed("submit", form);
    }
    page.respond().await
}

fn list(mut sweeps: Vec<SweepStatus>, root: &str) -> String {
    if sweeps.is_empty() {
        return "<p>There is no sweep yet. Submit one here, or with <code>evenkeel submit my.yaml</code>.</p>".to_owned();
    }
    sweeps.sort_by_key(|sweep| (sweep.ended(), std::cmp::Reverse(sweep.submitted_ms)));
    let hidden = sweeps.len().saturating_sub(SHOWN);
    let rows = sweeps.iter().take(SHOWN).map(|sweep| {
        let (id, done) = (escape(&sweep.id), sweep.done());
        let bar = progress(&format!("Progress of {}", sweep.name), done, sweep.trials);
        let moving = sweep.state == "running";
        let notice = sweep.notice.as_ref().map(|notice| format!("<br><small>{}</small>", escape(notice)));
        vec![
            format!("<a href=\"{root}sweeps/{id}\">{}</a><br><small>{id}</small>", escape(&sweep.name)),
            format!("{}{}", state(sweep.state), notice.unwrap_or_default()),
            format!("{bar} {}", percent(done, sweep.trials)),
            format!("{} of {}", thousands(done), thousands(sweep.trials)),
            if moving { format!("{}/s", significant(sweep.trials_per_second, 3)) } else { "–".to_owned() },
            sweep.seconds_left.map_or_else(|| "–".to_owned(), left),
            if sweep.failed == 0 {
                "0".to_owned()
            } else {
                format!("<strong>{}</strong>", thousands(sweep.failed))
            },
            time(sweep.submitted_ms),
        ]
    });
    let heads = ["Sweep", "State", "Progress", "Trials", "Rate", "Time left", "Failed", "Submitted"];
    let table = table("Sweeps of this coordinator, the newest first", &heads, rows);
    match hidden {
        0 => table,
        hidden => format!(
            "{table}<p class=\"small\">{hidden} older ones are not shown; <code>evenkeel list</code> has all.</p>"
        ),
    }
}

fn form(spec: &str, error: Option<&str>, may: bool) -> String {
    if !may {
        return "<p class=\"small\">Your token lets you look at sweeps, not submit them.</p>".to_owned();
    }
    let (problem, described) = match error {
        Some(error) => (
            format!("<pre class=\"error\" role=\"alert\" id=\"problem\">{}</pre>", escape(error)),
            " aria-describedby=\"problem\" aria-invalid=\"true\" autofocus",
        ),
        None => (String::new(), " aria-describedby=\"hint\""),
    };
    let rows = spec.lines().count().clamp(12, 30);
    format!(
        "<section aria-labelledby=\"submit-title\"><h2 id=\"submit-title\">Submit a sweep</h2>{problem}\
         <form method=\"post\" action=\"./submit\" class=\"stack\"><label for=\"spec\">Spec, in YAML or JSON</label>\
         <textarea id=\"spec\" name=\"spec\" rows=\"{rows}\" spellcheck=\"false\" autocapitalize=\"off\" required{described}>\n{}</textarea>\
         <p id=\"hint\" class=\"small\">Data that is drawn, not read from files: those are sent along by <code>evenkeel submit</code>. \
         The same spec again finds the sweep that is there.</p><button>Submit</button></form></section>",
        escape(spec)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_spec() {
        let spec = evenkeel_common::spec::Spec::parse("example.yaml", EXAMPLE).expect("spec");
        let sweep = crate::submission::Sweep::new("example.yaml", spec, Vec::new()).expect("sweep");
        assert!((10..1000).contains(&sweep.grid.len()), "{}", sweep.grid.len());
    }

    #[test]
    fn a_spec_that_was_refused_comes_back_as_text() {
        let html = form("</textarea><script>", Some("spec.yaml:1: <b>"), true);
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
    }
}
