//! The trials of a sweep, and one of them.

use std::collections::HashMap;
use std::fmt::Write as _;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;
use tonic::Status;

use super::super::caller::Caller;
use super::super::{Refusal, Site, api as answers};
use super::html::{
    duration, entries, escape, long, maybe, percent_encoded, significant, state, table, thousands, time,
};
use super::sweep::trace;
use super::{Page, refused};
use crate::api::{CurvePoint, SweepStatus, Trial, TrialRow, Trials};
use crate::live::TrialState;
use crate::report::{clip, live};

/// Trials of a page.
pub const PAGE: usize = 50;
/// Errors in the table are cut here; the trial's own page has all of it.
const ERROR: usize = 90;

/// The form that looks for trials.
pub fn search(id: &str, names: &HashMap<String, String>, strategies: &[&str]) -> String {
    let given = |name: &str| names.get(name).map(String::as_str).unwrap_or_default();
    let options = |name: &str, values: &mut dyn Iterator<Item = &str>| -> String {
        let option = |value: &str| {
            let selected = if value == given(name) { " selected" } else { "" };
            format!("<option value=\"{0}\"{selected}>{0}</option>", escape(value))
        };
        format!("<option value=\"\">any</option>{}", values.map(option).collect::<String>())
    };
    let states = options("status", &mut TrialState::ALL.into_iter().map(TrialState::name));
    let strategies = options("strategy", &mut strategies.iter().copied());
    format!(
        "<h2>Trials</h2><form method=\"get\" action=\"../sweeps/{}#search\" class=\"search\" role=\"search\" aria-label=\"Trials\">\
         <p><label for=\"q\">Number, error, name or worker</label><input id=\"q\" name=\"q\" type=\"search\" value=\"{}\"></p>\
         <p><label for=\"state\">Status</label><select id=\"state\" name=\"status\">{states}</select></p>\
         <p><label for=\"strategy\">Strategy</label><select id=\"strategy\" name=\"strategy\">{strategies}</select></p>\
         <p><button>Search</button></p></form>",
        escape(id),
        escape(given("q")),
    )
}

/// A page of trials.
pub fn list(id: &str, found: &Trials, names: &HashMap<String, String>) -> String {
    let id = escape(id);
    let rows = found.trials.iter().map(|row| {
        let number = row.trial_index;
        vec![
            format!("<a href=\"../sweeps/{id}/trials/{number}\">{}</a>", thousands(number)),
            state(row.status),
            long(&row.dataset),
            long(&row.strategy),
            row.seed.to_string(),
            maybe(row.score, 4),
            maybe(row.loo_mean, 3),
            row.duration_s.map_or_else(|| "–".to_owned(), duration),
            row.worker.as_deref().map_or_else(|| "–".to_owned(), escape),
            row.error.as_deref().map(|error| long(&clip(error, ERROR))).unwrap_or_default(),
        ]
    });
    let heads = ["Trial", "Status", "Dataset", "Strategy", "Seed", "Score", "LOO", "Time", "Worker", "Error"];
    let mut html = if found.trials.is_empty() {
        "<p>No trial is like that.</p>".to_owned()
    } else {
        let table = table("Trials in the order of their numbers", &heads, rows);
        format!("<div class=\"compact\">{table}</div>")
    };
    let kept: String = ["q", "status", "strategy", "worker"]
        .into_iter()
        .filter_map(|name| names.get(name).filter(|value| !value.is_empty()).map(|value| (name, value)))
        .map(|(name, value)| format!("{name}={}&amp;", percent_encoded(value)))
        .collect();
    html.push_str("<p class=\"paging\">");
    if names.get("after").is_some_and(|after| !after.is_empty()) {
        let _ = write!(html, "<a href=\"../sweeps/{id}?{kept}#search\">From the first</a> ");
    }
    if let Some(next) = found.next {
        let more = if found.trials.is_empty() { "Look on" } else { "More" };
        let _ = write!(html, "<a rel=\"next\" href=\"../sweeps/{id}?{kept}after={next}#search\">{more}</a>");
    }
    html.push_str("</p>");
    html
}

/// The page of a trial.
pub async fn page(
    State(site): State<Site>,
    caller: Caller,
    headers: HeaderMap,
    Path((id, index)): Path<(String, String)>,
) -> Response {
    let made = async {
        let trial = answers::one_trial(&site, &id, &index).await?;
        let view = site.view(&id).await?;
        let body = body(&trial, &trace(&SweepStatus::from(&site.rpc.status(&view))))?;
        Ok::<_, Refusal>((trial, view, body))
    };
    let (trial, view, body) = match made.await {
        Ok(made) => made,
        Err(refusal) => return refused(&site, &caller, &headers, "../../../", &refusal).await,
    };
    let number = trial.row.trial_index;
    let mut page = Page::new(&site, &caller, &headers, "../../../", &format!("Trial {}", thousands(number)));
    page.section = "Sweeps";
    let durable = TrialState::ALL
        .into_iter()
        .any(|state| matches!(state, TrialState::Ended(_)) && state.name() == trial.row.status);
    page.again_after = if durable { 10 } else { 1 };
    let way = |to: u64, rel: &str, label: &str| format!("<a rel=\"{rel}\" href=\"./{to}\">{label}</a> ");
    let back = number.checked_sub(1).map(|to| way(to, "prev", "← Trial before")).unwrap_or_default();
    let next = Some(number + 1).filter(|to| *to < view.total);
    let forth = next.map(|to| way(to, "next", "Trial after →")).unwrap_or_default();
    let nav = format!(
        "<nav aria-label=\"Trials\" class=\"paging\"><a href=\"../../{}\">Sweep {}</a> {back}{forth}</nav>",
        escape(view.id.as_str()),
        escape(&view.name)
    );
    page.fixed("ways", nav);
    page.live("trial", body);
    page.respond().await
}

fn body(trial: &Trial, trace: &str) -> Result<String, Refusal> {
    let row = &trial.row;
    let mut html = format!(
        "<p class=\"headline\"><span role=\"status\">{}</span> {}</p>\n",
        state(row.status),
        says(row)
    );
    if let Some(error) = &row.error {
        let _ =
            write!(html, "<pre class=\"error\" tabindex=\"0\" aria-label=\"Error\">{}</pre>", escape(error));
    }
    html.push_str("<h2>What it is</h2>");
    html.push_str(&entries([
        ("dataset", escape(&row.dataset)),
        ("model", escape(&row.model)),
        ("strategy", escape(&row.strategy)),
        ("seed", row.seed.to_string()),
        ("id", format!("<code>{}</code>", escape(&trial.trial_id))),
    ]));
    for (what, config) in [
        ("dataset", &trial.dataset_config),
        ("model", &trial.model_config),
        ("strategy", &trial.strategy_config),
    ] {
        let _ = write!(
            html,
            "<details><summary>Configuration of the {what}</summary><pre tabindex=\"0\">{}</pre></details>",
            escape(&pretty(config))
        );
    }
    if row.attempt.is_some() {
        html.push_str("<h2>What happened</h2>");
        html.push_str(&entries([
            ("attempt", row.attempt.map(|attempt| attempt.to_string()).unwrap_or_default()),
            ("worker", row.worker.as_deref().map(escape).unwrap_or_default()),
            ("device", row.device.as_deref().map(escape).unwrap_or_default()),
            ("pack begun", row.started_ms.map(time).unwrap_or_default()),
            ("took", row.duration_s.map(duration).unwrap_or_default()),
        ]));
        if row.attempt > Some(1) && !trace.is_empty() {
            let _ =
                write!(html, "<p>Attempts before this one, and why they failed: {trace} of the sweep.</p>");
        }
    }
    html.push_str(&curves(trial)?);
    if !trial.measures.is_empty() {
        html.push_str("<h2>Measures</h2>");
        let rows = trial.measures.iter().map(|(name, value)| {
            let whole = value.fract() == 0.0 && value.abs() < 1e9;
            let short = if whole { value.to_string() } else { significant(*value, 6) };
            vec![format!("<code>{name}</code>"), short, format!("<code>{value}</code>")]
        });
        html.push_str(&table(
            "What was measured, as results.parquet names it",
            &["Measure", "Value", "All digits"],
            rows,
        ));
    }
    if let Some(distances) = &trial.distances {
        let _ = write!(
            html,
            "<details><summary>Distances by group of parameters</summary><pre tabindex=\"0\">{}</pre></details>",
            escape(&pretty(distances))
        );
    }
    Ok(html)
}

fn says(row: &TrialRow) -> String {
    match row.status {
        "waiting" => "There is no durable result yet, and no worker has it.".to_owned(),
        "running" => format!(
            "With worker {}; there is no durable result yet.",
            row.worker.as_deref().map(escape).unwrap_or_default()
        ),
        "diverged" => "The loss or the weights left the numbers.".to_owned(),
        "failed" => "It could not be run:".to_owned(),
        _ => format!("Score {}", maybe(row.score, 4)),
    }
}

fn curves(trial: &Trial) -> Result<String, Refusal> {
    if trial.curve.len() < 2 {
        return Ok(String::new());
    }
    let along = |value: fn(&CurvePoint) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = trial.curve.iter();
        points.filter_map(|point| Some((f64::from(point.step), value(point)?))).collect()
    };
    let mut html = format!(
        "<h2>{}</h2><div class=\"pictures\">",
        if trial.training { "Training now" } else { "Training" }
    );
    let pictures = [
        ("Loss", "loss (nats)", vec![along(|p| p.train_loss), along(|p| p.eval_loss)]),
        ("Score", "score on the test set", vec![along(|p| p.score)]),
        ("Leave-one-out distance", "mean leave-one-out distance", vec![along(|p| p.loo_mean)]),
    ];
    for (title, axis, lines) in pictures {
        let legend = if lines.len() > 1 && lines.iter().all(|line| !line.is_empty()) {
            "<p class=\"legend\"><span><i class=\"c-0\" aria-hidden=\"true\">●</i> training set</span> \
             <span><i class=\"c-1\" aria-hidden=\"true\">■</i> test set</span></p>"
        } else {
            ""
        };
        let svg = live::curves(title, axis, &lines).map_err(|error| Status::internal(error.to_string()))?;
        if let Some(svg) = svg {
            let _ = write!(html, "<figure><h3>{title}</h3>{legend}{svg}</figure>");
        }
    }
    html.push_str("</div>");
    Ok(html)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
