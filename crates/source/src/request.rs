//! The request of a source: its templates filled with the upstream's position, its own headers over ours.
//!
//! Knows no connection. Spec: RFC 3986 §2.1 and §3.4 for parameters.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::connection::UpstreamRequest;
use hookcast_core::model::ResumeToken;
use hookcast_core::model::source::SourceSpec;
use hookcast_core::model::source::access::fill;

/// What stands in a query as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The request of a source that says its position in `Last-Event-ID`: its own headers win over ours, the position over both.
pub(super) fn request(spec: &SourceSpec, accept: &'static str, resume: Option<&ResumeToken>) -> UpstreamRequest {
    let position = resume.map(ResumeToken::as_str);
    let mut request = asking(spec, accept, position);
    if let Some(position) = position.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
        request.headers.insert(LAST_EVENT_ID, position);
    }
    request
}

/// The request of a source whose templates say its position, if anything does.
pub(super) fn asking(spec: &SourceSpec, accept: &'static str, position: Option<&str>) -> UpstreamRequest {
    let settings = &spec.settings;
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("hookcast/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    // Compression makes many servers hold events back until a buffer is full.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if settings.body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &spec.headers {
        let Some(value) = fill(value, position, str::to_owned) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
            headers.insert(name, value);
        }
    }
    let method = if settings.method == "POST" { Method::POST } else { Method::GET };
    let body = settings.body.as_deref().map(|template| Bytes::from(body(template, &headers, position)));
    let parameters = settings.access.query.iter();
    let given = parameters.filter_map(|(name, value)| Some((name.as_str(), fill(value, position, str::to_owned)?)));
    let url = with_parameters(&spec.url, given);
    UpstreamRequest { method, url, headers, body }
}

/// A URL whose query has these parameters instead of those of the same names; everything else in it stays as it is written.
pub(super) fn with_parameters<'a>(url: &str, parameters: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut url = url.to_owned();
    for (name, value) in parameters {
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let is_other = |pair: &&str| {
            let written = pair.split('=').next().unwrap_or_default().replace('+', " ");
            !pair.is_empty() && percent_decode_str(&written).decode_utf8_lossy() != name
        };
        let pair = format!("{}={}", utf8_percent_encode(name, KEPT), utf8_percent_encode(&value, KEPT));
        let pairs: Vec<&str> = query.split('&').filter(is_other).chain([pair.as_str()]).collect();
        url = format!("{path}?{}", pairs.join("&"));
    }
    url
}

/// The token stands in a body as its content type asks; without a token its place is empty.
fn body(template: &str, headers: &HeaderMap, position: Option<&str>) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let encode = |token: &str| match kind.as_str() {
        kind if kind.contains("json") => {
            let text = serde_json::Value::from(token).to_string();
            text[1..text.len() - 1].to_owned()
        }
        kind if kind.starts_with("application/x-www-form-urlencoded") => utf8_percent_encode(token, KEPT).to_string(),
        _ => token.to_owned(),
    };
    fill(template, Some(position.unwrap_or_default()), encode).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::model::Topic;
    use hookcast_core::model::source::SourceSettings;

    fn spec() -> SourceSpec {
        let mut settings = SourceSettings { method: "POST".to_owned(), ..SourceSettings::default() };
        settings.body = Some("{\"after\":\"{resume}\"}".to_owned());
        settings.access.query = [("after", "{resume}"), ("wait", "30")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        SourceSpec {
            name: "up".to_owned(),
            protocol: "long-poll".to_owned(),
            url: "https://example.com/a?x=%20&after=0&after=1".to_owned(),
            topic: Topic::parse("t").unwrap(),
            headers: [("x-after".to_owned(), "v={resume}".to_owned()), ("accept".to_owned(), "*/*".to_owned())].into(),
            settings,
            enabled: true,
        }
    }

    #[test]
    fn templates_are_filled_and_those_that_need_a_token_are_left_out_without_one() {
        let filled = asking(&spec(), "application/json", Some("a&b\"é %"));
        assert_eq!(filled.url, "https://example.com/a?x=%20&after=a%26b%22%C3%A9%20%25&wait=30");
        assert_eq!(filled.headers["x-after"].as_bytes(), "v=a&b\"é %".as_bytes());
        assert_eq!(filled.headers["accept"], "*/*");
        assert_eq!(filled.body.unwrap(), "{\"after\":\"a&b\\\"é %\"}");
        assert!(!filled.headers.contains_key("last-event-id"));
        let first = asking(&spec(), "application/json", None);
        assert_eq!(first.url, "https://example.com/a?x=%20&after=0&after=1&wait=30");
        assert!(!first.headers.contains_key("x-after"));
        assert_eq!(first.body.unwrap(), "{\"after\":\"\"}");
    }

    #[test]
    fn a_form_is_encoded_as_one() {
        let mut spec = spec();
        spec.headers.insert("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned());
        spec.settings.body = Some("a=1&after={resume}".to_owned());
        assert_eq!(asking(&spec, "*/*", Some("x&y=1")).body.unwrap(), "a=1&after=x%26y%3D1");
    }

    #[test]
    fn the_position_of_an_event_stream_wins_over_everything() {
        let token = ResumeToken::parse("42").unwrap();
        assert_eq!(request(&spec(), "text/event-stream", Some(&token)).headers["last-event-id"], "42");
    }
}
