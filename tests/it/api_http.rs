//! HTTP itself, over raw sockets: what is malformed, late, too large or too much.

use std::time::Duration;

use hookcast_http::{HttpLimits, ServerSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::edge::{Edge, Options};

/// No answer of these tests takes this long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came back, and whether the server closed.
struct Heard {
    text: String,
    closed: bool,
}

impl Heard {
    fn statuses(&self) -> Vec<&str> {
        self.text.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect()
    }

    /// Whether the last answer said that the connection ends with it, and it did.
    fn ends_as_it_says(&self) -> bool {
        let head = self.text.rsplit("HTTP/1.1 ").next().unwrap().split("\r\n\r\n").next().unwrap();
        self.closed && head.to_ascii_lowercase().contains("\r\nconnection: close")
    }
}

async fn connect(edge: &Edge) -> TcpStream {
    TcpStream::connect(edge.address).await.unwrap()
}

/// Reads until the server closes, or until `enough` statuses came.
async fn hear(stream: &mut TcpStream, enough: usize) -> Heard {
    let mut bytes = Vec::new();
    let mut heard = Heard { text: String::new(), closed: false };
    let reading = async {
        loop {
            let mut piece = vec![0; 65536];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => heard.closed = true,
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
            }
            heard.text = String::from_utf8_lossy(&bytes).into_owned();
            if heard.closed || heard.statuses().len() >= enough {
                return;
            }
        }
    };
    let _ = timeout(PATIENCE, reading).await;
    heard
}

/// Sends bytes on a connection of its own and reads until the server closes.
async fn exchange(edge: &Edge, bytes: impl AsRef<[u8]>) -> Heard {
    let mut stream = connect(edge).await;
    // The server may refuse and close before everything is written.
    let _ = stream.write_all(bytes.as_ref()).await;
    hear(&mut stream, usize::MAX).await
}

const POST: &str = "POST /v1/topics/t/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
const GET_CLOSE: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn malformed_messages_are_refused_and_the_connection_ends() {
    let edge = Edge::start(Options::default()).await;
    let smuggled = format!("5\r\nhello\r\n0\r\n\r\n{GET}");
    let rows: Vec<(&str, String, &str)> = vec![
        ("no Host", "GET /healthz HTTP/1.1\r\n\r\n".into(), "400"),
        ("two Hosts", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".into(), "400"),
        ("length and chunks", format!("{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"), "400"),
        ("two lengths", format!("{POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), "400"),
        ("signed length", format!("{POST}Content-Length: +5\r\n\r\nhello{GET}"), "400"),
        ("unknown coding", format!("{POST}Transfer-Encoding: xchunked\r\n\r\n{smuggled}"), "400"),
        ("two codings", format!("{POST}Transfer-Encoding: chunked, identity\r\n\r\n{smuggled}"), "400"),
        ("identity coding", format!("{POST}Transfer-Encoding: identity\r\n\r\nhello"), "400"),
        ("control in a name", format!("{POST}Transfer-Encoding\x0b: chunked\r\n\r\n{smuggled}"), "400"),
        ("folded header", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\n\r\n".into(), "400"),
        ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".into(), "400"),
        ("huge chunk", format!("{POST}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n"), "400"),
        ("bare LF chunk line", format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n{GET}"), "400"),
        ("chunk that is too long", format!("{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n{GET}"), "400"),
        ("97 headers", format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(96)), "431"),
        ("head of 128 KiB", format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: {}", "b".repeat(131_073)), "431"),
        ("CONNECT", "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".into(), "405"),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".into(), "405"),
        ("absolute form", "GET http://169.254.169.254/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".into(), "400"),
        ("long target", format!("GET /{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "a".repeat(9000)), "414"),
    ];
    for (name, request, status) in rows {
        let heard = exchange(&edge, request).await;
        assert_eq!(heard.statuses(), [status], "{name}: {}", heard.text);
        assert!(heard.ends_as_it_says(), "{name}: {}", heard.text);
    }
    assert_eq!(edge.state.follow.head().0, 0, "nothing of it was stored");
}

#[tokio::test]
async fn a_chunk_extension_is_passed_over_however_long_it_is() {
    let edge = Edge::start(Options::default()).await;
    let chunked =
        format!("{POST}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(exchange(&edge, chunked).await.statuses(), ["202"]);
    assert_eq!(edge.state.follow.get(hookcast_core::model::Seq(1)).await.unwrap().unwrap().data(), "hello");
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_at_once() {
    let edge = Edge::start(Options::default()).await;
    let mut stream = connect(&edge).await;
    stream.write_all(format!("{POST}Content-Length: 99999999999\r\n\r\n").as_bytes()).await.unwrap();
    let heard = hear(&mut stream, 1).await;
    assert_eq!(heard.statuses(), ["413"]);
    let chunks = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{}", format!("10000\r\n{}\r\n", "x".repeat(65536)).repeat(17));
    let heard = exchange(&edge, chunks).await;
    assert!(heard.statuses() == ["413"] && heard.ends_as_it_says(), "{}", heard.text);
}

#[tokio::test]
async fn a_chunked_body_without_end_does_not_keep_the_connection() {
    let limits = HttpLimits { body_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    let edge = Edge::start(Options { limits, ..Options::default() }).await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhel";
    let rows = [
        (format!("{POST}{chunked}"), "408"),
        (format!("POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\n{chunked}"), "404"),
        (format!("POST /v1/topics HTTP/1.1\r\nHost: localhost\r\n{chunked}"), "405"),
        (format!("POST /v1/topics HTTP/1.1\r\nHost: evil.example\r\n{chunked}"), "403"),
    ];
    for (request, status) in rows {
        let heard = exchange(&edge, request).await;
        assert_eq!(heard.statuses(), [status], "{}", heard.text);
        assert!(heard.ends_as_it_says(), "{status}: {}", heard.text);
    }
    // One that ends may be followed by another request.
    let heard = exchange(&edge, format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{GET_CLOSE}")).await;
    assert_eq!(heard.statuses(), ["202", "200"], "{}", heard.text);
}

#[tokio::test]
async fn a_late_head_and_a_late_body_end_the_connection() {
    let limits = HttpLimits { body_timeout: Duration::from_millis(300), ..HttpLimits::default() };
    // Long enough for what a test sends at once to be there, on a busy machine too.
    let server = ServerSettings { head_timeout: Duration::from_millis(1200), ..Options::default().server };
    let edge = Edge::start(Options { limits, server, ..Options::default() }).await;

    let (mut silent, mut slow_head) = (connect(&edge).await, connect(&edge).await);
    slow_head.write_all(b"GET /healthz HT").await.unwrap();
    let (silent, slow_head) = tokio::join!(hear(&mut silent, usize::MAX), hear(&mut slow_head, usize::MAX));
    assert!(silent.closed, "no byte at all");
    assert!(slow_head.ends_as_it_says() && slow_head.statuses() == ["408"], "{}", slow_head.text);

    let mut slow_body = connect(&edge).await;
    slow_body.write_all(format!("{POST}Content-Length: 100\r\n\r\nhel").as_bytes()).await.unwrap();
    let (mut reader, mut writer) = slow_body.split();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if writer.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = [0; 512];
    let read = async { timeout(PATIENCE, reader.read(&mut answer)).await.unwrap().unwrap() };
    let read = tokio::select! { read = read => read, () = drip => unreachable!() };
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("application/problem+json"), "{text}");
    assert!(text.contains("\r\nconnection: close\r\n"), "{text}");
    assert_eq!(edge.state.follow.head().0, 0);
}

#[tokio::test]
async fn a_request_of_pieces_and_many_requests_in_one_piece_are_the_same() {
    let edge = Edge::start(Options::default()).await;
    let mut stream = connect(&edge).await;
    stream.set_nodelay(true).unwrap();
    for piece in format!("{POST}Content-Length: 11\r\n\r\nhello world").as_bytes().chunks(7) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(hear(&mut stream, 1).await.statuses(), ["202"]);
    assert_eq!(edge.state.follow.get(hookcast_core::model::Seq(1)).await.unwrap().unwrap().data(), "hello world");

    let (mut reader, mut writer) = connect(&edge).await.into_split();
    let many = format!("{POST}Content-Length: 1\r\n\r\nx").repeat(1000);
    let writing = tokio::spawn(async move { writer.write_all(many.as_bytes()).await.map(|()| writer) });
    let mut bytes = Vec::new();
    let reading = async {
        let mut piece = vec![0; 65536];
        while bytes.windows(12).filter(|window| window == b"HTTP/1.1 202").count() < 1000 {
            match reader.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
            }
        }
    };
    timeout(PATIENCE, reading).await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let seqs: Vec<u64> = text.split("\"seq\":").skip(1).map(|rest| rest.split(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(seqs, (2..=1001).collect::<Vec<_>>(), "answered in order");
    drop(writing.await);
}

#[tokio::test]
async fn what_http_allows_is_ignored_where_it_means_nothing_here() {
    let edge = Edge::start(Options::default()).await;
    let close = "Connection: close\r\n\r\n";
    let ranges = "0-,".repeat(1000);
    for headers in [
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".to_owned(),
        format!("Range: bytes={ranges}\r\n"),
        "Expect: 100-continue\r\n".to_owned(),
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: evil\r\n".to_owned(),
        "Accept-Encoding: gzip, br\r\n".to_owned(),
    ] {
        let heard = exchange(&edge, format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}{close}")).await;
        assert!(heard.statuses().ends_with(&["200"]), "{headers}: {}", heard.text);
        assert!(heard.text.len() < 1000 && heard.text.ends_with("{\"status\":\"ok\"}"), "{}", heard.text);
        assert!(!heard.text.to_ascii_lowercase().contains("\nserver:"), "{}", heard.text);
    }
    let old = exchange(&edge, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(old.closed && old.text.contains(" 200 ") && !old.text.contains("chunked"), "{}", old.text);
}

/// Clients that would rather speak HTTP/2 offer it with their first request, and keep the connection when it is not taken.
#[tokio::test]
async fn who_offers_another_protocol_is_told_that_the_connection_ends_with_the_answer() {
    let edge = Edge::start(Options::default()).await;
    let offer = "Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    for (request, status) in [
        (format!("GET /healthz HTTP/1.1\r\n{offer}\r\n"), "200"),
        (format!("GET /nothing HTTP/1.1\r\n{offer}\r\n"), "404"),
        (format!("POST /v1/topics/t/events HTTP/1.1\r\n{offer}Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx"), "202"),
        (format!("GET /v1/topics/t/stream?limit=1&since=earliest HTTP/1.1\r\n{offer}\r\n"), "200"),
        (format!("GET /v1/topics/t/stream?format=ws HTTP/1.1\r\n{offer}\r\n"), "426"),
    ] {
        let heard = exchange(&edge, &request).await;
        assert!(heard.statuses() == [status] && heard.ends_as_it_says(), "{request}: {}", heard.text);
    }
}

#[tokio::test]
async fn a_full_server_says_so_whatever_its_workers_could_serve() {
    let server = ServerSettings { workers: 1, connections_max: 2, room: 2, ..Options::default().server };
    let edge = Edge::start(Options { server, ..Options::default() }).await;
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut inside = connect(&edge).await;
    inside.write_all(get.as_bytes()).await.unwrap();
    assert_eq!(hear(&mut inside, 1).await.statuses(), ["200"]);
    // One address has all but a part of the room; of two places that is both.
    let mut other = connect(&edge).await;
    other.write_all(get.as_bytes()).await.unwrap();
    assert_eq!(hear(&mut other, 1).await.statuses(), ["200"]);
    let heard = exchange(&edge, get).await;
    assert!(heard.statuses() == ["503"] && heard.ends_as_it_says(), "{}", heard.text);
}
