//! Requests that wait: woken by what they asked for, by nothing else, and gone without a trace when their client is.

use std::time::Duration;

use hookcast_streams::EgressSettings;
use serde_json::Value;

use super::answers::seqs;
use crate::streams::relay::{Relay, eventually, read_until, small};
use crate::support::in_time;

#[actix_rt::test(system = "crate::support::System")]
async fn a_poll_is_answered_by_the_first_commit_that_matches() {
    let relay = Relay::start(small(), 8 * 1024).await;
    relay.publish("a", 3).await;
    let url = relay.url("a/events?after=3&wait=120");
    let poll = tokio::spawn(async move { reqwest::get(url).await.unwrap().json::<Value>().await.unwrap() });
    relay.until_open(1).await;
    relay.publish("other", 7).await;
    relay.publish("a", 2).await;
    let answer = in_time(poll).await.unwrap();
    assert_eq!(seqs(&answer), [11, 12], "what one commit brought comes together");
    assert_eq!((&answer["next"], &answer["done"]), (&"12".into(), &true.into()));
    relay.until_open(0).await;
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_poll_without_an_event_ends_empty_and_further_on() {
    let relay = Relay::start(small(), 8 * 1024).await;
    relay.publish("a", 3).await;
    let url = relay.url("a/events?after=3&wait=1");
    let poll = tokio::spawn(async move { reqwest::get(url).await.unwrap().json::<Value>().await.unwrap() });
    relay.until_open(1).await;
    relay.publish("other", 7).await;
    let answer = in_time(poll).await.unwrap();
    assert_eq!(answer, serde_json::json!({"events": [], "next": "10", "done": true}));
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_client_that_vanished_frees_its_place() {
    let relay = Relay::start(EgressSettings { streams_max: 2, ..small() }, 8 * 1024).await;
    let get = |path: &str| format!("GET /v1/topics/{path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let poll = relay.raw(&get("a/events?wait=120")).await;
    let mut conduit = relay.raw(&get("a/stream?format=conduit")).await;
    relay.until_open(2).await;
    let refused = reqwest::get(relay.url("a/events?wait=120")).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (503, true));
    drop(poll);
    relay.until_open(1).await;
    relay.publish("a", 1).await;
    let text = read_until(&mut conduit, "]").await;
    assert!(text.contains("hookcast-next: 1\r\n") && text.contains("content-length: "), "{text}");
    relay.until_open(0).await;
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_shutdown_answers_everybody_who_waits() {
    let relay = Relay::start(small(), 8 * 1024).await;
    let polls: Vec<_> = ["a/events?wait=120", "a/stream?format=conduit", "b/events?wait=120&types=x"]
        .map(|path| tokio::spawn(reqwest::get(relay.url(path))))
        .into();
    relay.until_open(3).await;
    relay.closing.cancel();
    for poll in polls {
        assert_eq!(in_time(poll).await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(reqwest::get(relay.url("a/events")).await.unwrap().status(), 503);
    relay.until_open(0).await;
    relay.stop().await;
}

/// Everybody hears of one event, and the relay does not look at its log again and again while they wait.
#[actix_rt::test(system = "crate::support::System")]
async fn a_thousand_who_wait_are_woken_by_one_event() {
    const POLLS: u64 = 1000;
    let settings = EgressSettings { tick: Duration::from_secs(1), ..EgressSettings::default() };
    let relay = Relay::start(settings, 1024 * 1024).await;
    relay.publish("a", 1).await;
    let client = reqwest::Client::new();
    let polls: Vec<_> = (0..POLLS)
        .map(|n| {
            let request = match n % 3 {
                0 => client.get(relay.url("a/stream?format=conduit&heartbeat=2m")),
                1 => client.get(relay.url("a/events?after=1&wait=120")),
                _ => client.get(relay.url(&format!("a/events?after=1&wait=120&types=message,t{n}"))),
            };
            tokio::spawn(async move { request.send().await.unwrap().json::<Value>().await.unwrap() })
        })
        .collect();
    relay.until_open(POLLS).await;
    relay.publish("b", 50).await;
    relay.publish("a", 1).await;
    for poll in polls {
        assert_eq!(seqs(&in_time(poll).await.unwrap()), [52]);
    }
    eventually(|| relay.counts().open == 0).await;
    assert_eq!(relay.counts().opened, POLLS);
    relay.stop().await;
}
