//! A page of the log that does not read any more: what is intact arrives, the rest is expired and told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::support::{Receiver, Relay, eventually};

/// Flips a bit in the page that holds a position; the positions of the page.
async fn damage(relay: &Relay, seq: i64) -> (u64, u64) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(relay.path("data/hookcast.db"));
    let mut conn = options.connect().await.unwrap();
    let sql = "SELECT first, n, data FROM log WHERE first <= ? ORDER BY first DESC LIMIT 1";
    let (first, n, mut data): (i64, i64, Vec<u8>) = sqlx::query_as(sql).bind(seq).fetch_one(&mut conn).await.unwrap();
    let at = data.len() - 3;
    data[at] ^= 0x40;
    sqlx::query("UPDATE log SET data = ? WHERE first = ?").bind(data).bind(first).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    (first.try_into().unwrap(), (first + n - 1).try_into().unwrap())
}

#[tokio::test]
async fn a_damaged_page_costs_its_events_and_nothing_else() {
    let mut relay = Relay::start().await;
    let receiver = Receiver::start().await;
    for id in ["behind", "at_the_head"] {
        relay.subscribe(id, receiver.url(), "a", json!({})).await;
    }
    relay.must("POST", "/v1/subscriptions/behind/pause", json!({})).await;
    for n in 0..30 {
        relay.publish("a", n.to_string()).await;
    }
    relay.status_becomes("at_the_head", json!({"delivered_total": 30})).await;
    assert_eq!(relay.terminate().await, Some(0));
    let (first, last) = damage(&relay, 10).await;
    let intact: BTreeSet<u64> = (1..=30).filter(|seq| !(first..=last).contains(seq)).collect();
    relay.restart().await;

    let topics = relay.get("/v1/topics").await;
    assert_eq!(topics["items"][0]["events"], intact.len(), "{topics}");
    let waiting = relay.get("/v1/subscriptions/behind/undelivered").await;
    let seqs = |items: &Value, key: &str| -> BTreeSet<u64> {
        let items = items.as_array().unwrap().iter().filter(|item| item["type"] != "hookcast.gap");
        let seq = |item: &Value| item[key].as_u64().or_else(|| item[key].as_str()?.parse().ok());
        items.filter_map(seq).collect()
    };
    assert_eq!(seqs(&waiting["items"], "seq"), intact);
    let mut pulled = BTreeSet::new();
    let mut after = "0".to_owned();
    loop {
        let page = relay.get(&format!("/v1/topics/a/events?after={after}")).await;
        pulled.extend(seqs(&page["events"], "seq"));
        after = page["next"].as_str().unwrap().to_owned();
        if page["done"] == true {
            break;
        }
    }
    assert_eq!(pulled, intact);
    let url = format!("{}/v1/topics/a/stream?since=earliest&limit={}", relay.url, intact.len());
    let text = relay.client.get(url).send().await.unwrap().text().await.unwrap();
    let gap = text.lines().find(|line| line.contains("hookcast.gap")).unwrap_or_default();
    let gap: Value = serde_json::from_str(gap).unwrap();
    assert_eq!((&gap["data"]["from"], &gap["data"]["to"]), (&json!(first), &json!(last)), "{gap}");

    relay.must("POST", "/v1/subscriptions/behind/resume", json!({})).await;
    relay.status_becomes("behind", json!({"delivered_total": intact.len(), "expired": last + 1 - first})).await;
    let to_behind = receiver.seen().into_iter().filter(|delivery| delivery.header("hookcast-subscription") == "behind");
    assert_eq!(to_behind.map(|delivery| delivery.seq()).collect::<BTreeSet<_>>(), intact);
    relay.delivery_becomes("behind", first, "expired").await;
    eventually("a notice", async || {
        let page = relay.get("/v1/topics/hookcast.ops/events?after=0").await;
        page["events"].as_array().unwrap().iter().any(|event| event["type"] == "delivery.expired").then_some(())
    })
    .await;
    relay.log_says("a page of the log is damaged").await;
    assert_eq!(relay.log().matches("a page of the log is damaged").count(), 1, "said once");
    relay.publish("a", "30").await;
    relay.status_becomes("behind", json!({"delivered_total": intact.len() + 1})).await;
}
