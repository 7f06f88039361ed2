//! Every attempt is remembered: when, how often, what the endpoint said, what is next and why not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hookcast_core::clock::{Clock as _, ManualClock, Timestamp};
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::{Attempt, HistoryPage, Seq, Success};
use hookcast_delivery::attempts::{AttemptsQuery, NEWEST};
use hookcast_delivery::lane::LaneContext;
use hookcast_delivery::telling::DeliveryState;
use hookcast_log::storage::LedgerChange;
use serde_json::{Value, json};

use crate::faults::letters::dying;
use crate::faults::{context, holding, start};
use crate::storage::make;
use crate::support::faults::Script;
use crate::support::{Answer, Receiver, Relay, eventually};

fn items(page: &Value) -> &Vec<Value> {
    page["items"].as_array().unwrap()
}

/// All pages of the attempts, by `next`.
async fn all_attempts(relay: &Relay, id: &str, query: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = relay.get(&format!("/v1/subscriptions/{id}/attempts?{query}{after}")).await;
        found.extend(items(&page).clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn who_asks_is_told_when_what_and_how_often() {
    let mut relay = Relay::start().await;
    let receiver =
        Receiver::with(|_, n| if n < 2 { Answer::status(503).body("x".repeat(5000)) } else { Answer::status(202) }).await;
    let retry = json!({"retry": {"max_attempts": 5, "schedule": ["20ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", retry).await;
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("a", seq, "delivered").await;
    let check = async |relay: &Relay| {
        let view = relay.delivery("a", seq).await;
        let attempts = view["attempts"].as_array().unwrap();
        let told: Vec<_> =
            attempts.iter().map(|one| (one["n"].as_u64(), one["status"].as_u64(), one["outcome"].as_str())).collect();
        let (failure, success) = (Some("failure"), Some("success"));
        assert_eq!(told, [(Some(1), Some(503), failure), (Some(2), Some(503), failure), (Some(3), Some(202), success)]);
        assert_eq!(attempts[0]["error"], "status_503");
        assert_eq!(attempts[0]["response"].as_str().unwrap().len(), 4096);
        assert_eq!((&attempts[2]["error"], &attempts[2]["response"]), (&Value::Null, &Value::Null));
        let list = all_attempts(relay, "a", "limit=2").await;
        let mut newest_first = attempts.clone();
        newest_first.reverse();
        assert_eq!(list, newest_first);
        assert_eq!(all_attempts(relay, "a", "outcome=success").await, newest_first[..1]);
        assert_eq!(all_attempts(relay, "a", "outcome=failure").await, newest_first[1..]);
        assert_eq!(all_attempts(relay, "a", "since=1h").await.len(), 3);
        assert!(all_attempts(relay, "a", "since=2100-01-01T00:00:00Z").await.is_empty());
        let status = relay.status("a").await;
        assert_eq!((&status["last_attempt"]["n"], &status["last_attempt"]["status"]), (&json!(3), &json!(202)));
    };
    // From memory, then from what was saved.
    check(&relay).await;
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    check(&relay).await;
    let places = ["1", "1-2-3", "1-2-x-1", "1-2-+3-1", "1-2-3-4", "1-2-3-1-5"].map(|place| format!("after={place}"));
    for wrong in ["outcome=maybe", "since=yesterday", "limit=0"].into_iter().chain(places.iter().map(String::as_str)) {
        let (status, _) = relay.ask("GET", &format!("/v1/subscriptions/a/attempts?{wrong}"), None).await;
        assert_eq!(status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn thousands_of_successes_are_listed_once_each_and_survive_a_kill() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::start().await;
    for id in ["a", "b", "c"] {
        relay.subscribe(id, receiver.url(), "t", json!({})).await;
    }
    let seqs: BTreeSet<u64> = relay.publish_numbers("t", 0..3000).await.into_iter().collect();
    relay.status_becomes("b", json!({"delivered_total": 3000, "in_flight": 0})).await;
    let of = |attempts: &[Value]| attempts.iter().map(|one| one["seq"].as_u64().unwrap()).collect::<BTreeSet<_>>();
    let list = all_attempts(&relay, "b", "limit=700").await;
    assert_eq!((list.len(), of(&list)), (3000, seqs.clone()));
    assert!(list.windows(2).all(|pair| pair[0]["at"].as_str() >= pair[1]["at"].as_str()), "newest first");
    // What is saved stays, and nothing is there twice.
    eventually("everything saved", async || (relay.status("b").await["cursor"] == 3000).then_some(())).await;
    relay.publish("t", "{}").await;
    eventually("the last one", async || (relay.status("b").await["cursor"] == 3001).then_some(())).await;
    // A seek is answered once its lane has saved.
    relay.must("POST", "/v1/subscriptions/b/seek", json!({"to": "latest"})).await;
    relay.kill9().await;
    relay.restart().await;
    let after = all_attempts(&relay, "b", "limit=1000").await;
    let known = of(&after);
    assert!(known.is_superset(&seqs), "{} of 3000 are known", known.len());
    let mut pairs = BTreeSet::new();
    assert!(after.iter().all(|one| pairs.insert((one["seq"].as_u64(), one["at"].as_str().map(str::to_owned)))));
}

#[tokio::test]
async fn only_failures_are_remembered_when_that_is_asked_for() {
    let relay = Relay::start_with("[history]\nattempts = \"failures\"\n").await;
    let receiver = Receiver::with(|_, n| Answer::status(if n == 0 { 500 } else { 200 })).await;
    relay.subscribe("a", receiver.url(), "t", json!({"retry": {"schedule": ["20ms"], "jitter": 0.0}})).await;
    let seq = relay.publish("t", "{}").await;
    let view = relay.delivery_becomes("a", seq, "delivered").await;
    assert_eq!(view["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(all_attempts(&relay, "a", "").await.len(), 1);
}

#[tokio::test]
async fn what_is_not_delivered_is_listed_with_what_comes_next() {
    let relay = Relay::start().await;
    let receiver =
        Receiver::with(
            |delivery, _| {
                if delivery.text() == "{\"n\":0}" { Answer::status(400) } else { Answer::ok().when_released() }
            },
        )
        .await;
    let more = json!({"max_in_flight": 1, "types": ["message"], "retry": {"max_attempts": 9, "schedule": ["1h"]}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    let seqs = relay.publish_numbers("t", 0..6).await;
    relay.publish("other", "{}").await;
    relay.status_becomes("a", json!({"retrying": 1, "in_flight": 1})).await;
    let page = relay.get("/v1/subscriptions/a/undelivered").await;
    let listed: Vec<_> =
        items(&page).iter().map(|item| (item["seq"].as_u64().unwrap(), item["state"].as_str().unwrap())).collect();
    let mut wanted: Vec<_> = seqs.iter().map(|seq| (*seq, "pending")).collect();
    wanted[0].1 = "retrying";
    assert_eq!((listed, &page["next"]), (wanted, &Value::Null));
    assert!(items(&page)[0]["next_attempt_at"].is_string() && items(&page)[1]["next_attempt_at"].is_null());
    let first = relay.get("/v1/subscriptions/a/undelivered?limit=4").await;
    assert_eq!((items(&first).len(), &first["next"]), (4, &json!(seqs[3])));
    let rest = relay.get(&format!("/v1/subscriptions/a/undelivered?limit=4&after={}", seqs[3])).await;
    assert_eq!((items(&rest).len(), &rest["next"]), (2, &Value::Null));
    receiver.release(10);
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    assert_eq!(items(&relay.get("/v1/subscriptions/a/undelivered").await).len(), 1);
}

/// The wall clock was moved back since the subscription was made.
#[actix_rt::test(system = "crate::support::System")]
async fn an_attempt_is_found_that_began_before_its_subscription_was_made_by_the_clock() {
    let (store, receiver) = (holding(1).await, Receiver::start().await);
    let made_at = Timestamp(1_800_000_000_000);
    let record = SubscriptionRecord { created_at: made_at, starts_after: Seq(1), ..dying("s", &receiver) };
    store.catalog.put_subscription(record, 0).await.unwrap();
    let clock = ManualClock::starting_at(Timestamp(made_at.0 - 200_000));
    let context = context(&store, &Script::default()).await;
    let context = LaneContext { remembers_successes: true, clock: Arc::new(clock.clone()), ..context };
    let record = context.registry.get("s").unwrap();
    let success = |seq: u64, after_ms: i64| {
        let at = Timestamp(made_at.0 + after_ms);
        Success { ordinal: record.ordinal, seq: Seq(seq), at, n: 1, latency_ms: 4, status: 200 }
    };
    // One a page, but for what a replay posted, which stands beside something newer.
    let pages = [vec![success(1, -300_000), success(2, -300_000)], vec![success(3, 0)], vec![success(4, 1)]];
    let history = (1..).zip(&pages).map(|(id, page)| HistoryPage::encode(id, page).unwrap()).collect();
    let lease = store.ledger.lease(record.ordinal.partition()).await.unwrap();
    store.ledger.commit(vec![LedgerChange { history, ..LedgerChange::new(lease) }]).await.unwrap();
    let lanes = start(context).await;
    let view = lanes.delivery(&record, Seq(1)).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempts.len()), (DeliveryState::Delivered, 1));
    // The clock goes on, and is past the time at which the subscription was made in the end.
    for is_past in [false, true] {
        assert_eq!(clock.now() >= made_at, is_past);
        for limit in [1, 2, 10] {
            let mut query = AttemptsQuery { is_success: None, since: Timestamp(0), before: NEWEST, limit };
            let mut listed = Vec::new();
            loop {
                let page = lanes.attempts(&record, query).await.unwrap().unwrap();
                listed.extend(page.items.iter().map(|attempt| attempt.seq.0));
                let Some(next) = page.next.filter(|_| listed.len() <= 4) else { break };
                query.before = next;
            }
            assert_eq!(listed, [4, 3, 2, 1], "{limit} at a time, past: {is_past}");
        }
        assert_eq!(lanes.last_attempt(&record).await.unwrap().map(|attempt| attempt.seq), Some(Seq(4)));
        clock.advance(Duration::from_mins(5));
    }
}

/// A seek can begin an event anew within a millisecond: a failure and a success of one number.
#[actix_rt::test(system = "crate::support::System")]
async fn a_list_that_is_cut_between_two_attempts_of_one_moment_has_both() {
    let (store, receiver) = (holding(1).await, Receiver::start().await);
    let mut record = dying("s", &receiver);
    record.starts_after = Seq(1);
    store.catalog.put_subscription(record, 0).await.unwrap();
    let context = context(&store, &Script::default()).await;
    let record = context.registry.get("s").unwrap();
    let ordinal = record.ordinal;
    let at = [record.created_at.0 + 7, record.created_at.0 + 8];
    let failures = at.map(|at| (ordinal, make::attempt(1, 1, at))).to_vec();
    let success = |at| Success { ordinal, seq: Seq(1), at: Timestamp(at), n: 1, latency_ms: 4, status: 200 };
    let history = vec![HistoryPage::encode(1, &at.map(success)).unwrap()];
    let lease = store.ledger.lease(ordinal.partition()).await.unwrap();
    store.ledger.commit(vec![LedgerChange { failures, history, ..LedgerChange::new(lease) }]).await.unwrap();
    let lanes = start(context).await;
    for (is_success, expected) in [
        (None, vec![(at[1], true), (at[1], false), (at[0], true), (at[0], false)]),
        (Some(true), vec![(at[1], true), (at[0], true)]),
        (Some(false), vec![(at[1], false), (at[0], false)]),
    ] {
        let mut query = AttemptsQuery { is_success, since: Timestamp(0), before: NEWEST, limit: 1 };
        let mut listed: Vec<Attempt> = Vec::new();
        loop {
            let page = lanes.attempts(&record, query).await.unwrap().unwrap();
            listed.extend(page.items);
            let Some(next) = page.next.filter(|_| listed.len() <= expected.len()) else { break };
            query.before = next;
        }
        let listed: Vec<_> = listed.iter().map(|one| (one.at.0, one.error.is_none())).collect();
        assert_eq!(listed, expected, "{is_success:?}");
    }
}
