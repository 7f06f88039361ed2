//! The libraries `websockets` (Python) and `ws` (Node) replay what exchanges and Bluesky sent.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::support::*;
use crate::support::Relay;

const EXCHANGES: [&str; 7] = ["binance", "bitfinex", "bitmex", "bitstamp", "coinbase", "gemini", "kraken"];

fn recording(name: &str, mark: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(format!("tests/data/upstreams/{name}.txt"))).unwrap();
    text.lines().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
}

fn servers() -> [(&'static str, Tool); 2] {
    let folder = root().join("tests/data/upstreams");
    let folder = folder.to_str().unwrap();
    [("websockets", Tool::python("websocket_upstream.py", &[folder])), ("ws", Tool::node("websocket_upstream.mjs", &[folder]))]
}

#[tokio::test]
#[ignore = "needs node, python"]
async fn seven_exchanges_are_read_and_read_again_after_a_cut() {
    let relay = Relay::start().await;
    for (library, server) in servers() {
        for exchange in EXCHANGES {
            let name = format!("{exchange}-{library}");
            let messages = recording(exchange, "< ");
            let bytes: usize = messages.iter().map(String::len).sum();
            let cut = 300 + random_below(bytes - 300);
            let wire = Wire::to(server.address(), &[cut]).await;
            let settings = json!({"subscribe": recording(exchange, "> ")});
            read_from(&relay, &name, "websocket", &format!("ws://{}/{exchange}", wire.address), settings).await;
            again_from_the_beginning(&relay, &name, &messages, cut).await;
        }
    }
}

/// Nothing says where to go on: what came before the cut, and then everything once more, with a gap between.
async fn again_from_the_beginning(relay: &Relay, name: &str, messages: &[String], cut: usize) {
    crate::support::eventually("a source that came back", async || {
        let shown = source(relay, name).await;
        let done = shown["counts"]["gaps"] == 1 && shown["counts"]["events"].as_u64() >= Some(messages.len() as u64);
        done.then_some(())
    })
    .await;
    let parsed: Vec<Value> = messages.iter().map(|message| serde_json::from_str(message).unwrap()).collect();
    let before = loop {
        // How many came before the cut is for the bytes to say; those after it are all of them.
        let count = usize::try_from(source(relay, name).await["counts"]["events"].as_u64().unwrap()).unwrap();
        let got = data(relay, name, count).await;
        if let Some(before) = count.checked_sub(parsed.len())
            && got[before..] == parsed[..]
        {
            assert_eq!(got[..before], parsed[..before], "{name}, cut after {cut} bytes");
            break before;
        }
        tokio::task::yield_now().await;
    };
    assert!(before < parsed.len(), "{name}, cut after {cut} bytes");
}

#[tokio::test]
#[ignore = "needs node, python"]
async fn a_cursor_in_messages_is_where_a_feed_goes_on() {
    let relay = Relay::start().await;
    let messages: Vec<Value> =
        recording("jetstream", "< ").iter().map(|message| serde_json::from_str(message).unwrap()).collect();
    for (library, server) in servers() {
        for way in ["said", "asked"] {
            let cuts: Vec<usize> = (0..2).map(|_| 2000 + random_below(20_000)).collect();
            let name = format!("jetstream-{library}-{way}");
            follow(&relay, &name, way, server.address(), &cuts).await;
            assert_eq!(data(&relay, &name, messages.len()).await, messages, "{name}, cut after {cuts:?} bytes");
            let shown = source(&relay, &name).await;
            let counts = (&shown["counts"]["gaps"], &shown["counts"]["reconnects"]);
            assert_eq!(counts, (&json!(0), &json!(2)), "{name}, cut after {cuts:?} bytes: {shown}");
            assert_eq!(shown["resume_token"], json!(messages[messages.len() - 1]["time_us"].to_string()), "{name}");
        }
    }
}

/// Reads the feed; the cursor is said in the first message, or asked for in the query as the service has it.
async fn follow(relay: &Relay, name: &str, way: &str, server: SocketAddr, cuts: &[usize]) {
    let wire = Wire::to(server, cuts).await;
    let fields = match way {
        "said" => json!({"settings": {"id": "/time_us", "resume": "/time_us", "subscribe": {"hello": true},
            "resume_message": "{\"cursor\": {resume}}"}}),
        _ => json!({"settings": {"id": "/time_us", "resume": "/time_us"}, "query": {"cursor": "{resume}"}}),
    };
    let query = if way == "said" { "?said" } else { "" };
    read_as(relay, name, "websocket", &format!("ws://{}/jetstream{query}", wire.address), fields).await;
    // What a cursor begins with comes again, and is handed on again; the log has it once.
    crate::support::eventually("all of it", async || {
        let shown = source(relay, name).await;
        let handed_on = shown["counts"]["events"].as_u64()? + shown["counts"]["repeats"].as_u64()?;
        (handed_on >= 121 + cuts.len() as u64).then_some(())
    })
    .await;
}
