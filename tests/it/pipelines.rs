//! Requests sent ahead of their answers: each is answered in its turn, and what is not yet wanted stays in the socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use hookcast_http::HttpLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::edge::{Edge, Options};
use crate::support::{PATIENCE, for_a_while};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POLL: &str = "GET /v1/topics/quiet/events?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";
const CHUNKED_POLL: &str =
    "GET /v1/topics/quiet/events?wait=60 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
const PREFLIGHT: &str = "OPTIONS /v1/topics HTTP/1.1\r\nHost: localhost\r\nOrigin: https://pages.example\r\n\
                         Access-Control-Request-Method: GET\r\n\r\n";
const POST: &str = "POST /v1/topics/t/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
/// The row of a request that is refused whatever its body is.
const REFUSED: &str = "chunks that nobody wants";
/// What the relay may read ahead of its answers, with some room for what it answers at once.
const AHEAD: u64 = 80 * 1024;

/// An edge that takes events of several megabytes.
async fn edge() -> Edge {
    let limits = HttpLimits { event_bytes: 8 * 1024 * 1024, ..HttpLimits::default() };
    Edge::start(Options { limits, ..Options::default() }).await
}

/// A client whose socket holds little.
async fn connect(edge: &Edge) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.set_send_buffer_size(8 * 1024).unwrap();
    socket.connect(edge.address).await.unwrap()
}

/// Writes all of it, and reads until so many answers came, both at once; their statuses and the bytes.
async fn exchange(stream: &mut TcpStream, bytes: &[u8], count: usize) -> (Vec<String>, String) {
    let (mut reader, mut writer) = stream.split();
    let mut heard = Vec::new();
    let statuses = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect();
        (statuses, text)
    };
    let reading = async {
        let mut seen = 0;
        while seen < count || !heard.ends_with(b"\n") && !heard.ends_with(b"}") && !heard.ends_with(b"ok") {
            let from = heard.len().saturating_sub(8);
            if reader.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                break;
            }
            let new = &heard[from..];
            // A mark that was whole before is not counted again.
            seen += new.windows(9).filter(|mark| mark == b"HTTP/1.1 ").count();
        }
    };
    // Whoever is refused may be closed to before all is written.
    let writing = async { drop(writer.write_all(bytes).await) };
    let both = timeout(PATIENCE, async { tokio::join!(reading, writing) }).await;
    let (statuses, text) = statuses(&heard);
    assert!(both.is_ok(), "{} of {count} answers, the last: {:?}", statuses.len(), text.get(text.len().saturating_sub(200)..));
    (statuses, text)
}

fn with_length(body: &str) -> String {
    format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn chunked(body: &str) -> String {
    let chunks: String = body
        .as_bytes()
        .chunks(70_000)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
        .collect();
    format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

#[tokio::test]
async fn all_that_is_sent_ahead_is_answered_in_order() {
    let edge = edge().await;
    let body = "a line of a body\r\n\r\n".repeat(200_000);
    let gets = GET.repeat(700);
    let long_head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let refused = "POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\n";
    let rows: Vec<(&str, String, Vec<(usize, &str)>)> = vec![
        ("requests", gets.clone(), vec![(700, "200")]),
        ("preflights", PREFLIGHT.repeat(700), vec![(700, "200")]),
        ("a body", format!("{GET}{}{GET}", with_length(&body)), vec![(1, "200"), (1, "202"), (1, "200")]),
        ("chunks", format!("{GET}{}{GET}", chunked(&body)), vec![(1, "200"), (1, "202"), (1, "200")]),
        (
            "bodies among requests",
            format!("{gets}{0}{gets}{1}{0}{gets}", with_length(&body), chunked(&body)),
            vec![(700, "200"), (1, "202"), (700, "200"), (2, "202"), (700, "200")],
        ),
        ("small bodies", with_length("hello").repeat(2000), vec![(2000, "202")]),
        ("long heads", long_head.repeat(3) + GET, vec![(4, "200")]),
        (
            REFUSED,
            format!("{GET}{refused}{}{gets}", chunked(&body[..40_000]).strip_prefix(POST).unwrap()),
            vec![(1, "200"), (1, "404"), (700, "200")],
        ),
    ];
    for (name, bytes, expected) in rows {
        let expected: Vec<&str> = expected.into_iter().flat_map(|(count, status)| vec![status; count]).collect();
        let mut stream = connect(&edge).await;
        for round in 0..2 {
            let (statuses, text) = exchange(&mut stream, bytes.as_bytes(), expected.len()).await;
            // Whoever is refused before the body came whole may be told that this is the last answer.
            if name == REFUSED && text.to_ascii_lowercase().contains("connection: close") {
                assert_eq!(statuses, expected[..2], "{name}, round {round}");
                let last = text.rsplit("HTTP/1.1 ").next().unwrap_or_default().to_ascii_lowercase();
                assert!(last.contains("connection: close"), "{name}, round {round}: {last:?}");
                stream = connect(&edge).await;
                continue;
            }
            assert_eq!(statuses, expected, "{name}, round {round}: {:?}", text.get(text.len().saturating_sub(300)..));
        }
    }
}

/// What too much waits for is not forgotten when the wait is over.
#[tokio::test]
async fn what_came_during_a_long_poll_is_answered_behind_it() {
    let edge = edge().await;
    let body = "b".repeat(3_000_000);
    for poll in [POLL, CHUNKED_POLL] {
        for (name, rest, expected) in [
            ("few", GET.repeat(100), vec!["200"; 100]),
            ("many", GET.repeat(4000), vec!["200"; 4000]),
            ("a body", format!("{}{GET}", with_length(&body)), vec!["202", "200"]),
            ("chunks", format!("{}{GET}", chunked(&body)), vec!["202", "200"]),
        ] {
            let mut stream = connect(&edge).await;
            let first = format!("{poll}{}", GET.repeat(20));
            stream.write_all(first.as_bytes()).await.unwrap();
            // The relay has these before the others come.
            for_a_while(Duration::from_millis(100)).await;
            let all = [vec!["200"; 21], expected].concat();
            let publish = async {
                for_a_while(Duration::from_millis(200)).await;
                let url = edge.url("/v1/topics/quiet/events");
                assert_eq!(edge.client.post(url).body("ping").send().await.unwrap().status(), 202);
            };
            let ((statuses, _), ()) = tokio::join!(exchange(&mut stream, rest.as_bytes(), all.len()), publish);
            assert_eq!(statuses, all, "{name}");
        }
    }
}

#[tokio::test]
async fn a_large_body_that_is_refused_early_is_told_so() {
    let edge = Edge::start(Options::default()).await;
    let body = "a line of a body\r\n\r\n".repeat(200_000);
    for (name, request) in [("length", with_length(&body)), ("chunks", chunked(&body))] {
        let mut stream = connect(&edge).await;
        let (statuses, text) = exchange(&mut stream, format!("{GET}{request}").as_bytes(), 2).await;
        assert_eq!(statuses, ["200", "413"], "{name}: {text}");
    }
}

/// Bytes that wait in the sockets of both sides, by the system's table.
#[cfg(target_os = "linux")]
fn in_sockets(edge: &Edge, stream: &TcpStream) -> u64 {
    let port = |address: &str| u16::from_str_radix(address.split(':').nth(1).unwrap(), 16).unwrap();
    let (server, client) = (edge.address.port(), stream.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut bytes = 0;
    for line in lines {
        let (sends, receives) = line[4].split_once(':').unwrap();
        match (port(line[1]), port(line[2])) {
            ports if ports == (client, server) => bytes += u64::from_str_radix(sends, 16).unwrap(),
            ports if ports == (server, client) => bytes += u64::from_str_radix(receives, 16).unwrap(),
            _ => {}
        }
    }
    bytes
}

/// Sends until the sockets are full and stay so; how many bytes the relay took of it, and how many were sent.
#[cfg(target_os = "linux")]
async fn taken(edge: &Edge, stream: &TcpStream, piece: &str, most: u64) -> (u64, u64) {
    let bytes = piece.repeat(1000);
    let mut sent = 0;
    while sent < most {
        let from = (sent % bytes.len() as u64) as usize;
        match stream.try_write(&bytes.as_bytes()[from..]) {
            Ok(written) => sent += written as u64,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                if timeout(Duration::from_millis(500), stream.writable()).await.is_err() {
                    break;
                }
            }
        }
    }
    (sent - in_sockets(edge, stream), sent)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn behind_a_long_poll_little_is_read() {
    let edge = edge().await;
    for poll in [POLL, CHUNKED_POLL] {
        let mut stream = connect(&edge).await;
        // What was uploaded before leaves large buffers.
        exchange(&mut stream, chunked(&"b".repeat(3_000_000)).as_bytes(), 1).await;
        stream.write_all(format!("{poll}{}", GET.repeat(20)).as_bytes()).await.unwrap();
        let (read, sent) = taken(&edge, &stream, GET, 64 << 20).await;
        assert!(read <= AHEAD && sent < 64 << 20, "{read} of {sent} bytes were read");
    }
}

/// Answers without a body stand in no bound of the server: only what is not read makes none.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_takes_no_answers_is_not_read_and_gets_them_all_later() {
    let edge = edge().await;
    for (name, request) in [("no body", PREFLIGHT), ("a body", GET)] {
        let mut stream = connect(&edge).await;
        let most = 32 << 20;
        let (read, sent) = taken(&edge, &stream, request, most).await;
        assert!(sent < most && read < 2 << 20, "{name}: {read} of {sent} bytes were read");
        let whole = sent.div_ceil(request.len() as u64);
        let rest = &request[request.len() - (whole * request.len() as u64 - sent) as usize..];
        let (statuses, _) = exchange(&mut stream, rest.as_bytes(), whole as usize).await;
        assert_eq!(statuses.len() as u64, whole, "{name}");
        assert!(statuses.iter().all(|status| status == "200"), "{name}");
    }
}
