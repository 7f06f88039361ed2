//! What is open or waits goes on after any start with nothing else happening, whatever the subscription's kind and however the
//! relay ended.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Delivery, Receiver, Relay, eventually, for_a_while};

/// Events that every subscription is to get.
const EVENTS: u64 = 8;

/// One subscription of every kind, with endpoints that take long.
fn kinds() -> Vec<(&'static str, Value)> {
    let gathers = json!({"max_events": 3, "max_wait": "10ms"});
    let by_key = json!({"key": "/k"});
    let mut kinds = vec![
        ("none", json!({})),
        ("one", json!({"max_in_flight": 1})),
        ("strict", json!({"ordering": "strict"})),
        ("key", json!({"ordering": by_key})),
        ("subject", json!({"ordering": {"key": "ce-subject"}})),
        ("block", json!({"ordering": by_key, "on_dead": "block"})),
        ("batch", json!({"batch": gathers})),
        ("filter", json!({"filter": "data.n >= 0"})),
        ("types", json!({"types": ["message"]})),
        ("rate", json!({"rate_limit": {"per_second": 50, "burst": 1}})),
        ("batch-strict", json!({"batch": gathers, "ordering": "strict"})),
        ("batch-key", json!({"batch": gathers, "ordering": by_key})),
        ("filter-key", json!({"filter": "data.n >= 0", "ordering": by_key})),
        ("filter-strict", json!({"filter": "data.n >= 0", "ordering": "strict"})),
    ];
    for (_, fields) in &mut kinds {
        fields["timeout"] = json!("60s");
    }
    kinds
}

/// The positions of the events in a delivery.
fn seqs(delivery: &Delivery) -> Vec<u64> {
    if delivery.headers.contains_key("ce-seq") {
        return vec![delivery.seq()];
    }
    let events: Vec<Value> = serde_json::from_slice(&delivery.body).unwrap();
    events.iter().map(|event| event["seq"].as_str().unwrap().parse().unwrap()).collect()
}

/// What a subscription was sent of these deliveries.
fn got(seen: &[Delivery], id: &str) -> BTreeSet<u64> {
    seen.iter().filter(|one| one.header("hookcast-subscription") == id).flat_map(seqs).collect()
}

/// A relay with every kind of subscription and [`EVENTS`] events of two keys, something of each kind in flight, all saved.
async fn busy() -> (Relay, Receiver) {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    for (id, fields) in kinds() {
        relay.subscribe(id, receiver.url(), "t", fields).await;
    }
    let lines: Vec<String> = (0..EVENTS).map(|n| format!("{{\"n\":{n},\"k\":\"{}\"}}", n % 2)).collect();
    relay.publish_lines("t", &lines).await;
    eventually("something in flight of every kind", async || {
        let seen = receiver.seen();
        kinds().iter().all(|(id, _)| !got(&seen, id).is_empty()).then_some(())
    })
    .await;
    for (id, _) in kinds() {
        relay.saved(id).await;
    }
    (relay, receiver)
}

/// Fails unless every kind is sent all of `wanted` that it was not sent before, with nothing else happening.
async fn goes_on(relay: &Relay, receiver: &Receiver, before: usize, is_done: impl Fn(&[Delivery], &str) -> bool) {
    let waiting = eventually("nothing left behind", async || {
        let seen = receiver.seen();
        kinds().iter().all(|(id, _)| is_done(&seen[before..], id)).then_some(())
    });
    // Before the wait itself gives up, which could not say what is missing.
    if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
        let seen = receiver.seen();
        let standing = kinds().iter().map(|(id, _)| (*id, got(&seen[before..], id))).collect::<Vec<_>>();
        panic!("some are left behind: {standing:?}");
    }
    for (id, _) in kinds() {
        relay.status_becomes(id, json!({"lag": 0, "in_flight": 0, "retrying": 0})).await;
    }
}

/// Starts a relay again that sent nothing to its end, and fails unless every kind is sent everything.
async fn restarts_and_sends_all(relay: &mut Relay, receiver: &Receiver) {
    let before = receiver.count();
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    let all: BTreeSet<u64> = (1..=EVENTS).collect();
    goes_on(relay, receiver, before, |seen, id| got(seen, id) == all).await;
}

#[tokio::test]
async fn what_a_kill_left_open_goes_on_whatever_the_kind() {
    let (mut relay, receiver) = busy().await;
    relay.kill9().await;
    restarts_and_sends_all(&mut relay, &receiver).await;
}

#[tokio::test]
async fn a_backlog_goes_on_after_a_clean_stop_whatever_the_kind() {
    let (mut relay, receiver) = busy().await;
    let url = relay.url.clone();
    relay.signal("TERM").await;
    eventually("the server is closed", async || relay.client.get(format!("{url}/healthz")).send().await.err()).await;
    // What is under way ends with 200; nothing begins any more.
    receiver.release(receiver.open());
    assert_eq!(relay.ended().await, Some(0));
    let before = receiver.count();
    let done = receiver.seen();
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    let all: BTreeSet<u64> = (1..=EVENTS).collect();
    goes_on(&relay, &receiver, before, |seen, id| &got(seen, id) | &got(&done, id) == all).await;
}

#[tokio::test]
async fn a_restored_copy_goes_on_whatever_the_kind() {
    let (mut relay, receiver) = busy().await;
    let (code, _, problem) = relay.run(&["backup", "copy.db"]).await;
    assert_eq!(code, Some(0), "{problem}");
    relay.kill9().await;
    let (code, _, problem) = relay.run(&["restore", "--force", "copy.db"]).await;
    assert_eq!(code, Some(0), "{problem}");
    restarts_and_sends_all(&mut relay, &receiver).await;
}

#[tokio::test]
async fn more_open_than_wait_in_memory_go_on_after_a_kill() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    let singles = json!({"max_in_flight": 400, "timeout": "60s"});
    let batches = json!({"max_in_flight": 16, "timeout": "60s", "batch": {"max_events": 25, "max_wait": "5s"}});
    relay.subscribe("singles", receiver.url(), "t", singles).await;
    relay.subscribe("batches", receiver.url(), "t", batches).await;
    relay.publish_numbers("t", 0..400).await;
    let all: BTreeSet<u64> = (1..=400).collect();
    let everything = async |before: usize| {
        eventually(&format!("all of them behind {before} deliveries"), async || {
            let seen = receiver.seen();
            ["singles", "batches"].iter().all(|id| got(&seen[before..], id) == all).then_some(())
        })
        .await;
    };
    everything(0).await;
    relay.saved("singles").await;
    relay.saved("batches").await;
    relay.kill9().await;
    let before = receiver.count();
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    everything(before).await;
}

/// What was open is one thing, what comes later another: it is not sent one batch at a time because of a crash long ago.
#[tokio::test]
async fn batches_go_out_side_by_side_again_after_more_was_open_than_waits_in_memory() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    let batches = json!({"max_in_flight": 16, "timeout": "60s", "batch": {"max_events": 25, "max_wait": "1s"}});
    relay.subscribe("batches", receiver.url(), "t", batches).await;
    relay.publish_numbers("t", 0..400).await;
    receiver.sees(16).await;
    relay.saved("batches").await;
    relay.kill9().await;
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    // An event of its own brings on what a start may have left behind, which is not asked here.
    relay.publish_numbers("t", 0..1).await;
    relay.status_becomes("batches", json!({"lag": 0, "in_flight": 0})).await;
    receiver.change(|_, _| Answer::ok().when_released());
    let before = receiver.count();
    relay.publish_numbers("t", 0..400).await;
    receiver.sees(before + 16).await;
}

#[tokio::test]
async fn retries_go_on_after_a_clean_stop_and_what_ends_meanwhile_is_kept() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let fields = json!({"retry": {"max_attempts": 9, "schedule": ["1s", "300ms"], "jitter": 0.0}, "timeout": "60s"});
    let mut strict = fields.clone();
    strict["ordering"] = json!("strict");
    relay.subscribe("a", receiver.url(), "t", fields).await;
    relay.subscribe("strict", receiver.url(), "t", strict).await;
    relay.publish_numbers("t", 0..3).await;
    relay.status_becomes("a", json!({"retrying": 3, "in_flight": 0})).await;
    relay.status_becomes("strict", json!({"retrying": 1, "in_flight": 0})).await;
    // Retries are under way when it is told to stop, and fail within the time that they are given.
    receiver.change(|_, _| Answer::status(500).when_released());
    let open = |id: &'static str| {
        receiver.seen().iter().filter(|one| one.header("hookcast-subscription") == id && one.attempt() == 2).count()
    };
    eventually("retries under way", async || (open("a") == 3 && open("strict") == 1).then_some(())).await;
    let url = relay.url.clone();
    relay.signal("TERM").await;
    eventually("the server is closed", async || relay.client.get(format!("{url}/healthz")).send().await.err()).await;
    receiver.release(4);
    assert_eq!(relay.ended().await, Some(0));
    let before = receiver.count();
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    for id in ["a", "strict"] {
        relay.status_becomes(id, json!({"retrying": 0, "lag": 0, "in_flight": 0})).await;
    }
    let seen = receiver.seen();
    assert_eq!(got(&seen[before..], "a"), BTreeSet::from([1, 2, 3]));
    assert_eq!(got(&seen[before..], "strict"), BTreeSet::from([1, 2, 3]));
    let third = seen[before..].iter().filter(|one| one.attempt() == 3).count();
    assert_eq!(third, 4, "the failures before the end were counted");
}

#[tokio::test]
async fn what_a_receiver_asked_to_hold_is_held_over_a_restart_but_not_for_another_endpoint() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(503).header("retry-after", "3600")).await;
    for id in ["a", "b"] {
        relay.subscribe(id, receiver.url(), "t", json!({"retry": {"max_attempts": 9, "schedule": ["1s"], "jitter": 0.0}})).await;
    }
    relay.publish_numbers("t", 0..1).await;
    for id in ["a", "b"] {
        relay.status_becomes(id, json!({"retrying": 1, "in_flight": 0})).await;
    }
    for id in ["a", "b"] {
        relay.saved(id).await;
    }
    relay.kill9().await;
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    let other = Receiver::start().await;
    relay.must("PATCH", "/v1/subscriptions/b", json!({"url": other.url()})).await;
    let new = relay.publish_numbers("t", 1..2).await[0];
    // The other endpoint asked for nothing; what it gets shows that the lane goes on.
    relay.delivery_becomes("b", new, "delivered").await;
    for_a_while(Duration::from_millis(300)).await;
    assert_eq!(relay.delivery("a", new).await["state"], "pending", "also what is new");
    assert_eq!(receiver.count(), 2, "what came before the restart");
}
