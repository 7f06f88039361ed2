//! Many at once, too large, forged, and a relay that has no room.

use serde_json::json;

use super::{TEXT_SECRET, source, stored};
use crate::support::sender::stripe_signature;
use crate::support::{Relay, eventually};

#[tokio::test]
async fn a_thousand_at_once_are_all_stored_before_they_are_answered() {
    let mut relay = Relay::start().await;
    let url = source(&relay, "a", json!({"scheme": "stripe", "secret": TEXT_SECRET}), json!({})).await;
    let at = jiff::Timestamp::now().as_second();
    let mut sending = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let (client, url) = (relay.client.clone(), url.clone());
        sending.spawn(async move {
            let body = format!("{{\"id\":\"evt_{n}\",\"type\":\"a.b\"}}");
            let header = stripe_signature(TEXT_SECRET, at, body.as_bytes());
            client
                .post(url)
                .header("stripe-signature", header)
                .header("content-type", "application/json")
                .body(body)
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        });
    }
    let statuses = sending.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    relay.kill9().await;
    relay.restart().await;
    let events = stored(&relay).await;
    let ids: std::collections::BTreeSet<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!((events.len(), ids.len()), (1000, 1000));
}

#[tokio::test]
async fn forgeries_are_told_to_wait_and_do_not_stand_in_the_way_of_what_is_signed() {
    let relay = Relay::start().await;
    let url = source(&relay, "a", json!({"scheme": "stripe", "secret": TEXT_SECRET}), json!({})).await;
    let at = jiff::Timestamp::now().as_second();
    let good = |n: usize| {
        let body = format!("{{\"id\":\"evt_{n}\"}}");
        let header = stripe_signature(TEXT_SECRET, at, body.as_bytes());
        relay.client.post(&url).header("stripe-signature", header).header("content-type", "application/json").body(body)
    };
    let mut statuses = Vec::new();
    for n in 0..80 {
        let forged = stripe_signature("a secret that is a guess", at, b"{}");
        let request = relay.client.post(&url).header("stripe-signature", forged).body("{}");
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers().contains_key("retry-after"), status == 429);
        assert!(!answer.text().await.unwrap().contains("fits"), "not told which");
        statuses.push(status);
        if n % 20 == 0 {
            assert_eq!(good(n).send().await.unwrap().status(), 200);
        }
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 60);
    assert!(statuses[60..].iter().all(|status| *status == 429), "{statuses:?}");
    assert_eq!(good(1000).send().await.unwrap().status(), 200, "behind the same address");
    let shown = relay.get("/v1/sources/a").await;
    assert_eq!((&shown["counts"]["events"], &shown["counts"]["skipped"]["bad_signature"]), (&json!(5), &json!(80)));
}

#[tokio::test]
async fn what_is_too_large_or_encoded_is_refused_and_counted() {
    let relay = Relay::start().await;
    let url = source(&relay, "a", json!({"scheme": "stripe", "secret": TEXT_SECRET}), json!({"max_event_bytes": "100KiB"})).await;
    let at = jiff::Timestamp::now().as_second();
    let sent = async |body: String, encoding: Option<&str>| {
        let header = stripe_signature(TEXT_SECRET, at, body.as_bytes());
        let mut request =
            relay.client.post(&url).header("stripe-signature", header).header("content-type", "application/json").body(body);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(sent("x".repeat(100 * 1024), None).await, 200);
    assert_eq!(sent("x".repeat(100 * 1024 + 1), None).await, 413);
    assert_eq!(sent("{}".to_owned(), Some("gzip")).await, 415);
    assert_eq!(sent("{}".to_owned(), Some("identity")).await, 200);
    let shown = relay.get("/v1/sources/a").await;
    assert_eq!((&shown["counts"]["events"], &shown["counts"]["skipped"]["event_too_large"]), (&json!(2), &json!(1)));
    // Larger than what needs no room, in chunks whose sum nobody announced.
    let chunks = (0..90).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b'y'; 1024])));
    let header = stripe_signature(TEXT_SECRET, at, &vec![b'y'; 90 * 1024]);
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let answer = relay
        .client
        .post(&url)
        .header("stripe-signature", header)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_relay_that_cannot_store_does_not_say_that_it_did() {
    let relay = Relay::start_with("[limits]\nevent_bytes = \"1MiB\"\n").await;
    let url = source(&relay, "a", json!({"scheme": "stripe", "secret": TEXT_SECRET}), json!({})).await;
    let at = jiff::Timestamp::now().as_second();
    // More than the intake holds at once: some may be told to come again, and those that were not are all there. Signed
    // beforehand, so that no connection waits for its request.
    let signed: Vec<(String, String)> = (0..20)
        .map(|n| {
            let body = format!("{{\"id\":\"evt_{n}\",\"fill\":\"{}\"}}", "x".repeat(700 * 1024));
            (stripe_signature(TEXT_SECRET, at, body.as_bytes()), body)
        })
        .collect();
    let mut sending = tokio::task::JoinSet::new();
    for (n, (header, body)) in signed.iter().cloned().enumerate() {
        let request =
            relay.client.post(&url).header("stripe-signature", header).header("content-type", "application/json").body(body);
        sending.spawn(async move {
            let answer = request.send().await.unwrap();
            (n, answer.status().as_u16(), answer.headers().contains_key("retry-after"))
        });
    }
    let mut taken = Vec::new();
    for (n, status, has_retry) in sending.join_all().await {
        match status {
            200 => taken.push(format!("evt_{n}")),
            503 => assert!(has_retry),
            other => panic!("{other}"),
        }
    }
    let mut found: Vec<String> = stored(&relay).await.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    taken.sort();
    found.sort();
    assert_eq!(found, taken);
    for (header, body) in &signed {
        eventually("a place for what was refused", async || {
            let request = relay
                .client
                .post(&url)
                .header("stripe-signature", header)
                .header("content-type", "application/json")
                .body(body.clone());
            (request.send().await.unwrap().status() == 200).then_some(())
        })
        .await;
    }
    assert_eq!(relay.get("/v1/sources/a").await["counts"]["events"], 20);
}
