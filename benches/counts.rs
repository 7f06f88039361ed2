//! Instruction counts of the functions that every event passes, each with the most that it may cost.
//!
//! `make counts` runs this under valgrind. Counts do not depend on what else the machine does, so a function that got more
//! than ten per cent dearer fails here; who makes one dearer on purpose, or cheaper, writes the new count down.

#![allow(missing_docs, reason = "the macros make public items of their own")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use hookcast_core::clock::Timestamp;
use hookcast_core::codec::Frame;
use hookcast_core::codec::ndjson::NdjsonDecoder;
use hookcast_core::codec::sse::{SseDecoder, SseItem};
use hookcast_core::model::event::{DataForm, NewEvent};
use hookcast_core::model::{Page, PageBuilder, PatternList, Records, Seq, Topic};
use hookcast_core::signature::standard::{PreparedKey, sign_into};
use hookcast_delivery::matcher::Matcher;
use hookcast_delivery::parcel::Parcel;
use hookcast_delivery::window::{Position, Ticket, Window};
use hookcast_log::ingest::dedupe::{self, DedupeSettings, Fingerprint, Known};
use hookcast_log::storage::memory;
use hookcast_streams::format::{Envelope, FORMATS, Format, Style};

/// Events in a batch.
const EVENTS: u64 = 500;
/// When everything arrives.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// What a chunk from a socket has.
const CHUNK_BYTES: usize = 16 * 1024;

/// A limit of ten per cent above `count` instructions.
fn at_most(count: u64) -> LibraryBenchmarkConfig {
    let limit = count + count / 10;
    LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, limit)])).clone()
}

/// A JSON event of about 600 bytes.
fn json(number: u64) -> String {
    let comment = "hedges and gates that it has seen on the way ".repeat(11);
    format!("{{\"number\":{number},\"channel\":\"#en.wikipedia\",\"page\":\"Hedgehog\",\"comment\":\"{comment}\",\"delta\":36}}")
}

fn new_event(number: u64) -> NewEvent {
    NewEvent {
        topic: Topic::parse("wikipedia.edits").expect("a topic"),
        id: format!("0190a3c8-6f2e-7c3b-9d41-{number:012}"),
        own_id: true,
        source: "/sources/wikipedia".to_owned(),
        kind: "message".to_owned(),
        subject: None,
        time: None,
        arrived_at: NOW,
        content_type: "application/json".to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Json,
        data: Bytes::from(json(number)),
    }
}

fn batch() -> Vec<NewEvent> {
    (0..EVENTS).map(new_event).collect()
}

fn page() -> Arc<Page> {
    let mut builder = PageBuilder::starting_at(Seq(1));
    for event in batch().iter().take(64) {
        builder.push(event);
    }
    builder.finish()
}

fn lines() -> Bytes {
    let lines: Vec<String> = (0..EVENTS)
        .map(|number| {
            json(number)
                + "
"
        })
        .collect();
    Bytes::from(lines.concat())
}

fn blocks() -> Bytes {
    let blocks: Vec<String> = (0..EVENTS)
        .map(|number| {
            format!(
                "id: {number}
data: {}

",
                json(number)
            )
        })
        .collect();
    Bytes::from(blocks.concat())
}

#[library_benchmark]
#[bench::lines_500(args = (lines()), config = at_most(1_907_726))]
fn frame_ndjson(mut stream: Bytes) -> usize {
    let mut decoder = NdjsonDecoder::new(1024 * 1024);
    let mut records = 0;
    while !stream.is_empty() {
        let mut chunk = stream.split_to(CHUNK_BYTES.min(stream.len()));
        while let Some(frame) = decoder.next(&mut chunk) {
            records += usize::from(matches!(frame, Frame::Record(_)));
        }
    }
    assert_eq!(records as u64, EVENTS);
    black_box(records)
}

#[library_benchmark]
#[bench::blocks_500(args = (blocks()), config = at_most(2_842_804))]
fn frame_sse(mut stream: Bytes) -> usize {
    let mut decoder = SseDecoder::new(1024 * 1024, "");
    let mut records = 0;
    while !stream.is_empty() {
        let mut chunk = stream.split_to(CHUNK_BYTES.min(stream.len()));
        while let Some(item) = decoder.next(&mut chunk) {
            records += usize::from(matches!(item, SseItem::Event(_)));
        }
    }
    assert_eq!(records as u64, EVENTS);
    black_box(records)
}

fn to_sign() -> (PreparedKey, String) {
    (PreparedKey::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").expect("a secret"), json(1))
}

#[library_benchmark]
#[bench::bodies_100(args = (to_sign()), config = at_most(3_765_299))]
fn sign((key, body): (PreparedKey, String)) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    for second in 0..100 {
        out.clear();
        sign_into([&key], "msg_abcdefgh_1234567", 1_800_000_000 + second, body.as_bytes(), &mut out);
    }
    black_box(out)
}

/// 10,000 literal subscriptions, 1,000 with wildcards; the topics of 100 of the former.
fn subscribed() -> (Matcher, Vec<Topic>) {
    let mut matcher = Matcher::default();
    let patterns = |text: &str| text.parse::<PatternList>().expect("a pattern");
    for place in 0..10_000 {
        matcher.insert(place, &patterns(&format!("shop.{}.orders", place / 10)));
    }
    for place in 10_000..11_000 {
        matcher.insert(place, &patterns(&format!("shop.{}.*", place - 10_000)));
    }
    (matcher, (0..100).map(|shop| Topic::parse(&format!("shop.{shop}.orders")).expect("a topic")).collect())
}

#[library_benchmark]
#[bench::events_1000_of_100_topics(args = (subscribed()), config = at_most(629_608))]
fn match_topics((mut matcher, topics): (Matcher, Vec<Topic>)) -> (Matcher, Vec<Topic>) {
    let mut places = 0;
    for _ in 0..10 {
        for topic in &topics {
            places += matcher.matching(topic).len();
        }
    }
    assert_eq!(places, 11_000);
    // Given back, so that its end is not counted.
    black_box((matcher, topics))
}

fn page_and_format(name: &str) -> (Arc<Page>, &'static Format) {
    (page(), FORMATS.iter().find(|format| format.name == name).expect("a format"))
}

#[library_benchmark]
#[bench::ndjson_64(args = (page_and_format("ndjson")), config = at_most(308_647))]
#[bench::sse_64(args = (page_and_format("sse")), config = at_most(459_055))]
fn encode_stream((page, format): (Arc<Page>, &'static Format)) -> usize {
    let mut out = BytesMut::with_capacity(128 * 1024);
    for event in page.events_after(Seq(0)) {
        (format.event)(&mut out, &event, &Style { envelope: Envelope::CloudEvents, callback: None });
    }
    black_box(out.len())
}

#[library_benchmark]
#[bench::events_64(args = (page()), config = at_most(497_627))]
fn encode_delivery(page: Arc<Page>) -> usize {
    black_box(page.events_after(Seq(0)).map(|event| Parcel::new(event).binary("abcdefgh").webhook_id.len()).sum())
}

#[library_benchmark]
#[bench::events_10000(args = (Window::<u64>::at(Position::Riding { not_before: Seq(0) })), config = at_most(1_713_784))]
fn window(mut window: Window<u64>) -> u64 {
    let mut settled = 0;
    for seq in 1..=10_000 {
        window.offer(Seq(seq), seq, 600);
        // Sixteen in flight, settled out of order: every second one first.
        if seq % 16 == 0 {
            let taken: Vec<Seq> = std::iter::from_fn(|| window.take(Ticket::default())).map(|(seq, _)| seq).collect();
            for seq in taken.iter().step_by(2).chain(taken.iter().skip(1).step_by(2)) {
                settled += u64::from(window.settle(*seq, Ticket::default()));
            }
        }
    }
    assert_eq!(settled, 10_000);
    black_box(settled)
}

/// What is known before a batch: nothing, over an empty log.
fn unknown() -> (Known, Vec<NewEvent>) {
    let settings = DedupeSettings { max_age: Duration::from_hours(24), max_ids: 1_000_000 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = memory::open().expect("an empty store");
    let known = runtime.block_on(dedupe::load(&*store.log, settings, NOW)).expect("an empty log");
    (known, batch())
}

#[library_benchmark]
#[bench::events_500(args = (unknown()), config = at_most(20_411_977))]
fn tell_repeats((mut known, events): (Known, Vec<NewEvent>)) -> (Known, Vec<NewEvent>) {
    known.begin(NOW);
    for (event, seq) in events.iter().zip(1..) {
        let fingerprint = Fingerprint::of(event);
        assert_eq!(known.look_up(fingerprint), dedupe::Verdict::New);
        known.note(fingerprint, Seq(seq), NOW);
    }
    known.keep();
    black_box((known, events))
}

#[library_benchmark]
#[bench::events_500(args = (batch()), config = at_most(1_198_123))]
fn append_batch(events: Vec<NewEvent>) -> (Vec<Arc<Page>>, Vec<NewEvent>) {
    // What the bringer does, and then the leader.
    let mut records = Records::default();
    for event in &events {
        records.push(event);
    }
    let mut pages = Vec::new();
    let mut builder = PageBuilder::starting_at(Seq(1));
    for record in records.iter() {
        if !builder.has_room_for_record(record) {
            pages.push(builder.turn());
        }
        builder.push_record(record);
    }
    pages.push(builder.turn());
    black_box((pages, events))
}

library_benchmark_group!(
    name = hot,
    benchmarks =
        [frame_ndjson, frame_sse, sign, match_topics, encode_stream, encode_delivery, window, tell_repeats, append_batch]
);

main!(library_benchmark_groups = hot);
