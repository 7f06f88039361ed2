//! Browsers: Chromium and Firefox receive real events by every way that pages have, through cuts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::cutter::Cutter;
use crate::support::proxy::free_port;
use crate::support::{Relay, edits};

const EVENTS: usize = 1000;
/// Time of one way; a browser that starts takes its share of the machine.
const WAY_PATIENCE: Duration = Duration::from_secs(40);
/// Bytes behind which a connection is cut: somewhere in the middle of the events.
const CUT_AT: usize = 200_000;
/// Everything a page can do.
const WAYS: [&str; 6] = ["eventsource", "fetch", "xhr", "iframe", "jsonp", "websocket"];

/// What came of each way, by its name.
async fn show(browser: &str, port: u16, ways: &Value) -> Value {
    let profile = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/browser.js");
    let mut child = Command::new("node")
        .arg(script)
        .args([browser, &port.to_string()])
        .arg(profile.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node is not there: run `make tools` first");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(ways.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    // Asked to end, not killed: it has a browser to take along.
    let pid = child.id().unwrap();
    let most = WAY_PATIENCE * u32::try_from(WAYS.len() + 1).unwrap();
    let Ok(output) = tokio::time::timeout(most, child.wait_with_output()).await else {
        let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
        panic!("{browser}: no results in time");
    };
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{browser}: {said}"))
}

struct Stage {
    relay: Relay,
    port: u16,
    token: String,
}

/// A relay with tokens and events, whose pages come from one other origin.
async fn stage() -> Stage {
    let port = free_port();
    let relay = Relay::start_served(&format!("cors_origins = [\"http://127.0.0.1:{port}\"]"), "").await;
    relay.publish_lines("wikipedia.edits", &edits(EVENTS)).await;
    let all = json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]});
    let token = relay.must("POST", "/v1/tokens", all).await["token"].as_str().unwrap().to_owned();
    Stage { relay, port, token }
}

impl Stage {
    fn way(&self, kind: &str, base: &str) -> Value {
        json!({"name": kind, "kind": kind, "base": base, "relay": self.relay.url, "topic": "wikipedia.edits",
            "token": self.token, "count": EVENTS, "patience_ms": WAY_PATIENCE.as_millis() as u64})
    }

    /// Every way through a network of its own that breaks once.
    async fn all_ways_through_cuts(&self, browser: &str) {
        let (mut cutters, mut ways) = (Vec::new(), Vec::new());
        for kind in WAYS {
            let cutter = Cutter::start(&self.relay.url, CUT_AT, 1).await;
            ways.push(self.way(kind, &format!("http://127.0.0.1:{}", cutter.port)));
            cutters.push(cutter);
        }
        let results = show(browser, self.port, &Value::from(ways)).await;
        for (kind, cutter) in WAYS.iter().zip(cutters) {
            let result = &results[kind];
            assert!(result["error"].is_null(), "{browser}, {kind}: {result}");
            let seqs: Vec<u64> = result["seqs"].as_array().unwrap().iter().map(|seq| seq.as_u64().unwrap()).collect();
            assert_eq!(seqs, (1..=EVENTS as u64).collect::<Vec<_>>(), "{browser}, {kind}");
            assert_eq!(cutter.left(), 0, "{browser}, {kind}: never cut");
            assert!(result["connections"].as_u64().unwrap() > 1, "{browser}, {kind}: {}", result["connections"]);
        }
    }
}

#[tokio::test]
#[ignore = "needs chromium, node"]
async fn chromium_gets_every_event_by_every_way_through_a_cut() {
    stage().await.all_ways_through_cuts("/usr/bin/chromium").await;
}

#[tokio::test]
#[ignore = "needs firefox, node"]
async fn firefox_gets_every_event_by_every_way_through_a_cut() {
    stage().await.all_ways_through_cuts("/usr/bin/firefox-esr").await;
}

#[tokio::test]
#[ignore = "needs chromium, node"]
async fn a_page_of_a_foreign_origin_gets_nothing() {
    let stage = stage().await;
    let wanted = json!({"topics": "wikipedia.edits"});
    let (status, made) = stage.relay.ask_as(&stage.token, "POST", "/v1/stream-tickets", Some(&wanted)).await;
    assert_eq!(status, 201, "{made}");
    let ways: Vec<Value> = WAYS
        .iter()
        // A ticket is all that JSONP needs: whoever has one may read.
        .filter(|kind| **kind != "jsonp")
        .map(|kind| {
            let mut way = stage.way(kind, &stage.relay.url);
            way["host"] = json!("localhost");
            way["strict"] = json!(true);
            way["ticket"] = made["ticket"].clone();
            way["patience_ms"] = json!(3000);
            way
        })
        .collect();
    let results = show("/usr/bin/chromium", stage.port, &Value::from(ways)).await;
    for (kind, result) in results.as_object().unwrap() {
        assert!(result["error"].is_string() && result["seqs"].is_null(), "{kind}: {result}");
    }
    assert_eq!(results.as_object().unwrap().len(), WAYS.len() - 1);
}
