//! The rows about WebSocket clients of the collection of bad inputs, each held against a running relay.

use super::wire::{HANDSHAKE, OURS, Socket, frame};
use crate::support::Relay;

const ROWS: &str = include_str!("../../data/websockets/bad-inputs.csv");

/// What a client does and what comes of it: the status of a refusal, or the code of a close.
async fn outcome(relay: &Relay, input: &str) -> (&'static str, u16) {
    let bytes = match input {
        "WebSocket upgrade with foreign Origin" => {
            let socket = Socket::ask(relay, "t/stream", &format!("{HANDSHAKE}origin: https://evil.example\r\n")).await;
            return ("REJECT", socket.status());
        }
        "WebSocket client frame of 1 MiB" => frame(0x81, &vec![b'x'; 1024 * 1024]),
        "WebSocket client unmasked frame" => b"\x81\x05hello".to_vec(),
        // Each of them would be understood: it is their number that is not.
        "WebSocket client sends 10000 msg/s" => frame(0x81, b"{\"resume\":\"1\"}").repeat(10_000),
        _ => panic!("a row without a test: {input}"),
    };
    let mut socket = Socket::open(relay, "t/stream", OURS).await;
    socket.send(&bytes).await;
    let close = socket.close().await;
    ("CLOSE", close.code().unwrap())
}

#[tokio::test]
async fn every_row_comes_out_as_it_says() {
    let relay = Relay::start().await;
    let mut healthy = Socket::open(&relay, "t/stream", HANDSHAKE).await;
    let mut rows = 0;
    for line in ROWS.lines().skip(1) {
        let fields: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
        let (word, number) = outcome(&relay, fields[1]).await;
        let expected = fields[2].split(' ').next().unwrap();
        assert_eq!(format!("{word}:{number}"), expected, "{line}");
        rows += 1;
    }
    assert_eq!(rows, 4);
    let seq = relay.publish("t", "1").await;
    assert_eq!(healthy.seqs(1).await, [seq], "nobody else noticed");
}
