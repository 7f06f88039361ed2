//! Changes of what a subscription wants: from which position on they judge, and that each event goes out and is told by the
//! definition in force there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, Delivery, Receiver, Relay, eventually};

/// One lane, so that what one subscription got was looked at by all.
const ONE_LANE: &str = "[delivery]\nlanes = 1\n";

async fn patch(relay: &Relay, id: &str, body: Value) -> Value {
    relay.must("PATCH", &format!("/v1/subscriptions/{id}"), body).await
}

/// `[(seq, state)]` of everything up to `head`.
async fn told(relay: &Relay, id: &str, head: u64) -> Vec<(u64, String)> {
    let mut told = Vec::new();
    for seq in 1..=head {
        told.push((seq, relay.delivery(id, seq).await["state"].as_str().unwrap().to_owned()));
    }
    told
}

fn states(states: &[(u64, &str)]) -> Vec<(u64, String)> {
    states.iter().map(|(seq, state)| (*seq, (*state).to_owned())).collect()
}

/// Publishes one event to each of these topics, and waits until the lane has looked at all of them.
async fn publish(relay: &Relay, witness: &Receiver, topics: &[&str]) {
    for topic in topics {
        let seq = relay.publish(topic, "{}").await;
        eventually("the lane to look at it", async || witness.seen().iter().any(|one| one.seq() == seq).then_some(())).await;
    }
}

async fn with_witness() -> (Relay, Receiver) {
    let (relay, witness) = (Relay::start_with(ONE_LANE).await, Receiver::start().await);
    relay.subscribe("witness", witness.url(), "**", json!({})).await;
    (relay, witness)
}

#[tokio::test]
async fn what_was_passed_over_stays_so_and_what_was_sent_is_told_as_sent() {
    let (relay, witness) = with_witness().await;
    let receiver =
        Receiver::with(|delivery, _| if delivery.seq() == 1 { Answer::ok().when_released() } else { Answer::ok() }).await;
    relay.subscribe("a", receiver.url(), "a", json!({})).await;
    publish(&relay, &witness, &["a", "b", "a", "b"]).await;
    receiver.sees(2).await;
    assert_eq!(relay.status("a").await["cursor"], 0, "the first is open");
    let changed = patch(&relay, "a", json!({"topics": ["b"]})).await;
    assert_eq!(changed["effective_from"], 5);
    receiver.release(1);
    publish(&relay, &witness, &["b", "a"]).await;
    receiver.sees(3).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    assert_eq!(receiver.seqs(), [1, 3, 5]);
    let expected = [(1, "delivered"), (2, "filtered"), (3, "delivered"), (4, "filtered"), (5, "delivered"), (6, "filtered")];
    assert_eq!(told(&relay, "a", 6).await, states(&expected));
    assert_eq!(relay.get("/v1/subscriptions/a").await["effective_from"], 5);
    // Other fields have nothing to do with it, and who changes nothing changes nothing.
    let described = patch(&relay, "a", json!({"description": "x"})).await;
    assert!(described.get("effective_from").is_none(), "{described}");
    assert_eq!(patch(&relay, "a", json!({"topics": ["b"]})).await["revision"], described["revision"]);
    assert_eq!(relay.get("/v1/subscriptions/a").await["effective_from"], 5);
    assert!(relay.get("/v1/subscriptions/witness").await.get("effective_from").is_none());
}

#[tokio::test]
async fn what_waits_behind_everything_looked_at_is_judged_anew() {
    let (relay, witness) = with_witness().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    relay.subscribe("a", receiver.url(), "a", json!({"max_in_flight": 1})).await;
    publish(&relay, &witness, &["b", "a", "b", "a", "b", "a"]).await;
    receiver.sees(1).await;
    // 1 was passed over, 2 is open, 3 was passed over on the way to 4, which waits with what is behind it.
    let changed = patch(&relay, "a", json!({"topics": ["b"]})).await;
    assert_eq!(changed["effective_from"], 4);
    let expected = [(1, "filtered"), (2, "pending"), (3, "filtered"), (4, "filtered"), (5, "pending"), (6, "filtered")];
    assert_eq!(told(&relay, "a", 6).await, states(&expected));
    let list = relay.get("/v1/subscriptions/a/undelivered").await;
    let listed: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect();
    assert_eq!(listed, [2, 5]);
    // The same when memory was given back meanwhile.
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    assert_eq!(patch(&relay, "a", json!({"topics": ["b", "c"]})).await["effective_from"], 5);
    publish(&relay, &witness, &["c", "a", "b"]).await;
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    receiver.release(9);
    receiver.sees(4).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    assert_eq!(receiver.seqs(), [2, 5, 7, 9]);
}

#[tokio::test]
async fn a_backlog_is_judged_by_the_definition_that_it_meets() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"filter": "data.n < 100"})).await;
    relay.publish_numbers("t", 0..3).await;
    relay.status_becomes("a", json!({"cursor": 3})).await;
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    relay.publish_numbers("t", 3..1500).await;
    // Far behind the head, and several in a row: the last one counts.
    let mut from = Value::Null;
    for filter in ["data.n >= 1000", "data.n == 7", "data.n >= 1400"] {
        from = patch(&relay, "a", json!({"filter": filter})).await["effective_from"].clone();
    }
    assert_eq!(from, 4);
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0, "delivered_total": 103})).await;
    let got: BTreeSet<u64> = receiver.of_each(Delivery::seq).into_iter().collect();
    assert_eq!(got, (1..=3).chain(1401..=1500).collect());
    for (seq, state) in [(3, "delivered"), (4, "filtered"), (1400, "filtered"), (1401, "delivered")] {
        assert_eq!(relay.delivery("a", seq).await["state"], state, "{seq}");
    }
}

#[tokio::test]
async fn retries_go_out_although_they_are_not_wanted_any_more() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, before| Answer::status(if before < 12 { 500 } else { 200 })).await;
    let retry = json!({"retry": {"max_attempts": 50, "schedule": ["100ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "a", retry).await;
    let seqs = relay.publish_numbers("a", 0..10).await;
    relay.status_becomes("a", json!({"circuit": "open"})).await;
    let later = relay.publish_numbers("a", 10..20).await;
    let changed = patch(&relay, "a", json!({"topics": ["b"]})).await;
    let from = changed["effective_from"].as_u64().unwrap();
    assert!(from > seqs[9], "{from}");
    let wanted = relay.publish_numbers("b", 0..5).await;
    // Another endpoint is asked without the past of the one before.
    let well = Receiver::start().await;
    patch(&relay, "a", json!({"url": well.url()})).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0, "retrying": 0})).await;
    let got: BTreeSet<u64> = well.of_each(Delivery::seq).into_iter().collect();
    let before = seqs.iter().chain(&later).filter(|seq| **seq < from);
    assert_eq!(got, before.chain(&wanted).copied().collect());
    for seq in 1..=wanted[4] {
        let state = if got.contains(&seq) { "delivered" } else { "filtered" };
        assert_eq!(relay.delivery("a", seq).await["state"], state, "{seq}");
    }
}

#[tokio::test]
async fn a_change_holds_over_a_kill() {
    let (mut relay, witness) = with_witness().await;
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    for (id, more) in [("plain", json!({"max_in_flight": 1})), ("strict", json!({"ordering": "strict"}))] {
        relay.subscribe(id, &format!("{}/{id}", receiver.url()), "a", more).await;
    }
    publish(&relay, &witness, &["a", "b", "a", "b", "a"]).await;
    receiver.sees(2).await;
    for id in ["plain", "strict"] {
        let from = patch(&relay, id, json!({"topics": ["b"]})).await["effective_from"].clone();
        assert_eq!(from, if id == "plain" { 3 } else { 6 }, "{id}: those behind an open one stand aside, which is open as well");
    }
    relay.kill9().await;
    relay.restart().await;
    receiver.release(100);
    let last = relay.publish("b", "{}").await;
    for id in ["plain", "strict"] {
        relay.status_becomes(id, json!({"lag": 0, "in_flight": 0})).await;
        let of_it = |one: &Delivery| one.header("hookcast-subscription") == id;
        let got: BTreeSet<u64> = receiver.seen().iter().filter(|one| of_it(one)).map(Delivery::seq).collect();
        let wanted = if id == "plain" { BTreeSet::from([1, 4, last]) } else { BTreeSet::from([1, 3, 5, last]) };
        assert_eq!(got, wanted, "{id}");
        for seq in 1..=last {
            let state = if wanted.contains(&seq) { "delivered" } else { "filtered" };
            assert_eq!(relay.delivery(id, seq).await["state"], state, "{id} {seq}");
        }
    }
}

#[tokio::test]
async fn a_seek_back_behind_a_change_judges_by_the_present_definition() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", json!({"filter": "data.n % 2 == 0"})).await;
    relay.publish_numbers("t", 0..4).await;
    relay.status_becomes("a", json!({"cursor": 4, "delivered_total": 2})).await;
    assert_eq!(patch(&relay, "a", json!({"filter": "data.n != 3"})).await["effective_from"], 5);
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": 2}})).await;
    relay.status_becomes("a", json!({"cursor": 4, "delivered_total": 4})).await;
    assert_eq!(receiver.of_each(Delivery::seq).into_iter().skip(2).collect::<BTreeSet<_>>(), BTreeSet::from([2, 3]));
    let expected = [(1, "delivered"), (2, "delivered"), (3, "delivered"), (4, "filtered")];
    assert_eq!(told(&relay, "a", 4).await, states(&expected));
    assert_eq!(relay.get("/v1/subscriptions/a").await["effective_from"], 2);
}

/// Four publishers, changes all the time: every event goes out, and is told, by the definition in force at its position.
#[tokio::test]
async fn nothing_is_lost_and_nothing_told_wrong_while_definitions_change_under_load() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    let kinds = [
        ("plain", json!({"max_in_flight": 64})),
        ("strict", json!({"ordering": "strict"})),
        ("batch", json!({"batch": {"max_events": 10, "max_wait": "20ms", "format": "ndjson"}})),
    ];
    for (id, more) in &kinds {
        relay.subscribe(id, &format!("{}/{id}", receiver.url()), "a", more.clone()).await;
    }
    let publishing = async |topic: &str| {
        let mut seqs = Vec::new();
        for n in 0..25 {
            seqs.extend(relay.publish_numbers(topic, n * 10..n * 10 + 10).await);
        }
        seqs
    };
    let changing = async {
        let mut eras = vec![vec![(1, "a")]; kinds.len()];
        for n in 0..8 {
            let topic = if n % 2 == 0 { "b" } else { "a" };
            for (eras, (id, _)) in eras.iter_mut().zip(&kinds) {
                let changed = patch(&relay, id, json!({"topics": [topic]})).await;
                eras.push((changed["effective_from"].as_u64().unwrap(), topic));
            }
        }
        eras
    };
    let (a, a2, b, b2, eras) = tokio::join!(publishing("a"), publishing("a"), publishing("b"), publishing("b"), changing);
    let of_topic = [("a", [a, a2].concat()), ("b", [b, b2].concat())];
    for ((id, _), eras) in kinds.iter().zip(eras) {
        relay.status_becomes(id, json!({"lag": 0, "in_flight": 0})).await;
        assert!(eras.is_sorted_by_key(|(from, _)| *from), "{id}: {eras:?}");
        let in_force = |seq: u64| eras.iter().rev().find(|(from, _)| *from <= seq).unwrap().1;
        let wanted: BTreeSet<u64> =
            of_topic.iter().flat_map(|(topic, seqs)| seqs.iter().filter(|seq| in_force(**seq) == *topic)).copied().collect();
        let got: BTreeSet<u64> = receiver.seen().iter().filter(|one| one.path.ends_with(id)).flat_map(seqs_of).collect();
        assert_eq!(got, wanted, "{id}");
        for seq in 1..=1000 {
            let state = if wanted.contains(&seq) { "delivered" } else { "filtered" };
            assert_eq!(relay.delivery(id, seq).await["state"], state, "{id} {seq} {eras:?}");
        }
    }
}

fn seqs_of(delivery: &Delivery) -> Vec<u64> {
    if delivery.headers.contains_key("ce-seq") {
        return vec![delivery.seq()];
    }
    let seq = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_str().unwrap().parse().unwrap();
    delivery.text().lines().map(seq).collect()
}
