//! Content filters from outside: what a receiver gets, what status and deliveries say, changes, streams, refusals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually};

#[tokio::test]
async fn only_what_the_filter_wants_goes_out_and_the_rest_says_why() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    let made = relay
        .subscribe("a", receiver.url(), "orders.*", json!({"filter": "data.amount > 100 && data.customer.country == \"DE\""}))
        .await;
    assert_eq!(made["filter"], "data.amount > 100 && data.customer.country == \"DE\"");
    relay.publish("orders.eu", r#"{"amount": 50, "customer": {"country": "DE"}}"#).await;
    relay.publish("orders.eu", r#"{"amount": 500}"#).await;
    relay.publish("orders.eu", r#"{"amount": 500, "customer": {"country": "AT"}}"#).await;
    let text = relay.client.post(format!("{}/v1/topics/orders.eu/events", relay.url)).header("content-type", "text/plain");
    assert_eq!(text.body("no json").send().await.unwrap().status(), 202);
    let wanted = relay.publish("orders.eu", r#"{"amount": 101, "customer": {"country": "DE"}}"#).await;
    let seen = receiver.sees(1).await;
    assert_eq!(seen[0].seq(), wanted);
    let status = relay
        .status_becomes("a", json!({"delivered_total": 1, "filtered_total": 2, "filter_errors_total": 2, "cursor": wanted}))
        .await;
    assert_eq!(status["lag"], 0);
    assert!(status["last_filter_error"].as_str().unwrap().starts_with(&format!("event {}: ", wanted - 1)), "{status}");
    for (seq, state, reason) in [
        (wanted - 4, "filtered", "the filter is false"),
        (wanted - 3, "filtered", "the filter failed: no such key: customer"),
        (wanted - 2, "filtered", "the filter is false"),
        (wanted - 1, "filtered", "the filter failed: "),
        (wanted, "delivered", ""),
    ] {
        let view = relay.delivery("a", seq).await;
        assert_eq!(view["state"], state, "{seq}: {view}");
        assert!(view["reason"].as_str().unwrap_or_default().starts_with(reason), "{seq}: {view}");
    }
    assert_eq!(receiver.count(), 1);
    let metrics = relay.client.get(format!("{}/metrics", relay.url));
    eventually("the counts as metrics", async || {
        let text = metrics.try_clone().unwrap().send().await.unwrap().text().await.unwrap();
        (text.contains("hookcast_filtered_total 2") && text.contains("hookcast_filter_errors_total 2")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn attributes_can_be_filtered_without_looking_at_the_data() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    let filter = "type == 'order.paid' && source.startsWith('/shop') && subject != '' && extensions.region == 'north' \
                  && topic == 't' && id.matches('^o-[0-9]+$') && time > timestamp('2026-01-01T00:00:00Z')";
    relay.subscribe("a", receiver.url(), "t", json!({"filter": filter})).await;
    let publish = async |subject: Option<&str>| {
        let mut event = json!({"specversion": "1.0", "id": format!("o-{}", subject.map_or(1, str::len)), "source": "/shop/1",
            "type": "order.paid", "region": "north", "time": "2026-02-01T00:00:00Z", "data": 1});
        if let Some(subject) = subject {
            event["subject"] = json!(subject);
        }
        let request = relay.client.post(format!("{}/v1/topics/t/events", relay.url));
        let response = request.header("content-type", "application/cloudevents+json").body(event.to_string()).send().await;
        assert_eq!(response.unwrap().status(), 202);
    };
    publish(None).await;
    publish(Some("ann")).await;
    assert_eq!(receiver.sees(1).await[0].header("ce-subject"), "ann");
    relay.status_becomes("a", json!({"filtered_total": 1, "filter_errors_total": 0, "cursor": 2})).await;
}

#[tokio::test]
async fn a_change_takes_effect_at_the_cursor_and_each_event_is_judged_by_the_filter_then_in_force() {
    let (mut relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"filter": "data.n < 5"})).await;
    relay.publish_numbers("t", 0..10).await;
    relay.status_becomes("a", json!({"cursor": 10, "delivered_total": 5})).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"filter": "data.n >= 15"})).await;
    relay.publish_numbers("t", 10..20).await;
    relay.status_becomes("a", json!({"cursor": 20, "delivered_total": 10})).await;
    relay.must("PATCH", "/v1/subscriptions/a", json!({"filter": null})).await;
    relay.publish_numbers("t", 20..22).await;
    receiver.sees(12).await;
    let bodies = receiver.of_each(|delivery| delivery.text().to_owned());
    let expected: Vec<u64> = (0..5).chain(15..22).collect();
    let mut numbers: Vec<u64> =
        bodies.iter().map(|body| serde_json::from_str::<Value>(body).unwrap()["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, expected);
    for (seq, state) in [(1, "delivered"), (6, "filtered"), (11, "filtered"), (16, "delivered"), (21, "delivered")] {
        assert_eq!(relay.delivery("a", seq).await["state"], state, "{seq}");
    }
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    assert_eq!(relay.delivery("a", 6).await["reason"], "the filter is false");
    assert_eq!(receiver.count(), 12);
}

#[tokio::test]
async fn a_backlog_read_from_the_log_is_filtered_as_well_and_counted_once() {
    let (relay, receiver) = (Relay::start().await, Receiver::with(|_, _| Answer::ok().after(Duration::from_millis(1))).await);
    relay.publish_numbers("t", 0..3000).await;
    relay.subscribe("a", receiver.url(), "t", json!({"filter": "data.n % 10 == 0", "from": "earliest"})).await;
    receiver.sees(300).await;
    let status = relay.status_becomes("a", json!({"cursor": 3000, "delivered_total": 300})).await;
    assert_eq!((&status["filtered_total"], &status["filter_errors_total"]), (&json!(2700), &json!(0)));
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "earliest"})).await;
    relay.status_becomes("a", json!({"cursor": 3000, "delivered_total": 600, "filtered_total": 2700})).await;
}

#[tokio::test]
async fn what_is_no_filter_is_refused_with_words_to_act_on() {
    let relay = Relay::start().await;
    for (filter, words) in [
        (json!("amount > 100"), "names \"amount\", which is not known"),
        (json!("data.amount >"), "is no CEL expression: line 1"),
        (json!("data.name.lower() == 'x'"), "calls the method \"lower\""),
        (json!("data.a.all(a, a.all(b, b.all(c, true)))"), "more than 2 loops"),
        (json!("x".repeat(5000)), "at most 4096"),
    ] {
        let body = json!({"url": "http://127.0.0.1:8999/", "topics": ["t"], "filter": filter});
        let (status, problem) = relay.ask("POST", "/v1/subscriptions", Some(&body)).await;
        assert_eq!(status, 422, "{filter}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], "/filter");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(words), "{filter}: {problem}");
    }
    relay.subscribe("a", "http://127.0.0.1:8999/", "t", json!({})).await;
    assert_eq!(relay.ask("PATCH", "/v1/subscriptions/a", Some(&json!({"filter": "nope("}))).await.0, 422);
}

#[tokio::test]
async fn a_declared_filter_that_is_none_stops_the_start() {
    let mut relay = Relay::start().await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.configure(
        "[[subscriptions]]\nid = \"a\"\nurl = \"http://127.0.0.1:8999/\"\ntopics = [\"t\"]\nfilter = \"amount > 1\"\n",
    );
    assert_eq!(relay.second_process().await, Some(78));
    assert!(relay.log().contains("names \"amount\""), "{}", relay.log());
}

#[tokio::test]
async fn a_filter_that_would_work_for_ever_holds_nobody_up() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    let endless = "data.l.all(a, data.l.all(b, a <= b || b <= a))";
    relay.subscribe("hungry", receiver.url(), "t", json!({"filter": endless})).await;
    relay.subscribe("plain", receiver.url(), "t", json!({})).await;
    let list: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    relay.publish("t", format!("{{\"l\": [{}]}}", list.join(","))).await;
    assert_eq!(receiver.sees(1).await[0].header("hookcast-subscription"), "plain");
    let status = relay.status_becomes("hungry", json!({"filter_errors_total": 1, "cursor": 1})).await;
    assert!(status["last_filter_error"].as_str().unwrap().contains("too much work"), "{status}");
}

async fn lines(relay: &Relay, query: &str, count: usize) -> Vec<Value> {
    read(open(relay, query, count).await).await
}

/// A stream that ends behind `count` events; everything published from now on is on it.
async fn open(relay: &Relay, query: &str, count: usize) -> reqwest::Response {
    let response = relay.client.get(format!("{}/v1/topics/t/stream?{query}&limit={count}", relay.url)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

async fn read(response: reqwest::Response) -> Vec<Value> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.unwrap());
    }
    let text = String::from_utf8(body).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn streams_are_filtered_in_history_and_live() {
    let relay = Relay::start().await;
    relay.publish_numbers("t", 0..100).await;
    // Live only, beside two that begin in history.
    let live = open(&relay, "filter=data.n%20%3E%3D%20110", 10).await;
    let (even, all, live, ()) = tokio::join!(
        lines(&relay, "since=earliest&filter=data.n%20%25%202%20%3D%3D%200", 60),
        lines(&relay, "since=earliest", 120),
        read(live),
        async {
            relay.publish("t", "{\"m\": 1}").await;
            relay.publish_numbers("t", 101..121).await;
        },
    );
    let numbers = |events: &[Value]| -> Vec<u64> { events.iter().filter_map(|event| event["data"]["n"].as_u64()).collect() };
    assert_eq!(numbers(&even), (0..100).step_by(2).chain((102..).step_by(2)).take(60).collect::<Vec<_>>());
    assert_eq!(all.len(), 120);
    assert_eq!(numbers(&live), (110..120).collect::<Vec<_>>());
    let bad = relay.client.get(format!("{}/v1/topics/t/stream?filter=n%3E1", relay.url)).send().await.unwrap();
    assert_eq!(bad.status(), 422);
    let problem: Value = bad.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/filter");
    let metrics = relay.client.get(format!("{}/metrics", relay.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("hookcast_stream_filter_errors_total"), "an event without the field was counted");
}
