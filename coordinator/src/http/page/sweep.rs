//! One sweep.

use std::collections::HashMap;
use std::fmt::Write as _;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use evenkeel_proto::v1::SweepChange;
use tonic::Status;

use super::super::caller::Caller;
use super::super::{Refusal, Site, api as answers};
use super::html::{
    button, duration, escape, left, long, maybe, percent, percent_encoded, progress, significant, state,
    table, thousands, tiles, time,
};
use super::{Page, document, refused, see, trials};
use crate::access::Role;
use crate::api::{Live, LiveCurve, LiveLine, SweepStatus};
use crate::collect::Exported;
use crate::export::{ExportError, Format};
use crate::report::{LINE_COLORS, MARKS, clip, live};

/// Lines that pictures show; the table has all.
const DRAWN: usize = 12;
/// Errors that are listed.
const ERRORS: usize = 20;

/// The page of a sweep.
pub async fn page(
    State(site): State<Site>,
    caller: Caller,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(names): Query<HashMap<String, String>>,
) -> Response {
    match make(&site, &caller, &headers, &id, &names).await {
        Ok(page) => page.respond().await,
        Err(refusal) => refused(&site, &caller, &headers, "../", &refusal).await,
    }
}

async fn make<'a>(
    site: &'a Site,
    caller: &'a Caller,
    headers: &'a HeaderMap,
    id: &str,
    names: &HashMap<String, String>,
) -> Result<Page<'a>, Refusal> {
    let view = site.view(id).await?;
    let sweep = SweepStatus::from(&site.rpc.status(&view));
    let figures = site.live.figures(&view).await?;
    let query = answers::query(names, trials::PAGE)?;
    let in_flight = site.in_flight(&view.id).await?;
    let found = site.live.trials(&view.id, &query, &in_flight).await?;

    let mut page = Page::new(site, caller, headers, "../", &view.name);
    page.section = "Sweeps";
    page.again_after =
        if sweep.ended() && figures.read >= 1.0 || site.seat.driver().is_none() { 10 } else { 1 };
    let may = page.may(Role::Submit) && site.seat.driver().is_some();
    let strategies: Vec<&str> = {
        let mut names: Vec<&str> = figures.lines.iter().map(|line| line.strategy.as_str()).collect();
        names.dedup();
        names
    };
    page.live("status", status(&sweep));
    page.live("actions", actions(&sweep, may));
    if may && !sweep.ended() {
        page.fixed("dialog", dialog(&sweep));
    }
    page.live("results", results(&figures, &sweep)?);
    page.live("failures", failures(&figures, &sweep));
    page.fixed("search", trials::search(&sweep.id, names, &strategies));
    page.live("trials", trials::list(&sweep.id, &found, names));
    let spec = site.live.spec(&view.id).await?;
    page.fixed("spec", format!("<details><summary>The spec, every default written out</summary><pre tabindex=\"0\">{}</pre></details>", escape(&spec)));
    Ok(page)
}

fn status(sweep: &SweepStatus) -> String {
    let (done, id) = (sweep.done(), escape(&sweep.id));
    let mut html = format!(
        "<p><code>{id}</code> · submitted {}{}</p><p class=\"headline\"><span role=\"status\">{}</span> {} <span>{}</span></p>\n",
        time(sweep.submitted_ms),
        if sweep.trace_id.is_some() { format!(" · {}", trace(sweep)) } else { String::new() },
        state(sweep.state),
        progress("Progress of the sweep", done, sweep.trials),
        percent(done, sweep.trials),
    );
    if let Some(notice) = &sweep.notice {
        let _ = write!(html, "<p class=\"banner\">{}</p>", escape(notice));
    }
    let mut boxes = vec![(format!("{} of {}", thousands(done), thousands(sweep.trials)), "trials done")];
    if sweep.state == "running" {
        boxes.push((format!("{}/s", significant(sweep.trials_per_second, 3)), "rate"));
        boxes.push((sweep.seconds_left.map_or_else(|| "–".to_owned(), left), "time left"));
    }
    boxes.extend([
        (duration(sweep.seconds), "time spent"),
        (thousands(sweep.completed), "completed"),
        (thousands(sweep.diverged), "diverged"),
        (thousands(sweep.failed), "failed"),
    ]);
    if !sweep.ended() {
        boxes.push((thousands(sweep.running), "with workers"));
        boxes.push((thousands(sweep.workers.into()), "workers ready"));
    }
    html.push_str(&tiles(&boxes));
    html
}

/// The way to its trace; nothing where it is not traced.
pub fn trace(sweep: &SweepStatus) -> String {
    let Some(id) = &sweep.trace_id else { return String::new() };
    match &sweep.trace_url {
        Some(url) => format!("<a href=\"{}\" rel=\"noreferrer\">trace</a>", escape(url)),
        None => format!("trace <code>{}</code>", escape(id)),
    }
}

fn actions(sweep: &SweepStatus, may: bool) -> String {
    let at = |what: &str| format!("../sweeps/{}/{what}", sweep.id);
    let mut html = String::from("<div class=\"actions\" role=\"group\" aria-label=\"Actions\">");
    let mut add = |text: String| html.push_str(&text);
    if may {
        match sweep.state {
            "running" => add(button(&at("pause"), "Pause", "")),
            "paused" | "cancelled" => add(button(&at("resume"), "Resume", "")),
            "completed" if sweep.failed > 0 => add(button(&at("retry"), "Try failed trials again", "")),
            _ => {}
        }
        if !sweep.ended() {
            add(format!(
                "<a class=\"button danger\" href=\"{}\" data-dialog=\"confirm-cancel\">Cancel…</a>",
                at("cancel")
            ));
        }
    }
    if sweep.ended() {
        add(format!("<a class=\"button\" href=\"{}\">Report</a>", at("report")));
    }
    html.push_str("</div>");
    html
}

fn question(sweep: &SweepStatus) -> String {
    format!(
        "<p>{} of {} trials are done. They stay; what is running is given up, and nothing more is sent out. A cancelled sweep can be \
         resumed.</p>",
        thousands(sweep.done()),
        thousands(sweep.trials)
    )
}

fn dialog(sweep: &SweepStatus) -> String {
    format!(
        "<dialog id=\"confirm-cancel\" aria-labelledby=\"confirm-title\"><h2 id=\"confirm-title\">Cancel this sweep?</h2>\
         <p>What is done stays; what is running is given up, and nothing more is sent out. A cancelled sweep can be resumed.</p>\
         <div class=\"actions\">{}<form method=\"dialog\"><button class=\"quiet\">Let it run</button></form></div></dialog>",
        button(&format!("../sweeps/{}/cancel", sweep.id), "Cancel the sweep", "danger")
    )
}

/// The same question as a page.
pub async fn ask_to_cancel(
    State(site): State<Site>,
    caller: Caller,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let view = match site.view(&id).await {
        Ok(view) => view,
        Err(refusal) => return refused(&site, &caller, &headers, "../../", &refusal).await,
    };
    let sweep = SweepStatus::from(&site.rpc.status(&view));
    let mut page = Page::new(&site, &caller, &headers, "../../", &format!("Cancel {}?", view.name));
    page.section = "Sweeps";
    page.again_after = 0;
    page.fixed(
        "question",
        format!(
            "{}<div class=\"actions\">{}<a class=\"button quiet\" href=\"../{}\">Let it run</a></div>",
            question(&sweep),
            button("./cancel", "Cancel the sweep", "danger"),
            escape(&sweep.id)
        ),
    );
    page.respond().await
}

async fn change(site: Site, caller: Caller, headers: HeaderMap, id: String, change: SweepChange) -> Response {
    match answers::change(&site, &caller, id, change).await {
        Ok(sweep) => see(&format!("../{}", sweep.id)),
        Err(refusal) => refused(&site, &caller, &headers, "../../", &refusal).await,
    }
}

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident: $change:ident),*) => {
        $($(#[$doc])* pub async fn $name(
            State(site): State<Site>,
            caller: Caller,
            headers: HeaderMap,
            Path(id): Path<String>,
        ) -> Response {
            change(site, caller, headers, id, SweepChange::$change).await
        })*
    };
}

changes!(
    /// Stops a sweep.
    cancel: Cancel,
    /// Lets it wait.
    pause: Pause,
    /// Lets it go on.
    resume: Resume,
    /// Tries failed trials again.
    retry: Retry
);

fn results(figures: &Live, sweep: &SweepStatus) -> Result<String, Refusal> {
    let title = if sweep.ended() { "Stability" } else { "Stability so far" };
    let mut html =
        format!("<section aria-labelledby=\"results-title\"><h2 id=\"results-title\">{title}</h2>\n",);
    if figures.read < 1.0 {
        let _ = write!(
            html,
            "<p class=\"small\">{:.0} % of the results are read; the rest follows in a moment.</p>",
            (figures.read * 100.0).floor()
        );
    }
    if let Some(problem) = &figures.problem {
        let _ = write!(html, "<p class=\"banner\">Not up to date: {}</p>", escape(problem));
    }
    if figures.trials == 0 {
        let waits = if sweep.ended() {
            "There is no result."
        } else {
            "Figures appear with the first durable results."
        };
        let _ = write!(html, "<p>{waits}</p></section>");
        return Ok(html);
    }
    html.push_str(&strategies(&figures.lines));
    let drawn = |error: ExportError| Refusal(Status::internal(error.to_string()));
    let shown = figures.lines.get(..DRAWN).unwrap_or(&figures.lines);
    let rows = |value: fn(&crate::api::LiveDot) -> Option<f64>| -> Vec<(&str, Vec<f64>)> {
        shown.iter().map(|line| (&*line.label, line.sample.iter().filter_map(value).collect())).collect()
    };
    html.push_str("<div class=\"pictures\">");
    let mut figure = |title: &str, legend: String, svg: Option<String>, says: &str| {
        if let Some(svg) = svg {
            let _ =
                write!(html, "<figure><h3>{title}</h3>{legend}{svg}<figcaption>{says}</figcaption></figure>");
        }
    };
    let scores = live::scores(&rows(|dot| Some(dot.score))).map_err(drawn)?;
    figure(
        "Scores",
        String::new(),
        scores,
        "Scores of completed trials, all datasets and seeds together; of each row up to 512 trials, picked by a hash of their number.",
    );
    let distances = live::distances(&rows(|dot| dot.loo_mean)).map_err(drawn)?;
    figure(
        "Leave-one-out distances",
        String::new(),
        distances,
        "How far training moves when one point is left out: a dot is a trial, the box spans the quartiles, whiskers the 5th to the 95th percentile.",
    );
    let training: Vec<&LiveCurve> =
        figures.training.iter().filter(|curve| curve.points.len() > 1).take(LINE_COLORS).collect();
    let along = |value: fn(&crate::api::CurvePoint) -> Option<f64>| -> Vec<Vec<(f64, f64)>> {
        let points = |curve: &&LiveCurve| {
            let points = curve.points.iter();
            points.filter_map(|point| Some((f64::from(point.step), value(point)?))).collect()
        };
        training.iter().map(points).collect()
    };
    let losses =
        live::curves("Training loss of trials in training", "training loss (nats)", &along(|p| p.train_loss));
    let scores = live::curves("Score of trials in training", "score on the test set", &along(|p| p.score));
    let legend = curve_legend(sweep, &training);
    figure(
        "Loss of trials in training",
        legend.clone(),
        losses.map_err(drawn)?,
        "Trials that train now, the first of them.",
    );
    figure("Score of trials in training", legend, scores.map_err(drawn)?, "The same trials.");
    html.push_str("</div></section>");
    Ok(html)
}

fn curve_legend(sweep: &SweepStatus, training: &[&LiveCurve]) -> String {
    let entry = |(line, curve): (usize, &&LiveCurve)| {
        let mark = MARKS.get(line % MARKS.len()).copied().unwrap_or("●");
        let (id, trial) = (escape(&sweep.id), curve.trial);
        format!(
            "<span><i class=\"c-{}\" aria-hidden=\"true\">{mark}</i> <a href=\"../sweeps/{id}/trials/{trial}\">trial {trial}</a></span> ",
            line % LINE_COLORS
        )
    };
    format!("<p class=\"legend\">{}</p>", training.iter().enumerate().map(entry).collect::<String>())
}

fn strategies(lines: &[LiveLine]) -> String {
    let heads =
        ["Strategy", "Trials", "Mean score", "SD over seeds", "SD of all", "Mean LOO", "Diverged", "Failed"];
    let rows = lines.iter().map(|line| {
        vec![
            long(&line.label),
            thousands(line.completed + line.diverged + line.failed),
            maybe(line.score_mean, 4),
            maybe(line.score_seed_sd, 3),
            maybe(line.score_sd, 3),
            maybe(line.loo_mean, 3),
            thousands(line.diverged),
            thousands(line.failed),
        ]
    });
    let table = table("Each strategy until now", &heads, rows);
    format!(
        "{table}<p class=\"small\">SD over seeds: how far runs that differ by nothing but their seed scatter, pooled over datasets. \
         Mean LOO: mean leave-one-out distance. The report has intervals and tests.</p>"
    )
}

fn failures(figures: &Live, sweep: &SweepStatus) -> String {
    if figures.failures.is_empty() {
        return String::new();
    }
    let id = escape(&sweep.id);
    let mut html =
        String::from("<section aria-labelledby=\"failures-title\"><h2 id=\"failures-title\">Failures</h2>\n");
    for failure in figures.failures.iter().take(ERRORS) {
        // An address is not made for long errors: some of the first line finds the same ones, mostly.
        let first = failure.error.lines().next().unwrap_or_default();
        let part: String = first.chars().take(80).collect();
        let (count, trial) = (thousands(failure.trials), failure.first_trial);
        let _ = writeln!(
            html,
            "<details class=\"failure\"><summary>{count} × {}</summary><pre tabindex=\"0\">{}</pre>\
             <p><a href=\"../sweeps/{id}/trials/{trial}\">The first: trial {trial}</a> · \
             <a href=\"../sweeps/{id}?status=failed&amp;q={}#search\">All of them</a></p></details>",
            escape(&clip(first, 120)),
            escape(&failure.error),
            percent_encoded(&part),
        );
    }
    let listed: u64 = figures.failures.iter().take(ERRORS).map(|failure| failure.trials).sum();
    let all: u64 =
        figures.failures.iter().map(|failure| failure.trials).sum::<u64>() + figures.unlisted_failures;
    if all > listed {
        let _ =
            write!(html, "<p class=\"small\">{} more failed with other errors.</p>", thousands(all - listed));
    }
    html.push_str("</section>");
    html
}

/// The report of a sweep that has ended, made anew.
pub async fn report(
    State(site): State<Site>,
    caller: Caller,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    match make_report(&site, &id).await {
        Ok(html) => {
            // Everything is in it, also its style; nothing is loaded or sent.
            let policy = HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            );
            let mut response = document(StatusCode::OK, html);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response.into_response()
        }
        Err(refusal) => refused(&site, &caller, &headers, "../../", &refusal).await,
    }
}

async fn make_report(site: &Site, id: &str) -> Result<String, Refusal> {
    let view = site.view(id).await?;
    if !SweepStatus::from(&site.rpc.status(&view)).ended() {
        return Err(Status::failed_precondition(format!(
            "sweep {id} has not ended: there is a report when it has"
        ))
        .into());
    }
    let _place = site.throttle.heavy()?;
    let exported = Exported::new(site.seat.store(), &view, Format::Parquet).await?;
    let html = exported.read("report.html").await.map_err(|error| Status::internal(error.to_string()))?;
    String::from_utf8(html).map_err(|error| Status::internal(error.to_string()).into())
}
