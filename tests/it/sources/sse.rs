//! The protocol `sse`.

use std::time::Duration;

use hookcast_core::model::event::DataForm;
use hookcast_core::model::source::SourceSettings;
use hookcast_source::{ReconnectSettings, SourceState};
use serde_json::Value;

use super::support::*;

async fn outcome(pieces: &[&[u8]]) -> (Vec<String>, Vec<(&'static str, u64)>) {
    let mut script = vec![send(sse_head())];
    script.extend(pieces.iter().map(send));
    let bench = Bench::new("sse", vec![script]).await;
    assert_eq!(bench.ending().await, "eof");
    (bench.recorder.data(), bench.skipped())
}

#[test]
fn blocks_become_events() {
    let cases: Vec<(Vec<&[u8]>, &[&str])> = vec![
        (vec![b"data: a\n\n"], &["a"]),
        (vec![b"data: a\r\r"], &["a"]),
        (vec![b"data: a\r", b"\n\r\n"], &["a"]),
        (vec![b"data: a\ndata: b\n\n"], &["a\nb"]),
        (vec![b": comment\n\n"], &[]),
        (vec![b"data:a\ndata:  b\n\n"], &["a\n b"]),
        (vec![b"\xef\xbb\xbfdata: a\n\n"], &["a"]),
        (vec![b"data: a\n\n\xef\xbb\xbfdata: b\n\n"], &["a"]),
        (vec![b"event: x\n\n"], &[]),
        (vec![b"data: a"], &[]),
        (vec![b"foo: bar\ndata: a\n\n"], &["a"]),
        (vec![b"data: \xe2", b"\x82\xac\n\n"], &["\u{20ac}"]),
        (vec![b"data: {\"x\":\"event: msg\\ndata: forged\"}\n\n"], &["{\"x\":\"event: msg\\ndata: forged\"}"]),
    ];
    run(async {
        for (pieces, events) in cases {
            let expected = events.iter().map(|s| (*s).to_owned()).collect();
            assert_eq!(outcome(&pieces).await, (expected, Vec::new()), "{pieces:?}");
        }
        let large = [b"data: a\n".repeat(200_000), b"\ndata: b\n\n".to_vec()].concat();
        assert_eq!(outcome(&[&large]).await, (vec!["b".to_owned()], vec![("event_too_large", 1)]));
    });
}

#[test]
fn ids_types_and_positions_follow_the_blocks() {
    run(async {
        let body = "id: 1\nevent: update\ndata: {\"a\":1}\n\ndata: text\n\nid: a\0b\ndata: x\n\n";
        let bench = Bench::new("sse", vec![vec![send(sse_head()), send(body), Step::Hold]]).await;
        bench.events(3).await;
        let emissions = bench.recorder.emissions();
        assert!(emissions.iter().all(|emission| emission.resume == token("1")));
        let [first, second, third] = emissions.as_slice() else { panic!("three events") };
        assert_eq!((first.event.id.as_str(), first.event.own_id, first.event.kind.as_str()), ("1", true, "update"));
        assert_eq!((first.event.content_type.as_str(), first.event.form), ("application/json", DataForm::Json));
        assert_eq!((second.event.own_id, second.event.kind.as_str()), (false, "message"));
        assert_eq!((second.event.content_type.as_str(), second.event.form), ("text/plain", DataForm::Text));
        assert!(!third.event.own_id);
        eventually("the position", || (bench.status().resume_token == token("1")).then_some(())).await;
    });
}

#[test]
fn recorded_bodies_arrive_whole() {
    let bodies: [(&[u8], usize); 3] = [
        (include_bytes!("../../data/recorded/llm-lf.sse"), 7),
        (include_bytes!("../../data/recorded/llm-crlf.sse"), 12),
        (include_bytes!("../../data/recorded/mastodon.sse"), 2),
    ];
    run(async {
        for (body, count) in bodies {
            let halves = body.split_at(body.len() / 2);
            let (events, skipped) = outcome(&[halves.0, halves.1]).await;
            assert_eq!((events.len(), skipped), (count, Vec::new()));
        }
    });
}

#[test]
fn the_position_goes_back_to_the_upstream_and_there_is_no_gap() {
    run(async {
        let first = vec![send(sse_head()), send("id: 7\ndata: a\n\nid: 8\ndata: never ended")];
        let second = vec![send(sse_head()), send("data: b\n\n: hb\nid: 9\n\n")];
        let bench = Bench::new("sse", vec![first, second]).await;
        let requests = [bench.upstream.request(0).await, bench.upstream.request(1).await, bench.upstream.request(2).await];
        assert!(!requests[0].contains("last-event-id"));
        assert!(requests[0].contains("\r\naccept: text/event-stream\r\n"));
        assert!(requests[1].contains("\r\nlast-event-id: 7\r\n"), "{}", requests[1]);
        assert!(requests[2].contains("\r\nlast-event-id: 9\r\n"), "{}", requests[2]);
        assert_eq!(bench.recorder.data(), ["a", "b"]);
        assert_eq!(bench.recorder.emissions()[1].resume, token("7"));
        assert_eq!(bench.recorder.gaps(), []);
    });
}

#[test]
fn a_stored_position_is_used_after_a_restart_of_the_relay() {
    run(async {
        let upstream = Upstream::start(vec![vec![send(sse_head()), Step::Hold]]).await;
        let mut record = record("sse", &upstream.url, SourceSettings::default());
        record.resume_token = token("é-42");
        let recorder = Recorder::taking(9);
        let mut context = context(&recorder, quick());
        context.away_since = Some(hookcast_core::clock::Timestamp(5));
        let sources = hookcast_source::Sources::new(context);
        sources.reconcile(vec![record]).await;
        assert!(upstream.request(0).await.contains("\r\nlast-event-id: é-42\r\n"));
        eventually("reading", || (sources.status("up")?.state == SourceState::Connected).then_some(())).await;
        assert_eq!(recorder.gaps(), []);
    });
}

#[test]
fn a_position_cannot_smuggle_a_header() {
    run(async {
        let body = "id: 1\r\nX-Evil: 1\r\ndata: a\r\n\r\nid: 2\u{1}3\ndata: b\n\n";
        let bench = Bench::new("sse", vec![vec![send(sse_head()), send(body)]]).await;
        let request = bench.upstream.request(1).await;
        // The last usable position stays: better an event again than none.
        assert!(request.contains("\r\nlast-event-id: 1\r\n"), "{request}");
        assert!(!request.contains("evil") && !request.contains('\u{1}'), "{request}");
        let emissions = bench.recorder.emissions();
        assert_eq!(emissions.iter().map(|e| e.resume.clone()).collect::<Vec<_>>(), [token("1"), None]);
        assert!(!emissions[1].event.own_id, "an id with a control character is not taken");
        assert_eq!(bench.status().attributes_dropped, 1);
    });
}

#[test]
fn a_204_stops_the_source_and_other_answers_do_not() {
    run(async {
        let bench = Bench::new("sse", vec![vec![send(head("204 No Content", ""))]]).await;
        assert_eq!(bench.ending().await, "no_content");
        let status = bench.status();
        assert_eq!((status.state, status.next_attempt_at, status.needs_attention), (SourceState::Stopped, None, true));

        let json = format!("{}{{}}", head("200 OK", "content-type: application/json\r\n"));
        let good = vec![send(head("200 OK", "content-type: text/event-stream;\r\n")), send("data: a\n\n"), Step::Hold];
        let bench = Bench::new("sse", vec![vec![send(json)], vec![send(head("503 Busy", "content-length: 0\r\n"))], good]).await;
        assert_eq!(bench.events(1).await, ["a"]);
    });
}

#[test]
fn the_upstreams_retry_sets_the_delay_within_bounds() {
    run(async {
        for (retry, low_s, high_s) in [("0", 1, 2), ("999999999999", 300, 300), ("30000", 30, 36)] {
            let script = vec![send(sse_head()), send(format!("retry: {retry}\n\n"))];
            let (settings, reconnect) = (SourceSettings::default(), ReconnectSettings::default());
            let bench = Bench::with("sse", vec![script], settings, reconnect, Recorder::taking(1)).await;
            bench.ending().await;
            let status = bench.status();
            let delay = status.next_attempt_at.unwrap().since(status.last_error.unwrap().at);
            assert!((Duration::from_secs(low_s)..=Duration::from_secs(high_s)).contains(&delay), "retry {retry}: {delay:?}");
        }
    });
}

#[test]
fn an_empty_id_forgets_the_position() {
    run(async {
        let first = vec![send(sse_head()), send("id: abc\ndata: a\n\nid:\ndata: b\n\n")];
        let bench = Bench::new("sse", vec![first]).await;
        assert!(!bench.upstream.request(1).await.contains("last-event-id"));
        assert_eq!(bench.status().resume_token, None);
    });
}

/// Sequences of connections; those about statuses and redirects differ for a server-side reader and are tested above.
#[test]
fn reconnect_vectors_send_their_positions() {
    let file: Value = serde_json::from_str(include_str!("../../data/sse/reconnect.json")).unwrap();
    let readable = |connection: &Value| {
        let media_type = connection["content_type"].as_str().unwrap();
        connection["status"] == 200 && media_type.starts_with("text/event-stream")
    };
    let vectors = file["vectors"].as_array().unwrap().iter();
    let vectors: Vec<&Value> = vectors.filter(|v| v["connections"].as_array().unwrap().iter().all(readable)).collect();
    assert_eq!(vectors.len(), 7);
    run(async {
        for vector in vectors {
            let connections = vector["connections"].as_array().unwrap();
            let scripts = connections.iter().map(|connection| {
                let headers = format!("content-type: {}\r\n", connection["content_type"].as_str().unwrap());
                let mut script = vec![send(head("200 OK", &headers)), send(connection["body"].as_str().unwrap())];
                script.extend((connection["ends"] == "open").then_some(Step::Hold));
                script
            });
            let bench = Bench::new("sse", scripts.collect()).await;
            let mut events = Vec::new();
            for (index, connection) in connections.iter().enumerate() {
                let request = bench.upstream.request(index).await;
                let position = request.lines().find_map(|line| line.strip_prefix("last-event-id: "));
                assert_eq!(position, connection["request_last_event_id"].as_str(), "{}", vector["name"]);
                events.extend(connection["events"].as_array().unwrap().iter().map(|data| data.as_str().unwrap().to_owned()));
                assert!(bench.events(events.len()).await.starts_with(&events), "{}", vector["name"]);
            }
            assert_eq!(bench.recorder.data(), events, "{}", vector["name"]);
        }
    });
}
