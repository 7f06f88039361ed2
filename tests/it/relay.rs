//! The main job from end to end: an upstream of another make, the relay as a process, a receiver and both streams.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use eventsource_client::{Client as _, ClientBuilder, ReconnectOptions, SSE};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use crate::streams::clients::Transport;
use crate::support::upstream::{CountingUpstream, PythonUpstream};
use crate::support::{Delivery, PATIENCE, Receiver, Relay};

fn recording(file: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/recorded/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).filter(|line| !line.is_empty()).collect()
}

/// Type and data of each block, read as simply as this recording allows.
fn blocks(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for block in text.replace("\r\n", "\n").split("\n\n") {
        let field = |name: &str| block.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>().join("\n");
        if block.lines().any(|line| line.starts_with("data: ")) {
            let kind = field("event: ");
            found.push((if kind.is_empty() { "message".to_owned() } else { kind }, field("data: ").into_bytes()));
        }
    }
    found
}

async fn source(relay: &Relay, protocol: &str, url: &str, topic: &str) {
    relay.must("POST", "/v1/sources", json!({"name": "up", "protocol": protocol, "url": url, "topic": topic})).await;
}

/// The headers that the contract names, on every delivery.
fn check_headers(delivery: &Delivery, subscription: &str, topic: &str, position: usize) {
    delivery.verify();
    let seq = delivery.seq();
    let log = delivery.id().strip_prefix("msg_").unwrap().strip_suffix(&format!("_{seq}")).unwrap();
    assert_eq!(log.len(), 8, "{}", delivery.id());
    assert!(log.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{log}");
    assert_eq!(seq as usize, position + 1);
    assert_eq!(delivery.header("hookcast-attempt"), "1");
    assert_eq!(delivery.header("hookcast-subscription"), subscription);
    assert_eq!(delivery.header("hookcast-hops"), "1");
    assert!(delivery.header("user-agent").starts_with("hookcast/"));
    assert_eq!(delivery.header("ce-specversion"), "1.0");
    assert_eq!(delivery.header("ce-topic"), topic);
    assert_eq!(delivery.header("ce-source"), "/sources/up");
    assert!(!delivery.header("ce-id").is_empty() && !delivery.header("ce-time").is_empty());
    assert!(delivery.header("transfer-encoding").is_empty() && !delivery.header("host").is_empty());
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_recorded_ndjson_feed_reaches_callback_and_stream_byte_for_byte() {
    for framing in ["eof", "chunked"] {
        let expected = lines(&recording("wikiticker.ndjson"));
        let upstream = PythonUpstream::start("wikiticker.ndjson", "application/x-ndjson", framing).await;
        let (relay, receiver) = (Relay::start().await, Receiver::start().await);
        // One at a time, so that the order at the receiver is the order of the log.
        relay.subscribe("a", receiver.url(), "wiki.*", json!({"max_in_flight": 1})).await;
        source(&relay, "ndjson", &upstream.url, "wiki.edits").await;
        let seen = receiver.sees(expected.len()).await;
        assert_eq!(seen.len(), expected.len());
        for (position, (delivery, line)) in seen.iter().zip(&expected).enumerate() {
            assert_eq!(delivery.body, *line, "{framing}: event {position}");
            assert_eq!(delivery.header("content-type"), "application/json");
            assert_eq!(delivery.header("ce-type"), "message");
            check_headers(delivery, "a", "wiki.edits", position);
        }
        stream_resumes_in_the_middle(&relay, "wiki.edits", &expected).await;
    }
}

/// Reads the NDJSON stream in two parts and compares the slice of each line with what the upstream sent.
async fn stream_resumes_in_the_middle(relay: &Relay, topic: &str, expected: &[Vec<u8>]) {
    let middle = expected.len() / 2;
    let first = stream(relay, &format!("{topic}/stream?since=earliest&limit={middle}")).await;
    let second = stream(relay, &format!("{topic}/stream?since={middle}&limit={}", expected.len() - middle)).await;
    let all: Vec<String> = first.into_iter().chain(second).collect();
    assert_eq!(all.len(), expected.len());
    for (index, (line, data)) in all.iter().zip(expected).enumerate() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["seq"], (index + 1).to_string());
        assert_eq!(event["topic"], topic);
        let data = std::str::from_utf8(data).unwrap();
        assert!(line.contains(&format!("\"data\":{data}")), "the stored slice is in {line}");
    }
}

async fn stream(relay: &Relay, path: &str) -> Vec<String> {
    let response = relay.client.get(format!("{}/v1/topics/{path}", relay.url)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = tokio::time::timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_recorded_event_stream_reaches_callback_and_stream_byte_for_byte() {
    for (file, framing) in [("mastodon.sse", "eof"), ("llm-crlf.sse", "chunked"), ("llm-lf.sse", "chunked")] {
        let expected = blocks(&String::from_utf8(recording(file)).unwrap());
        assert!(expected.len() >= 2, "{file}");
        let upstream = PythonUpstream::start(file, "text/event-stream", framing).await;
        let (relay, receiver) = (Relay::start().await, Receiver::start().await);
        relay.subscribe("a", receiver.url(), "**", json!({"max_in_flight": 1})).await;
        source(&relay, "sse", &upstream.url, "social").await;
        let seen = receiver.sees(expected.len()).await;
        assert_eq!(seen.len(), expected.len());
        for (position, (delivery, (kind, data))) in seen.iter().zip(&expected).enumerate() {
            assert_eq!(delivery.body, *data, "{file}: event {position}");
            assert_eq!(delivery.header("ce-type"), kind);
            let is_json = serde_json::from_slice::<Value>(data).is_ok();
            let media_type = delivery.header("content-type");
            assert!(media_type.starts_with(if is_json { "application/json" } else { "text/plain" }), "{media_type}");
            check_headers(delivery, "a", "social", position);
        }
        let middle = expected.len() / 2;
        let mut events = events(&relay, "social/stream?since=earliest", None, middle).await;
        events.extend(self::events(&relay, "social/stream", Some(middle), expected.len() - middle).await);
        let wanted: Vec<_> =
            (1..).zip(&expected).map(|(seq, (kind, data))| (seq.to_string(), kind.clone(), data.clone())).collect();
        assert_eq!(events, wanted, "{file}");
    }
}

/// Reads `count` events with an independent client: id, type, data.
async fn events(relay: &Relay, path: &str, last: Option<usize>, count: usize) -> Vec<(String, String, Vec<u8>)> {
    let mut builder = ClientBuilder::for_url(&format!("{}/v1/topics/{path}", relay.url)).unwrap();
    if let Some(last) = last {
        builder = builder.last_event_id(last.to_string());
    }
    let client = builder.reconnect(ReconnectOptions::reconnect(false).build());
    let mut stream = client.build_with_transport(Transport(relay.client.clone())).stream();
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(PATIENCE, stream.try_next()).await.expect("an event in time").unwrap();
        if let SSE::Event(event) = next.expect("the stream goes on") {
            events.push((event.id.unwrap(), event.event_type, event.data.into_bytes()));
        }
    }
    events
}

#[tokio::test]
async fn a_change_feed_is_not_repeated_when_its_server_sends_it_again() {
    let upstream = CountingUpstream::start(std::time::Duration::from_millis(1), 50, 10).await;
    let (mut relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "feed", json!({"max_in_flight": 1})).await;
    source(&relay, "sse", &upstream.url, "feed").await;
    receiver.sees(50).await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    crate::support::eventually("a connection that resumes", async || (upstream.asked().len() >= 2).then_some(())).await;
    assert_eq!(upstream.asked()[1], Some(50), "the token was kept");
    // The upstream repeats its last ten; they are known, and a new event is the next one.
    assert_eq!(relay.publish("feed", "{\"n\":51}").await, 51);
    let seen = receiver.sees(51).await;
    let bodies: Vec<_> = seen.iter().map(|delivery| delivery.text().to_owned()).collect();
    assert_eq!(bodies, (1..=51).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_kind_of_body_arrives_as_it_was_published() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 1})).await;
    let bodies: [(&str, Vec<u8>); 6] = [
        ("application/json", b"{\"b\": 1,\r\n \"a\": 1.10, \"a\": \"\\u00e9\"}".to_vec()),
        ("text/plain; charset=utf-8", "grüße\n\0\n".into()),
        ("application/octet-stream", (0..=255).collect()),
        ("application/xml", b"<a/>".to_vec()),
        ("application/octet-stream", Vec::new()),
        ("application/octet-stream", vec![b'x'; 1024 * 1024]),
    ];
    for (media_type, body) in &bodies {
        let url = format!("{}/v1/topics/t/events", relay.url);
        let request = relay.client.post(url).header("content-type", *media_type).header("ce-subject", "a%20%C3%A9");
        assert_eq!(request.body(body.clone()).send().await.unwrap().status(), 202);
    }
    let seen = receiver.sees(bodies.len()).await;
    for (delivery, (media_type, body)) in seen.iter().zip(&bodies) {
        assert_eq!((delivery.header("content-type"), &delivery.body), (*media_type, body));
        assert_eq!(delivery.header("ce-subject"), "a%20%C3%A9");
        delivery.verify();
    }
}

#[tokio::test]
async fn a_structured_delivery_carries_the_json_form() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t.**", json!({"payload": "structured"})).await;
    relay.publish("t.x", "{\"n\": 1.0}").await;
    let seen = receiver.sees(1).await;
    assert_eq!(seen[0].header("content-type"), "application/cloudevents+json");
    assert!(seen[0].text().contains("\"data\":{\"n\": 1.0}"), "{}", seen[0].text());
    let event: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!((&event["specversion"], &event["topic"], &event["seq"]), (&"1.0".into(), &"t.x".into(), &"1".into()));
    seen[0].verify();
}
