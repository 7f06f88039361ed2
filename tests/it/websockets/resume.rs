//! Going on where one stood: by a message, and from one transport to the next.

use serde_json::json;

use super::wire::{HANDSHAKE, OURS, Socket};
use crate::streams::relay as streams;
use crate::support::{Relay, in_time};

#[tokio::test]
async fn a_message_moves_the_stream_forth_and_back() {
    let relay = Relay::start().await;
    let seqs = relay.publish_numbers("t", 0..200).await;
    let mut socket = Socket::open(&relay, "t/stream", OURS).await;
    for (message, after) in [("{\"resume\":\"0\"}", 0), ("{\"resume\":150}", 150), ("{\"resume\":\"20\"}", 20)] {
        socket.say(message).await;
        let mut told = socket.event().await;
        while told["type"] != "hookcast.resumed" {
            told = socket.event().await;
        }
        assert_eq!(told["data"]["after"], after);
        assert_eq!(socket.seqs(50).await, seqs[after..after + 50], "{message}");
    }
    assert_eq!(socket.seqs(130).await, seqs[70..]);
    let live = relay.publish("t", "1").await;
    assert_eq!(socket.seqs(1).await, [live]);
    socket.say("{\"resume\":99999999999999999999}").await;
    assert_eq!(socket.close().await.code(), Some(1008), "no whole number");
    let mut socket = Socket::open(&relay, "t/stream", OURS).await;
    socket.say("{\"resume\":\"99999999999999999999\"}").await;
    assert_eq!(socket.event().await["type"], "hookcast.resumed");
    let reset = socket.event().await;
    assert_eq!((&reset["type"], &reset["data"]["head"]), (&json!("hookcast.reset"), &json!(live)));
    let next = relay.publish("t", "2").await;
    assert_eq!(socket.seqs(1).await, [next]);
}

#[tokio::test]
async fn a_reader_that_changes_its_transport_misses_nothing() {
    let relay = Relay::start().await;
    let mut published = relay.publish_numbers("t", 0..300).await;
    let (mut seen, mut after) = (Vec::new(), 0);
    for round in 0..6 {
        let from = format!("{}/v1/topics/t/stream?since={after}", relay.url);
        let mut got = match round % 3 {
            0 => by_chunks(relay.client.get(format!("{from}&format=sse")).send().await.unwrap(), "id: ").await,
            1 => Socket::open(&relay, &format!("t/stream?since={after}"), HANDSHAKE).await.seqs(70).await,
            _ => by_chunks(relay.client.get(from).send().await.unwrap(), "\"seq\":\"").await,
        };
        got.truncate(70);
        seen.extend(got);
        after = *seen.last().unwrap();
        published.extend(relay.publish_numbers("t", 300 + round * 25..325 + round * 25).await);
    }
    assert_eq!(seen, published[..seen.len()]);
    assert_eq!(seen.len(), 6 * 70);
}

/// The numbers that stand behind a mark, until there are enough.
async fn by_chunks(mut response: reqwest::Response, mark: &str) -> Vec<u64> {
    let mut text = String::new();
    in_time(async {
        while text.matches(mark).count() <= 70 {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
    })
    .await;
    text.split(mark).skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn silence_is_broken_by_pings_that_say_how_far_was_looked() {
    let relay = Relay::start().await;
    let mut socket = Socket::open(&relay, "quiet/stream?heartbeat=1s", HANDSHAKE).await;
    let seq = relay.publish("loud", "1").await;
    loop {
        let ping = socket.next().await.unwrap();
        assert_eq!(ping.opcode, 9);
        if ping.payload == seq.to_string().as_bytes() {
            break;
        }
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn gaps_and_resets_are_told_as_messages_wherever_the_stream_goes_on() {
    let relay = streams::Relay::start(streams::small(), 1024).await;
    relay.publish("t", 200).await;
    let oldest = relay.trim().await.0;
    let open = async |path: &str| {
        let stream = tokio::net::TcpStream::connect(relay.address()).await.unwrap();
        Socket::ask_on(stream, path, OURS).await
    };
    let mut socket = open("t/stream?since=3").await;
    let gap = socket.event().await;
    assert_eq!((&gap["type"], &gap["data"]), (&json!("hookcast.gap"), &json!({"from": 4, "to": oldest - 1})));
    assert_eq!(socket.seqs(1).await, [oldest]);
    socket.say("{\"resume\":\"7\"}").await;
    while socket.event().await["type"] != "hookcast.resumed" {}
    assert_eq!(socket.event().await["data"], json!({"from": 8, "to": oldest - 1}));
    assert_eq!(socket.seqs(2).await, [oldest, oldest + 1]);
    let mut socket = open("t/stream?since=1000").await;
    assert_eq!(socket.event().await["type"], "hookcast.reset");
    relay.stop().await;
}
