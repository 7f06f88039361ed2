//! What retention takes, whom it waits for (nobody), and what outlives it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, PATIENCE, Receiver, Relay, eventually};

/// Publishes four times what the log may hold; the newest position.
async fn fill(relay: &Relay) -> u64 {
    let mut newest = 0;
    for _ in 0..16 {
        newest = relay.publish("padding", format!("\"{}\"", "x".repeat(256 * 1024))).await;
    }
    newest
}

/// Waits until the log begins well behind its first events.
async fn trimmed(relay: &Relay) {
    eventually("the first events to be trimmed", async || {
        let topics = relay.get("/v1/topics").await;
        topics["items"].as_array().unwrap().iter().all(|item| item["first_seq"].as_u64().unwrap() >= 10).then_some(())
    })
    .await;
}

/// The first event of a stream that is wanted.
async fn first_line(relay: &Relay, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let mut response = relay.client.get(format!("{}{path}", relay.url)).send().await.unwrap();
    let mut text = Vec::new();
    loop {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.expect("a line in time").unwrap().expect("a line");
        text.extend_from_slice(&chunk);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            // An empty line is a heartbeat.
            if let Ok(event) = serde_json::from_slice(&line)
                && is_wanted(&event)
            {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn retries_and_dead_letters_outlive_their_event_and_the_rest_expires_in_the_open() {
    let mut relay = Relay::start_with("[retention]\nmax_bytes = \"1MiB\"\n").await;
    let failing = Receiver::with(|_, _| Answer::status(500)).await;
    let paused = Receiver::start().await;
    let once = json!({"retry": {"max_attempts": 1, "schedule": ["1s"]}});
    let later = json!({"retry": {"max_attempts": 5, "schedule": ["1h"], "jitter": 0.0}});
    relay.subscribe("dead", &format!("{}/dead", failing.url()), "t", once).await;
    relay.subscribe("retry", &format!("{}/retry", failing.url()), "t", later).await;
    relay.subscribe("paused", paused.url(), "**", json!({})).await;
    relay.must("POST", "/v1/subscriptions/paused/pause", json!({})).await;
    let seq = relay.publish("t", "{\"kept\": true}").await;
    relay.delivery_becomes("dead", seq, "dead").await;
    relay.delivery_becomes("retry", seq, "retrying").await;
    let newest = fill(&relay).await;
    trimmed(&relay).await;
    // A process that starts now has nothing of it in memory.
    relay.kill9().await;
    failing.change(|_, _| Answer::ok());
    relay.restart().await;
    // A stream from before the gap is told of it.
    let notice = first_line(&relay, "/v1/topics/**/stream?since=1", |_| true).await;
    assert_eq!(notice["type"], "hookcast.gap", "{notice}");
    let to: u64 = notice["data"]["to"].as_str().map_or_else(|| notice["data"]["to"].as_u64().unwrap(), |to| to.parse().unwrap());
    assert!(to > seq);
    // What failed still goes out, with its bytes and its id.
    relay.must("POST", "/v1/subscriptions/dead/dead-letters/redrive", json!({"all": true})).await;
    eventually("the redriven letter", async || {
        let seen = failing.seen();
        let letters: Vec<_> = seen.iter().filter(|delivery| delivery.path.ends_with("/dead")).collect();
        (letters.len() == 2).then(|| {
            assert_eq!((letters[1].text(), letters[1].id()), ("{\"kept\": true}", letters[0].id()));
            letters[1].verify();
        })
    })
    .await;
    relay.must("PATCH", "/v1/subscriptions/retry", json!({"enabled": false})).await;
    assert_eq!(relay.delivery("retry", seq).await["state"], "retrying");
    // The paused one gets what is left, and is told what it missed.
    relay.must("POST", "/v1/subscriptions/paused/resume", json!({})).await;
    let status = eventually("the head", async || {
        let status = relay.status("paused").await;
        (status["lag"] == 0 && status["in_flight"] == 0).then_some(status)
    })
    .await;
    let expired = status["expired"].as_u64().unwrap();
    assert!(expired >= to, "{status}");
    // It is told in the relay's own topic, and what was not taken came.
    let about_it = |line: &Value| line["data"]["subscription"] == "paused";
    let path = "/v1/topics/hookcast.ops/stream?since=earliest&types=delivery.expired";
    let mut told = first_line(&relay, path, about_it).await["data"].take();
    assert!(told.as_object_mut().unwrap().remove("at").is_some_and(|at| at.is_string()), "{told}");
    assert_eq!(told, json!({"from": 1, "to": expired, "subscription": "paused"}));
    let kept: Vec<u64> = (expired + 1..=newest).collect();
    let mut came = paused.of_each(crate::support::Delivery::seq);
    came.sort_unstable();
    assert_eq!(came, kept);
    relay.delivery_becomes("paused", seq, "expired").await;
    relay.log_says("events expired before they were delivered").await;
}

#[tokio::test]
async fn a_retry_goes_out_after_its_event_was_trimmed() {
    let mut relay = Relay::start_with("[retention]\nmax_bytes = \"1MiB\"\n").await;
    let receiver = Receiver::with(|_, n| Answer::status(if n == 0 { 503 } else { 200 })).await;
    // Longer than retention needs to look; the wait below does not depend on it.
    let retry = json!({"retry": {"max_attempts": 5, "schedule": ["12s"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", retry).await;
    let seq = relay.publish("t", "{\"kept\": true}").await;
    receiver.sees(1).await;
    fill(&relay).await;
    trimmed(&relay).await;
    // A process that starts now has nothing of it in memory.
    relay.kill9().await;
    relay.restart().await;
    let seen = receiver.sees(2).await;
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(11));
    assert_eq!((seen[1].text(), seen[1].id(), seen[1].attempt()), ("{\"kept\": true}", seen[0].id(), 2));
    seen[1].verify();
    relay.delivery_becomes("a", seq, "delivered").await;
}
