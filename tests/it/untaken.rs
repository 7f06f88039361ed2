//! Time for an answer to be taken: an answer that nobody reads does not keep its place, one that is read slowly is not cut.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::time::Duration;

use hookcast_http::ServerSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::edge::{Edge, Options};
use crate::support::{PATIENCE, counted, eventually};

/// Longer than all that the sockets of both sides hold.
const LARGE: usize = 4 * 1024 * 1024;
/// A request for such an answer, without its end.
const GET: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n";
const POLL: &str = "GET /v1/topics/quiet/events?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A client whose socket holds little.
async fn send_narrow(edge: &Edge, bytes: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(edge.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_and_a_slow_reader_gets_all_of_it() {
    let counted = counted();
    let time = Duration::from_secs(3);
    let server = ServerSettings { keep_alive: time, ..Options::default().server };
    let metrics = Arc::new(|| "#".repeat(LARGE));
    let edge = Edge::start(Options { server, metrics, ..Options::default() }).await;
    let rows = [
        ("kept", format!("{GET}\r\n")),
        ("to be closed", format!("{GET}Connection: close\r\n\r\n")),
        ("its body never came", format!("{GET}Content-Length: 1000000\r\n\r\n")),
        ("half a head behind it", format!("{GET}\r\nGET /healthz")),
        ("a long poll behind it", format!("{GET}\r\n{POLL}")),
    ];
    let mut steady = send_narrow(&edge, &rows[0].1).await;
    let mut untaken = Vec::new();
    for (name, request) in &rows {
        untaken.push((*name, send_narrow(&edge, request).await));
    }
    let mut all = Vec::new();
    let all_are_cut = eventually("all answers that nobody takes are cut", async || {
        counted.render().contains(&format!("hookcast_untaken_answers_total {}\n", rows.len())).then_some(())
    });
    let reading_slowly = async {
        let mut beat = interval(time / 12);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let most = LARGE.min(all.len() + LARGE / 32);
            while all.len() < most {
                assert!(steady.read_buf(&mut all).await.expect("the slow reader is served") > 0, "the slow reader is cut");
            }
        }
    };
    tokio::select! { () = all_are_cut => (), () = reading_slowly => unreachable!() }
    for (name, mut stream) in untaken {
        let mut text = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap_or_else(|_| panic!("still open: {name}"));
        assert!(ended.is_err() && text.len() < LARGE, "{name}: {ended:?}, {} bytes", text.len());
    }
    let body = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    timeout(PATIENCE, async {
        while all.len() < body + LARGE {
            assert!(steady.read_buf(&mut all).await.unwrap() > 0, "cut after {} bytes", all.len());
        }
    })
    .await
    .expect("all of it");
}
