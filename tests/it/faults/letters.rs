//! Dead letters that are counted, ended, skipped and redriven while storage is at something else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hookcast_core::model::job::{JobKind, Selection};
use hookcast_core::model::subscription::{Activity, OnDead, Ordering, SubscriptionRecord};
use hookcast_core::model::{ExceptionState, Seq};
use hookcast_delivery::Lanes;
use hookcast_delivery::recovery::Recovery;
use hookcast_log::storage::{PageRequest, Store};

use super::{holding, lanes};
use crate::storage::make;
use crate::support::faults::{Point, Script};
use crate::support::{Answer, Receiver, eventually, for_a_while};

/// A subscription to everything whose deliveries have one attempt.
pub(crate) fn dying(id: &str, receiver: &Receiver) -> SubscriptionRecord {
    let mut dying = SubscriptionRecord { activity: Activity::Active, starts_after: Seq::ZERO, ..make::subscription(id) };
    (dying.spec.url, dying.spec.rate_limit, dying.spec.retry.max_attempts) = (receiver.url().to_owned(), None, 1);
    dying.revisions[0].from_seq = Seq(1);
    dying
}

/// A subscription whose dead letter holds up what follows it.
pub(super) fn blocking(id: &str, receiver: &Receiver) -> SubscriptionRecord {
    let mut blocking = dying(id, receiver);
    (blocking.spec.ordering, blocking.spec.on_dead) = (Ordering::Strict, OnDead::Block);
    blocking
}

/// What redrives one dead letter.
pub(super) fn redrive(seq: u64) -> Recovery {
    let seqs = Selection::Seqs([Seq(seq)].into());
    Recovery { kind: JobKind::Redrive, selection: seqs, from: Seq(seq), to: Seq(seq) }
}

/// The dead letters that storage lists.
pub(super) async fn listed(store: &Store, record: &SubscriptionRecord) -> Vec<u64> {
    let page = PageRequest { after: Seq::ZERO, limit: 100 };
    let dead = store.ledger.list(record.ordinal, ExceptionState::Dead, page).await.unwrap();
    dead.into_iter().map(|dead| dead.seq.0).collect()
}

/// A dead letter is delivered by a redrive while a skip marks those that hold others up.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_is_redriven_in_the_moment_of_a_skip_is_not_dead_again() {
    for point in [Point::Proof, Point::Listed] {
        let store = holding(1).await;
        let receiver = Receiver::with(|_, _| Answer::status(400)).await;
        store.catalog.put_subscription(blocking("s", &receiver), 0).await.unwrap();
        let script = Script::default();
        let (lanes, record) = lanes(&store, &script).await;
        let dead = async || lanes.status(&record).await.map(|status| status.dead);
        eventually("a dead letter", async || (listed(&store, &record).await == [1]).then_some(())).await;
        receiver.change(|_, _| Answer::ok().when_released());
        lanes.recover(&record, redrive(1)).await.unwrap();
        receiver.sees(2).await;
        let held = script.hold(point);
        let meanwhile = async {
            eventually("the skip held", async || held.has_come().then_some(())).await;
            receiver.release(1);
            eventually("it delivered", async || (dead().await == Some(0)).then_some(())).await;
            // Saved, unless saving waits for the skip.
            for_a_while(Duration::from_millis(300)).await;
            held.let_go();
        };
        let (skipped, ()) = tokio::join!(lanes.skip(&record, Seq(1)), meanwhile);
        assert!(skipped.unwrap());
        lanes.stop(Duration::from_secs(5)).await;
        assert_eq!(listed(&store, &record).await, [0; 0], "held at {point:?}");
    }
}

/// A store of so many events that all died, the relay over it and the endpoint, which takes everything from now on once it is
/// released.
pub(super) async fn all_dead(events: u64) -> (Store, Script, Receiver, Lanes, Arc<SubscriptionRecord>) {
    let store = holding(events).await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    store.catalog.put_subscription(dying("s", &receiver), 0).await.unwrap();
    let script = Script::default();
    let (lanes, record) = lanes(&store, &script).await;
    let all: Vec<u64> = (1..=events).collect();
    eventually("all dead", async || (listed(&store, &record).await == all).then_some(())).await;
    receiver.change(|_, _| Answer::ok().when_released());
    (store, script, receiver, lanes, record)
}

/// A letter is redriven while the lane looks up what of before was delivered.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_is_saved_while_others_are_looked_up_is_counted_down_once() {
    let (store, script, receiver, lanes, record) = all_dead(3).await;
    let both = Recovery { selection: Selection::Seqs([Seq(1), Seq(2)].into()), to: Seq(2), ..redrive(1) };
    lanes.recover(&record, both).await.unwrap();
    receiver.sees(5).await;
    let dead = async || lanes.status(&record).await.map(|status| status.dead);
    let saving = script.hold(Point::Save);
    receiver.release(1);
    eventually("a save held", async || saving.has_come().then_some(())).await;
    receiver.release(1);
    eventually("both delivered", async || (dead().await == Some(1)).then_some(())).await;
    let looking = script.hold(Point::Listed);
    saving.let_go();
    eventually("somebody looking", async || looking.has_come().then_some(())).await;
    let meanwhile = async {
        // Another save goes through, unless it waits for who looks.
        for_a_while(Duration::from_millis(300)).await;
        looking.let_go();
    };
    let all = Recovery { selection: Selection::Failed, to: Seq(3), ..redrive(1) };
    let (count, ()) = tokio::join!(lanes.count(&record, &all), meanwhile);
    assert_eq!(count.unwrap().events, 1);
    lanes.count(&record, &all).await.unwrap();
    assert_eq!((dead().await, listed(&store, &record).await), (Some(1), vec![3]));
    lanes.stop(Duration::from_secs(5)).await;
}

/// Letters are delivered after a seek back, and die once more after another before that was looked up.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_dies_again_while_it_is_looked_up_stays_dead() {
    let (store, script, receiver, lanes, record) = all_dead(2).await;
    receiver.change(|_, _| Answer::ok());
    let looking = script.hold(Point::Listed);
    let are_settled = async |posts: usize| {
        let status = lanes.status(&record).await?;
        (receiver.count() == posts && status.in_flight == 0).then_some(())
    };
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    eventually("both delivered", async || are_settled(4).await).await;
    eventually("somebody looking", async || looking.has_come().then_some(())).await;
    receiver.change(|_, _| Answer::status(400));
    let meanwhile = async {
        eventually("both dead again", async || are_settled(6).await).await;
        // Saved, unless saving waits for who looks.
        for_a_while(Duration::from_millis(300)).await;
        looking.let_go();
    };
    let (sought, ()) = tokio::join!(lanes.seek(&record, Seq::ZERO), meanwhile);
    assert!(sought.unwrap());
    lanes.stop(Duration::from_secs(5)).await;
    assert_eq!(listed(&store, &record).await, [1, 2]);
}

/// A letter waits in a job to be posted again, and is delivered meanwhile because of a seek back.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_ends_while_a_job_holds_it_is_counted_down_once() {
    let (store, _, receiver, lanes, record) = all_dead(4).await;
    let dead = async || lanes.status(&record).await.map(|status| status.dead);
    let both = Recovery { selection: Selection::Seqs([Seq(1), Seq(2)].into()), to: Seq(2), ..redrive(1) };
    lanes.recover(&record, both).await.unwrap();
    receiver.sees(6).await;
    receiver.change(|delivery, _| Answer::status(if delivery.seq() == 2 { 200 } else { 400 }));
    lanes.seek(&record, Seq(1)).await.unwrap();
    eventually("one delivered by the seek", async || (dead().await == Some(3)).then_some(())).await;
    receiver.release(2);
    eventually("the end of the job", async || {
        let jobs = lanes.jobs(&record).await.unwrap()?;
        (jobs[0].ended_at.is_some()).then_some(())
    })
    .await;
    assert_eq!((dead().await, listed(&store, &record).await), (Some(2), vec![3, 4]));
    lanes.stop(Duration::from_secs(5)).await;
}

/// Two letters are delivered after a seek back, the second while it is looked up whether the first is one.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_is_delivered_while_others_are_looked_up_ends_with_the_save_that_says_so() {
    let (store, script, receiver, lanes, record) = all_dead(2).await;
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    receiver.sees(4).await;
    let looking = script.hold(Point::Listed);
    receiver.release(1);
    eventually("somebody looking", async || looking.has_come().then_some(())).await;
    let saving = script.hold(Point::Save);
    receiver.release(1);
    let status = async || lanes.status(&record).await.unwrap();
    eventually("both delivered", async || (status().await.in_flight == 0).then_some(())).await;
    looking.let_go();
    eventually("a save held", async || saving.has_come().then_some(())).await;
    assert_eq!(status().await.dead, 0, "progress is saved behind both");
    saving.let_go();
    lanes.stop(Duration::from_secs(5)).await;
    assert_eq!(listed(&store, &record).await, [0; 0]);
}

/// A letter fails once more after a seek back, and waits as a retry, which is delivered.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_becomes_a_retry_is_counted_no_longer() {
    let store = holding(2).await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    let mut twice = dying("s", &receiver);
    (twice.spec.retry.max_attempts, twice.spec.retry.schedule) = (2, vec![Duration::from_millis(10)]);
    store.catalog.put_subscription(twice, 0).await.unwrap();
    let (lanes, record) = lanes(&store, &Script::default()).await;
    eventually("both dead", async || (listed(&store, &record).await == [1, 2]).then_some(())).await;
    let fails = AtomicBool::new(true);
    receiver.change(move |_, _| if fails.swap(false, Relaxed) { Answer::status(400) } else { Answer::ok() });
    lanes.seek(&record, Seq(1)).await.unwrap();
    receiver.sees(6).await;
    let status = async || lanes.status(&record).await.unwrap();
    eventually("it delivered", async || (status().await.delivered_total == 1).then_some(())).await;
    eventually("the other alone", async || (listed(&store, &record).await == [1]).then_some(())).await;
    assert_eq!(status().await.dead, 1);
    lanes.stop(Duration::from_secs(5)).await;
}

/// What is delivered in the time that a stop leaves is no dead letter after the next start.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_is_delivered_while_the_relay_stops_is_listed_no_longer() {
    let (store, _, receiver, lanes, record) = all_dead(1).await;
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    receiver.sees(2).await;
    let delivered = async {
        lanes.cancelled().cancelled().await;
        receiver.release(1);
    };
    tokio::join!(lanes.stop(Duration::from_secs(5)), delivered);
    assert_eq!(listed(&store, &record).await, [0; 0]);
}

/// A save waits for what is looked up before it, so that must not grow with every letter of an old backlog that dies once more.
#[actix_rt::test(system = "crate::support::System")]
async fn dead_letters_that_die_again_are_not_looked_up_one_by_one() {
    const EVENTS: u64 = 1_500;
    let store = holding(EVENTS).await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    store.catalog.put_subscription(dying("s", &receiver), 0).await.unwrap();
    let script = Script::default();
    let (lanes, record) = lanes(&store, &script).await;
    let all_died = async |rounds: u64| {
        let status = lanes.status(&record).await?;
        (status.cursor == Seq(EVENTS) && receiver.count() as u64 == rounds * EVENTS && status.in_flight == 0)
            .then_some(status.dead)
    };
    assert_eq!(eventually("all died", async || all_died(1).await).await, EVENTS);
    for round in 2..4 {
        assert!(lanes.seek(&record, Seq::ZERO).await.unwrap());
        eventually("all died again", async || all_died(round).await).await;
        // It is answered once everything is saved.
        assert!(lanes.seek(&record, Seq(EVENTS)).await.unwrap());
        assert_eq!(lanes.status(&record).await.unwrap().dead, EVENTS);
    }
    assert_eq!(script.looked_up(), 0);
    lanes.stop(Duration::from_secs(5)).await;
}
