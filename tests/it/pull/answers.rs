//! What one answer holds, where it ends, and what it says of the rest.

use hookcast_streams::EgressSettings;
use serde_json::{Value, json};

use crate::streams::relay::{Relay, event, small};

/// An answer with status 200.
pub(super) async fn pull(relay: &Relay, path_and_query: &str) -> Value {
    let response = reqwest::get(relay.url(path_and_query)).await.unwrap();
    assert_eq!(response.status(), 200, "{path_and_query}");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let next = response.headers()["hookcast-next"].to_str().unwrap().to_owned();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["next"], next.as_str());
    answer
}

pub(super) fn seqs(answer: &Value) -> Vec<u64> {
    let events = answer["events"].as_array().unwrap_or_else(|| answer.as_array().expect("a list"));
    events.iter().map(|event| event["seq"].as_str().unwrap().parse().unwrap()).collect()
}

fn rest(answer: &Value) -> (&str, bool) {
    (answer["next"].as_str().unwrap(), answer["done"].as_bool().unwrap())
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_answer_begins_at_the_earliest_event_and_says_where_to_go_on() {
    let relay = Relay::start(small(), 8 * 1024).await;
    let empty = pull(&relay, "a/events").await;
    assert_eq!((seqs(&empty), rest(&empty)), (vec![], ("0", true)));
    relay.publish("a", 250).await;
    relay.publish("b", 10).await;
    let first = pull(&relay, "a/events").await;
    assert_eq!((seqs(&first), rest(&first)), ((1..=100).collect(), ("100", false)));
    let second = pull(&relay, "a/events?after=100&limit=1000").await;
    assert_eq!((seqs(&second), rest(&second)), ((101..=250).collect(), ("260", true)));
    let exact = pull(&relay, "a/events?after=100&limit=150").await;
    assert_eq!((seqs(&exact).len(), rest(&exact)), (150, ("260", true)), "nothing was left behind it");
    let cut = pull(&relay, "a/events?after=100&limit=149").await;
    assert_eq!((seqs(&cut).len(), rest(&cut)), (149, ("249", false)));
    let none = pull(&relay, "a/events?after=260").await;
    assert_eq!((seqs(&none), rest(&none)), (vec![], ("260", true)));
    let latest = pull(&relay, "a/events?since=latest").await;
    assert_eq!((seqs(&latest), rest(&latest)), (vec![], ("260", true)));
    let form = &second["events"][0];
    assert_eq!((&form["specversion"], &form["topic"], &form["data"]), (&"1.0".into(), &"a".into(), &json!({"n": 101})));
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_answer_chooses_by_pattern_type_and_content() {
    let relay = Relay::start(small(), 1024).await;
    for n in 0..30 {
        let (topic, kind) = (["a.x", "a.y", "b.x"][n % 3], ["one", "two"][n % 2]);
        relay.publish_event(event(topic, kind, &format!("{{\"n\":{n}}}"))).await;
    }
    let of = async |query: &str| seqs(&pull(&relay, query).await);
    assert_eq!(of("a.*/events?types=two&limit=3").await, [2, 4, 8]);
    assert_eq!(of("a.*,b.x/events?filter=data.n%3E26").await, [28, 29, 30]);
    assert_eq!(of("**/events?after=28").await, [29, 30]);
    assert_eq!(of("c/events").await, Vec::<u64>::new());
    let rare = pull(&relay, "a.x/events?filter=data.n%3D%3D0&limit=1").await;
    assert_eq!((seqs(&rare), rest(&rare)), (vec![1], ("30", true)), "what does not match is not left behind");
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_a_publisher_was_told_is_there_for_the_next_who_asks() {
    let relay = Relay::start(EgressSettings { ring_bytes_max: 256 * 1024, ..small() }, 64 * 1024).await;
    // Others of the same kind, so that there are rings which have to be fed first.
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(relay.listen("a/stream").await);
        others.push(relay.listen("**/stream").await);
    }
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(reqwest::get(relay.url("b/events?wait=120")))).collect();
    relay.until_open(44).await;
    let client = reqwest::Client::new();
    for seq in 1..=200u64 {
        relay.publish("a", 1).await;
        let url = relay.url(&format!("a/events?after={}", seq - 1));
        let answer: Value = client.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!((seqs(&answer), rest(&answer).1), (vec![seq], true));
    }
    relay.closing.cancel();
    for poll in waiting {
        assert_eq!(seqs(&poll.await.unwrap().unwrap().json().await.unwrap()), Vec::<u64>::new());
    }
    drop(others);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_retention_took_and_what_never_was_stand_among_the_events() {
    let relay = Relay::start(small(), 1).await;
    for _ in 0..10 {
        relay.publish("a", 10).await;
    }
    assert_eq!(relay.trim().await.0, 91);
    let answer = pull(&relay, "a/events?after=5&limit=1000").await;
    let gap = &answer["events"][0];
    assert_eq!((&gap["type"], &gap["seq"], &gap["data"]), (&"hookcast.gap".into(), &"90".into(), &json!({"from": 6, "to": 90})));
    assert_eq!((seqs(&answer), rest(&answer)), ((90..=100).collect(), ("100", true)));
    let earliest = pull(&relay, "a/events").await;
    assert_eq!(seqs(&earliest)[0], 91, "from the oldest kept is no gap");
    let beyond = pull(&relay, "a/events?after=5000&wait=120").await;
    assert_eq!(beyond["events"][0]["type"], "hookcast.reset");
    assert_eq!((&beyond["events"][0]["data"], rest(&beyond)), (&json!({"head": 100}), ("100", true)));
    let conduit: Value = reqwest::get(relay.url("a/stream?format=conduit&since=5")).await.unwrap().json().await.unwrap();
    assert_eq!(conduit[0]["type"], "hookcast.gap");
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_answer_is_bounded_in_bytes_but_holds_at_least_one_event() {
    let relay = Relay::start(small(), 1024).await;
    let text = format!("\"{}\"", "x".repeat(400_000));
    for _ in 0..5 {
        relay.publish_event(event("a", "large", &text)).await;
    }
    let answer = pull(&relay, "a/events").await;
    assert_eq!((seqs(&answer), rest(&answer)), (vec![1, 2, 3], ("3", false)));
    let answer = pull(&relay, "a/events?after=3").await;
    assert_eq!((seqs(&answer), rest(&answer)), (vec![4, 5], ("5", true)));
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_tag_stays_as_long_as_the_events_do() {
    let relay = Relay::start(small(), 8 * 1024).await;
    relay.publish("a", 3).await;
    let client = reqwest::Client::new();
    let url = relay.url("a/events");
    let first = client.get(&url).send().await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    assert!(first.headers()["cache-control"].to_str().unwrap().contains("no-cache"));
    relay.publish("other", 2).await;
    let same = client.get(&url).header("if-none-match", format!("\"x\", {tag}")).send().await.unwrap();
    assert_eq!((same.status().as_u16(), same.headers()["etag"].to_str().unwrap()), (304, tag.as_str()));
    assert_eq!(same.headers()["hookcast-next"], "5", "the position moves although the events do not");
    assert_eq!(same.bytes().await.unwrap().len(), 0);
    relay.publish("a", 1).await;
    let other = client.get(&url).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(other.status(), 200);
    assert_ne!(other.headers()["etag"].to_str().unwrap(), tag);
    assert_eq!(seqs(&other.json().await.unwrap()), [1, 2, 3, 6]);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn the_path_of_events_says_what_it_knows() {
    let relay = Relay::start(small(), 8 * 1024).await;
    relay.publish("a", 3).await;
    let client = reqwest::Client::new();
    let head = client.head(relay.url("a/events?wait=120&after=3")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["hookcast-next"].to_str().unwrap()), (200, "3"));
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    for method in [reqwest::Method::PUT, reqwest::Method::DELETE, reqwest::Method::PATCH] {
        let refused = client.request(method, relay.url("a/events")).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD, POST"));
    }
    for (query, status, slug) in [
        ("a/events?after=x", 422, "after"),
        ("a/events?limit=1001", 422, "limit"),
        ("a/events?wait=121", 422, "wait"),
        ("a/events?callback=a(", 422, "callback"),
        ("a/events?format=sse", 422, "unknown_parameter"),
        ("a..b/events", 422, "topics"),
        ("a/stream?format=conduit&limit=1001", 422, "limit"),
        ("a/stream?format=conduit&max_duration=1s", 422, "unknown_parameter"),
        ("a/stream?format=conduit&heartbeat=1h", 422, "heartbeat"),
    ] {
        let refused = client.get(relay.url(query)).send().await.unwrap();
        let problem = (refused.status().as_u16(), refused.json::<Value>().await.unwrap()["type"].as_str().unwrap().to_owned());
        assert_eq!(problem, (status, format!("/problems/{slug}")), "{query}");
    }
    relay.until_open(0).await;
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_conduit_is_answered_with_a_list_or_with_null_and_keeps_its_connection() {
    let relay = Relay::start(small(), 8 * 1024).await;
    relay.publish("a", 5).await;
    let client = reqwest::Client::new();
    let url = |query: &str| relay.url(&format!("a/stream?format=conduit&heartbeat=1s&{query}"));
    let some = client.get(url("since=2")).send().await.unwrap();
    assert_eq!(some.headers()["content-type"], "application/json");
    assert_eq!(some.headers()["hookcast-next"], "5");
    assert_eq!(some.headers()["cache-control"], "no-store, no-transform");
    assert!(some.headers().contains_key("content-length") && !some.headers().contains_key("connection"));
    assert_eq!(seqs(&some.json().await.unwrap()), [3, 4, 5]);
    relay.publish("other", 4).await;
    let noop = client.get(url("last_event_id=5")).send().await.unwrap();
    assert_eq!(noop.headers()["hookcast-next"], "9");
    assert_eq!(noop.text().await.unwrap(), "null");
    let head = client.head(url("since=2")).send().await.unwrap();
    assert_eq!(head.status(), 200);
    relay.until_open(0).await;
    relay.stop().await;
}
