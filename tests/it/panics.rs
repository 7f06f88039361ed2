//! Tasks that panic for real: what becomes of an attempt, of the process, of the others, and that a restart loses nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::support::{Answer, PATIENCE, Receiver, eventually};

mod errands;
mod house;
mod process;
mod routing;
mod streams;
mod workers;

use house::House;

/// Few quick retries.
fn quick(attempts: u32) -> Value {
    json!({"retry": {"max_attempts": attempts, "schedule": ["1s"], "jitter": 0.0}})
}

/// `{"a":…}` and `{"b":…}` as one.
fn both(a: Value, b: &Value) -> Value {
    let mut both = a;
    both.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
    both
}

/// The errors of all attempts at an event, oldest first.
async fn errors(house: &House, id: &str, seq: u64) -> Vec<Value> {
    let view = house.ask("GET", &format!("/v1/subscriptions/{id}/deliveries/{seq}"), None).await.1;
    view["attempts"].as_array().unwrap().iter().map(|attempt| attempt["error"].clone()).collect()
}

/// Fails every first attempt, so that the next one has to read the event.
async fn refuses_first() -> Receiver {
    Receiver::with(|delivery, _| if delivery.attempt() == 1 { Answer::status(500) } else { Answer::ok() }).await
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_attempt_that_always_panics_ends_as_a_dead_letter_and_nothing_else_suffers() {
    for (kind, function, more) in [
        ("single", "Lane::attempt", json!({})),
        ("strict", "Lane::attempt", json!({"ordering": "strict", "on_dead": "skip"})),
        ("batch", "gathering::make", json!({"batch": {"max_events": 2, "max_wait": "50ms", "format": "json-array"}})),
    ] {
        let (mut house, receiver) = (House::start().await, refuses_first().await);
        house.subscribe("a", receiver.url(), both(quick(3), &more)).await;
        let seq = house.publish(1).await.unwrap();
        receiver.sees(1).await;
        house.status_becomes("a", json!({"retrying": 1})).await;
        // Memory holds no event after a restart: the retry has to read its own.
        house.stop().await;
        house.trap.arm(function, 2);
        house.restart().await;
        let status = house.status_becomes("a", json!({"dead": 1, "in_flight": 0, "retrying": 0})).await;
        assert_eq!(status["circuit"], "closed", "{kind}: no fault of the endpoint");
        assert!(house.trap.is_sprung(), "{kind}");
        assert_eq!(errors(&house, "a", seq).await, ["status_500", "internal", "internal"], "{kind}");
        house.must_not_end();
        // The next goes its way, retry included.
        let next = house.publish(2).await.unwrap();
        house.status_becomes("a", json!({"lag": 0, "in_flight": 0, "retrying": 0, "delivered_total": 1})).await;
        assert_eq!(errors(&house, "a", next).await, [json!("status_500"), Value::Null], "{kind}");
        assert!(house.not_ready().await.is_empty());
        house.stop().await;
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_ping_or_a_question_that_panics_is_one_that_failed() {
    let (mut house, receiver) = (House::start().await, Receiver::start().await);
    house.subscribe("a", receiver.url(), json!({})).await;
    house.trap.arm("question::ping", 1);
    let (status, attempt) = house.ask("POST", "/v1/subscriptions/a/ping", None).await;
    assert_eq!((status, &attempt["error"]), (200, &json!("internal")), "{attempt}");
    assert_eq!(house.ask("POST", "/v1/subscriptions/a/ping", None).await.1["error"], Value::Null);
    house.trap.arm("ask_and_store", 1);
    house.subscribe("b", receiver.url(), json!({"verify": "challenge"})).await;
    eventually("the failed question", async || {
        let status = house.ask("GET", "/v1/subscriptions/b/status", None).await.1;
        (status["verification"]["last_error"] == "internal").then_some(())
    })
    .await;
    house.must_not_end();
    house.stop().await;
}

/// The loops of a shard: the function that panics, the part it is, and what makes it run into that.
const LOOPS: &[(&str, &str)] = &[
    ("reading::read_head", "head_reader"),
    ("reading::feed_lagging", "feeder"),
    ("replaying::feed_replays", "replays"),
    ("saving::save_dirty", "saver"),
    ("saving::keep_time", "timer"),
    ("saving::keep_house", "housekeeping"),
    ("start::obey", "commands"),
    ("Lane::work", "worker"),
];

async fn provoke(house: &House, part: &str, url: &str) {
    match part {
        "feeder" => house.subscribe("late", url, json!({"from": "earliest"})).await,
        "replays" => {
            let range = json!({"from": {"seq": 1}, "to": {"seq": 1}});
            drop(house.ask("POST", "/v1/subscriptions/a/replay", Some(&range)).await);
        }
        "commands" => {
            drop(house.ask("POST", "/v1/subscriptions/a/pause", None).await);
            let _ = house.publish(100).await;
            drop(house.ask("POST", "/v1/subscriptions/a/resume", None).await);
        }
        "housekeeping" => {}
        _ => {
            let _ = house.publish(100).await;
        }
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_loop_of_a_shard_that_panics_ends_the_process_and_a_restart_loses_nothing() {
    for (function, part) in LOOPS {
        // Every third event fails once: there are retries to be saved as well.
        let receiver = Receiver::with(|delivery, _| {
            let fails = delivery.attempt() == 1 && delivery.seq().is_multiple_of(3);
            if fails { Answer::status(500) } else { Answer::ok() }
        })
        .await;
        let mut house = House::start().await;
        house.subscribe("a", receiver.url(), json!({"retry": {"max_attempts": 5, "schedule": ["1s"], "jitter": 0.0}})).await;
        for n in 0..10 {
            house.publish(n).await.unwrap();
        }
        receiver.sees(10).await;
        house.trap.arm(function, 1);
        provoke(&house, part, receiver.url()).await;
        let ending = house.must_end().await;
        assert_eq!(ending.exit_code, 70, "{part}");
        assert_eq!(ending.reason, format!("shard-1/{part} panicked: the trap in {function}"));
        assert_eq!(house.not_ready().await, ["/task/shard-1"], "{part}");
        let head = house.ask("GET", "/v1/subscriptions/a/status", None);
        // A shard whose commands are gone answers nothing; the others do.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), head).await;
        house.stop().await;
        house.restart().await;
        let status = house.status_becomes("a", json!({"lag": 0, "retrying": 0, "in_flight": 0, "dead": 0})).await;
        let head = status["head"].as_u64().unwrap();
        let taken: std::collections::BTreeSet<u64> = receiver
            .seen()
            .iter()
            .filter(|delivery| delivery.attempt() > 1 || !delivery.seq().is_multiple_of(3))
            .map(crate::support::Delivery::seq)
            .collect();
        assert!((1..=10).all(|seq| taken.contains(&seq)), "{part}: {taken:?} of {head}");
        house.stop().await;
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn the_writer_or_intake_that_panics_ends_the_process_and_what_was_accepted_stays() {
    for (function, task) in [("Drafting::draft", "writer"), ("Leader::run", "intake")] {
        let (mut house, receiver) = (House::start().await, refuses_first().await);
        house.subscribe("a", receiver.url(), json!({"retry": {"max_attempts": 5, "schedule": ["1h"]}})).await;
        let seq = house.publish(1).await.unwrap();
        receiver.sees(1).await;
        house.trap.arm(function, 1);
        assert_eq!(house.publish(2).await, Err(503), "{task}: refused, not lost in silence");
        let ending = house.must_end().await;
        assert_eq!((ending.exit_code, ending.reason), (70, format!("{task} panicked: the trap in {function}")));
        assert_eq!(house.not_ready().await, [format!("/task/{task}")]);
        house.stop().await;
        house.restart().await;
        // The retry was saved after the panic, if not before: nothing is posted anew.
        house.status_becomes("a", json!({"lag": 0, "retrying": 1, "in_flight": 0})).await;
        assert_eq!(errors(&house, "a", seq).await, ["status_500"], "{task}");
        assert_eq!(receiver.count(), 1, "{task}");
        house.stop().await;
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn other_tasks_are_started_again_and_the_relay_is_not_ready_in_between() {
    let mut house = House::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    house.subscribe("dies", receiver.url(), quick(1)).await;
    for (function, task) in [
        ("Retention::step", "retention"),
        ("publish_notices", "notices"),
        ("keep_asking", "verification"),
        ("end_leases", "websub-leases"),
    ] {
        house.trap.arm(function, 1);
        // A dead letter is told, and a definition wakes those who look at all of them.
        house.publish(1).await.unwrap();
        house.must("PUT", "/v1/subscriptions/a", json!({"url": receiver.url(), "topics": ["t"], "verify": "challenge"})).await;
        house.must("DELETE", "/v1/subscriptions/a", json!({})).await;
        eventually(&format!("{task} not ready"), async || (house.not_ready().await == [format!("/task/{task}")]).then_some(()))
            .await;
        eventually(&format!("{task} ready again"), async || house.not_ready().await.is_empty().then_some(())).await;
        let text = house.client.get(format!("{}/metrics", house.url)).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(&format!("hookcast_task_restarts_total{{task=\"{task}\"}} ")), "{task}: {text}");
        house.must_not_end();
    }
    house.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_panic_while_the_log_is_read_for_a_stream_ends_the_streams_there_only() {
    let mut house = House::start().await;
    let seq = house.publish(1).await.unwrap();
    house.stop().await;
    // Memory holds nothing now: who begins at the first event has the log read.
    house.restart().await;
    let stream = async |query: &str| {
        let response = house.client.get(format!("{}/v1/topics/t/stream?{query}", house.url)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response
    };
    let mut live = stream("since=latest").await;
    house.trap.arm("history::load", 1);
    let broken = stream("since=earliest").await;
    let _ = tokio::time::timeout(PATIENCE, broken.bytes()).await.expect("an end");
    assert!(house.trap.is_sprung());
    house.publish(2).await.unwrap();
    let came = tokio::time::timeout(PATIENCE, live.chunk()).await.expect("the next event").unwrap().unwrap();
    assert!(String::from_utf8_lossy(&came).contains("\"n\":2"));
    let whole = stream(&format!("since=earliest&limit={}", seq + 1)).await.text().await.unwrap();
    assert!(whole.contains("\"n\":1") && whole.contains("\"n\":2"), "{whole}");
    drop(live);
    house.must_not_end();
    house.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_redrive_that_panics_stays_a_dead_letter_and_can_be_redriven() {
    let (mut house, receiver) = (House::start().await, refuses_first().await);
    house.subscribe("a", receiver.url(), quick(1)).await;
    let (seq, other) = (house.publish(1).await.unwrap(), house.publish(2).await.unwrap());
    house.status_becomes("a", json!({"dead": 2})).await;
    // What was read before a purge is read again by the attempt itself; after a restart memory holds nothing.
    house.stop().await;
    house.restart().await;
    house.must("DELETE", &format!("/v1/events/{other}"), json!({})).await;
    house.trap.arm("Lane::attempt", 1);
    let redrive = json!({"seqs": [seq]});
    house.must("POST", "/v1/subscriptions/a/dead-letters/redrive", redrive.clone()).await;
    eventually("the panic", async || house.trap.is_sprung().then_some(())).await;
    house.status_becomes("a", json!({"dead": 2, "in_flight": 0, "retrying": 0})).await;
    assert_eq!(errors(&house, "a", seq).await, ["status_500", "internal"]);
    house.must_not_end();
    receiver.change(|_, _| Answer::ok());
    house.must("POST", "/v1/subscriptions/a/dead-letters/redrive", redrive).await;
    house.status_becomes("a", json!({"dead": 1, "in_flight": 0, "retrying": 0})).await;
    house.stop().await;
}
