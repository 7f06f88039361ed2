//! The commands that talk to a relay, a receiver or an upstream, as separate processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookcast_core::clock::{Clock as _, SystemClock};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PATIENCE: Duration = Duration::from_secs(20);

/// A command that runs until it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(&std::env::temp_dir(), &[], arguments)
    }

    fn start_in(directory: &Path, env: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookcast"))
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .envs(env.iter().copied())
            .env("HOOKCAST_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub(crate) async fn line(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap().unwrap()
    }

    /// The URL in the first line.
    pub(crate) async fn url(&mut self) -> String {
        let line = self.line().await;
        line[line.find("http://").unwrap()..].to_owned()
    }

    /// Exit code and standard error.
    async fn end(self) -> (Option<i32>, String) {
        let output = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await.unwrap().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

/// A relay that answers each connection with the next of its answers, then closes it.
struct Script {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Script {
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let log = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Some(answer) = answers.pop_front() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                log.lock().unwrap().push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// One request with its body.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return text.into_owned();
            }
        }
        assert!(n > 0, "the request broke off: {text}");
    }
}

fn accepted(events: &str) -> String {
    let body = format!("{{\"accepted\":1,\"duplicates\":0,\"events\":[{events}]}}");
    format!("HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn deliver(url: &str, id: &str, body: &'static str) -> u16 {
    let now = SystemClock.now().as_secs();
    let signer = standardwebhooks::Webhook::new(SECRET).unwrap();
    let signature = signer.sign(id, now, body.as_bytes()).unwrap();
    let request = reqwest::Client::new().post(url).header("webhook-id", id).header("webhook-timestamp", now);
    request
        .header("webhook-signature", signature)
        .header("ce-topic", "orders.new")
        .body(body)
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn listen_verifies_prints_and_marks_repeats() {
    let mut listen = Running::start(&["listen", "--secret", SECRET]);
    let url = listen.url().await;
    assert_eq!(deliver(&url, "msg_a_1", "{\"n\":1}").await, 204);
    let line = listen.line().await;
    assert!(line.contains(" ok id=msg_a_1 topic=orders.new 7B {\"n\":1}"), "{line}");
    assert_eq!(deliver(&url, "msg_a_1", "{\"n\":1}").await, 204);
    assert!(listen.line().await.contains(" repeat id=msg_a_1 "));
    let forged = reqwest::Client::new().post(&url).header("webhook-id", "msg_a_2").body("{}\n\u{1b}[31m").send().await.unwrap();
    assert_eq!(forged.status(), 401);
    let line = listen.line().await;
    assert!(line.contains(" REFUSED id=msg_a_2 ") && !line.contains('\u{1b}'), "{line}");
}

#[tokio::test]
async fn listen_hands_good_deliveries_on_with_their_headers() {
    let mut behind = Running::start(&["listen"]);
    let target = behind.url().await;
    let mut listen = Running::start(&["listen", "--secret", SECRET, "--forward", &target]);
    let url = listen.url().await;
    assert_eq!(deliver(&url, "msg_a_1", "{}").await, 204);
    assert!(behind.line().await.contains(" unverified id=msg_a_1 topic=orders.new 2B {}"));
    assert!(listen.line().await.ends_with(" {} -> 204"));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, message) = Running::start(&["listen", "--port", &port]).end().await;
    assert_eq!(code, Some(71));
    assert!(message.contains(&port), "{message}");
}

#[tokio::test]
async fn an_upstream_of_sse_goes_on_behind_the_last_event_id() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edits.ndjson");
    std::fs::write(&file, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n").unwrap();
    let mut upstream = Running::start(&["upstream", file.to_str().unwrap(), "--protocol", "sse", "--rate", "0"]);
    let url = upstream.url().await;
    let all = reqwest::get(&url).await.unwrap();
    assert_eq!(all.headers()["content-type"], "text/event-stream");
    assert_eq!(all.text().await.unwrap(), "id: 1\ndata: {\"n\":1}\n\nid: 2\ndata: {\"n\":2}\n\nid: 3\ndata: {\"n\":3}\n\n");
    let rest = reqwest::Client::new().get(&url).header("last-event-id", "2").send().await.unwrap();
    assert_eq!(rest.text().await.unwrap(), "id: 3\ndata: {\"n\":3}\n\n");
    let mut lines = Running::start(&["upstream", file.to_str().unwrap(), "--rate", "0"]);
    assert_eq!(reqwest::get(lines.url().await + "?after=1").await.unwrap().text().await.unwrap(), "{\"n\":2}\n{\"n\":3}\n");
}

#[tokio::test]
async fn an_upstream_that_loops_counts_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edits.ndjson");
    std::fs::write(&file, "a\nb\n").unwrap();
    let mut upstream = Running::start(&["upstream", file.to_str().unwrap(), "--protocol", "sse", "--rate", "0", "--loop"]);
    let mut response = reqwest::get(upstream.url().await).await.unwrap();
    let mut text = String::new();
    while !text.contains("id: 5\ndata: a\n\n") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.starts_with("id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: a\n\n"));
}

#[tokio::test]
async fn publish_sends_one_event_and_says_where_it_is() {
    let script = Script::start(&[&accepted("{\"id\":\"k1\",\"seq\":42,\"duplicate\":false}")]).await;
    let url = script.url();
    let mut publish =
        Running::start(&["publish", "orders.new", "--data", "{\"a\":1}", "--id", "k1", "--token", "t0ken", "--url", &url]);
    assert_eq!(publish.line().await, "42 k1");
    assert_eq!(publish.end().await, (Some(0), String::new()));
    let request = script.requests().remove(0);
    for part in
        ["POST /v1/topics/orders.new/events ", "idempotency-key: k1", "application/json", "Bearer t0ken", "\r\n\r\n{\"a\":1}"]
    {
        assert!(request.contains(part), "{part:?} is not in {request}");
    }
}

#[tokio::test]
async fn publish_tries_again_under_the_same_key() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned();
    let script = Script::start(&[&busy, &accepted("{\"id\":\"x-0\",\"seq\":1,\"duplicate\":true}")]).await;
    let mut publish = Running::start(&["publish", "t", "--url", &script.url()]);
    publish.child.stdin.take().unwrap().write_all(b"\n{\"n\":1}\n\n").await.unwrap();
    assert_eq!(publish.line().await, "1 x-0 duplicate");
    let key = |request: &str| request.lines().find(|line| line.starts_with("idempotency-key: ")).map(str::to_owned).unwrap();
    let requests = script.requests();
    assert_eq!(key(&requests[0]), key(&requests[1]));
}

#[tokio::test]
async fn publish_sends_every_line_in_order() {
    let done = accepted("");
    let script = Script::start(&[&done, &done, &done]).await;
    let mut publish = Running::start(&["publish", "t", "--url", &script.url()]);
    publish.child.stdin.take().unwrap().write_all(b"{\"n\":1}\nnot json\n{\"n\":2}\r\n").await.unwrap();
    assert_eq!(publish.end().await, (Some(0), String::new()));
    let requests = script.requests();
    let bodies: Vec<_> = requests.iter().map(|request| request.split_once("\r\n\r\n").unwrap().1).collect();
    assert_eq!(bodies, ["{\"n\":1}", "not json", "{\"n\":2}"]);
    let types = ["application/x-ndjson", "text/plain; charset=utf-8", "application/x-ndjson"];
    assert!(requests.iter().zip(types).all(|(request, wanted)| request.contains(&format!("content-type: {wanted}\r\n"))));
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let problem = "{\"detail\":\"the topic \\u001b[31m is not one\"}";
    let answer = format!("HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: {}\r\n\r\n{problem}", problem.len());
    let script = Script::start(&[&answer]).await;
    let (code, message) = Running::start(&["publish", "t", "--data", "x", "--url", &script.url()]).end().await;
    assert_eq!((code, message.as_str()), (Some(1), "the relay answered 422: the topic \\u{1b}[31m is not one\n"));
}

#[tokio::test]
async fn tail_goes_on_behind_the_last_event_when_the_stream_breaks() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len());
    let first = format!("{head}{}{}", chunk("{\"seq\":\"7\",\"n\":1}\n\n"), chunk("\n{\"seq\":\"8\",\"cut off"));
    let second = format!("{head}{}", chunk("{\"seq\":\"9\",\"n\":2}\n"));
    let script = Script::start(&[&first, &second]).await;
    let mut tail = Running::start(&["tail", "orders.*", "--since", "10m", "--limit", "2", "--url", &script.url()]);
    assert_eq!(tail.line().await, "{\"seq\":\"7\",\"n\":1}");
    assert_eq!(tail.line().await, "{\"seq\":\"9\",\"n\":2}");
    assert_eq!(tail.end().await.0, Some(0));
    let requests = script.requests();
    assert!(requests[0].starts_with("GET /v1/topics/orders.*/stream?format=ndjson&since=10m "), "{}", requests[0]);
    assert!(!requests[0].contains("last-event-id") && requests[1].contains("last-event-id: 7\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn tail_gives_up_when_it_is_refused() {
    let script = Script::start(&["HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"]).await;
    let (code, message) = Running::start(&["tail", "a", "--url", &script.url()]).end().await;
    assert_eq!((code, message.contains("401")), (Some(1), true), "{message}");
}

/// Environment of a relay that may deliver to this machine.
const RELAY: [(&str, &str); 3] = [
    ("HOOKCAST__SERVER__LISTEN", "127.0.0.1:0"),
    ("HOOKCAST__STORAGE__URL", "sqlite://hookcast.db"),
    ("HOOKCAST__NETWORK__ALLOW", "[\"127.0.0.0/8\"]"),
];

#[tokio::test]
async fn the_commands_work_together_around_a_relay() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Running::start_in(directory.path(), &RELAY, &[]);
    let url = relay.url().await;
    let mut listen = Running::start(&["listen", "--secret", SECRET]);
    let callback = listen.url().await;
    let subscription = serde_json::json!({"id": "a", "url": callback, "topics": ["orders.*"], "from": "earliest",
        "signature": {"scheme": "standard", "secret": SECRET}});
    let created = reqwest::Client::new().post(format!("{url}v1/subscriptions")).json(&subscription).send().await.unwrap();
    assert_eq!(created.status(), 201, "{}", created.text().await.unwrap());
    let mut publish = Running::start(&["publish", "orders.new", "--data", "{\"n\":1}", "--id", "k1", "--url", &url]);
    assert_eq!(publish.line().await, "1 k1");
    let line = listen.line().await;
    assert!(
        line.contains(" ok id=msg_") && line.contains("_1 attempt=1 topic=orders.new ") && line.ends_with(" {\"n\":1}"),
        "{line}"
    );
    let mut tail = Running::start(&["tail", "orders.**", "--since", "earliest", "--limit", "1", "--url", &url]);
    let event: serde_json::Value = serde_json::from_str(&tail.line().await).unwrap();
    assert_eq!((&event["seq"], &event["id"], &event["data"]["n"]), (&"1".into(), &"k1".into(), &1.into()));
    let second = Running::start_in(directory.path(), &RELAY, &["serve"]);
    let (code, message) = second.end().await;
    assert_eq!(code, Some(75), "{message}");
    let pid = relay.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(relay.end().await.0, Some(0));
}

#[tokio::test]
async fn a_relay_that_cannot_start_says_why_by_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    std::fs::create_dir(directory.path().join("here")).unwrap();
    for (variable, value, wanted) in [
        ("HOOKCAST__SERVER__LISTEN", address.as_str(), 71),
        ("HOOKCAST__STORAGE__URL", "sqlite://here", 73),
        ("HOOKCAST__STORAGE__URL", "sqlite:///proc/none/hookcast.db", 73),
        ("HOOKCAST__SERVER__LISTEN", "0.0.0.0:0", 78),
    ] {
        let mut env = RELAY.to_vec();
        env.push((variable, value));
        let (code, message) = Running::start_in(directory.path(), &env, &[]).end().await;
        assert_eq!((code, message.trim_end().lines().count()), (Some(wanted), 1), "{variable}={value}: {message}");
    }
}
