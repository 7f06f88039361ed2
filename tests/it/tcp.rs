//! Streams without HTTP: independent clients, cuts, what is refused, who may come in, how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::cutter::Cutter;
use crate::support::{PATIENCE, Relay, edits, eventually};

const EVENTS: usize = 1000;

async fn relay() -> Relay {
    Relay::start_served("tcp_listen = \"127.0.0.1:0\"", "").await
}

/// What a program prints until it ends.
async fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("an end in time").unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Says `lines` and hears everything until the relay closes.
async fn hear(relay: &Relay, lines: &[u8]) -> String {
    let mut socket = TcpStream::connect(relay.tcp()).await.unwrap();
    socket.write_all(lines).await.unwrap();
    let mut heard = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("an end in time").unwrap();
    String::from_utf8(heard).unwrap()
}

/// Fails unless these are all events in order, with the bytes that were published.
fn assert_all(events: &[Value], lines: &[String]) {
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(seqs, (1..=lines.len() as u64).collect::<Vec<_>>());
    for (event, line) in events.iter().zip(lines) {
        assert_eq!(event["data"], serde_json::from_str::<Value>(line).unwrap());
    }
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_socket_in_python_gets_every_event_through_a_cut() {
    let relay = relay().await;
    let lines = edits(EVENTS);
    relay.publish_lines("wikipedia.edits", &lines).await;
    for ending in ["lf", "nul"] {
        let cutter = Cutter::start(relay.tcp(), 200_000, 1).await;
        let mut python = Command::new("python3");
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/lines.py"));
        python.args([&cutter.port.to_string(), "-", "wikipedia.* since=earliest", ending, &EVENTS.to_string()]);
        let heard: Value = serde_json::from_str(&output(&mut python).await).unwrap();
        assert_eq!((cutter.left(), cutter.connections()), (0, 2), "cut amid");
        let answers = heard["answers"].as_array().unwrap();
        assert_eq!(answers[0], "ok 0");
        let at: usize = answers[1].as_str().unwrap().strip_prefix("ok ").unwrap().parse().unwrap();
        assert!(0 < at && at < EVENTS, "it went on behind {at}");
        assert_all(heard["events"].as_array().unwrap(), &lines);
    }
}

#[tokio::test]
#[ignore = "needs bash, curl"]
async fn a_shell_and_curl_get_every_event_and_the_clean_end() {
    let relay = relay().await;
    let lines = edits(EVENTS);
    relay.publish_lines("wikipedia.edits", &lines).await;
    let (host, port) = relay.tcp().rsplit_once(':').unwrap();
    let script =
        format!("exec 3<>/dev/tcp/{host}/{port}; printf -- '-\\nwikipedia.* since=earliest limit={EVENTS}\\n' >&3; cat <&3");
    // curl ends at the end of its standard input, so that waits until everything was seen.
    let request = format!(
        "(printf -- '-\\r\\nwikipedia.* since=earliest limit={EVENTS}\\r\\n'; sleep 20) | curl -sN telnet://{host}:{port}"
    );
    for (name, script) in [("bash", script), ("curl", request)] {
        let mut shell = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut heard = String::new();
        let mut stdout = shell.stdout.take().unwrap();
        tokio::time::timeout(PATIENCE, async {
            while heard.matches('\n').count() < EVENTS + 1 {
                let mut piece = vec![0; 65536];
                let read = stdout.read(&mut piece).await.unwrap();
                assert!(read > 0, "{name} ended early");
                heard.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{name} heard only {}", heard.len()));
        let mut all = heard.lines();
        assert_eq!(all.next(), Some("ok 0"), "{name}");
        let events: Vec<Value> = all.map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), lines.len(), "{name}");
        let seqs = events.iter().map(|event| event["seq"].as_str().unwrap().to_owned());
        assert!(seqs.eq((1..=EVENTS).map(|seq| seq.to_string())), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_in_one_line() {
    let relay = relay().await;
    for (lines, answer) in [
        (&b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], "error token_line "),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "error token_line "),
        (b"-\na..b\n", "error topics "),
        (b"-\0a..b\0", "error topics "),
        (b"-\na colour=red\n", "error unknown_parameter "),
        (b"-\na since=tomorrow\n", "error since "),
        (&[b'x'; 5000], "error lines_too_long "),
        (b"-\nwikipedia.*", "error lines_timeout "),
    ] {
        let heard = hear(&relay, lines).await;
        let end = if lines.contains(&0) && lines[0] == b'-' { '\0' } else { '\n' };
        assert!(heard.starts_with(answer) && heard.ends_with(end), "{}: {heard:?}", lines.escape_ascii());
        assert_eq!(heard.matches(end).count(), 1, "{heard:?}");
    }
    // A client that goes before it has said what it wants leaves nothing behind.
    drop(TcpStream::connect(relay.tcp()).await.unwrap());
    eventually("no stream left", async || open_streams(&relay, None).await.eq(&0).then_some(())).await;
}

async fn open_streams(relay: &Relay, token: Option<&str>) -> u64 {
    let mut request = relay.client.get(format!("{}/metrics", relay.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let text = request.send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with("hookcast_streams_open ")).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn a_token_opens_what_it_may_and_its_end_closes_it() {
    let relay = relay().await;
    let all = json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]});
    let root = relay.must("POST", "/v1/tokens", all).await["token"].as_str().unwrap().to_owned();
    let make = async |body: Value| {
        let (status, made) = relay.ask_as(&root, "POST", "/v1/tokens", Some(&body)).await;
        assert_eq!(status, 201, "{made}");
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    };
    let narrow = json!({"name": "a", "scopes": ["stream"], "topics": ["acme.**"], "limits": {"streams": 1}});
    let (id, token) = make(narrow).await;
    let (_, reader) = make(json!({"name": "b", "scopes": ["read"]})).await;
    for (first, second, answer) in [
        ("-", "acme.a", "error unauthorized "),
        ("hc_unknown", "acme.a", "error unauthorized "),
        (&*reader, "acme.a", "error scope "),
        (&*token, "other.a", "error topic_not_allowed "),
        (&*token, "**", "error topic_not_allowed "),
    ] {
        let heard = hear(&relay, format!("{first}\n{second}\n").as_bytes()).await;
        assert!(heard.starts_with(answer), "{second}: {heard:?}");
    }
    let mut stream = TcpStream::connect(relay.tcp()).await.unwrap();
    stream.write_all(format!("{token}\nacme.*\n").as_bytes()).await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ok 0\n");
    let second = hear(&relay, format!("{token}\nacme.*\n").as_bytes()).await;
    assert!(second.starts_with("error token_limit "), "{second:?}");
    assert_eq!(open_streams(&relay, Some(&root)).await, 1);
    assert_eq!(relay.ask_as(&root, "DELETE", &format!("/v1/tokens/{id}"), None).await.0, 200);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "a stream outlives its token");
    assert!(!relay.log().contains(&token), "a token stands in the log");
}

#[tokio::test]
async fn silence_has_heartbeats_a_gap_is_told_and_a_stop_ends_it() {
    let mut relay = relay().await;
    let mut stream = TcpStream::connect(relay.tcp()).await.unwrap();
    stream.write_all(b"-\0a.* heartbeat=1s since=77\0").await.unwrap();
    let mut heard = Vec::new();
    let reading = async {
        while heard.split(|byte| *byte == 0).count() < 5 {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{}", heard.escape_ascii());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("two heartbeats in time");
    let heard = String::from_utf8(heard).unwrap();
    let pieces: Vec<&str> = heard.split('\0').collect();
    let notice: Value = serde_json::from_str(pieces[1]).unwrap();
    assert_eq!((pieces[0], &notice["type"]), ("ok 0", &json!("hookcast.reset")));
    assert_eq!(&pieces[2..], ["", "", ""]);
    assert_eq!(relay.terminate().await, Some(0));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("a clean end");
    assert!(rest.iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn the_rings_are_those_of_http() {
    let relay = relay().await;
    let mut plain = TcpStream::connect(relay.tcp()).await.unwrap();
    plain.write_all(b"-\na.*\n").await.unwrap();
    let mut answer = [0; 5];
    plain.read_exact(&mut answer).await.unwrap();
    let mut http = relay.client.get(format!("{}/v1/topics/a.*/stream", relay.url)).send().await.unwrap();
    relay.publish("a.b", "{\"n\":1}").await;
    let over_http = http.chunk().await.unwrap().unwrap();
    let mut over_tcp = vec![0; over_http.len()];
    tokio::time::timeout(PATIENCE, plain.read_exact(&mut over_tcp)).await.expect("as much").unwrap();
    assert_eq!(over_tcp, over_http, "byte for byte the same");
}

#[tokio::test]
async fn beyond_loopback_it_wants_tokens_and_a_taken_port_is_told() {
    let relay = relay().await;
    let taken = relay.tcp().to_owned();
    let directory = tempfile::tempdir().unwrap();
    for (address, code, what) in
        [("0.0.0.0:0", 78, "server.tcp_listen"), ("nowhere", 78, "server.tcp_listen"), (&*taken, 71, "server.tcp_listen")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookcast"));
        command.current_dir(directory.path()).env_clear().env("HOOKCAST__SERVER__TCP_LISTEN", address);
        command.env("HOOKCAST__SERVER__LISTEN", "127.0.0.1:0").env("HOOKCAST__STORAGE__URL", "memory://");
        let ended = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await.expect("an end").unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(code) && said.contains(what), "{address}: {said}");
    }
}
