//! What the relay says of itself in `hookcast.ops`, and that it never talks about its own talk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Receiver, Relay, eventually, for_a_while};

/// Everything in `hookcast.ops`.
async fn said(relay: &Relay) -> Vec<Value> {
    let mut events = Vec::new();
    for seq in 1.. {
        let (status, event) = relay.ask("GET", &format!("/v1/events/{seq}"), None).await;
        if status != 200 {
            break;
        }
        events.extend((event["topic"] == "hookcast.ops").then_some(event));
    }
    events
}

/// Waits for a notice of this type about this subject.
async fn notice(relay: &Relay, kind: &str, subject: &str) -> Value {
    eventually(&format!("{kind} about {subject}"), async || {
        said(relay).await.into_iter().find(|event| event["type"] == kind && event["subject"] == subject)
    })
    .await
}

fn once() -> Value {
    json!({"retry": {"max_attempts": 1, "schedule": ["1h"]}})
}

#[tokio::test]
async fn what_becomes_of_subscriptions_is_said_and_delivered() {
    let relay = Relay::start().await;
    let listener = Receiver::start().await;
    relay.subscribe("ops", listener.url(), "hookcast.ops", json!({})).await;
    let gone = Receiver::with(|_, _| Answer::status(410)).await;
    let broken = Receiver::with(|_, _| Answer::status(500)).await;
    relay.subscribe("gone", gone.url(), "t", json!({})).await;
    relay.subscribe("dead", broken.url(), "t", once()).await;
    let seq = relay.publish("t", "{}").await;
    let disabled = notice(&relay, "subscription.disabled", "gone").await;
    assert_eq!((&disabled["data"]["reason"], &disabled["data"]["subscription"]), (&json!("gone"), &json!("gone")));
    let dead = notice(&relay, "delivery.dead", "dead").await;
    assert_eq!((&dead["data"]["seq"], &dead["data"]["reason"]), (&json!(seq), &json!("status_500")));
    assert!(dead["data"]["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{dead}");
    relay.publish_numbers("t", 0..20).await;
    let failing = notice(&relay, "subscription.failing", "dead").await;
    assert_eq!(failing["data"]["reason"], "status_500");
    assert!(failing["data"]["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{failing}");
    // The callback hears the same, signed like anything else.
    eventually("all notices at the callback", async || {
        let heard = listener.of_each(|delivery| delivery.header("ce-type").to_owned());
        ["subscription.disabled", "delivery.dead", "subscription.failing"]
            .iter()
            .all(|kind| heard.iter().any(|h| h == kind))
            .then_some(())
    })
    .await;
    listener.seen()[0].verify();
}

#[tokio::test]
async fn an_endpoint_that_is_well_again_is_said_to_be_once() {
    let relay = Relay::start().await;
    // Twenty that hang and end well, ten that fail meanwhile: the circuit opens, and is closed by what was sent before it.
    let receiver = Receiver::with(|_, before| if before < 20 { Answer::ok().when_released() } else { Answer::status(500) }).await;
    let fields = json!({"max_in_flight": 64, "retry": {"max_attempts": 2, "schedule": ["1h"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", fields).await;
    relay.publish_numbers("t", 0..20).await;
    receiver.sees(20).await;
    relay.publish_numbers("t", 0..10).await;
    notice(&relay, "subscription.failing", "a").await;
    assert!(said(&relay).await.iter().all(|event| event["type"] != "subscription.recovered"));
    receiver.release(20);
    let recovered = notice(&relay, "subscription.recovered", "a").await;
    assert_eq!(recovered["data"]["subscription"], "a");
    assert!(recovered["data"]["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{recovered}");
    relay.status_becomes("a", json!({"state": "active", "circuit": "closed", "in_flight": 0})).await;
    let kinds: Vec<String> = said(&relay).await.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["subscription.failing", "subscription.recovered"]);
}

#[tokio::test]
async fn a_change_that_forgets_what_failed_says_so() {
    let relay = Relay::start().await;
    let broken = Receiver::with(|_, _| Answer::status(500)).await;
    let fields = json!({"retry": {"max_attempts": 2, "schedule": ["1h"], "jitter": 0.0}});
    for id in ["moved", "paused", "off", "kept"] {
        relay.subscribe(id, broken.url(), "t", fields.clone()).await;
    }
    relay.publish_numbers("t", 0..10).await;
    for id in ["moved", "paused", "off", "kept"] {
        notice(&relay, "subscription.failing", id).await;
    }
    let well = Receiver::start().await;
    relay.must("PATCH", "/v1/subscriptions/kept", json!({"description": "the same endpoint"})).await;
    relay.must("PATCH", "/v1/subscriptions/moved", json!({"url": well.url()})).await;
    relay.must("POST", "/v1/subscriptions/paused/pause", json!({})).await;
    relay.must("POST", "/v1/subscriptions/paused/resume", json!({})).await;
    relay.must("PATCH", "/v1/subscriptions/off", json!({"enabled": false})).await;
    for id in ["moved", "paused", "off"] {
        assert_eq!(notice(&relay, "subscription.recovered", id).await["data"]["reason"], "changed");
    }
    relay.status_becomes("kept", json!({"circuit": "open"})).await;
    let recovered = said(&relay).await.iter().filter(|event| event["type"] == "subscription.recovered").count();
    assert_eq!(recovered, 3, "once each, and not of the one that goes on failing");
    relay.log_says("circuit closed: the subscription was changed").await;
}

#[tokio::test]
async fn failing_for_too_long_is_said_as_disabled() {
    let relay = Relay::start().await;
    let broken = Receiver::with(|_, _| Answer::status(500)).await;
    let fields = json!({"disable_after": "1s", "retry": {"max_attempts": 1000, "schedule": ["300ms"], "jitter": 0.0}});
    relay.subscribe("a", broken.url(), "t", fields).await;
    relay.publish("t", "{}").await;
    assert_eq!(notice(&relay, "subscription.disabled", "a").await["data"]["reason"], "failing");
}

#[tokio::test]
async fn a_notice_that_cannot_be_delivered_makes_no_notice() {
    let relay = Relay::start().await;
    let broken = Receiver::with(|_, _| Answer::status(500)).await;
    relay.subscribe("ops", broken.url(), "hookcast.**", once()).await;
    relay
        .subscribe(
            "both",
            &format!("{}/both", broken.url()),
            "hookcast.**",
            json!({"topics": ["hookcast.**", "t"], "retry": {"max_attempts": 1, "schedule": ["1h"]}}),
        )
        .await;
    relay.publish("t", "{}").await;
    notice(&relay, "delivery.dead", "both").await;
    relay.status_becomes("ops", json!({"dead": 1, "in_flight": 0})).await;
    relay.status_becomes("both", json!({"dead": 2, "in_flight": 0})).await;
    for_a_while(Duration::from_millis(500)).await;
    assert_eq!(said(&relay).await.len(), 1, "{:?}", said(&relay).await);
    // Enough failures to open the circuit of the one that hears nothing but notices.
    for n in 0..12 {
        let gone = Receiver::with(|_, _| Answer::status(410)).await;
        relay.subscribe(&format!("gone{n}"), gone.url(), &format!("g{n}"), json!({})).await;
        relay.publish(&format!("g{n}"), "{}").await;
        notice(&relay, "subscription.disabled", &format!("gone{n}")).await;
    }
    relay.status_becomes("ops", json!({"circuit": "open"})).await;
    for_a_while(Duration::from_millis(500)).await;
    assert!(said(&relay).await.iter().all(|event| event["subject"] != "ops"), "{:?}", said(&relay).await);
}

#[tokio::test]
async fn a_source_that_is_lost_is_down_once_and_up_again_with_its_gap() {
    let relay = Relay::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |listener: tokio::net::TcpListener| {
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{\"n\":1}\n").await;
                open.push(stream);
            }
        })
    };
    let first = serve(listener);
    let source = json!({"name": "up", "protocol": "ndjson", "url": format!("http://{address}/"), "topic": "s"});
    relay.must("POST", "/v1/sources", source).await;
    eventually("its first event", async || (relay.ask("GET", "/v1/events/1", None).await.0 == 200).then_some(())).await;
    // Gone with the listener and everything.
    first.abort();
    let down = notice(&relay, "source.down", "up").await;
    assert_eq!((&down["data"]["source"], &down["data"]["reason"]), (&json!("up"), &json!("connect")));
    assert!(said(&relay).await.iter().all(|event| event["type"] != "source.up"));
    serve(tokio::net::TcpListener::bind(address).await.unwrap());
    let up = notice(&relay, "source.up", "up").await;
    relay.log_says("source up: its upstream is read again").await;
    assert_eq!(up["data"]["down_since"], down["data"]["since"]);
    let gap = notice(&relay, "source.gap", "up").await;
    assert!(gap["data"]["from"].as_str() < gap["data"]["to"].as_str(), "{gap}");
    let downs = said(&relay).await.iter().filter(|event| event["type"] == "source.down").count();
    assert_eq!(downs, 1);
}
