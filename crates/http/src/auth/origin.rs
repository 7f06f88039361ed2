//! What a relay without tokens asks of a request: that it means this machine and comes from no other site.
//!
//! `Host` must be a loopback name or address, or one of `server.hosts` (against DNS rebinding); `Origin` and `Sec-Fetch-Site`
//! must not say that another site's page sends it. Clients that are not browsers send neither of the latter. Pure.

use std::net::IpAddr;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::problem::{self, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Judges the headers; `is_navigation_allowed` lets a link on another site lead here (a page load, which that site cannot read).
///
/// # Errors
/// `host_not_allowed`, `cross_site`.
pub(crate) fn check(headers: &HeaderMap, hosts: &[String], is_navigation_allowed: bool) -> Result<(), Problem> {
    // No Host at all is HTTP/1.0, which no browser speaks.
    let host = match headers.get(header::HOST) {
        None => "",
        Some(value) => match value.to_str() {
            Ok(host) if is_ours(host, hosts) => host,
            _ => return Err(foreign_host()),
        },
    };
    let cross_site = || Problem::new(problem::CROSS_SITE, "without tokens only programs and this relay's own pages may use it");
    let is_navigation = is_navigation_allowed && is(headers.get(SEC_FETCH_MODE), "navigate");
    match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => {}
        Some(_) if is_navigation => {}
        Some(_) => return Err(cross_site()),
    }
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.to_str().is_ok_and(|origin| is_same(origin, host)) => Ok(()),
        Some(_) => Err(cross_site()),
    }
}

/// Judges a request for a script, which a page of any site may run and so read: a browser that does not say where the page is
/// from (an old one, or one that speaks to a name it does not trust) has to show a page of this relay as the referrer.
///
/// # Errors
/// `cross_site`.
pub(crate) fn check_script(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // No page can change what its browser calls itself when it loads a script.
    let is_browser = ["Mozilla/", "Opera/"].iter().any(|name| text(header::USER_AGENT).starts_with(name));
    let referrer = text(header::REFERER);
    if headers.contains_key(SEC_FETCH_SITE) || (!is_browser && referrer.is_empty()) {
        return Ok(());
    }
    let site_of = |url: &str| url.match_indices('/').nth(2).map_or(url.len(), |(end, _)| end);
    if is_same(&referrer[..site_of(referrer)], text(header::HOST)) {
        return Ok(());
    }
    Err(Problem::new(problem::CROSS_SITE, "without tokens only this relay's own pages may load events as a script"))
}

fn is(value: Option<&HeaderValue>, word: &str) -> bool {
    value.is_some_and(|value| value.as_bytes() == word.as_bytes())
}

fn foreign_host() -> Problem {
    Problem::new(
        problem::HOST_NOT_ALLOWED,
        "without tokens only loopback names are answered; add the name to `server.hosts` or set up tokens in `[auth]`",
    )
}

/// Whether an origin is the one that pages of this host have.
pub(crate) fn is_same(origin: &str, host: &str) -> bool {
    origin
        .split_once("://")
        .is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && !host.is_empty() && rest.eq_ignore_ascii_case(host))
}

fn is_ours(host: &str, hosts: &[String]) -> bool {
    let name = without_port(host);
    let is_loopback = if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        address.to_canonical().is_loopback()
    } else {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost")
    };
    is_loopback || hosts.iter().any(|known| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if host[colon + 1..].bytes().all(|b| b.is_ascii_digit()) && !host[..colon].ends_with(':') => {
            // An IPv6 address stands in brackets; a bare one has no port to cut.
            if host.starts_with('[') == host[..colon].ends_with(']') { &host[..colon] } else { host }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pairs: &[(&'static str, &'static str)]) -> &'static str {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        match check(&headers, &["relay.example".to_owned()], true) {
            Ok(()) => "ok",
            Err(problem) => problem.slug(),
        }
    }

    #[test]
    fn only_hosts_that_mean_this_relay_are_answered() {
        for host in
            ["localhost", "localhost:8080", "LOCALHOST.:1", "a.localhost", "127.0.0.1:80", "127.9.9.9", "[::1]:8080", "[::1]"]
        {
            assert!(is_ours(host, &[]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]:1",
            "0.0.0.0",
            "localhost:x",
        ] {
            assert!(!is_ours(host, &[]), "{host}");
        }
        assert_eq!(verdict(&[("host", "Relay.Example:8080")]), "ok");
        assert_eq!(verdict(&[("host", "other.example")]), "host_not_allowed");
        assert_eq!(verdict(&[]), "ok");
    }

    #[test]
    fn a_script_is_for_programs_and_pages_of_this_relay() {
        let judge = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.append(header::HOST, HeaderValue::from_static("localhost:8080"));
            for (name, value) in pairs {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            check_script(&headers).is_ok()
        };
        let browser = ("user-agent", "Mozilla/5.0 (X11)");
        assert!(judge(&[]) && judge(&[("user-agent", "curl/8")]));
        assert!(judge(&[browser, ("sec-fetch-site", "same-origin")]), "the gate has judged that one");
        assert!(judge(&[browser, ("referer", "http://localhost:8080/page?x")]));
        assert!(judge(&[browser, ("referer", "http://localhost:8080")]));
        for other in
            ["", "http://evil.example/", "http://localhost:80801/", "http://localhost:8080.evil.example/", "localhost:8080"]
        {
            assert!(!judge(&[browser, ("referer", other)]), "{other}");
        }
        assert!(!judge(&[browser]));
        assert!(!judge(&[("referer", "http://evil.example/")]));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "localhost:8080");
        assert_eq!(verdict(&[host, ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")]), "ok");
        assert_eq!(verdict(&[host, ("origin", "http://localhost:3000")]), "cross_site");
        assert_eq!(verdict(&[host, ("origin", "null")]), "cross_site");
        assert_eq!(verdict(&[host, ("sec-fetch-site", "cross-site")]), "cross_site");
        assert_eq!(verdict(&[host, ("sec-fetch-site", "same-site")]), "cross_site");
        assert_eq!(verdict(&[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), "ok");
        assert_eq!(verdict(&[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]), "cross_site");
    }
}
