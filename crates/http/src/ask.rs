//! What a request for events asks for: topics, a beginning, a choice among events, limits.
//!
//! Knows the names of parameters and what a refusal is called; the same for streams and for every other way of reading.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderValue};
use url::form_urlencoded;

use super::problem::Problem;
use super::tickets;
use super::websocket;

use hookcast_core::filter::Filter;
use hookcast_core::model::PatternList;
use hookcast_core::model::event::TYPE_BYTES_MAX;
use hookcast_core::units;
use hookcast_streams::Ask;
use hookcast_streams::format::{self, Envelope, Format, Style};
use hookcast_streams::start::Start;

/// Parameters that a stream knows.
const STREAM: &[&str] = &[
    "format",
    "since",
    "last_event_id",
    "types",
    "filter",
    "limit",
    "max_duration",
    "heartbeat",
    "envelope",
    tickets::PARAMETER,
    "padding",
    "callback",
];

/// Reads a request for a stream.
pub(super) fn stream(request: &HttpRequest) -> Result<Ask, Problem> {
    posted_stream(request, Vec::new())
}

/// Reads a request for a stream that has parameters in its body as well.
pub(super) fn posted_stream(request: &HttpRequest, posted: Vec<(String, String)>) -> Result<Ask, Problem> {
    let mut query = Query::read(request.query_string(), STREAM)?;
    for (name, value) in posted {
        query.add(name.into(), value.into(), STREAM)?;
    }
    let format = format_of(request, &query)?;
    Ok(Ask {
        patterns: patterns(request)?,
        types: types(&query)?,
        filter: filter(&query)?,
        format,
        style: Style { envelope: envelope(&query)?, callback: callback(&query, format)? },
        padding: padding(&query)?,
        start: start(request, &query)?,
        limit: limit(&query)?,
        max_duration: duration(&query, "max_duration", Duration::from_millis(1), Duration::MAX)?,
        heartbeat: duration(&query, "heartbeat", hookcast_streams::HEARTBEAT_MIN, hookcast_streams::HEARTBEAT_MAX)?,
        origins: Vec::new(),
    })
}

/// What an answer that ends asks for: a choice among the events of some topics, from a position on, and no form of its own.
pub(super) fn list(patterns: PatternList, start: Start, query: &Query<'_>) -> Result<Ask, Problem> {
    let (types, filter) = (types(query)?, filter(query)?);
    let (format, style) = (&format::LIST, Style::default());
    let (limit, max_duration, heartbeat) = (None, None, None);
    let (padding, origins) = (false, Vec::new());
    Ok(Ask { patterns, types, filter, format, style, padding, start, limit, max_duration, heartbeat, origins })
}

/// The patterns of the path.
pub(super) fn patterns(request: &HttpRequest) -> Result<PatternList, Problem> {
    parse_patterns(request.match_info().get("patterns").unwrap_or_default())
}

pub(super) fn parse_patterns(text: &str) -> Result<PatternList, Problem> {
    text.parse().map_err(|error| Problem::of_slug("topics", 422, format!("{error}")))
}

fn format_of(request: &HttpRequest, query: &Query<'_>) -> Result<&'static Format, Problem> {
    let is_websocket = websocket::is_asked(request);
    let name = query.get("format").or(is_websocket.then_some(format::WEBSOCKET));
    let accept: Vec<_> = request.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok()).collect();
    let accept = (!accept.is_empty()).then(|| accept.join(","));
    let chosen = format::negotiate(name, accept.as_deref())
        .map_err(|unknown| Problem::of_slug("not_acceptable", 406, unknown.to_string()))?;
    match (is_websocket, chosen.name == format::WEBSOCKET) {
        (false, false) | (true, true) => Ok(chosen),
        (false, true) => Err(websocket::upgrade_required("the format `ws` begins with the handshake of a WebSocket")),
        (true, false) => Err(Problem::of_slug("not_acceptable", 406, "a WebSocket has the format `ws` and no other")),
    }
}

/// The header is newer than the address it comes with: a browser repeats the address and adds the header.
pub(super) fn start(request: &HttpRequest, query: &Query<'_>) -> Result<Start, Problem> {
    if let Some(start) = last_event_id(request, query)? {
        return Ok(start);
    }
    query.get("since").map_or(Ok(Start::Latest), |since| {
        Start::parse_since(since).map_err(|error| Problem::of_slug("since", 422, error.to_string()))
    })
}

/// Behind the last event that a client has seen.
pub(super) fn last_event_id(request: &HttpRequest, query: &Query<'_>) -> Result<Option<Start>, Problem> {
    let header = request.headers().get("last-event-id").map(HeaderValue::as_bytes).filter(|id| !id.is_empty());
    let id = header.or_else(|| query.get("last_event_id").map(str::as_bytes));
    let start = id.map(Start::parse_last_event_id).transpose();
    start.map_err(|error| Problem::of_slug("last_event_id", 400, error.to_string()))
}

pub(super) fn types(query: &Query<'_>) -> Result<Vec<String>, Problem> {
    let Some(text) = query.get("types") else { return Ok(Vec::new()) };
    let types: Vec<_> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    let well_formed =
        types.len() <= hookcast_streams::TYPES_MAX && types.iter().all(|kind| (1..=TYPE_BYTES_MAX).contains(&kind.len()));
    if well_formed {
        return Ok(types);
    }
    let detail = format!("1 to {} event types joined by ',', each of 1 to {TYPE_BYTES_MAX} bytes", hookcast_streams::TYPES_MAX);
    Err(Problem::of_slug("types", 422, detail))
}

/// The empty expression is no filter, as in a definition.
pub(super) fn filter(query: &Query<'_>) -> Result<Option<Box<str>>, Problem> {
    let Some(text) = query.get("filter").filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    match Filter::compile(text) {
        Ok(_) => Ok(Some(text.into())),
        Err(error) => Err(Problem::of_slug("filter", 422, format!("the filter {error}"))),
    }
}

fn envelope(query: &Query<'_>) -> Result<Envelope, Problem> {
    match query.get("envelope") {
        None => Ok(Envelope::Native),
        Some("cloudevents") => Ok(Envelope::CloudEvents),
        Some(_) => Err(Problem::of_slug("envelope", 422, "allowed: `cloudevents`")),
    }
}

fn callback(query: &Query<'_>, format: &Format) -> Result<Option<Rc<str>>, Problem> {
    let Some(name) = query.get("callback") else { return Ok(None) };
    let refuse = |detail| Err(Problem::of_slug("callback", 422, detail));
    match format.name {
        "html" if format::is_callback(name) => Ok(Some(name.into())),
        "html" => refuse("the name of a function: at most 64 of `A-Z a-z 0-9 _ $ .`, not a digit or dot first"),
        _ => refuse("only the format `html` calls a function"),
    }
}

fn padding(query: &Query<'_>) -> Result<bool, Problem> {
    match query.get("padding") {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(Problem::of_slug("padding", 422, "allowed: `0`, `1`")),
    }
}

pub(super) fn limit(query: &Query<'_>) -> Result<Option<u64>, Problem> {
    let Some(text) = query.get("limit") else { return Ok(None) };
    let limit = text.parse::<u64>().ok().filter(|limit| *limit > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    limit.map(Some).ok_or_else(|| Problem::of_slug("limit", 422, "allowed: a whole number from 1"))
}

pub(super) fn duration(query: &Query<'_>, name: &'static str, min: Duration, max: Duration) -> Result<Option<Duration>, Problem> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let refuse = |problem: String| Problem::of_slug(name, 422, problem);
    let value = units::parse_duration(text).map_err(|error| refuse(format!("`{name}` {error}, such as `30s`")))?;
    if (min..=max).contains(&value) {
        return Ok(Some(value));
    }
    let (min, max) = (units::format_duration(min), units::format_duration(max.min(Duration::from_secs(u64::MAX / 1000))));
    Err(refuse(format!("`{name}` is from {min} to {max}")))
}

/// A query whose parameters are all known and given once.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads a query that may hold these parameters.
    pub(super) fn read(text: &'a str, known: &[&str]) -> Result<Self, Problem> {
        let mut query = Self(Vec::new());
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            query.add(name, value, known)?;
        }
        Ok(query)
    }

    /// Adds a parameter that is known and was not given yet.
    fn add(&mut self, name: Cow<'a, str>, value: Cow<'a, str>, known: &[&str]) -> Result<(), Problem> {
        if !known.contains(&&*name) {
            let allowed = known.join(", ");
            let detail = format!("the query parameter {name:?} is not known; allowed: {allowed}");
            return Err(Problem::of_slug("unknown_parameter", 422, detail));
        }
        if self.get(&name).is_some() {
            return Err(Problem::of_slug("unknown_parameter", 422, format!("the query parameter {name:?} is given twice")));
        }
        self.0.push((name, value));
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn read_query(query: &str) -> Result<Ask, (u16, &'static str)> {
        let request = TestRequest::with_uri(&format!("/?{query}")).param("patterns", "a.*,b").to_http_request();
        stream(&request).map_err(|problem| (problem.status().as_u16(), problem.slug()))
    }

    #[test]
    fn every_parameter_is_read() {
        let ask = read_query(
            "format=sse&since=7&types=x,y&limit=3&max_duration=1m&heartbeat=5s&envelope=cloudevents&filter=data.n%3E1",
        )
        .unwrap();
        assert_eq!(ask.patterns.to_string(), "a.*,b");
        assert_eq!(ask.types, ["x", "y"]);
        assert_eq!((ask.format.name, ask.style.envelope), ("sse", Envelope::CloudEvents));
        assert_eq!(ask.start, Start::After(hookcast_core::model::Seq(7)));
        assert_eq!(ask.filter.as_deref(), Some("data.n>1"));
        assert_eq!(ask.limit, Some(3));
        assert_eq!(ask.max_duration, Some(Duration::from_mins(1)));
        assert_eq!(ask.heartbeat, Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_is_wrong_has_its_own_name() {
        for (query, status, slug) in [
            ("format=xml", 406, "not_acceptable"),
            ("format=ws", 426, "upgrade_required"),
            ("since=yesterday", 422, "since"),
            ("last_event_id=-1", 400, "last_event_id"),
            ("last_event_id=", 400, "last_event_id"),
            ("types=", 422, "types"),
            ("types=a,,b", 422, "types"),
            ("limit=0", 422, "limit"),
            ("limit=%2B1", 422, "limit"),
            ("max_duration=0s", 422, "max_duration"),
            ("heartbeat=500ms", 422, "heartbeat"),
            ("heartbeat=6m", 422, "heartbeat"),
            ("heartbeat=15", 422, "heartbeat"),
            ("envelope=none", 422, "envelope"),
            ("padding=yes", 422, "padding"),
            ("callback=f", 422, "callback"),
            ("format=html&callback=a(", 422, "callback"),
            ("format=html&callback=", 422, "callback"),
            ("filter=amount%3E1", 422, "filter"),
            ("filter=data.", 422, "filter"),
            ("sinse=1", 422, "unknown_parameter"),
            ("limit=1&limit=2", 422, "unknown_parameter"),
        ] {
            assert_eq!(read_query(query).err(), Some((status, slug)), "{query}");
        }
    }

    #[test]
    fn an_upgrade_chooses_the_format_whatever_is_accepted() {
        let upgraded = |query: &str| {
            let request = TestRequest::with_uri(&format!("/?{query}")).param("patterns", "a");
            let headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("accept", "text/event-stream")];
            let request = headers.into_iter().fold(request, TestRequest::insert_header).to_http_request();
            stream(&request).map(|ask| ask.format.name).map_err(|problem| problem.slug())
        };
        assert_eq!(upgraded(""), Ok("ws"));
        assert_eq!(upgraded("format=ws"), Ok("ws"));
        assert_eq!(upgraded("format=sse"), Err("not_acceptable"));
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let request = TestRequest::with_uri("/?last_event_id=5&since=earliest").insert_header(("last-event-id", "9"));
        let ask = stream(&request.param("patterns", "a").to_http_request()).unwrap();
        assert_eq!(ask.start, Start::After(hookcast_core::model::Seq(9)));
        let ask = read_query("last_event_id=5&since=earliest").unwrap();
        assert_eq!(ask.start, Start::After(hookcast_core::model::Seq(5)));
    }
}
