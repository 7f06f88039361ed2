//! What retention took and what never was is said, not skipped; silence says how far the log was searched.

use std::time::Duration;

use hookcast_streams::EgressSettings;

use super::relay::{Relay, event, read_until, small};
use crate::support::in_time;

fn get(path_and_query: &str) -> String {
    format!("GET /v1/topics/{path_and_query} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_retention_took_is_announced_in_the_format() {
    let relay = Relay::start(small(), 1).await;
    for _ in 0..10 {
        relay.publish("a", 10).await;
    }
    assert_eq!(relay.trim().await.0, 91);
    let mut lines = relay.listen("a/stream?last_event_id=5").await;
    let gap = lines.event().await.unwrap();
    assert_eq!((&gap["type"], &gap["seq"]), (&"hookcast.gap".into(), &"90".into()));
    assert_eq!(gap["data"], serde_json::json!({"from": 6, "to": 90}));
    assert_eq!(lines.seqs(10).await, (91..=100).collect::<Vec<_>>());

    let mut socket = relay.raw(&get("a/stream?since=5&format=sse")).await;
    let text = read_until(&mut socket, "id: 91\n").await;
    assert!(text.contains("id: 90\nevent: hookcast.gap\ndata: {\"from\":6,\"to\":90}\n\n"), "{text}");
    assert_eq!(relay.counts().gaps, 2);

    let mut lines = relay.listen("a/stream?last_event_id=0").await;
    assert_eq!(lines.seqs(1).await, [91], "from the oldest kept is no gap");
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_slow_client_hears_of_what_it_was_too_slow_for() {
    let relay = Relay::start(small(), 1).await;
    relay.publish("a", 1).await;
    let mut lines = relay.listen("a/stream?since=earliest").await;
    assert_eq!(lines.seqs(1).await, [1]);
    // Far more than sockets, ring and one read hold: the client is behind when retention comes.
    let large = format!("\"{}\"", "x".repeat(30_000));
    for _ in 0..1_000 {
        relay.publish_event(event("a", "large", &large)).await;
    }
    let first = relay.trim().await.0;
    let (mut expected, mut gap) = (2, None);
    while expected <= 1_001 {
        let event = lines.event().await.unwrap();
        if event["type"] == "hookcast.gap" {
            assert_eq!(event["data"]["from"], expected);
            assert!(gap.replace(event["data"]["to"].as_u64().unwrap()).is_none(), "one gap");
            expected = gap.unwrap() + 1;
        } else {
            assert_eq!(event["seq"], expected.to_string());
            expected += 1;
        }
    }
    assert_eq!(gap, Some(first - 1));
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_position_beyond_the_log_is_reset_and_goes_on_live() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 7).await;
    for beyond in ["99999999999999999999", "8", "18446744073709551615"] {
        let mut lines = relay.listen(&format!("a/stream?last_event_id={beyond}")).await;
        let reset = lines.event().await.unwrap();
        assert_eq!(reset["type"], "hookcast.reset");
        assert_eq!(reset["data"], serde_json::json!({"head": 7}));
    }
    let mut socket = relay.raw(&get("a/stream?since=1000&format=sse")).await;
    read_until(&mut socket, "id: 7\nevent: hookcast.reset\ndata: {\"head\":7}\n\n").await;
    relay.publish("a", 1).await;
    read_until(&mut socket, "id: 8\n").await;
    assert_eq!(relay.counts().resets, 4);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn silence_carries_the_position_searched() {
    let settings = EgressSettings { heartbeat: Duration::from_millis(30), ..small() };
    let relay = Relay::start(settings, 1024).await;
    let mut socket = relay.raw(&get("a/stream?format=sse&types=rare")).await;
    read_until(&mut socket, ": hb\nid: 0\n\n").await;
    relay.publish("a", 5).await;
    relay.publish("b", 2).await;
    read_until(&mut socket, ": hb\nid: 7\n\n").await;

    let mut lines = relay.listen("a/stream?since=earliest").await;
    assert_eq!(lines.seqs(5).await, [1, 2, 3, 4, 5]);
    assert_eq!(lines.next().await.as_deref(), Some(""));
    assert_eq!(lines.next().await.as_deref(), Some(""));
    relay.publish("a", 1).await;
    assert_eq!(lines.seqs(1).await, [8]);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_time_or_a_duration_is_a_beginning_too() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 3).await;
    // The events of these tests arrived in November 2023.
    let mut lines = relay.listen("a/stream?since=2023-01-01T00:00:00Z").await;
    assert_eq!(lines.seqs(3).await, [1, 2, 3]);
    let mut later = relay.listen("a/stream?since=2024-01-01T00:00:00%2B01:00").await;
    let mut recent = relay.listen("a/stream?since=10m").await;
    let mut behind = relay.listen("a/stream?since=2").await;
    relay.publish("a", 1).await;
    assert_eq!(later.seqs(1).await, [4]);
    assert_eq!(recent.seqs(1).await, [4]);
    assert_eq!(behind.seqs(2).await, [3, 4]);
    relay.stop().await;
}

/// The JSON form of the gap from 6 to 90.
const GAP: &str = r#"{"specversion":"1.0","id":"gap-6-90","source":"/hookcast","type":"hookcast.gap","topic":"hookcast.stream","seq":"90","datacontenttype":"application/json","data":{"from":6,"to":90}}"#;

#[actix_rt::test(system = "crate::support::System")]
async fn every_format_tells_of_a_gap_in_its_own_way() {
    let relay = Relay::start(small(), 1).await;
    for _ in 0..10 {
        relay.publish("a", 10).await;
    }
    relay.trim().await;
    for (format, told) in [
        ("ndjson", format!("{GAP}\n")),
        ("json-seq", format!("\u{1e}{GAP}\n")),
        ("length", format!("{}\r\n{GAP}\r\n", GAP.len() + 2)),
        ("html", format!("\">parent.hookcast({GAP})</script>\n")),
        ("multipart", "ce-type: hookcast.gap\r\n\r\n{\"from\":6,\"to\":90}\r\n--".to_owned()),
    ] {
        let response = reqwest::get(relay.url(&format!("a/stream?since=5&limit=10&format={format}"))).await.unwrap();
        let body = in_time(response.text()).await.unwrap();
        let at = body.find(&told).unwrap_or_else(|| panic!("{format}: no {told:?} in {body}"));
        assert!(body.find("\"n\":91").is_some_and(|first| first > at), "{format}: the gap comes first");
        assert!(body.contains("\"n\":100"), "{format}");
    }
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_format_without_notices_ends_at_a_gap_and_says_in_its_head_what_it_can() {
    let relay = Relay::start(small(), 1).await;
    for _ in 0..10 {
        relay.publish("a", 10).await;
    }
    relay.trim().await;
    let before = reqwest::get(relay.url("a/stream?since=5&format=raw")).await.unwrap();
    assert_eq!(before.headers()["hookcast-gap"], "6-90");
    assert_eq!(in_time(before.text()).await.unwrap(), "", "a stream without an end of its own ends");
    let behind = reqwest::get(relay.url("a/stream?since=90&format=raw&limit=2")).await.unwrap();
    assert!(!behind.headers().contains_key("hookcast-gap"));
    assert_eq!(in_time(behind.text()).await.unwrap(), "{\"n\":91}\n{\"n\":92}\n");
    let beyond = reqwest::get(relay.url("a/stream?since=1000&format=raw&limit=1")).await.unwrap();
    assert_eq!(beyond.headers()["hookcast-reset"], "100");
    relay.publish("a", 1).await;
    assert_eq!(in_time(beyond.text()).await.unwrap(), "{\"n\":101}\n");
    assert_eq!(relay.counts().gaps, 1);
    relay.stop().await;
}
