//! Streams that have their connection for themselves: what stands on the wire is the same as if the server wrote it.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::bounds::connect_with_small_buffer;
use super::relay::{Relay, event, eventually, read_to_end, read_until, small};
use crate::support::in_time;

const REQUEST: &str = "GET /v1/topics/a/stream?since=earliest HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// What chunks carry; panics at anything that is no chunk. The rest is a chunk that is not yet whole.
fn dechunk(mut bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let all = bytes.len();
    while let Some(line_end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line_end]).unwrap(), 16).unwrap();
        let end = line_end + 2 + length;
        let Some(chunk) = bytes.get(line_end + 2..end + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends where its length says");
        out.extend_from_slice(&chunk[..length]);
        bytes = &bytes[end + 2..];
    }
    all - bytes.len()
}

/// Reads so many lines of the body.
async fn read_lines(socket: &mut TcpStream, mut raw: Vec<u8>, lines: usize) -> Vec<String> {
    use tokio::io::AsyncReadExt as _;
    let (mut body, mut seen) = (Vec::new(), 0);
    loop {
        let before = body.len();
        let used = dechunk(&raw, &mut body);
        raw.drain(..used);
        seen += String::from_utf8_lossy(&body[before..]).matches('\n').count();
        if seen >= lines {
            return String::from_utf8(body).unwrap().lines().map(str::to_owned).collect();
        }
        assert!(in_time(socket.read_buf(&mut raw)).await.unwrap() > 0, "the stream goes on");
    }
}

/// The positions of JSON forms.
fn seqs(lines: &[String]) -> Vec<u64> {
    let seq = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_str().unwrap().parse().unwrap();
    lines.iter().map(seq).collect()
}

#[actix_rt::test(system = "crate::support::System")]
async fn history_and_live_arrive_in_chunks_and_the_last_one_ends_the_body() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 300).await;
    let mut socket = relay.raw(REQUEST).await;
    let head = read_until(&mut socket, "\r\n\r\n").await;
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    let rest = head.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec();
    let lines = read_lines(&mut socket, rest, 300).await;
    assert_eq!(seqs(&lines), (1..=300).collect::<Vec<_>>());
    for seq in 301..=310 {
        relay.publish("a", 1).await;
        assert_eq!(seqs(&read_lines(&mut socket, Vec::new(), 1).await), [seq]);
    }
    relay.closing.cancel();
    assert_eq!(read_to_end(&mut socket).await, "0\r\n\r\n");
    relay.until_open(0).await;
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_stands_behind_the_request_does_not_disturb_the_stream() {
    let relay = Relay::start(small(), 1024).await;
    let mut socket = relay.raw(&format!("{REQUEST}GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    read_until(&mut socket, "\r\n\r\n").await;
    socket.write_all("x".repeat(100_000).as_bytes()).await.unwrap();
    relay.publish("a", 2).await;
    assert_eq!(seqs(&read_lines(&mut socket, Vec::new(), 2).await), [1, 2]);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_client_that_sends_no_more_is_gone() {
    let relay = Relay::start(small(), 1024).await;
    let mut closing = relay.raw(REQUEST).await;
    read_until(&mut closing, "\r\n\r\n").await;
    let mut staying = relay.listen("a/stream").await;
    relay.until_open(2).await;
    closing.shutdown().await.unwrap();
    relay.until_open(1).await;
    assert_eq!(read_to_end(&mut closing).await, "");
    relay.publish("a", 1).await;
    assert_eq!(staying.seqs(1).await, [1]);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_stream_with_a_limit_leaves_its_connection_to_the_next_request() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 3).await;
    let mut socket = relay.raw(&REQUEST.replace("earliest", "earliest&limit=2")).await;
    read_until(&mut socket, "0\r\n\r\n").await;
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(read_until(&mut socket, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    relay.stop().await;
}

/// A client that kept the connection of a stream would send its next request into an end.
#[actix_rt::test(system = "crate::support::System")]
async fn who_gets_an_endless_stream_is_told_that_the_connection_ends_with_it() {
    const FORMATS: [&str; 3] = ["ndjson", "sse", "json-seq"];
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 2).await;
    let says_close = |head: &str| head.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
    let mut endless = Vec::new();
    for format in FORMATS {
        let request = REQUEST.replace("earliest", &format!("earliest&format={format}"));
        let mut socket = relay.raw(&request).await;
        let head = read_until(&mut socket, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && says_close(&head), "{head}");
        endless.push(socket);
        // Whose connection stays says nothing of an end.
        for (request, end) in [(request.replace('?', "?limit=1&"), "\r\n0\r\n\r\n"), (request.replace("GET", "HEAD"), "\r\n\r\n")]
        {
            let mut socket = relay.raw(&request).await;
            let head = read_until(&mut socket, end).await;
            assert!(head.starts_with("HTTP/1.1 200") && !says_close(&head), "{head}");
            socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            assert!(read_until(&mut socket, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        }
    }
    relay.closing.cancel();
    for mut socket in endless {
        assert!(read_to_end(&mut socket).await.ends_with("0\r\n\r\n"));
    }
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_client_that_does_not_read_stands_still_in_the_log_and_holds_nobody_up() {
    const EVENTS: u64 = 800;
    let relay = Relay::start(small(), 64 * 1024).await;
    let mut slow = connect_with_small_buffer(&relay);
    slow.write_all(REQUEST.as_bytes()).await.unwrap();
    relay.until_open(1).await;
    let mut healthy = relay.listen("a/stream").await;
    let data = format!("\"{}\"", "x".repeat(20_000));
    for seq in 1..=EVENTS {
        relay.publish_event(event("a", "large", &data)).await;
        assert_eq!(healthy.seqs(1).await, [seq]);
    }
    let of_healthy = EVENTS * 20_000;
    eventually(|| relay.counts().events >= EVENTS).await;
    assert!(relay.counts().bytes < of_healthy + of_healthy / 8, "{:?}", relay.counts());
    let head = read_until(&mut slow, "\r\n\r\n").await;
    let rest = head.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec();
    let lines = read_lines(&mut slow, rest, usize::try_from(EVENTS).unwrap()).await;
    assert_eq!(seqs(&lines), (1..=EVENTS).collect::<Vec<_>>());
    relay.stop().await;
}
