//! Clients that read nothing: nobody else notices, and memory does not grow by what they leave lying.

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Relay, eventually};

/// Clients that read nothing. The row and the promise speak of 1,000; a test of a build without optimisation takes fewer.
const STALLED: usize = 200;
/// Clients that do read, beside one that does not: scaled from a thousand.
const HEALTHY: usize = 100;
/// Each stalled client may cost as much as the row grants: 256 MiB for 1,000.
const BYTES_EACH_MAX: u64 = 256 * 1024;

/// Opens a stream over a socket whose buffer is small, so that little lies in the kernel.
pub(super) async fn open(relay: &Relay, query: &str) -> TcpStream {
    let host = relay.url.strip_prefix("http://").unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect_timeout(&host.parse::<std::net::SocketAddr>().unwrap().into(), PATIENCE).unwrap();
    socket.set_nonblocking(true).unwrap();
    ask(TcpStream::from_std(socket.into()).unwrap(), host, query).await
}

/// Opens a stream of a client that keeps up.
async fn keep_up(relay: &Relay, query: &str) -> TcpStream {
    let host = relay.url.strip_prefix("http://").unwrap();
    ask(TcpStream::connect(host).await.unwrap(), host, query).await
}

async fn ask(mut stream: TcpStream, host: &str, query: &str) -> TcpStream {
    let request = format!("GET /v1/topics/a/stream?{query} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// A line of `/proc/<pid>/status` in bytes.
fn resident(relay: &Relay) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

pub(super) async fn metric(relay: &Relay, name: &str) -> u64 {
    let text = relay.client.get(format!("{}/metrics", relay.url)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("no whole number: {line}"))
}

pub(super) async fn until_open(relay: &Relay, streams: usize) {
    eventually(&format!("{streams} streams"), async || {
        (metric(relay, "hookcast_streams_open").await == streams as u64).then_some(())
    })
    .await;
}

/// Reads until as many events of `publish_large` have come, and nothing else.
async fn read_events(stream: &mut TcpStream, count: u64) {
    let mut all = Vec::new();
    let reading = async {
        let mut seen = 0;
        while seen < count {
            let read = stream.read_buf(&mut all).await.unwrap();
            assert!(read > 0, "the stream goes on");
            // Chunk borders stand between whole events.
            while let Some(end) = all.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = all.drain(..=end).collect();
                if line.starts_with(b"{") {
                    seen += 1;
                    let marker = format!("\"data\":{{\"n\":{seen},");
                    let text = String::from_utf8(line).unwrap();
                    assert!(text.contains(&marker), "wanted {marker}, got {text:.300}");
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE * 2, reading).await.expect("every event in time");
}

async fn publish_large(relay: &Relay, numbers: std::ops::RangeInclusive<u64>, bytes: usize) {
    let body: String = numbers.map(|n| format!("{{\"n\":{n},\"x\":\"{}\"}}\n", "x".repeat(bytes))).collect();
    let url = format!("{}/v1/topics/a/events", relay.url);
    let response = relay.client.post(url).header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
    assert_eq!(response.status(), 202);
}

/// Each round is what a socket takes several times over.
#[tokio::test]
async fn two_hundred_that_read_nothing_leave_memory_as_it_is_and_the_others_alone() {
    let relay = Relay::start().await;
    let mut healthy = keep_up(&relay, "").await;
    let mut stalled = Vec::new();
    for n in 0..STALLED {
        let format = ["ndjson", "sse", "json-seq", "raw", "length", "multipart", "html"][n % 7];
        stalled.push(open(&relay, &format!("format={format}")).await);
    }
    until_open(&relay, STALLED + 1).await;
    // What the log, its caches and every socket take anyway comes first.
    for round in 0..4_u64 {
        publish_large(&relay, round * 100 + 1..=round * 100 + 100, 10_000).await;
    }
    let reading = read_events(&mut healthy, 400);
    reading.await;
    let before = resident(&relay);
    for round in 4..8_u64 {
        publish_large(&relay, round * 100 + 1..=round * 100 + 100, 10_000).await;
    }
    let mut second = keep_up(&relay, "since=earliest").await;
    read_events(&mut second, 800).await;
    let after = resident(&relay);
    let grown = after.saturating_sub(before);
    println!("{STALLED} stalled: {} KiB before, {} KiB more after 4 MB of events", before / 1024, grown / 1024);
    assert!(grown < STALLED as u64 * BYTES_EACH_MAX, "{grown} bytes more");
    assert!(metric(&relay, "hookcast_streams_open").await >= STALLED as u64, "who reads nothing is not cut at once");
    // One of them begins to read: nothing is missing.
    read_events(&mut stalled[0], 800).await;
}

#[tokio::test]
async fn one_stalled_client_among_many_changes_nothing_for_them() {
    let relay = Relay::start().await;
    let mut stalled = open(&relay, "").await;
    let mut healthy = Vec::new();
    for _ in 0..HEALTHY {
        healthy.push(keep_up(&relay, "").await);
    }
    until_open(&relay, HEALTHY + 1).await;
    let reading = async {
        let all = healthy.iter_mut().map(|client| read_events(client, 120));
        futures_util::future::join_all(all).await;
    };
    let publishing = async {
        for round in 0..6_u64 {
            publish_large(&relay, round * 20 + 1..=round * 20 + 20, 5_000).await;
        }
    };
    tokio::join!(reading, publishing);
    read_events(&mut stalled, 120).await;
}
