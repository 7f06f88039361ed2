//! The rows `upstream.ws` of the collection of bad inputs, each found by its text: what a source does about a server that
//! writes whatever bytes it likes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hookcast_core::codec::websocket::Opcode;
use hookcast_core::codec::websocket::messages::{Sender, WsDecoder, WsItem, write_close, write_frame};
use hookcast_core::model::source::SourceSettings;
use hookcast_core::model::source::own::OwnSettings;
use hookcast_core::model::source::own::websocket::WebSocketSettings;
use hookcast_source::{ReconnectSettings, SourceState, SourceStatus, Sources};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;

use super::support::*;
use crate::support::{Relay, for_a_while};

const ROWS: &str = include_str!("../../data/upstreams/bad-inputs.csv");

/// The inputs and what is expected of them.
fn rows() -> Vec<(String, String)> {
    let cells = |line: &str| line.trim_matches('"').split("\",\"").map(str::to_owned).collect::<Vec<_>>();
    ROWS.lines().map(cells).filter(|row| row[0] == "upstream.ws").map(|row| (row[1].clone(), row[2].clone())).collect()
}

/// What one connection gets to see.
#[derive(Clone)]
enum Play {
    Raw(Vec<u8>),
    /// The 101 that fits the key, with more headers.
    Accept(&'static str),
    /// Pings as fast as they are taken, until it is told to end.
    PingFlood(CancellationToken),
    Hold,
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_frame(&mut out, opcode, payload, None);
    out.to_vec()
}

fn text(payload: &str) -> Play {
    Play::Raw(frame(Opcode::Text, payload.as_bytes()))
}

fn raw(bytes: &[u8]) -> Play {
    Play::Raw(bytes.to_vec())
}

fn close(code: u16) -> Play {
    let mut out = BytesMut::new();
    write_close(&mut out, code, "", None);
    Play::Raw(out.to_vec())
}

/// Plays the n-th script to the n-th connection; later ones see the last script again.
struct Server {
    url: String,
    heard: Arc<Mutex<Vec<(usize, WsItem)>>>,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(scripts: Vec<Vec<Play>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/feed?x=1", listener.local_addr().unwrap());
        let (heard, heads): (Arc<Mutex<Vec<(usize, WsItem)>>>, Arc<Mutex<Vec<String>>>) = <_>::default();
        let (ears, eyes) = (Arc::clone(&heard), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for index in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let script = scripts[index.min(scripts.len() - 1)].clone();
                connections.spawn(serve(stream, script, index, Arc::clone(&ears), Arc::clone(&eyes)));
            }
        });
        Self { url, heard, heads, task }
    }

    fn heard(&self) -> Vec<(usize, WsItem)> {
        self.heard.lock().unwrap().clone()
    }

    fn said(&self, connection: usize) -> Vec<String> {
        let texts = self.heard().into_iter().filter(|(index, _)| *index == connection).filter_map(|(_, item)| match item {
            WsItem::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
            _ => None,
        });
        texts.collect()
    }

    fn connections(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Vec<Play>,
    index: usize,
    heard: Arc<Mutex<Vec<(usize, WsItem)>>>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let key = request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default().to_owned();
    heads.lock().unwrap().push(request);
    let (mut reader, mut writer) = stream.into_split();
    let listening = tokio::spawn(async move {
        let mut decoder = WsDecoder::new(Sender::Client, 1 << 20);
        let mut buffer = BytesMut::new();
        while let Ok(1..) = reader.read_buf(&mut buffer).await {
            let mut chunk = buffer.split().freeze();
            while let Some(item) = decoder.next(&mut chunk).expect("a source keeps to the protocol") {
                heard.lock().unwrap().push((index, item));
            }
        }
    });
    for play in script {
        let written = match play {
            Play::Raw(bytes) => writer.write_all(&bytes).await,
            Play::Accept(more) => {
                let accept = derive_accept_key(key.as_bytes());
                let start = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n";
                writer.write_all(format!("{start}sec-websocket-accept: {accept}\r\n{more}\r\n").as_bytes()).await
            }
            Play::PingFlood(end) => {
                let pings = frame(Opcode::Ping, b"are you there?").repeat(100);
                let mut ticks = tokio::time::interval(Duration::from_millis(10));
                let mut written = Ok(());
                while written.is_ok() && !end.is_cancelled() {
                    ticks.tick().await;
                    written = writer.write_all(&pings).await;
                }
                written
            }
            Play::Hold => std::future::pending().await,
        };
        if written.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
    let _ = listening.await;
}

/// A source that reads a server into a recorder.
struct Stand {
    server: Server,
    recorder: Arc<Recorder>,
    sources: Arc<Sources>,
}

impl Stand {
    async fn start(scripts: Vec<Vec<Play>>, own: WebSocketSettings, reconnect: ReconnectSettings) -> Self {
        let settings = SourceSettings { own: OwnSettings::WebSocket(Box::new(own)), ..SourceSettings::default() };
        Self::with(scripts, settings, reconnect).await
    }

    async fn with(scripts: Vec<Vec<Play>>, settings: SourceSettings, reconnect: ReconnectSettings) -> Self {
        let server = Server::start(scripts).await;
        let recorder = Recorder::taking(100_000);
        let sources = Arc::new(Sources::new(context(&recorder, reconnect)));
        sources.reconcile(vec![record("websocket", &server.url, settings)]).await;
        Self { server, recorder, sources }
    }

    /// One whose connections are not followed by others before the test is over.
    async fn slow(script: Vec<Play>) -> Self {
        let reconnect = ReconnectSettings { delay_min: Duration::from_secs(50), ..ReconnectSettings::default() };
        Self::start(vec![script, vec![Play::Hold]], WebSocketSettings::default(), reconnect).await
    }

    fn status(&self) -> SourceStatus {
        self.sources.status("up").unwrap()
    }

    async fn ending(&self) -> String {
        eventually("an ending", || self.status().last_error.map(|error| error.slug.to_owned())).await
    }

    async fn events(&self, count: usize) -> Vec<String> {
        eventually("events", || (self.recorder.count() >= count).then(|| self.recorder.data())).await
    }

    /// The code of the close frame that the source said.
    async fn close_code(&self) -> Option<u16> {
        let closed = || {
            self.server
                .heard()
                .into_iter()
                .find_map(|(_, item)| if let WsItem::Close(code, _) = item { Some(code) } else { None })
        };
        eventually("a close frame", closed).await
    }
}

/// A server that breaks the protocol: the source says why, closes with that code and comes back later.
async fn broken(script: Vec<Play>, code: u16) {
    let stand = Stand::slow([vec![Play::Accept(""), text("1")], script, vec![Play::Hold]].concat()).await;
    assert_eq!(stand.ending().await, code.to_string());
    assert_eq!(stand.close_code().await, Some(code));
    assert_eq!(stand.recorder.data(), ["1"], "what was whole before counts");
    assert_eq!(stand.status().state, SourceState::Backoff);
}

/// An answer that is no handshake.
async fn refused(script: Vec<Play>, slug: &str, is_for_a_person: bool) {
    let stand = Stand::start(vec![script], WebSocketSettings::default(), ReconnectSettings::default()).await;
    assert_eq!(stand.ending().await, slug);
    let status = stand.status();
    assert_eq!((status.state, status.needs_attention), (SourceState::Backoff, is_for_a_person));
    let wait = status.next_attempt_at.unwrap().since(status.last_error.unwrap().at);
    assert_eq!(wait >= Duration::from_secs(59), is_for_a_person, "{wait:?}");
    assert_eq!(stand.recorder.count(), 0);
}

fn http(status: &str, headers: &str) -> Play {
    Play::Raw(format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n").into_bytes())
}

async fn judge(input: &str, expected: &str) {
    match (input, expected) {
        ("text frame with JSON", "EVENTS:1") => {
            let stand = Stand::slow(vec![Play::Accept(""), text("{\"a\": 1}"), Play::Hold]).await;
            assert_eq!(stand.events(1).await, ["{\"a\": 1}"]);
            assert_eq!(stand.recorder.emissions()[0].event.content_type, "application/json");
        }
        ("text frame, invalid UTF-8", "RECONNECT:1007") => broken(vec![raw(&[0x81, 2, 0xc3, 0x28])], 1007).await,
        ("RSV1 set without extension", "RECONNECT:1002") => broken(vec![raw(&[0xc1, 1, b'a'])], 1002).await,
        ("masked frame from server", "RECONNECT:1002") => broken(vec![raw(&[0x81, 0x81, 0, 0, 0, 0, b'a'])], 1002).await,
        ("ping of 126 bytes", "RECONNECT:1002") => {
            broken(vec![raw(&[&[0x89, 126, 0, 126][..], &[0; 126]].concat())], 1002).await;
        }
        ("close code 1005 on the wire", "RECONNECT:1002") => broken(vec![close(1005)], 1002).await,
        ("close 1000 / 1001 / 1012", "RECONNECT with jitter") => {
            let mut waits = BTreeSet::new();
            for code in [1000, 1001, 1012, 1000, 1001, 1012] {
                let script = vec![Play::Accept(""), text("1"), close(code), Play::Hold];
                let stand = Stand::start(vec![script], WebSocketSettings::default(), ReconnectSettings::default()).await;
                assert_eq!(stand.ending().await, code.to_string());
                assert_eq!(stand.close_code().await, Some(code), "a close is answered by its like");
                let status = stand.status();
                waits.insert(status.next_attempt_at.unwrap().since(status.last_error.unwrap().at));
            }
            assert!(waits.iter().all(|wait| (Duration::from_secs(1)..=Duration::from_secs(3)).contains(wait)), "{waits:?}");
            assert!(waits.len() > 1, "no jitter: {waits:?}");
        }
        ("handshake 200", "RECONNECT:handshake") => refused(vec![http("200 OK", "")], "handshake", false).await,
        ("handshake 302", "STOP:redirect") => refused(vec![http("302 Found", "location: /x\r\n")], "redirect", true).await,
        ("handshake with 200 KiB of headers", "RECONNECT:handshake (CVE-2023-43669 class)") => {
            let line = format!("x-filler: {}\r\n", "a".repeat(1000));
            let head = format!("HTTP/1.1 101 Switching Protocols\r\n{}", line.repeat(200));
            refused(vec![raw(head.as_bytes()), Play::Hold], "handshake", false).await;
            // Many small ones are no better than a few large ones.
            let head = format!("HTTP/1.1 101 Switching Protocols\r\n{}", "a: b\r\n".repeat(5000));
            refused(vec![raw(head.as_bytes()), Play::Hold], "handshake", false).await;
        }
        ("permessage-deflate bomb", "RECONNECT:1009 (or extension never offered)") => {
            let stand = Stand::slow(vec![Play::Accept("sec-websocket-extensions: permessage-deflate\r\n"), Play::Hold]).await;
            assert_eq!(stand.ending().await, "handshake");
            let head = stand.server.heads.lock().unwrap()[0].to_ascii_lowercase();
            assert!(!head.contains("sec-websocket-extensions"), "{head}");
        }
        ("TCP cut in mid-frame", "EVENTS of whole messages only; RECONNECT; gap recorded") => {
            let half = frame(Opcode::Text, b"{\"lost\": true}");
            let first = vec![Play::Accept(""), text("1"), raw(&half[..half.len() - 3])];
            let second = vec![Play::Accept(""), text("2"), Play::Hold];
            let stand = Stand::start(vec![first, second], WebSocketSettings::default(), quick()).await;
            assert_eq!(stand.events(2).await, ["1", "2"]);
            assert_eq!(stand.ending().await, "truncated");
            assert_eq!(stand.recorder.gaps().len(), 1);
        }
        ("100000 continuation frames of 1 byte", "EVENTS:1 or RECONNECT:1009; RSS +< 4 MiB") => fragments().await,
        ("ping flood 10000/s", "<= 100 pongs/s; CPU < 1 core; other sources unaffected") => ping_flood().await,
        _ => panic!("no test for the row {input:?}, {expected:?}"),
    }
}

#[test]
fn every_row_is_judged() {
    let rows = rows();
    assert_eq!(rows.len(), 14);
    for (input, expected) in rows {
        println!("{input}");
        run(judge(&input, &expected));
    }
}

fn proc_status_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn add_source(relay: &Relay, name: &str, url: &str) {
    let source = json!({"name": name, "protocol": "websocket", "url": url, "topic": format!("t.{name}")});
    relay.must("POST", "/v1/sources", source).await;
}

async fn events_of(relay: &Relay, name: &str, count: u64) {
    crate::support::eventually("events", async || {
        let source = relay.get(&format!("/v1/sources/{name}")).await;
        (source["counts"]["events"].as_u64() >= Some(count)).then_some(())
    })
    .await;
}

async fn fragments() {
    let many: Vec<u8> = [&[0x01, 1, b'a'][..], &[0x00, 1, b'b'].repeat(99_998), &[0x80, 1, b'c']].concat();
    // What any message of that size takes is not what fragments take.
    let same = frame(Opcode::Text, "ab".repeat(50_000).as_bytes()).repeat(20);
    let warm = Server::start(vec![vec![Play::Accept(""), Play::Raw(same), Play::Hold]]).await;
    let server = Server::start(vec![vec![Play::Accept(""), Play::Raw(many), Play::Hold]]).await;
    let relay = Relay::start().await;
    add_source(&relay, "warm", &warm.url).await;
    events_of(&relay, "warm", 20).await;
    let before = proc_status_kib(relay.pid(), "VmRSS:");
    add_source(&relay, "up", &server.url).await;
    events_of(&relay, "up", 1).await;
    let grown = proc_status_kib(relay.pid(), "VmRSS:").saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
}

async fn ping_flood() {
    let end = CancellationToken::new();
    let other = Server::start(vec![vec![Play::Accept(""), text("1"), Play::Hold]]).await;
    let flood = Server::start(vec![vec![Play::Accept(""), text("1"), Play::PingFlood(end.clone()), text("2"), Play::Hold]]).await;
    let relay = Relay::start().await;
    add_source(&relay, "flood", &flood.url).await;
    events_of(&relay, "flood", 1).await;
    let (ticks, began) = (cpu_ticks(relay.pid()), Instant::now());
    add_source(&relay, "other", &other.url).await;
    events_of(&relay, "other", 1).await;
    // Neither waits for the end of the flood.
    let pongs = || flood.heard().iter().filter(|(_, item)| *item == WsItem::Ping(Bytes::new()) || *item == WsItem::Pong).count();
    eventually("pongs", || (pongs() > 10).then_some(())).await;
    end.cancel();
    events_of(&relay, "flood", 2).await;
    let (took, spent) = (began.elapsed(), cpu_ticks(relay.pid()) - ticks);
    let pongs = pongs();
    assert!(pongs as u64 <= 100 * (took.as_secs() + 2), "{pongs} in {took:?}");
    // A tick is a hundredth of a second.
    assert!(Duration::from_millis(10 * spent) < took, "{spent} ticks in {took:?}");
}

#[test]
fn a_message_is_an_event_of_its_kind() {
    run(async {
        let own = WebSocketSettings { resume: Some("/at".to_owned()), ..WebSocketSettings::default() };
        let script = vec![
            Play::Accept(""),
            text("{\"at\": 17}"),
            text("hello"),
            Play::Raw(frame(Opcode::Binary, &[0, 159, 146, 150])),
            raw(&[0x01, 3, b'{', b'"', b'a', 0x89, 1, b'!', 0x80, 4, b'"', b':', b'1', b'}']),
            Play::Hold,
        ];
        let stand = Stand::start(vec![script], own, quick()).await;
        stand.events(4).await;
        let kinds: Vec<String> = stand.recorder.emissions().iter().map(|e| e.event.content_type.clone()).collect();
        assert_eq!(kinds, ["application/json", "text/plain", "application/octet-stream", "application/json"]);
        assert_eq!(stand.recorder.data()[3], "{\"a\":1}");
        assert_eq!(stand.recorder.emissions()[0].resume, token("17"));
        assert_eq!(stand.recorder.emissions()[1].resume, None);
        let pong = eventually("a pong", || stand.server.heard().into_iter().find(|(_, item)| *item == WsItem::Pong)).await;
        assert_eq!(pong.0, 0);
    });
}

#[test]
fn a_source_subscribes_and_later_resumes() {
    run(async {
        let own = WebSocketSettings {
            subprotocols: vec!["feed.v2".to_owned(), "feed.v1".to_owned()],
            subscribe: vec![json!({"op": "subscribe", "args": ["a"]}), json!("HELLO")],
            resume_message: vec![json!({"op": "resume", "at": "{resume}"})],
            resume: Some("/at".to_owned()),
            ..WebSocketSettings::default()
        };
        let accept = Play::Accept("sec-websocket-protocol: feed.v1\r\n");
        let scripts =
            vec![vec![accept.clone(), text("{\"at\":1}"), text("{\"at\":2}")], vec![accept, text("{\"at\":3}"), Play::Hold]];
        let stand = Stand::start(scripts, own, quick()).await;
        stand.events(3).await;
        assert_eq!(stand.ending().await, "eof");
        let said = eventually("a resumption", || Some(stand.server.said(1)).filter(|said| !said.is_empty())).await;
        assert_eq!(said, ["{\"at\":\"2\",\"op\":\"resume\"}"]);
        assert_eq!(stand.server.said(0), ["{\"args\":[\"a\"],\"op\":\"subscribe\"}", "HELLO"]);
        assert_eq!(stand.recorder.gaps(), []);
        let head = stand.server.heads.lock().unwrap()[0].to_ascii_lowercase();
        assert!(head.contains("sec-websocket-protocol: feed.v2, feed.v1\r\n"), "{head}");
        stand.sources.shutdown().await;
        let goodbye = || stand.server.heard().into_iter().find(|(_, item)| *item == WsItem::Close(Some(1001), String::new()));
        eventually("a goodbye", goodbye).await;
    });
}

#[test]
fn silence_is_the_end_only_when_pings_are_not_answered() {
    run(async {
        let settings = SourceSettings { idle_timeout: Duration::from_millis(200), ..SourceSettings::default() };
        let stand = Stand::with(vec![vec![Play::Accept(""), text("1"), Play::Hold]], settings, quick()).await;
        assert_eq!(stand.ending().await, "idle");
        let pinged = |(index, item): &(usize, WsItem)| *index == 0 && *item == WsItem::Ping(Bytes::new());
        assert!(stand.server.heard().iter().filter(|heard| pinged(heard)).count() >= 2);
    });
}

#[test]
fn answers_that_refuse_keep_their_meaning() {
    run(async {
        refused(vec![http("401 Unauthorized", "")], "auth", true).await;
        refused(vec![http("404 Not Found", "")], "status", false).await;
        refused(vec![http("101 Switching Protocols", "upgrade: websocket\r\nconnection: upgrade\r\n")], "handshake", false).await;
        refused(vec![raw(b"SSH-2.0-OpenSSH_9.9\r\n"), Play::Hold], "handshake", false).await;
        refused(vec![], "eof", false).await;
        let script = vec![http("503 Service Unavailable", "retry-after: 120\r\n")];
        let stand = Stand::start(vec![script], WebSocketSettings::default(), ReconnectSettings::default()).await;
        assert_eq!(stand.ending().await, "status");
        let status = stand.status();
        assert!(status.next_attempt_at.unwrap().since(status.last_error.unwrap().at) >= Duration::from_mins(2));
        let closed = Stand::slow(vec![Play::Accept(""), close(4401), Play::Hold]).await;
        assert_eq!(closed.ending().await, "auth");
        assert!(closed.status().needs_attention);
        assert_eq!(closed.server.connections(), 1);
    });
}

#[test]
fn a_message_over_the_cap_is_left_out_and_counted() {
    run(async {
        let settings = SourceSettings { max_event_bytes: 1000, ..SourceSettings::default() };
        let script = vec![Play::Accept(""), text(&"x".repeat(1001)), text("2"), Play::Hold];
        let stand = Stand::with(vec![script], settings, quick()).await;
        assert_eq!(stand.events(1).await, ["2"]);
        let skipped: Vec<_> = stand.status().skipped().filter(|(_, n)| *n > 0).map(|(r, n)| (r.as_str(), n)).collect();
        assert_eq!(skipped, [("event_too_large", 1)]);
    });
}

#[test]
fn while_the_relay_is_busy_nothing_is_read() {
    run(async {
        let message = frame(Opcode::Binary, &vec![b'x'; 64 * 1024]);
        let script = vec![Play::Accept(""), Play::Raw(message.repeat(2000)), Play::Hold];
        let server = Server::start(vec![script]).await;
        let recorder = Recorder::taking(0);
        let sources = Arc::new(Sources::new(context(&recorder, quick())));
        sources.reconcile(vec![record("websocket", &server.url, SourceSettings::default())]).await;
        eventually("bytes", || (sources.status("up").unwrap().bytes > 0).then_some(())).await;
        for_a_while(Duration::from_millis(200)).await;
        let read = sources.status("up").unwrap().bytes;
        assert!(read < 4 << 20, "{read} bytes of 128 MiB were taken in");
        recorder.intake.add_permits(100_000);
        eventually("all of them", || (recorder.count() == 2000).then_some(())).await;
        assert!(recorder.largest_batch() <= 512);
    });
}
