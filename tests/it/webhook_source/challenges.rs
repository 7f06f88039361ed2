//! Questions that senders ask before they send: Slack, hubs, Meta, CloudEvents.

use serde_json::json;

use super::{TEXT_SECRET, source, stored};
use crate::support::Relay;
use crate::support::sender::{Message, send};

#[tokio::test]
#[ignore = "needs python"]
async fn slack_gets_its_challenge_back_when_it_signs_it() {
    let relay = Relay::start().await;
    let url = source(&relay, "a", json!({"scheme": "slack", "secret": TEXT_SECRET}), json!({})).await;
    let body = br#"{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    let strange = br#"{"challenge":"<script>\u0007","type":"url_verification"}"#;
    let event = br#"{"type":"event_callback","text":"url_verification","challenge":"x"}"#;
    let answers = send(&[
        Message::new(&url, "slack", TEXT_SECRET, body),
        Message::new(&url, "slack", "another secret of slack", body),
        Message::new(&url, "slack", TEXT_SECRET, strange),
        Message::new(&url, "slack", TEXT_SECRET, event),
    ])
    .await;
    assert_eq!(answers.iter().map(|answer| &answer["status"]).collect::<Vec<_>>(), [200, 401, 422, 200]);
    assert_eq!(answers[0]["body"], "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    assert_eq!(answers[0]["headers"]["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answers[0]["headers"]["x-content-type-options"], "nosniff");
    assert_eq!(stored(&relay).await.len(), 1, "only what is no question is an event");
}

#[tokio::test]
async fn a_hub_gets_its_challenge_back_when_it_knows_our_token() {
    let relay = Relay::start().await;
    let github = json!({"scheme": "hub", "secret": TEXT_SECRET});
    let url = source(&relay, "meta", github.clone(), json!({"verify_token": "only we know this"})).await;
    let without = source(&relay, "none", github, json!({})).await;
    let asked = async |url: &str, query: &str| {
        let response = relay.client.get(format!("{url}?{query}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (token, wrong) = ("hub.verify_token=only%20we%20know%20this", "hub.verify_token=only%20we%20know%20thi");
    let echo = (200, "1158201444".to_owned());
    assert_eq!(asked(&url, &format!("hub.mode=subscribe&{token}&hub.challenge=1158201444")).await, echo);
    let websub = "hub.mode=subscribe&hub.topic=https%3A%2F%2Fa.example%2F&hub.lease_seconds=864000&hub.challenge=1158201444";
    assert_eq!(asked(&url, &format!("{token}&{websub}")).await, echo, "the token is in the callback that the hub was given");
    assert_eq!(asked(&url, &format!("hub.mode=denied&{token}&hub.topic=x&hub.reason=no")).await.0, 200);
    for query in ["hub.mode=subscribe&hub.challenge=x", &format!("hub.mode=subscribe&{wrong}&hub.challenge=x"), websub] {
        assert_eq!(asked(&url, query).await.0, 401, "{query}");
    }
    assert_eq!(asked(&without, &format!("hub.mode=subscribe&{token}&hub.challenge=x")).await.0, 401);
    assert_eq!(asked(&without, "hub.mode=subscribe&hub.verify_token=&hub.challenge=x").await.0, 401);
    assert_eq!(asked(&url, "").await.0, 405);
    assert_eq!(asked(&url, "challenge=x").await.0, 401, "a challenge of a relay is signed");
    assert_eq!(asked(&url, &format!("hub.mode=subscribe&{token}&hub.challenge={}", "x".repeat(1025))).await.0, 422);
}

#[tokio::test]
async fn who_asks_by_options_may_send() {
    let relay = Relay::start().await;
    let url = source(&relay, "a", json!({"scheme": "github", "secret": TEXT_SECRET}), json!({})).await;
    let request = relay.client.request(reqwest::Method::OPTIONS, &url);
    let asked = request.header("webhook-request-origin", "eventemitter.example.com").header("webhook-request-rate", "120");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["webhook-allowed-origin"], "eventemitter.example.com");
    assert_eq!(answer.headers()["webhook-allowed-rate"], "*");
    assert_eq!(answer.headers()["allow"], "GET, POST, OPTIONS");
    assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control-") && name != "set-cookie"));
    let missing = format!("{}/v1/sources/other/webhook", relay.url);
    assert_eq!(relay.client.request(reqwest::Method::OPTIONS, missing).send().await.unwrap().status(), 404);
    let put = relay.client.put(&url).send().await.unwrap();
    assert_eq!((put.status().as_u16(), put.headers()["allow"].to_str().unwrap()), (405, "GET, POST, OPTIONS"));
}
