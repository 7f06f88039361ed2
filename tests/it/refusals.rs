//! What is answered while the disk takes nothing, and what is in force afterwards. The disk is the real one: the process is not
//! allowed to write to its files behind a position.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually};

/// Kind and word on what was stored of a refusal.
fn refusal((status, problem): &(u16, Value)) -> (u16, &str, &str) {
    let kind = problem["type"].as_str().unwrap_or_default().trim_start_matches("/problems/");
    (*status, kind, problem["stored"].as_str().unwrap_or_default())
}

const NO: (u16, &str, &str) = (503, "storage_unavailable", "no");
const UNKNOWN: (u16, &str, &str) = (503, "outcome_unknown", "unknown");

async fn becomes_ready(relay: &Relay) {
    eventually("ready", async || (relay.ask("GET", "/readyz", None).await.0 == 200).then_some(())).await;
}

#[tokio::test]
async fn what_storage_refuses_is_neither_answered_as_done_nor_in_force() {
    let mut relay = Relay::start_holdable().await;
    let receiver = Receiver::start().await;
    receiver.change(|delivery, _| Answer::status(if delivery.header("hookcast-subscription") == "dead" { 500 } else { 200 }));
    relay.subscribe("s", receiver.url(), "a", json!({})).await;
    let once = json!({"retry": {"max_attempts": 1, "schedule": ["1h"]}});
    relay.subscribe("dead", receiver.url(), "a", once).await;
    for n in 0..5 {
        relay.publish("a", n.to_string()).await;
    }
    // Then the notices of dead letters are in the log as well.
    relay.status_becomes("dead", json!({"dead": 5, "head": 10, "lag": 0})).await;
    relay.status_becomes("s", json!({"delivered_total": 5, "head": 10, "lag": 0})).await;
    relay.must("POST", "/v1/subscriptions/s/pause", json!({})).await;
    let running = relay.must("POST", "/v1/subscriptions/s/replay", json!({"from": "earliest"})).await;
    let source = json!({"protocol": "ndjson", "url": receiver.url(), "topic": "in"});
    let job = format!("/v1/subscriptions/s/jobs/{}", running["job"].as_str().unwrap());
    let before = relay.get("/v1/subscriptions/s").await;

    relay.hold(Some(0));
    let asked = [
        ("POST", "/v1/subscriptions/s/seek", json!({"to": "earliest"})),
        ("POST", "/v1/subscriptions/s/skip", json!({"to": 5})),
        ("POST", "/v1/subscriptions/s/replay", json!({"from": "earliest"})),
        ("POST", "/v1/subscriptions/dead/dead-letters/redrive", json!({"all": true})),
        ("DELETE", job.as_str(), Value::Null),
        ("POST", "/v1/subscriptions/s/resume", json!({})),
        ("PATCH", "/v1/subscriptions/s", json!({"description": "changed"})),
        ("PUT", "/v1/subscriptions/new", json!({"url": receiver.url(), "topics": ["a"]})),
        ("POST", "/v1/subscriptions", json!({"url": receiver.url(), "topics": ["a"]})),
        ("DELETE", "/v1/subscriptions/s", Value::Null),
        ("PUT", "/v1/sources/new", source),
        ("POST", "/v1/tokens", json!({"name": "new", "scopes": ["manage"]})),
    ];
    // Twice, since what stands as it stood is not written again and cannot be refused.
    for (method, path, body) in asked.iter().chain(&asked) {
        let answer = relay.ask(method, path, (!body.is_null()).then_some(body)).await;
        assert!([NO, UNKNOWN].contains(&refusal(&answer)), "{method} {path}: {} {}", answer.0, answer.1);
    }
    let (status, problem) = relay.ask("GET", "/readyz", None).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (503, &json!("/storage/writer")), "{problem}");
    assert_eq!(relay.status("s").await["cursor"], 10);
    assert_eq!(relay.get("/v1/subscriptions/s").await, before);
    assert_eq!(relay.get("/v1/subscriptions").await["items"].as_array().unwrap().len(), 2);

    relay.hold(None);
    becomes_ready(&relay).await;
    assert_eq!(relay.get("/v1/subscriptions/s/jobs").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(relay.get(&job).await["state"], "running");
    relay.kill9().await;
    relay.restart().await;
    assert!(relay.status("s").await["cursor"].as_u64() >= Some(10));
    assert_eq!(relay.get("/v1/subscriptions/s").await, before);
    assert_eq!(relay.get("/v1/subscriptions/dead/jobs").await["items"], json!([]));
    assert_eq!(relay.get("/v1/sources").await["items"], json!([]));
    relay.must("POST", "/v1/subscriptions/s/seek", json!({"to": "earliest"})).await;
    relay.kill9().await;
    relay.restart().await;
    assert_eq!(relay.status("s").await["cursor"], 0, "what was answered 200 is stored");
}

#[tokio::test]
async fn a_publish_that_failed_in_its_commit_says_that_nobody_knows() {
    let mut relay = Relay::start_holdable().await;
    relay.publish("a", "0").await;
    let publish = async |n: u32| {
        let url = format!("{}/v1/topics/a/events", relay.url);
        let request = relay.client.post(url).header("idempotency-key", n.to_string()).json(&n);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    relay.hold(Some(0));
    assert_eq!(refusal(&publish(1).await), UNKNOWN);
    // The commit in doubt is in the way: nothing of these reaches the disk.
    assert_eq!(refusal(&publish(2).await), NO);
    assert_eq!(refusal(&publish(1).await), NO);
    relay.hold(None);
    becomes_ready(&relay).await;
    for n in [1, 2, 1] {
        assert_eq!(publish(n).await.0, 202);
    }
    relay.kill9().await;
    relay.restart().await;
    let events = relay.get("/v1/topics/a/events?after=0").await;
    let data: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| event["data"].clone()).collect();
    assert_eq!(data, [0, 1, 2]);
}

#[tokio::test]
async fn a_checkpoint_that_fails_is_told_once_stops_nothing_and_heals() {
    let mut relay = Relay::start_holdable().await;
    // The database reaches further than the log that is copied into it.
    let block: Vec<String> = (0..500).map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(3000))).collect();
    for _ in 0..4 {
        relay.publish_lines("a", &block).await;
    }
    eventually("a database of 4 MiB", async || {
        let length = std::fs::metadata(relay.path("data/hookcast.db")).unwrap().len();
        (length > 4 << 20).then_some(())
    })
    .await;
    // And what is written next stands at the beginning of the log, not as far behind as the database may not reach.
    let wal = relay.path("data/hookcast.db-wal");
    let generation = || std::fs::read(&wal).unwrap().get(12..16).map(<[u8]>::to_vec);
    let before = generation();
    eventually("a log that was begun anew", async || {
        relay.publish_lines("a", &block[..1]).await;
        (generation() != before).then_some(())
    })
    .await;
    relay.hold(Some(4 << 20));
    let mut count = 2000;
    eventually("not ready", async || {
        relay.publish_lines("a", &block[..20]).await;
        let (status, problem) = relay.ask("GET", "/readyz", None).await;
        let pointer = problem["errors"][0]["pointer"].as_str().unwrap_or_default();
        (status == 503 && pointer == "/storage/checkpoint").then_some(())
    })
    .await;
    for _ in 0..60 {
        relay.publish_lines("a", &block[..1]).await;
        count += 1;
    }
    let lines = relay.log().lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")).count();
    assert!(lines <= 3, "{lines} lines: {}", relay.log());
    relay.hold(None);
    becomes_ready(&relay).await;
    relay.kill9().await;
    relay.restart().await;
    let kept = relay.get("/v1/topics").await["items"][0]["events"].as_u64().unwrap();
    assert!(kept >= count, "{kept}");
}

#[tokio::test]
async fn a_file_that_is_removed_under_the_process_ends_it_with_everything_saved() {
    for (name, pointer) in [("-wal", "/storage/wal"), (".lock", "/storage/lock"), ("", "/storage/database")] {
        let mut relay = Relay::start().await;
        let receiver = Receiver::start().await;
        relay.subscribe("s", receiver.url(), "a", json!({})).await;
        relay.must("POST", "/v1/subscriptions/s/pause", json!({})).await;
        relay.publish_numbers("a", 0..10).await;
        let file = relay.path(&format!("data/hookcast.db{name}"));
        if name.is_empty() {
            std::fs::copy(&file, relay.path("copy")).unwrap();
            std::fs::rename(relay.path("copy"), &file).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        let accepted = std::cell::Cell::new(10);
        eventually("intake refuses", async || {
            let (status, problem) = relay.ask("POST", "/v1/topics/a/events", Some(&json!({"n": 0}))).await;
            accepted.set(accepted.get() + u64::from(status == 202));
            (status == 503).then(|| assert_eq!(refusal(&(status, problem)), NO))
        })
        .await;
        let (status, problem) = relay.ask("GET", "/readyz", None).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (503, &json!(pointer)), "{problem}");
        assert_eq!(relay.ended().await, Some(74), "{}", relay.log());
        relay.restart().await;
        let events = relay.get("/v1/topics").await["items"][0]["events"].as_u64();
        assert_eq!(events, Some(accepted.get()), "{name}");
        assert_eq!(relay.get("/v1/subscriptions/s").await["state"], "paused");
        assert_eq!(relay.terminate().await, Some(0));
    }
}
