//! The codecs against conformance vectors and recorded streams: whole, byte by byte, and cut at every place.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use bytes::Bytes;
use hookcast_core::codec::cloudevents::{Attributes, EventDefaults, decode_structured, write_event};
use hookcast_core::codec::json_seq::JsonSeqDecoder;
use hookcast_core::codec::length::LengthDecoder;
use hookcast_core::codec::messages::MessageDecoder;
use hookcast_core::codec::ndjson::NdjsonDecoder;
use hookcast_core::codec::sse::{SseDecoder, SseItem, write_block};
use hookcast_core::codec::{Frame, SkipReason};
use hookcast_core::model::{PageBuilder, Seq, Topic};
use serde_json::Value;

/// Pieces of `body`: whole, in single bytes, and every pair.
fn cuttings(body: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let pairs = (0..=body.len()).map(|cut| vec![&body[..cut], &body[cut..]]);
    [vec![body], body.chunks(1).collect()].into_iter().chain(pairs)
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<(String, String, String)>,
    comments: Vec<String>,
    retry_ms: Option<u128>,
    last_event_id: String,
}

fn read_sse(pieces: &[&[u8]]) -> Outcome {
    let mut decoder = SseDecoder::new(1024 * 1024, "");
    let mut outcome = Outcome::default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for piece in pieces {
        let mut chunk = Bytes::copy_from_slice(piece);
        while let Some(item) = decoder.next(&mut chunk) {
            match item {
                SseItem::Event(event) => outcome.events.push((
                    event.kind.unwrap_or_else(|| "message".to_owned()),
                    String::from_utf8(event.data.to_vec()).unwrap(),
                    event.last_event_id.to_string(),
                )),
                SseItem::Comment(comment) => outcome.comments.push(text(&comment)),
                SseItem::Retry(delay) => outcome.retry_ms = Some(delay.as_millis()),
                SseItem::Skipped(reason) => panic!("skipped: {reason:?}"),
            }
        }
    }
    outcome.last_event_id = decoder.last_event_id().to_string();
    outcome
}

fn vectors(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn base64(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn every_event_stream_vector_gives_its_outcome_however_it_is_cut() {
    let vectors = vectors(include_str!("../data/sse/parse.json"));
    assert!(vectors.len() > 100);
    for vector in vectors {
        let events = vector["events"].as_array().unwrap().iter();
        let expected = Outcome {
            events: events.map(|e| (string(&e["type"]), string(&e["data"]), string(&e["last_event_id"]))).collect(),
            comments: vector["comments"].as_array().unwrap().iter().map(string).collect(),
            retry_ms: vector["retry_ms"].as_u64().map(u128::from),
            last_event_id: string(&vector["last_event_id"]),
        };
        let body = base64(&vector["input_base64"]);
        for pieces in cuttings(&body) {
            assert_eq!(read_sse(&pieces), expected, "{} cut into {} pieces", vector["name"], pieces.len());
        }
        if let Some(chunks) = vector["chunks_base64"].as_array() {
            let chunks: Vec<Vec<u8>> = chunks.iter().map(base64).collect();
            let pieces: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            assert_eq!(read_sse(&pieces), expected, "{}", vector["name"]);
        }
    }
}

#[test]
fn recorded_event_streams_read_the_same_however_they_are_cut() {
    let bodies: [(&[u8], usize, usize); 3] = [
        (include_bytes!("../data/recorded/llm-lf.sse"), 7, 0),
        (include_bytes!("../data/recorded/llm-crlf.sse"), 12, 0),
        (include_bytes!("../data/recorded/mastodon.sse"), 2, 1),
    ];
    for (body, events, comments) in bodies {
        let whole = read_sse(&[body]);
        assert_eq!((whole.events.len(), whole.comments.len()), (events, comments));
        for pieces in cuttings(body) {
            assert_eq!(read_sse(&pieces), whole);
        }
    }
}

#[test]
fn what_was_read_is_written_such_that_it_reads_the_same() {
    let body: &[u8] = include_bytes!("../data/recorded/mastodon.sse");
    let whole = read_sse(&[body]);
    let mut out = Vec::new();
    for (kind, data, _) in &whole.events {
        write_block(&mut out, None, Some(kind), data.as_bytes());
    }
    assert_eq!(read_sse(&[&out]).events, whole.events);
}

fn read_ndjson(pieces: &[&[u8]], clean: bool) -> Vec<Frame> {
    let mut decoder = NdjsonDecoder::new(1024 * 1024);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut chunk = Bytes::copy_from_slice(piece);
        frames.extend(std::iter::from_fn(|| decoder.next(&mut chunk)));
    }
    frames.extend(decoder.finish(clean));
    frames
}

fn records(frames: &[Frame]) -> Vec<&[u8]> {
    let records = frames.iter().filter_map(|frame| match frame {
        Frame::Record(record) => Some(&record[..]),
        _ => None,
    });
    records.collect()
}

#[test]
fn every_ndjson_vector_gives_its_records_however_it_is_cut() {
    let vectors = vectors(include_str!("../data/framing/framing.json"));
    let ours: Vec<&Value> = vectors.iter().filter(|vector| vector["framing"] == "ndjson").collect();
    assert_eq!(ours.len(), 4);
    for vector in ours {
        let expected: Vec<String> = vector["records"].as_array().unwrap().iter().map(string).collect();
        let body = base64(&vector["input_base64"]);
        for pieces in cuttings(&body) {
            let frames = read_ndjson(&pieces, true);
            assert_eq!(records(&frames), expected.iter().map(String::as_bytes).collect::<Vec<_>>(), "{}", vector["name"]);
        }
    }
}

/// The records of a body by a framing other than lines of JSON.
fn read_framed(framing: &str, pieces: &[&[u8]]) -> Vec<Frame> {
    const BYTES_MAX: usize = 1024 * 1024;
    let mut seq = JsonSeqDecoder::new(BYTES_MAX);
    let mut length = LengthDecoder::new(BYTES_MAX);
    let mut messages = MessageDecoder::new(BYTES_MAX);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut chunk = Bytes::copy_from_slice(piece);
        frames.extend(std::iter::from_fn(|| match framing {
            "json-seq" => seq.next(&mut chunk),
            "length-delimited" => length.next(&mut chunk).map(Result::unwrap),
            "crlf-delimited" => messages.next(&mut chunk),
            other => panic!("no framing {other}"),
        }));
    }
    frames.extend(seq.finish(true).or_else(|| length.finish()).or_else(|| messages.finish(true)));
    frames
}

#[test]
fn every_other_framing_vector_gives_its_records_however_it_is_cut() {
    let vectors = vectors(include_str!("../data/framing/framing.json"));
    let ours: Vec<&Value> = vectors.iter().filter(|vector| vector["framing"] != "ndjson").collect();
    assert_eq!(ours.len(), 8);
    for vector in ours {
        let expected: Vec<String> = vector["records"].as_array().unwrap().iter().map(string).collect();
        let body = base64(&vector["input_base64"]);
        for pieces in cuttings(&body) {
            let frames = read_framed(vector["framing"].as_str().unwrap(), &pieces);
            assert_eq!(records(&frames), expected.iter().map(String::as_bytes).collect::<Vec<_>>(), "{}", vector["name"]);
        }
    }
}

#[test]
fn recorded_lines_keep_their_bytes() {
    let body: &[u8] = include_bytes!("../data/recorded/wikiticker.ndjson");
    let lines: Vec<&[u8]> = body.split(|&b| b == b'\n').filter(|line| !line.is_empty()).collect();
    for size in [1, 7, 1000, 4096, body.len()] {
        let pieces: Vec<&[u8]> = body.chunks(size).collect();
        assert_eq!(records(&read_ndjson(&pieces, false)), lines);
    }
}

#[test]
fn a_malformed_first_line_does_not_stop_a_recorded_feed() {
    let body: &[u8] = include_bytes!("../data/recorded/continuous-feed.ndjson");
    let frames = read_ndjson(&[body], true);
    assert!(matches!(frames[0], Frame::Skipped(SkipReason::BadJson, _)));
    assert_eq!(records(&frames).len(), 2);
}

/// The documents of the conformance file: attributes, then a block of data.
fn minimum_events() -> Vec<(Attributes, String)> {
    let text = include_str!("../data/cloudevents/v1_minimum.yaml");
    let documents = text.split("---\n").map(|document| {
        let (head, data) = document.split_once("Data: |\n").unwrap();
        let value = |name: &str| {
            let line = head.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            Some(line.unwrap().to_owned())
        };
        let attributes = Attributes {
            id: value("id"),
            source: value("source"),
            kind: value("type"),
            content_type: value("datacontenttype"),
            ..Attributes::default()
        };
        (attributes, format!("{}\n", data.trim()))
    });
    documents.collect()
}

#[test]
fn the_minimum_events_survive_the_json_form() {
    let events = minimum_events();
    assert_eq!(events.len(), 6);
    let topic = Topic::parse("conformance").unwrap();
    for (attributes, data) in events {
        let is_json = attributes.content_type.as_deref().unwrap().starts_with("application/json");
        let defaults = EventDefaults {
            topic: &topic,
            id: String::new(),
            source: "/publish",
            content_type: "application/octet-stream",
            arrived_at: hookcast_core::clock::Timestamp(0),
        };
        let event = attributes.clone().into_event(Bytes::from(data.clone()), defaults);
        assert_eq!(event.check(), Ok(()));
        let mut page = PageBuilder::starting_at(Seq(1));
        page.push(&event);
        let mut line = Vec::new();
        write_event(&mut line, &page.finish().get(Seq(1)).unwrap());
        let read = decode_structured(&line.into()).unwrap();
        assert_eq!(read.data, if is_json { data.trim_end().to_owned() } else { data });
        assert_eq!(Attributes { time: None, ..read.attributes }, attributes);
    }
}
