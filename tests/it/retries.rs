//! What becomes of an attempt that fails: retries, the receiver's words, dead letters and the circuit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Relay, eventually, for_a_while};

/// Quick retries without chance.
fn quick(attempts: u32) -> Value {
    json!({"retry": {"max_attempts": attempts, "schedule": ["50ms"], "jitter": 0.0}})
}

/// Waits until this many dead letters are listed: the list is what is stored, the status what is known.
async fn listed(relay: &Relay, count: usize) -> Value {
    eventually(&format!("{count} dead letters listed"), async || {
        let list = relay.get("/v1/subscriptions/a/dead-letters").await;
        (list["items"].as_array().unwrap().len() == count).then_some(list)
    })
    .await
}

#[tokio::test]
async fn a_retry_has_the_same_id_and_bytes_and_a_new_signature() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, n| Answer::status(if n == 0 { 500 } else { 200 })).await;
    // Longer than a second, so that the timestamp must differ.
    let retry = json!({"retry": {"max_attempts": 3, "schedule": ["1200ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", retry).await;
    let seq = relay.publish("t", "{\"a\": 1}").await;
    let retrying = relay.delivery_becomes("a", seq, "retrying").await;
    assert_eq!(retrying["reason"], "status_500");
    assert!(retrying["next_attempt_at"].is_string());
    assert_eq!((&retrying["attempts"][0]["status"], &retrying["attempts"][0]["n"]), (&json!(500), &json!(1)));
    let seen = receiver.sees(2).await;
    let (first, second) = (&seen[0], &seen[1]);
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    assert_eq!((first.attempt(), second.attempt()), (1, 2));
    assert_ne!(first.header("webhook-timestamp"), second.header("webhook-timestamp"));
    assert_ne!(first.header("webhook-signature"), second.header("webhook-signature"));
    assert!(second.at - first.at >= Duration::from_millis(1100), "{:?}", second.at - first.at);
    first.verify();
    second.verify();
    relay.delivery_becomes("a", seq, "delivered").await;
    relay.status_becomes("a", json!({"retrying": 0, "delivered_total": 1, "failed_attempts_total": 1})).await;
}

#[tokio::test]
async fn the_schedule_is_walked_and_a_dead_letter_can_be_redriven() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let retry = json!({"retry": {"max_attempts": 4, "schedule": ["50ms", "400ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", retry).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    let dead = relay.delivery_becomes("a", seq, "dead").await;
    assert_eq!(dead["reason"], "status_500");
    assert_eq!(dead["attempts"].as_array().unwrap().len(), 4);
    let seen = receiver.seen();
    let gaps: Vec<_> = seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert_eq!(gaps.len(), 3);
    let wanted = [50, 400, 400].map(|ms| Duration::from_millis(ms - 10));
    assert!(gaps.iter().zip(wanted).all(|(gap, least)| *gap >= least), "{gaps:?}");
    let list = listed(&relay, 1).await;
    assert_eq!((&list["items"][0]["seq"], &list["items"][0]["attempts"]), (&json!(seq), &json!(4)));
    relay.status_becomes("a", json!({"dead": 1, "retrying": 0})).await;
    // The same letter to a receiver that is well again.
    receiver.change(|_, _| Answer::ok());
    let answer = relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({"all": true})).await;
    assert_eq!(answer["events"], 1);
    relay.delivery_becomes("a", seq, "delivered").await;
    let seen = receiver.seen();
    assert_eq!(seen[4].id(), seen[0].id());
    assert_eq!(seen[4].body, seen[0].body);
    seen[4].verify();
    relay.status_becomes("a", json!({"dead": 0, "retrying": 0})).await;
    listed(&relay, 0).await;
}

#[tokio::test]
async fn dead_letters_survive_a_kill_and_are_redriven_by_number() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    relay.subscribe("a", receiver.url(), "t", quick(1)).await;
    let seqs = relay.publish_numbers("t", 0..5).await;
    relay.status_becomes("a", json!({"dead": 5})).await;
    listed(&relay, 5).await;
    relay.kill9().await;
    relay.restart().await;
    relay.status_becomes("a", json!({"dead": 5})).await;
    receiver.change(|_, _| Answer::ok());
    let before = receiver.count();
    relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({"seqs": [seqs[1], seqs[3]]})).await;
    receiver.sees(before + 2).await;
    relay.status_becomes("a", json!({"dead": 3, "retrying": 0})).await;
    let mut redriven: Vec<u64> = receiver.seen()[before..].iter().map(super::support::receiver::Delivery::seq).collect();
    redriven.sort_unstable();
    assert_eq!(redriven, [seqs[1], seqs[3]]);
}

#[tokio::test]
async fn retry_after_holds_the_whole_subscription_and_costs_no_attempt() {
    let relay = Relay::start().await;
    let receiver =
        Receiver::with(|_, n| if n == 0 { Answer::status(429).header("retry-after", "2") } else { Answer::ok() }).await;
    relay.subscribe("a", receiver.url(), "t", json!({"retry": {"max_attempts": 1, "schedule": ["50ms"], "jitter": 0.0}})).await;
    relay.publish("t", "{\"n\":1}").await;
    receiver.sees(1).await;
    relay.status_becomes("a", json!({"retrying": 1, "dead": 0})).await;
    relay.publish("t", "{\"n\":2}").await;
    let seen = receiver.sees(3).await;
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(1900), "{:?}", seen[1].at - seen[0].at);
    relay.status_becomes("a", json!({"retrying": 0, "dead": 0, "delivered_total": 2})).await;
}

#[tokio::test]
async fn every_form_of_a_date_holds_as_long_as_it_says() {
    let relay = Relay::start().await;
    let then = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 3600).unwrap();
    let zoned = then.to_zoned(jiff::tz::TimeZone::UTC);
    for (index, form) in
        ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"].into_iter().enumerate()
    {
        let text = zoned.strftime(form).to_string();
        for status in [429, 503] {
            let answer = text.clone();
            // Where it is said twice, the first word counts.
            let receiver = Receiver::with(move |_, _| {
                Answer::status(status).header("Retry-After", &format!(" {answer} ")).header("retry-after", "0")
            })
            .await;
            let id = format!("a{index}-{status}");
            relay.subscribe(&id, receiver.url(), "t", quick(9)).await;
            let seq = relay.publish("t", "{}").await;
            let view = eventually(&format!("an attempt of {id} at {text:?}"), async || {
                let view = relay.delivery(&id, seq).await;
                (view["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty())).then_some(view)
            })
            .await;
            let next = view["next_attempt_at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
            assert_eq!(next, Some(then), "{status} {text:?}: {view}");
            assert_eq!(relay.ask("DELETE", &format!("/v1/subscriptions/{id}"), None).await.0, 204);
        }
    }
}

#[tokio::test]
async fn gone_disables_until_it_is_enabled_and_loses_nothing() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(410)).await;
    relay.subscribe("a", receiver.url(), "t", quick(3)).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    relay.status_becomes("a", json!({"state": "disabled", "reason": "gone"})).await;
    let second = relay.publish("t", "{\"n\":2}").await;
    let state = relay.delivery("a", seq).await["state"].clone();
    assert!(state == "pending" || state == "retrying", "{state}");
    assert_eq!(relay.delivery("a", second).await["state"], "pending");
    let (status, _) = relay.ask("POST", "/v1/subscriptions/a/resume", Some(&json!({}))).await;
    assert_eq!(status, 409, "only a PATCH ends it");
    // A restart does not end it either.
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    relay.status_becomes("a", json!({"state": "disabled", "reason": "gone"})).await;
    assert_eq!(receiver.count(), 1);
    receiver.change(|_, _| Answer::ok());
    relay.must("PATCH", "/v1/subscriptions/a", json!({"enabled": true})).await;
    relay.delivery_becomes("a", seq, "delivered").await;
    relay.delivery_becomes("a", second, "delivered").await;
    let mut bodies = receiver.of_each(|delivery| delivery.text().to_owned());
    bodies.sort();
    assert_eq!(bodies, ["{\"n\":1}", "{\"n\":1}", "{\"n\":2}"]);
    relay.status_becomes("a", json!({"state": "active", "reason": null})).await;
}

#[tokio::test]
async fn the_receivers_words_abort_and_disable_are_followed() {
    let relay = Relay::start().await;
    let abort = Receiver::with(|_, _| Answer::status(500).header("webhook-delivery", "abort")).await;
    let disable = Receiver::with(|_, _| Answer::status(500).header("Webhook-Delivery", "Disable")).await;
    relay.subscribe("abort", abort.url(), "t", quick(5)).await;
    relay.subscribe("disable", disable.url(), "t", quick(5)).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    relay.delivery_becomes("abort", seq, "dead").await;
    relay.status_becomes("disable", json!({"state": "disabled", "reason": "receiver"})).await;
    relay.status_becomes("abort", json!({"state": "active", "dead": 1})).await;
    assert_eq!((abort.count(), disable.count()), (1, 1));
}

#[tokio::test]
async fn the_receivers_word_counts_whatever_the_status() {
    let relay = Relay::start().await;
    for status in [204, 302, 400, 404, 429, 500, 503] {
        let abort = Receiver::with(move |_, _| Answer::status(status).header("webhook-delivery", " ABORT ")).await;
        let disable = Receiver::with(move |_, _| Answer::status(status).header("webhook-delivery", "disable")).await;
        let (a, d) = (format!("abort-{status}"), format!("disable-{status}"));
        relay.subscribe(&a, abort.url(), "t", quick(5)).await;
        relay.subscribe(&d, disable.url(), "t", quick(5)).await;
        let seq = relay.publish("t", "{}").await;
        // What was taken is delivered: there is nothing left to abort.
        relay.delivery_becomes(&a, seq, if status == 204 { "delivered" } else { "dead" }).await;
        relay.status_becomes(&a, json!({"state": "active"})).await;
        relay.status_becomes(&d, json!({"state": "disabled", "reason": "receiver"})).await;
        let wanted = if status == 204 { "delivered" } else { "retrying" };
        let view = relay.delivery(&d, seq).await;
        assert!(view["state"] == wanted || (status != 204 && view["state"] == "pending"), "{status}: {view}");
        assert_eq!((abort.count(), disable.count()), (1, 1), "{status}");
        for id in [a, d] {
            assert_eq!(relay.ask("DELETE", &format!("/v1/subscriptions/{id}"), None).await.0, 204);
        }
    }
    let gone = Receiver::with(|_, _| Answer::status(410).header("webhook-delivery", "abort")).await;
    relay.subscribe("gone", gone.url(), "t", quick(5)).await;
    relay.publish("t", "{}").await;
    relay.status_becomes("gone", json!({"state": "disabled", "reason": "gone", "dead": 0})).await;
}

#[tokio::test]
async fn no_word_of_a_receiver_makes_a_dead_letter_vanish() {
    let relay = Relay::start().await;
    // The last are the relay's own words, for failures that no receiver can have.
    let words =
        ["no_longer_kept", " No_Longer_Kept ", "storage", "template", "template: x", "skipped: x", "abort, disable", "x", ""];
    for (n, word) in words.into_iter().enumerate() {
        let receiver = Receiver::with(move |_, _| Answer::status(500).header("webhook-delivery", word)).await;
        let (alone, gathered) = (format!("alone-{n}"), format!("gathered-{n}"));
        relay.subscribe(&alone, receiver.url(), "t", quick(1)).await;
        let mut batches = quick(1);
        batches["batch"] = json!({"max_events": 10, "max_wait": "1ms"});
        relay.subscribe(&gathered, receiver.url(), "t", batches).await;
        let seq = relay.publish("t", "{}").await;
        for id in [alone, gathered] {
            let dead = eventually(&format!("the end of {id} after {word:?}"), async || {
                let view = relay.delivery(&id, seq).await;
                (!["pending", "retrying"].contains(&view["state"].as_str().unwrap())).then_some(view)
            })
            .await;
            assert_eq!((&dead["state"], &dead["reason"]), (&json!("dead"), &json!("status_500")), "{id} {word:?}: {dead}");
            relay.status_becomes(&id, json!({"state": "active", "dead": 1, "expired": 0})).await;
            let list = relay.get(&format!("/v1/subscriptions/{id}/dead-letters")).await;
            assert_eq!(list["items"][0]["seq"], seq, "{id} {word:?}: {list}");
            assert_eq!(relay.ask("DELETE", &format!("/v1/subscriptions/{id}"), None).await.0, 204);
        }
    }
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_never_followed() {
    let relay = Relay::start().await;
    let target = Receiver::start().await;
    let location = target.url().to_owned();
    let receiver = Receiver::with(move |_, n| {
        let status = [301, 302, 303, 307, 308][n.min(4)];
        Answer::status(status).header("location", &location)
    })
    .await;
    relay.subscribe("a", receiver.url(), "t", quick(5)).await;
    let seq = relay.publish("t", "{\"n\":1}").await;
    let dead = relay.delivery_becomes("a", seq, "dead").await;
    assert_eq!(dead["reason"], "redirect_not_followed");
    assert_eq!((receiver.count(), target.connections()), (5, 0));
}

#[tokio::test]
async fn a_full_waiting_room_stops_the_cursor_or_buries() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    let late = |on_full: &str| {
        json!({"max_retrying": 3, "on_full": on_full, "max_in_flight": 2,
            "retry": {"max_attempts": 10, "schedule": ["1h"], "jitter": 0.0}})
    };
    relay.subscribe("wait", &format!("{}/wait", receiver.url()), "t", late("wait")).await;
    relay.subscribe("dead", &format!("{}/dead", receiver.url()), "t", late("dead")).await;
    relay.publish_numbers("t", 0..8).await;
    relay.status_becomes("dead", json!({"retrying": 3, "dead": 5, "in_flight": 0})).await;
    let status = relay.status_becomes("wait", json!({"retrying": 3, "dead": 0, "state": "failing"})).await;
    assert_eq!(status["cursor"], 3);
    assert!(status["lag"].as_u64().unwrap() >= 5, "{status}");
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(receiver.of_each(|delivery| delivery.path.clone()).iter().filter(|path| *path == "/hook/wait").count(), 3);
}

#[tokio::test]
async fn a_full_waiting_room_empties_when_the_receiver_is_well_again() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    let more =
        json!({"max_retrying": 3, "max_in_flight": 2, "retry": {"max_attempts": 50, "schedule": ["100ms"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..500).await;
    relay.status_becomes("a", json!({"retrying": 3, "state": "failing"})).await;
    receiver.change(|_, _| Answer::ok());
    relay.status_becomes("a", json!({"retrying": 0, "cursor": 500, "delivered_total": 500, "state": "active"})).await;
}

#[tokio::test]
async fn a_kill_forgets_no_attempt() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let retry = json!({"retry": {"max_attempts": 4, "schedule": ["10ms", "1h"], "jitter": 0.0}});
    relay.subscribe("a", receiver.url(), "t", retry).await;
    let seq = relay.publish("t", "{}").await;
    receiver.sees(2).await;
    eventually("two stored attempts", async || {
        let items = relay.get("/v1/subscriptions/a/undelivered").await["items"].clone();
        (items[0]["attempts"] == 2).then_some(())
    })
    .await;
    // A count begins with a save.
    relay.must("POST", "/v1/subscriptions/a/replay", json!({"from": "earliest", "dry_run": true})).await;
    relay.kill9().await;
    relay.restart().await;
    let view = relay.delivery("a", seq).await;
    assert_eq!((&view["state"], view["attempts"].as_array().unwrap().len()), (&json!("retrying"), 2), "{view}");
    for_a_while(Duration::from_millis(200)).await;
    assert_eq!(receiver.count(), 2, "what is due in an hour stays due then");
}

#[tokio::test]
async fn an_open_circuit_probes_and_closes_again() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    relay.subscribe("a", receiver.url(), "t", json!({"retry": {"max_attempts": 50, "schedule": ["10ms"]}})).await;
    relay.publish_numbers("t", 0..100).await;
    relay.status_becomes("a", json!({"circuit": "open", "in_flight": 0})).await;
    let failures = receiver.count();
    receiver.change(|_, _| Answer::ok());
    // The first probe is due after 24 to 36 seconds.
    for_a_while(Duration::from_secs(22)).await;
    assert_eq!(receiver.count(), failures);
    relay.status_becomes("a", json!({"circuit": "closed", "lag": 0, "retrying": 0, "delivered_total": 100})).await;
}

#[tokio::test]
async fn the_circuit_opens_and_then_almost_nothing_goes_out() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    relay
        .subscribe("a", receiver.url(), "t", json!({"max_in_flight": 1, "retry": {"max_attempts": 50, "schedule": ["10ms"]}}))
        .await;
    relay.publish_numbers("t", 0..2000).await;
    relay.status_becomes("a", json!({"circuit": "open", "state": "failing"})).await;
    for_a_while(Duration::from_secs(1)).await;
    assert_eq!(receiver.count(), 10, "the first probe is due after half a minute");
    let status = relay.status("a").await;
    assert!(status["retrying"].as_u64().unwrap() <= 10, "{status}");
    // Another subscription does not notice.
    let healthy = Receiver::start().await;
    relay.subscribe("b", healthy.url(), "t", json!({"from": "earliest"})).await;
    healthy.sees(2000).await;
    // A new address is a new endpoint: its circuit is closed.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"url": healthy.url()})).await;
    relay.status_becomes("a", json!({"circuit": "closed", "lag": 0, "retrying": 0, "delivered_total": 2000})).await;
}

#[tokio::test]
async fn a_time_out_and_a_refused_connection_are_failures_with_a_word() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, _| Answer::never()).await;
    let once = |timeout: &str| json!({"timeout": timeout, "retry": {"max_attempts": 1, "schedule": ["1s"]}});
    relay.subscribe("slow", receiver.url(), "t", once("1s")).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    relay.subscribe("closed", &format!("http://{closed}/"), "t", once("5s")).await;
    let seq = relay.publish("t", "{}").await;
    assert_eq!(relay.delivery_becomes("slow", seq, "dead").await["reason"], "timeout");
    assert_eq!(relay.delivery_becomes("closed", seq, "dead").await["reason"], "connect");
}
