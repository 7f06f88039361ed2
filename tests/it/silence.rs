//! What goes wrong with deliveries and sources is a line of the log at its default level, in words, once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::upstream::CountingUpstream;
use crate::support::{Answer, Receiver, Relay, eventually};

/// Lines of the log with all these words.
fn lines(relay: &Relay, words: &[&str]) -> Vec<String> {
    let log = relay.log();
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

/// Waits for such a line; it is at a level that is shown by default.
async fn line(relay: &Relay, words: &[&str]) -> String {
    let found = eventually(&format!("a line with {words:?}"), async || lines(relay, words).pop()).await;
    assert!(found.contains(" WARN ") || found.contains(" INFO "), "{found}");
    found
}

fn once() -> Value {
    json!({"retry": {"max_attempts": 1, "schedule": ["1h"]}})
}

#[tokio::test]
async fn endpoints_that_fail_and_heal_are_lines() {
    let relay = Relay::start().await;
    // Twenty that hang and end well, ten that fail meanwhile: the circuit opens, and is closed by what was sent before it.
    let broken = Receiver::with(|_, before| if before < 20 { Answer::ok().when_released() } else { Answer::status(500) }).await;
    let gone = Receiver::with(|_, _| Answer::status(410)).await;
    let fields = json!({"max_in_flight": 64, "retry": {"max_attempts": 2, "schedule": ["1h"], "jitter": 0.0}});
    relay.subscribe("broken", broken.url(), "t", fields).await;
    relay.subscribe("gone", gone.url(), "t", json!({})).await;
    relay.publish_numbers("t", 0..20).await;
    broken.sees(20).await;
    relay.publish_numbers("t", 0..10).await;
    let opened = line(&relay, &["circuit opened", "subscription.id=\"broken\""]).await;
    assert!(opened.contains("WARN") && opened.contains("reason=status_500"), "{opened}");
    let disabled = line(&relay, &["subscription disabled", "subscription.id=\"gone\""]).await;
    assert!(disabled.contains("WARN") && disabled.contains("reason=gone"), "{disabled}");
    broken.release(20);
    let closed = line(&relay, &["circuit closed", "subscription.id=\"broken\""]).await;
    assert!(closed.contains("INFO"), "{closed}");
    for words in [["circuit opened", "broken"], ["circuit closed", "broken"], ["subscription disabled", "gone"]] {
        assert_eq!(lines(&relay, &words).len(), 1, "{words:?}");
    }
}

#[tokio::test]
async fn dead_letters_are_one_line_with_the_number_of_those_left_out() {
    let mut relay = Relay::start().await;
    let broken = Receiver::with(|_, _| Answer::status(500)).await;
    for id in ["a", "b"] {
        relay.subscribe(id, broken.url(), "t", once()).await;
    }
    // The delivery of the relay's own words makes no notice, but a line of the log it is.
    relay.subscribe("ops", broken.url(), "hookcast.ops", once()).await;
    let seq = relay.publish("t", "{}").await;
    relay.publish_numbers("t", 0..8).await;
    for id in ["a", "b"] {
        let dead = line(&relay, &["dead letter", &format!("subscription.id=\"{id}\"")]).await;
        assert!(dead.contains("WARN") && dead.contains(&format!("event.seq={seq}")), "{dead}");
        assert!(dead.contains("reason=status_500"), "{dead}");
        relay.status_becomes(id, json!({"dead": 9})).await;
    }
    line(&relay, &["dead letter", "subscription.id=\"ops\""]).await;
    assert_eq!(lines(&relay, &["dead letter", "subscription.id=\"a\""]).len(), 1, "the rest of the minute is counted");
    // The end does not keep the number to itself.
    assert_eq!(relay.terminate().await, Some(0));
    let rest = lines(&relay, &["dead letter", "subscription.id=\"a\"", "left_out=7"]);
    assert_eq!(rest.len(), 1, "{}", relay.log());
}

#[tokio::test]
async fn a_source_that_goes_and_comes_is_a_line() {
    let upstream = CountingUpstream::start(Duration::from_millis(1), 5, 0).await;
    let relay = Relay::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let source = |url: String| json!({"name": "up", "protocol": "sse", "url": url, "topic": "feed"});
    relay.must("PUT", "/v1/sources/up", source(format!("http://{nobody}/"))).await;
    let down = line(&relay, &["source down", "source.name=\"up\""]).await;
    assert!(down.contains("WARN") && down.contains("reason=connect"), "{down}");
    assert_eq!(lines(&relay, &["source down"]).len(), 1);
    drop(upstream);
}

/// Keyed subscriptions read the keys of what waits at each start, and are stopped in the middle of it.
#[tokio::test]
async fn a_stop_while_keys_are_read_is_no_error() {
    let broken = Receiver::with(|_, _| Answer::status(500)).await;
    let mut relay = Relay::start().await;
    for id in ["a", "b", "c", "d"] {
        let fields = json!({"ordering": {"key": "/n"}, "on_dead": "block", "retry": {"schedule": ["1h"]}});
        relay.subscribe(id, broken.url(), "t", fields).await;
    }
    relay.publish_numbers("t", 0..300).await;
    for _ in 0..8 {
        assert_eq!(relay.terminate().await, Some(0));
        relay.restart().await;
    }
    assert_eq!(lines(&relay, &["ERROR"]), [""; 0]);
}
