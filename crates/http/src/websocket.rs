//! The handshake of a WebSocket stream: whether a request asks for one, and whether it may have it.
//!
//! Browsers let every page open a WebSocket anywhere, with the user's cookies and without asking first; the `Origin` is all
//! that tells such a page from this relay's own. Knows neither events nor frames.
//!
//! Spec: RFC 6455, section 4.2; RFC 9110, section 7.8.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::auth::origin;
use super::problem::{self, Problem};
use hookcast_streams::websocket::{Handshake, SUBPROTOCOL};

/// The one version there is.
const VERSION: &str = "13";
/// Bytes of a key behind its base64.
const KEY_BYTES: usize = 16;

/// Whether a request asks to become a WebSocket. One of HTTP/1.0 cannot.
pub(super) fn is_asked(request: &HttpRequest) -> bool {
    *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_token(request, &header::CONNECTION, |token| token.eq_ignore_ascii_case("upgrade"))
        && has_token(request, &header::UPGRADE, |token| token.eq_ignore_ascii_case("websocket"))
}

/// Judges the handshake of a request that asks to become a WebSocket; `None` for any other request.
///
/// # Errors
/// `cross_site` for a page of another site, `upgrade_required` for another version or an upgrade that was lost on the way,
/// `websocket_key`.
pub(super) fn handshake(request: &HttpRequest, origins: &[String]) -> Result<Option<Handshake>, Problem> {
    let headers = request.headers();
    let keys: Vec<&HeaderValue> = headers.get_all(header::SEC_WEBSOCKET_KEY).collect();
    if !is_asked(request) {
        if keys.is_empty() || *request.method() == Method::HEAD {
            return Ok(None);
        }
        return Err(upgrade_required(
            "a WebSocket begins with a GET of HTTP/1.1 with `Connection: Upgrade` and \
            `Upgrade: websocket`; a proxy on the way may have taken them out",
        ));
    }
    check_origin(request, origins)?;
    if headers.get_all(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes).ne([VERSION.as_bytes()]) {
        return Err(upgrade_required("the version of the WebSocket protocol understood here is 13"));
    }
    let key = match keys[..] {
        [key] if STANDARD.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == KEY_BYTES) => key.as_bytes(),
        _ => {
            let detail = "a WebSocket needs one `Sec-WebSocket-Key`: 16 bytes in base64";
            return Err(Problem::of_slug("websocket_key", 400, detail));
        }
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| Problem::not_found())?;
    let is_ours = has_token(request, &header::SEC_WEBSOCKET_PROTOCOL, |token| token == SUBPROTOCOL);
    Ok(Some(Handshake { accept, is_ours }))
}

/// What only works as a WebSocket was asked for otherwise.
pub(super) fn upgrade_required(detail: &'static str) -> Problem {
    Problem::new(problem::UPGRADE_REQUIRED, detail)
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION))
}

/// A program says no origin; a page says its own, which is this relay's or one that the operator allows.
fn check_origin(request: &HttpRequest, origins: &[String]) -> Result<(), Problem> {
    let mut given = request.headers().get_all(header::ORIGIN);
    let Some(origin) = given.next() else { return Ok(()) };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_allowed = |origin: &str| origin::is_same(origin, host) || origins.iter().any(|allowed| allowed == origin);
    if given.next().is_none() && origin.to_str().is_ok_and(is_allowed) {
        return Ok(());
    }
    let detail = "a WebSocket may be opened by programs, this relay's own pages and those of `server.cors_origins`";
    Err(Problem::new(problem::CROSS_SITE, detail))
}

/// Whether one of the tokens of a header that is a list is wanted.
fn has_token(request: &HttpRequest, name: &HeaderName, is_wanted: impl Fn(&str) -> bool) -> bool {
    let values = request.headers().get_all(name).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| is_wanted(token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const PROPER: &[(&str, &str)] = &[
        ("host", "relay.example:8080"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        KEY,
    ];

    /// The status and slug of a refusal, or the subprotocol and accept key of the answer.
    fn judge(headers: &[(&'static str, &'static str)]) -> Result<Option<(bool, String)>, (u16, &'static str)> {
        let request = headers.iter().fold(TestRequest::get(), |request, header| request.append_header(*header));
        handshake(&request.to_http_request(), &["https://pages.example".to_owned()])
            .map(|handshake| handshake.map(|found| (found.is_ours, found.accept.to_str().unwrap().to_owned())))
            .map_err(|problem| (problem.status().as_u16(), problem.slug()))
    }

    fn with(more: &[(&'static str, &'static str)]) -> Result<Option<(bool, String)>, (u16, &'static str)> {
        judge(&[PROPER, more].concat())
    }

    fn without(name: &str) -> Result<Option<(bool, String)>, (u16, &'static str)> {
        judge(&PROPER.iter().copied().filter(|(known, _)| *known != name).collect::<Vec<_>>())
    }

    #[test]
    fn the_example_of_the_standard_is_answered_as_it_says() {
        assert_eq!(with(&[]), Ok(Some((false, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()))));
    }

    #[test]
    fn our_subprotocol_is_chosen_where_it_is_offered_and_no_other() {
        let chosen = |offered| with(&[("sec-websocket-protocol", offered)]).unwrap().unwrap().0;
        assert!(chosen("hookcast.v1") && chosen("chat, hookcast.v1"));
        assert!(!chosen("chat") && !chosen("hookcast.v2") && !chosen("Hookcast.V1"));
    }

    #[test]
    fn only_our_own_pages_and_those_allowed_may_open_one() {
        for origin in ["http://relay.example:8080", "https://relay.example:8080", "https://pages.example"] {
            assert!(with(&[("origin", origin)]).is_ok(), "{origin}");
        }
        for origin in
            ["null", "https://evil.example", "http://relay.example", "http://pages.example", "https://pages.example.evil"]
        {
            assert_eq!(with(&[("origin", origin)]), Err((403, "cross_site")), "{origin}");
        }
        let twice = [("origin", "https://pages.example"), ("origin", "https://evil.example")];
        assert_eq!(with(&twice), Err((403, "cross_site")));
    }

    #[test]
    fn what_is_no_handshake_of_version_13_is_told_so() {
        for name in ["connection", "upgrade", "sec-websocket-version"] {
            assert_eq!(without(name), Err((426, "upgrade_required")), "{name}");
        }
        assert_eq!(with(&[("sec-websocket-version", "8")]), Err((426, "upgrade_required")));
        assert_eq!(without("sec-websocket-key"), Err((400, "websocket_key")));
        assert_eq!(with(&[KEY]), Err((400, "websocket_key")));
        let other: Vec<_> = PROPER.iter().copied().filter(|header| *header != KEY).collect();
        let short = [&other[..], &[("sec-websocket-key", "c2hvcnQ=")]].concat();
        assert_eq!(judge(&short), Err((400, "websocket_key")));
    }

    #[test]
    fn other_requests_and_other_upgrades_are_left_alone() {
        assert_eq!(judge(&[]), Ok(None));
        assert_eq!(judge(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]), Ok(None));
    }

    #[test]
    fn the_refusal_of_a_version_names_the_one_understood() {
        let response = upgrade_required("x").response();
        assert_eq!(response.headers().get("sec-websocket-version").unwrap(), "13");
        assert_eq!(response.headers().get("upgrade").unwrap(), "websocket");
    }
}
