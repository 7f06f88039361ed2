//! What the formats write, and how one is chosen.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::event::data_form;
use hookcast_core::model::{NewEvent, Page, PageBuilder, Topic};

use super::*;

fn by_accept(accept: &str) -> Option<&'static str> {
    negotiate(None, Some(accept)).ok().map(|format| format.name)
}

#[test]
fn a_name_wins_over_accept() {
    assert_eq!(negotiate(Some("sse"), Some("application/x-ndjson")).unwrap().name, "sse");
    assert!(negotiate(Some("xml"), Some("*/*")).is_err());
    assert!(negotiate(Some(""), None).is_err());
}

#[test]
fn accept_chooses_by_quality_and_closeness() {
    assert_eq!(negotiate(None, None).unwrap().name, "ndjson");
    assert_eq!(by_accept(""), Some("ndjson"));
    assert_eq!(by_accept("*/*"), Some("ndjson"));
    assert_eq!(by_accept("text/event-stream"), Some("sse"));
    assert_eq!(by_accept("Text/Event-Stream, */*"), Some("ndjson"));
    assert_eq!(by_accept("text/event-stream, */*;q=0.5"), Some("sse"));
    assert_eq!(by_accept("application/x-ndjson;q=0, */*"), Some("sse"));
    assert_eq!(by_accept("application/ndjson;q=0.9, text/event-stream;q=0.8"), Some("ndjson"));
    assert_eq!(by_accept("text/html,application/xhtml+xml,*/*;q=0.8"), Some("ndjson"));
    assert_eq!(by_accept("text/*"), Some("sse"));
    assert_eq!(by_accept("application/json-seq"), Some("json-seq"));
    assert_eq!(by_accept("application/octet-stream"), Some("raw"));
    assert_eq!(by_accept("multipart/x-mixed-replace"), Some("multipart"));
    assert_eq!(by_accept("application/*"), Some("ndjson"));
    assert_eq!(by_accept("image/png"), None);
    assert_eq!(by_accept("text/event-stream;q=0"), None);
    assert_eq!(by_accept("nonsense"), None);
}

#[test]
fn a_format_that_yields_is_chosen_only_alone() {
    assert_eq!(by_accept("text/html"), Some("html"));
    assert_eq!(by_accept("application/json"), Some("length"));
    assert_eq!(by_accept("application/json, */*;q=0.5"), Some("ndjson"));
    assert_eq!(by_accept("text/html, text/event-stream;q=0.1"), Some("sse"));
    let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
    assert_eq!(by_accept(chromium), Some("ndjson"));
    assert_eq!(by_accept("application/json, text/plain, */*"), Some("ndjson"));
    assert_eq!(negotiate(Some("html"), Some("image/png")).unwrap().name, "html");
}

#[test]
fn a_callback_is_a_name_and_nothing_else() {
    for good in ["f", "_", "$", "app.on_event", "a1.$2", &"x".repeat(64)] {
        assert!(is_callback(good), "{good}");
    }
    for bad in ["", "1a", ".a", "a-b", "a b", "a(b", "a;b", "a\"b", "ä", "a\nb", "a[0]", "</script>", &"x".repeat(65)] {
        assert!(!is_callback(bad), "{bad}");
    }
}

#[test]
fn names_and_media_types_are_distinct() {
    for (index, format) in FORMATS.iter().enumerate() {
        assert!(FORMATS[..index].iter().all(|other| other.name != format.name && other.media_type != format.media_type));
    }
}

#[test]
fn the_json_form_of_a_notice_is_json() {
    for notice in [Notice::Gap { from: Seq(6), to: Seq(100) }, Notice::Reset { head: Seq(7) }] {
        let mut out = BytesMut::new();
        notice.write_json_form(&mut out);
        let form: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(form["type"], notice.kind());
        assert_eq!(form["seq"], notice.seq().to_string());
        assert_eq!(form["data"].to_string(), notice.data());
    }
}

/// An event at position 1, as the log has it.
fn page(content_type: &str, data: &[u8]) -> Arc<Page> {
    let mut builder = PageBuilder::starting_at(Seq(1));
    builder.push(&NewEvent {
        topic: Topic::parse("a.b").unwrap(),
        id: "1 \"ä\"".to_owned(),
        own_id: true,
        source: "/publish".to_owned(),
        kind: "note".to_owned(),
        subject: None,
        time: None,
        arrived_at: Timestamp(1_700_000_000_000),
        content_type: content_type.to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: data_form(content_type, data),
        data: Bytes::copy_from_slice(data),
    });
    builder.finish()
}

fn named(name: &str) -> &'static Format {
    negotiate(Some(name), None).unwrap()
}

fn written(format: &str, content_type: &str, data: &[u8], callback: Option<&str>) -> Vec<u8> {
    let style = Style { callback: callback.map(Rc::from), ..Style::default() };
    let page = page(content_type, data);
    let mut out = BytesMut::new();
    for event in page.events_after(Seq::ZERO) {
        (named(format).event)(&mut out, &event, &style);
    }
    out.to_vec()
}

fn json_form(content_type: &str, data: &[u8]) -> Vec<u8> {
    let mut line = written("ndjson", content_type, data, None);
    assert_eq!(line.pop(), Some(b'\n'));
    line
}

fn silence(format: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    (named(format).heartbeat)(&mut out, Seq(7));
    out.to_vec()
}

fn told(format: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    (named(format).notice)(&mut out, &Notice::Gap { from: Seq(2), to: Seq(5) }, &Style::default());
    out.to_vec()
}

fn opened(format: &str, padding: bool) -> Vec<u8> {
    let mut out = BytesMut::new();
    (named(format).opening)(&mut out, &Prologue { spread: 7, padding, style: &Style::default() });
    out.to_vec()
}

const GAP: &[u8] = br#"{"specversion":"1.0","id":"gap-2-5","source":"/hookcast","type":"hookcast.gap","topic":"hookcast.stream","seq":"5","datacontenttype":"application/json","data":{"from":2,"to":5}}"#;

#[test]
fn a_record_of_a_json_sequence_stands_between_a_separator_and_a_line_end() {
    let form = json_form("application/json", b"{\"n\":\n1}");
    assert_eq!(written("json-seq", "application/json", b"{\"n\":\n1}", None), [b"\x1e", &*form, b"\n"].concat());
    assert_eq!(silence("json-seq"), b"\x1e\x1e");
    assert_eq!(told("json-seq"), [b"\x1e", GAP, b"\n"].concat());
}

#[test]
fn raw_is_the_data_and_a_line_end() {
    for data in [&b"{\"n\": 1}\r\n"[..], b"", b"\xff\0", "\u{2028}".as_bytes()] {
        assert_eq!(written("raw", "application/octet-stream", data, None), [data, b"\n"].concat());
    }
    assert!(named("raw").gap_ends && named("raw").is_silent() && told("raw").is_empty());
}

#[test]
fn a_length_counts_the_form_and_its_line_end() {
    let form = json_form("text/plain", "ä\u{2028}".as_bytes());
    let length = (form.len() + 2).to_string();
    assert_eq!(
        written("length", "text/plain", "ä\u{2028}".as_bytes(), None),
        [length.as_bytes(), b"\r\n", &form, b"\r\n"].concat()
    );
    assert_eq!(silence("length"), b"\r\n");
    assert!(told("length").ends_with(&[GAP, b"\r\n"].concat()));
}

/// The parts of a whole multipart body, each its head and its body: by the grammar alone, without lengths.
fn parts(body: &[u8], boundary: &[u8]) -> Vec<(String, Vec<u8>)> {
    let rest = body.strip_prefix(b"--").unwrap().strip_prefix(boundary).unwrap();
    let delimiter = [b"\r\n--", boundary].concat();
    let ends: Vec<usize> = memchr::memmem::find_iter(rest, &delimiter).collect();
    let mut start = 0;
    let mut found = Vec::new();
    for end in ends {
        let part = rest[start..end].strip_prefix(b"\r\n").expect("the boundary's line ends");
        let split = memchr::memmem::find(part, b"\r\n\r\n").expect("a head has an end");
        found.push((String::from_utf8(part[..split].to_vec()).unwrap(), part[split + 4..].to_vec()));
        start = end + delimiter.len();
    }
    assert_eq!(&rest[start..], b"--\r\n");
    found
}

fn boundary() -> String {
    let mut headers = HeaderMap::new();
    (named("multipart").head)(&mut headers, &[]);
    headers.get("content-type").unwrap().to_str().unwrap().split_once("boundary=").unwrap().1.to_owned()
}

#[test]
fn a_part_has_the_type_the_bytes_and_the_position_of_its_event() {
    let boundary = boundary();
    for data in [&b"{\"n\": 1}\r\n"[..], b"", b"\xff\0\r\n--", b"\r\n\r\n"] {
        let mut body = opened("multipart", false);
        body.extend(written("multipart", "image/png", data, None));
        body.extend(told("multipart"));
        let mut end = BytesMut::new();
        (named("multipart").closing)(&mut end);
        body.extend(end);
        let parts = parts(&body, boundary.as_bytes());
        assert_eq!(parts.len(), 2);
        let (head, bytes) = &parts[0];
        assert_eq!(bytes, data);
        for line in [
            "content-type: image/png",
            "hookcast-seq: 1",
            "ce-type: note",
            "ce-id: 1%20%22%C3%A4%22",
            &format!("content-length: {}", data.len()),
        ] {
            assert!(head.split("\r\n").any(|given| given == line), "{line} is not in {head}");
        }
        assert!(parts[1].0.contains("ce-type: hookcast.gap") && parts[1].0.contains("hookcast-seq: 5"));
        assert_eq!(parts[1].1, b"{\"from\":2,\"to\":5}");
    }
}

#[test]
fn no_event_makes_a_part_of_its_own() {
    let boundary = boundary();
    let forged = format!("x\r\n--{boundary}\r\ncontent-type: text/plain\r\nhookcast-seq: 9\r\n\r\nforged\r\n--{boundary}--\r\n");
    let mut body = opened("multipart", false);
    body.extend(written("multipart", "text/plain", forged.as_bytes(), None));
    body.extend(b"--\r\n");
    let parts = parts(&body, boundary.as_bytes());
    assert_eq!(parts.len(), 1);
    assert!(parts[0].0.contains("content-transfer-encoding: base64"));
    assert_eq!(STANDARD.decode(&parts[0].1).unwrap(), forged.as_bytes());
    assert!(written("multipart", "a\r\nb: c", b"", None).starts_with(b"\r\ncontent-type: application/octet-stream\r\n"));
}

/// What a script of a page calls its function with.
fn called<'a>(script: &'a str, name: &str) -> &'a str {
    let (open, rest) = script.split_once("\">").unwrap();
    assert!(open.starts_with("<script nonce=\"") && open.bytes().skip(15).all(|b| b.is_ascii_hexdigit()), "{open}");
    let call = rest.strip_suffix("</script>\n").unwrap();
    call.strip_prefix("parent.").unwrap().strip_prefix(name).unwrap().strip_prefix('(').unwrap().strip_suffix(')').unwrap()
}

#[test]
fn a_page_has_one_whole_script_an_event() {
    let script = String::from_utf8(written("html", "application/json", b"{\"n\":1}", None)).unwrap();
    assert_eq!(called(&script, "hookcast").as_bytes(), json_form("application/json", b"{\"n\":1}"));
    let script = String::from_utf8(written("html", "application/json", b"1", Some("app.on_event"))).unwrap();
    assert_eq!(called(&script, "app.on_event").as_bytes(), json_form("application/json", b"1"));
    assert_eq!(silence("html"), b" ");
    let told = String::from_utf8(told("html")).unwrap();
    assert_eq!(called(&told, "hookcast").as_bytes(), GAP);
}

#[test]
fn a_page_begins_with_padding_and_lets_its_own_scripts_run_and_nothing_else() {
    let opening = String::from_utf8(opened("html", false)).unwrap();
    assert!(opening.starts_with("<!doctype html>") && opening.len() > 1024, "{opening}");
    let nonce = opening.split_once("nonce=\"").unwrap().1.split_once('"').unwrap().0;
    let mut headers = HeaderMap::new();
    let origins = ["https://app.example".to_owned(), "https://x; script-src *".to_owned(), "http://ä".to_owned()];
    (named("html").head)(&mut headers, &origins[..2]);
    let policy = |headers: &HeaderMap| headers.get("content-security-policy").unwrap().as_bytes().to_vec();
    let wanted = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self' https://app.example"
    );
    assert_eq!(policy(&headers), wanted.as_bytes());
    (named("html").head)(&mut headers, &[]);
    assert!(policy(&headers).ends_with(b"frame-ancestors 'self'"));
    assert_eq!(headers.get("content-type").unwrap(), "text/html; charset=utf-8");
}

/// What JavaScript makes of the argument: either a literal that is JSON too, or JSON in a string that is JSON too.
fn value_of(argument: &str) -> serde_json::Value {
    let Some(quoted) = argument.strip_prefix("JSON.parse(") else { return serde_json::from_str(argument).unwrap() };
    let text: String = serde_json::from_str(quoted.strip_suffix(')').unwrap()).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_member_that_means_more_in_a_literal_is_parsed_instead() {
    for name in ["__proto__", "\\u005f_proto__", "__pr\\u006Fto__"] {
        let data = format!("{{\"{name}\":{{\"a\":\"</script>\\\"\\\\\"}}}}");
        let script = String::from_utf8(written("html", "application/json", data.as_bytes(), None)).unwrap();
        let argument = called(&script, "hookcast");
        assert!(argument.starts_with("JSON.parse("), "{argument}");
        assert_eq!(value_of(argument)["data"]["__proto__"]["a"], "</script>\"\\");
    }
}

#[test]
fn padding_is_what_a_reader_skips() {
    for (format, skipped) in
        [("ndjson", "\n"), ("sse", ":\n"), ("json-seq", "\u{1e}\u{1e}"), ("length", "\r\n"), ("multipart", "\r\n")]
    {
        let (short, long) = (opened(format, false), opened(format, true));
        assert!(long.len() - short.len() >= PADDING_BYTES, "{format}");
        let rest = String::from_utf8(long).unwrap().replacen(&skipped.repeat(PADDING_BYTES / skipped.len()), "", 1);
        assert_eq!(rest.as_bytes(), short, "{format}");
    }
    let opening = String::from_utf8(opened("sse", false)).unwrap();
    assert_eq!(opening, "retry: 1007\n: hookcast\n\n");
}

proptest! {
    #[test]
    fn no_text_leaves_its_script(
        text in prop_oneof![
            ".{0,60}",
            "(</script|<!--|<script|-->|]]>|&lt;|\u{2028}|\u{2029}|\\\\|\"|\n|\r|\0|__proto__|.){0,20}",
        ],
        is_json in any::<bool>(),
    ) {
        let data = if is_json { serde_json::json!({ "t": text }).to_string() } else { text.clone() };
        let content_type = if is_json { "application/json" } else { "text/plain" };
        let script = String::from_utf8(written("html", content_type, data.as_bytes(), None)).unwrap();
        let argument = called(&script, "hookcast");
        prop_assert!(!argument.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\n', '\r']), "{argument}");
        let value = value_of(argument);
        let got = if is_json { &value["data"]["t"] } else { &value["data"] };
        prop_assert_eq!(got.as_str().unwrap_or_default(), text);
    }
}
