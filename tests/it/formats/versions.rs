//! The same body over HTTP/1.1 and HTTP/1.0, what stands in its head, and how it ends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::events::{Event, events, publish};
use super::feed::{Feed, Got, curl, printed, python};
use crate::support::{PATIENCE, Relay};

/// Every format: its name, its media type, and what ends its body.
const FORMATS: &[(&str, &str, &str)] = &[
    ("ndjson", "application/x-ndjson", "\n"),
    ("sse", "text/event-stream", "\n\n"),
    ("json-seq", "application/json-seq", "\n"),
    ("raw", "application/octet-stream", "\n"),
    ("length", "application/json", "\r\n"),
    ("multipart", "multipart/x-mixed-replace; boundary=", "--\r\n"),
    ("html", "text/html; charset=utf-8", "</body></html>\n"),
];

/// The pause that is asked of a reader differs from stream to stream.
fn without_retry(body: &[u8]) -> Vec<u8> {
    let end = body.iter().position(|b| *b == b'\n').unwrap_or(0);
    if body.starts_with(b"retry: ") { body[end..].to_vec() } else { body.to_vec() }
}

/// Everything that `curl` gets: head, body.
async fn fetched(url: &str, more: &[&str]) -> (String, Vec<u8>) {
    let output = tokio::time::timeout(PATIENCE, curl(url, None, more).arg("-i").kill_on_drop(true).output());
    let output = output.await.expect("an end in time").unwrap();
    assert!(output.status.success(), "{url}: {output:?}");
    split(&output.stdout)
}

fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head has an end") + 4;
    (String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase(), answer[end..].to_vec())
}

/// A stream without an end as HTTP/1.0, over a socket of its own.
async fn open(relay: &Relay, query: &str) -> TcpStream {
    let host = relay.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /v1/topics/a/stream?{query} HTTP/1.0\r\nhost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
#[ignore = "needs curl"]
async fn every_format_is_the_same_over_both_versions_and_ends_as_it_should() {
    let mut relay = Relay::start().await;
    publish(&relay, "a", &events(true)[..300]).await;
    let mut endless = Vec::new();
    for &(format, media_type, end) in FORMATS {
        let url = format!("{}/v1/topics/a/stream?since=earliest&heartbeat=5m&format={format}", relay.url);
        let (head, body) = fetched(&format!("{url}&limit=300"), &[]).await;
        for line in [
            format!("content-type: {media_type}"),
            "cache-control: no-store, no-transform".to_owned(),
            "x-accel-buffering: no".to_owned(),
            "incremental: ?1".to_owned(),
            "x-content-type-options: nosniff".to_owned(),
            "vary: accept".to_owned(),
            "transfer-encoding: chunked".to_owned(),
        ] {
            assert!(head.contains(&format!("\r\n{line}")), "{format}: no {line} in {head}");
        }
        assert!(body.ends_with(end.as_bytes()), "{format} ends cleanly");
        let (old_head, old_body) = fetched(&format!("{url}&limit=300"), &["--http1.0"]).await;
        assert!(!old_head.contains("transfer-encoding") && !old_head.contains("content-length"), "{format}: {old_head}");
        assert!(!old_head.contains("keep-alive"), "{format}: {old_head}");
        assert_eq!(without_retry(&old_body), without_retry(&body), "{format}");
        let socket = open(&relay, &format!("since=earliest&heartbeat=5m&format={format}")).await;
        endless.push((format, end, socket, without_retry(&body)));
    }
    // A stream without an end writes to its connection itself, and ends with the relay: first every event, then its end.
    let mut received = Vec::new();
    for (format, end, mut socket, wanted) in endless {
        let mut got = Vec::new();
        let events = wanted.strip_suffix(closing(end)).unwrap().to_vec();
        let reading = async {
            while body_of(&got).len() < events.len() {
                assert!(socket.read_buf(&mut got).await.unwrap() > 0, "{format} ended early");
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("every event in time");
        assert_eq!(body_of(&got), events, "{format}");
        received.push((format, socket, got, wanted));
    }
    assert_eq!(relay.terminate().await, Some(0));
    for (format, mut socket, mut got, wanted) in received {
        tokio::time::timeout(PATIENCE, socket.read_to_end(&mut got)).await.expect("an end in time").unwrap();
        assert!(!split(&got).0.contains("transfer-encoding"), "{format}");
        assert_eq!(body_of(&got), wanted, "{format}");
    }
}

/// What the end of a stream adds behind its last event.
fn closing(end: &'static str) -> &'static [u8] {
    if end.trim().is_empty() { b"" } else { end.as_bytes() }
}

/// What has come of a body, without what differs from stream to stream.
fn body_of(answer: &[u8]) -> Vec<u8> {
    let has_head = answer.windows(4).any(|four| four == b"\r\n\r\n");
    if has_head { without_retry(&split(answer).1) } else { Vec::new() }
}

#[tokio::test]
#[ignore = "needs python"]
async fn the_email_parser_of_python_takes_a_stream_that_ends() {
    let relay = Relay::start().await;
    let events = events(true);
    let seqs = publish(&relay, "a", &events[..200]).await;
    let url = format!("{}/v1/topics/a/stream?since=earliest&format=multipart&limit=200", relay.url);
    let mut feed = Feed::of(python("email_parser", &url, None), printed);
    for (event, seq) in events.iter().zip(&seqs) {
        let Got { seq: got_seq, value } = feed.next().await;
        assert_eq!((got_seq, value), (Some(*seq), Event::as_bytes(event)));
    }
    assert!(feed.next_or_end().await.is_none());
}

#[tokio::test]
#[ignore = "needs python"]
async fn no_event_can_make_a_part_even_when_it_knows_the_boundary() {
    let relay = Relay::start().await;
    let url = format!("{}/v1/topics/a/stream?format=multipart", relay.url);
    let head = relay.client.head(&url).send().await.unwrap();
    let content_type = head.headers()["content-type"].to_str().unwrap().to_owned();
    let boundary = content_type.split_once("boundary=").unwrap().1;
    let forged = format!("x\r\n--{boundary}\r\ncontent-length: 1\r\nhookcast-seq: 9\r\n\r\ny\r\n--{boundary}--\r\n");
    relay.publish("a", serde_json::json!(forged).to_string()).await;
    let request = relay.client.post(format!("{}/v1/topics/a/events", relay.url)).header("content-type", "text/plain");
    assert_eq!(request.body(forged).send().await.unwrap().status(), 202);
    let mut feed = Feed::of(python("email_parser", &format!("{url}&since=earliest&limit=2"), None), printed);
    assert_eq!(feed.next().await.seq, Some(1));
    assert_eq!(feed.next().await.seq, Some(2));
    assert!(feed.next_or_end().await.is_none());
}
