//! Upstreams in every framing, served by Python in both transfers, cut at random bytes and dropped inside a record: what
//! reaches the log is every whole record once, in order, with an event where something may be missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::upstream::read_head;
use crate::support::{Answer, PATIENCE, Receiver, Relay, eventually};

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
#[ignore = "needs python3"]
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

/// A stream of Twitter's in two parts: the second is sent when told to.
async fn tweets(first: &'static str, second: &'static str) -> (String, tokio::sync::oneshot::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/stream", listener.local_addr().unwrap());
    let (go_on, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
        stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
        let _ = told.await;
        stream.write_all(second.as_bytes()).await.unwrap();
        // Until the other side goes.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    (url, go_on)
}

#[tokio::test]
async fn a_deleted_tweet_is_gone_from_history_streams_and_waiting_deliveries() {
    const FIRST: &str = "{\"id_str\":\"17\",\"text\":\"s3cret\"}\r\n{\"id_str\":\"18\",\"text\":\"stays\"}\r\n";
    const SECOND: &str = "{\"delete\":{\"status\":{\"id\":17,\"id_str\":\"17\"}}}\r\n{\"limit\":{\"track\":3}}\r\n";
    let (url, go_on) = tweets(FIRST, SECOND).await;
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, nth| Answer::status(if nth < 2 { 500 } else { 200 })).await;
    relay.subscribe("late", receiver.url(), "tweets", json!({"retry": {"schedule": ["8s"], "max_attempts": 9}})).await;
    let source = json!({"name": "up", "protocol": "ndjson", "url": url, "topic": "tweets", "settings": {"profile": "twitter"}});
    let made = relay.must("POST", "/v1/sources", source).await;
    assert_eq!(made["settings"]["profile"], "twitter");
    receiver.sees(2).await;
    let read = async |relay: &Relay| {
        let path = format!("{}/v1/topics/tweets/stream?since=earliest&limit=2", relay.url);
        relay.client.get(path).send().await.unwrap().text().await.unwrap()
    };
    assert!(read(&relay).await.contains("s3cret"));
    // Somebody reads along, so that what was sent is still held for streams.
    let reader = relay.client.get(format!("{}/v1/topics/tweets/stream?since=earliest", relay.url)).send().await.unwrap();
    go_on.send(()).unwrap();
    let event = eventually("the purge", async || {
        let event = relay.get("/v1/events/1").await;
        (event["purged"] == "true").then_some(event)
    })
    .await;
    assert_eq!((&event["data"], &event["id"], &event["type"]), (&Value::Null, &json!("17"), &json!("message")));
    let text = read(&relay).await;
    assert!(!text.contains("s3cret") && text.contains("\"data\":null") && text.contains("stays"), "{text}");
    drop(reader);
    let again = receiver.sees(4).await;
    assert!(again[2..].iter().any(|delivery| delivery.body == b"null"), "the retry has nothing to tell");
    assert!(again[2..].iter().all(|delivery| !String::from_utf8_lossy(&delivery.body).contains("s3cret")));
    let notices = eventually("two notices", async || {
        let mut said = Vec::new();
        for seq in 1..20 {
            let (_, event) = relay.ask("GET", &format!("/v1/events/{seq}"), None).await;
            said.extend(event["type"].as_str().filter(|kind| kind.starts_with("source.")).map(|_| event.clone()));
        }
        (said.len() == 2).then_some(said)
    })
    .await;
    assert_eq!((&notices[0]["type"], &notices[0]["data"]["purged"]), (&json!("source.delete"), &json!(1)));
    assert_eq!((&notices[1]["type"], &notices[1]["data"]["said"]["track"]), (&json!("source.limit"), &json!(3)));
    // A restart reads what was written, not what was remembered.
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    assert_eq!(relay.get("/v1/events/1").await["data"], Value::Null);
}

#[tokio::test]
async fn an_event_is_purged_by_whoever_may_manage_its_topic() {
    let relay = Relay::start().await;
    let mine = relay.publish("mine.a", "{\"name\":\"s3cret\"}").await;
    let theirs = relay.publish("theirs", "{\"name\":\"stays\"}").await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["manage", "read", "publish"]})).await;
    let root = made["token"].as_str().unwrap().to_owned();
    let limited = json!({"name": "mine", "scopes": ["manage", "read"], "topics": ["mine.**"]});
    let (_, made) = relay.ask_as(&root, "POST", "/v1/tokens", Some(&limited)).await;
    let limited = made["token"].as_str().unwrap().to_owned();
    let (_, made) = relay.ask_as(&root, "POST", "/v1/tokens", Some(&json!({"name": "reader", "scopes": ["read"]}))).await;
    let reader = made["token"].as_str().unwrap().to_owned();
    for (token, seq, status) in [
        (&reader, mine, 403),
        (&limited, theirs, 404),
        (&limited, 99, 404),
        (&root, 99, 404),
        (&limited, mine, 204),
        (&limited, mine, 204),
    ] {
        let (found, _) = relay.ask_as(token, "DELETE", &format!("/v1/events/{seq}"), None).await;
        assert_eq!(found, status, "{seq}");
    }
    let (_, event) = relay.ask_as(&root, "GET", &format!("/v1/events/{mine}"), None).await;
    assert_eq!((&event["data"], &event["purged"]), (&Value::Null, &json!("true")));
    let (_, event) = relay.ask_as(&root, "GET", &format!("/v1/events/{theirs}"), None).await;
    assert_eq!(event["data"]["name"], "stays");
    let (_, acts) = relay.ask_as(&root, "GET", "/v1/audit", None).await;
    let is_noted = |act: &Value| act["method"] == "DELETE" && act["resource"] == "events" && act["outcome"] == 204;
    assert!(acts["items"].as_array().unwrap().iter().any(is_noted), "{acts}");
}
