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
