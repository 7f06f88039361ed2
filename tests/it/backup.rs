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
    assert!(
        text.contains("event: hookcast.gap") && text.contains(&format!("{{\"from\":{},\"to\":{}}}", copied_to + 1, seq - 2)),
        "{text}"
    );
    assert!(text.contains(&format!("id: {seq}")), "{text}");
    // Other copies of it, and another restart.
    other.kill9().await;
    other.restart().await;
    assert_whole(&numbers(&other).await, next + 1);
    let again = other.publish("t", format!("{{\"n\":{}}}", next + 1)).await;
    assert_eq!(again, seq + 1);
}

/// Stops a relay, puts a copy in the place of its data, and starts it again; what the command said.
async fn put_back(relay: &mut Relay, file: &str) -> String {
    assert_eq!(relay.terminate().await, Some(0));
    let (code, said, problem) = relay.run(&["restore", "--force", file]).await;
    assert_eq!(code, Some(0), "{problem}");
    relay.restart().await;
    said
}

#[tokio::test]
async fn the_same_copy_put_back_again_and_again_gives_no_position_twice() {
    let receiver = Receiver::start().await;
    let mut relay = Relay::start().await;
    relay.subscribe("a", receiver.url(), "t", json!({})).await;
    relay.publish_numbers("t", 0..3).await;
    receiver.sees(3).await;
    assert_eq!(relay.run(&["backup", "copy.db"]).await.0, Some(0));
    let mut given = Vec::new();
    for round in 0..4_u64 {
        // What knows of the earlier rounds is there, or is not: the hour, the replaced data, the number beside it.
        if round == 2 {
            let _ = std::fs::remove_file(relay.path("data/hookcast.db.jump"));
        }
        let said = put_back(&mut relay, "copy.db").await;
        if round == 3 {
            let last: u64 = given.last().copied().unwrap();
            assert!(said.contains(&format!("replaces: {last}")) && said.contains("last jump here: "), "{said}");
        }
        given.extend(relay.publish_numbers("t", 100 + round..101 + round).await);
        relay.delivery_becomes("a", *given.last().unwrap(), "delivered").await;
    }
    assert!(given.windows(2).all(|pair| pair[0] + JUMP / 2 < pair[1]), "no position twice: {given:?}");
    assert!(given.iter().all(|seq| *seq < 1 << 53), "exact in every program: {given:?}");
    let mut ids: Vec<String> = receiver.seen().iter().map(|delivery| delivery.id().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 7, "no id twice: {ids:?}");
    // With nothing left that knows of it, only the hour keeps them apart from what the copy's own log had.
    assert_eq!(relay.terminate().await, Some(0));
    for name in ["hookcast.db", "hookcast.db.replaced", "hookcast.db.jump"] {
        let _ = std::fs::remove_file(relay.path(&format!("data/{name}")));
    }
    let (code, said, problem) = relay.run(&["restore", "copy.db"]).await;
    assert_eq!(code, Some(0), "{problem}");
    assert!(said.contains("replaces: none; last jump here: none"), "{said}");
    relay.restart().await;
    let hours = (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() - 1_577_836_800) / 3600;
    let seq = relay.publish("t", "{}").await;
    assert!(seq / JUMP == hours + 1 || seq / JUMP == hours, "{seq}");
}

/// The hole is as wide as the positions of years; nothing that counts or reads positions may take it for events.
#[tokio::test]
async fn a_jump_counts_as_one_position_and_is_told_as_one_gap() {
    let receiver = Receiver::start().await;
    let mut relay = Relay::start().await;
    for (id, more) in [("a", json!({})), ("k", json!({"ordering": {"key": "/n"}})), ("s", json!({"ordering": "strict"}))] {
        relay.subscribe(id, &format!("{}{id}", receiver.url()), "t", more).await;
    }
    receiver.change(|_, _| crate::support::Answer::never());
    for id in ["a", "k", "s"] {
        relay.must("POST", &format!("/v1/subscriptions/{id}/pause"), json!({})).await;
    }
    relay.publish_numbers("t", 0..3).await;
    assert_eq!(relay.run(&["backup", "copy.db"]).await.0, Some(0));
    put_back(&mut relay, "copy.db").await;
    let seq = relay.publish("t", "{\"n\":3}").await;
    let (from, to) = (4, seq - 2);
    for id in ["a", "k", "s"] {
        let status = relay.status(id).await;
        let lag = (&status["lag"], &status["expired"]);
        assert_eq!(lag, (&json!(3 + 1 + 2), &json!(0)), "three events, the jump, the word about it, one event: {status}");
    }
    for after in [3, 4, 1 << 40, to - 1] {
        let url = format!("{}/v1/topics/t/stream?format=sse&since={after}&limit=1&max_duration=20s", relay.url);
        let text = relay.client.get(url).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(&format!("{{\"from\":{},\"to\":{to}}}", after + 1)), "a gap and what is behind it: {text}");
        assert!(text.contains(&format!("id: {seq}")), "{text}");
        let pulled = relay.get(&format!("/v1/topics/t/events?after={after}")).await;
        assert_eq!(pulled["events"].as_array().unwrap().iter().filter(|event| event["topic"] == "t").count(), 1, "{pulled}");
    }
    receiver.change(|_, _| crate::support::Answer::ok());
    for id in ["a", "k", "s"] {
        relay.must("POST", &format!("/v1/subscriptions/{id}/resume"), json!({})).await;
        let status = relay.status_becomes(id, json!({"lag": 0, "cursor": seq})).await;
        assert_eq!(status["expired"], 0, "{status}");
    }
    let dry =
        relay.must("POST", "/v1/subscriptions/a/replay", json!({"from": {"seq": 1}, "to": {"seq": seq}, "dry_run": true})).await;
    assert_eq!(dry["events"], 4, "{dry}");
    // A position inside the jump is a place like any other to begin at.
    relay.must("POST", "/v1/subscriptions/a/seek", json!({"to": {"seq": from + 5}})).await;
    let status = relay.status_becomes("a", json!({"lag": 0})).await;
    assert_eq!((&status["expired"], &status["cursor"]), (&json!(0), &json!(seq)), "{status}");
    relay.kill9().await;
    relay.restart().await;
    relay.status_becomes("a", json!({"lag": 0, "expired": 0})).await;
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

/// Whoever removes a database forgets the log beside it, which a kill left there.
#[tokio::test]
async fn a_wal_that_was_left_behind_is_not_taken_for_that_of_the_copy() {
    let mut relay = Relay::start().await;
    relay.publish_numbers("t", 0..3).await;
    assert_eq!(relay.run(&["backup", "copy.db"]).await.0, Some(0));
    relay.publish_numbers("t", 3..6).await;
    relay.kill9().await;
    let wal = relay.path("data/hookcast.db-wal");
    let left = std::fs::read(&wal).unwrap();
    assert!(!left.is_empty());
    std::fs::remove_file(relay.path("data/hookcast.db")).unwrap();
    let (code, _, problem) = relay.run(&["restore", "copy.db"]).await;
    assert_eq!(code, Some(0), "{problem}");
    relay.restart().await;
    assert_eq!(numbers(&relay).await.len(), 3);
    assert!(relay.publish("t", "{\"n\":3}").await > JUMP);
    assert_whole(&numbers(&relay).await, 4);
    assert_eq!(std::fs::read(relay.path("data/hookcast.db-wal.replaced")).unwrap(), left);
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
