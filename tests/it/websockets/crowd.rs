//! Clients that read nothing: they hold nobody up, cost little, and find everything once they read.

use serde_json::Value;
use socket2::{Domain, Socket as Raw, Type};
use tokio::net::TcpStream;

use super::wire::{HANDSHAKE, Socket};
use crate::support::{Relay, eventually};

const CLIENTS: usize = 200;
const EVENTS: u64 = 400;
/// Most that the relay may grow by for one of them.
const GROWTH_MAX: u64 = 256 * 1024;

/// A connection whose peer soon has nowhere to write to.
fn narrow(relay: &Relay) -> TcpStream {
    let raw = Raw::new(Domain::IPV4, Type::STREAM, None).unwrap();
    raw.set_recv_buffer_size(4 * 1024).unwrap();
    let address: std::net::SocketAddr = relay.url.trim_start_matches("http://").parse().unwrap();
    raw.connect(&address.into()).unwrap();
    raw.set_nonblocking(true).unwrap();
    TcpStream::from_std(raw.into()).unwrap()
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn two_hundred_who_read_nothing_hold_nobody_up_and_miss_nothing() {
    let relay = Relay::start().await;
    let data = format!("\"{}\"", "x".repeat(8_000));
    let mut healthy = Socket::open(&relay, "t/stream", HANDSHAKE).await;
    let mut idle = Vec::new();
    for _ in 0..CLIENTS {
        idle.push(Socket::ask_on(narrow(&relay), "t/stream?since=earliest", HANDSHAKE).await);
    }
    let before = resident_bytes(relay.pid());
    for seq in 1..=EVENTS {
        assert_eq!(relay.publish("t", data.clone()).await, seq);
        assert_eq!(healthy.seqs(1).await, [seq]);
    }
    let growth = resident_bytes(relay.pid()).saturating_sub(before);
    assert!(growth < GROWTH_MAX * CLIENTS as u64, "{growth}");
    let wanted: Vec<u64> = (1..=EVENTS).collect();
    for socket in idle.iter_mut().step_by(40) {
        assert_eq!(socket.seqs(wanted.len()).await, wanted);
    }
    drop(idle);
    eventually("the streams of those who left end", async || {
        let text = relay.client.get(format!("{}/metrics", relay.url)).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with("hookcast_streams_open ")).map(str::to_owned);
        (line? == "hookcast_streams_open 1").then_some(Value::Null)
    })
    .await;
}
