//! Instruction counts of the ways that every event takes, each with the most that it may cost.
//!
//! `make counts` runs this under valgrind. Counts do not depend on what else the machine does, so a way that got more than ten per
//! cent dearer fails here; who makes one dearer on purpose, or cheaper, writes the new count down.
//!
//! The five hot paths are counted from end to end over two public doors: `match_events`, `offer_events`, `settle_events` and
//! `checkpoint` over the [`Floor`] of a lane, with the calls that the lane itself makes, `publish` over the [`Ingest`], telling
//! repeats included. Whatever stands behind these doors may be divided and named anew without a change here. `frame_*`, `sign`
//! and `encode_*` count one function each, by its name: what is done once an event on the way in and out.

#![allow(missing_docs, reason = "the macros make public items of their own")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use hookcast_core::clock::{SystemClock, Timestamp};
use hookcast_core::codec::Frame;
use hookcast_core::codec::ndjson::NdjsonDecoder;
use hookcast_core::codec::sse::{SseDecoder, SseItem};
use hookcast_core::model::event::{DataForm, NewEvent};
use hookcast_core::model::outcome::{Answer, Outcome};
use hookcast_core::model::subscription::{Ordinal, PARTITIONS, SubscriptionRecord, change, parse};
use hookcast_core::model::{Page, PageBuilder, Seq, SubscriptionId, Topic};
use hookcast_core::signature::standard::{PreparedKey, sign_into};
use hookcast_delivery::floor::Floor;
use hookcast_delivery::parcel::Parcel;
use hookcast_delivery::window::Progress;
use hookcast_log::ingest::Ingest;
use hookcast_log::ingest::dedupe::DedupeSettings;
use hookcast_log::storage::{Store, memory};
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_streams::format::{Envelope, FORMATS, Format, Style};
use hookcast_supervise::Supervisor;
use tokio::runtime::Runtime;

/// Events in a batch.
const EVENTS: u64 = 500;
/// Subscriptions that want everything.
const SUBSCRIPTIONS: usize = 10;
/// Events that wait for each of them.
const OFFERED: usize = 256;
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

/// A subscription of these topics.
fn record(ordinal: u64, topics: &str) -> Arc<SubscriptionRecord> {
    let any = |url: &str| -> Result<String, (&'static str, String)> { Ok(url.to_owned()) };
    let body = serde_json::json!({"url": "https://example.com/", "topics": [topics]});
    let definition = parse::parse_definition(&body, None, &parse::Rules::new(&any)).expect("a definition");
    let id = SubscriptionId::parse(&format!("s{ordinal}")).expect("an id");
    let record = change::new_record(definition, id, Seq::ZERO, NOW, &mut |bytes: &mut [u8]| bytes.fill(7));
    Arc::new(SubscriptionRecord { ordinal: Ordinal(ordinal), ..record })
}

/// A lane with these subscriptions, which have had nothing yet.
fn floor(topics: impl Iterator<Item = String>) -> Floor {
    let mut floor = Floor::new(Seq::ZERO, 1024);
    for (topics, ordinal) in topics.zip(1..) {
        floor.add(record(ordinal, &topics), &Progress { base: Seq::ZERO, holes: Vec::new() });
    }
    floor
}

/// Pages of events of these topics, from the first position on.
fn pages<'a>(topics: impl Iterator<Item = &'a str>) -> Vec<Arc<Page>> {
    let (mut builder, mut pages) = (PageBuilder::starting_at(Seq(1)), Vec::new());
    for (number, topic) in (1..).zip(topics) {
        builder.push(&NewEvent { topic: Topic::parse(topic).expect("a topic"), ..new_event(number) });
        if number % 64 == 0 {
            pages.push(builder.turn());
        }
    }
    pages
}

/// 2,000 subscriptions of one topic each, 200 with wildcards; events of 100 topics, of which five are wanted, by two each.
fn crowd() -> (Floor, Vec<Arc<Page>>) {
    let literal = (0..2_000).map(|shop| format!("shop.{shop}.orders"));
    let floor = floor(literal.chain((0..200).map(|shop| format!("shop.{shop}.*"))));
    let topics: Vec<String> =
        (0..100).map(|n| if n % 20 == 0 { format!("shop.{n}.orders") } else { format!("depot.{n}.orders") }).collect();
    let pages = pages(topics.iter().map(String::as_str).cycle().take(6_400));
    (floor, pages)
}

#[library_benchmark]
#[bench::events_6400_of_100_topics(args = (crowd()), config = at_most(3_132_272))]
fn match_events((mut floor, pages): (Floor, Vec<Arc<Page>>)) -> (Floor, Vec<Arc<Page>>) {
    let offered: usize = pages.iter().map(|page| floor.scan(page)).sum();
    assert_eq!(offered, 2 * 6_400 / 20);
    // Given back, so that its end is not counted.
    black_box((floor, pages))
}

/// Ten subscriptions that want everything, and as many events as wait for each.
fn wanted() -> (Floor, Vec<Arc<Page>>) {
    (floor((0..SUBSCRIPTIONS).map(|_| "**".to_owned())), pages(std::iter::repeat_n("a", OFFERED)))
}

#[library_benchmark]
#[bench::events_256_to_10(args = (wanted()), config = at_most(702_303))]
fn offer_events((mut floor, pages): (Floor, Vec<Arc<Page>>)) -> (Floor, Vec<Arc<Page>>) {
    let offered: usize = pages.iter().map(|page| floor.scan(page)).sum();
    assert_eq!(offered, SUBSCRIPTIONS * OFFERED);
    black_box((floor, pages))
}

fn offered() -> Floor {
    let (mut floor, pages) = wanted();
    for page in pages {
        floor.scan(&page);
    }
    floor
}

/// Delivers everything, as many at a time as may be in flight, of these every second one first.
fn deliver(floor: &mut Floor) -> usize {
    let mut settled = 0;
    loop {
        let taken: Vec<_> = std::iter::from_fn(|| floor.next(NOW)).collect();
        if taken.is_empty() {
            return settled;
        }
        for assignment in taken.iter().step_by(2).chain(taken.iter().skip(1).step_by(2)) {
            floor.settle(assignment, None, &Outcome::answered(Answer::of(200), 1), (NOW, NOW), 0.5);
            settled += 1;
        }
    }
}

#[library_benchmark]
#[bench::events_256_to_10(args = (offered()), config = at_most(5_645_802))]
fn settle_events(mut floor: Floor) -> Floor {
    assert_eq!(deliver(&mut floor), SUBSCRIPTIONS * OFFERED);
    black_box(floor)
}

/// Storage, and a lane that has something to save of a thousand subscriptions: each was delivered one event and has one in flight.
fn to_save() -> (Runtime, Store, Floor) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = memory::open().expect("an empty store");
    let mut floor = floor((0..1_000).map(|_| "**".to_owned()));
    for partition in 0..PARTITIONS {
        floor.hold(runtime.block_on(store.ledger.lease(partition)).expect("a lease"), 1_000);
    }
    for page in pages(std::iter::repeat_n("a", 64)) {
        floor.scan(&page);
    }
    let taken: Vec<_> = std::iter::from_fn(|| floor.next(NOW)).collect();
    for assignment in taken.iter().step_by(2) {
        floor.settle(assignment, None, &Outcome::answered(Answer::of(200), 1), (NOW, NOW), 0.5);
    }
    (runtime, store, floor)
}

#[library_benchmark]
#[bench::subscriptions_1000(args = (to_save()), config = at_most(1_850_738))]
fn checkpoint((runtime, store, mut floor): (Runtime, Store, Floor)) -> (Runtime, Store, Floor) {
    let changes = floor.take_unsaved();
    assert!(!changes.is_empty());
    runtime.block_on(store.ledger.commit(changes)).expect("a commit");
    black_box((runtime, store, floor))
}

/// An intake over an empty log, and batches that come one after the other.
fn intake() -> (Runtime, Ingest, Vec<Vec<NewEvent>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = memory::open().expect("an empty store");
    let tail = Arc::new(Tail::new(TailSettings::default(), Seq(1), Seq::ZERO));
    let settings = DedupeSettings { max_age: Duration::from_hours(24), max_ids: 1_000_000 };
    let supervisor = Supervisor::default();
    let start = Ingest::start(store.log, tail, Arc::new(SystemClock), settings, &supervisor);
    let (ingest, _) = runtime.block_on(start).expect("an empty log");
    (runtime, ingest, batch().chunks(50).map(<[NewEvent]>::to_vec).collect())
}

#[library_benchmark]
#[bench::events_500_in_10_batches(args = (intake()), config = at_most(22_763_898))]
fn publish((runtime, ingest, batches): (Runtime, Ingest, Vec<Vec<NewEvent>>)) -> (Runtime, Ingest) {
    let mut placed = 0;
    for batch in batches {
        placed += runtime.block_on(ingest.publish(batch)).expect("positions").len();
    }
    assert_eq!(placed as u64, EVENTS);
    black_box((runtime, ingest))
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

library_benchmark_group!(
    name = hot,
    benchmarks = [
        frame_ndjson,
        frame_sse,
        sign,
        encode_stream,
        encode_delivery,
        match_events,
        offer_events,
        settle_events,
        checkpoint,
        publish
    ]
);

main!(library_benchmark_groups = hot);
