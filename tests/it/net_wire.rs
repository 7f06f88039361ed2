//! The delivery client against endpoints that break every rule; one test a trap of the wire client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use crate::net_fault::{FaultServer, Peer};
use bytes::Bytes;
use hookcast_net::client::{
    BODY_HEAD_BYTES_MAX, HeaderLines, HeaderName, PostRequest, PreparedTarget, WireAnswer, WireClient, WireFailure,
};
use hookcast_net::dial::Gate;
use hookcast_net::tls::Tls;
use hookcast_net::{EgressRules, ResolverChoice, Target};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Long enough for anything that is to succeed.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// Short enough for what never answers.
const BRIEF: Duration = Duration::from_millis(300);

pub(crate) fn gate() -> Gate {
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    let resolver = ResolverChoice::Server("127.0.0.1:9".parse().unwrap());
    Gate::open(EgressRules::new(allow, false, resolver, Vec::new())).unwrap()
}

pub(crate) fn client() -> WireClient {
    WireClient::new(gate())
}

pub(crate) fn prepared(url: &str) -> PreparedTarget {
    static TLS: LazyLock<Tls> = LazyLock::new(|| Tls::new(&[]).unwrap());
    PreparedTarget::new(Target::parse(url).unwrap(), &TLS).unwrap()
}

pub(crate) async fn post_to(client: &WireClient, target: &PreparedTarget, deadline: Duration) -> Result<WireAnswer, WireFailure> {
    post_body(client, target, "{}".into(), deadline).await
}

pub(crate) async fn post_body(
    client: &WireClient,
    target: &PreparedTarget,
    body: Bytes,
    deadline: Duration,
) -> Result<WireAnswer, WireFailure> {
    let (mut fixed, mut stamp) = (HeaderLines::default(), HeaderLines::default());
    fixed.push(&HeaderName::from_static("user-agent"), "hookcast/test");
    stamp.push(&HeaderName::from_static("webhook-id"), "msg_1");
    let request = PostRequest { target, lines: &[&fixed, &stamp], body: &body };
    client.post(request, Instant::now(), deadline).await.0
}

pub(crate) async fn post(server: &FaultServer, deadline: Duration) -> Result<WireAnswer, WireFailure> {
    post_to(&client(), &prepared(&server.url()), deadline).await
}

/// The status of an answer, or the slug of a failure.
pub(crate) fn word(outcome: &Result<WireAnswer, WireFailure>) -> String {
    match outcome {
        Ok(answer) => answer.status.to_string(),
        Err(failure) => failure.slug().to_owned(),
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[actix_rt::test(system = "crate::support::System")]
async fn a_post_carries_what_it_was_given() {
    let server = FaultServer::answering(OK);
    let answer = post(&server, PATIENT).await.unwrap();
    assert_eq!((answer.status, &answer.body_head[..]), (200, &b"ok"[..]));
    let request = server.requests().remove(0);
    assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{}"), "{request}");
    let lower = request.to_ascii_lowercase();
    assert_eq!(lower.matches("\r\nhost:").count(), 1);
    assert!(lower.contains(&format!("\r\nhost: {}\r\n", server.address())));
    assert_eq!(lower.matches("\r\nwebhook-id:").count(), 1);
    for line in ["webhook-id: msg_1", "user-agent: hookcast/test", "content-length: 2"] {
        assert!(lower.contains(&format!("\r\n{line}\r\n")), "{line}: {request}");
    }
    for absent in ["accept-encoding", "expect", "cookie", "transfer-encoding"] {
        assert!(!lower.contains(&format!("\r\n{absent}:")), "{absent}: {request}");
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_encoded_line_break_in_the_path_stays_encoded() {
    let server = FaultServer::answering(EMPTY);
    let url = format!("http://{}/%0d%0aHost:%20evil", server.address());
    assert_eq!(word(&post_to(&client(), &prepared(&url), PATIENT).await), "200");
    let request = server.requests().remove(0).to_ascii_lowercase();
    assert!(request.starts_with("post /%0d%0ahost:%20evil http/1.1\r\n"), "{request}");
    assert_eq!(request.matches("\r\nhost:").count(), 1);
}

#[actix_rt::test(system = "crate::support::System")]
async fn every_status_is_an_answer() {
    for status in [200, 201, 202, 204, 206, 304, 400, 401, 404, 408, 410, 413, 429, 500, 502, 503, 504, 999] {
        let body = if matches!(status, 204 | 304) { "\r\n" } else { "Content-Length: 0\r\n\r\n" };
        let server = FaultServer::answering(format!("HTTP/1.1 {status} x\r\n{body}"));
        assert_eq!(word(&post(&server, PATIENT).await), status.to_string());
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn headers_that_steer_the_relay_are_handed_on() {
    let server =
        FaultServer::answering("HTTP/1.1 503 x\r\nRetry-After: 120.5\r\nWebhook-Delivery: abort\r\nContent-Length: 0\r\n\r\n");
    let answer = post(&server, PATIENT).await.unwrap();
    assert_eq!(answer.retry_after.as_deref(), Some("120.5"));
    assert_eq!(answer.webhook_delivery.as_deref(), Some("abort"));
}

#[actix_rt::test(system = "crate::support::System")]
async fn redirects_are_answers_and_never_followed() {
    let elsewhere = FaultServer::answering(EMPTY);
    for status in [301, 302, 303, 307, 308] {
        let server =
            FaultServer::answering(format!("HTTP/1.1 {status} x\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url()));
        assert_eq!(word(&post(&server, PATIENT).await), status.to_string());
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_interim_response_is_not_the_answer() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let server = FaultServer::answering(format!("{hints}{OK}"));
    let (client, target) = (client(), prepared(&server.url()));
    for _ in 0..3 {
        let answer = post_to(&client, &target, PATIENT).await.unwrap();
        assert_eq!((answer.status, &answer.body_head[..]), (200, &b"ok"[..]));
    }
    assert_eq!(server.connections(), 1, "a clean exchange keeps its connection");
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_late_answer_is_not_taken_for_the_next_one() {
    // The interim response ends the first attempt by its deadline; its real answer (500) comes while the second waits.
    let server = FaultServer::start(|mut peer| {
        while peer.request().is_some() {
            if peer.number == 0 {
                peer.send("HTTP/1.1 102 Processing\r\n\r\n");
                peer.wait_for_close();
                return;
            }
            peer.send(OK);
        }
    });
    let (client, target) = (client(), prepared(&server.url()));
    assert_eq!(word(&post_to(&client, &target, BRIEF).await), "timeout");
    assert_eq!(word(&post_to(&client, &target, PATIENT).await), "200");
    assert_eq!(server.connections(), 2);
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_is_no_answer_is_a_protocol_failure_and_costs_the_connection() {
    for bytes in [
        "HTTP/1.1 20 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        "<html>hello</html>".to_owned(),
        format!("HTTP/1.1 200 OK\r\nX-Big: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(200 * 1024)),
        format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "x: y\r\n".repeat(120)),
    ] {
        let shown = bytes[..bytes.len().min(60)].to_owned();
        let server = FaultServer::answering(bytes);
        let (client, target) = (client(), prepared(&server.url()));
        for attempt in 1..=2 {
            assert_eq!(word(&post_to(&client, &target, PATIENT).await), "protocol", "{shown:?}");
            assert_eq!(server.connections(), attempt, "{shown:?}");
        }
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_body_without_length_is_kept_and_ends_the_connection() {
    let server = FaultServer::start(|mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\n");
        peer.send("no length");
    });
    let (client, target) = (client(), prepared(&server.url()));
    for attempt in 1..=2 {
        let answer = post_to(&client, &target, PATIENT).await.unwrap();
        assert_eq!(&answer.body_head[..], b"no length");
        assert_eq!(server.connections(), attempt);
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_body_in_chunks_is_kept_without_their_marks() {
    let server =
        FaultServer::answering("HTTP/1.1 400 x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let (client, target) = (client(), prepared(&server.url()));
    for _ in 0..2 {
        let answer = post_to(&client, &target, PATIENT).await.unwrap();
        assert_eq!((answer.status, &answer.body_head[..]), (400, &b"abcde"[..]));
    }
    assert_eq!(server.connections(), 1);
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_truncated_body_does_not_change_the_answer() {
    let server = FaultServer::start(|mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc");
    });
    let answer = post(&server, PATIENT).await.unwrap();
    assert_eq!((answer.status, &answer.body_head[..]), (200, &b"abc"[..]));
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_compressed_body_is_kept_as_sent() {
    let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\n".to_vec();
    let body = [0x1f, 0x8b, 8, 0, 0xff, 0];
    bytes.extend(body);
    let answer = post(&FaultServer::answering(bytes), PATIENT).await.unwrap();
    assert_eq!(&answer.body_head[..], &body);
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_endless_body_costs_the_connection_and_little_else() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let server = FaultServer::start(move |mut peer: Peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n");
        while peer.send([b'a'; 16 * 1024]) {
            counter.fetch_add(16 * 1024, Ordering::SeqCst);
        }
    });
    let answer = post(&server, PATIENT).await.unwrap();
    assert_eq!((answer.status, answer.body_head.len()), (200, BODY_HEAD_BYTES_MAX));
    // What the kernel buffers on both sides, not what the endpoint would like to send.
    assert!(sent.load(Ordering::SeqCst) < 64 * 1024 * 1024);
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_dripping_body_stops_being_read_and_the_status_stands() {
    let server = FaultServer::start(|mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        peer.wait_for_close();
    });
    let answer = post(&server, BRIEF).await.unwrap();
    assert_eq!((answer.status, &answer.body_head[..]), (200, &b"a"[..]));
}

#[actix_rt::test(system = "crate::support::System")]
async fn silence_and_dripping_heads_end_at_the_deadline() {
    let silent = FaultServer::start(|mut peer| {
        peer.request();
        peer.wait_for_close();
    });
    assert_eq!(word(&post(&silent, BRIEF).await), "timeout");
    let dripping = FaultServer::start(|mut peer| {
        peer.request();
        for byte in "HTTP/1.1 200 OK\r\nX-Long: ".bytes().chain(std::iter::repeat(b'a')) {
            if !peer.send([byte]) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    assert_eq!(word(&post(&dripping, BRIEF).await), "timeout");
}

#[actix_rt::test(system = "crate::support::System")]
async fn broken_connections_have_their_names() {
    let closed = FaultServer::start(|mut peer| drop(peer.request()));
    assert_eq!(word(&post(&closed, PATIENT).await), "eof");
    let reset = FaultServer::start(|mut peer| {
        peer.request();
        peer.reset();
    });
    assert_eq!(word(&post(&reset, PATIENT).await), "reset");
    let reset_at_once = FaultServer::start(Peer::reset);
    // The reset may arrive before the dial has returned; then there never was a connection.
    let at_once = post(&reset_at_once, PATIENT).await;
    assert!(["reset", "connect"].contains(&word(&at_once).as_str()), "{at_once:?}");
    let refused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    assert_eq!(word(&post_to(&client(), &prepared(&refused), PATIENT).await), "connect");
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_answer_before_the_body_is_read_counts() {
    let body = Bytes::from(vec![b'x'; 32 * 1024 * 1024]);
    // The endpoint answers and goes on holding the connection without reading.
    let holding = FaultServer::start(|mut peer| {
        peer.send(OK);
        std::thread::park_timeout(Duration::from_secs(5));
    });
    let outcome = post_body(&client(), &prepared(&holding.url()), body.clone(), Duration::from_secs(4)).await;
    assert_eq!(word(&outcome), "200");
    // The endpoint answers, says it is done, and reads the rest away.
    let draining = FaultServer::start(|mut peer| {
        peer.send(OK);
        peer.half_close();
        peer.wait_for_close();
    });
    let outcome = post_body(&client(), &prepared(&draining.url()), body, PATIENT).await;
    assert_eq!(word(&outcome), "200");
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_large_body_arrives_whole() {
    let server = FaultServer::answering(EMPTY);
    let body = Bytes::from(vec![b'x'; 3 * 1024 * 1024]);
    assert_eq!(word(&post_body(&client(), &prepared(&server.url()), body, PATIENT).await), "200");
    assert!(server.requests()[0].len() > 3 * 1024 * 1024);
}

#[actix_rt::test(system = "crate::support::System")]
async fn cookies_are_not_kept() {
    let server = FaultServer::answering("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n");
    let (client, target) = (client(), prepared(&server.url()));
    for _ in 0..2 {
        assert_eq!(word(&post_to(&client, &target, PATIENT).await), "200");
    }
    assert!(!server.requests()[1].to_ascii_lowercase().contains("cookie"));
}

#[actix_rt::test(system = "crate::support::System")]
async fn odd_bytes_do_not_spoil_an_answer() {
    let mut bytes = b"HTTP/1.1 200 OK\r\nRetry-After: \x1b[2J\r\nX-Latin: \xe9\r\nContent-Length: 2\r\n\r\n".to_vec();
    bytes.extend([0, 0xff]);
    let answer = post(&FaultServer::answering(bytes), PATIENT).await.unwrap();
    assert_eq!((answer.status, &answer.body_head[..]), (200, &[0, 0xff][..]));
    assert_eq!(answer.retry_after.as_deref(), Some("?[2J"));
}
