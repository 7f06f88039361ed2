//! The rows `stream.client` of the collection of bad inputs, each found by its text. Those about frames of `WebSocket` clients
//! are judged where those are.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::crowd::{metric, open, until_open};
use crate::streams::relay as memory;
use crate::support::{PATIENCE, Relay, eventually, within};

const ROWS: &str = include_str!("../../data/formats/bad-inputs.csv");

fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    ROWS.lines().map(|line| line.trim_matches('"').split("\",\"").collect::<Vec<_>>())
}

/// What a row expects; the table and the tests cannot drift apart.
fn expected(input: &str) -> &'static str {
    rows().find(|row| row[1] == input).unwrap_or_else(|| panic!("no row {input:?}"))[2]
}

const OLDEST: &str = "Last-Event-ID: 0";
const NEWEST: &str = "Last-Event-ID: <newest>";
const BEYOND: &str = "Last-Event-ID: 99999999999999999999";
const NEGATIVE: &str = "Last-Event-ID: -1";
const LONG: &str = "Last-Event-ID: {{10240*1}}";
const IMAGE: &str = "Accept: image/png";
const NEVER: &str = "client never reads";
const THOUSAND: &str = "1000 clients never read, 1000 ev/s, 60 s";
const SLOW: &str = "client reads 1 KiB/s";
const VANISHED: &str = "client vanishes (no FIN, veth down)";
const TOO_MANY: &str = "10001st connection";
const TOO_MANY_OF_ONE: &str = "101st connection of one token";
const COMING_AND_GOING: &str = "connect/disconnect 1000/s for 60 s";
const NULL_ORIGIN: &str = "Origin: null";
const TYPE: &str = r"event type `a\nevent: admin`";
const FORGED: &str = r"payload `x\n\ndata: forged\n\n`";
const LONE_CR: &str = r"payload with lone \r";
const PRETTY: &str = "pretty-printed JSON payload on NDJSON output";
const SEPARATOR: &str = "payload with U+2028 on NDJSON";
const REVOKED: &str = "token revoked during the stream";
const OLD: &str = "HTTP/1.0 client";
/// Kinds of timers in `/proc/net/tcp`.
const KEEPALIVE: u8 = 2;
const ZERO_WINDOW: u8 = 4;
/// How many clients come and go.
const TIMES: usize = 400;
const HEAD: &str = "HEAD on a stream";

#[test]
fn every_row_of_the_table_has_a_test() {
    let tested = [
        OLDEST,
        NEWEST,
        BEYOND,
        NEGATIVE,
        LONG,
        IMAGE,
        NEVER,
        THOUSAND,
        SLOW,
        VANISHED,
        TOO_MANY,
        TOO_MANY_OF_ONE,
        COMING_AND_GOING,
        NULL_ORIGIN,
        TYPE,
        FORGED,
        LONE_CR,
        PRETTY,
        SEPARATOR,
        REVOKED,
        OLD,
        HEAD,
    ];
    let others: Vec<_> = rows().map(|row| row[1]).filter(|input| !tested.contains(input)).collect();
    assert!(others.len() == 4 && others.iter().all(|input| input.starts_with("WebSocket ")), "{others:?}");
    assert_eq!(rows().count(), tested.len() + others.len());
}

async fn resumed(relay: &memory::Relay, id: &str) -> memory::Lines {
    let request = reqwest::Client::new().get(relay.url("a/stream")).header("last-event-id", id);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    memory::Lines::of(response)
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_last_event_id_says_where_to_go_on() {
    assert_eq!(expected(OLDEST), "replay from oldest kept, in order");
    assert_eq!(expected(NEWEST), "live only");
    assert_eq!(expected(BEYOND), "`reset` frame then live; 200");
    let relay = memory::Relay::start(memory::small(), 1).await;
    for _ in 0..10 {
        relay.publish("a", 10).await;
    }
    assert_eq!(relay.trim().await.0, 91);
    let mut oldest = resumed(&relay, "0").await;
    assert_eq!(oldest.seqs(10).await, (91..=100).collect::<Vec<_>>());
    let mut newest = resumed(&relay, "100").await;
    let mut beyond = resumed(&relay, "99999999999999999999").await;
    let reset = beyond.event().await.unwrap();
    assert_eq!((&reset["type"], &reset["data"]), (&json!("hookcast.reset"), &json!({"head": 100})));
    relay.publish("a", 1).await;
    for lines in [&mut oldest, &mut newest, &mut beyond] {
        assert_eq!(lines.seqs(1).await, [101]);
    }
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_cannot_be_answered_is_refused() {
    let relay = memory::Relay::start(memory::small(), 1).await;
    let long = "1".repeat(10_240);
    for (row, name, value) in [(NEGATIVE, "last-event-id", "-1"), (LONG, "last-event-id", &*long), (IMAGE, "accept", "image/png")]
    {
        let mut wanted = expected(row).split(':').skip(1);
        let request = reqwest::Client::new().get(relay.url("a/stream")).header(name, value);
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_str(), wanted.next().unwrap(), "{row}");
        let problem: Value = response.json().await.unwrap();
        if let Some(slug) = wanted.next() {
            assert_eq!(problem["type"], format!("/problems/{slug}"), "{row}");
        }
    }
    assert_eq!(relay.counts().opened, 0);
    relay.stop().await;
}

/// The lines of `/proc/net/tcp` about the relay's side of this client's connection: send queue in bytes, kind of timer.
fn kernel_side(relay: &Relay, client: &TcpStream) -> Option<(u64, u8)> {
    let port = |address: &str| u16::from_str_radix(address.split(':').nth(1).unwrap(), 16).unwrap();
    let host: std::net::SocketAddr = relay.url.strip_prefix("http://").unwrap().parse().unwrap();
    let wanted = (host.port(), client.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|line| (port(line[1]), port(line[2])) == wanted)?;
    let queue = u64::from_str_radix(line[4].split(':').next().unwrap(), 16).unwrap();
    let timer = u8::from_str_radix(line[5].split(':').next().unwrap(), 16).unwrap();
    Some((queue, timer))
}

async fn publish(relay: &Relay, content_type: &str, data: &str) -> u64 {
    let url = format!("{}/v1/topics/a/events", relay.url);
    let response = relay.client.post(url).header("content-type", content_type).body(data.to_owned()).send().await.unwrap();
    assert_eq!(response.status(), 202);
    response.json::<Value>().await.unwrap()["events"][0]["seq"].as_u64().unwrap()
}

/// The row in full: nothing is read for as long as the relay waits. What one may cost in memory is measured with two hundred
/// of them (`crowd.rs`), because one is lost in the noise: 256 KiB each.
#[tokio::test]
async fn who_never_reads_is_cut_and_who_vanished_is_found() {
    assert_eq!(expected(NEVER), "disconnected <= 30 s; RSS + <= 256 KiB; kernel buffer <= 2x SO_SNDBUF");
    assert_eq!(expected(VANISHED), "reaped <= 45 s by heartbeat + TCP_USER_TIMEOUT");
    assert_eq!(expected(THOUSAND), "RSS growth <= 256 MiB; healthy client p99 < 2x; 0 lost for healthy");
    let relay = Relay::start().await;
    let silent = open(&relay, "format=raw&types=none").await;
    let never = open(&relay, "heartbeat=1s").await;
    until_open(&relay, 2).await;
    let (_, timer) = kernel_side(&relay, &silent).expect("it is connected");
    assert_eq!(timer, KEEPALIVE, "a format without a heartbeat has the kernel ask");
    for _ in 0..40 {
        publish(&relay, "text/plain", &"x".repeat(50_000)).await;
    }
    let queue = eventually("a full socket", async || {
        kernel_side(&relay, &never).filter(|(queue, timer)| *queue > 0 && *timer == ZERO_WINDOW).map(|(queue, _)| queue)
    })
    .await;
    assert!(queue <= 2 * 2 * 128 * 1024, "{queue} bytes lie in the kernel");
    // A client that takes nothing and one whose machine is gone look the same from here: bytes wait and none is taken.
    let is_cut = async || (metric(&relay, "hookcast_streams_open").await <= 1).then_some(());
    within(Duration::from_secs(45), "the end of who never reads", is_cut).await;
    assert_eq!(kernel_side(&relay, &silent).expect("a client that has nothing to take stays").1, KEEPALIVE);
}

/// Scaled: a kibibyte is read for every event of twenty, not for every second.
#[tokio::test]
async fn who_reads_slowly_gets_everything() {
    assert_eq!(expected(SLOW), "slow_consumer close with resume id, or policy drop with gap frame; never silent");
    let relay = Relay::start().await;
    let mut slow = open(&relay, "").await;
    let mut read = Vec::new();
    for n in 0..100 {
        assert_eq!(publish(&relay, "text/plain", &format!("<{n}>{}", "x".repeat(20_000))).await, n + 1);
        let mut piece = [0; 1024];
        let got = tokio::time::timeout(PATIENCE, slow.read(&mut piece)).await.unwrap().unwrap();
        read.extend_from_slice(&piece[..got]);
    }
    let reading = async {
        while !read.windows(4).any(|window| window == b"<99>") {
            assert!(slow.read_buf(&mut read).await.unwrap() > 0, "the stream goes on");
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("everything in time");
    let text = String::from_utf8_lossy(&read);
    let places: Vec<_> = (0..100).map(|n| text.find(&format!("<{n}>")).unwrap_or_else(|| panic!("{n} is missing"))).collect();
    assert!(places.is_sorted(), "in order");
}

/// Scaled: two streams instead of ten thousand.
#[tokio::test]
async fn one_stream_too_many_is_refused_and_the_others_go_on() {
    assert_eq!(expected(TOO_MANY), "REJECT:503 with Retry-After; existing unaffected");
    let relay = Relay::start_with("[limits]\nstreams = 2\n").await;
    let mut first = open(&relay, "format=raw").await;
    let _second = open(&relay, "format=html").await;
    until_open(&relay, 2).await;
    for format in ["ndjson", "multipart"] {
        let url = format!("{}/v1/topics/a/stream?format={format}", relay.url);
        let refused = relay.client.get(url).send().await.unwrap();
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
    }
    publish(&relay, "text/plain", "goes on").await;
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(b"goes on\n\r\n") {
            assert!(first.read_buf(&mut read).await.unwrap() > 0, "it goes on");
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the event in time");
}

/// Scaled: a token that may have two. Then it is revoked, and what it has ends.
#[tokio::test]
async fn a_token_has_as_many_streams_as_it_may_and_none_once_it_is_revoked() {
    assert_eq!(expected(TOO_MANY_OF_ONE), "REJECT:429");
    assert_eq!(expected(REVOKED), "closed <= 5 s");
    let relay = Relay::start().await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]})).await;
    let root = made["token"].as_str().unwrap().to_owned();
    let body = json!({"name": "few", "scopes": ["stream"], "limits": {"streams": 2}});
    let made = relay.ask_as(&root, "POST", "/v1/tokens", Some(&body)).await.1;
    let few = made["token"].as_str().unwrap().to_owned();
    let ask = async |format: &str| {
        let url = format!("{}/v1/topics/a/stream?format={format}", relay.url);
        relay.client.get(url).bearer_auth(&few).send().await.unwrap()
    };
    let streams = [ask("raw").await, ask("multipart").await];
    assert_eq!(ask("length").await.status(), 429);
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(relay.ask_as(&root, "DELETE", &path, None).await.0, 200);
    for stream in streams {
        assert_eq!(stream.status(), 200);
        tokio::time::timeout(PATIENCE, stream.bytes()).await.expect("closed in time").unwrap();
    }
}

/// Scaled: as many as go in a row, after as many that bring everything to its usual size.
#[tokio::test]
async fn clients_that_come_and_go_leave_nothing() {
    assert_eq!(expected(COMING_AND_GOING), "fds and RSS back to baseline +5%");
    let relay = Relay::start().await;
    let come_and_go = async || {
        for n in 0..TIMES {
            let format = ["ndjson", "sse", "json-seq", "raw", "length", "multipart", "html"][n % 7];
            drop(open(&relay, &format!("format={format}")).await);
        }
        until_open(&relay, 0).await;
    };
    let files = || std::fs::read_dir(format!("/proc/{}/fd", relay.pid())).unwrap().count();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    come_and_go().await;
    let (files_before, resident_before) = (files(), resident());
    come_and_go().await;
    eventually("as many files as before", async || (files() <= files_before + files_before / 20).then_some(())).await;
    let grown = resident().saturating_sub(resident_before);
    assert!(grown <= resident_before / 20, "{grown} KiB more than {resident_before}");
}

#[tokio::test]
async fn a_page_without_an_origin_gets_nothing() {
    assert_eq!(expected(NULL_ORIGIN), "no Access-Control-Allow-Origin");
    let relay = Relay::start().await;
    let ask = async |origin: &str, token: &str| {
        let url = format!("{}/v1/topics/a/stream?limit=1&since=earliest", relay.url);
        let response = relay.client.get(url).header("origin", origin).bearer_auth(token).send().await.unwrap();
        (response.status().as_u16(), response.headers().get("access-control-allow-origin").cloned())
    };
    publish(&relay, "text/plain", "x").await;
    assert_eq!(ask("null", "").await, (403, None), "without tokens pages of others are refused");
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]})).await;
    assert_eq!(ask("null", made["token"].as_str().unwrap()).await, (200, None));
}

#[tokio::test]
async fn a_type_with_a_line_end_is_not_stored() {
    assert!(expected(TYPE).starts_with("stored type refused"));
    let relay = Relay::start().await;
    let url = format!("{}/v1/topics/a/events", relay.url);
    let request = relay.client.post(&url).header("ce-specversion", "1.0").header("ce-id", "1").header("ce-source", "/t");
    let response = request.header("ce-type", "a%0Aevent: admin").body("x").send().await.unwrap();
    assert!(response.status().is_client_error(), "{}", response.status());
    let event = json!({"specversion": "1.0", "id": "1", "source": "/t", "type": "a\nevent: admin", "data": 1});
    let request = relay.client.post(&url).header("content-type", "application/cloudevents+json").body(event.to_string());
    assert!(request.send().await.unwrap().status().is_client_error());
}

/// All of a stream that ends behind so many events.
async fn whole(relay: &Relay, format: &str, limit: usize) -> String {
    let url = format!("{}/v1/topics/a/stream?since=earliest&format={format}&limit={limit}", relay.url);
    tokio::time::timeout(PATIENCE, relay.client.get(url).send().await.unwrap().text()).await.expect("an end in time").unwrap()
}

#[tokio::test]
async fn no_payload_breaks_its_format() {
    assert!(expected(FORGED).starts_with("every line prefixed `data: `; one event"));
    assert_eq!(expected(LONE_CR), "split as line; one event");
    assert!(expected(PRETTY).starts_with("one line per event"));
    assert_eq!(expected(SEPARATOR), "one line");
    let relay = Relay::start().await;
    publish(&relay, "text/plain", "x\n\ndata: forged\n\n").await;
    publish(&relay, "text/plain", "a\rb\r\rc").await;
    publish(&relay, "application/json", "{\n \"a\": [\r\n 1,\r 2 ]\n}\n").await;
    publish(&relay, "text/plain", "\u{2028}a\u{2029}b\u{85}").await;
    let sse = whole(&relay, "sse", 4).await;
    let wanted =
        "id: 1\ndata: x\ndata: \ndata: data: forged\ndata: \ndata: \n\nid: 2\ndata: a\ndata: b\ndata: \ndata: c\n\nid: 3\n";
    assert!(sse.contains(wanted), "{sse}");
    assert!(!sse.contains('\r'), "{sse}");
    let ndjson = whole(&relay, "ndjson", 4).await;
    let lines: Vec<Value> = ndjson.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1]["data"], "a\rb\r\rc");
    assert_eq!(lines[2]["data"], json!({"a": [1, 2]}));
    assert_eq!(lines[3]["data"], "\u{2028}a\u{2029}b\u{85}");
    assert!(!ndjson.contains('\r'));
}

#[tokio::test]
async fn an_old_client_and_one_that_wants_only_the_head() {
    assert_eq!(expected(OLD), "200 without chunking, or REJECT:505; not corrupted chunks");
    assert_eq!(expected(HEAD), "200/405 at once; no subscription left behind");
    let relay = Relay::start().await;
    let host = relay.url.strip_prefix("http://").unwrap();
    for format in ["ndjson", "sse", "json-seq", "raw", "length", "multipart", "html"] {
        let mut socket = TcpStream::connect(host).await.unwrap();
        let request = format!("GET /v1/topics/a/stream?format={format} HTTP/1.0\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        until_open(&relay, 1).await;
        publish(&relay, "text/plain", "an event").await;
        let mut read = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&read).contains("an event") {
                assert!(socket.read_buf(&mut read).await.unwrap() > 0, "the stream goes on");
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the event in time");
        let text = String::from_utf8(read).unwrap().to_ascii_lowercase();
        assert!(text.contains(" 200 ") && !text.contains("transfer-encoding"), "{text}");
        drop(socket);
        until_open(&relay, 0).await;
        let head = relay.client.head(format!("{}/v1/topics/a/stream?format={format}", relay.url));
        assert_eq!(tokio::time::timeout(PATIENCE, head.send()).await.expect("at once").unwrap().status(), 200);
        assert_eq!(metric(&relay, "hookcast_streams_open").await, 0, "nothing is left behind");
    }
}
