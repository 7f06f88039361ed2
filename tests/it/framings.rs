//! Upstreams in every framing, served by Python in both transfers, cut at random bytes and dropped inside a record: what
//! reaches the log is every whole record once, in order, with an event where something may be missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{PATIENCE, Receiver, Relay};

const PROTOCOLS: [&str; 6] = ["ndjson", "sse", "json-seq", "length", "raw", "multipart"];
const TRANSFERS: [&str; 2] = ["eof", "chunked"];
/// Connections that `tests/tools/upstream.py` drops.
const DROPS: usize = 2;

const RECORDINGS: [&str; 4] =
    ["sources/kubernetes.ndjson", "sources/twitter.ndjson", "sources/earthquakes.ndjson", "recorded/wikiticker.ndjson"];

/// A Python server of `tests/tools`; ends when dropped.
struct Server {
    _child: Child,
    url: String,
}

async fn serve(records: &std::path::Path, seed: u32) -> Server {
    let script = format!("{}/tests/tools/upstream.py", env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new("python3")
        .args([script.as_ref(), records.as_os_str(), seed.to_string().as_ref()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    Server { _child: child, url: format!("http://127.0.0.1:{port}") }
}

fn recorded_lines() -> Vec<String> {
    let read = |name| std::fs::read_to_string(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let texts: Vec<String> = RECORDINGS.into_iter().map(read).collect();
    texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_whole_record_arrives_once_in_every_framing() {
    let expected = recorded_lines();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("records");
    std::fs::write(&file, expected.join("\n")).unwrap();
    let server = serve(&file, 7).await;
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("gaps", receiver.url(), "up.**", json!({"types": ["hookcast.source.gap"]})).await;
    for protocol in PROTOCOLS {
        for transfer in TRANSFERS {
            let source = json!({"name": format!("{protocol}-{transfer}"), "protocol": protocol,
                "url": format!("{}/{protocol}/{transfer}", server.url), "topic": format!("up.{protocol}.{transfer}")});
            relay.must("POST", "/v1/sources", source).await;
        }
    }
    for protocol in PROTOCOLS {
        for transfer in TRANSFERS {
            let topic = format!("up.{protocol}.{transfer}");
            let gaps = if protocol == "sse" { 0 } else { DROPS };
            let count = expected.len() + gaps;
            let path = format!("/v1/topics/{topic}/stream?since=earliest&limit={count}");
            let response = relay.client.get(format!("{}{path}", relay.url)).send().await.unwrap();
            let text = tokio::time::timeout(PATIENCE, response.text()).await.unwrap_or_else(|_| panic!("{topic} in time"));
            let lines: Vec<String> = text.unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
            let (told, data): (Vec<&String>, Vec<&String>) =
                lines.iter().partition(|line| line.contains("\"type\":\"hookcast.source.gap\""));
            assert_eq!((told.len(), data.len()), (gaps, expected.len()), "{topic}");
            for (line, record) in data.into_iter().zip(&expected) {
                // Raw records are text, which stands in the line as a string.
                let record = if protocol == "raw" { json!(record).to_string() } else { record.clone() };
                assert!(line.contains(&format!("\"data\":{record}")), "{topic}: {record} in {line}");
            }
            let status = relay.get(&format!("/v1/sources/{protocol}-{transfer}")).await;
            assert_eq!(status["counts"]["gaps"].as_u64(), Some(gaps as u64), "{status}");
        }
    }
    let gaps = (PROTOCOLS.len() - 1) * TRANSFERS.len() * DROPS;
    for delivery in receiver.sees(gaps).await {
        let gap: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert!(gap["from"].as_str() <= gap["to"].as_str() && gap["source"].is_string(), "{gap}");
    }
    let metrics = relay.client.get(format!("{}/metrics", relay.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("hookcast_source_gaps_total{source=\"raw-eof\"} 2"), "{metrics}");
}
