//! The protocols `json-seq`, `length`, `raw` and `multipart`, and the profile of Twitter.

use std::time::Duration;

use hookcast_core::model::event::DataForm;
use hookcast_core::model::source::SourceSettings;
use hookcast_core::model::source::own::OwnSettings;
use hookcast_core::model::source::own::profile::Profile;
use hookcast_core::model::source::own::raw::{Delimiter, RawSettings};
use hookcast_source::{ReconnectSettings, SourceState};
use serde_json::json;

use super::support::*;

fn answer(media_type: &str) -> Step {
    send(head("200 OK", &format!("content-type: {media_type}\r\n")))
}

/// A body that ends with its connection: events, skips, ending.
async fn outcome(
    protocol: &str,
    own: OwnSettings,
    media_type: &str,
    body: &[u8],
) -> (Vec<String>, Vec<(&'static str, u64)>, String) {
    let settings = SourceSettings { own, ..SourceSettings::default() };
    let script = vec![answer(media_type), send(body)];
    let bench = Bench::with(protocol, vec![script], settings, quick(), Recorder::taking(100)).await;
    let ending = bench.ending().await;
    (bench.recorder.data(), bench.skipped(), ending)
}

/// Protocol, own settings, media type, body, its events, its skips, its ending.
type Case<'a> = (&'a str, OwnSettings, &'a str, &'a [u8], &'a [&'a str], &'a [(&'static str, u64)], &'a str);

#[test]
fn each_framing_gives_its_records_and_leaves_out_what_is_none() {
    let nul = || OwnSettings::Raw(RawSettings { delimiter: Delimiter::Nul });
    let none = || OwnSettings::None;
    let mixed = "multipart/x-mixed-replace; boundary=\"b c\"";
    let cases: Vec<Case<'_>> = vec![
        (
            "json-seq",
            none(),
            "application/json-seq",
            b"\x1e{\"a\":1\x1e\x1e\n\x1e{\"a\":2}\n\x1e3\n",
            &["{\"a\":2}", "3"],
            &[("partial", 1)],
            "eof",
        ),
        ("json-seq", none(), "application/json-seq", b"\x1e1\n\x1e{\"a\"", &["1"], &[("partial", 1)], "eof"),
        ("length", none(), "application/json", b"\r\n3\r\n1\r\n\r\n5\r\n[2]\r\n", &["1", "[2]"], &[], "eof"),
        ("length", none(), "application/json", b"3\r\n1\r\nzwei\r\n3\r\n2\r\n", &["1"], &[], "framing"),
        ("length", none(), "application/json", b"3\r\n1\r\n9\r\n[2", &["1"], &[("partial", 1)], "eof"),
        ("raw", none(), "application/x-log", b"one\r\n\ntwo", &["one", "two"], &[], "eof"),
        ("raw", nul(), "text/plain", b"one\n\0two\0", &["one\n", "two"], &[], "eof"),
        ("raw", none(), "text/html", b"<html>\n", &[], &[], "content_type"),
        (
            "multipart",
            none(),
            mixed,
            b"--b c\r\nContent-Type: application/json\r\n\r\n{\"a\":1}\r\n--b c\r\n\r\ntwo\r\n--b c--\r\nrest",
            &["{\"a\":1}", "two"],
            &[],
            "eof",
        ),
        ("multipart", none(), mixed, b"--b c\r\n\r\n1\r\n--b c\r\n\r\ncut", &["1"], &[("partial", 1)], "eof"),
        ("multipart", none(), mixed, b"--b c\r\ncontent-length: x\r\n\r\n1", &[], &[], "framing"),
        ("multipart", none(), "multipart/mixed", b"--b\r\n\r\n1\r\n--b--", &[], &[], "boundary"),
        ("multipart", none(), "image/jpeg", b"", &[], &[], "content_type"),
    ];
    run(async {
        for (protocol, own, media_type, body, events, skipped, ending) in cases {
            let expected = (events.iter().map(|s| (*s).to_owned()).collect(), skipped.to_vec(), ending.to_owned());
            let case = format!("{protocol} {:?}", String::from_utf8_lossy(body));
            assert_eq!(outcome(protocol, own, media_type, body).await, expected, "{case}");
        }
    });
}

#[test]
fn every_framing_takes_a_204_for_nothing_and_comes_again() {
    run(async {
        for protocol in ["json-seq", "length", "raw", "multipart", "ndjson"] {
            let bench = Bench::new(protocol, vec![vec![send(head("204 No Content", ""))]]).await;
            assert_eq!(bench.ending().await, "empty", "{protocol}");
            assert_ne!(bench.status().state, SourceState::Stopped, "{protocol}");
            bench.upstream.request(1).await;
        }
    });
}

#[test]
fn parts_and_raw_records_bring_their_types() {
    run(async {
        let body = b"--b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}\r\n--b\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\n\x89PN\r\n--b\r\n\r\nplain\r\n--b\r\nContent-Type: application/json\r\n\r\nno json\r\n--b--";
        let bench = Bench::new("multipart", vec![vec![answer("multipart/mixed; boundary=b"), send(body), Step::Hold]]).await;
        bench.events(4).await;
        let emissions = bench.recorder.emissions();
        let typing: Vec<(&str, DataForm)> =
            emissions.iter().map(|emission| (emission.event.content_type.as_str(), emission.event.form)).collect();
        assert_eq!(
            typing[..3],
            [("application/json", DataForm::Json), ("image/png", DataForm::Binary), ("text/plain", DataForm::Text),]
        );
        assert_ne!(typing[3].1, DataForm::Json, "what says to be JSON and is not, is not");

        let bench = Bench::new("raw", vec![vec![answer("text/plain"), send(b"{}\n\xff\n"), Step::Hold]]).await;
        bench.events(2).await;
        let emissions = bench.recorder.emissions();
        assert_eq!((emissions[0].event.content_type.as_str(), emissions[0].event.form), ("text/plain", DataForm::Text));
        assert_eq!(emissions[1].event.content_type, "application/octet-stream");
        assert_eq!(emissions[1].event.form, DataForm::Binary);
    });
}

fn twitter() -> SourceSettings {
    SourceSettings { own: OwnSettings::Profile(Profile::Twitter), ..SourceSettings::default() }
}

#[test]
fn what_twitter_says_of_its_stream_is_told_and_never_an_event() {
    let tweet = r#"{"text":"a","id_str":"17"}"#;
    let messages = [
        tweet,
        r#"{"limit":{"track":12}}"#,
        r#"{"warning":{"code":"FALLING_BEHIND","percent_full":60}}"#,
        r#"{"delete":{"status":{"id":17,"id_str":"17","user_id":3}}}"#,
        r#"{"disconnect":{"code":4,"reason":"bye"}}"#,
    ];
    let lines: String = messages.iter().flat_map(|message| ["\r\n", message, "\r\n"]).collect();
    let lengths: String =
        messages.iter().flat_map(|message| ["\r\n".to_owned(), format!("{}\r\n{message}\r\n", message.len() + 2)]).collect();
    run(async {
        for (protocol, body) in [("ndjson", lines), ("length", lengths)] {
            let script = vec![answer("application/json"), send(body), Step::Hold];
            let bench = Bench::with(protocol, vec![script], twitter(), quick(), Recorder::taking(100)).await;
            let said =
                eventually("four messages", || Some(bench.recorder.said()).filter(|said| said.len() == messages.len() - 1)).await;
            assert_eq!(bench.recorder.data(), [tweet], "{protocol}");
            let event = &bench.recorder.emissions()[0].event;
            assert_eq!((event.id.as_str(), event.own_id), ("17", true));
            let kinds: Vec<&str> = said.iter().map(|said| said.kind).collect();
            assert_eq!(kinds, ["source.limit", "source.warning", "source.delete", "source.disconnect"]);
            assert_eq!(said[0].data, json!({"track": 12}));
            assert_eq!(said[2].purge.as_deref(), Some("17"));
            assert_eq!(bench.skipped(), []);
        }
    });
}

#[test]
fn twitters_delays_go_by_the_kind_of_failure() {
    run(async {
        for (answer, slug, delay_ms) in [
            (head("420 Enhance Your Calm", "content-length: 0\r\n"), "rate_limited", 60_000),
            (head("503 Busy", "content-length: 0\r\n"), "status", 5_000),
            (head("401 Unauthorized", "content-length: 0\r\n"), "auth", 60_000),
            (ndjson_head(), "eof", 250),
        ] {
            let scripts = vec![vec![send(answer)]];
            let bench = Bench::with("ndjson", scripts, twitter(), ReconnectSettings::default(), Recorder::taking(1)).await;
            assert_eq!(bench.ending().await, slug);
            let status = bench.status();
            let delay = status.next_attempt_at.unwrap().since(status.last_error.unwrap().at);
            assert_eq!(delay, Duration::from_millis(delay_ms), "{slug}");
        }
    });
}
