//! How the relay ends, and what another process meets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, PATIENCE, Receiver, Relay, eventually, for_a_while};

/// Publishes one event after the other until the relay takes no more; counts those accepted.
async fn publish_until_refused(url: String, client: reqwest::Client, accepted: Arc<AtomicU64>) {
    for n in 0.. {
        let request = client.post(format!("{url}/v1/topics/t/events")).header("content-type", "application/json");
        match request.body(format!("{{\"n\":{n}}}")).send().await {
            Ok(response) if response.status() == 202 => accepted.fetch_add(1, Ordering::SeqCst),
            Ok(response) => {
                assert_eq!(response.status(), 503, "an answer that says to come back");
                return;
            }
            Err(_) => return,
        };
    }
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_repeats_nothing() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::ok().after(Duration::from_millis(30))).await;
    relay.subscribe("a", receiver.url(), "t", json!({"max_in_flight": 8})).await;
    let stream = relay.client.get(format!("{}/v1/topics/t/stream?since=earliest", relay.url)).send().await.unwrap();
    let stream = tokio::spawn(async move { stream.text().await });
    let accepted = Arc::new(AtomicU64::new(0));
    let publisher = tokio::spawn(publish_until_refused(relay.url.clone(), relay.client.clone(), Arc::clone(&accepted)));
    receiver.sees(30).await;
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.log());
    publisher.await.unwrap();
    assert_eq!(receiver.open(), 0, "everything in flight was answered");
    // The end of the stream is the end of its framing, not a broken connection.
    let text = tokio::time::timeout(PATIENCE, stream).await.unwrap().unwrap().expect("a clean end");
    let streamed = text.lines().filter(|line| !line.is_empty()).count();
    assert!(streamed >= 30, "{streamed}");
    let before = receiver.count();
    relay.restart().await;
    let accepted = accepted.load(Ordering::SeqCst);
    let status = relay.status_becomes("a", json!({"lag": 0, "in_flight": 0, "retrying": 0})).await;
    assert!(status["head"].as_u64().unwrap() >= accepted);
    let mut times: HashMap<u64, u32> = HashMap::new();
    for delivery in receiver.seen() {
        *times.entry(delivery.seq()).or_default() += 1;
    }
    assert_eq!(times.len() as u64, status["head"].as_u64().unwrap(), "all came");
    assert!(times.values().all(|count| *count == 1), "{before} before the restart: {times:?}");
}

/// An endpoint that answers while the relay ends wants nothing more.
#[tokio::test]
async fn what_a_receiver_says_last_is_stored_and_told() {
    let receiver = Receiver::with(|_, _| Answer::ok().header("webhook-delivery", "disable").when_released()).await;
    let mut relay = Relay::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    relay.publish("t", "{}").await;
    eventually("an open request", async || (receiver.open() == 1).then_some(())).await;
    relay.signal("TERM").await;
    relay.log_says("a second signal stops at once").await;
    receiver.release(1);
    assert_eq!(relay.ended().await, Some(0), "{}", relay.log());
    relay.restart().await;
    let shown = relay.get("/v1/subscriptions/a").await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("disabled"), &json!("receiver")));
    let told = relay.get("/v1/topics/hookcast.ops/events?after=0").await;
    assert_eq!(told["events"][0]["type"], "subscription.disabled", "{told}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::never()).await;
    relay.subscribe("a", receiver.url(), "t", json!({"timeout": "60s"})).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    eventually("an open request", async || (receiver.open() == 1).then_some(())).await;
    relay.signal("TERM").await;
    relay.log_says("a second signal stops at once").await;
    let began = Instant::now();
    relay.signal("INT").await;
    assert_eq!(relay.ended().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "less than it gives what is in flight");
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    relay.delivery_becomes("a", seq, "delivered").await;
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_sent_away() {
    let relay = Relay::start().await;
    assert_eq!(relay.second_process().await, Some(75));
    assert_eq!(relay.publish("t", "{}").await, 1, "the first goes on");
    assert!(!relay.log().contains("took this relay's subscriptions over"));
}

#[tokio::test]
async fn an_idle_relay_with_open_streams_stops_soon() {
    let mut relay = Relay::start().await;
    let mut streams = Vec::new();
    for format in ["ndjson", "sse", "json-seq", "raw", "length", "multipart"] {
        let url = format!("{}/v1/topics/**/stream?format={format}", relay.url);
        streams.push(relay.client.get(url).send().await.unwrap());
    }
    let began = Instant::now();
    assert_eq!(relay.terminate().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for stream in streams {
        tokio::time::timeout(PATIENCE, stream.bytes()).await.unwrap().expect("a clean end");
    }
}

#[tokio::test]
async fn what_the_configuration_declares_keeps_its_cursor_over_restarts() {
    let receiver = Receiver::start().await;
    let moved = Receiver::start().await;
    let declared = |url: &str| {
        format!(
            "[[subscriptions]]\nid = \"billing\"\nurl = \"{url}\"\ntopics = [\"orders.*\"]\nfrom = \"earliest\"\nmax_in_flight = 1\n\
             signature = {{ scheme = \"standard\", secret = \"{}\" }}\n",
            crate::support::SECRET
        )
    };
    let mut relay = Relay::start_with(&declared(receiver.url())).await;
    relay.publish_numbers("orders.new", 0..5).await;
    for delivery in receiver.sees(5).await {
        delivery.verify();
    }
    relay.status_becomes("billing", json!({"cursor": 5})).await;
    assert_eq!(relay.ask("DELETE", "/v1/subscriptions/billing", None).await.0, 409);
    assert_eq!(relay.ask("PATCH", "/v1/subscriptions/billing", Some(&json!({"url": moved.url()}))).await.0, 409);
    assert_eq!(relay.terminate().await, Some(0));
    // Another address: the cursor stays, although `from` says earliest.
    relay.configure(&declared(moved.url()));
    relay.restart().await;
    relay.publish_numbers("orders.new", 5..8).await;
    let seqs: Vec<_> = moved.sees(3).await.iter().map(crate::support::Delivery::seq).collect();
    assert_eq!((seqs, receiver.count()), (vec![6, 7, 8], 5));
    // Killed and started with the same words: the same again.
    for_a_while(Duration::from_secs(1)).await;
    relay.kill9().await;
    relay.restart().await;
    relay.publish_numbers("orders.new", 8..9).await;
    assert_eq!(moved.sees(4).await.last().unwrap().seq(), 9);
    assert_eq!(moved.count(), 4);
    // No longer declared: it stays, and may be deleted.
    assert_eq!(relay.terminate().await, Some(0));
    relay.configure("");
    relay.restart().await;
    assert_eq!(relay.get("/v1/subscriptions/billing").await["declared"], false);
    assert_eq!(relay.ask("DELETE", "/v1/subscriptions/billing", None).await.0, 204);
}

#[tokio::test]
async fn a_declared_source_goes_on_behind_its_token() {
    let upstream = crate::support::upstream::CountingUpstream::start(Duration::from_millis(1), 40, 0).await;
    let declared = format!("[[sources]]\nname = \"up\"\nprotocol = \"sse\"\nurl = \"{}\"\ntopic = \"feed\"\n", upstream.url);
    let mut relay = Relay::start_with(&declared).await;
    eventually("forty events", async || (relay.get("/v1/sources/up").await["counts"]["events"] == 40).then_some(())).await;
    let shown = relay.get("/v1/sources/up").await;
    assert_eq!((&shown["resume_token"], &shown["state"], &shown["declared"]), (&json!("40"), &json!("connected"), &json!(true)));
    relay.kill9().await;
    relay.restart().await;
    eventually("a second connection", async || (upstream.asked().len() >= 2).then_some(())).await;
    assert_eq!(upstream.asked(), [None, Some(40)]);
    assert_eq!(relay.ask("DELETE", "/v1/sources/up", None).await.0, 409);
    let topics = relay.get("/v1/topics").await;
    let feed: Vec<&Value> = topics["items"].as_array().unwrap().iter().filter(|topic| topic["topic"] == "feed").collect();
    assert_eq!(feed[0]["events"], 40);
}
