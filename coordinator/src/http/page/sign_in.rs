//! Signing in: a token goes into a cookie that scripts do not see and other sites do not send.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;

use super::super::caller::{Caller, cookie};
use super::super::{Refusal, Site};
use super::html::escape;
use super::{document, head, see};
use crate::access::Role;

/// What the form sends.
#[derive(Deserialize)]
pub struct Token {
    token: String,
}

/// The whole document with the form.
pub fn form(root: &str, error: Option<&str>) -> String {
    let head = head("Sign in", root);
    let error =
        error.map(|error| format!("<p class=\"error\" role=\"alert\" id=\"why\">{}</p>", escape(error)));
    let (error, described) = match error {
        Some(error) => (error, " aria-describedby=\"why\" aria-invalid=\"true\""),
        None => (String::new(), ""),
    };
    format!(
        "{head}<body><main id=\"main\" class=\"narrow\"><h1>Sign in</h1>\
         <p>This coordinator asks for a token. Whoever runs it has the file that tokens are in (<code>--tokens</code>).</p>{error}\
         <form method=\"post\" action=\"{root}sign-in\" class=\"stack\"><label for=\"token\">Token</label>\
         <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus{described}>\
         <button>Sign in</button></form>\
         <p class=\"small\">Programs send <code>Authorization: Bearer TOKEN</code> instead.</p></main></body></html>\n"
    )
}

/// The form.
pub async fn page() -> Response {
    document(StatusCode::OK, form("./", None))
}

/// Takes a token that may read.
pub async fn sign_in(
    State(site): State<Site>,
    headers: HeaderMap,
    Form(Token { token }): Form<Token>,
) -> Response {
    let token = token.trim();
    if let Err(denied) = site.access.check(Caller::with_token(token).authorization(), Role::Read) {
        let refusal = Refusal::from(denied);
        let says = match denied {
            crate::access::Denied::Unknown => "The coordinator does not know this token.",
            _ => refusal.message(),
        };
        return document(refusal.code(), form("./", Some(says)));
    }
    with_cookie(see("./"), Some(token), &headers)
}

/// Forgets it.
pub async fn sign_out(headers: HeaderMap) -> Response {
    with_cookie(see("./"), None, &headers)
}

fn with_cookie(mut response: Response, token: Option<&str>, headers: &HeaderMap) -> Response {
    if let Some(cookie) = cookie(token, headers) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
