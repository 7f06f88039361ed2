//! Endpoints that must agree before they get anything: how they are asked, what counts as yes, and what waits meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, Delivery, Receiver, Relay, SECRET, eventually, for_a_while};

/// The challenge in the query of a request.
fn challenge_of(request: &Delivery) -> String {
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let found = query.split('&').find_map(|member| member.strip_prefix("challenge="));
    found.unwrap_or_default().to_owned()
}

/// Echoes challenges and takes everything else.
fn agrees(request: &Delivery, _: usize) -> Answer {
    if request.method == "GET" { Answer::ok().body(challenge_of(request)) } else { Answer::ok() }
}

async fn state(relay: &Relay, id: &str) -> Value {
    relay.get(&format!("/v1/subscriptions/{id}")).await["state"].clone()
}

async fn becomes(relay: &Relay, id: &str, wanted: &str) {
    eventually(&format!("{id} {wanted}"), async || (state(relay, id).await == wanted).then_some(())).await;
}

#[tokio::test]
async fn nothing_goes_out_before_the_challenge_came_back() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|request, seen| {
        if request.method == "GET" && seen == 0 { Answer::ok().when_released().body(challenge_of(request)) } else { Answer::ok() }
    });
    let receiver = receiver.await;
    let url = format!("{}?tenant=7&x=%2B", receiver.url());
    let made = relay.subscribe("a", &url, "t", json!({"verify": "challenge", "headers": {"x-own": "1"}})).await;
    assert_eq!(made["state"], "unverified");
    relay.publish_numbers("t", 0..10).await;
    let question = receiver.sees(1).await.remove(0);
    assert_eq!(question.method, "GET");
    assert!(question.path.starts_with("/hook?tenant=7&x=%2B&challenge="), "{}", question.path);
    assert!(question.id().starts_with("verify_") && question.body.is_empty());
    assert_eq!((question.header("x-own"), question.header("hookcast-subscription")), ("1", "a"));
    question.verify();
    for shown in [relay.get("/v1/subscriptions").await["items"][0].clone(), relay.status("a").await] {
        assert_eq!(shown["state"], "unverified");
    }
    let status = relay.status("a").await;
    assert_eq!((&status["cursor"], &status["in_flight"]), (&json!(0), &json!(0)));
    assert_eq!(receiver.count(), 1);
    receiver.release(1);
    let seen = receiver.sees(11).await;
    let bodies: Vec<_> = seen[1..].iter().map(|delivery| delivery.text().to_owned()).collect();
    assert_eq!(bodies.len(), 10);
    assert!(seen[1..].iter().all(|delivery| delivery.method == "POST" && delivery.path == "/hook?tenant=7&x=%2B"));
    let asked = &relay.status_becomes("a", json!({"state": "active", "cursor": 10})).await["verification"];
    assert!(asked["last_error"].is_null() && asked["next_attempt_at"].is_null() && asked["verified_at"].is_string(), "{asked}");
    // What was agreed to is not asked for again.
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    assert_eq!(state(&relay, "a").await, "active");
    relay.publish("t", "{}").await;
    assert_eq!(receiver.sees(12).await[11].method, "POST");
}

#[tokio::test]
async fn who_does_not_know_get_is_asked_by_post() {
    let relay = Relay::start().await;
    for status in [404, 405, 501] {
        let receiver = Receiver::with(move |request, _| {
            if request.method == "GET" {
                return Answer::status(status);
            }
            let asked: Value = serde_json::from_slice(&request.body).unwrap();
            Answer::ok().body(json!({"challenge": asked["challenge"]}).to_string())
        });
        let receiver = receiver.await;
        let id = format!("s{status}");
        relay.subscribe(&id, receiver.url(), "t", json!({"verify": "challenge"})).await;
        becomes(&relay, &id, "active").await;
        let question = receiver.seen().remove(1);
        question.verify();
        let asked: Value = serde_json::from_slice(&question.body).unwrap();
        assert_eq!((&question.method, question.header("content-type")), (&"POST".to_owned(), "application/json"));
        assert_eq!(asked["type"], "hookcast.verification");
    }
}

#[tokio::test]
async fn no_other_answer_is_a_yes_and_a_person_may_ask_again() {
    let relay = Relay::start().await;
    for (answer, error) in [
        (Answer::ok().body("yes"), "wrong_echo"),
        (Answer::ok(), "wrong_echo"),
        (Answer::ok().body("x".repeat(100_000)), "wrong_echo"),
        (Answer::status(500).body("no"), "status_500"),
        (Answer::status(410), "status_410"),
        (Answer::status(302).header("location", "/other"), "redirect_not_followed"),
        (Answer::never(), "timeout"),
    ] {
        let receiver = Receiver::with(move |_, _| answer.clone()).await;
        relay.subscribe("a", receiver.url(), "t", json!({"verify": "challenge", "timeout": "500ms"})).await;
        relay.publish("t", "{}").await;
        let status = eventually("a failed question", async || {
            let status = relay.status("a").await;
            status["verification"]["last_error"].is_string().then_some(status)
        })
        .await;
        let asked = &status["verification"];
        assert_eq!(status["state"], "unverified");
        assert!(asked["last_error"].as_str().unwrap().starts_with(error), "{error}: {asked}");
        assert!(asked["last_attempt_at"].is_string() && asked["next_attempt_at"].is_string(), "{asked}");
        let attempt = relay.must("POST", "/v1/subscriptions/a/verify", json!({})).await;
        assert_eq!(attempt["outcome"], "failure", "{attempt}");
        // A ping is allowed; it proves nothing.
        if error == "wrong_echo" {
            assert_eq!(relay.must("POST", "/v1/subscriptions/a/ping", json!({})).await["outcome"], "success");
            assert_eq!(state(&relay, "a").await, "unverified");
        }
        assert!(receiver.seen().iter().all(|request| request.header("ce-seq").is_empty()));
        receiver.change(agrees);
        let attempt = relay.must("POST", "/v1/subscriptions/a/verify", json!({})).await;
        assert_eq!((&attempt["outcome"], &attempt["status"], &attempt["error"]), (&json!("success"), &json!(200), &Value::Null));
        relay.status_becomes("a", json!({"state": "active", "lag": 0})).await;
        assert_eq!(receiver.seen().iter().filter(|request| !request.header("ce-seq").is_empty()).count(), 1);
        assert_eq!(relay.ask("DELETE", "/v1/subscriptions/a", None).await.0, 204);
    }
    relay.subscribe("b", "http://127.0.0.1:65000/hook", "t", json!({})).await;
    let (status, problem) = relay.ask("POST", "/v1/subscriptions/b/verify", None).await;
    assert_eq!((status, &problem["type"]), (422, &json!("/problems/verify")));
}

#[tokio::test]
async fn another_url_must_agree_anew() {
    let relay = Relay::start().await;
    let (first, second) = (Receiver::with(agrees).await, Receiver::with(|_, _| Answer::status(404)).await);
    relay.subscribe("a", first.url(), "t", json!({"verify": "challenge"})).await;
    becomes(&relay, "a", "active").await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"description": "the same"})).await;
    assert_eq!(state(&relay, "a").await, "active");
    let moved = relay.must("PATCH", "/v1/subscriptions/a", json!({"url": second.url()})).await;
    assert_eq!(moved["state"], "unverified");
    relay.publish("t", "{}").await;
    // The GET and the POST of a question.
    second.sees(2).await;
    for_a_while(Duration::from_millis(100)).await;
    assert!(second.seen().iter().all(|request| request.id().starts_with("verify_")));
    assert_eq!(first.count(), 1);
    // Back to the one that agreed: another change of the URL, another question.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"url": first.url()})).await;
    relay.status_becomes("a", json!({"state": "active", "lag": 0})).await;
    // Asking for proof only later holds deliveries as well.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"verify": "none", "url": second.url()})).await;
    assert_eq!(state(&relay, "a").await, "active");
    let held = relay.must("PATCH", "/v1/subscriptions/a", json!({"verify": "challenge"})).await;
    assert_eq!(held["state"], "unverified");
}

#[tokio::test]
async fn who_is_enabled_again_is_asked_at_once() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(403)).await;
    relay.subscribe("a", receiver.url(), "t", json!({"verify": "challenge"})).await;
    receiver.sees(1).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"enabled": false})).await;
    assert_eq!(state(&relay, "a").await, "disabled");
    receiver.change(agrees);
    relay.must("PATCH", "/v1/subscriptions/a", json!({"enabled": true})).await;
    becomes(&relay, "a", "active").await;
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn the_start_of_the_relay_asks_who_has_not_agreed() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    relay.subscribe("a", receiver.url(), "t", json!({"verify": "challenge"})).await;
    receiver.sees(1).await;
    relay.kill9().await;
    receiver.change(agrees);
    relay.restart().await;
    becomes(&relay, "a", "active").await;
}

#[tokio::test]
async fn a_question_passes_the_gate_like_everything_else() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(agrees).await;
    // A name is judged at the dial, by the address it stands for; this one is reserved for "nowhere".
    relay.subscribe("a", "https://nowhere.invalid.example/hook", "t", json!({"verify": "challenge", "timeout": "2s"})).await;
    let attempt = relay.must("POST", "/v1/subscriptions/a/verify", json!({})).await;
    assert_eq!((&attempt["outcome"], &attempt["status"]), (&json!("failure"), &Value::Null));
    let blocked = json!({"url": "http://10.0.0.1/hook", "topics": ["t"], "verify": "challenge"});
    assert_eq!(relay.ask("POST", "/v1/subscriptions", Some(&blocked)).await.0, 422);
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn a_cloudevents_endpoint_allows_an_origin_and_a_rate() {
    let mut relay = Relay::start_with("[websub]\npublic_url = \"https://relay.example:8443\"\n").await;
    let receiver = Receiver::with(|_, _| Answer::ok().header("allow", "POST")).await;
    let more = json!({"verify": "cloudevents", "rate_limit": {"per_second": 100, "burst": 100}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    let question = receiver.sees(1).await.remove(0);
    assert_eq!((&*question.method, &*question.path), ("OPTIONS", "/hook"));
    assert_eq!(question.header("webhook-request-origin"), "relay.example");
    assert_eq!(question.header("webhook-request-rate"), "6000");
    assert!(question.header("webhook-request-callback").starts_with("https://relay.example:8443/v1/subscriptions/a/consent/"));
    relay.publish_numbers("t", 0..6).await;
    let status = eventually("a refused origin", async || {
        let status = relay.status("a").await;
        status["verification"]["last_error"].is_string().then_some(status)
    });
    assert_eq!(status.await["verification"]["last_error"], "origin_not_allowed");
    receiver.change(|request, _| {
        let allowed = Answer::ok().header("webhook-allowed-origin", "relay.example").header("webhook-allowed-rate", "600");
        if request.method == "OPTIONS" { allowed } else { Answer::ok() }
    });
    let (before, began) = (receiver.count(), Instant::now());
    assert_eq!(relay.must("POST", "/v1/subscriptions/a/verify", json!({})).await["outcome"], "success");
    let seen = receiver.sees(before + 1 + 6).await;
    // 600 a minute are ten a second, one at a time, whatever the definition allows.
    let deliveries = &seen[before + 1..];
    assert!(deliveries[5].at - began >= Duration::from_millis(450), "{:?}", deliveries[5].at - began);
    let status = relay.status_becomes("a", json!({"state": "active", "lag": 0})).await;
    assert_eq!(status["verification"]["allowed_per_minute"], 600);
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    assert_eq!(relay.status("a").await["verification"]["allowed_per_minute"], 600);
    let (first, began) = (receiver.count(), Instant::now());
    relay.publish_numbers("t", 0..6).await;
    let seen = receiver.sees(first + 6).await;
    assert!(seen[first + 5].at - began >= Duration::from_millis(450), "{:?}", seen[first + 5].at - began);
    assert!(seen[0].is_signed_with(SECRET));
}

#[tokio::test]
async fn a_cloudevents_endpoint_may_agree_later() {
    let mut relay = Relay::start_with("[websub]\npublic_url = \"https://relay.example\"\n").await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({"verify": "cloudevents"})).await;
    relay.publish("t", "{}").await;
    let callback = receiver.sees(1).await[0].header("webhook-request-callback").to_owned();
    let path = callback.strip_prefix("https://relay.example").unwrap();
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    for wrong in [format!("{path}x"), path[..path.len() - 1].to_owned(), path.replace("/a/", "/b/")] {
        assert_eq!(relay.ask("GET", &wrong, None).await.0, 404, "{wrong}");
    }
    let agree =
        |rate: &'static str| relay.client.post(format!("{}{path}", relay.url)).header("webhook-allowed-rate", rate).send();
    assert_eq!(agree("none").await.unwrap().status().as_u16(), 422);
    assert_eq!(state(&relay, "a").await, "unverified");
    assert_eq!(agree("120").await.unwrap().status().as_u16(), 200);
    let status = relay.status_becomes("a", json!({"state": "active", "lag": 0})).await;
    assert_eq!(status["verification"]["allowed_per_minute"], 120);
    assert_eq!(relay.ask("GET", path, None).await.0, 200);
    // Agreed to deliveries to this endpoint, not to another one.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"url": format!("{}/other", receiver.url())})).await;
    assert_eq!(relay.ask("GET", path, None).await.0, 404);
}
