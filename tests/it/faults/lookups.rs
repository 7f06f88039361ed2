//! What is looked up of dead letters before something is saved while storage is slow, fails at it, or changes meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;
use hookcast_log::retention::Buried;
use hookcast_log::storage::LedgerTrim;
use hookcast_log::storage::StorageErrorKind::{Corrupt, Unavailable};

use super::letters::{all_dead, blocking, dying, listed, redrive};
use super::{context, holding, lanes, start};
use crate::support::faults::{Point, Script};
use crate::support::{Answer, Receiver, counted, eventually};

/// Letters are delivered after a seek back, each while it is looked up what the one before was: more often than one save looks.
#[actix_rt::test(system = "crate::support::System")]
async fn letters_that_are_delivered_faster_than_they_are_looked_up_end_although_nothing_else_happens() {
    const EVENTS: u64 = 8;
    let (store, script, receiver, lanes, record) = all_dead(EVENTS).await;
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    receiver.sees(2 * EVENTS as usize).await;
    let mut looking = script.hold(Point::Listed);
    receiver.release(1);
    for left in (0..EVENTS - 1).rev() {
        eventually("somebody looking", async || looking.has_come().then_some(())).await;
        let next = script.hold(Point::Listed);
        receiver.release(1);
        let in_flight = async || lanes.status(&record).await.map(|status| u64::from(status.in_flight));
        eventually("it delivered", async || (in_flight().await == Some(left)).then_some(())).await;
        looking.let_go();
        looking = next;
    }
    looking.let_go();
    eventually("no letter", async || listed(&store, &record).await.is_empty().then_some(())).await;
    assert_eq!(lanes.status(&record).await.unwrap().dead, 0);
    lanes.stop(Duration::from_secs(5)).await;
}

/// Letters are delivered after a seek back while storage does not say which there are.
#[actix_rt::test(system = "crate::support::System")]
async fn letters_that_cannot_be_looked_up_end_once_they_can_and_are_not_asked_for_without_a_pause() {
    let (store, script, receiver, lanes, record) = all_dead(2).await;
    script.fail_lists(Some(Unavailable));
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    receiver.sees(4).await;
    receiver.release(2);
    let tries = eventually("a second try", async || Some(script.failed_lists()).filter(|tries| tries.len() > 1)).await;
    assert!(tries[1] - tries[0] >= Duration::from_secs(1), "{tries:?}");
    assert_eq!(listed(&store, &record).await, [1, 2]);
    script.fail_lists(None);
    eventually("no letter", async || listed(&store, &record).await.is_empty().then_some(())).await;
    assert_eq!(lanes.status(&record).await.unwrap().dead, 0);
    lanes.stop(Duration::from_secs(5)).await;
}

/// Storage says again which dead letters there are only after the relay began to stop.
#[actix_rt::test(system = "crate::support::System")]
async fn letters_that_cannot_be_looked_up_end_while_the_relay_stops() {
    let (store, script, receiver, lanes, record) = all_dead(1).await;
    script.fail_lists(Some(Unavailable));
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    receiver.sees(2).await;
    receiver.release(1);
    eventually("a try", async || (!script.failed_lists().is_empty()).then_some(())).await;
    let before = script.failed_lists().len();
    let healed = async {
        lanes.cancelled().cancelled().await;
        eventually("another try", async || (script.failed_lists().len() > before).then_some(())).await;
        script.fail_lists(None);
    };
    tokio::join!(lanes.stop(Duration::from_secs(20)), healed);
    assert_eq!(listed(&store, &record).await, [0; 0]);
}

/// Of two letters one was delivered. Both events die after a seek back while storage does not say which there are.
#[actix_rt::test(system = "crate::support::System")]
async fn letters_that_could_not_be_looked_up_are_counted_once_they_can_be() {
    let (store, script, receiver, lanes, record) = all_dead(2).await;
    let dead = async || lanes.status(&record).await.map(|status| status.dead);
    lanes.recover(&record, redrive(1)).await.unwrap();
    receiver.sees(3).await;
    receiver.release(1);
    eventually("one letter", async || (listed(&store, &record).await == [2]).then_some(())).await;
    receiver.change(|_, _| Answer::status(400));
    script.fail_lists(Some(Unavailable));
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    eventually("both dead", async || (listed(&store, &record).await == [1, 2]).then_some(())).await;
    assert_eq!(dead().await, Some(1), "what could not be looked up is not counted yet");
    script.fail_lists(None);
    eventually("both counted", async || (dead().await == Some(2)).then_some(())).await;
    lanes.stop(Duration::from_secs(5)).await;
}

/// Events that were delivered die after a seek back over a letter, each while it is looked up whether the one before was a letter.
#[actix_rt::test(system = "crate::support::System")]
async fn letters_that_die_faster_than_they_are_looked_up_are_counted() {
    const EVENTS: u64 = 84;
    /// Lookups before one save.
    const ROUNDS: u64 = 80;
    let store = holding(EVENTS).await;
    let receiver = Receiver::with(|post, _| Answer::status(if post.seq() == EVENTS { 400 } else { 200 })).await;
    let mut one = dying("s", &receiver);
    (one.spec.max_in_flight, one.spec.timeout) = (100, Duration::from_mins(1));
    store.catalog.put_subscription(one, 0).await.unwrap();
    let script = Script::default();
    let (lanes, record) = lanes(&store, &script).await;
    eventually("one letter", async || (listed(&store, &record).await.len() == 1).then_some(())).await;
    receiver.change(|_, _| Answer::status(400).when_released());
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    receiver.sees(2 * EVENTS as usize).await;
    let mut looking = script.hold(Point::Listed);
    receiver.release(1);
    let mut left = EVENTS - 1;
    for round in 1..=ROUNDS {
        eventually("somebody looking", async || looking.has_come().then_some(())).await;
        let next = script.hold(Point::Listed);
        let dying = if round == ROUNDS { 3 } else { 1 };
        receiver.release(dying as usize);
        left -= dying;
        let in_flight = async || lanes.status(&record).await.map(|status| u64::from(status.in_flight));
        eventually("it died", async || (in_flight().await == Some(left)).then_some(())).await;
        looking.let_go();
        looking = next;
    }
    looking.let_go();
    eventually("saved", async || (listed(&store, &record).await.len() as u64 >= EVENTS - left).then_some(())).await;
    receiver.release(1);
    eventually("all saved", async || (listed(&store, &record).await.len() == EVENTS as usize).then_some(())).await;
    let dead = async || lanes.status(&record).await.map(|status| status.dead);
    eventually("all counted", async || (dead().await == Some(EVENTS)).then_some(())).await;
    lanes.stop(Duration::from_secs(5)).await;
}

/// Retention takes the letters of several subscriptions; those of most of them cannot be counted, and never will be.
#[actix_rt::test(system = "crate::support::System")]
async fn letters_that_can_never_be_counted_do_not_keep_others_from_it() {
    let store = holding(1).await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    let ids: Vec<String> = (1..=9).map(|number| format!("s{number}")).collect();
    for id in &ids {
        store.catalog.put_subscription(dying(id, &receiver), 0).await.unwrap();
    }
    let script = Script::default();
    let context = context(&store, &script).await;
    let records: Vec<_> = ids.iter().map(|id| context.registry.get(id).unwrap()).collect();
    let lanes = start(context).await;
    for record in &records {
        eventually("a letter", async || (listed(&store, record).await == [1]).then_some(())).await;
    }
    let (last, others) = records.split_last().unwrap();
    script.fail_counts_of(others.iter().map(|record| record.ordinal));
    let all = LedgerTrim {
        dead_before: Timestamp(i64::MAX),
        attempts_before: Timestamp(0),
        attempts_bytes_max: u64::MAX,
        rows_max: 100,
    };
    assert_eq!(store.ledger.trim(all).await.unwrap().dead.len(), 9);
    lanes.buried(Buried::Unknown).await;
    eventually("none counted", async || lanes.status(last).await.and_then(|status| (status.dead == 0).then_some(()))).await;
    assert_eq!(lanes.status(&records[0]).await.unwrap().dead, 1, "it cannot be counted");
    lanes.stop(Duration::from_secs(25)).await;
}

/// A letter is delivered after a seek back, and which letters there are is damaged, or cannot be read until the end.
#[actix_rt::test(system = "crate::support::System")]
async fn letters_that_can_never_be_looked_up_do_not_hold_up_the_end() {
    let counted = counted();
    for (left, kind, tries_max) in [(1, Corrupt, 1), (2, Unavailable, 30)] {
        let (store, script, receiver, lanes, record) = all_dead(1).await;
        script.fail_lists(Some(kind));
        lanes.seek(&record, Seq::ZERO).await.unwrap();
        receiver.sees(2).await;
        receiver.release(1);
        eventually("a try", async || (!script.failed_lists().is_empty()).then_some(())).await;
        lanes.stop(Duration::from_secs(25)).await;
        let tries = script.failed_lists().len();
        assert!(tries <= tries_max, "{kind:?}: {tries} tries");
        assert_eq!(listed(&store, &record).await, [1]);
        let line = format!("hookcast_dead_letters_left_listed_total {left}\n");
        assert!(counted.render().contains(&line), "{kind:?}: no {line}");
    }
}

/// Retention takes a letter while a skip that is to mark it asks storage whether it takes changes.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_retention_takes_in_the_moment_of_a_skip_does_not_come_back() {
    let store = holding(2).await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    store.catalog.put_subscription(blocking("s", &receiver), 0).await.unwrap();
    let script = Script::default();
    let (lanes, record) = lanes(&store, &script).await;
    eventually("a dead letter", async || (listed(&store, &record).await == [1]).then_some(())).await;
    receiver.change(|_, _| Answer::ok());
    let held = script.hold(Point::Proof);
    let meanwhile = async {
        eventually("the skip held", async || held.has_come().then_some(())).await;
        let all = LedgerTrim {
            dead_before: Timestamp(i64::MAX),
            attempts_before: Timestamp(0),
            attempts_bytes_max: u64::MAX,
            rows_max: 100,
        };
        let gone = store.ledger.trim(all).await.unwrap().dead;
        assert_eq!(gone, [(record.ordinal, Seq(1))]);
        lanes.buried(Buried::These(gone)).await;
        held.let_go();
    };
    let (skipped, ()) = tokio::join!(lanes.skip(&record, Seq(1)), meanwhile);
    assert!(skipped.unwrap());
    receiver.sees(2).await;
    let dead = async || lanes.status(&record).await.map(|status| status.dead);
    eventually("no letter counted", async || (dead().await == Some(0)).then_some(())).await;
    lanes.stop(Duration::from_secs(5)).await;
    assert_eq!(listed(&store, &record).await, [0; 0]);
}
