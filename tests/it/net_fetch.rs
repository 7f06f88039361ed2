//! The upstream client: bodies that end, that are cut, and that never end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use crate::net_fault::{FaultServer, Peer};
use crate::net_wire::gate;
use futures_util::FutureExt as _;
use hookcast_net::Target;
use hookcast_net::fetch::{BodyEnd, FetchRequest, FetchResponse, Fetcher, HeaderMap, HeaderValue, Method};
use hookcast_net::tls::Tls;
use std::io::{Read as _, Write as _};
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

const PATIENT: Duration = Duration::from_secs(20);
const BRIEF: Duration = Duration::from_millis(300);

async fn fetch(server: &FaultServer, head_timeout: Duration) -> Result<FetchResponse, String> {
    let fetcher = Fetcher::new(gate(), Tls::new(&[]).unwrap());
    let target = Target::parse(&server.url()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("accept", HeaderValue::from_static("text/event-stream"));
    let request = FetchRequest { method: Method::GET, target: &target, headers, body: "".into(), head_timeout };
    fetcher.fetch(request).await.map_err(|error| error.slug().to_owned())
}

/// All of a body, and the word for how it ended.
async fn read(mut response: FetchResponse) -> (Vec<u8>, &'static str) {
    let mut all = Vec::new();
    while let Some(chunk) = response.body.next_chunk().await {
        match chunk {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => {
                assert_eq!(response.body.end(), None);
                return (all, error.slug());
            }
        }
    }
    assert!(response.body.next_chunk().await.is_none());
    let end = match response.body.end().unwrap() {
        BodyEnd::Complete => "complete",
        BodyEnd::Eof => "eof",
    };
    (all, end)
}

/// Answers once with `parts`, sent one by one, then closes.
fn once(parts: &'static [&'static str]) -> FaultServer {
    FaultServer::start(move |mut peer: Peer| {
        peer.request();
        for part in parts {
            peer.send(part);
        }
    })
}

async fn body_of(parts: &'static [&'static str]) -> (String, &'static str) {
    let (bytes, end) = read(fetch(&once(parts), PATIENT).await.unwrap()).await;
    (String::from_utf8(bytes).unwrap(), end)
}

#[tokio::test]
async fn a_get_carries_what_it_was_given() {
    let server = FaultServer::answering("HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok");
    let response = fetch(&server, PATIENT).await.unwrap();
    assert_eq!((response.status, response.headers["x-a"].as_bytes()), (200, &b"b"[..]));
    assert_eq!(read(response).await, (b"ok".to_vec(), "complete"));
    let request = server.requests().remove(0).to_ascii_lowercase();
    assert!(request.starts_with("get /hook?x=1 http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {}\r\n", server.address())), "{request}");
    assert!(request.contains("\r\naccept: text/event-stream\r\n"), "{request}");
}

#[tokio::test]
async fn framed_bodies_end_completely() {
    let length = &["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "abc", "def"];
    assert_eq!(body_of(length).await, ("abcdef".into(), "complete"));
    let chunked =
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n", "3;x\r\ndef\r\n", "0\r\nt: x\r\n\r\n"];
    assert_eq!(body_of(chunked).await, ("abcdef".into(), "complete"));
    assert_eq!(body_of(&["HTTP/1.1 204 No Content\r\n\r\n"]).await, (String::new(), "complete"));
}

#[tokio::test]
async fn a_body_without_framing_ends_with_the_connection() {
    assert_eq!(body_of(&["HTTP/1.1 200 OK\r\n\r\n", "a\n", "b"]).await, ("a\nb".into(), "eof"));
    assert_eq!(body_of(&["HTTP/1.0 200 OK\r\n\r\na"]).await, ("a".into(), "eof"));
}

#[tokio::test]
async fn cut_bodies_are_errors_after_what_arrived() {
    let length = &["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "abc"];
    assert_eq!(body_of(length).await, ("abc".into(), "truncated"));
    for cut in [
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n"][..],
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "6\r\nabc"],
    ] {
        assert_eq!(body_of(cut).await, ("abc".into(), "truncated"), "{cut:?}");
    }
    let broken = &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "zz\r\nabc\r\n"];
    assert_eq!(body_of(broken).await, (String::new(), "protocol"));
}

#[tokio::test]
async fn a_reset_is_told_from_a_cut() {
    let (read, on_read) = std::sync::mpsc::channel::<()>();
    let on_read = std::sync::Mutex::new(on_read);
    let server = FaultServer::start(move |mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\nabc");
        on_read.lock().unwrap().recv().unwrap();
        peer.reset();
    });
    let mut response = fetch(&server, PATIENT).await.unwrap();
    assert_eq!(&response.body.next_chunk().await.unwrap().unwrap()[..], b"abc");
    read.send(()).unwrap();
    let error = response.body.next_chunk().await.unwrap().unwrap_err();
    assert_eq!(error.slug(), "reset");
    assert!(response.body.next_chunk().await.is_none());
    let server = FaultServer::start(|mut peer| {
        peer.request();
        peer.reset();
    });
    assert_eq!(fetch(&server, PATIENT).await.unwrap_err(), "reset");
}

#[tokio::test]
async fn heads_that_fail_have_their_names() {
    assert_eq!(fetch(&once(&[]), PATIENT).await.unwrap_err(), "eof");
    assert_eq!(fetch(&once(&["HTTP/1.1 2"]), PATIENT).await.unwrap_err(), "eof");
    assert_eq!(fetch(&once(&["SSH-2.0-OpenSSH_9.6\r\n"]), PATIENT).await.unwrap_err(), "protocol");
    assert_eq!(fetch(&once(&["HTTP/1.1 101 x\r\nUpgrade: x\r\n\r\n"]), PATIENT).await.unwrap_err(), "protocol");
    let silent = FaultServer::start(|mut peer| {
        peer.wait_for_close();
    });
    assert_eq!(fetch(&silent, BRIEF).await.unwrap_err(), "timeout");
    let big = FaultServer::start(|mut peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(200 * 1024)));
        peer.wait_for_close();
    });
    assert_eq!(fetch(&big, PATIENT).await.unwrap_err(), "protocol");
}

#[tokio::test]
async fn interim_responses_are_skipped_and_redirects_are_not_followed() {
    let hints = once(&["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
    assert_eq!(fetch(&hints, PATIENT).await.unwrap().status, 200);
    let redirect = once(&["HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"]);
    assert_eq!(fetch(&redirect, PATIENT).await.unwrap().status, 302);
}

/// Answers with `bytes` whoever connects, before anything was said; tells when they are out. Gives its URL.
fn answering_at_accept(bytes: &'static str) -> (String, mpsc::Receiver<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (answered, on_answered) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        answered.send(()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    (url, on_answered)
}

const TOO_MANY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 4\r\n\r\nfull";

#[tokio::test]
async fn an_answer_that_was_there_before_the_request_is_an_answer() {
    let fetcher = Fetcher::new(gate(), Tls::new(&[]).unwrap());
    for is_upgrade in [false, true] {
        let (url, on_answered) = answering_at_accept(TOO_MANY);
        let target = Target::parse(&url).unwrap();
        let headers = HeaderMap::new();
        let request = FetchRequest { method: Method::GET, target: &target, headers, body: "".into(), head_timeout: PATIENT };
        let (status, headers) = if is_upgrade {
            let mut upgrade = pin!(fetcher.upgrade(request));
            assert!(upgrade.as_mut().now_or_never().is_none());
            // Nothing turns the runtime meanwhile: what was asked for next finds connection and answer at once.
            on_answered.recv().unwrap();
            let upgrade = upgrade.await.map_err(|error| error.to_string()).unwrap();
            (upgrade.status, upgrade.headers)
        } else {
            let mut fetch = pin!(fetcher.fetch(request));
            assert!(fetch.as_mut().now_or_never().is_none());
            on_answered.recv().unwrap();
            let mut response = fetch.await.map_err(|error| error.to_string()).unwrap();
            assert_eq!(&response.body.next_chunk().await.unwrap().unwrap()[..], b"full");
            (response.status, response.headers)
        };
        assert_eq!((status, headers["retry-after"].as_bytes()), (503, &b"5"[..]));
    }
}

#[tokio::test]
async fn an_endless_body_is_read_as_it_comes_and_closed_when_dropped() {
    let (seen, mut on_close) = tokio::sync::mpsc::unbounded_channel();
    let server = FaultServer::start(move |mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n");
        peer.wait_for_close();
        let _ = seen.send(());
    });
    let mut response = fetch(&server, PATIENT).await.unwrap();
    assert_eq!(&response.body.next_chunk().await.unwrap().unwrap()[..], b"1\n");
    // Waiting for more is cancelled without harm; dropping the body closes the connection.
    assert!(tokio::time::timeout(BRIEF, response.body.next_chunk()).await.is_err());
    drop(response);
    tokio::time::timeout(PATIENT, on_close.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_futures_may_change_threads() {
    let server = FaultServer::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let url = server.url();
    let read = tokio::spawn(async move {
        let fetcher = Fetcher::new(gate(), Tls::new(&[]).unwrap());
        let target = Target::parse(&url).unwrap();
        let request = FetchRequest {
            method: Method::POST,
            target: &target,
            headers: HeaderMap::new(),
            body: "{}".into(),
            head_timeout: PATIENT,
        };
        read(fetcher.fetch(request).await.unwrap()).await
    });
    assert_eq!(read.await.unwrap(), (b"ok".to_vec(), "complete"));
    assert!(server.requests()[0].ends_with("\r\n\r\n{}"));
}
