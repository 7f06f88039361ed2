//! Our own upstream command, read by our own sources, each protocol of one by the same of the other.

use std::process::Command;

use serde_json::{Value, json};

use super::support::*;
use crate::support::Relay;

/// Serves a recording; killed when dropped.
fn serve(protocol: &str) -> Tool {
    let file = root().join("tests/data/recorded/wikiticker.ndjson");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookcast"));
    Tool::start(command.arg("upstream").arg(file).args(["--protocol", protocol, "--rate", "0", "--loop"]))
}

#[tokio::test]
async fn what_a_recording_is_served_by_is_what_it_is_read_by() {
    let recording = std::fs::read_to_string(root().join("tests/data/recorded/wikiticker.ndjson")).unwrap();
    let wanted: Vec<Value> = recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let relay = Relay::start().await;
    let all = [
        ("ndjson", json!({})),
        ("sse", json!({})),
        ("json-seq", json!({})),
        ("length", json!({})),
        ("raw", json!({"content_type": "application/json"})),
        ("multipart", json!({})),
        ("websocket", json!({})),
        ("long-poll", json!({"items": "/events", "cursor": "/next", "cursor_param": "after", "min_interval": "100ms"})),
    ];
    for (protocol, settings) in all {
        let server = serve(protocol);
        read_from(&relay, protocol, protocol, &format!("http://{}/", server.address()), settings).await;
        let got = data(&relay, protocol, 2 * wanted.len()).await;
        assert_eq!(got[..wanted.len()], wanted[..], "{protocol}");
        assert_eq!(got[wanted.len()..], wanted[..], "{protocol}, over again");
        relay.must("DELETE", &format!("/v1/sources/{protocol}"), Value::Null).await;
    }
}
