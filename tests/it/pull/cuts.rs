//! However a log is cut into answers, every event is in exactly one of them.

use std::sync::Arc;

use actix_web::rt;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::answers::{pull, seqs};
use crate::streams::relay::{Relay, small};

/// Readers take answers of any size, waiting or not, while events are published to two topics in commits of any size.
#[actix_rt::test(system = "crate::support::System")]
async fn answers_of_any_size_give_every_event_once() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (
        prop::collection::vec((1u64..40, any::<bool>()), 20..50),
        prop::collection::vec(prop::collection::vec((1u64..60, 0u64..2), 1..6), 4..8),
        (500usize..8_000, 500usize..8_000, 200usize..8_000),
    );
    for _ in 0..8 {
        let (commits, readers, (tail, ring, load)) = strategy.new_tree(&mut runner).unwrap().current();
        let settings = hookcast_streams::EgressSettings { ring_bytes_max: ring, load_bytes_max: load, ..small() };
        let relay = Arc::new(Relay::start(settings, tail).await);
        let (mut expected, mut seq) = (Vec::new(), 0);
        for (count, is_wanted) in &commits {
            expected.extend((seq + 1..=seq + count).filter(|_| *is_wanted));
            seq += count;
        }
        expected.push(seq + 1);
        let readers: Vec<_> =
            readers.into_iter().enumerate().map(|(at, sizes)| rt::spawn(read(Arc::clone(&relay), sizes, at % 2 == 0))).collect();
        for (count, is_wanted) in commits {
            relay.publish(if is_wanted { "wanted.x" } else { "other.x" }, count).await;
            tokio::task::yield_now().await;
        }
        relay.publish("wanted.end", 1).await;
        for reader in readers {
            assert_eq!(reader.await.unwrap(), expected, "tail {tail}, ring {ring}, load {load}");
        }
        Arc::into_inner(relay).unwrap().stop().await;
    }
}

/// Reads until the last event, by pulls or by conduits.
async fn read(relay: Arc<Relay>, sizes: Vec<(u64, u64)>, by_pull: bool) -> Vec<u64> {
    let (mut got, mut next) = (Vec::new(), "0".to_owned());
    for (limit, wait) in sizes.iter().cycle() {
        let (events, position) = if by_pull {
            let answer = pull(&relay, &format!("wanted.*/events?after={next}&limit={limit}&wait={wait}")).await;
            let found = seqs(&answer);
            assert!(found.len() as u64 <= *limit);
            assert!(
                !found.is_empty() || answer["done"] == true || *wait > 0,
                "an empty answer has searched to the end: {answer}"
            );
            (answer["events"].clone(), answer["next"].as_str().unwrap().to_owned())
        } else {
            let path = format!("wanted.*/stream?format=conduit&heartbeat=1s&last_event_id={next}&limit={limit}");
            let response = reqwest::get(relay.url(&path)).await.unwrap();
            let position = response.headers()["hookcast-next"].to_str().unwrap().to_owned();
            (response.json().await.unwrap(), position)
        };
        assert!(position.parse::<u64>().unwrap() >= next.parse::<u64>().unwrap(), "positions only rise");
        next = position;
        if events.is_null() {
            continue;
        }
        got.extend(seqs(&events));
        if events.as_array().unwrap().last().is_some_and(|event| event["topic"] == "wanted.end") {
            break;
        }
    }
    got
}
