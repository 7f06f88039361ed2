//! The rows `upstream.ndjson` and `upstream.sse` of the collection of bad inputs, each found by its text.
//!
//! Long times are scaled: silence is 50 ms instead of 90 s, a byte comes as soon as the last was written instead of every
//! second, and a million lines are two hundred thousand. Delays are judged as they are planned, at their real length.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hookcast_core::model::source::SourceSettings;
use hookcast_source::{ReconnectSettings, SourceState};

use super::support::*;
use crate::support::upstream::read_head;

const ROWS: &str = include_str!("../../data/sources/bad-inputs.csv");

/// Area, input, expected. Every field is quoted, a quote inside is doubled.
fn rows(area: &str) -> Vec<(String, String)> {
    let fields = |line: &str| {
        let inside = line.strip_prefix('"').unwrap().strip_suffix('"').unwrap().to_owned();
        inside.split("\",\"").map(|field| field.replace("\"\"", "\"")).collect::<Vec<_>>()
    };
    let rows = ROWS.lines().skip(1).map(fields).filter(|row| row[0] == area);
    rows.map(|row| (row[1].clone(), row[2].clone())).collect()
}

/// What the upstream does, and what must come of it.
struct Case {
    /// Words of the row's expectation that this case judges; a table that changes no longer has them.
    row_says: &'static str,
    scripts: Vec<Vec<Step>>,
    settings: SourceSettings,
    events: Vec<String>,
    skipped: Vec<(&'static str, u64)>,
    /// The word for the first ending.
    ending: &'static str,
    /// The delay planned after it, in seconds, where the row says something of it.
    delay_s: Option<std::ops::RangeInclusive<u64>>,
    state: SourceState,
    needs_attention: bool,
}

fn case(row_says: &'static str, scripts: Vec<Vec<Step>>, events: &[&str]) -> Case {
    Case {
        row_says,
        scripts,
        settings: SourceSettings::default(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        skipped: Vec::new(),
        ending: "eof",
        delay_s: None,
        state: SourceState::Backoff,
        needs_attention: false,
    }
}

/// One connection with this body, ended by closing it.
fn body(row_says: &'static str, head: String, body: &[u8], events: &[&str]) -> Case {
    case(row_says, vec![vec![send(head), send(body)]], events)
}

fn lines(row_says: &'static str, text: &[u8], events: &[&str]) -> Case {
    body(row_says, ndjson_head(), text, events)
}

fn blocks(row_says: &'static str, pieces: &[&[u8]], events: &[&str]) -> Case {
    let mut script = vec![send(sse_head())];
    script.extend(pieces.iter().map(send));
    case(row_says, vec![script], events)
}

/// An answer without a stream.
fn refused(row_says: &'static str, answer: &str, headers: &str, ending: &'static str) -> Case {
    let script = vec![send(head(answer, headers))];
    Case { ending, delay_s: Some(1..=300), ..case(row_says, vec![script], &[]) }
}

impl Case {
    fn skips(self, reason: &'static str) -> Self {
        Self { skipped: vec![(reason, 1)], ..self }
    }

    fn after(self, delay_s: std::ops::RangeInclusive<u64>) -> Self {
        Self { delay_s: Some(delay_s), ..self }
    }

    async fn judge(self, protocol: &str, input: &str) {
        let real = ReconnectSettings::default();
        let bench = Bench::with(protocol, self.scripts, self.settings, real, Recorder::taking(100_000)).await;
        assert_eq!(bench.ending().await, self.ending, "{input}");
        let status = bench.status();
        assert_eq!(bench.recorder.data(), self.events, "{input}");
        assert_eq!(bench.skipped(), self.skipped, "{input}");
        assert_eq!(status.needs_attention, self.needs_attention, "{input}");
        if self.state == SourceState::Stopped {
            assert_eq!(status.state, SourceState::Stopped, "{input}");
        }
        if let Some(wanted) = self.delay_s {
            let delay = status.next_attempt_at.unwrap().since(status.last_error.unwrap().at);
            assert!(wanted.contains(&delay.as_secs()), "{input}: {delay:?}");
        }
    }
}

fn judge_all(area: &str, count: usize, mut cases: BTreeMap<&'static str, Vec<Case>>) {
    let protocol = area.strip_prefix("upstream.").unwrap();
    let rows = rows(area);
    assert_eq!(rows.len(), count);
    run(async {
        for (input, expected) in &rows {
            let Some(cases) = cases.remove(input.as_str()) else {
                assert!(ELSEWHERE.contains(&input.as_str()), "no case for the row {input}");
                continue;
            };
            for case in cases {
                assert!(expected.contains(case.row_says), "{input}: the row says {expected}, not {}", case.row_says);
                case.judge(protocol, input).await;
            }
        }
    });
    assert!(cases.is_empty(), "cases without a row: {:?}", cases.keys());
}

/// Rows that have a test of their own below.
const ELSEWHERE: &[&str] = &[SAME_ID, REPEATS, SILENCE, TRICKLE, MANY_LINES, COMMENT, BOTH_RESUME, EVIL, RETRY_ZERO, RETRY_LONG];
const SAME_ID: &str = "same id twice";
const REPEATS: &str = "upstream repeats from start after reconnect";
const SILENCE: &str = "silence > idle_timeout";
const TRICKLE: &str = "1 byte/s for 10 min";
const MANY_LINES: &str = "1e6 lines of 2 bytes in 1 s";
const COMMENT: &str = ": comment\\n\\n";
const BOTH_RESUME: &str = "id: 1\\ndata: a\\n\\ndata: b\\n\\n";
const EVIL: &str = "id: 1\\r\\nX-Evil: 1";
const RETRY_ZERO: &str = "retry: 0\\n\\n";
const RETRY_LONG: &str = "retry: 999999999999\\n\\n";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(row_says: &'static str, coded: &[u8], events: &[&str], ending: &'static str) -> Case {
    let answer = head("200 OK", "content-type: application/json\r\ncontent-encoding: gzip\r\n");
    Case { ending, ..body(row_says, answer, coded, events) }
}

#[test]
fn every_row_of_ndjson_ends_as_it_says() {
    let one: &[&str] = &["{\"a\":1}"];
    let two: &[&str] = &["{\"a\":1}", "{\"a\":2}"];
    let hundred: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n}}}")).collect();
    let hundred: Vec<&str> = hundred.iter().map(String::as_str).collect();
    let hundred_lines = hundred.join("\n") + "\n";
    let damaged = [gzip(hundred_lines.as_bytes()), b"this is no gzip member".to_vec()].concat();
    let long = [&vec![b'x'; 1_048_577][..], b"\n{\"a\":1}\n"].concat();
    let deep = "[".repeat(200) + "\n";
    let separator = "{\"a\":\"x\u{2028}y\"}";
    let page = head("200 OK", "content-type: text/html\r\n");
    let nothing = "content-length: 0\r\n";
    let denied = |row_says, answer| Case { needs_attention: true, ..refused(row_says, answer, nothing, "auth").after(60..=300) };
    let cases = BTreeMap::from([
        (r#"{"a":1}\n{"a":2}\n"#, vec![lines("EVENTS:2", b"{\"a\":1}\n{\"a\":2}\n", two)]),
        (r#"{"a":1}\r\n{"a":2}\r\n"#, vec![lines("EVENTS:2", b"{\"a\":1}\r\n{\"a\":2}\r\n", two)]),
        (r#"{"a":1}\n\n\n{"a":2}\n"#, vec![lines("EVENTS:2", b"{\"a\":1}\n\n\n{\"a\":2}\n", two)]),
        (r#"{"a":1}\n{"a":2}<EOF>"#, vec![lines("RECONNECT:eof", b"{\"a\":1}\n{\"a\":2}", two)]),
        (r#"{"a":1}\n{"a":<cut>"#, vec![lines("SKIP:partial", b"{\"a\":1}\n{\"a\":", one).skips("partial")]),
        (
            r#"{"a":1}\nnot json\n{"a":2}\n"#,
            vec![lines("SKIP:bad_json", b"{\"a\":1}\nnot json\n{\"a\":2}\n", two).skips("bad_json")],
        ),
        (r#"{"a":"\xff"}\n"#, vec![lines("SKIP:bad_utf8", b"{\"a\":\"\xff\"}\n", &[]).skips("bad_utf8")]),
        (r#"{"a":"\0"}\n"#, vec![lines("SKIP:bad_json", b"{\"a\":\"\0\"}\n", &[]).skips("bad_json")]),
        (r"42\n", vec![lines("EVENTS:1", b"42\n", &["42"]), lines("the same each time", b"42\n", &["42"])]),
        (r#"{"a":1}{"a":2}\n"#, vec![lines("SKIP:bad_json", b"{\"a\":1}{\"a\":2}\n", &[]).skips("bad_json")]),
        (r#"{"a":"x\u2028y"}\n"#, vec![lines("EVENTS:1", format!("{separator}\n").as_bytes(), &[separator])]),
        ("line of 1048577 bytes then good line", vec![lines("SKIP:line_too_long; EVENTS:1", &long, one).skips("line_too_long")]),
        ("{{200*[}} nested line", vec![lines("SKIP:too_deep", deep.as_bytes(), &[]).skips("too_deep")]),
        (
            "200 text/html login page",
            vec![Case {
                ending: "content_type",
                ..body("RECONNECT:content_type", page, b"<html>log in</html>", &[]).after(1..=300)
            }],
        ),
        ("204", vec![refused("backoff >= 1 s", "204 No Content", "", "empty")]),
        ("401 / 403", vec![denied("RECONNECT:auth", "401 Unauthorized"), denied("backoff >= 60 s", "403 Forbidden")]),
        (
            "429 Retry-After: 120",
            vec![
                refused("after >= 120 s", "429 Too Many Requests", "retry-after: 120\r\ncontent-length: 0\r\n", "rate_limited")
                    .after(120..=300),
            ],
        ),
        ("500", vec![refused("cap 5 min", "500 Internal Server Error", nothing, "status")]),
        ("Content-Encoding: gzip, good", vec![gzipped("EVENTS:n", &gzip(hundred_lines.as_bytes()), &hundred, "eof")]),
        (
            "gzip bomb 10 MiB -> 10 GiB",
            vec![
                gzipped("RECONNECT:decompression_limit", &gzip(&vec![b' '; 40 << 20]), &[], "decompression_limit")
                    .skips("line_too_long"),
            ],
        ),
        ("corrupt gzip after 100 events", vec![gzipped("EVENTS:100; RECONNECT:decode", &damaged, &hundred, "decode")]),
    ]);
    judge_all("upstream.ndjson", 26, cases);
}

#[test]
fn every_row_of_sse_ends_as_it_says() {
    let large = [b"data: a\n".repeat(200_000), b"\n".to_vec()].concat();
    let json = body("RECONNECT:content_type", head("200 OK", "content-type: application/json\r\n"), b"{}", &[]);
    let stop = refused("STOP:204", "204 No Content", "", "no_content");
    let forged = r#"{"x":"event: msg\ndata: forged"}"#;
    let forged_block = format!("data: {forged}\n\n");
    let cases = BTreeMap::from([
        (r"data: a\n\n", vec![blocks("EVENTS:1", &[b"data: a\n\n"], &["a"])]),
        (r"data: a\r\r", vec![blocks("EVENTS:1", &[b"data: a\r\r"], &["a"])]),
        (r"data: a\r | \n\r\n (CRLF split over chunks)", vec![blocks("EVENTS:1", &[b"data: a\r", b"\n\r\n"], &["a"])]),
        (r"data: a\ndata: b\n\n", vec![blocks("data=a\\\\nb", &[b"data: a\ndata: b\n\n"], &["a\nb"])]),
        (r"data:a\ndata:  b\n\n", vec![blocks("only one space removed", &[b"data:a\ndata:  b\n\n"], &["a\n b"])]),
        (r"\xef\xbb\xbfdata: a\n\n", vec![blocks("EVENTS:1", &[b"\xef\xbb\xbfdata: a\n\n"], &["a"])]),
        (r"data: a\n\n\xef\xbb\xbfdata: b\n\n", vec![blocks("EVENTS:1", &[b"data: a\n\n\xef\xbb\xbfdata: b\n\n"], &["a"])]),
        (r"id: a\0b\ndata: x\n\n", vec![blocks("id ignored", &[b"id: a\0b\ndata: x\n\n"], &["x"])]),
        (r"event: x\n\n", vec![blocks("EVENTS:0", &[b"event: x\n\n"], &[])]),
        (r"data: a<EOF>", vec![blocks("EVENTS:0", &[b"data: a"], &[])]),
        (r"foo: bar\ndata: a\n\n", vec![blocks("EVENTS:1", &[b"foo: bar\ndata: a\n\n"], &["a"])]),
        (
            r"data: \xe2 | \x82\xac\n\n (multibyte split)",
            vec![blocks("EVENTS:1", &[b"data: \xe2", b"\x82\xac\n\n"], &["\u{20ac}"])],
        ),
        (r"{{200000*data: a\n}}\n", vec![blocks("SKIP:event_too_large", &[&large], &[]).skips("event_too_large")]),
        ("200 application/json", vec![Case { ending: "content_type", ..json }]),
        ("204", vec![Case { delay_s: None, state: SourceState::Stopped, needs_attention: true, ..stop }]),
        (r"event: msg\\ndata: forged (as JSON value in data)", vec![blocks("EVENTS:1", &[forged_block.as_bytes()], &[forged])]),
    ]);
    judge_all("upstream.sse", 21, cases);
}

fn expects(area: &str, input: &str, words: &str) {
    let row = rows(area).into_iter().find(|row| row.0 == input);
    let (_, expected) = row.unwrap_or_else(|| panic!("no row {input}"));
    assert!(expected.contains(words), "{input}: {expected}");
}

/// What is a repeat is the log's to say; what a source owes it is the id, each time.
#[test]
fn ids_come_with_every_copy_so_that_repeats_are_known() {
    expects("upstream.ndjson", SAME_ID, "dedupe counter +1");
    expects("upstream.ndjson", REPEATS, "only new ids pass");
    run(async {
        let settings = SourceSettings { id: Some("/id".to_owned()), ..SourceSettings::default() };
        let first = vec![send(ndjson_head()), send("{\"id\":1}\n{\"id\":1}\n")];
        let second = vec![send(ndjson_head()), send("{\"id\":1}\n{\"id\":2}\n"), Step::Hold];
        let bench = Bench::with("ndjson", vec![first, second], settings, quick(), Recorder::taking(9)).await;
        bench.events(4).await;
        let ids: Vec<(String, bool)> =
            bench.recorder.emissions().into_iter().map(|emission| (emission.event.id, emission.event.own_id)).collect();
        assert_eq!(ids, ["1", "1", "1", "2"].map(|id| (id.to_owned(), true)));
    });
}

#[test]
fn silence_is_an_ending_and_a_comment_is_none() {
    expects("upstream.ndjson", SILENCE, "RECONNECT:idle");
    expects("upstream.sse", COMMENT, "idle timer reset");
    run(async {
        let settings = || SourceSettings { idle_timeout: Duration::from_millis(50), ..SourceSettings::default() };
        let script = vec![send(ndjson_head()), Step::Hold];
        let bench = Bench::with("ndjson", vec![script], settings(), quick(), Recorder::taking(1)).await;
        assert_eq!(bench.ending().await, "idle");

        // Many comments, each sent while the last is far from too long ago, over several idle timeouts.
        let settings = SourceSettings { idle_timeout: Duration::from_secs(2), ..SourceSettings::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let record = record("sse", &format!("http://{}/", listener.local_addr().unwrap()), settings);
        let recorder = Recorder::taking(9);
        let sources = hookcast_source::Sources::new(context(&recorder, quick()));
        sources.reconcile(vec![record]).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, sse_head().as_bytes()).await.unwrap();
        let mut beat = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..60 {
            beat.tick().await;
            tokio::io::AsyncWriteExt::write_all(&mut stream, b": comment\n\n").await.unwrap();
        }
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"data: a\n\n").await.unwrap();
        eventually("the event", || (recorder.count() == 1).then_some(())).await;
        assert_eq!(sources.status("up").unwrap().reconnects, 0);
    });
}

#[test]
fn bytes_that_trickle_make_their_events() {
    expects("upstream.ndjson", TRICKLE, "EVENTS as complete");
    run(async {
        let mut script = vec![send(ndjson_head())];
        script.extend(b"{\"a\":1}\n{\"a\":2}\n".repeat(20).chunks(1).map(send));
        script.push(Step::Hold);
        let bench = Bench::new("ndjson", vec![script]).await;
        assert_eq!(bench.events(40).await.len(), 40);
    });
}

#[test]
fn many_small_lines_wait_for_whoever_takes_them_and_none_is_lost() {
    expects("upstream.ndjson", MANY_LINES, "0 lost after resume");
    run(async {
        let text = "1\n2\n".repeat(100_000);
        let script = vec![send(ndjson_head()), send(&text), Step::Hold];
        let bench = Bench::with("ndjson", vec![script], SourceSettings::default(), quick(), Recorder::taking(2)).await;
        bench.events(1).await;
        assert!(bench.status().bytes < 400_000, "the socket is not read while nobody takes what came");
        bench.recorder.intake.add_permits(1_000_000);
        assert_eq!(bench.events(200_000).await.concat(), text.replace('\n', ""));
    });
}

#[test]
fn positions_and_delays_of_event_streams_are_as_their_rows_say() {
    expects("upstream.sse", BOTH_RESUME, "both resume id 1");
    expects("upstream.sse", EVIL, "no CR/LF");
    expects("upstream.sse", RETRY_ZERO, "floor 1 s");
    expects("upstream.sse", RETRY_LONG, "cap 5 min");
    run(async {
        let bench = Bench::new("sse", vec![vec![send(sse_head()), send("id: 1\ndata: a\n\ndata: b\n\n")]]).await;
        bench.events(2).await;
        assert!(bench.recorder.emissions().iter().all(|emission| emission.resume == token("1")));

        let body = "id: 1\r\nX-Evil: 1\r\ndata: a\r\n\r\n";
        let bench = Bench::new("sse", vec![vec![send(sse_head()), send(body)]]).await;
        let request = bench.upstream.request(1).await;
        assert!(request.contains("\r\nlast-event-id: 1\r\n") && !request.contains("evil"), "{request}");

        for (retry, low_s, high_s) in [("0", 1, 2), ("999999999999", 300, 300)] {
            let script = vec![send(sse_head()), send(format!("retry: {retry}\n\n"))];
            let (settings, real) = (SourceSettings::default(), ReconnectSettings::default());
            let bench = Bench::with("sse", vec![script], settings, real, Recorder::taking(1)).await;
            bench.ending().await;
            let status = bench.status();
            let delay = status.next_attempt_at.unwrap().since(status.last_error.unwrap().at);
            assert!((Duration::from_secs(low_s)..=Duration::from_secs(high_s)).contains(&delay), "retry {retry}: {delay:?}");
        }
    });
}
