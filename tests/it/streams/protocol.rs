//! Heads, methods, versions and refusals, as they stand on the wire.

use reqwest::{Client, Method};

use super::relay::{Lines, Relay, event, read_to_end, read_until, small};
use crate::support::in_time;

#[actix_rt::test(system = "crate::support::System")]
async fn the_head_comes_at_once_and_forbids_gathering() {
    let relay = Relay::start(small(), 1024).await;
    for (format, media_type) in [
        ("ndjson", "application/x-ndjson"),
        ("sse", "text/event-stream"),
        ("json-seq", "application/json-seq"),
        ("raw", "application/octet-stream"),
        ("length", "application/json"),
        ("html", "text/html; charset=utf-8"),
    ] {
        let request = Client::new().get(relay.url(&format!("a/stream?format={format}"))).header("accept-encoding", "gzip, br");
        let response = in_time(request.send()).await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(response.status(), 200);
        assert_eq!(header("content-type").as_deref(), Some(media_type));
        assert_eq!(header("cache-control").as_deref(), Some("no-store, no-transform"));
        assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"));
        assert_eq!(header("incremental").as_deref(), Some("?1"));
        assert!(header("vary").unwrap().starts_with("accept"));
        assert_eq!(header("content-encoding"), None);
        assert_eq!(header("content-length"), None);
    }
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn http_1_0_gets_a_body_that_ends_with_the_connection() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 3).await;
    let mut socket = relay.raw("GET /v1/topics/a/stream?since=earliest&limit=3 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
    let text = read_to_end(&mut socket).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
    let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn head_answers_at_once_and_leaves_nothing_behind() {
    let relay = Relay::start(small(), 1024).await;
    let request = "HEAD /v1/topics/a/stream?format=sse HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut socket = relay.raw(request).await;
    let head = read_until(&mut socket, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
    let response = in_time(Client::new().request(Method::HEAD, relay.url("a/stream")).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(relay.counts().opened, 0);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn refusals_are_problems_that_say_what_to_do() {
    let relay = Relay::start(small(), 1024).await;
    let long = "1".repeat(10_240);
    for (path, name, value, status, slug) in [
        ("a/stream", "accept", "image/png", 406, "not_acceptable"),
        ("a/stream", "last-event-id", "-1", 400, "last_event_id"),
        ("a/stream", "last-event-id", &long, 400, "last_event_id"),
        ("a/stream?filter=x", "accept", "*/*", 422, "filter"),
        ("a/stream?nonsense=x", "accept", "*/*", 422, "unknown_parameter"),
        ("a..b/stream", "accept", "*/*", 422, "topics"),
        ("**.a/stream", "accept", "*/*", 422, "topics"),
    ] {
        let response = Client::new().get(relay.url(path)).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["type"], format!("/problems/{slug}"));
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(relay.counts().opened, 0);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn accept_chooses_the_format() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 1).await;
    let response =
        Client::new().get(relay.url("a/stream?since=earliest")).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut lines = Lines::of(response);
    let retry = lines.next().await.unwrap();
    let retry_ms: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1_000..5_000).contains(&retry_ms), "{retry}");
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn types_and_patterns_choose() {
    let relay = Relay::start(small(), 1024 * 1024).await;
    let mut lines = relay.listen("orders.*,b/stream?types=created,deleted").await;
    for (topic, kind) in [
        ("orders.x", "created"),
        ("orders.x", "moved"),
        ("orders.x.y", "created"),
        ("b", "deleted"),
        ("c", "created"),
        ("b", "created"),
    ] {
        relay.publish_event(event(topic, kind, "1")).await;
    }
    assert_eq!(lines.seqs(3).await, [1, 4, 6]);
    relay.stop().await;
}
