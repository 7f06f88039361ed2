//! What `kill -9` leaves: nothing accepted is lost, and little is repeated.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::upstream::CountingUpstream;
use crate::support::{Answer, PATIENCE, Receiver, Relay, eventually, for_a_while};

/// Unless `KILLS` says how many.
const KILLS: usize = 20;
const IN_FLIGHT: u64 = 16;
/// A save follows the first change by 50 ms, under load by 250 ms, or by twenty times as long as the save before took; this
/// much is a save of a slow disk.
const SAVE_WINDOW: Duration = Duration::from_secs(1);

/// Publishes until the relay is gone; what was accepted: seq and number.
async fn publish_on(url: String, client: reqwest::Client, mut number: u64) -> (u64, Vec<(u64, u64)>) {
    let mut accepted = Vec::new();
    loop {
        let body: String = (number..number + 10).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        let request = client.post(format!("{url}/v1/topics/load/events")).header("content-type", "application/x-ndjson");
        let numbers = number..;
        // Whatever becomes of them, these numbers are used up.
        number += 10;
        let Ok(response) = request.body(body).send().await else { return (number, accepted) };
        let status = response.status();
        let Ok(answer) = response.json::<Value>().await else { return (number, accepted) };
        assert_eq!(status, 202, "{answer}");
        let seqs = answer["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap());
        accepted.extend(seqs.zip(numbers));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads the stream of everything until it breaks and notes each event; positions must follow each other.
async fn read_on(url: String, client: reqwest::Client, seen: Arc<Mutex<BTreeMap<u64, String>>>) {
    let last = seen.lock().unwrap().last_key_value().map_or(0, |(seq, _)| *seq);
    let Ok(response) = client.get(format!("{url}/v1/topics/**/stream?since={last}")).send().await else { return };
    let mut body = response.bytes_stream();
    let (mut buffered, mut last) = (Vec::new(), last);
    while let Some(Ok(bytes)) = body.next().await {
        buffered.extend_from_slice(&bytes);
        while let Some(end) = buffered.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffered.drain(..=end).collect();
            if line.len() > 1 {
                let (seq, data) = event_of(&line);
                assert_eq!(seq, last + 1, "positions follow each other");
                last = seq;
                seen.lock().unwrap().insert(seq, data);
            }
        }
    }
}

fn event_of(line: &[u8]) -> (u64, String) {
    let event: Value = serde_json::from_slice(line).unwrap();
    (event["seq"].as_str().unwrap().parse().unwrap(), format!("{} {}", event["topic"].as_str().unwrap(), event["data"]))
}

/// Everything in the log.
async fn whole_log(relay: &Relay) -> BTreeMap<u64, String> {
    let head =
        relay.get("/v1/topics").await["items"].as_array().unwrap().iter().map(|topic| topic["last_seq"].as_u64().unwrap()).max();
    let url = format!("{}/v1/topics/**/stream?since=earliest&limit={}", relay.url, head.unwrap());
    let text = tokio::time::timeout(PATIENCE, relay.client.get(url).send().await.unwrap().text()).await.unwrap().unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| event_of(line.as_bytes())).collect()
}

#[tokio::test]
async fn kills_under_load_lose_nothing_and_repeat_little() {
    let rounds = std::env::var("KILLS").map_or(KILLS, |text| text.parse().expect("a number of kills"));
    let mut relay = Relay::start().await;
    let upstream = CountingUpstream::start(Duration::from_millis(2), u64::MAX - 1, 20).await;
    let receivers = [Receiver::start().await, Receiver::start().await];
    for (id, receiver) in ["a", "b"].into_iter().zip(&receivers) {
        receiver.keep_little();
        relay.subscribe(id, receiver.url(), "**", json!({"max_in_flight": IN_FLIGHT})).await;
    }
    relay.must("POST", "/v1/sources", json!({"name": "up", "protocol": "sse", "url": upstream.url, "topic": "feed"})).await;
    let streamed: Arc<Mutex<BTreeMap<u64, String>>> = Arc::default();
    let (mut accepted, mut number, mut kills) = (Vec::new(), 0, Vec::new());
    for kill in 0..rounds {
        let publisher = tokio::spawn(publish_on(relay.url.clone(), relay.client.clone(), number));
        let reader = tokio::spawn(read_on(relay.url.clone(), relay.client.clone(), Arc::clone(&streamed)));
        for_a_while(Duration::from_millis(600 + 37 * (kill % KILLS) as u64)).await;
        relay.kill9().await;
        let (next, more) = publisher.await.unwrap();
        (number, accepted) = (next, [accepted, more].concat());
        reader.await.unwrap();
        // What the killed program had sent may still lie in a socket; noted as after the kill, it would look like a repeat
        // without one.
        for receiver in &receivers {
            receiver.has_heard_all().await;
        }
        kills.push(Instant::now());
        relay.restart().await;
    }
    relay.must("DELETE", "/v1/sources/up", Value::Null).await;
    let head = relay.publish("load", "\"last\"").await;
    for id in ["a", "b"] {
        relay.status_becomes(id, json!({"cursor": head, "lag": 0, "retrying": 0, "in_flight": 0})).await;
    }
    let log = whole_log(&relay).await;
    assert_eq!(log.len() as u64, head, "no position is missing");
    assert!(accepted.len() > 100 * rounds / 2, "{} accepted are no load", accepted.len());
    for (seq, n) in &accepted {
        assert_eq!(log.get(seq), Some(&format!("load {{\"n\":{n}}}")), "an accepted event is lost");
    }
    for (seq, data) in streamed.lock().unwrap().iter() {
        assert_eq!(log.get(seq), Some(data), "a streamed event is lost");
    }
    let fed: Vec<_> = log.values().filter(|data| data.starts_with("feed ")).cloned().collect();
    assert!(fed.len() > 100, "{} from the source", fed.len());
    let wanted: Vec<_> = (1..=fed.len()).map(|n| format!("feed {{\"n\":{n}}}")).collect();
    assert_eq!(fed, wanted, "the source missed or doubled something");
    assert!(upstream.asked().iter().skip(1).all(Option::is_some), "every connection but the first resumes");
    for receiver in &receivers {
        check_repeats(receiver, &log, &kills);
    }
}

/// Each event came at least once; what came again had come shortly before a kill, or was open then.
fn check_repeats(receiver: &Receiver, log: &BTreeMap<u64, String>, kills: &[Instant]) {
    let mut came: HashMap<u64, Vec<Instant>> = HashMap::new();
    for delivery in receiver.seen() {
        came.entry(delivery.seq()).or_default().push(delivery.at);
    }
    assert!(log.keys().all(|seq| came.contains_key(seq)), "an event was not delivered");
    assert_eq!(came.len(), log.len());
    let mut early = 0;
    let mut repeats = 0;
    let mut oldest = Duration::ZERO;
    for times in came.values() {
        for pair in times.windows(2) {
            repeats += 1;
            let kill = kills.iter().find(|kill| **kill >= pair[0]).expect("repeats come of kills only");
            assert!(pair[1] >= *kill, "repeated without a kill, {:?} after the first time", pair[1] - pair[0]);
            let before = *kill - pair[0];
            oldest = oldest.max(before);
            early += u64::from(before > SAVE_WINDOW);
        }
    }
    println!("{} events, {} kills, {repeats} repeats, the oldest came {oldest:?} before a kill", log.len(), kills.len());
    assert!(early <= IN_FLIGHT * kills.len() as u64, "{early} repeats of what was settled long before");
}

#[tokio::test]
async fn one_hanging_request_among_very_many_repeats_only_itself() {
    // As many as the program built without optimisation delivers within one request's time-out on a busy machine.
    const EVENTS: u64 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let mut relay = Relay::start().await;
    let receiver =
        Receiver::with(|delivery, _| if delivery.body == b"{\"n\":10}" { Answer::never() } else { Answer::ok() }).await;
    receiver.keep_little();
    relay.subscribe("a", receiver.url(), "t", json!({"timeout": "60s", "max_in_flight": 64})).await;
    relay.publish_numbers("t", 0..EVENTS).await;
    // The first of them is delivered within the time that one request may take, so nothing is tried twice.
    eventually("all but one delivered", async || (relay.status("a").await["delivered_total"] == EVENTS - 1).then_some(())).await;
    assert_eq!(receiver.count() as u64, EVENTS);
    for_a_while(SAVE_WINDOW).await;
    relay.kill9().await;
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    relay.status_becomes("a", json!({"cursor": EVENTS, "in_flight": 0})).await;
    let seen = receiver.seen();
    let again: Vec<_> = seen[EVENTS as usize..].iter().map(|delivery| delivery.text().to_owned()).collect();
    assert_eq!(again, ["{\"n\":10}"]);
    let first = seen.iter().find(|delivery| delivery.body == b"{\"n\":10}").unwrap();
    assert_eq!(seen.last().unwrap().id(), first.id());
}
