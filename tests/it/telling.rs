//! What is told of one delivery: only what is known, in every way in which its event or the record of it can be gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually};

const SMALL_LOG: &str = "[retention]\nmax_bytes = \"1MiB\"\n";

/// Publishes four times what the log may hold, and waits until it begins behind `seq`.
async fn trim(relay: &Relay, seq: u64) {
    for _ in 0..16 {
        relay.publish("padding", format!("\"{}\"", "x".repeat(256 * 1024))).await;
    }
    eventually("the first events to be trimmed", async || {
        let topics = relay.get("/v1/topics").await;
        topics["items"].as_array().unwrap().iter().all(|item| item["first_seq"].as_u64().unwrap() > seq).then_some(())
    })
    .await;
}

/// State and reason.
async fn told(relay: &Relay, id: &str, seq: u64) -> (Value, Value) {
    let mut view = relay.delivery(id, seq).await;
    (view["state"].take(), view["reason"].take())
}

#[tokio::test]
async fn what_is_not_known_any_more_is_said_to_be_unknown() {
    let forgetful = format!("{SMALL_LOG}[history]\nattempts = \"failures\"\n");
    for (config, state, reason) in [(SMALL_LOG, "delivered", Value::Null), (&*forgetful, "unknown", json!("event_gone"))] {
        let mut relay = Relay::start_with(config).await;
        let receiver = Receiver::start().await;
        relay.publish("t", "{}").await;
        relay.subscribe("a", receiver.url(), "t", json!({})).await;
        relay.subscribe("paused", receiver.url(), "t", json!({})).await;
        relay.must("POST", "/v1/subscriptions/paused/pause", json!({})).await;
        let seq = relay.publish("t", "{}").await;
        let other = relay.publish("other", "{}").await;
        relay.delivery_becomes("a", seq, "delivered").await;
        relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
        assert_eq!(told(&relay, "a", other).await.0, "filtered");
        trim(&relay, other).await;
        relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
        assert_eq!(told(&relay, "paused", seq).await.0, "expired", "the cursor did not reach it in time");
        // A process that starts now has nothing of it in memory.
        assert_eq!(relay.terminate().await, Some(0));
        relay.restart().await;
        assert_eq!(told(&relay, "a", seq).await, (json!(state), reason.clone()), "{config}");
        assert_eq!(told(&relay, "a", other).await, (json!("unknown"), json!("event_gone")), "whether it was wanted");
        assert_eq!(told(&relay, "a", 1).await.0, "before_start");
        assert_eq!(told(&relay, "paused", seq).await.0, "expired");
    }
}

#[tokio::test]
async fn positions_that_a_restore_jumped_over_never_were() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let last = relay.publish_numbers("t", 0..3).await[2];
    relay.status_becomes("a", json!({"cursor": last, "in_flight": 0})).await;
    let command = ["--config", "config.toml"];
    let (code, _, error) = relay.run(&[&["backup", "copy.db"], &command[..]].concat()).await;
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(relay.terminate().await, Some(0));
    let (code, _, error) = relay.run(&[&["restore", "copy.db", "--force"], &command[..]].concat()).await;
    assert_eq!(code, Some(0), "{error}");
    relay.restart().await;
    let first = relay.publish("t", "{}").await;
    receiver.sees(4).await;
    relay.delivery_becomes("a", first, "delivered").await;
    for seq in [last + 1, last + 1000, first - 2] {
        let (status, _) = relay.ask("GET", &format!("/v1/subscriptions/a/deliveries/{seq}"), None).await;
        assert_eq!(status, 404, "{seq}");
    }
    assert_eq!(told(&relay, "a", last).await.0, "delivered");
}

#[tokio::test]
async fn what_a_seek_passes_over_is_skipped_and_what_it_goes_back_to_is_pending() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let sent = relay.publish_numbers("t", 0..2).await;
    relay.status_becomes("a", json!({"lag": 0, "delivered_total": 2})).await;
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    let waiting = relay.publish_numbers("t", 2..6).await;
    let other = relay.publish("other", "{}").await;
    let passed = relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "latest"})).await;
    assert_eq!((&passed["skipped"], &passed["expired"]), (&json!(5), &json!(0)), "{passed}");
    let check = async |relay: &Relay, states: &[(u64, &str)]| {
        for (seq, state) in states {
            assert_eq!(told(relay, "a", *seq).await.0, *state, "{seq}");
        }
    };
    let passed_over = [(sent[0], "delivered"), (waiting[0], "skipped"), (waiting[3], "skipped"), (other, "filtered")];
    check(&relay, &passed_over).await;
    let path = format!("/v1/topics/hookcast.ops/events?after={other}&wait=30");
    let notice = relay.get(&path).await["events"][0].clone();
    assert_eq!(notice["type"], "delivery.skipped", "{notice}");
    assert_eq!(
        (&notice["data"]["from"], &notice["data"]["to"], &notice["data"]["count"], &notice["data"]["subscription"]),
        (&json!(waiting[0]), &json!(other), &json!(5), &json!("a"))
    );
    relay.kill9().await;
    relay.restart().await;
    check(&relay, &passed_over).await;
    // Back into the middle of it: pending, and then what it becomes, also over a kill; the rest stays as it is.
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": waiting[2]}})).await;
    let back =
        [(sent[1], "delivered"), (waiting[1], "skipped"), (waiting[2], "pending"), (waiting[3], "pending"), (other, "filtered")];
    check(&relay, &back).await;
    let list = relay.get("/v1/subscriptions/a/undelivered").await;
    assert_eq!(
        list["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        waiting[2..]
    );
    relay.kill9().await;
    relay.restart().await;
    check(&relay, &back).await;
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    check(&relay, &[(waiting[1], "skipped"), (waiting[2], "delivered"), (waiting[3], "delivered")]).await;
    assert_eq!(receiver.seqs(), [sent[0], sent[1], waiting[2], waiting[3]]);
    // What had a success stays delivered, whoever goes over it.
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "earliest"})).await;
    check(&relay, &[(sent[0], "pending"), (waiting[0], "pending"), (waiting[3], "pending")]).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "latest"})).await;
    check(&relay, &[(sent[0], "delivered"), (waiting[0], "skipped"), (waiting[3], "delivered"), (other, "filtered")]).await;
}

#[tokio::test]
async fn what_is_open_or_stands_aside_is_skipped_as_well() {
    let relay = Relay::start().await;
    let receiver =
        Receiver::with(|delivery, _| if delivery.seq() == 2 { Answer::ok().when_released() } else { Answer::ok() }).await;
    relay.subscribe("a", receiver.url(), "t", json!({"ordering": {"key": "/k"}})).await;
    relay.publish("other", "{}").await;
    for key in ["x", "x", "y", "x"] {
        relay.publish("t", format!("{{\"k\":\"{key}\"}}")).await;
    }
    // 2 is open, 3 and 5 stand aside, 4 went past them.
    receiver.sees(2).await;
    relay.delivery_becomes("a", 4, "delivered").await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": 5}})).await;
    let mut states = Vec::new();
    for seq in 2..=4 {
        states.push(told(&relay, "a", seq).await.0);
    }
    assert_eq!(states, ["skipped", "skipped", "delivered"]);
    receiver.release(9);
    relay.delivery_becomes("a", 5, "delivered").await;
    // What was open is answered meanwhile.
    relay.delivery_becomes("a", 2, "delivered").await;
    assert_eq!(told(&relay, "a", 3).await.0, "skipped");
}

#[tokio::test]
async fn nothing_is_said_to_be_from_before_the_start_that_is_delivered_or_pending() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let seqs = relay.publish_numbers("t", 0..4).await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    assert_eq!(told(&relay, "a", seqs[0]).await.0, "before_start");
    // A replay does not make it a duty, but what it delivered is delivered.
    relay.must("POST", "/v1/subscriptions/a/replay", json!({"from": {"seq": seqs[0]}, "to": {"seq": seqs[0]}})).await;
    relay.delivery_becomes("a", seqs[0], "delivered").await;
    assert_eq!(told(&relay, "a", seqs[1]).await.0, "before_start");
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[2]}})).await;
    for (seq, state) in seqs.iter().zip(["delivered", "before_start", "pending", "pending"]) {
        assert_eq!(told(&relay, "a", *seq).await.0, state, "{seq}");
    }
    relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    for (seq, state) in seqs.iter().zip(["delivered", "before_start", "delivered", "delivered"]) {
        assert_eq!(told(&relay, "a", *seq).await.0, state, "{seq}");
    }
}

#[tokio::test]
async fn a_dead_letter_that_is_no_longer_kept_stays_dead_and_is_told_once() {
    let mut relay = Relay::start_with("[retention]\ndead_letters_max_age = \"1s\"\n").await;
    let receiver = Receiver::with(|delivery, _| Answer::status(if delivery.path.ends_with("/well") { 200 } else { 500 })).await;
    let once = json!({"retry": {"max_attempts": 1, "schedule": ["1h"]}});
    relay.subscribe("a", receiver.url(), "t", once.clone()).await;
    // One that hears of what becomes of notices that it does not take must not make more of them, for ever.
    let both = json!({"topics": ["t", "hookcast.**"], "retry": {"max_attempts": 1, "schedule": ["1h"]}});
    relay.subscribe("both", receiver.url(), "t", both).await;
    let seqs = relay.publish_numbers("t", 0..2).await;
    relay.delivery_becomes("a", seqs[0], "dead").await;
    assert_eq!(told(&relay, "a", seqs[0]).await.1, "status_500");
    relay.status_becomes("a", json!({"dead": 0, "lag": 0})).await;
    let buried = async |relay: &Relay| {
        let events = relay.get("/v1/topics/hookcast.ops/events?after=0&limit=1000").await;
        let all = events["events"].as_array().unwrap().iter().filter(|event| event["type"] == "delivery.no_longer_kept");
        all.map(|event| (event["subject"].clone(), event["data"]["from"].clone(), event["data"]["to"].clone()))
            .collect::<Vec<_>>()
    };
    eventually("both to be told", async || (buried(&relay).await.len() >= 2).then_some(())).await;
    // Both letters may have gone together or one after the other.
    for _ in 0..2 {
        for seq in &seqs {
            assert_eq!(told(&relay, "a", *seq).await, (json!("dead"), json!("no_longer_kept")));
            assert_eq!(relay.delivery("a", *seq).await["attempts"].as_array().unwrap().len(), 1);
        }
        assert_eq!(relay.status("a").await["delivered_total"], 0);
        assert_eq!(relay.terminate().await, Some(0));
        relay.restart().await;
    }
    let told_of_a = buried(&relay).await.into_iter().filter(|(subject, ..)| subject == "a").collect::<Vec<_>>();
    assert!((1..=2).contains(&told_of_a.len()), "{told_of_a:?}");
    assert_eq!((&told_of_a[0].1, &told_of_a[told_of_a.len() - 1].2), (&json!(seqs[0]), &json!(seqs[1])));
    // Once more, and well: delivered.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"url": format!("{}/well", receiver.url())})).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[1]}})).await;
    relay.delivery_becomes("a", seqs[1], "delivered").await;
    assert_eq!(told(&relay, "a", seqs[0]).await.0, "dead");
    let last = relay.publish("t", "{}").await;
    relay.delivery_becomes("a", last, "delivered").await;
    let of_both = buried(&relay).await.into_iter().filter(|(subject, ..)| subject == "both").collect::<Vec<_>>();
    assert!(of_both.iter().all(|(_, _, to)| to.as_u64() <= Some(seqs[1])), "nothing of notices is told: {of_both:?}");
}

#[tokio::test]
async fn a_dead_letter_that_dies_again_counts_once() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    relay.subscribe("a", receiver.url(), "t", json!({"retry": {"max_attempts": 1, "schedule": ["1h"]}})).await;
    let seqs = relay.publish_numbers("t", 0..5).await;
    relay.status_becomes("a", json!({"dead": 5, "lag": 0, "in_flight": 0})).await;
    let listed = async |relay: &Relay| {
        let list = relay.get("/v1/subscriptions/a/dead-letters").await;
        list["items"].as_array().unwrap().len()
    };
    for round in 1..=4u64 {
        if round == 3 {
            relay.kill9().await;
            relay.restart().await;
        }
        relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
        relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[0]}})).await;
        assert_eq!(told(&relay, "a", seqs[1]).await.0, "pending");
        relay.must("POST", "/v1/subscriptions/a/resume", json!({})).await;
        receiver.sees(usize::try_from(5 * (round + 1)).unwrap()).await;
        relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
        // A seek is answered once its lane has saved.
        assert_eq!((relay.status("a").await["dead"].as_u64(), listed(&relay).await), (Some(5), 5), "round {round}");
        relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": "latest"})).await;
        assert_eq!((relay.status("a").await["dead"].as_u64(), listed(&relay).await), (Some(5), 5), "round {round}");
    }
    // Those that were none before count as they come, beside those that were.
    receiver.change(|_, _| Answer::ok());
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[3]}})).await;
    relay.status_becomes("a", json!({"dead": 3, "lag": 0, "in_flight": 0})).await;
    receiver.change(|_, _| Answer::status(400));
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[2]}})).await;
    relay.status_becomes("a", json!({"dead": 5, "lag": 0, "in_flight": 0})).await;
    eventually("all five listed", async || (listed(&relay).await == 5).then_some(())).await;
}

#[tokio::test]
async fn lists_tell_the_same_states_as_each_subscription_itself() {
    let relay = Relay::start_with("[delivery]\nlanes = 2\n").await;
    let (well, sick) = (Receiver::start().await, Receiver::with(|_, _| Answer::status(500)).await);
    let retry = json!({"retry": {"max_attempts": 50, "schedule": ["1h"], "jitter": 0.0}});
    for n in 0..3 {
        relay.subscribe(&format!("sick{n}"), sick.url(), "t", retry.clone()).await;
        relay.subscribe(&format!("well{n}"), well.url(), "t", json!({})).await;
    }
    relay.subscribe("full", sick.url(), "t", json!({"max_retrying": 1, "retry": {"schedule": ["1h"]}})).await;
    relay.subscribe("asked", sick.url(), "t", json!({"verify": "challenge"})).await;
    relay.must("POST", "/v1/subscriptions/sick2/pause", json!({})).await;
    relay.must("PATCH", "/v1/subscriptions/well2", json!({"enabled": false})).await;
    relay.publish_numbers("t", 0..20).await;
    let expected = [
        ("asked", "unverified"),
        ("full", "failing"),
        ("sick0", "failing"),
        ("sick1", "failing"),
        ("sick2", "paused"),
        ("well0", "active"),
        ("well1", "active"),
        ("well2", "disabled"),
    ];
    for (id, state) in expected {
        relay.status_becomes(id, json!({"state": state})).await;
        assert_eq!(relay.get(&format!("/v1/subscriptions/{id}")).await["state"], state, "{id}");
        let whole = relay.get(&format!("/v1/subscriptions/{id}?secrets=true")).await;
        assert_eq!(whole["state"], state, "{id}");
    }
    let mut listed = Vec::new();
    for page in ["limit=3", "limit=10&after=sick0"] {
        let items = relay.get(&format!("/v1/subscriptions?{page}")).await["items"].take();
        let one = |item: &Value| (item["id"].as_str().unwrap().to_owned(), item["state"].as_str().unwrap().to_owned());
        listed.extend(items.as_array().unwrap().iter().map(one).collect::<Vec<_>>());
    }
    assert_eq!(listed, expected.map(|(id, state)| (id.to_owned(), state.to_owned())));
    let (code, said, _) = relay.run(&["subs", "list", "--url", &relay.url]).await;
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split('\t').take(2).collect()).collect();
    assert_eq!((code, lines), (Some(0), expected.map(|(id, state)| vec![id, state]).to_vec()));
    // A change of one that fails does not make it look well.
    assert_eq!(relay.must("PATCH", "/v1/subscriptions/sick0", json!({"description": "x"})).await["state"], "failing");
}

/// Dead letters that a seek back made pending, and that a narrower choice of events leaves where they are.
#[tokio::test]
async fn a_letter_that_will_not_be_delivered_stays_listed_whatever_the_cursor_does() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    relay.subscribe("a", receiver.url(), "t", json!({"retry": {"max_attempts": 1}})).await;
    let seqs = relay.publish_numbers("t", 0..2).await;
    relay.status_becomes("a", json!({"dead": 2, "lag": 0})).await;
    relay.must("POST", "/v1/subscriptions/a/pause", json!({})).await;
    let listed = async || {
        let list = relay.get("/v1/subscriptions/a/undelivered").await;
        let one = |item: &Value| (item["seq"].as_u64().unwrap(), item["state"].as_str().unwrap().to_owned());
        list["items"].as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    let all = |state: &str| seqs.iter().map(|seq| (*seq, state.to_owned())).collect::<Vec<_>>();
    assert_eq!(listed().await, all("dead"));
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[0]}})).await;
    assert_eq!(listed().await, all("pending"));
    relay.must("PATCH", "/v1/subscriptions/a", json!({"topics": ["other"]})).await;
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": seqs[0]}})).await;
    assert_eq!(listed().await, all("dead"));
    assert_eq!(relay.get("/v1/subscriptions/a/dead-letters").await["items"].as_array().unwrap().len(), 2);
}
