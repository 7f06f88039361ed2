//! How a WebSocket stream ends: every code, said once, and the peer has time to answer.

use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _};

use super::wire::{HANDSHAKE, OURS, Socket, frame};
use crate::support::Relay;

/// Flips a byte of the first page of the log.
const DAMAGE: &str = "UPDATE log SET data = CAST(substr(data, 1, 60) || x'00ff' || substr(data, 63) AS BLOB) WHERE first = 1";

#[tokio::test]
async fn what_a_client_does_wrong_is_told_by_the_code() {
    let relay = Relay::start().await;
    relay.publish("t", "1").await;
    let long = vec![b'x'; 65_537];
    for (what, bytes, code) in [
        ("bytes", frame(0x82, b"x"), 1003),
        ("another text", frame(0x81, b"hello"), 1008),
        ("a resume with more in it", frame(0x81, b"{\"resume\":1,\"topics\":\"**\"}"), 1008),
        ("a long text", frame(0x81, &long[..40_000]), 1008),
        ("no UTF-8", frame(0x81, b"\xc3("), 1007),
        ("half a character", frame(0x81, b"\xe2\x82"), 1007),
        ("unmasked", b"\x89\x00".to_vec(), 1002),
        ("reserved bit", frame(0xc1, b"x"), 1002),
        ("reserved opcode", frame(0x8b, b""), 1002),
        ("fragmented ping", frame(0x09, b""), 1002),
        ("long ping", frame(0x89, &[0; 126]), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("message in a message", [frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002),
        ("a code that is never sent", frame(0x88, &1006u16.to_be_bytes()), 1002),
        ("a frame of 64 KiB and one byte", frame(0x81, &long), 1009),
        ("a message in parts over 64 KiB", [frame(0x01, &long[..65_000]), frame(0x80, &[b'x'; 537])].concat(), 1009),
        ("too many pings", frame(0x89, b"").repeat(500), 1008),
    ] {
        let mut socket = Socket::open(&relay, "t/stream?since=earliest", OURS).await;
        assert_eq!(socket.seqs(1).await, [1]);
        socket.send(&bytes).await;
        let close = socket.close().await;
        assert_eq!(close.code(), Some(code), "{what}");
        assert!(!close.reason().is_empty(), "{what}");
        socket.part().await;
    }
    let mut socket = Socket::open(&relay, "t/stream", HANDSHAKE).await;
    socket.say("{\"resume\":1}").await;
    assert_eq!(socket.close().await.code(), Some(1008), "only in the subprotocol");
}

#[tokio::test]
async fn pings_are_answered_and_a_close_is_given_back() {
    let relay = Relay::start().await;
    let mut socket = Socket::open(&relay, "t/stream", HANDSHAKE).await;
    for _ in 0..3 {
        socket.send(&frame(0x8a, b"unasked")).await;
        socket.send(&frame(0x89, b"are you there")).await;
        let pong = socket.next().await.unwrap();
        assert_eq!((pong.opcode, &pong.payload[..]), (10, &b"are you there"[..]));
    }
    socket.send(&frame(0x88, b"\x0f\xa0mine")).await;
    assert_eq!(socket.close().await.code(), Some(4000));
    assert_eq!(socket.next().await, None);
    let mut socket = Socket::open(&relay, "t/stream", HANDSHAKE).await;
    socket.send(&frame(0x88, b"")).await;
    assert_eq!(socket.close().await.code(), None);
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn an_end_that_was_asked_for_is_1000() {
    let relay = Relay::start().await;
    relay.publish_numbers("t", 0..5).await;
    let mut socket = Socket::open(&relay, "t/stream?since=earliest&limit=3", HANDSHAKE).await;
    assert_eq!(socket.seqs(3).await, [1, 2, 3]);
    assert_eq!(socket.next().await.unwrap().code(), Some(1000));
    socket.part().await;
    let mut socket = Socket::open(&relay, "t/stream?max_duration=1s", HANDSHAKE).await;
    assert_eq!(socket.close().await.code(), Some(1000));
    // Who does not answer is left after a while.
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn a_relay_that_stops_says_1001_and_does_not_wait_for_those_who_do_not_answer() {
    let mut relay = Relay::start().await;
    let mut answering = Socket::open(&relay, "t/stream", HANDSHAKE).await;
    let mut silent = Socket::open(&relay, "t/stream", HANDSHAKE).await;
    relay.signal("TERM").await;
    assert_eq!(answering.close().await.code(), Some(1001));
    answering.part().await;
    assert_eq!(silent.close().await.code(), Some(1001));
    assert_eq!(relay.ended().await, Some(0), "{}", relay.log());
    assert_eq!(silent.next().await, None);
}

#[tokio::test]
async fn a_page_of_the_log_that_cannot_be_read_is_a_gap_and_the_rest_is_sent() {
    let mut relay = Relay::start().await;
    // Far more than what a start reads.
    relay.publish_numbers("t", 0..20_000).await;
    assert_eq!(relay.terminate().await, Some(0));
    let path = relay.path("data/hookcast.db");
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    sqlx::raw_sql(DAMAGE).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    relay.restart().await;
    let mut socket = Socket::open(&relay, "t/stream?since=earliest", HANDSHAKE).await;
    let gap = socket.event().await;
    let end: u64 = gap["data"]["to"].to_string().trim_matches('"').parse().unwrap();
    assert_eq!((&gap["type"], &gap["data"]["from"]), (&json!("hookcast.gap"), &json!(1)), "{gap}");
    assert_eq!(socket.seqs(2).await, [end + 1, end + 2]);
}
