//! A relay that subscribes to a relay: its questions are answered, its events are known again, and loops are cut.

use serde_json::{Value, json};

use super::source;
use crate::support::{Receiver, Relay, SECRET, eventually};

#[tokio::test]
async fn a_relay_agrees_with_a_relay_and_takes_its_events_once() {
    let (from, to) = (Relay::start().await, Relay::start().await);
    let receiver = Receiver::start().await;
    to.subscribe("out", receiver.url(), "in", json!({})).await;
    for verify in ["challenge", "cloudevents"] {
        let url = source(&to, verify, json!({"scheme": "standard", "secret": SECRET}), json!({})).await;
        from.subscribe(verify, &url, "t", json!({ "verify": verify })).await;
        from.status_becomes(verify, json!({"state": "active"})).await;
        let refused = source(
            &to,
            &format!("{verify}-no"),
            json!({"scheme": "standard",
            "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}),
            json!({}),
        )
        .await;
        if verify == "challenge" {
            from.subscribe("refused", &refused, "t", json!({ "verify": verify })).await;
            let waits = async || {
                let status = from.status("refused").await;
                (status["verification"]["last_error"] == "status_401").then_some(status["state"].clone())
            };
            assert_eq!(eventually("a refusal", waits).await, "unverified");
        }
    }
    let url = format!("{}/v1/topics/t/events", from.url);
    let request = from.client.post(url).header("content-type", "application/json").header("ce-specversion", "1.0");
    let request = request.header("ce-type", "a%20b").header("ce-id", "x-1").header("ce-source", "/s").header("ce-subject", "sub");
    let answer: Value = request.body("{\"type\":\"inner\", \"n\":1}").send().await.unwrap().json().await.unwrap();
    let seq = answer["events"][0]["seq"].as_u64().unwrap();
    let seen = receiver.sees(2).await;
    for delivery in &seen {
        assert_eq!(delivery.text(), "{\"type\":\"inner\", \"n\":1}");
        assert_eq!((delivery.header("ce-type"), delivery.header("ce-subject")), ("a%20b", "sub"));
        assert_eq!(delivery.header("hookcast-hops"), "2", "one a relay");
        assert!(delivery.header("ce-id").starts_with("msg_"), "{:?}", delivery.headers);
    }
    // A replay has the same webhook-id: it is a repeat there.
    from.status_becomes("challenge", json!({"in_flight": 0, "retrying": 0, "lag": 0})).await;
    let replay = json!({"from": {"seq": seq}, "to": {"seq": seq}, "only": "all"});
    from.must("POST", "/v1/subscriptions/challenge/replay", replay).await;
    eventually("the replay", async || (from.status("challenge").await["delivered_total"].as_u64().unwrap() >= 2).then_some(()))
        .await;
    assert_eq!(to.get("/v1/sources/challenge").await["counts"]["events"], 1);
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn an_event_that_goes_round_and_round_ends() {
    let relay = Relay::start().await;
    let url = source(&relay, "a", json!({"scheme": "standard", "secret": SECRET}), json!({})).await;
    // Everything that comes in goes out to where it comes in.
    relay.subscribe("loop", &url, "in", json!({})).await;
    relay.publish("in", "{}").await;
    relay.status_becomes("loop", json!({"dead": 1, "in_flight": 0, "retrying": 0})).await;
    let letters = relay.get("/v1/subscriptions/loop/dead-letters").await;
    let last = &letters["items"][0];
    assert_eq!((&last["seq"], &last["attempts"]), (&json!(9), &json!(1)), "one published, eight more hops: {letters}");
    let attempts = relay.get("/v1/subscriptions/loop/attempts?outcome=failure").await;
    assert_eq!(attempts["items"][0]["status"], 508);
}
