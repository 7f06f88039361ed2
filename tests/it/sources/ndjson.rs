//! The protocol `ndjson`.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hookcast_core::model::source::SourceSettings;
use hookcast_source::{BATCH_EVENTS_MAX, ReconnectSettings, SourceState};

use super::support::*;

/// What comes of one body that ends with its connection: events, skips, ending.
async fn outcome(body: &[u8]) -> (Vec<String>, Vec<(&'static str, u64)>, String) {
    let bench = Bench::new("ndjson", vec![vec![send(ndjson_head()), send(body)]]).await;
    let ending = bench.ending().await;
    (bench.recorder.data(), bench.skipped(), ending)
}

/// A body, its events, its skips.
type Case<'a> = (&'a [u8], &'a [&'a str], &'a [(&'static str, u64)]);

#[test]
fn lines_become_events_and_bad_lines_are_skipped_alone() {
    let deep = format!("{}\n{{\"ok\":1}}\n", "[".repeat(200));
    let one: &[&str] = &["{\"a\":1}"];
    let two: &[&str] = &["{\"a\":1}", "{\"a\":2}"];
    let separator = "{\"a\":\"x\u{2028}y\"}";
    let with_separator = [separator];
    let cases: Vec<Case<'_>> = vec![
        (b"{\"a\":1}\n{\"a\":2}\n", two, &[]),
        (b"{\"a\":1}\r\n{\"a\":2}\r\n", two, &[]),
        (b"{\"a\":1}\n\n\n{\"a\":2}\n", two, &[]),
        (b"{\"a\":1}\n{\"a\":2}", two, &[]),
        (b"{\"a\":1}\n{\"a\":", one, &[("partial", 1)]),
        (b"{\"a\":1}\nnot json\n{\"a\":2}\n", two, &[("bad_json", 1)]),
        (b"{\"a\":\"\xff\"}\n", &[], &[("bad_utf8", 1)]),
        (b"{\"a\":\"\0\"}\n", &[], &[("bad_json", 1)]),
        (b"42\n", &["42"], &[]),
        (b"{\"a\":1}{\"a\":2}\n", &[], &[("bad_json", 1)]),
        (separator.as_bytes(), &with_separator, &[]),
        (deep.as_bytes(), &["{\"ok\":1}"], &[("too_deep", 1)]),
    ];
    run(async {
        for (body, events, skipped) in cases {
            let expected = (events.iter().map(|s| (*s).to_owned()).collect(), skipped.to_vec(), "eof".to_owned());
            assert_eq!(outcome(body).await, expected, "{:?}", String::from_utf8_lossy(body));
        }
    });
}

#[test]
fn a_cut_connection_leaves_out_the_line_it_cut() {
    run(async {
        let script = cut_short("content-type: application/json\r\n", b"{\"a\":1}\n{\"a\":2}");
        let bench = Bench::new("ndjson", vec![vec![script]]).await;
        assert_eq!(bench.ending().await, "truncated");
        assert_eq!(bench.recorder.data(), ["{\"a\":1}"]);
        assert_eq!(bench.skipped(), [("partial", 1)]);
        assert_eq!(bench.status().skipped_samples[0].head, "{\"a\":2}");
    });
}

#[test]
fn an_overlong_line_is_skipped_and_the_next_one_read() {
    run(async {
        let body = [&vec![b'x'; 1_048_577][..], b"\n{\"a\":1}\n"].concat();
        let (events, skipped, _) = outcome(&body).await;
        assert_eq!((events, skipped), (vec!["{\"a\":1}".to_owned()], vec![("line_too_long", 1)]));
    });
}

#[test]
fn an_event_has_the_contracts_defaults_and_what_pointers_find() {
    run(async {
        let pointer = |text: &str| Some(text.to_owned());
        let settings = SourceSettings { id: pointer("/time"), kind: pointer("/channel"), ..SourceSettings::default() };
        let body: &[u8] = include_bytes!("../../data/recorded/wikiticker.ndjson");
        let script = vec![send(ndjson_head()), send(body), Step::Hold];
        let bench = Bench::with("ndjson", vec![script], settings, quick(), Recorder::taking(100)).await;
        bench.events(40).await;
        let emissions = bench.recorder.emissions();
        let first = &emissions[0].event;
        assert_eq!(first.data, body.split(|&b| b == b'\n').next().unwrap());
        assert_eq!((first.source.as_str(), first.content_type.as_str()), ("/sources/up", "application/json"));
        assert!(first.own_id && first.id.starts_with("2015-09-12T"), "{}", first.id);
        assert!(first.kind.starts_with('#'), "{}", first.kind);
        assert!(emissions.iter().all(|emission| emission.resume.is_none()));
        let status = bench.status();
        assert_eq!((status.state, status.events), (SourceState::Connected, 40));
        assert_eq!(status.bytes, body.len() as u64);
        assert!(status.last_event_at.is_some());
    });
}

#[test]
fn what_is_no_stream_is_answered_with_a_backoff_of_its_kind() {
    let html = format!("{}<html>log in</html>", head("200 OK", "content-type: text/html\r\n"));
    let cases: Vec<(String, &str, u64)> = vec![
        (html, "content_type", 1),
        (head("204 No Content", ""), "empty", 1),
        (head("401 Unauthorized", "content-length: 0\r\n"), "auth", 60),
        (head("403 Forbidden", "content-length: 0\r\n"), "auth", 60),
        (head("429 Too Many Requests", "retry-after: 120\r\ncontent-length: 0\r\n"), "rate_limited", 120),
        (head("500 Internal Server Error", "content-length: 0\r\n"), "status", 1),
        (head("302 Found", "location: http://127.0.0.1:9/\r\ncontent-length: 0\r\n"), "redirect", 60),
        (head("200 OK", "content-type: application/json\r\ncontent-encoding: br\r\n"), "content_encoding", 1),
    ];
    run(async {
        for (answer, slug, delay_min_s) in cases {
            let scripts = vec![vec![send(&answer)]];
            let (settings, reconnect) = (SourceSettings::default(), ReconnectSettings::default());
            let bench = Bench::with("ndjson", scripts, settings, reconnect, Recorder::taking(1)).await;
            assert_eq!(bench.ending().await, slug);
            let status = bench.status();
            assert_eq!(status.state, SourceState::Backoff, "{slug}");
            let delay = status.next_attempt_at.unwrap().since(status.last_error.unwrap().at);
            assert!(delay >= Duration::from_secs(delay_min_s), "{slug}: {delay:?}");
            assert!(delay <= Duration::from_mins(5), "{slug}: {delay:?}");
            assert_eq!(status.needs_attention, delay_min_s == 60, "{slug}");
            assert_eq!((bench.upstream.requests().len(), bench.recorder.count()), (1, 0));
        }
    });
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

async fn gzip_outcome(body: Vec<u8>) -> (Bench, String) {
    let answer = head("200 OK", "content-type: application/json\r\ncontent-encoding: gzip\r\n");
    let bench = Bench::new("ndjson", vec![vec![send(answer), send(body)]]).await;
    let ending = bench.ending().await;
    (bench, ending)
}

#[test]
fn gzip_is_undone_and_its_damage_ends_only_what_follows() {
    run(async {
        let lines = (0..100).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>().join("\n") + "\n";
        let (bench, ending) = gzip_outcome(gzip(lines.as_bytes())).await;
        assert_eq!((bench.recorder.count(), ending.as_str()), (100, "eof"));

        let mut damaged = gzip(lines.as_bytes());
        damaged.extend_from_slice(b"this is not a gzip member");
        let (bench, ending) = gzip_outcome(damaged).await;
        assert_eq!((bench.recorder.count(), ending.as_str()), (100, "decode"));

        let whole = gzip(lines.as_bytes());
        let (_, ending) = gzip_outcome(whole[..whole.len() - 9].to_vec()).await;
        assert_eq!(ending, "truncated");

        let (bench, ending) = gzip_outcome(gzip(&vec![b' '; 40 * 1024 * 1024])).await;
        assert_eq!((bench.recorder.count(), ending.as_str()), (0, "decompression_limit"));
    });
}

#[test]
fn silence_ends_a_connection() {
    run(async {
        let settings = SourceSettings { idle_timeout: Duration::from_millis(50), ..SourceSettings::default() };
        let scripts =
            vec![vec![send(ndjson_head()), send("1\n"), Step::Hold], vec![send(ndjson_head()), send("2\n"), Step::Hold]];
        let bench = Bench::with("ndjson", scripts, settings, quick(), Recorder::taking(100)).await;
        assert_eq!(bench.events(2).await, ["1", "2"]);
        assert_eq!(bench.ending().await, "idle");
    });
}

#[test]
fn a_slow_body_of_single_bytes_is_put_together() {
    run(async {
        let mut script = vec![send(ndjson_head())];
        script.extend(b"{\"a\":\"\xe2\x82\xac\"}\r\n\n[1]\n".chunks(1).map(send));
        script.push(Step::Hold);
        let bench = Bench::new("ndjson", vec![script]).await;
        assert_eq!(bench.events(2).await, ["{\"a\":\"\u{20ac}\"}", "[1]"]);
    });
}

#[test]
fn a_reader_that_must_wait_loses_nothing() {
    run(async {
        let lines = "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n".repeat(20_000);
        let scripts = vec![vec![send(ndjson_head()), send(&lines)]];
        let bench = Bench::with("ndjson", scripts, SourceSettings::default(), quick(), Recorder::taking(1)).await;
        let (mut last, mut unchanged) = (0, 0);
        eventually("the reader to stand still", || {
            let bytes = bench.status().bytes;
            unchanged = if bytes > 0 && bytes == last { unchanged + 1 } else { 0 };
            last = bytes;
            (unchanged > 20).then_some(())
        })
        .await;
        assert!(last < 390_000, "{last} bytes were read although nobody took them");
        assert_eq!(bench.recorder.count(), BATCH_EVENTS_MAX);
        bench.recorder.intake.add_permits(1_000_000);
        assert_eq!(bench.events(200_000).await.concat(), lines.replace('\n', ""));
        assert_eq!(bench.recorder.largest_batch(), BATCH_EVENTS_MAX);
    });
}

#[test]
fn every_reconnect_without_a_position_records_a_gap() {
    run(async {
        let script = || vec![send(ndjson_head()), send("{\"a\":1}\n")];
        let bench = Bench::new("ndjson", vec![script(), script(), vec![send(ndjson_head()), Step::Hold]]).await;
        let gaps = eventually("two gaps", || Some(bench.recorder.gaps()).filter(|gaps| gaps.len() == 2)).await;
        assert!(gaps.iter().all(|gap| gap.source == "up" && gap.from <= gap.to));
        let status = bench.status();
        assert_eq!((status.gaps, status.reconnects, status.events), (2, 2, 2));
    });
}

#[test]
fn a_post_sends_its_body_and_the_configured_headers() {
    run(async {
        let settings =
            SourceSettings { method: "POST".to_owned(), body: Some("{\"q\":1}".to_owned()), ..SourceSettings::default() };
        let upstream = Upstream::start(vec![vec![send(ndjson_head()), Step::Hold]]).await;
        let mut record = record("ndjson", &upstream.url, settings);
        record.spec.headers.insert("authorization".to_owned(), "Bearer x".to_owned());
        record.spec.headers.insert("accept".to_owned(), "application/vnd.x+json".to_owned());
        let sources = hookcast_source::Sources::new(context(&Recorder::taking(1), quick()));
        sources.reconcile(vec![record]).await;
        let request = upstream.request(0).await;
        assert!(request.starts_with("post /stream?x=1 http/1.1\r\n"), "{request}");
        for line in ["authorization: bearer x", "accept: application/vnd.x+json", "content-length: 7", "user-agent: hookcast/"] {
            assert!(request.contains(&format!("\r\n{line}")), "{line} in {request}");
        }
        assert!(!request.contains("last-event-id"));
    });
}
