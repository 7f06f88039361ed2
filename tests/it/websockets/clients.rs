//! Clients that are not ours: `ws` (JavaScript) and `websockets` (Python) read a thousand events, cut off in the middle, and miss none.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::support::{Relay, in_time};

const EVENTS: u64 = 1_000;
/// Events there are before anybody listens.
const BEFORE: u64 = 300;
const CUT_AFTER: u64 = 450;

fn tool(path: &str) -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(path);
    assert!(found.exists(), "the clients that are not ours are not installed: run `make tools` first");
    found
}

/// What a reader has seen.
async fn read(program: &str, url: String, mode: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(program);
    let modules = tool("node/node_modules");
    let runs = if program == "ws_reader.js" { PathBuf::from("node") } else { tool("py/bin/python") };
    let child = Command::new(runs)
        .arg(script)
        .args([&url, &EVENTS.to_string(), &CUT_AFTER.to_string(), mode])
        .env("HOOKCAST_NODE_MODULES", modules)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = in_time(child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{program} {mode}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs node, python"]
async fn two_libraries_are_cut_off_and_miss_nothing() {
    let relay = Relay::start().await;
    let mut published = relay.publish_numbers("t.a", 0..BEFORE).await;
    let url = format!("{}/v1/topics/t.*/stream", relay.url.replace("http://", "ws://"));
    let readings =
        [("ws_reader.js", "since"), ("ws_reader.js", "message"), ("ws_reader.py", "since"), ("ws_reader.py", "message")];
    let reading = readings.map(|(program, mode)| tokio::spawn(read(program, url.clone(), mode)));
    for n in (BEFORE..EVENTS).step_by(10) {
        published.extend(relay.publish_numbers("t.b", n..n + 10).await);
    }
    for ((program, mode), reading) in readings.into_iter().zip(reading) {
        let found = reading.await.unwrap();
        let seqs: Vec<u64> = found["seqs"].as_array().unwrap().iter().map(|seq| seq.as_u64().unwrap()).collect();
        assert_eq!(seqs, published, "{program} {mode}");
        assert_eq!(found["code"], 1000, "{program} {mode}: the close is answered");
    }
}
