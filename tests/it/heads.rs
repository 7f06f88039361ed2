//! Time for the head of a request, wherever on its connection it stands, and what this time does not touch.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hookcast_http::ServerSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::edge::{Edge, Options};
use crate::support::{PATIENCE, for_a_while};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HALF: &str = "GET /healthz HTTP/1.1\r\nX: ";
const POLL: &str = "GET /v1/topics/quiet/events?wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /v1/topics/t/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";

/// An edge whose idle connections stay for longer than any test.
async fn edge() -> Edge {
    // Long enough for what a test sends at once to be there, on a busy machine too.
    let head_timeout = Duration::from_millis(1200);
    let server = ServerSettings { head_timeout, keep_alive: Duration::from_mins(10), ..Options::default().server };
    Edge::start(Options { server, ..Options::default() }).await
}

async fn send(edge: &Edge, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Reads until so many answers came.
async fn answers(stream: &mut TcpStream, count: usize) -> String {
    let mut text = String::new();
    while text.matches("HTTP/1.1 ").count() < count || !text.ends_with(['\n', '}', 'k']) {
        let mut piece = [0; 4096];
        let read =
            timeout(PATIENCE, stream.read(&mut piece)).await.unwrap_or_else(|_| panic!("an answer, after {text}")).unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    text
}

/// Reads to the end, while `drip` is written again and again; what was read.
async fn end(name: &str, stream: TcpStream, drip: &'static str) -> String {
    let (mut reader, mut writer) = stream.into_split();
    let dripping = async {
        let mut beat = interval(Duration::from_millis(50));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !drip.is_empty() {
            beat.tick().await;
            if writer.write_all(drip.as_bytes()).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut bytes = Vec::new();
        // A reset is an end, too: bytes may have been on their way.
        let _ = reader.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let ended = timeout(PATIENCE, async {
        tokio::select! { text = reading => text, () = dripping => unreachable!() }
    })
    .await;
    ended.unwrap_or_else(|_| panic!("still open: {name}"))
}

fn chunked(body: &str) -> String {
    format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

fn with_length(body: &str) -> String {
    format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A machine that was paused, or has too much to do: what was sent in time is not refused for that, nor left without an answer.
#[tokio::test]
async fn what_came_while_the_relay_stood_still_is_answered() {
    let time = Duration::from_millis(1200);
    let (stands, mut standing) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = Mutex::new(told);
    let metrics = Arc::new(move || {
        stands.send(()).unwrap();
        told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        String::new()
    });
    let server = ServerSettings { workers: 1, head_timeout: time, keep_alive: time, ..Options::default().server };
    let edge = Edge::start(Options { server, metrics, ..Options::default() }).await;
    let mut kept = send(&edge, GET).await;
    answers(&mut kept, 1).await;
    let _standstill = send(&edge, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    timeout(PATIENCE, standing.recv()).await.unwrap().unwrap();
    kept.write_all(GET.as_bytes()).await.unwrap();
    let mut fresh = send(&edge, GET).await;
    for_a_while(2 * time).await;
    go_on.send(()).unwrap();
    for (name, stream) in [("kept", &mut kept), ("fresh", &mut fresh)] {
        let text = answers(stream, 1).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{name}: {text}");
    }
    assert_eq!(end("nobody uses it any more", kept, "").await, "");
}

#[tokio::test]
async fn every_head_has_its_time() {
    let edge = edge().await;
    // What is sent first and answered, what follows at once, and then again and again.
    let rows: Vec<(&str, String, usize, String, &str)> = vec![
        ("a second one, half and silent", GET.into(), 1, HALF.into(), ""),
        ("a second one, byte by byte", GET.into(), 1, HALF.into(), "a"),
        ("a second one, line by line", GET.into(), 1, "GET /healthz HTTP/1.1\r\n".into(), "x: y\r\n"),
        ("a third one", GET.repeat(2), 2, HALF.into(), "a"),
        ("empty lines only", GET.into(), 1, "\r\n".into(), "\r\n"),
        ("one letter", GET.into(), 1, "G".into(), ""),
        ("behind a body", with_length("x"), 1, HALF.into(), ""),
        ("behind chunks", chunked("x"), 1, HALF.into(), "a"),
        ("behind two requests, in one piece", String::new(), 0, format!("{GET}{GET}{HALF}"), ""),
        ("behind a body, in one piece", String::new(), 0, format!("{}{HALF}", with_length("hello\r\n\r\n")), ""),
        ("behind chunks, in one piece", String::new(), 0, format!("{}{HALF}", chunked("hello")), ""),
        ("behind bodies, in one piece, byte by byte", String::new(), 0, format!("{}{HALF}", with_length("x").repeat(2)), "a"),
        ("behind a long poll, in one piece", String::new(), 0, format!("{POLL}{HALF}"), ""),
        ("behind a long poll, byte by byte", String::new(), 0, format!("{POLL}{HALF}"), "a"),
        ("behind what is not there", String::new(), 0, format!("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n{HALF}"), ""),
        ("behind lines without CR", String::new(), 0, format!("GET /healthz HTTP/1.1\nHost: localhost\n\n{HALF}"), ""),
    ];
    let all = rows.into_iter().map(|(name, first, count, then, drip)| {
        let edge = &edge;
        async move {
            let mut stream = send(edge, &first).await;
            if count > 0 {
                answers(&mut stream, count).await;
            }
            stream.write_all(then.as_bytes()).await.unwrap();
            (name, drip, end(name, stream, drip).await)
        }
    });
    for (name, drip, text) in join_all(all).await {
        assert!(!text.contains("HTTP/1.1 400") && !text.contains("HTTP/1.1 5"), "{name}: {text}");
        // Whoever goes on sending may lose the word to a reset.
        if drip.is_empty() {
            let (_, last) = text.rsplit_once("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {name}"));
            assert!(last.starts_with("408 ") && last.to_lowercase().contains("connection: close"), "{name}: {text}");
        }
    }
}

/// What is kept, waits or is slow for another reason stays as long as before.
#[tokio::test]
async fn the_time_for_heads_is_for_nothing_else() {
    let edge = edge().await;
    let mut idle = Vec::new();
    for (first, count) in [
        (GET.to_owned(), 1),
        (GET.repeat(3), 3),
        (with_length("one"), 1),
        (chunked("two"), 1),
        (format!("{GET}{}", chunked("three")), 2),
        (format!("{GET}{}", with_length("four")), 2),
        (format!("{POST}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"), 1),
        ("GET /healthz HTTP/1.1\nHost: localhost\n\n".to_owned(), 1),
    ] {
        let mut stream = send(&edge, &first).await;
        answers(&mut stream, count).await;
        if first.contains("Expect") {
            stream.write_all(b"six").await.unwrap();
            answers(&mut stream, 1).await;
        }
        idle.push(stream);
    }
    // A head and a body in pieces.
    let mut pieces = send(&edge, "").await;
    for piece in with_length("hello\r\n\r\nhello").as_bytes().chunks(5) {
        pieces.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    answers(&mut pieces, 1).await;
    idle.push(pieces);
    let mut slow_body = send(&edge, &format!("{GET}{POST}Content-Length: 10\r\n\r\nhel")).await;
    answers(&mut slow_body, 1).await;
    let mut slow_chunks = send(&edge, &format!("{GET}{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhel")).await;
    answers(&mut slow_chunks, 1).await;
    let mut poll = send(&edge, &format!("{GET}{}", POLL.replace("wait=1", "wait=60"))).await;
    answers(&mut poll, 1).await;
    let mut stream = send(&edge, &format!("{GET}GET /v1/topics/quiet/stream?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    answers(&mut stream, 2).await;
    // Two lives of heads that are late pass.
    for _ in 0..2 {
        let mut late = send(&edge, GET).await;
        answers(&mut late, 1).await;
        late.write_all(HALF.as_bytes()).await.unwrap();
        end("late", late, "").await;
    }
    for (n, mut kept) in idle.into_iter().enumerate() {
        kept.write_all(GET.as_bytes()).await.unwrap_or_else(|error| panic!("{n}: {error}"));
        assert!(answers(&mut kept, 1).await.contains("200 OK"), "{n}");
    }
    slow_body.write_all(b"lo world").await.unwrap();
    assert!(answers(&mut slow_body, 1).await.contains(" 202 "));
    slow_chunks.write_all(b"lo\r\n0\r\n\r\n").await.unwrap();
    assert!(answers(&mut slow_chunks, 1).await.contains(" 202 "));
    let url = edge.url("/v1/topics/quiet/events");
    assert_eq!(edge.client.post(url).body("ping").send().await.unwrap().status(), 202);
    assert!(answers(&mut poll, 1).await.contains("ping"));
    let mut text = Vec::new();
    timeout(PATIENCE, async {
        while !String::from_utf8_lossy(&text).contains("ping") {
            assert!(stream.read_buf(&mut text).await.unwrap() > 0, "cut");
        }
    })
    .await
    .expect("the stream goes on");
}

#[actix_rt::test(system = "crate::support::System")]
async fn who_is_refused_for_a_later_head_is_told_that_the_connection_ends() {
    let edge = edge().await;
    let large = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: {}", "b".repeat(131_073));
    for (status, wrong) in [("400", "what is this?\r\n\r\n"), ("431", large.as_str())] {
        for before in [0, 1, 2] {
            let mut stream = send(&edge, "").await;
            for _ in 0..before {
                stream.write_all(GET.as_bytes()).await.unwrap();
                assert!(!answers(&mut stream, 1).await.contains("connection: close"));
            }
            stream.write_all(wrong.as_bytes()).await.unwrap();
            let text = end(status, stream, "").await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{status} behind {before}: {text}");
            assert_eq!(text.matches("connection: close\r\n").count(), 1, "{status} behind {before}: {text}");
            assert!(text.ends_with("\r\n\r\n"), "{text}");
        }
    }
}
