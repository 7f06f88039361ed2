//! What is read from a request, and the form of the answer.

use actix_web::test::TestRequest;

use super::*;
use hookcast_core::model::Seq;

fn read(query: &str) -> Result<Ask, (u16, &'static str)> {
    let request = TestRequest::with_uri(&format!("/?{query}")).to_http_request();
    let read = Query::read(request.query_string(), KNOWN).and_then(|query| wanted(&request, &query, "a.*,b"));
    read.map_err(|problem| (problem.status().as_u16(), problem.slug()))
}

#[test]
fn a_pull_begins_at_the_earliest_event_and_waits_for_nothing() {
    let ask = read("").unwrap();
    assert_eq!((ask.start, ask.limit, ask.max_duration), (Start::Earliest, Some(100), None));
    assert_eq!(ask.patterns.to_string(), "a.*,b");
    let ask = read("after=7&limit=1000&wait=30&types=x&filter=data.n%3E1").unwrap();
    assert_eq!((ask.start, ask.limit), (Start::After(Seq(7)), Some(1000)));
    assert_eq!((ask.max_duration, ask.types.len()), (Some(Duration::from_secs(30)), 1));
    assert_eq!(read("wait=0").unwrap().max_duration, None);
}

#[test]
fn the_newest_word_about_the_position_wins() {
    assert_eq!(read("after=7&since=latest").unwrap().start, Start::After(Seq(7)));
    assert_eq!(read("after=7&last_event_id=9").unwrap().start, Start::After(Seq(9)));
    assert_eq!(read("since=latest").unwrap().start, Start::Latest);
    let request = TestRequest::with_uri("/?after=7").insert_header(("last-event-id", "11")).to_http_request();
    let query = Query::read(request.query_string(), KNOWN).unwrap();
    assert_eq!(start(&request, &query).unwrap(), Start::After(Seq(11)));
}

#[test]
fn what_is_wrong_has_its_own_name() {
    for (query, slug) in [
        ("after=-1", "after"),
        ("after=", "after"),
        ("after=abc", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("wait=121", "wait"),
        ("wait=-1", "wait"),
        ("wait=%2B1", "wait"),
        ("wait=", "wait"),
        ("wait=30s", "wait"),
        ("since=yesterday", "since"),
        ("types=", "types"),
        ("filter=data.", "filter"),
        ("format=sse", "unknown_parameter"),
        ("after=1&after=2", "unknown_parameter"),
    ] {
        assert_eq!(read(query).err(), Some((422, slug)), "{query}");
    }
    assert_eq!(read("last_event_id=x").err(), Some((400, "last_event_id")));
}

#[test]
fn who_asks_for_the_head_does_not_wait() {
    let request = TestRequest::with_uri("/?wait=30").method(Method::HEAD).to_http_request();
    let query = Query::read(request.query_string(), KNOWN).unwrap();
    assert_eq!(wanted(&request, &query, "a").unwrap().max_duration, None);
}

#[test]
fn an_answer_is_json_and_its_tag_hangs_on_its_events_only() {
    let gathered = |events: &'static [u8], next| Gathered { events: Bytes::from_static(events), next: Seq(next), done: true };
    let value: serde_json::Value = serde_json::from_slice(&body(&gathered(b"{\"a\":1},{}", 7))).unwrap();
    assert_eq!(value, serde_json::json!({"events": [{"a": 1}, {}], "next": "7", "done": true}));
    let value: serde_json::Value = serde_json::from_slice(&body(&gathered(b"", 9))).unwrap();
    assert_eq!(value, serde_json::json!({"events": [], "next": "9", "done": true}));
    let one = tag(&Bytes::from_static(b"{}"), None);
    assert!(one.starts_with("W/\"") && one.ends_with('"'));
    assert_ne!(one, tag(&Bytes::from_static(b"{} "), None));
    assert_ne!(one, tag(&Bytes::from_static(b"{}"), Some("f")));
}

#[test]
fn tags_are_compared_weakly() {
    let knows = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
        is_known(&headers, "W/\"abc\"")
    };
    assert!(knows("W/\"abc\"") && knows("\"abc\"") && knows("*") && knows("\"x\", W/\"abc\""));
    assert!(!knows("\"abcd\"") && !knows("abc") && !knows(""));
    assert!(!is_known(&HeaderMap::new(), "W/\"abc\""));
}
