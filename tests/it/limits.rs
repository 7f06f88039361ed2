//! Limits that hold: rates by subscription, group and host, measured by the relay's own times of sending; places that are
//! shared over lanes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually, for_a_while};

/// Failures are remembered with the time at which they were sent; these say nothing against the endpoint.
async fn refusing() -> Receiver {
    Receiver::with(|_, _| Answer::status(400)).await
}

fn once_in_an_hour(more: &Value) -> Value {
    let mut fields =
        json!({"from": "earliest", "max_in_flight": 64, "retry": {"max_attempts": 9, "schedule": ["1h"], "jitter": 0.0}});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fields
}

/// When the first attempt of each event was sent, in milliseconds.
async fn sent_at(relay: &Relay, id: &str, seqs: &[u64]) -> Vec<i64> {
    let mut times = Vec::new();
    for seq in seqs {
        let view = relay.delivery(id, *seq).await;
        let at = view["attempts"][0]["at"].as_str().unwrap_or_else(|| panic!("no attempt: {view}"));
        times.push(at.parse::<jiff::Timestamp>().unwrap().as_millisecond());
    }
    times.sort_unstable();
    times
}

/// Most of `times` in any second.
fn peak(times: &[i64]) -> usize {
    let within = |from: usize| times[from..].iter().take_while(|at| **at < times[from] + 1000).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn a_subscription_never_sends_more_than_rate_and_burst_in_a_second() {
    let relay = Relay::start().await;
    let receiver = refusing().await;
    let seqs = relay.publish_numbers("t", 0..260).await;
    relay.subscribe("a", receiver.url(), "t", once_in_an_hour(&json!({"rate_limit": {"per_second": 100, "burst": 20}}))).await;
    relay.status_becomes("a", json!({"retrying": 260, "in_flight": 0})).await;
    let times = sent_at(&relay, "a", &seqs).await;
    assert!(peak(&times) <= 120, "{} in a second", peak(&times));
    assert!(times[259] - times[0] >= 2_300, "240 of them have to wait for a token: {} ms", times[259] - times[0]);
}

#[tokio::test]
async fn a_group_shares_its_rate_over_lanes_and_starves_nobody() {
    let relay = Relay::start_with("[delivery]\nlanes = 3\n[limit_groups.few]\nper_second = 100\nburst = 10\n").await;
    let receiver = refusing().await;
    let seqs = relay.publish_numbers("t", 0..100).await;
    for id in ["a", "b", "c"] {
        relay.subscribe(id, receiver.url(), "t", once_in_an_hour(&json!({"limit_group": "few"}))).await;
    }
    let mut all = Vec::new();
    let mut ends = Vec::new();
    for id in ["a", "b", "c"] {
        relay.status_becomes(id, json!({"retrying": 100, "in_flight": 0})).await;
        let times = sent_at(&relay, id, &seqs).await;
        ends.push(*times.last().unwrap());
        all.extend(times);
    }
    all.sort_unstable();
    assert!(peak(&all) <= 110, "{} in a second", peak(&all));
    // They were made one after the other, and all the same they end together.
    let first_end = ends.iter().min().unwrap() - all[0];
    assert!(first_end > 1_500, "one had everything to itself: {ends:?}");
}

#[tokio::test]
async fn a_host_is_limited_over_all_subscriptions() {
    let relay = Relay::start_with("[delivery]\nlanes = 2\nper_host_per_second = 50\nper_host_burst = 5\n").await;
    let (one, other) = (refusing().await, refusing().await);
    let seqs = relay.publish_numbers("t", 0..50).await;
    relay.subscribe("a", one.url(), "t", once_in_an_hour(&json!({}))).await;
    relay.subscribe("b", other.url(), "t", once_in_an_hour(&json!({}))).await;
    let mut all = Vec::new();
    for id in ["a", "b"] {
        relay.status_becomes(id, json!({"retrying": 50, "in_flight": 0})).await;
        all.extend(sent_at(&relay, id, &seqs).await);
    }
    all.sort_unstable();
    assert!(peak(&all) <= 55, "{} in a second", peak(&all));
}

#[tokio::test]
async fn places_are_shared_over_lanes_and_handed_on() {
    let relay = Relay::start_with("[delivery]\nlanes = 3\nper_host_in_flight = 5\n[limit_groups.few]\nmax_in_flight = 2\n").await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    let grouped = json!({"from": "earliest", "limit_group": "few"});
    relay.publish_numbers("t", 0..40).await;
    for id in ["a", "b", "c"] {
        relay.subscribe(id, receiver.url(), "t", grouped.clone()).await;
    }
    eventually("two in flight", async || (receiver.open() == 2).then_some(())).await;
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(receiver.open(), 2, "no more than the group has places");
    for id in ["d", "e"] {
        relay.subscribe(id, receiver.url(), "t", json!({"from": "earliest"})).await;
    }
    eventually("five in flight", async || (receiver.open() == 5).then_some(())).await;
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(receiver.open(), 5, "no more than the host has places");
    receiver.release(10_000);
    for id in ["a", "b", "c", "d", "e"] {
        relay.status_becomes(id, json!({"delivered_total": 40, "in_flight": 0})).await;
    }
    assert_eq!(receiver.most_open(), 5);
}

#[tokio::test]
async fn a_place_that_a_deleted_subscription_held_is_free_again() {
    let relay = Relay::start_with("[delivery]\nlanes = 2\n[limit_groups.one]\nmax_in_flight = 1\n").await;
    let hanging = Receiver::with(|_, _| Answer::never()).await;
    let well = Receiver::start().await;
    let grouped = json!({"limit_group": "one", "timeout": "1s", "retry": {"max_attempts": 1, "schedule": ["1h"]}});
    relay.subscribe("gone", hanging.url(), "t", grouped.clone()).await;
    relay.subscribe("waits", hanging.url(), "t", grouped.clone()).await;
    relay.publish("t", "{}").await;
    hanging.sees(1).await;
    relay.must("DELETE", "/v1/subscriptions/gone", json!({})).await;
    relay.must("DELETE", "/v1/subscriptions/waits", json!({})).await;
    relay.subscribe("stays", well.url(), "t", grouped).await;
    relay.publish("t", "{}").await;
    well.sees(1).await;
}

#[tokio::test]
async fn retries_spend_tokens_like_everything_else() {
    let relay = Relay::start().await;
    let receiver = refusing().await;
    let fields = json!({"rate_limit": {"per_second": 20, "burst": 2},
        "retry": {"max_attempts": 1000, "schedule": ["1ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    let began = Instant::now();
    relay.publish_numbers("t", 0..5).await;
    let seen = receiver.sees(40).await;
    // 38 of 40 had to wait for a token.
    assert!(seen[39].at - began >= Duration::from_millis(1850), "{:?}", seen[39].at - began);
}

const GROUP: &str = "[limit_groups.few]\nper_second = 5\nburst = 1\n";

#[tokio::test]
async fn who_names_a_group_that_is_gone_does_not_run_until_it_is_back() {
    let mut relay = Relay::start_with(GROUP).await;
    let receiver = Receiver::start().await;
    for id in ["a", "b", "paused", "off"] {
        relay.subscribe(id, receiver.url(), id, json!({"limit_group": "few"})).await;
    }
    relay.must("POST", "/v1/subscriptions/paused/pause", json!({})).await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.configure("");
    relay.restart().await;
    let shown = relay.get("/v1/subscriptions/a").await;
    assert_eq!(
        (&shown["state"], &shown["reason"], &shown["limit_group"]),
        (&json!("disabled"), &json!("limit_group"), &json!("few"))
    );
    let words = ["WARN", "its limit group is not in", "few"];
    let is_told = || relay.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
    eventually("the line about the group", async || is_told().then_some(())).await;
    let seq = relay.publish("a", "{}").await;
    assert_eq!(relay.delivery("a", seq).await["state"], "pending");
    // Other fields may change; it goes on standing still.
    for body in [json!({"description": "x"}), json!({"enabled": true}), json!({"limit_group": "few"})] {
        let shown = relay.must("PATCH", "/v1/subscriptions/a", body.clone()).await;
        assert_eq!((&shown["state"], &shown["reason"]), (&json!("disabled"), &json!("limit_group")), "after {body}");
    }
    assert_eq!(relay.ask("PATCH", "/v1/subscriptions/a", Some(&json!({"limit_group": "none"}))).await.0, 422);
    let resumed = relay.must("POST", "/v1/subscriptions/paused/resume", json!({})).await;
    assert_eq!((&resumed["state"], &resumed["reason"]), (&json!("disabled"), &json!("limit_group")));
    let refused = relay.ask("POST", "/v1/subscriptions/paused/resume", Some(&json!({}))).await;
    assert!(refused.0 == 409 && refused.1["detail"].as_str().unwrap().contains("limit_group"), "{refused:?}");
    let off = relay.must("PATCH", "/v1/subscriptions/off", json!({"enabled": false})).await;
    assert_eq!((&off["state"], &off["reason"]), (&json!("disabled"), &json!("manual")));
    // Without a group nothing holds it up any more.
    let freed = relay.must("PATCH", "/v1/subscriptions/b", json!({"limit_group": null})).await;
    assert_eq!(freed["state"], "active");
    let free = relay.publish("b", "{}").await;
    relay.delivery_becomes("b", free, "delivered").await;
    assert_eq!(receiver.of_each(|one| one.header("hookcast-subscription").to_owned()), ["b"]);
    assert_eq!(relay.terminate().await, Some(0));
    relay.configure(GROUP);
    relay.restart().await;
    relay.delivery_becomes("a", seq, "delivered").await;
    assert_eq!(relay.get("/v1/subscriptions/a").await["description"], "x");
    assert_eq!(relay.get("/v1/subscriptions/paused").await["state"], "active");
    assert_eq!(relay.get("/v1/subscriptions/off").await["reason"], "manual");
}

#[tokio::test]
async fn a_declared_subscription_with_a_group_that_is_gone_stops_the_start() {
    let mut relay = Relay::start_with("").await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.configure("[[subscriptions]]\nid = \"a\"\nurl = \"http://127.0.0.1:9000/\"\ntopics = [\"t\"]\nlimit_group = \"few\"\n");
    let (code, _, problem) = relay.run(&["serve"]).await;
    assert_eq!(code, Some(78), "{problem}");
    assert!(problem.contains("few") && problem.contains("limit_groups"), "{problem}");
}
