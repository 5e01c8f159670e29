//! Workers, and how the coordinator does.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use evenkeel_proto::v1;
use evenkeel_proto::v1::sweep_service_server::SweepService as _;

use super::super::caller::Caller;
use super::super::{Refusal, Site, api as answers};
use super::html::{button, entries, escape, percent_encoded, significant, state, table, thousands};
use super::{Page, refused, see};
use crate::access::Role;

/// The page of workers.
pub async fn workers(State(site): State<Site>, caller: Caller, headers: HeaderMap) -> Response {
    let workers = match answers::list_workers(&site, &caller).await {
        Ok(list) => list.workers,
        Err(refusal) => return refused(&site, &caller, &headers, "./", &refusal).await,
    };
    let mut page = Page::new(&site, &caller, &headers, "./", "Workers");
    page.section = "Workers";
    let may = page.may(Role::Admin);
    let rows = workers.iter().map(|worker| {
        let (id, reason) = (escape(&worker.id), escape(&worker.reason));
        let why = if reason.is_empty() { String::new() } else { format!("<br><small>{reason}</small>") };
        let drain = may && worker.state != "draining" && worker.state != "refused";
        vec![
            format!("{id}<br><small>{} · {}</small>", escape(&worker.address), escape(&worker.version)),
            format!("{}{why}", state(&worker.state)),
            format!("{}<br><small>{}</small>", escape(&worker.device), slots(worker.slots)),
            worker
                .flops_per_second
                .map_or_else(|| "–".to_owned(), |speed| format!("{} GFLOP/s", significant(speed / 1e9, 3))),
            worker.packs.to_string(),
            worker.sweep.as_deref().map(escape).map_or_else(
                || "–".to_owned(),
                |id| format!("<a href=\"./sweeps/{id}\"><small>{id}</small></a>"),
            ),
            thousands(worker.trials_done),
            thousands(worker.failures.into()),
            if drain {
                let label = format!("<span class=\"unseen\"> {id}</span>");
                let form =
                    button(&format!("./workers/{}/drain", percent_encoded(&worker.id)), "Drain", "quiet");
                form.replace("Drain</button>", &format!("Drain{label}</button>"))
            } else {
                "–".to_owned()
            },
        ]
    });
    let heads = ["Worker", "State", "Device", "Speed", "Packs", "Sweep", "Trials", "Failed", "Leave"];
    let html = if workers.is_empty() {
        "<p>No worker is registered. Start one with <code>evenkeel-worker</code>.</p>".to_owned()
    } else {
        let table = table("Workers that are registered", &heads, rows);
        format!(
            "{table}<p class=\"small\">Speed is that of a slot. Trials and failed packs are counted since this coordinator leads. A worker that drains finishes what it \
             runs, hands back the rest and leaves.</p>"
        )
    };
    page.live("workers", html);
    page.respond().await
}

fn slots(count: u32) -> String {
    if count == 1 { "1 slot".to_owned() } else { format!("{} slots", thousands(count.into())) }
}

/// Lets a worker leave.
pub async fn drain(
    State(site): State<Site>,
    caller: Caller,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    match site.rpc.drain_worker(caller.request(v1::DrainWorkerRequest { worker_id: id })).await {
        Ok(_) => see("../../workers"),
        Err(status) => refused(&site, &caller, &headers, "../../", &Refusal::from(status)).await,
    }
}

/// How the coordinator does.
pub async fn page(State(site): State<Site>, caller: Caller, headers: HeaderMap) -> Response {
    let health = answers::state_of_health(&site);
    let mut page = Page::new(&site, &caller, &headers, "./", "Cluster");
    page.section = "Cluster";
    let leads = match (&health.leader, health.leading) {
        (_, true) => format!(
            "this coordinator leads{}",
            health.epoch.map(|e| format!(", epoch {e}")).unwrap_or_default()
        ),
        (Some(leader), _) => format!("{} leads, this one stands by", escape(leader)),
        (None, _) => "none leads at the moment, this one stands by".to_owned(),
    };
    let store = match &health.store_stalled {
        Some(reason) => {
            format!("{} <strong>takes no results: {}</strong>", escape(&health.store), escape(reason))
        }
        None => format!("{}, takes results", escape(&health.store)),
    };
    let mut html = entries([
        ("leader", leads),
        ("store", store),
        ("backlog", format!("{} trials delivered and not durable yet", thousands(health.backlog_trials))),
        ("sweeps", format!("{} not ended", thousands(health.sweeps as u64))),
        (
            "workers",
            format!(
                "{} ready of {}",
                thousands(health.workers_ready as u64),
                thousands(health.workers as u64)
            ),
        ),
        ("version", format!("evenkeel {}", health.version)),
        ("protocol", format!("version {}; store format {}", health.protocol_version, health.format_version)),
    ]);
    html.push_str("<p class=\"small\">For probes: <a href=\"./healthz\">healthz</a>, <a href=\"./readyz\">readyz</a>; for Prometheus: <a href=\"./metrics\">metrics</a>.</p>");
    page.live("health", html);
    page.respond().await
}
