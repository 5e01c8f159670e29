//! Who asks.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use tonic::metadata::MetadataValue;

/// The cookie that the page keeps a token in.
pub const COOKIE: &str = "evenkeel_token";

/// The header `authorization` of a request, or what the page's cookie stands for.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    authorization: Option<Vec<u8>>,
    /// Whether it signed in on the page.
    pub signed_in: bool,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl Caller {
    fn of(headers: &HeaderMap) -> Self {
        if let Some(header) = headers.get(header::AUTHORIZATION) {
            return Self { authorization: Some(header.as_bytes().to_vec()), signed_in: false };
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let token = pairs.find(|(name, _)| *name == COOKIE).and_then(|(_, value)| from_hex(value));
        let signed_in = token.is_some();
        Self { authorization: token.map(|token| [b"Bearer ", &*token].concat()), signed_in }
    }

    /// Who would ask with this token.
    pub fn with_token(token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}").into_bytes()), signed_in: true }
    }

    /// What [`crate::access::Access::check`] looks at.
    pub fn authorization(&self) -> Option<&[u8]> {
        self.authorization.as_deref()
    }

    /// The same question as a gRPC call.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let shown = self.authorization().and_then(|bytes| std::str::from_utf8(bytes).ok());
        if let Some(value) = shown.and_then(|text| MetadataValue::try_from(text).ok()) {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

/// The cookie that keeps a token, or with none forgets it. It has no path: browsers then take the folder of the page that
/// set it, whatever prefix a proxy puts in front.
pub fn cookie(token: Option<&str>, headers: &HeaderMap) -> Option<HeaderValue> {
    let value: String = token.unwrap_or_default().bytes().map(|byte| format!("{byte:02x}")).collect();
    let age = if token.is_some() { "" } else { "; Max-Age=0" };
    let https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https");
    let secure = if https { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{COOKIE}={value}; HttpOnly; SameSite=Strict{age}{secure}")).ok()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
        u8::from_str_radix(text, 16).ok()
    };
    (!text.is_empty()).then(|| pairs.map(byte).collect()).flatten()
}

/// Why a change is taken for one that another site caused; none where nothing speaks for that. Programs send neither header.
pub fn foreign(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match text("sec-fetch-site") {
        Some("same-origin" | "none") => return None,
        Some(other) => {
            return Some(format!(
                "another site asked for this change (Sec-Fetch-Site: {other}); it is not made"
            ));
        }
        None => {}
    }
    let origin = text("origin")?;
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    let own = ["x-forwarded-host", "host"].into_iter().filter_map(text).any(|host| host == authority);
    (!own).then(|| {
        format!(
            "another site ({origin}) asked for this change; it is not made. A proxy in front has to send `Host` or \
             `X-Forwarded-Host` as the browser did"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value")))
            .collect()
    }

    #[test]
    fn a_token_comes_in_the_header_or_in_the_cookie_that_was_set() {
        let set = cookie(Some("reader-0123;\"456789"), &headers(&[])).expect("cookie");
        let pair = set.to_str().expect("text").split(';').next().expect("pair").to_owned();
        let caller = Caller::of(&headers(&[("cookie", &format!("other=1; {pair}"))]));
        assert_eq!(caller.authorization(), Some(&b"Bearer reader-0123;\"456789"[..]));
        assert!(caller.signed_in);
        let both = Caller::of(&headers(&[("cookie", &pair), ("authorization", "Bearer x")]));
        assert_eq!(both.authorization(), Some(&b"Bearer x"[..]));
        for broken in
            ["evenkeel_token=", "evenkeel_token=f", "evenkeel_token=zz", "evenkeel_token=\u{e9}1", "x"]
        {
            assert_eq!(Caller::of(&headers(&[("cookie", broken)])).authorization(), None, "{broken}");
        }
        let secure = cookie(Some("t"), &headers(&[("x-forwarded-proto", "https")])).expect("cookie");
        assert!(secure.to_str().expect("text").ends_with("; Secure"));
    }

    #[test]
    fn changes_that_another_site_caused_are_told_from_ones_own() {
        let foreign = |pairs: &[(&'static str, &str)]| foreign(&headers(pairs)).is_some();
        assert!(!foreign(&[("host", "a:1")]));
        assert!(!foreign(&[("host", "a:1"), ("origin", "http://a:1")]));
        assert!(!foreign(&[("host", "inner"), ("x-forwarded-host", "a"), ("origin", "https://a")]));
        assert!(!foreign(&[("host", "a:1"), ("sec-fetch-site", "same-origin")]));
        assert!(foreign(&[("host", "a:1"), ("origin", "http://b:1")]));
        assert!(foreign(&[("host", "a:1"), ("origin", "http://a:2")]));
        assert!(foreign(&[("host", "a:1"), ("origin", "null")]));
        assert!(foreign(&[("host", "a:1"), ("origin", "http://a:1"), ("sec-fetch-site", "cross-site")]));
        assert!(foreign(&[("host", "a:1"), ("sec-fetch-site", "same-site")]));
    }
}
