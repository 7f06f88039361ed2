//! Streams end when they should, take no more than allowed, and hold nothing for those who do not read.

use hookcast_streams::EgressSettings;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::relay::{Relay, event, eventually, small};
use crate::support::{PATIENCE, in_time};

#[actix_rt::test(system = "crate::support::System")]
async fn a_limit_ends_the_stream_cleanly_in_history_and_live() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 100).await;
    let mut lines = relay.listen("a/stream?since=earliest&limit=70").await;
    assert_eq!(lines.seqs(70).await, (1..=70).collect::<Vec<_>>());
    assert_eq!(lines.next().await, None);
    let mut lines = relay.listen("a/stream?since=98&limit=5").await;
    relay.publish("a", 10).await;
    assert_eq!(lines.seqs(5).await, [99, 100, 101, 102, 103]);
    assert_eq!(lines.next().await, None);
    relay.until_open(0).await;
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_duration_ends_the_stream_cleanly() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 2).await;
    let mut lines = relay.listen("a/stream?since=earliest&max_duration=50ms").await;
    assert_eq!(lines.seqs(2).await, [1, 2]);
    assert_eq!(lines.next().await, None);
    relay.until_open(0).await;
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_shutdown_ends_every_stream_cleanly_and_lets_none_begin() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 3).await;
    let mut behind = relay.listen("a/stream?since=earliest").await;
    assert_eq!(behind.seqs(3).await, [1, 2, 3]);
    let mut idle = Vec::new();
    for format in ["ndjson", "sse", "ndjson"] {
        idle.push(relay.listen(&format!("b/stream?format={format}")).await);
    }
    relay.until_open(4).await;
    relay.closing.cancel();
    assert_eq!(behind.next().await, None);
    for mut lines in idle {
        while let Some(line) = lines.next().await {
            assert!(line.is_empty() || line.starts_with("retry: ") || line.starts_with(':'), "{line}");
        }
    }
    relay.until_open(0).await;
    let refused = reqwest::get(relay.url("a/stream")).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn one_stream_too_many_is_refused_and_leaves_the_others_alone() {
    let relay = Relay::start(EgressSettings { streams_max: 2, ..small() }, 1024).await;
    let mut first = relay.listen("a/stream").await;
    let second = relay.listen("a/stream").await;
    let refused = reqwest::get(relay.url("a/stream")).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/too_many_streams");
    relay.publish("a", 1).await;
    assert_eq!(first.seqs(1).await, [1]);
    drop(second);
    relay.until_open(1).await;
    let mut third = relay.listen("a/stream?since=earliest").await;
    assert_eq!(third.seqs(1).await, [1]);
    assert_eq!(relay.counts().refused, 1);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn clients_that_come_and_go_leave_nothing() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 20).await;
    for round in 0..200 {
        let mut lines = relay.listen(&format!("a,b{}/stream?since=earliest", round % 7)).await;
        if round % 3 == 0 {
            lines.seqs(20).await;
        }
    }
    relay.until_open(0).await;
    let mut lines = relay.listen("a/stream").await;
    relay.publish("a", 1).await;
    assert_eq!(lines.seqs(1).await, [21]);
    assert_eq!(relay.counts().opened, 201);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_client_that_does_not_read_is_served_from_the_log_and_not_from_memory() {
    const EVENTS: u64 = 800;
    let relay = Relay::start(small(), 64 * 1024).await;
    let mut slow = connect_with_small_buffer(&relay);
    slow.write_all(b"GET /v1/topics/a/stream HTTP/1.0\r\n\r\n").await.unwrap();
    relay.until_open(1).await;
    let mut healthy = relay.listen("a/stream").await;
    let data = format!("\"{}\"", "x".repeat(20_000));
    for seq in 1..=EVENTS {
        relay.publish_event(event("a", "large", &data)).await;
        assert_eq!(healthy.seqs(1).await, [seq], "others are not held up");
    }
    // Both clients together were handed what the healthy one got, and for the other no more than its socket takes.
    let of_healthy = EVENTS * 20_000;
    eventually(|| relay.counts().events >= EVENTS).await;
    assert!(relay.counts().bytes < of_healthy + of_healthy / 8, "{:?}", relay.counts());

    let mut lines = BufReader::new(slow).lines();
    while !in_time(lines.next_line()).await.unwrap().unwrap().is_empty() {}
    for seq in 1..=EVENTS {
        let line = in_time(lines.next_line()).await.unwrap().unwrap();
        let form: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(form["seq"], seq.to_string());
    }
    relay.stop().await;
}

pub(super) fn connect_with_small_buffer(relay: &Relay) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect_timeout(&relay.address().into(), PATIENCE).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_was_sent_is_counted() {
    let relay = Relay::start(small(), 1024).await;
    let mut first = relay.listen("a/stream").await;
    let mut second = relay.listen("a/stream").await;
    relay.publish("a", 5).await;
    first.seqs(5).await;
    second.seqs(5).await;
    eventually(|| relay.counts().events == 10).await;
    assert!(relay.counts().bytes > 10 * 50);
    assert_eq!(relay.counts().open, 2);
    relay.stop().await;
}
