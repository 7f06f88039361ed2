//! Subscriptions out of one relay and into another, by the commands.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::{Receiver, Relay, SECRET};

/// What GET shows of a subscription, without what belongs to the relay.
async fn shown(relay: &Relay, id: &str) -> Value {
    let mut shown = relay.get(&format!("/v1/subscriptions/{id}")).await;
    for name in ["created_at", "updated_at", "revision", "effective_from"] {
        shown.as_object_mut().unwrap().remove(name);
    }
    shown
}

async fn fill(relay: &Relay, receiver: &Receiver) {
    let more = json!({
        "headers": {"authorization": "Bearer of-the-tests"}, "description": "täglich", "metadata": {"team": "billing"},
        "rate_limit": {"per_second": 50, "burst": 100}, "retry": {"max_attempts": 3, "schedule": ["1s", "2s"], "jitter": 0.5},
        "types": ["message"], "max_in_flight": 4, "timeout": "2s", "disable_after": "2d",
    });
    relay.subscribe("a", receiver.url(), "t", more).await;
    // It judges anew from some position on, which is shown with it.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"types": ["message", "order"]})).await;
    let auth = json!({"basic": {"username": "u", "password": "of-the-tests"}});
    relay.subscribe("b", "https://example.com/", "x.**", json!({"auth": auth, "enabled": false})).await;
    let two = json!([{"scheme": "standard", "secret": SECRET}, {"scheme": "hub", "secret": "0123456789abcdef"}]);
    relay.must("PUT", "/v1/subscriptions/c", json!({"url": "https://example.com/", "topics": ["t"], "signature": two})).await;
    let public = json!({"url": "https://example.com/", "topics": ["t"], "signature": {"scheme": "standard-ed25519"}});
    relay.must("PUT", "/v1/subscriptions/d", public).await;
    // Two public keys are shown for a while.
    relay.must("POST", "/v1/subscriptions/d/secret/rotate", json!({})).await;
    relay.must("POST", "/v1/subscriptions/c/pause", json!({})).await;
}

async fn export(relay: &Relay, arguments: &[&str]) -> Value {
    let url = relay.url.clone();
    let (code, text, problem) = relay.run(&[&["subs", "export", "--url", url.as_str()], arguments].concat()).await;
    assert_eq!(code, Some(0), "{problem}");
    serde_json::from_str(&text).unwrap_or_default()
}

async fn import(relay: &Relay, document: &Value, arguments: &[&str]) -> (Option<i32>, String, String) {
    std::fs::write(relay.path("import.json"), document.to_string()).unwrap();
    let url = relay.url.clone();
    relay.run(&[&["subs", "import", "import.json", "--url", url.as_str()], arguments].concat()).await
}

#[tokio::test]
async fn an_export_with_secrets_makes_the_same_subscriptions_elsewhere() {
    let receiver = Receiver::start().await;
    let (from, to) = (Relay::start().await, Relay::start().await);
    fill(&from, &receiver).await;
    let document = export(&from, &["--with-secrets"]).await;
    let (code, said, problem) = import(&to, &document, &["--dry-run"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "would make a\nwould make b\nwould make c\nwould make d\n"), "{problem}");
    assert!(to.get("/v1/subscriptions").await["items"].as_array().unwrap().is_empty());
    let (code, said, problem) = import(&to, &document, &[]).await;
    assert_eq!((code, said.as_str()), (Some(0), "made a\nmade b\nmade c\nmade d\n"), "{problem}");
    for id in ["a", "b", "c"] {
        assert_eq!(shown(&from, id).await, shown(&to, id).await);
    }
    let public_key = async |relay: &Relay| relay.get("/v1/subscriptions/d").await["signature"]["public_key"].take();
    assert_eq!(public_key(&from).await, public_key(&to).await);
    assert_eq!(export(&to, &["--with-secrets"]).await, document, "keys, headers and credentials too");
    // It delivers with what was brought.
    let seq = to.publish("t", "{}").await;
    to.delivery_becomes("a", seq, "delivered").await;
    let delivery = &receiver.sees(1).await[0];
    delivery.verify();
    assert_eq!(delivery.header("authorization"), "Bearer of-the-tests");
    let (code, said, _) = import(&to, &document, &[]).await;
    assert_eq!((code, said.lines().next()), (Some(0), Some("changed a")), "again is no mistake");
}

#[tokio::test]
async fn an_export_without_secrets_shows_none_and_removes_none() {
    let receiver = Receiver::start().await;
    let relay = Relay::start().await;
    fill(&relay, &receiver).await;
    let rotated = shown(&relay, "d").await;
    let mut document = export(&relay, &[]).await;
    let text = document.to_string();
    assert!(!text.contains("of-the-tests") && !text.contains(SECRET) && !text.contains("0123456789abcdef"));
    document["items"][0]["definition"]["description"] = json!("changed");
    document["items"][0]["definition"].as_object_mut().unwrap().remove("rate_limit");
    // As GET shows it.
    document["items"][3]["definition"]["signature"] = rotated["signature"].clone();
    let (code, said, problem) = import(&relay, &document, &[]).await;
    assert_eq!((code, said.as_str()), (Some(0), "changed a\nchanged b\nchanged c\nchanged d\n"), "{problem}");
    assert_eq!(shown(&relay, "d").await, rotated, "both keys are kept");
    let after = relay.get("/v1/subscriptions/a").await;
    assert_eq!((&after["description"], &after["rate_limit"]), (&json!("changed"), &Value::Null));
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("a", seq, "delivered").await;
    let delivery = &receiver.sees(1).await[0];
    delivery.verify();
    assert_eq!(delivery.header("authorization"), "Bearer of-the-tests");
    // Elsewhere it cannot make what would lack its credentials.
    let elsewhere = Relay::start().await;
    let (code, _, problem) = import(&elsewhere, &document, &[]).await;
    assert!(
        code == Some(1) && problem.contains("a: headers were left out") && problem.contains("b: auth were left out"),
        "{problem}"
    );
    assert!(elsewhere.get("/v1/subscriptions").await["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn every_mistake_is_told_and_then_nothing_is_changed() {
    let relay = Relay::start().await;
    let definition = |id: &str, more: Value| {
        let mut body = json!({"id": id, "url": "https://example.com/", "topics": ["t"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"definition": body})
    };
    let items = json!([
        definition("good", json!({})),
        definition("bad", json!({"timeout": "1h", "max_in_flight": 0})),
        definition("worse", json!({"url": "https://127.0.0.1.evil/", "topics": ["a..b"]})),
        {"definition": {"url": "https://example.com/"}},
        {},
    ]);
    let document = json!({"format": "hookcast-subscriptions", "version": 1, "items": items});
    let (code, said, problem) = import(&relay, &document, &[]).await;
    assert_eq!((code, said.as_str()), (Some(1), ""), "{problem}");
    for part in
        ["/timeout", "/max_in_flight", "worse: ", "items[3]: has no `id`", "items[4]: has no `definition`", "nothing was changed"]
    {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    assert!(relay.get("/v1/subscriptions").await["items"].as_array().unwrap().is_empty());
    assert_eq!(import(&relay, &json!({"items": []}), &[]).await.0, Some(1));
}

#[tokio::test]
async fn subscriptions_are_listed_shown_and_added() {
    let relay = Relay::start().await;
    std::fs::write(
        relay.path("one.json"),
        json!({"id": "one", "url": "https://example.com/", "topics": ["a", "b.*"]}).to_string(),
    )
    .unwrap();
    let (code, said, problem) = relay.run(&["subs", "add", "one.json", "--url", &relay.url]).await;
    assert!(code == Some(0) && said.contains("whsec_"), "{said} {problem}");
    let (_, said, _) = relay.run(&["subs", "list", "--url", &relay.url]).await;
    assert_eq!(said, "one\tactive\ta,b.*\thttps://example.com/\n");
    let (_, said, _) = relay.run(&["subs", "show", "one", "--url", &relay.url]).await;
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["id"], "one");
    let (code, _, problem) = relay.run(&["subs", "show", "none", "--url", &relay.url]).await;
    assert!(code == Some(1) && problem.contains("404"), "{problem}");
    let (code, said, _) = relay.run(&["subs", "export", "--output", "out.json", "--with-secrets", "--url", &relay.url]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(std::fs::metadata(relay.path("out.json")).unwrap().permissions().mode() & 0o777, 0o600);
}
