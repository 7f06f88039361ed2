//! The WebSub hub against a subscriber that is not ours: a script written from the Recommendation, in another language.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Answer, PATIENCE, Receiver, Relay, eventually};

const OPEN: &str = "[websub]\ntopics = [\"orders.**\"]\n";

/// Runs one scenario of the script.
async fn play(config: &str, scenario: &str) {
    let relay = Relay::start_with(config).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/websub/subscriber.py");
    let mut command = Command::new("python3");
    command.args([script, &relay.url, scenario]).kill_on_drop(true);
    let output = tokio::time::timeout(2 * PATIENCE, command.output()).await.expect("an end in time").unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {told}\n{}", relay.log());
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_discovered_hub_delivers_signed_content() {
    play(OPEN, "discovery_and_delivery").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn without_a_secret_nothing_is_signed() {
    play(OPEN, "without_a_secret").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_topic_that_is_not_offered_is_denied() {
    play(OPEN, "denied").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn whoever_does_not_echo_is_forgotten() {
    play(OPEN, "wrong_echo").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_lease_ends() {
    play("[websub]\ntopics = [\"orders.**\"]\nlease_max = \"2s\"\n", "lease").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_renewal_is_verified_and_replaces_the_secret() {
    play(OPEN, "renewal").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn an_unsubscription_is_verified() {
    play(OPEN, "unsubscribe").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_callback_that_is_gone_ends_its_subscription() {
    play(OPEN, "gone").await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn what_cannot_be_understood_is_refused() {
    play(OPEN, "refused").await;
}

async fn submit(relay: &Relay, callback: &str) -> u16 {
    let topic = format!("{}/v1/topics/orders.x", relay.url);
    let form = [("hub.mode", "subscribe"), ("hub.topic", &topic), ("hub.callback", callback)];
    relay.client.post(format!("{}/websub", relay.url)).form(&form).send().await.unwrap().status().as_u16()
}

/// Echoes `hub.challenge`.
async fn confirming() -> Receiver {
    Receiver::with(|request, _| {
        let challenge = request.path.split('&').find_map(|member| member.strip_prefix("hub.challenge="));
        Answer::ok().body(challenge.unwrap_or_default())
    })
    .await
}

#[tokio::test]
async fn there_is_no_hub_until_topics_are_named() {
    let relay = Relay::start().await;
    let receiver = confirming().await;
    assert_eq!(submit(&relay, receiver.url()).await, 404);
    assert_eq!(relay.ask("GET", "/v1/topics/orders.x", None).await.0, 404);
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn one_address_asks_only_so_often_and_one_host_is_asked_only_so_often_at_once() {
    let relay = Relay::start_with(OPEN).await;
    let receiver = Receiver::with(|_, _| Answer::never()).await;
    let mut answers = Vec::new();
    for n in 0..61 {
        answers.push(submit(&relay, &format!("{}?n={n}", receiver.url())).await);
    }
    // Eight verifications at one host, then too much is under way; then the address has asked enough.
    assert_eq!(answers[..8], [202; 8]);
    assert_eq!(answers[8..60], [503; 52]);
    assert_eq!(answers[60], 429);
    assert_eq!(receiver.sees(8).await.len(), 8);
    let big = relay.client.post(format!("{}/websub", relay.url)).body("x".repeat(100_000)).send().await.unwrap();
    assert_eq!(big.status().as_u16(), 429);
}

#[tokio::test]
async fn a_hub_subscription_is_an_ordinary_one_and_survives_a_restart() {
    let more = format!("{OPEN}public_url = \"https://relay.example/base\"\n");
    let mut relay = Relay::start_with(&more).await;
    let receiver = confirming().await;
    let topic = "https://relay.example/base/v1/topics/orders.x";
    let form = [("hub.mode", "subscribe"), ("hub.topic", topic), ("hub.callback", receiver.url()), ("hub.secret", "s3cret")];
    let answer = relay.client.post(format!("{}/websub", relay.url)).form(&form).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    let made = eventually("a subscription", async || {
        let items = relay.get("/v1/subscriptions").await["items"].take();
        items.get(0).cloned()
    });
    let made = made.await;
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!((&made["websub"]["topic"], &made["signature"]["scheme"]), (&json!(topic), &json!("hub")), "{made}");
    relay.publish("orders.x", "{\"n\":1}").await;
    let delivery = receiver.sees(2).await.remove(1);
    let link = format!("<https://relay.example/base/websub>; rel=\"hub\", <{topic}>; rel=\"self\"");
    assert_eq!(delivery.header("link"), link);
    assert_eq!(delivery.header("x-hub-signature"), delivery.header("x-hub-signature-256"));
    relay.must("PATCH", &format!("/v1/subscriptions/{id}"), json!({"max_in_flight": 1})).await;
    assert_eq!(relay.ask("PATCH", &format!("/v1/subscriptions/{id}"), Some(&json!({"websub": {}}))).await.0, 422);
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    let kept = relay.get(&format!("/v1/subscriptions/{id}")).await;
    assert_eq!((&kept["websub"], &kept["max_in_flight"]), (&made["websub"], &json!(1)));
    // A failed delivery is tried again, as everywhere.
    receiver.change(|_, seen| if seen == 2 { Answer::status(503) } else { Answer::ok() });
    relay.must("PATCH", &format!("/v1/subscriptions/{id}"), json!({"retry": {"max_attempts": 3, "schedule": ["1s"]}})).await;
    relay.publish("orders.x", "{\"n\":2}").await;
    let seen = receiver.sees(4).await;
    assert_eq!((seen[2].id(), seen[3].attempt()), (seen[3].id(), 2));
}

#[tokio::test]
async fn leases_end_although_the_hub_is_shut_and_the_relay_was_away() {
    let mut relay = Relay::start_with("[websub]\ntopics = [\"orders.**\"]\nlease_max = \"1s\"\n").await;
    let receiver = confirming().await;
    assert_eq!(submit(&relay, receiver.url()).await, 202);
    receiver.sees(1).await;
    eventually("a subscription", async || (relay.get("/v1/subscriptions").await["items"] != json!([])).then_some(())).await;
    relay.kill9().await;
    relay.configure("");
    relay.restart().await;
    let none = async || (relay.get("/v1/subscriptions").await["items"] == Value::Array(Vec::new())).then_some(());
    eventually("no subscription", none).await;
}
