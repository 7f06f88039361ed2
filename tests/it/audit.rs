//! The memory of acts: who changed what, over restarts, without a value.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::support::{Relay, SECRET};

async fn acts(relay: &Relay, token: &str) -> Vec<Value> {
    let (status, page) = relay.ask_as(token, "GET", "/v1/audit", None).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().clone()
}

/// The parts of an act that a test names.
fn short(act: &Value) -> String {
    let text = |name: &str| act[name].as_str().unwrap_or("-").to_owned();
    let parts = [text("actor"), text("method"), text("resource"), text("target"), text("action"), act["outcome"].to_string()];
    parts.join(" ")
}

#[tokio::test]
async fn every_act_is_remembered_with_its_actor_and_without_values() {
    let config = "[[subscriptions]]\nid = \"fixed\"\nurl = \"https://example.com/\"\ntopics = [\"t\"]\n";
    let mut relay = Relay::start_with(config).await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["manage", "read", "publish"]})).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let root = made["token"].as_str().unwrap().to_owned();
    let body = json!({"url": "https://example.com/hook", "topics": ["t"], "headers": {"x-key": "s3cret-value"},
        "signature": {"scheme": "standard", "secret": SECRET}});
    let source = json!({"protocol": "sse", "url": "https://up.example.com/", "topic": "in", "enabled": false});
    for (method, path, body, status) in [
        ("PUT", "/v1/subscriptions/a", Some(&body), 201),
        ("PATCH", "/v1/subscriptions/a", Some(&json!({"description": "s3cret-value"})), 200),
        ("POST", "/v1/subscriptions/a/pause", None, 200),
        ("POST", "/v1/subscriptions/a/secret/rotate", Some(&json!({"overlap": "1h"})), 200),
        ("PATCH", "/v1/subscriptions/a", Some(&json!({"s3cret_value": 1})), 422),
        ("PUT", "/v1/subscriptions/fixed", Some(&json!({"url": "https://example.com/", "topics": ["t"]})), 409),
        ("PUT", "/v1/sources/up", Some(&source), 201),
        ("DELETE", "/v1/sources/up", None, 204),
        ("GET", "/v1/subscriptions/a?secrets=true", None, 200),
        ("DELETE", "/v1/subscriptions/gone", None, 404),
        // No acts.
        ("GET", "/v1/subscriptions/a", None, 200),
        ("POST", "/v1/topics/t/events", Some(&json!(1)), 202),
    ] {
        let answer = relay.ask_as(&root, method, path, body).await;
        assert_eq!(answer.0, status, "{method} {path}: {}", answer.1);
    }
    // Nobody with a name.
    assert_eq!(relay.ask_as("wrong", "DELETE", "/v1/subscriptions/a", None).await.0, 401);
    relay.kill9().await;
    relay.restart().await;
    let acts = acts(&relay, &root).await;
    let seen: Vec<String> = acts.iter().map(short).collect();
    let wanted = [
        "config PUT subscriptions fixed - 201",
        "local POST tokens t1 - 201",
        "root/t1 PUT subscriptions a - 201",
        "root/t1 PATCH subscriptions a - 200",
        "root/t1 POST subscriptions a pause 200",
        "root/t1 POST subscriptions a secret/rotate 200",
        "root/t1 PATCH subscriptions a - 422",
        "root/t1 PUT subscriptions fixed - 409",
        "root/t1 PUT sources up - 201",
        "root/t1 DELETE sources up - 204",
        "root/t1 GET subscriptions a secrets 200",
        "root/t1 DELETE subscriptions gone - 404",
    ];
    assert_eq!(seen, wanted.map(|line| line.replace("t1", &id)));
    assert_eq!(acts[2]["fields"], json!(["headers", "signature", "topics", "url"]));
    assert_eq!((&acts[2]["peer"], &acts[6]["fields"]), (&json!("127.0.0.1"), &json!([])));
    let text = Value::from(acts).to_string();
    assert!(!text.contains("s3cret") && !text.contains(SECRET));
    relay.log_says("audit").await;
}

#[tokio::test]
async fn the_memory_is_read_page_by_page_by_those_of_all_topics() {
    let relay = Relay::start().await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["manage", "read"]})).await;
    let root = made["token"].as_str().unwrap();
    let tenant = json!({"name": "acme", "scopes": ["manage", "read"], "topics": ["acme.**"]});
    let (_, tenant) = relay.ask_as(root, "POST", "/v1/tokens", Some(&tenant)).await;
    let tenant = tenant["token"].as_str().unwrap();
    assert_eq!(relay.ask_as(tenant, "GET", "/v1/audit", None).await.0, 403);
    for n in 0..5 {
        relay.ask_as(root, "DELETE", &format!("/v1/subscriptions/n{n}"), None).await;
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let (_, page) = relay.ask_as(root, "GET", &format!("/v1/audit?limit=3&after={after}"), None).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|act| act["id"].as_u64().unwrap()));
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, (1..=7).collect::<Vec<_>>());
}
