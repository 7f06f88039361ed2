//! Costs that the documents promise, measured on the process from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::json;

use crate::support::{Receiver, Relay};

const EVENTS: u64 = 200;
const EVENT_BYTES: usize = 16 * 1024;

/// What a relay wrote for the same events with so many subscriptions.
struct Written {
    /// Handed to the disk until everything was delivered, as the kernel counts.
    disk_bytes: u64,
    /// Size of the database after a clean stop.
    file_bytes: u64,
}

async fn written_for(subscriptions: usize) -> Written {
    let mut relay = Relay::start_with("[history]\nattempts = \"failures\"\n").await;
    let receiver = Receiver::start().await;
    receiver.keep_little();
    for n in 0..subscriptions {
        relay.subscribe(&format!("s{n}"), receiver.url(), "t", json!({})).await;
    }
    let before = disk_bytes(relay.pid());
    let data = format!("\"{}\"", "x".repeat(EVENT_BYTES));
    for _ in 0..EVENTS {
        relay.publish("t", data.clone()).await;
    }
    for n in 0..subscriptions {
        relay.status_becomes(&format!("s{n}"), json!({"cursor": EVENTS, "in_flight": 0})).await;
    }
    let disk_bytes = disk_bytes(relay.pid()) - before;
    assert_eq!(receiver.count() as u64, EVENTS * subscriptions as u64);
    assert_eq!(relay.terminate().await, Some(0));
    let database = std::fs::metadata(relay.path("data/hookcast.db")).unwrap();
    Written { disk_bytes, file_bytes: database.len() }
}

/// Bytes that the process caused to be written to block devices.
fn disk_bytes(pid: u32) -> u64 {
    let counts = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    counts.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_hundred_subscriptions_store_the_log_once() {
    let (one, hundred) = (written_for(1).await, written_for(100).await);
    let log_bytes = EVENTS * EVENT_BYTES as u64;
    println!(
        "{log_bytes} bytes of events: 1 subscription wrote {} ({} kept), 100 wrote {} ({} kept)",
        one.disk_bytes, one.file_bytes, hundred.disk_bytes, hundred.file_bytes
    );
    assert!(one.file_bytes >= log_bytes, "what is measured is the log");
    assert!(hundred.file_bytes * 100 <= one.file_bytes * 105, "{} against {}", hundred.file_bytes, one.file_bytes);
    // Progress is saved by time and not by delivery: a row a delivery would be many times as much.
    assert!(hundred.disk_bytes * 100 <= one.disk_bytes * 150, "{} against {}", hundred.disk_bytes, one.disk_bytes);
}
