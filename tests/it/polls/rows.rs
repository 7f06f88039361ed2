//! The rows `upstream.longpoll` of the collection of bad inputs, each found by its text, and answers in other codings and sizes.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hookcast_core::clock::Timestamp;
use hookcast_source::reconnect::{Next, Reconnect};
use hookcast_source::{Ending, EndingClass, ReconnectSettings};
use serde_json::{Value, json};

use super::{data, error_of, shown, shows, source, stored, stores};
use crate::net_fault::FaultServer;
use crate::support::{Relay, eventually, for_a_while};

const ROWS: &str = include_str!("../../data/polls/bad-inputs.csv");

const EMPTY: &str = "200 {\"events\":[]} at once, forever";
const SAME: &str = "same cursor twice with same events";
const LINE_BREAK: &str = "cursor with CRLF";
const LONG: &str = "cursor of 64 KiB";
const OTHER_ORIGIN: &str = "next = https://other.example.test/";
const NOT_MODIFIED: &str = "304";
const TIMED_OUT: &str = "408 / 504";
const BACK: &str = "events newer then older cursor";
const CLOSED: &str = "connection closed without answer 1000x";

fn expected(input: &str) -> String {
    let rows = ROWS.lines().map(|line| line.trim_matches('"').split("\",\"").collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row[1].replace("\"\"", "\"") == input).unwrap_or_else(|| panic!("no row {input:?}"));
    row[2].to_owned()
}

#[test]
fn every_row_of_the_table_has_a_test() {
    let tested = [EMPTY, SAME, LINE_BREAK, LONG, OTHER_ORIGIN, NOT_MODIFIED, TIMED_OUT, BACK, CLOSED];
    assert_eq!(ROWS.lines().count(), tested.len());
    for input in tested {
        assert!(!expected(input).is_empty());
    }
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn ok(body: &Value) -> Vec<u8> {
    http("200 OK", "content-type: application/json\r\n", body.to_string().as_bytes())
}

/// The n-th request gets the n-th answer, later ones the last.
fn answers(answers: Vec<Vec<u8>>) -> FaultServer {
    FaultServer::start(move |mut peer| {
        if peer.request().is_some() {
            peer.send(&answers[peer.number.min(answers.len() - 1)]);
        }
    })
}

fn settings() -> Value {
    json!({"items": "/events", "cursor": "/next", "cursor_param": "after", "min_interval": "100ms"})
}

/// The source has asked as often, and not more often than `interval` allows.
async fn asks_no_faster(server: &FaultServer, interval: Duration, times: usize) {
    let (begin, before) = (Instant::now(), server.connections());
    eventually("requests", async || (server.connections() >= before + times).then_some(())).await;
    // Counted before the time is taken: what comes between the two is allowed, too.
    let (asked, took) = (server.connections() - before, begin.elapsed());
    assert!(asked as u128 <= took.as_millis() / interval.as_millis() + 2, "{asked} in {took:?}");
}

#[tokio::test]
async fn answers_without_news_are_asked_for_once_an_interval() {
    assert_eq!(expected(EMPTY), "<= 1 poll per min_interval (1 s)");
    assert_eq!(expected(NOT_MODIFIED), "poll again after min_interval");
    for answer in [ok(&json!({"events": []})), b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(), http("204 No Content", "", b"")] {
        let relay = Relay::start().await;
        let server = answers(vec![answer]);
        // The default, which the row names, then a shorter one.
        source(&relay, "long-poll", &server.url(), json!({"items": "/events"})).await;
        asks_no_faster(&server, Duration::from_secs(1), 3).await;
        source(&relay, "long-poll", &server.url(), json!({"items": "/events", "min_interval": "200ms"})).await;
        asks_no_faster(&server, Duration::from_millis(200), 6).await;
        let shown = shown(&relay).await;
        assert_eq!((&shown["state"], &shown["last_error"]), (&json!("connected"), &Value::Null), "{shown}");
    }
}

#[tokio::test]
async fn the_same_answer_again_gives_nothing_again() {
    assert_eq!(expected(SAME), "EVENTS once; dedupe");
    let relay = Relay::start().await;
    let answer = ok(&json!({"events": [{"n": 1}, {"n": 1}, {"n": 2}], "next": "5"}));
    let server = answers(vec![answer.clone(), answer, ok(&json!({"events": [{"n": 1}], "next": "6"}))]);
    source(&relay, "long-poll", &server.url(), settings()).await;
    eventually("five requests", async || (server.connections() >= 5).then_some(())).await;
    // Equal events of one answer are two, and so are those of two cursors.
    stores(&relay, 4).await;
    assert_eq!(data(&relay).await, [json!({"n": 1}), json!({"n": 1}), json!({"n": 2}), json!({"n": 1})]);
    let lines: Vec<String> = server.requests().iter().map(|request| request.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines[0], "GET /hook?x=1 HTTP/1.1");
    assert_eq!(lines[1], "GET /hook?x=1&after=5 HTTP/1.1");
}

#[tokio::test]
async fn cursors_that_cannot_be_sent_back_are_refused() {
    for (row, cursor) in [(LINE_BREAK, "a\r\nx-evil: 1".to_owned()), (LONG, "c".repeat(64 * 1024))] {
        assert_eq!(expected(row), "RECONNECT:bad_cursor");
        let relay = Relay::start().await;
        let server = answers(vec![ok(&json!({"events": [{"n": 1}], "next": cursor}))]);
        source(&relay, "long-poll", &server.url(), settings()).await;
        let shown = shows(&relay, "the error", |shown| error_of(shown) == "bad_cursor").await;
        assert_eq!(shown["resume_token"], Value::Null);
        eventually("another request", async || (server.connections() >= 2).then_some(())).await;
        assert_eq!(stored(&relay, "up.events").await, 0);
        assert!(server.requests().iter().all(|request| !request.contains("evil")));
    }
}

#[tokio::test]
async fn a_next_page_elsewhere_is_never_asked_for() {
    assert_eq!(expected(OTHER_ORIGIN), "STOP:cross_origin_next");
    let next = "https://other.example.test/";
    let body = ok(&json!({"events": [1], "next": next}));
    let link = http("200 OK", &format!("content-type: application/json\r\nlink: <{next}>; rel=\"next\"\r\n"), b"[1]");
    for (answer, settings) in [(body, json!({"items": "/events", "next": "/next"})), (link, json!({"next": "link"}))] {
        let relay = Relay::start().await;
        let server = answers(vec![answer]);
        source(&relay, "long-poll", &server.url(), settings).await;
        let shown = shows(&relay, "the stop", |shown| shown["state"] == "stopped").await;
        assert_eq!(error_of(&shown), "cross_origin_next");
        assert_eq!((server.connections(), stored(&relay, "up.events").await), (1, 0));
    }
}

#[tokio::test]
async fn requests_that_time_out_are_made_again_less_and_less_often() {
    assert_eq!(expected(TIMED_OUT), "poll again with backoff");
    for status in ["408 Request Timeout", "504 Gateway Timeout"] {
        let relay = Relay::start().await;
        let server = answers(vec![http(status, "", b""), http(status, "", b""), ok(&json!({"events": [1]}))]);
        source(&relay, "long-poll", &server.url(), settings()).await;
        stores(&relay, 1).await;
        let shown = shown(&relay).await;
        assert_eq!((&shown["state"], &shown["counts"]["reconnects"]), (&json!("connected"), &json!(0)), "{shown}");
        // That the waits grow is shown by `source::poll::pace`.
        asks_no_faster(&server, Duration::from_millis(100), 3).await;
    }
}

#[tokio::test]
async fn a_cursor_that_goes_back_is_told_and_its_events_come_once() {
    assert_eq!(expected(BACK), "EVENTS once each; alarm cursor_went_back");
    let relay = Relay::start().await;
    let page = |from: u64, to: u64| ok(&json!({"events": (from..to).map(|n| json!({"id": n})).collect::<Vec<_>>(), "next": to}));
    let server = answers(vec![page(6, 10), page(1, 6), page(6, 10), ok(&json!({"events": [], "next": 10}))]);
    let mut settings = settings();
    settings["id"] = json!("/id");
    source(&relay, "long-poll", &server.url(), settings).await;
    eventually("five requests", async || (server.connections() >= 5).then_some(())).await;
    stores(&relay, 9).await;
    let found = shown(&relay).await;
    assert_eq!((error_of(&found), &found["resume_token"]), ("cursor_went_back", &json!("10")));
    let mut notices = Vec::new();
    for seq in 1.. {
        let (status, event) = relay.ask("GET", &format!("/v1/events/{seq}"), None).await;
        if status != 200 {
            break;
        }
        if event["type"] == "source.cursor_went_back" {
            notices.push(event["data"].clone());
        }
    }
    assert_eq!(notices.len(), 1);
    assert_eq!((&notices[0]["source"], &notices[0]["from"], &notices[0]["to"]), (&json!("up"), &json!("10"), &json!("6")));
}

#[tokio::test]
async fn connections_closed_without_an_answer_are_made_less_and_less_often() {
    assert_eq!(expected(CLOSED), "backoff with jitter; <= 20 connects in 10 min");
    // Ten minutes and their chance as arguments: the policy that every source has.
    let mut random = 1_u64;
    for _ in 0..200 {
        let mut policy = Reconnect::new(ReconnectSettings::default());
        let (mut now, mut connects) = (Duration::ZERO, 0);
        while now < Duration::from_mins(10) {
            connects += 1;
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = Timestamp(i64::try_from(now.as_millis()).unwrap());
            let Next::After(delay) = policy.ended(&Ending::new(EndingClass::Failed, "eof", ""), false, at, random >> 8) else {
                panic!("it goes on")
            };
            now += delay;
        }
        assert!(connects <= 20, "{connects}");
    }
    let relay = Relay::start().await;
    let server = FaultServer::start(|mut peer| drop(peer.request()));
    source(&relay, "long-poll", &server.url(), settings()).await;
    let shown = shows(&relay, "the wait", |shown| shown["state"] == "backoff").await;
    assert_eq!(error_of(&shown), "eof");
}

#[tokio::test]
async fn codings_sizes_and_refusals() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"[{\"n\":1}]").unwrap();
    let gzip = gzip.finish().unwrap();
    let json = "content-type: application/json\r\n";
    let zipped = format!("{json}content-encoding: gzip\r\n");
    let big = format!("[\"{}\",1]", "x".repeat(2000));
    let cases: Vec<(&str, Vec<u8>, u64, &str)> = vec![
        ("gzip", http("200 OK", &zipped, &gzip), 1, ""),
        ("gzip cut short", http("200 OK", &zipped, &gzip[..gzip.len() - 9]), 0, "truncated"),
        ("gzip damaged", http("200 OK", &zipped, b"no gzip"), 0, "decode"),
        ("another coding", http("200 OK", &format!("{json}content-encoding: br\r\n"), b"x"), 0, "content_encoding"),
        ("redirect", http("302 Found", "location: /other\r\n", b""), 0, "redirect"),
        ("refused", http("403 Forbidden", "", b""), 0, "auth"),
        ("gone", http("410 Gone", "", b""), 0, "status"),
        (
            "body over max_body_bytes",
            http("200 OK", json, format!("[\"{}\"]", "x".repeat(70_000)).as_bytes()),
            0,
            "body_too_large",
        ),
        ("item over max_event_bytes", http("200 OK", json, big.as_bytes()), 1, ""),
        ("text", http("200 OK", "content-type: text/plain\r\n", b"hello"), 1, ""),
        ("cut short", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[1]".to_vec(), 0, "truncated"),
        ("empty", http("200 OK", json, b""), 0, ""),
    ];
    let relay = Relay::start().await;
    for (index, (name, answer, events, error)) in cases.into_iter().enumerate() {
        let held = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&held);
        // One answer, then nothing until the source goes.
        let server = FaultServer::start(move |mut peer| {
            if peer.request().is_some() && counted.fetch_add(1, Ordering::SeqCst) == 0 {
                peer.send(&answer);
            } else {
                peer.wait_for_close();
            }
        });
        let (source, topic) = (format!("s{index}"), format!("t{index}"));
        let settings = json!({"max_body_bytes": 65536, "max_event_bytes": 1000, "min_interval": "100ms"});
        let body = json!({"protocol": "long-poll", "url": server.url(), "topic": topic, "settings": settings});
        relay.must("PUT", &format!("/v1/sources/{source}"), body).await;
        let path = format!("/v1/sources/{source}");
        eventually(name, async || {
            let shown = relay.get(&path).await;
            let is_done = if error.is_empty() { held.load(Ordering::SeqCst) > 1 } else { error_of(&shown) == error };
            is_done.then_some(())
        })
        .await;
        assert_eq!(stored(&relay, &topic).await, events, "{name}");
        let skipped = relay.get(&path).await["counts"]["skipped"].clone();
        assert_eq!(skipped["event_too_large"] == 1, name.starts_with("item"), "{name}: {skipped}");
        relay.ask("DELETE", &path, None).await;
    }
    // Bounded waiting above shows what happens; this shows that nothing more does.
    for_a_while(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn an_item_of_a_list_that_changes_under_its_id_is_another_event_unless_such_are_dropped() {
    let list = |state: &str| ok(&json!([{"id": 1, "state": state}, {"id": 2, "state": "new"}]));
    let settings = |word: &str| json!({"id": "/id", "interval": "1s", "on_reused_id": word});
    let relay = Relay::start().await;
    let server = answers(vec![list("open"), list("closed"), list("closed"), list("open")]);
    source(&relay, "poll", &server.url(), settings("keep")).await;
    eventually("five requests", async || (server.connections() >= 5).then_some(())).await;
    let states: Vec<Value> = data(&relay).await.iter().map(|data| data["state"].clone()).collect();
    assert_eq!(states, ["open", "new", "closed", "open"]);
    let counts = shown(&relay).await["counts"].clone();
    assert_eq!((&counts["events"], &counts["repeats"], &counts["reused_ids"]), (&json!(4), &json!(0), &json!(2)));

    let relay = Relay::start().await;
    let server = answers(vec![list("open"), list("closed"), list("open")]);
    source(&relay, "poll", &server.url(), settings("drop")).await;
    eventually("four requests", async || (server.connections() >= 4).then_some(())).await;
    stores(&relay, 2).await;
}
