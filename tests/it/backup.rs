//! Copies of the database: made under load, put back, and the relay goes on; also what a program that ships the WAL does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{Receiver, Relay, eventually};

const JUMP: u64 = 1 << 32;

/// Publishes until it is told to stop; `accepted` is the last number that was.
async fn publish_on(relay: &Relay, accepted: &AtomicU64, stop: &AtomicBool) {
    let mut n = accepted.load(Ordering::SeqCst);
    while !stop.load(Ordering::SeqCst) {
        relay.publish_numbers("t", n..n + 20).await;
        n += 20;
        accepted.store(n, Ordering::SeqCst);
    }
}

/// The numbers of all events of `t` that a relay has, and their positions.
async fn numbers(relay: &Relay) -> Vec<(u64, u64)> {
    let url = format!("{}/v1/topics/t/stream?since=earliest&max_duration=1500ms", relay.url);
    let text = relay.client.get(url).send().await.unwrap().text().await.unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let number = |event: Value| Some((event["data"]["n"].as_u64()?, event["seq"].as_str()?.parse().ok()?));
    events.filter_map(number).collect()
}

/// All of `0..count`, each once, the positions rising.
fn assert_whole(seen: &[(u64, u64)], count: u64) {
    assert!(seen.len() as u64 >= count, "{} of {count}", seen.len());
    assert!(seen.iter().enumerate().all(|(index, (n, _))| *n == index as u64), "each once and in order");
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1));
}

/// A stopped relay with this copy in the place of its data.
async fn restored(file: &Path) -> Relay {
    let mut relay = Relay::start().await;
    relay.terminate().await;
    let (code, said, problem) = relay.run(&["restore", file.to_str().unwrap()]).await;
    assert!(code == Some(73) && problem.contains("--force"), "data is not overwritten: {said} {problem}");
    let (code, _, problem) = relay.run(&["restore", "--force", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{problem}");
    assert!(relay.path("data/hookcast.db.replaced").exists());
    relay
}

#[tokio::test]
async fn a_copy_made_under_load_is_put_back_and_goes_on() {
    let receiver = Receiver::start().await;
    let relay = Relay::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    let (accepted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let file = relay.path("copy.db");
    let copying = async {
        eventually("some load", async || (accepted.load(Ordering::SeqCst) > 1000).then_some(())).await;
        let before = accepted.load(Ordering::SeqCst);
        let (code, said, problem) = relay.run(&["backup", "copy.db"]).await;
        assert_eq!(code, Some(0), "{said} {problem}");
        let after = accepted.load(Ordering::SeqCst);
        eventually("load behind the copy", async || (accepted.load(Ordering::SeqCst) > after + 200).then_some(())).await;
        stop.store(true, Ordering::SeqCst);
        before
    };
    let ((), before) = futures_util::future::join(publish_on(&relay, &accepted, &stop), copying).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!relay.path("copy.db.partial").exists());
    let (code, _, problem) = relay.run(&["backup", "copy.db"]).await;
    assert!(code == Some(73) && problem.contains("there already"), "{problem}");
    let head = relay.status("a").await["head"].as_u64().unwrap();

    let mut other = restored(&file).await;
    other.restart().await;
    let seen = numbers(&other).await;
    assert_whole(&seen, before);
    let copied_to = seen.last().unwrap().1;
    assert!(copied_to < head, "what came after the copy is not in it");
    // Every position from now on is one that the lost events never had.
    let next = seen.len() as u64;
    let seq = other.publish("t", format!("{{\"n\":{next}}}")).await;
    assert!(seq > copied_to + JUMP && seq > head, "{seq}");
    other.delivery_becomes("a", seq, "delivered").await;
    let status = other.status("a").await;
    assert_eq!((&status["expired"], &status["lag"]), (&json!(0), &json!(0)), "a jump is no loss of a subscription: {status}");
    assert_whole(&numbers(&other).await, next + 1);
    // A reader that had come as far as the lost events hears of a gap, and goes on.
    let url = format!("{}/v1/topics/**/stream?format=sse&since={copied_to}&max_duration=1s", other.url);
    let text = other.client.get(url).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("event: hookcast.gap") && text.contains(&format!("\"to\":{}", copied_to + JUMP - 1)), "{text}");
    assert!(text.contains(&format!("id: {seq}")), "{text}");
    // Other copies of it, and another restart.
    other.kill9().await;
    other.restart().await;
    assert_whole(&numbers(&other).await, next + 1);
    let again = other.publish("t", format!("{{\"n\":{}}}", next + 1)).await;
    assert_eq!(again, seq + 1);
}

#[tokio::test]
async fn a_stopped_relay_is_copied_too_and_nothing_else_is_taken() {
    let mut relay = Relay::start().await;
    relay.publish_numbers("t", 0..10).await;
    relay.kill9().await;
    let (code, _, problem) = relay.run(&["backup", "copy.db"]).await;
    assert_eq!(code, Some(0), "with what only the WAL has: {problem}");
    std::fs::write(relay.path("no.db"), vec![7; 8192]).unwrap();
    let (code, _, problem) = relay.run(&["restore", "--force", "no.db"]).await;
    assert_eq!(code, Some(74), "{problem}");
    let mut damaged = std::fs::read(relay.path("copy.db")).unwrap();
    let event = b"{\"n\":5}";
    let at = damaged.windows(event.len()).position(|window| window == event).unwrap();
    damaged[at + 5] = b'6';
    std::fs::write(relay.path("damaged.db"), damaged).unwrap();
    let (code, _, problem) = relay.run(&["restore", "--force", "damaged.db"]).await;
    assert_eq!(code, Some(74), "{problem}");
    relay.restart().await;
    assert_whole(&numbers(&relay).await, 10);
    let (code, _, problem) = relay.run(&["restore", "--force", "copy.db"]).await;
    assert_eq!(code, Some(75), "not under a running relay: {problem}");
    relay.terminate().await;
    let (code, _, problem) = relay.run(&["restore", "--force", "copy.db"]).await;
    assert_eq!(code, Some(0), "{problem}");
    relay.restart().await;
    assert_whole(&numbers(&relay).await, 10);
}

/// What Litestream does: it holds a read transaction, so that the WAL does not begin anew, copies the database once and what
/// is added to the WAL again and again, and now and then lets go and checkpoints itself.
#[tokio::test]
async fn a_program_that_ships_the_wal_gets_all_of_it() {
    let relay = Relay::start().await;
    let (accepted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let database = relay.path("data/hookcast.db");
    let shipping = async {
        eventually("some load", async || (accepted.load(Ordering::SeqCst) > 500).then_some(())).await;
        let options = SqliteConnectOptions::new().filename(&database).busy_timeout(std::time::Duration::from_secs(5));
        let mut conn = options.pragma("wal_autocheckpoint", "0").connect().await.unwrap();
        let run = async |conn: &mut sqlx::SqliteConnection, sql: &'static str| {
            sqlx::query(sql).execute(conn).await.unwrap();
        };
        run(&mut conn, "CREATE TABLE IF NOT EXISTS _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)").await;
        let mut copies = Vec::new();
        for round in 0..3_u64 {
            run(&mut conn, "BEGIN").await;
            run(&mut conn, "SELECT count(*) FROM _litestream_seq").await;
            let copy = relay.path(&format!("shipped-{round}.db"));
            std::fs::copy(&database, &copy).unwrap();
            for _ in 0..2 {
                let before = accepted.load(Ordering::SeqCst);
                eventually("more load", async || (accepted.load(Ordering::SeqCst) > before + 300).then_some(())).await;
                let before = accepted.load(Ordering::SeqCst);
                std::fs::copy(relay.path("data/hookcast.db-wal"), relay.path(&format!("shipped-{round}.db-wal"))).unwrap();
                copies.push((round, before));
            }
            run(&mut conn, "COMMIT").await;
            run(&mut conn, "INSERT INTO _litestream_seq (id, seq) VALUES (1, 1) ON CONFLICT DO UPDATE SET seq = seq + 1").await;
            run(&mut conn, "PRAGMA wal_checkpoint(TRUNCATE)").await;
        }
        stop.store(true, Ordering::SeqCst);
        copies
    };
    let ((), copies) = futures_util::future::join(publish_on(&relay, &accepted, &stop), shipping).await;
    for round in 0..3 {
        let least = copies.iter().filter(|(of, _)| *of == round).map(|(_, before)| *before).max().unwrap();
        let mut other = restored(&relay.path(&format!("shipped-{round}.db"))).await;
        other.restart().await;
        let seen = numbers(&other).await;
        assert_whole(&seen, least);
        let seq = other.publish("t", format!("{{\"n\":{}}}", seen.len())).await;
        assert!(seq > JUMP);
    }
    // The relay itself was not disturbed.
    assert_whole(&numbers(&relay).await, accepted.load(Ordering::SeqCst));
}
