//! The page: HTML made here, that works without script and behind any path prefix. A small script keeps it up to date.
//!
//! | module | holds |
//! |---|---|
//! | `html` | pieces |
//! | `sweeps` | all sweeps, and the form that submits one |
//! | `sweep` | one sweep |
//! | `trials` | its trials |
//! | `cluster` | workers, and how the coordinator does |
//! | `sign_in` | the form that takes a token |

mod cluster;
mod html;
mod sign_in;
mod sweep;
mod sweeps;
mod trials;

use std::fmt::Write as _;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use self::html::escape;
use super::caller::Caller;
use super::{Refusal, Site};
use crate::access::{Denied, Role};

/// The style: the report's, and what the page has beside it.
const CSS: &str = include_str!("page.css");
/// The script.
const SCRIPT: &str = include_str!("page.js");
/// Asks for the parts that change, and nothing else.
const FRAGMENT: &str = "evenkeel-fragment";

/// What readers see.
pub fn router() -> Router<Site> {
    Router::new()
        .route("/", get(sweeps::page))
        .route("/submit", post(sweeps::submit).get(sweeps::page))
        .route("/sweeps/{id}", get(sweep::page))
        .route("/sweeps/{id}/cancel", get(sweep::ask_to_cancel).post(sweep::cancel))
        .route("/sweeps/{id}/pause", post(sweep::pause))
        .route("/sweeps/{id}/resume", post(sweep::resume))
        .route("/sweeps/{id}/retry", post(sweep::retry))
        .route("/sweeps/{id}/report", get(sweep::report))
        .route("/sweeps/{id}/trials/{index}", get(trials::page))
        .route("/workers", get(cluster::workers))
        .route("/workers/{id}/drain", post(cluster::drain))
        .route("/cluster", get(cluster::page))
}

/// What everybody sees.
pub fn open_router() -> Router<Site> {
    let file = |kind: &'static str, text: &'static str| {
        move || async move { ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text) }
    };
    let style = || async {
        let css = format!("{}{CSS}", crate::report::STYLE);
        ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], css)
    };
    Router::new()
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/assets/page.css", get(style))
        .route("/assets/page.js", get(file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/assets/icon.svg", get(file("image/svg+xml", include_str!("icon.svg"))))
}

/// Who may not read is asked for a token, at any address.
pub fn denied(_: &Site, request: &Request, denied: Denied) -> Response {
    let code = Refusal::from(denied).code();
    let reason = if denied == Denied::Missing { None } else { Some(Refusal::from(denied)) };
    let html = sign_in::form(root(request.uri().path()), reason.as_ref().map(Refusal::message));
    let mut response = document(code, html);
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The way from a path to the first page. All addresses are relative, so that a proxy may serve them below any path.
fn root(path: &str) -> &'static str {
    match path.trim_start_matches('/').matches('/').count() {
        0 => "./",
        1 => "../",
        2 => "../../",
        _ => "../../../",
    }
}

/// A part of a page.
struct Region {
    id: &'static str,
    html: String,
    /// Whether the script keeps it up to date.
    live: bool,
}

/// A page that is put together.
struct Page<'a> {
    site: &'a Site,
    caller: &'a Caller,
    headers: &'a HeaderMap,
    title: String,
    /// The way to the first page.
    root: &'static str,
    /// Which entry of the navigation it belongs to.
    section: &'static str,
    regions: Vec<Region>,
    code: StatusCode,
    /// Seconds after which the script looks again.
    again_after: u32,
}

impl<'a> Page<'a> {
    fn new(
        site: &'a Site,
        caller: &'a Caller,
        headers: &'a HeaderMap,
        root: &'static str,
        title: &str,
    ) -> Self {
        Self {
            site,
            caller,
            headers,
            title: title.to_owned(),
            root,
            section: "",
            regions: Vec::new(),
            code: StatusCode::OK,
            again_after: 1,
        }
    }

    /// Adds a part that does not change.
    fn fixed(&mut self, id: &'static str, html: String) -> &mut Self {
        self.regions.push(Region { id, html, live: false });
        self
    }

    /// Adds a part that the script keeps up to date.
    fn live(&mut self, id: &'static str, html: String) -> &mut Self {
        self.regions.push(Region { id, html, live: true });
        self
    }

    async fn respond(mut self) -> Response {
        let banner = self.banner();
        self.regions.insert(0, Region { id: "banner", html: banner, live: true });
        let only_live = self.headers.contains_key(FRAGMENT);
        let mut main = String::with_capacity(1 << 16);
        for region in self.regions.iter().filter(|region| region.live || !only_live) {
            let live = if region.live { " data-live" } else { "" };
            let _ = writeln!(main, "<div id=\"{}\" class=\"region\"{live}>{}</div>", region.id, region.html);
        }
        let html = if only_live {
            format!("<!DOCTYPE html><title>{} – Evenkeel</title>\n{main}", escape(&self.title))
        } else {
            self.frame(&main)
        };
        let tag = format!("\"{}\"", blake3::hash(html.as_bytes()).to_hex().get(..24).unwrap_or_default());
        let known =
            self.headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = if known && self.code == StatusCode::OK {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            document(self.code, html)
        };
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    /// What has to be said before everything else.
    fn banner(&self) -> String {
        let Some(driver) = self.site.seat.driver() else {
            let leads = match self.site.seat.leader() {
                Some(leader) => {
                    format!("<strong>{}</strong> leads; ask its page for what is running.", escape(&leader))
                }
                None => "None leads at the moment.".to_owned(),
            };
            return format!(
                "<p class=\"banner\">This coordinator stands by: it shows what is durable and changes nothing. {leads}</p>"
            );
        };
        match &driver.snapshot().stalled {
            Some(reason) => format!("<p class=\"banner\">The store takes no results: {}</p>", escape(reason)),
            None => String::new(),
        }
    }

    fn frame(&self, main: &str) -> String {
        let (title, root) = (escape(&self.title), self.root);
        let entry = |name: &str, path: &str| {
            let current = if name == self.section { " aria-current=\"page\"" } else { "" };
            format!("<li><a href=\"{root}{path}\"{current}>{name}</a></li>")
        };
        let nav = [("Sweeps", ""), ("Workers", "workers"), ("Cluster", "cluster")]
            .map(|(n, p)| entry(n, p))
            .concat();
        let out = if self.caller.signed_in && !self.site.access.is_open() {
            html::button(&format!("{root}sign-out"), "Sign out", "quiet")
        } else {
            String::new()
        };
        let head = head(&title, root);
        let again = self.again_after;
        format!(
            "{head}<body data-again=\"{again}\"><a class=\"skip\" href=\"#main\">To the content</a>\
             <header class=\"top\"><a class=\"brand\" href=\"{root}\">Evenkeel</a><nav aria-label=\"Pages\"><ul>{nav}</ul></nav>{out}</header>\
             <main id=\"main\"><h1>{title}</h1>\n{main}</main>\
             <footer><p id=\"connection\" role=\"status\" aria-live=\"polite\"></p>\
             <p class=\"small\"><a href=\"\">Refresh</a> · <a href=\"{root}api/v1/openapi.json\">JSON API</a> · evenkeel {}</p></footer>\
             </body></html>\n",
            env!("CARGO_PKG_VERSION")
        )
    }

    fn may(&self, role: Role) -> bool {
        self.site.may(self.caller, role)
    }
}

/// The head of a document.
fn head(title: &str, root: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title} – Evenkeel</title>\
         <link rel=\"icon\" href=\"{root}assets/icon.svg\"><link rel=\"stylesheet\" href=\"{root}assets/page.css\">\
         <script src=\"{root}assets/page.js\" defer></script></head>"
    )
}

fn document(code: StatusCode, html: String) -> Response {
    (code, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

/// To another page, whose address is relative to the one that was asked for.
fn see(address: &str) -> Response {
    match HeaderValue::from_str(address) {
        Ok(address) => (StatusCode::SEE_OTHER, [(header::LOCATION, address)]).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Why there is no page, as one.
async fn refused(
    site: &Site,
    caller: &Caller,
    headers: &HeaderMap,
    root: &'static str,
    refusal: &Refusal,
) -> Response {
    let mut page = Page::new(site, caller, headers, root, "That did not work");
    page.code = refusal.code();
    page.again_after = 0;
    let message = escape(refusal.message());
    page.fixed(
        "refusal",
        format!("<p class=\"error\" role=\"alert\">{message}</p><p><a href=\"{root}\">All sweeps</a></p>"),
    );
    page.respond().await
}
