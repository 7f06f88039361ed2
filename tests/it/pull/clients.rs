//! Clients that are not ours: curl and httpx poll, httpx holds conduits, Node runs scripts.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{PATIENCE, Relay};

const EVENTS: usize = 1000;

/// Recorded edits of an encyclopedia, again and again.
fn recorded() -> impl Iterator<Item = &'static str> {
    include_str!("../../data/recorded/wikiticker.ndjson").lines().filter(|line| !line.is_empty()).cycle()
}

/// Publishes events one by one beside the test; gives their positions and data.
fn publish(relay: &Arc<Relay>) -> tokio::task::JoinHandle<Vec<(u64, Value)>> {
    let relay = Arc::clone(relay);
    tokio::spawn(async move {
        let mut published = Vec::new();
        for (n, line) in recorded().take(EVENTS).enumerate() {
            if n % 7 == 0 {
                relay.publish("other", "{}").await;
            }
            published.push((relay.publish("edits.wikipedia", line).await, serde_json::from_str(line).unwrap()));
        }
        published
    })
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/py/bin/python");
    assert!(python.exists(), "the independent clients are not installed: run `make tools` first");
    python
}

/// What a reader got, and where it stands.
struct Reader {
    got: Vec<(u64, Value)>,
    next: String,
}

impl Reader {
    fn new() -> Self {
        Self { got: Vec::new(), next: "0".to_owned() }
    }

    fn take(&mut self, answer: &Value) {
        for event in answer["events"].as_array().unwrap() {
            self.got.push((event["seq"].as_str().unwrap().parse().unwrap(), event["data"].clone()));
        }
        answer["next"].as_str().unwrap().clone_into(&mut self.next);
    }
}

/// The program in `tests/tools`, from where the reader stands.
fn start(form: &str, url: &str, reader: &Reader) -> (Child, Lines<BufReader<ChildStdout>>) {
    let count = (EVENTS - reader.got.len()).to_string();
    let mut command = Command::new(python());
    command.arg(tools().join("pull.py")).args([form, url, &reader.next, &count]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Reads all events, the client killed three times between two of its answers, which is inside the next request.
async fn read_by_httpx(form: &str, url: &str) -> Vec<(u64, Value)> {
    let mut reader = Reader::new();
    for until in [EVENTS / 5, EVENTS / 2, EVENTS * 4 / 5, EVENTS] {
        let (mut child, mut lines) = start(form, url, &reader);
        while reader.got.len() < until {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("an answer in time").unwrap();
            reader.take(&serde_json::from_str(&line.expect("the client goes on")).unwrap());
        }
        child.kill().await.unwrap();
    }
    reader.got
}

async fn read_by(form: &'static str, path: &str) {
    let relay = Arc::new(Relay::start().await);
    let url = format!("{}/v1/topics/{path}", relay.url);
    let reading = tokio::spawn(async move { read_by_httpx(form, &url).await });
    let published = publish(&relay).await.unwrap();
    assert_eq!(reading.await.unwrap(), published, "every event once, in order");
}

#[tokio::test]
#[ignore = "needs python"]
async fn httpx_polls_a_thousand_events_and_loses_none_when_it_is_killed() {
    read_by("poll", "edits.*/events").await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn httpx_takes_a_thousand_events_from_a_conduit_and_loses_none_when_it_is_killed() {
    read_by("conduit", "edits.*/stream").await;
}

/// One poll by curl.
fn curl(relay: &Relay, reader: &Reader) -> Command {
    let url = format!("{}/v1/topics/edits.*/events?after={}&wait=30", relay.url, reader.next);
    let mut command = Command::new("curl");
    command.args(["--silent", "--fail", "--globoff", "--max-time", "60", &url]).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
#[ignore = "needs curl"]
async fn curl_polls_a_thousand_events_and_loses_none_when_it_is_killed() {
    let relay = Arc::new(Relay::start().await);
    let publishing = publish(&relay);
    let mut reader = Reader::new();
    let mut polls = 0;
    while reader.got.len() < EVENTS {
        polls += 1;
        if polls % 10 == 0 {
            // Killed as soon as it runs: its answer, whatever it was, is lost.
            curl(&relay, &reader).spawn().unwrap().kill().await.unwrap();
        }
        let output = tokio::time::timeout(PATIENCE, curl(&relay, &reader).output()).await.expect("an answer in time").unwrap();
        assert!(output.status.success());
        reader.take(&serde_json::from_slice(&output.stdout).unwrap());
    }
    assert_eq!(reader.got, publishing.await.unwrap());
}

#[tokio::test]
#[ignore = "needs node"]
async fn node_runs_an_answer_as_a_script() {
    let relay = Relay::start().await;
    let nasty = [
        "</script><script>pwned()</script>",
        "<!--",
        "\u{2028}pwned()\u{2029}",
        "]]>",
        "'\"\\",
        "*/pwned()/*",
        "ünï ☃ \u{1F600}",
    ];
    for text in nasty {
        relay.publish("a", serde_json::to_string(text).unwrap()).await;
        let url = format!("{}/v1/topics/a/events", relay.url);
        let plain = relay.client.post(url).header("content-type", "text/plain").body(text).send().await.unwrap();
        assert_eq!(plain.status(), 202);
    }
    for line in recorded().take(40) {
        relay.publish("a", line).await;
    }
    let url = format!("{}/v1/topics/a/events?limit=1000", relay.url);
    let names = ["f", "$", "_x9", "jQuery1124_09.done", "a.b.c"];
    let mut command = Command::new("node");
    command.arg(tools().join("jsonp.js")).arg(&url).args(names).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = relay.get("/v1/topics/a/events?limit=1000").await;
    let lines: HashSet<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines, HashSet::from([expected.clone()]), "each of {} scripts gave the page the same", names.len());
    assert_eq!(expected["events"].as_array().unwrap().len(), 2 * nasty.len() + 40);
    for (at, text) in nasty.iter().enumerate() {
        assert_eq!(expected["events"][2 * at]["data"], json!(text));
        assert_eq!(expected["events"][2 * at + 1]["data"], json!(text));
    }
}
