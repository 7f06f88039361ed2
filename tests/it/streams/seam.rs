//! History and live are one row of positions, wherever a client comes in and however slow it is.

use std::sync::Arc;

use actix_web::rt;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::relay::{Relay, event, small};

#[actix_rt::test(system = "crate::support::System")]
async fn history_goes_over_into_live_without_a_seam() {
    let relay = Relay::start(small(), 8 * 1024).await;
    relay.publish("a", 500).await;
    let mut stream = relay.listen("a/stream?since=earliest").await;
    assert_eq!(stream.seqs(500).await, (1..=500).collect::<Vec<_>>());
    relay.publish("a", 3).await;
    assert_eq!(stream.seqs(3).await, [501, 502, 503]);
    relay.publish("other", 2).await;
    relay.publish("a", 1).await;
    assert_eq!(stream.seqs(1).await, [506]);
    relay.stop().await;
}

/// Clients come in at any time and any position while events are published to two topics in commits of any size.
#[actix_rt::test(system = "crate::support::System")]
async fn clients_that_race_with_a_publisher_miss_nothing_and_get_nothing_twice() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (
        prop::collection::vec((1u64..40, any::<bool>()), 30..80),
        prop::collection::vec((0u64..30, 0u64..400), 6..12),
        (500usize..8_000, 500usize..8_000, 200usize..8_000),
    );
    for _ in 0..12 {
        let (commits, clients, (tail, ring, load)) = strategy.new_tree(&mut runner).unwrap().current();
        let settings = hookcast_streams::EgressSettings { ring_bytes_max: ring, load_bytes_max: load, ..small() };
        let relay = Arc::new(Relay::start(settings, tail).await);
        let mut expected = Vec::new();
        let mut seq = 0;
        for (count, is_wanted) in &commits {
            expected.extend((seq + 1..=seq + count).filter(|_| *is_wanted));
            seq += count;
        }
        let publisher = rt::spawn({
            let relay = Arc::clone(&relay);
            async move {
                for (count, is_wanted) in commits {
                    relay.publish(if is_wanted { "wanted.x" } else { "other.x" }, count).await;
                    tokio::task::yield_now().await;
                }
                relay.publish("wanted.end", 1).await;
            }
        });
        let clients: Vec<_> =
            clients.into_iter().map(|(pause, since)| rt::spawn(follow(Arc::clone(&relay), pause, since))).collect();
        publisher.await.unwrap();
        expected.push(seq + 1);
        for client in clients {
            let (since, seqs) = client.await.unwrap();
            let wanted: Vec<_> = expected.iter().copied().filter(|seq| *seq > since).collect();
            assert_eq!(seqs, wanted, "since {since}, tail {tail}, ring {ring}, load {load}");
        }
        Arc::into_inner(relay).unwrap().stop().await;
    }
}

/// Listens behind `since` until the last event; a position beyond the head at that moment is tried again.
async fn follow(relay: Arc<Relay>, pause: u64, since: u64) -> (u64, Vec<u64>) {
    for _ in 0..pause {
        tokio::task::yield_now().await;
    }
    loop {
        let path = if since == 0 {
            "wanted.*/stream?since=earliest".to_owned()
        } else {
            format!("wanted.*/stream?last_event_id={since}")
        };
        let mut stream = relay.listen(&path).await;
        let mut seqs = Vec::new();
        loop {
            let event = stream.event().await.expect("the stream goes on");
            if event["type"] == "hookcast.reset" {
                break;
            }
            seqs.push(event["seq"].as_str().unwrap().parse().unwrap());
            if event["topic"] == "wanted.end" {
                return (since, seqs);
            }
        }
        tokio::task::yield_now().await;
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn two_formats_show_the_same_order() {
    let relay = Relay::start(small(), 2 * 1024).await;
    relay.publish("a", 200).await;
    let mut lines = relay.listen("a/stream?since=earliest&format=ndjson").await;
    let mut blocks = relay.listen("a/stream?since=earliest&format=sse").await;
    for _ in 0..50 {
        relay.publish("a", 4).await;
    }
    let mut ids = Vec::new();
    while ids.len() < 400 {
        if let Some(id) = blocks.next().await.unwrap().strip_prefix("id: ") {
            ids.push(id.parse::<u64>().unwrap());
        }
    }
    assert_eq!(lines.seqs(400).await, ids);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_event_larger_than_every_buffer_comes_whole() {
    let relay = Relay::start(small(), 1024).await;
    let text = format!("\"{}\"", "x".repeat(1_000_000));
    relay.publish_event(event("a", "large", &text)).await;
    let mut late = relay.listen("a/stream?since=earliest").await;
    let mut live = relay.listen("a/stream").await;
    let mut live_again = relay.listen("a/stream").await;
    relay.publish_event(event("a", "large", &text)).await;
    relay.publish("a", 1).await;
    for stream in [&mut late, &mut live, &mut live_again] {
        let mut data = String::new();
        while data.len() < 1_000_000 {
            data = stream.event().await.unwrap()["data"].as_str().unwrap_or_default().to_owned();
        }
        assert_eq!(data.len(), 1_000_000);
    }
    assert_eq!(late.seqs(2).await, [2, 3]);
    assert_eq!(live.seqs(1).await, [3]);
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_rare_event_far_back_is_found() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish_event(event("a", "rare", "1")).await;
    for _ in 0..40 {
        relay.publish("a", 64).await;
    }
    relay.publish_event(event("b", "rare", "2")).await;
    let mut stream = relay.listen("**/stream?since=1&types=rare").await;
    assert_eq!(stream.seqs(1).await, [40 * 64 + 2]);
    relay.publish_event(event("c", "rare", "3")).await;
    assert_eq!(stream.seqs(1).await, [40 * 64 + 3]);
    relay.stop().await;
}
