//! What is said of one delivery while it changes between two reads of storage.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use hookcast_core::model::Seq;
use hookcast_delivery::telling::DeliveryState;
use hookcast_log::storage::PageRequest;

use super::letters::{all_dead, dying, listed, redrive};
use super::{context, holding, lanes, paused_at, start};
use crate::support::faults::{Point, Script};
use crate::support::{Answer, Receiver, eventually};

/// A seek back takes the mark of a skip away while somebody asks for the event.
#[actix_rt::test(system = "crate::support::System")]
async fn what_was_skipped_is_not_said_to_be_delivered_during_a_seek_back() {
    let store = holding(9).await;
    store.catalog.put_subscription(paused_at("s", 0), 0).await.unwrap();
    let script = Script::default();
    let (lanes, record) = lanes(&store, &script).await;
    assert!(lanes.skip(&record, Seq(5)).await.unwrap());
    let state = async || lanes.delivery(&record, Seq(3)).await.unwrap().unwrap().state;
    assert_eq!(state().await, DeliveryState::Skipped);
    let held = script.hold(Point::Marks);
    let sought = async {
        eventually("the question held", async || held.has_come().then_some(())).await;
        lanes.seek(&record, Seq::ZERO).await.unwrap();
        assert!(!store.ledger.marks(record.ordinal, Seq(3)).await.unwrap().is_skipped);
        held.let_go();
    };
    assert_eq!(tokio::join!(state(), sought).0, DeliveryState::Pending);
    lanes.stop(Duration::from_secs(5)).await;
}

/// A redrive succeeds while somebody asks for its event.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_is_delivered_meanwhile_is_not_said_to_be_unknown() {
    let store = holding(1).await;
    let receiver = Receiver::with(|_, before| if before == 0 { Answer::status(400) } else { Answer::ok().when_released() }).await;
    store.catalog.put_subscription(dying("s", &receiver), 0).await.unwrap();
    let script = Script::default();
    let mut context = context(&store, &script).await;
    context.remembers_successes = true;
    let record = context.registry.get("s").unwrap();
    let lanes = start(context).await;
    eventually("the letter", async || (listed(&store, &record).await == [1]).then_some(())).await;
    lanes.recover(&record, redrive(1)).await.unwrap();
    receiver.sees(2).await;
    let state = async || lanes.delivery(&record, Seq(1)).await.unwrap().unwrap().state;
    let held = script.hold(Point::History);
    let delivered = async {
        eventually("the question held", async || held.has_come().then_some(())).await;
        receiver.release(1);
        eventually("no letter", async || listed(&store, &record).await.is_empty().then_some(())).await;
        held.let_go();
    };
    assert_eq!(tokio::join!(state(), delivered).0, DeliveryState::Dead, "as it was when the question came");
    assert_eq!(state().await, DeliveryState::Delivered);
    lanes.stop(Duration::from_secs(5)).await;
}

/// Of two letters that a seek back made pending the first is delivered, and what was listed of it is looked up slowly.
#[actix_rt::test(system = "crate::support::System")]
async fn a_letter_that_is_delivered_after_a_seek_back_is_not_said_to_be_dead() {
    let (store, script, receiver, lanes, record) = all_dead(2).await;
    let state = async |seq| lanes.delivery(&record, Seq(seq)).await.unwrap().unwrap().state;
    let undelivered = async |limit| {
        let page = lanes.undelivered(&record, PageRequest { after: Seq::ZERO, limit }).await.unwrap().unwrap();
        let items = page.items.into_iter().map(|(seq, exception)| (seq.0, exception.is_some())).collect::<Vec<_>>();
        (items, page.next.map(|next| next.0))
    };
    assert_eq!(undelivered(9).await, (vec![(1, true), (2, true)], None));
    lanes.seek(&record, Seq::ZERO).await.unwrap();
    receiver.sees(4).await;
    assert_eq!(state(1).await, DeliveryState::Pending);
    assert_eq!(undelivered(9).await, (vec![(1, false), (2, false)], None));
    let held = script.hold(Point::Listed);
    receiver.release(1);
    eventually("the look", async || held.has_come().then_some(())).await;
    let left = if state(1).await == DeliveryState::Delivered { 2 } else { 1 };
    assert_eq!((state(3 - left).await, state(left).await), (DeliveryState::Delivered, DeliveryState::Pending));
    assert_eq!(listed(&store, &record).await, [1, 2], "storage does not know it");
    assert_eq!(undelivered(9).await, (vec![(left, false)], None));
    // As many as are asked for were read, and are left out: the list goes on.
    let (items, next) = undelivered(1).await;
    assert!(items == [(left, false)] || next.is_some(), "{items:?} {next:?}");
    held.let_go();
    receiver.release(1);
    eventually("no letter", async || listed(&store, &record).await.is_empty().then_some(())).await;
    assert_eq!(undelivered(9).await, (vec![], None));
    lanes.stop(Duration::from_secs(5)).await;
}
