//! A thousand events by every format and client: the client is cut in the middle, comes back behind what it saw last, and has
//! missed none and got none twice.

use serde_json::Value;

use super::cutter::Cutter;
use super::events::{EVENTS, Event, events, publish};
use super::feed::{self, Feed, curl, node, python};
use crate::support::Relay;

/// Events that are there before a client comes.
const FIRST: usize = 300;
/// Events in one request after that.
const MORE: usize = 100;
/// How many events a client has got when it is cut.
const CUT_AT: usize = 555;

/// One client.
struct Kind {
    /// What it asks for, besides where to begin.
    query: &'static str,
    /// Whether its format takes line feeds inside of data.
    takes_line_feeds: bool,
    start: fn(url: &str, last: Option<u64>) -> Feed,
    /// What it should say of an event.
    expected: fn(&Event) -> Value,
}

const KIND: Kind = Kind { query: "", takes_line_feeds: true, start: |_, _| unreachable!(), expected: Event::as_form };

/// Lets a client receive everything; how it is cut differs.
async fn receive(kind: Kind, cut: impl AsyncFn(&Relay, &mut Feed, u64), address: impl AsyncFn(&Relay) -> String) {
    let relay = Relay::start().await;
    let events = events(kind.takes_line_feeds);
    let mut seqs = publish(&relay, "a.b", &events[..FIRST]).await;
    let url = format!("{}/v1/topics/a.*/stream?heartbeat=5m&since=earliest&{}", address(&relay).await, kind.query);
    let mut client = (kind.start)(&url, None);
    for n in 0..EVENTS {
        let is_cut = n == CUT_AT;
        // Some come while the client listens, some while it is away.
        if is_cut || (n % MORE == MORE / 2 && seqs.len() < EVENTS.min(n + MORE)) {
            let until = EVENTS.min(seqs.len() + MORE);
            let from = seqs.len();
            seqs.extend(publish(&relay, "a.b", &events[from..until]).await);
        }
        if is_cut {
            cut(&relay, &mut client, seqs[n - 1]).await;
        }
        let got = client.next().await;
        assert_eq!(got.value, (kind.expected)(&events[n]), "event {n} of {}", kind.query);
        assert!(got.seq.is_none_or(|seq| seq == seqs[n]), "event {n} is at {}, not {got:?}", seqs[n]);
    }
}

/// Kills the client in the middle, and starts it again behind the last position.
async fn killed_and_resumed(kind: Kind) {
    let Kind { query, start, .. } = kind;
    let again = async |relay: &Relay, client: &mut Feed, last: u64| {
        let url = format!("{}/v1/topics/a.*/stream?heartbeat=5m&{query}", relay.url);
        *client = start(&url, Some(last));
    };
    receive(kind, again, async |relay| relay.url.clone()).await;
}

#[tokio::test]
#[ignore = "needs curl"]
async fn ndjson_by_curl() {
    let start = |url: &str, last| Feed::of(curl(url, last, &[]), feed::form_lines);
    killed_and_resumed(Kind { query: "format=ndjson", start, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs curl"]
async fn ndjson_over_http_1_0_by_curl() {
    let start = |url: &str, last| Feed::of(curl(url, last, &["--http1.0"]), feed::form_lines);
    killed_and_resumed(Kind { query: "format=ndjson", start, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs curl"]
async fn raw_by_curl() {
    let start = |url: &str, last| Feed::of(curl(url, last, &[]), feed::byte_lines);
    killed_and_resumed(Kind { query: "format=raw", takes_line_feeds: false, start, expected: Event::as_bytes }).await;
}

#[tokio::test]
#[ignore = "needs curl"]
async fn lengths_by_curl() {
    let start = |url: &str, last| Feed::of(curl(url, last, &[]), feed::counted);
    killed_and_resumed(Kind { query: "format=length", start, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs curl, jq"]
async fn a_json_sequence_by_jq() {
    let start = |url: &str, last| {
        let mut jq = tokio::process::Command::new("jq");
        jq.args(["--seq", "--unbuffered", "-c", "."]);
        Feed::through(curl(url, last, &[]), jq, feed::sequence)
    };
    killed_and_resumed(Kind { query: "format=json-seq", start, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn multipart_by_python() {
    let start = |url: &str, last| Feed::of(python("multipart", url, last), feed::printed);
    killed_and_resumed(Kind { query: "format=multipart", start, expected: Event::as_bytes, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn a_page_by_the_engine_of_node() {
    let start = |url: &str, last| Feed::of(node("page", url, last), feed::printed);
    killed_and_resumed(Kind { query: "format=html&callback=app.take", start, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn sse_by_httpx_sse() {
    let start = |url: &str, last| Feed::of(python("httpx_sse", url, last), feed::printed);
    killed_and_resumed(Kind { query: "format=sse&padding=1", start, expected: Event::as_sse, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn sse_asked_for_by_post_by_httpx_sse() {
    let start = |url: &str, last| Feed::of(python("httpx_sse_post", url, last), feed::printed);
    killed_and_resumed(Kind { query: "types=message,line,odd", start, expected: Event::as_sse, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs python"]
async fn sse_by_sseclient() {
    let start = |url: &str, last| Feed::of(python("sseclient", url, last), feed::printed);
    killed_and_resumed(Kind { query: "format=sse", start, expected: Event::as_sse, ..KIND }).await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn sse_by_eventsource_which_comes_back_by_itself() {
    let start = |url: &str, last| Feed::of(node("eventsource", url, last), feed::printed);
    let cutter = std::cell::OnceCell::new();
    let address = async |relay: &Relay| {
        let started = Cutter::start(&relay.url).await;
        cutter.get_or_init(|| started).url()
    };
    let cut = async |_: &Relay, _: &mut Feed, _: u64| cutter.get().unwrap().cut();
    receive(Kind { query: "format=sse", start, expected: Event::as_sse, ..KIND }, cut, address).await;
}
