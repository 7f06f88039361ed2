//! Bringing deliveries back: redrive, replay, their progress, cancelling, skipping; all under the limits of the subscription.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually};

/// One attempt, then dead.
fn once() -> Value {
    json!({"retry": {"max_attempts": 1, "schedule": ["1h"]}})
}

async fn replay(relay: &Relay, body: Value) -> Value {
    relay.must("POST", "/v1/subscriptions/a/replay", body).await
}

/// Waits until a job has ended.
async fn ended(relay: &Relay, job: &Value) -> Value {
    let path = format!("/v1/subscriptions/a/jobs/{}", job.as_str().unwrap());
    eventually("the end of the job", async || {
        let view = relay.get(&path).await;
        (view["state"] != "running").then_some(view)
    })
    .await
}

#[tokio::test]
async fn a_range_is_replayed_with_the_same_ids_and_the_cursor_stays() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 1})).await;
    let seqs = relay.publish_numbers("t", 0..10).await;
    relay.publish("other", "{}").await;
    let more = relay.publish_numbers("t", 10..20).await;
    let first = receiver.sees(20).await;
    relay.status_becomes("a", json!({"lag": 0})).await;
    let range = json!({"from": {"seq": seqs[8]}, "to": {"seq": more[1]}, "only": "all"});
    let mut dry = range.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(replay(&relay, dry).await, json!({"events": 4, "exact": true}));
    let made = replay(&relay, range).await;
    assert_eq!(made["events"], 4);
    let done = ended(&relay, &made["job"]).await;
    assert_eq!(
        (&done["state"], &done["done"], &done["failed"], &done["kind"]),
        (&json!("done"), &json!(4), &json!(0), &json!("replay"))
    );
    assert!(done["ended_at"].is_string());
    let seen = receiver.sees(24).await;
    let again: Vec<u64> = seen[20..].iter().map(crate::support::receiver::Delivery::seq).collect();
    assert_eq!(again, [seqs[8], seqs[9], more[0], more[1]]);
    for delivery in &seen[20..] {
        let before = first.iter().find(|other| other.seq() == delivery.seq()).unwrap();
        assert_eq!((delivery.id(), &delivery.body), (before.id(), &before.body));
        assert_eq!(delivery.header("hookcast-replay"), made["job"].as_str().unwrap());
        delivery.verify();
    }
    assert!(first.iter().all(|delivery| !delivery.headers.contains_key("hookcast-replay")));
    assert_eq!(relay.status("a").await["cursor"], 21);
    assert_eq!(relay.get("/v1/subscriptions/a/jobs").await["items"][0], done);
    assert_eq!(relay.delivery("a", seqs[9]).await["attempts"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_range_by_time_ends_where_it_says_and_wrong_ones_are_refused() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    relay.publish_numbers("t", 0..3).await;
    receiver.sees(3).await;
    let count = async |body: Value| replay(&relay, body).await["events"].clone();
    let (past, future) = (json!({"time": "2000-01-01T00:00:00Z"}), json!({"time": "2100-01-01T00:00:00Z"}));
    assert_eq!(count(json!({"from": past, "to": future, "dry_run": true})).await, 3);
    assert_eq!(count(json!({"from": "earliest", "dry_run": true})).await, 3);
    assert_eq!(count(json!({"from": "earliest", "only": "failed", "dry_run": true})).await, 0);
    for wrong in [
        json!({}),
        json!({"from": {"seq": 3}, "to": {"seq": 1}}),
        json!({"from": "earliest", "only": "some"}),
        json!({"from": {"seq": 99}}),
    ] {
        let (status, _) = relay.ask("POST", "/v1/subscriptions/a/replay", Some(&wrong)).await;
        assert_eq!(status, 422, "{wrong}");
    }
    for (method, path) in [("GET", "jobs/job_0000000000000001"), ("DELETE", "jobs/job_0000000000000001"), ("GET", "jobs/x")] {
        assert_eq!(relay.ask(method, &format!("/v1/subscriptions/a/{path}"), None).await.0, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn what_failed_is_replayed_and_its_dead_letters_end() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if delivery.seq() % 2 == 0 { 400 } else { 200 })).await;
    relay.subscribe("a", receiver.url(), "t", once()).await;
    relay.publish_numbers("t", 0..20).await;
    relay.status_becomes("a", json!({"dead": 10, "lag": 0})).await;
    // While the endpoint still refuses, a replay in vain leaves the dead letters as they are.
    let made = replay(&relay, json!({"from": {"seq": 1}, "to": {"seq": 8}, "only": "failed"})).await;
    assert_eq!(made["events"], 4);
    let done = ended(&relay, &made["job"]).await;
    assert_eq!((&done["done"], &done["failed"]), (&json!(4), &json!(4)));
    relay.status_becomes("a", json!({"dead": 10, "retrying": 0})).await;
    receiver.change(|_, _| Answer::ok());
    let made = replay(&relay, json!({"from": "earliest", "only": "failed"})).await;
    let done = ended(&relay, &made["job"]).await;
    assert_eq!((&done["done"], &done["failed"]), (&json!(10), &json!(0)));
    relay.status_becomes("a", json!({"dead": 0, "retrying": 0})).await;
    eventually("no dead letter listed", async || {
        let list = relay.get("/v1/subscriptions/a/dead-letters").await;
        list["items"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    assert_eq!(relay.delivery("a", 2).await["state"], "delivered");
}

#[tokio::test]
async fn a_replay_that_fails_loses_nothing_in_silence() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let retry = json!({"retry": {"max_attempts": 2, "schedule": ["20ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", retry).await;
    let seqs = relay.publish_numbers("t", 0..5).await;
    receiver.sees(5).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    receiver.change(|_, _| Answer::status(500));
    let made = replay(&relay, json!({"from": {"seq": seqs[2]}, "to": {"seq": seqs[3]}})).await;
    let done = ended(&relay, &made["job"]).await;
    assert_eq!((&done["done"], &done["failed"]), (&json!(2), &json!(2)));
    relay.status_becomes("a", json!({"dead": 2, "retrying": 0})).await;
    assert_eq!(receiver.count(), 5 + 4, "each was tried again by the schedule");
}

#[tokio::test]
async fn a_replay_goes_on_after_a_kill_and_can_be_cancelled() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    relay.publish_numbers("t", 0..400).await;
    receiver.sees(400).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"rate_limit": {"per_second": 100, "burst": 1}})).await;
    let made = replay(&relay, json!({"from": "earliest"})).await;
    receiver.sees(450).await;
    let path = format!("/v1/subscriptions/a/jobs/{}", made["job"].as_str().unwrap());
    eventually("some progress saved", async || (relay.get(&path).await["position"].as_u64() > Some(20)).then_some(())).await;
    relay.kill9().await;
    relay.restart().await;
    let view = relay.get(&path).await;
    assert_eq!(view["state"], "running", "{view}");
    relay.must("PATCH", "/v1/subscriptions/a", json!({"rate_limit": null})).await;
    ended(&relay, &made["job"]).await;
    let mut seqs: Vec<u64> = receiver.seen()[400..].iter().map(crate::support::receiver::Delivery::seq).collect();
    assert!(seqs.len() < 400 + 200, "{} posts: it began anew", seqs.len());
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 400, "each event at least once more");
    // Another one is cancelled.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"rate_limit": {"per_second": 1, "burst": 1}})).await;
    let made = replay(&relay, json!({"from": "earliest"})).await;
    let path = format!("/v1/subscriptions/a/jobs/{}", made["job"].as_str().unwrap());
    let (status, cancelled) = relay.ask("DELETE", &path, None).await;
    assert_eq!((status, &cancelled["state"]), (200, &json!("cancelled")));
    assert_eq!(relay.get(&path).await["state"], "cancelled");
    relay.status_becomes("a", json!({"in_flight": 0, "lag": 0})).await;
}

#[tokio::test]
async fn only_so_many_jobs_run_at_once() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    relay.publish_numbers("t", 0..5).await;
    receiver.sees(5).await;
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    for _ in 0..4 {
        replay(&relay, json!({"from": "earliest"})).await;
    }
    let (status, problem) = relay.ask("POST", "/v1/subscriptions/a/replay", Some(&json!({"from": "earliest"}))).await;
    assert_eq!((status, &problem["type"]), (429, &json!("/problems/too_many_jobs")));
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    receiver.sees(25).await;
}

#[tokio::test]
async fn a_replay_leaves_live_deliveries_their_half_of_the_rate() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    relay.publish_numbers("t", 0..500).await;
    receiver.sees(500).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"rate_limit": {"per_second": 100, "burst": 1}})).await;
    replay(&relay, json!({"from": "earliest"})).await;
    receiver.sees(520).await;
    let live = relay.publish_numbers("t", 0..50).await;
    let position = |seen: &[crate::support::receiver::Delivery]| {
        let (first, last) = (live[0], live[49]);
        let begun = seen.iter().position(|delivery| delivery.seq() == first)?;
        Some((begun, seen.iter().position(|delivery| delivery.seq() == last)?))
    };
    let (begun, ended) = eventually("the live ones delivered", async || position(&receiver.seen())).await;
    assert!(ended - begun <= 115, "50 live events took {} attempts", ended - begun);
    assert!(ended - begun >= 90, "the replay had its half as well: {}", ended - begun);
}

#[tokio::test]
async fn skipping_settles_what_waits_and_says_so() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    let more = json!({"max_retrying": 3, "retry": {"max_attempts": 9, "schedule": ["1h"]}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    let seqs = relay.publish_numbers("t", 0..10).await;
    relay.status_becomes("a", json!({"retrying": 3, "in_flight": 0, "state": "failing"})).await;
    let status = relay.must("POST", "/v1/subscriptions/a/skip", json!({"to": seqs[7]})).await;
    assert_eq!((status["cursor"].as_u64().unwrap() >= seqs[7], &status["dead"]), (true, &json!(0)));
    receiver.change(|_, _| Answer::ok());
    relay.status_becomes("a", json!({"lag": 0})).await;
    for seq in [seqs[0], seqs[7]] {
        let view = relay.delivery("a", seq).await;
        assert_eq!((&view["state"], &view["reason"]), (&json!("skipped"), &json!(null)), "{seq}");
    }
    for wrong in [json!({}), json!({"to": 0}), json!({"to": 999})] {
        assert_eq!(relay.ask("POST", "/v1/subscriptions/a/skip", Some(&wrong)).await.0, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_delivery_after_a_seek_back_ends_the_dead_letter_of_before() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    relay.subscribe("a", receiver.url(), "t", once()).await;
    relay.publish_numbers("t", 0..5).await;
    relay.status_becomes("a", json!({"dead": 5, "lag": 0})).await;
    relay.kill9().await;
    relay.restart().await;
    relay.status_becomes("a", json!({"lag": 0})).await;
    let dead = relay.status("a").await["dead"].as_u64().unwrap();
    receiver.change(|_, _| Answer::ok());
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": 3}})).await;
    relay.status_becomes("a", json!({"dead": dead.min(5) - 3, "lag": 0})).await;
    relay.delivery_becomes("a", 4, "delivered").await;
    assert_eq!(relay.delivery("a", 2).await["state"], "dead");
}

/// The row "replay of 1e6 dead letters: rate-limited; live traffic p99 < 2x" in small: what is live finds the endpoint free.
#[tokio::test]
async fn many_dead_letters_are_redriven_beside_live_traffic() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    relay
        .subscribe("a", receiver.url(), "t", json!({"retry": {"max_attempts": 1, "schedule": ["1h"]}, "max_retrying": 50}))
        .await;
    relay.publish_numbers("t", 0..3000).await;
    relay.status_becomes("a", json!({"dead": 3000, "lag": 0})).await;
    receiver.change(|_, _| Answer::ok());
    let before = receiver.count();
    relay.must("PATCH", "/v1/subscriptions/a", json!({"rate_limit": {"per_second": 1000, "burst": 10}})).await;
    let began = Instant::now();
    let made = relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({"all": true})).await;
    assert_eq!(made["events"], 3000);
    let live = relay.publish_numbers("t", 3000..3020).await;
    ended(&relay, &made["job"]).await;
    relay.status_becomes("a", json!({"dead": 0, "retrying": 0, "lag": 0})).await;
    let seen = receiver.seen();
    let seen = &seen[before..];
    assert_eq!(seen.len(), 3020);
    let last_live = seen.iter().rposition(|delivery| live.contains(&delivery.seq())).unwrap();
    assert!(last_live < 2500, "live events waited behind {last_live} redriven ones");
    assert!(seen[3019].at - began >= Duration::from_millis(2500), "the rate holds: {:?}", seen[3019].at - began);
    assert_eq!(seen.iter().filter(|delivery| delivery.headers.contains_key("hookcast-replay")).count(), 3000);
}

#[tokio::test]
async fn a_subscription_that_gathers_is_replayed_in_batches() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let batch = json!({"batch": {"max_events": 10, "max_wait": "50ms", "format": "json-array"}});
    relay.subscribe("a", receiver.url(), "t", batch).await;
    relay.publish_numbers("t", 0..30).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0, "delivered_total": 30})).await;
    let before = receiver.count();
    let made = replay(&relay, json!({"from": {"seq": 3}, "to": {"seq": 22}})).await;
    let done = ended(&relay, &made["job"]).await;
    assert_eq!((&done["done"], &done["failed"]), (&json!(20), &json!(0)));
    let seen = receiver.seen();
    let sizes: Vec<usize> = seen[before..]
        .iter()
        .map(|delivery| serde_json::from_slice::<Vec<Value>>(&delivery.body).expect("an array of events").len())
        .collect();
    assert_eq!(sizes.iter().sum::<usize>(), 20);
    assert!(sizes.iter().all(|size| *size <= 10) && sizes.len() <= 4, "{sizes:?}");
    assert_eq!(relay.delivery("a", 5).await["attempts"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn skipping_past_a_dead_letter_that_blocks_lets_the_next_go_on() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if delivery.seq() == 1 { 400 } else { 200 })).await;
    let more = json!({"ordering": "strict", "on_dead": "block", "retry": {"max_attempts": 1, "schedule": ["1h"]}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..3).await;
    relay.status_becomes("a", json!({"dead": 1, "in_flight": 0})).await;
    assert_eq!(receiver.count(), 1);
    relay.must("POST", "/v1/subscriptions/a/skip", json!({"to": 1})).await;
    receiver.sees(3).await;
    relay.status_becomes("a", json!({"lag": 0, "dead": 1})).await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    relay.publish("t", "{}").await;
    receiver.sees(4).await;
}
