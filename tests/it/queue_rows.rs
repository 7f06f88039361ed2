//! The rows `queue` of the collection of bad inputs, each found by its text: leases, clocks, deletion, pause, late answers.
//!
//! There are no leases in time here: the right to a partition is an epoch. So the rows about leases and clocks ask that no
//! stored time, however far in the future, holds a delivery up, and that a fenced process changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Activity, Ordinal, SubscriptionRecord, parse};
use hookcast_core::model::{Exception, ExceptionState, Outcome, Seq, SubscriptionId};
use hookcast_delivery::desk::Desk;
use hookcast_delivery::floor::Floor;
use hookcast_delivery::job::Next;
use hookcast_delivery::window::{Position, Progress};
use hookcast_log::storage::{Checkpoint, LedgerChange, StorageErrorKind};
use serde_json::json;

use crate::support::{Answer, Receiver, Relay, eventually, for_a_while};

const ROWS: &str = include_str!("../data/queue/bad-inputs.csv");
const NOW: Timestamp = Timestamp(1_750_000_000_000);
const HOUR: i64 = 3_600_000;

/// What a row expects; the table and the tests cannot drift apart.
fn expected(input: &str) -> String {
    let mut rows = csv_rows();
    let row = rows.find(|row| row[1] == input).unwrap_or_else(|| panic!("no row {input:?}"));
    row[2].clone()
}

fn csv_rows() -> impl Iterator<Item = Vec<String>> {
    ROWS.lines()
        .map(|line| line.trim_matches('"').split("\",\"").map(str::to_owned).collect::<Vec<_>>())
        .filter(|row| row[0] == "queue")
}

#[test]
fn every_row_of_the_table_has_a_test() {
    let tested = [LEASE, DELETED, PAUSED, TWO_WORKERS, LATE, REPLAY, CLOCK];
    let rows: Vec<String> = csv_rows().map(|row| row[1].clone()).collect();
    assert_eq!(rows.len(), tested.len());
    assert!(rows.iter().all(|row| tested.contains(&row.as_str())), "{rows:?}");
}

const LEASE: &str = "delivery row with lease in the far future (clock went back)";
const DELETED: &str = "subscription deleted with 10000 pending";
const PAUSED: &str = "subscription paused then resumed";
const TWO_WORKERS: &str = "two workers take the same row";
const LATE: &str = "late success after lease lost";
const REPLAY: &str = "replay of 1e6 dead letters";
const CLOCK: &str = "clock +1 h / -1 h / +10 y";

fn record() -> Arc<SubscriptionRecord> {
    let urls = |url: &str| -> Result<String, (&'static str, String)> { Ok(url.to_owned()) };
    let body = json!({"id": "a", "url": "https://example.com/", "topics": ["t"],
        "retry": {"max_attempts": 10, "schedule": ["5s"], "jitter": 0.0}});
    let definition = parse::parse_definition(&body, None, &parse::Rules::new(&urls)).unwrap();
    let id = SubscriptionId::parse("a").unwrap();
    let mut random = |bytes: &mut [u8]| bytes.fill(7);
    let mut record = hookcast_core::model::subscription::change::new_record(definition, id, Seq::ZERO, NOW, &mut random);
    record.ordinal = Ordinal(1);
    record.activity = Activity::Active;
    Arc::new(record)
}

fn retry(since: i64, due_at: i64) -> Exception {
    Exception {
        ordinal: Ordinal(1),
        seq: Seq(5),
        state: ExceptionState::Retry,
        attempts: 1,
        sent: 1,
        due_at: Timestamp(due_at),
        since: Timestamp(since),
        reason: "status_500".to_owned(),
        has_old_batch_id: false,
    }
}

fn wait_of(desk: &mut Desk, now: Timestamp) -> i64 {
    match desk.next(now) {
        Next::WaitUntil(at) => at.0 - now.0,
        Next::Job(_) => 0,
        Next::Nothing => panic!("nobody waits"),
    }
}

#[test]
fn a_stored_time_in_the_far_future_holds_nothing_up() {
    assert_eq!(expected(LEASE), "lease bounded: taken <= lease + 60 s");
    for back in [HOUR, 24 * HOUR, 10 * 365 * 24 * HOUR] {
        // Stored before the clock went back: it failed then, and was due five seconds later.
        let mut desk = Desk::new(record(), Position::Riding { not_before: Seq(9) });
        desk.resume_stored(&retry(NOW.0, NOW.0 + 5_000), Timestamp(NOW.0 - back));
        assert_eq!(wait_of(&mut desk, Timestamp(NOW.0 - back)), 5_000);
    }
    // What waits for long because the schedule says so still does.
    let mut desk = Desk::new(record(), Position::Riding { not_before: Seq(9) });
    desk.resume_stored(&retry(NOW.0 - HOUR, NOW.0 + HOUR), NOW);
    assert_eq!(wait_of(&mut desk, NOW), HOUR);
}

#[test]
fn a_clock_that_is_moved_makes_no_storm_and_no_stall() {
    assert_eq!(expected(CLOCK), "no retry storm; no stall > 60 s; timestamps follow wall clock");
    for step in [HOUR, -HOUR, 10 * 365 * 24 * HOUR] {
        let mut floor = Floor::new(Seq(9), 100);
        floor.add(record(), &Progress { base: Seq(9), holes: Vec::new() });
        floor.change(Ordinal(1), |desk| desk.resume_retry(&retry(NOW.0, NOW.0 + 50_000)));
        assert!(floor.next(NOW).is_none());
        assert_eq!(floor.next_timer(), Some(Timestamp(NOW.0 + 50_000)));
        // Ten seconds later the clock is moved.
        let moved = Timestamp(NOW.0 + 10_000 + step);
        floor.shift(step);
        floor.fire_timers(moved);
        assert!(floor.next(moved).is_none(), "a storm after {step} ms");
        assert_eq!(floor.next_timer(), Some(Timestamp(moved.0 + 40_000)), "a stall after {step} ms");
        let due = Timestamp(moved.0 + 40_000);
        floor.fire_timers(due);
        let assignment = floor.next(due).expect("it is due");
        let outcome = Outcome::answered(hookcast_core::model::outcome::Answer::of(500), 1);
        floor.settle(&assignment, None, &outcome, (due, due), 0.5);
        let at = floor.desk(Ordinal(1)).unwrap().last_attempt.as_ref().unwrap().at;
        assert_eq!(at, due, "the time that is told is the wall clock's");
    }
}

#[tokio::test]
async fn after_a_deletion_nothing_more_is_sent() {
    assert_eq!(expected(DELETED), "0 attempts after delete returns (in-flight <= concurrency)");
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    receiver.keep_little();
    relay.publish_numbers("t", 0..10_000).await;
    relay.subscribe("a", receiver.url(), "t", json!({"from": "earliest", "max_in_flight": 4})).await;
    eventually("four in flight", async || (receiver.open() == 4).then_some(())).await;
    receiver.release(100);
    receiver.sees(100).await;
    relay.must("DELETE", "/v1/subscriptions/a", json!({})).await;
    // What was on its way when the answer came may still be counted; nothing begins after it.
    eventually("none begun", async || {
        let before = receiver.count();
        for_a_while(Duration::from_millis(100)).await;
        (receiver.count() == before).then_some(())
    })
    .await;
    let count = receiver.count();
    receiver.release(10_000);
    for_a_while(Duration::from_millis(500)).await;
    assert_eq!(receiver.count(), count);
    assert!(count <= 108, "{count}");
}

#[tokio::test]
async fn a_pause_keeps_the_order_and_the_rate() {
    assert_eq!(expected(PAUSED), "order kept; nothing lost; no burst over rate");
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let fields = json!({"max_in_flight": 1, "rate_limit": {"per_second": 100, "burst": 10}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    let seqs = relay.publish_numbers("t", 0..200).await;
    receiver.sees(50).await;
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    for_a_while(Duration::from_millis(300)).await;
    let paused_at = receiver.count();
    for_a_while(Duration::from_millis(300)).await;
    assert_eq!(receiver.count(), paused_at);
    let resumed = Instant::now();
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    let seen = receiver.sees(200).await;
    assert_eq!(receiver.of_each(super::support::receiver::Delivery::seq), seqs);
    // From the resumption on: a burst, and then the rate.
    let took = seen[199].at - resumed;
    let least = Duration::from_millis(10 * (200 - 10 - paused_at as u64 - 5));
    assert!(took >= least, "{took:?} for {} events", 200 - paused_at);
}

#[tokio::test]
async fn a_process_that_was_fenced_changes_nothing() {
    assert_eq!(expected(TWO_WORKERS), "exactly one attempt per lease; fencing token refuses the late result");
    let relay = Relay::start().await;
    assert_eq!(relay.second_process().await, Some(75), "a second process on the same data does not begin");
    // And one that had begun before is refused by its epoch.
    let store = (hookcast_log::storage::BACKENDS.iter().find(|backend| backend.scheme == "memory").unwrap().open)(
        hookcast_log::storage::StorageSettings {
            path: std::path::PathBuf::new(),
            durability: hookcast_log::storage::Durability::Full,
            reserve: hookcast_log::storage::Reserve::Auto,
            seals: None,
            readiness: hookcast_supervise::readiness::Readiness::default(),
        },
    )
    .await
    .unwrap();
    let old = store.ledger.lease(1).await.unwrap();
    let new = store.ledger.lease(1).await.unwrap();
    assert!(new.epoch > old.epoch);
    let change = |lease, frontier| LedgerChange {
        checkpoint: Some(Checkpoint { frontier: Seq(frontier), state: Vec::new() }),
        ..LedgerChange::new(lease)
    };
    store.ledger.commit(vec![change(new, 7)]).await.unwrap();
    let refused = store.ledger.commit(vec![change(old, 99)]).await.unwrap_err();
    assert_eq!(refused.kind, StorageErrorKind::Fenced);
    assert_eq!(store.ledger.load(1).await.unwrap().frontier, Seq(7));
}

#[tokio::test]
async fn a_success_that_nobody_waits_for_any_more_makes_no_attempt() {
    assert_eq!(expected(LATE), "recorded as duplicate-success; no further attempts");
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let seq = relay.publish("t", "{}").await;
    receiver.sees(1).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "latest"})).await;
    receiver.release(1);
    relay.delivery_becomes("a", seq, "delivered").await;
    for_a_while(Duration::from_millis(300)).await;
    assert_eq!(receiver.count(), 1);
    relay.status_becomes("a", json!({"retrying": 0, "in_flight": 0, "lag": 0})).await;
}

#[tokio::test]
async fn a_redrive_of_many_leaves_half_of_the_rate_to_what_is_new() {
    assert_eq!(expected(REPLAY), "rate-limited; live traffic p99 < 2x");
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    let fields = json!({"max_retrying": 5000, "rate_limit": {"per_second": 400, "burst": 40},
        "retry": {"max_attempts": 1, "schedule": ["1h"]}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    let old = relay.publish_numbers("t", 0..800).await;
    relay.status_becomes("a", json!({"dead": 800})).await;
    receiver.change(|_, _| Answer::ok());
    let before = receiver.count();
    let stored = async || relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({"all": true})).await;
    eventually("all of them redriven", async || (stored().await["events"] == 800).then_some(())).await;
    let new = relay.publish_numbers("t", 0..100).await;
    relay.status_becomes("a", json!({"retrying": 0, "dead": 0, "lag": 0})).await;
    let seqs = receiver.of_each(super::support::receiver::Delivery::seq);
    let after = &seqs[before..];
    let place = |seq: u64| after.iter().rposition(|other| *other == seq).unwrap();
    let (last_new, last_old) = (place(new[99]), old.iter().map(|seq| place(*seq)).max().unwrap());
    assert!(last_new < last_old, "what is new waited for everything that is old: {last_new} {last_old}");
}
