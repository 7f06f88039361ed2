//! Ids that an upstream gives away again: another event is kept under an id of its own, the same one is a repeat.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{PATIENCE, Relay, eventually};

/// An upstream that says one body a connection; the last one stays open behind it.
struct Upstream {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    async fn start(media_type: &'static str, bodies: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/feed", listener.local_addr().unwrap());
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            let (mut n, last) = (0, bodies.len() - 1);
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap().to_ascii_lowercase());
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all((answer + &bodies[n.min(last)]).as_bytes()).await;
                if n >= last {
                    // Until the other side goes.
                    tokio::spawn(async move { stream.read_u8().await });
                }
                n += 1;
            }
        });
        Self { url, heads }
    }

    async fn sse(bodies: &[&[(&str, &str)]]) -> Self {
        let block = |(id, data): &(&str, &str)| format!("id: {id}\ndata: {data}\n\n");
        let body = |blocks: &&[(&str, &str)]| format!("retry: 10\n\n{}", blocks.iter().map(block).collect::<String>());
        Self::start("text/event-stream", bodies.iter().map(body).collect()).await
    }

    async fn ndjson(bodies: &[&str]) -> Self {
        Self::start("application/x-ndjson", bodies.iter().map(|body| (*body).to_owned()).collect()).await
    }
}

async fn source(relay: &Relay, protocol: &str, upstream: &Upstream, settings: Value) {
    let body = json!({"protocol": protocol, "url": upstream.url, "topic": "in", "settings": settings});
    relay.must("PUT", "/v1/sources/up", body).await;
}

/// Everything of a topic: seq, id and data.
async fn stored(relay: &Relay, topic: &str) -> Vec<(u64, String, Value)> {
    let page = relay.get(&format!("/v1/topics/{topic}/events?limit=1000")).await;
    let of = |event: &Value| {
        (event["seq"].as_str().unwrap().parse().unwrap(), event["id"].as_str().unwrap().to_owned(), event["data"].clone())
    };
    page["events"].as_array().unwrap().iter().map(of).collect()
}

async fn data(relay: &Relay) -> Vec<Value> {
    stored(relay, "in").await.into_iter().map(|(_, _, data)| data).collect()
}

/// Waits until the source has counted this.
async fn counts(relay: &Relay, wanted: Value) {
    let waiting = eventually("the counts", async || {
        let counts = relay.get("/v1/sources/up").await["counts"].clone();
        wanted.as_object().unwrap().iter().all(|(name, value)| &counts[name] == value).then_some(())
    });
    if tokio::time::timeout(PATIENCE / 30 * 29, waiting).await.is_err() {
        let shown = relay.get("/v1/sources/up").await["counts"].clone();
        panic!("wanted {wanted}, counted {shown}, in the log: {:?}", stored(relay, "in").await);
    }
}

/// The notices that an id was given away again.
async fn told(relay: &Relay) -> Vec<Value> {
    let page = relay.get("/v1/topics/hookcast.ops/events?limit=1000").await;
    let events = page["events"].as_array().unwrap().iter();
    events.filter(|event| event["type"] == "source.id_reused").map(|event| event["data"].clone()).collect()
}

#[tokio::test]
async fn ids_that_begin_anew_lose_nothing_and_what_is_repeated_is_a_repeat() {
    let relay = Relay::start().await;
    let second: &[_] = &[("1", "\"d\""), ("2", "\"e\""), ("3", "\"f\"")];
    let upstream = Upstream::sse(&[&[("1", "\"a\""), ("2", "\"b\""), ("3", "\"c\"")], second, second, second]).await;
    source(&relay, "sse", &upstream, json!({})).await;
    counts(&relay, json!({"events": 6, "repeats": 6, "reused_ids": 3})).await;
    let events = stored(&relay, "in").await;
    assert_eq!(data(&relay).await, ["a", "b", "c", "d", "e", "f"]);
    for ((seq, id, _), came) in events.iter().zip(["1", "2", "3"]) {
        assert_eq!((*id).as_str(), came, "at {seq}");
    }
    for ((seq, id, _), came) in events[3..].iter().zip(["1", "2", "3"]) {
        assert_eq!(*id, format!("{came}~{seq}"));
    }
    // One word a minute is enough.
    let notice = eventually("the notice", async || told(&relay).await.first().cloned()).await;
    assert_eq!(told(&relay).await.len(), 1);
    assert_eq!((&notice["source"], &notice["id"]), (&json!("up"), &json!("1")));
    assert_eq!((&notice["seq"], &notice["earlier_seq"]), (&json!(events[3].0), &json!(events[0].0)));
}

#[tokio::test]
async fn an_id_names_each_state_that_follows_another() {
    let relay = Relay::start().await;
    let upstream = Upstream::sse(&[&[("1", "\"open\""), ("1", "\"closed\""), ("1", "\"open\""), ("1", "\"open\"")]]).await;
    source(&relay, "sse", &upstream, json!({})).await;
    counts(&relay, json!({"events": 3, "repeats": 1, "reused_ids": 2})).await;
    assert_eq!(data(&relay).await, ["open", "closed", "open"]);
}

#[tokio::test]
async fn type_and_subject_tell_events_apart_and_an_inherited_id_is_none() {
    let relay = Relay::start().await;
    let blocks = "id: 1\nevent: made\ndata: {\"s\":\"x\"}\n\nid: 1\nevent: ended\ndata: {\"s\":\"x\"}\n\ndata: {\"s\":\"x\"}\n\ndata: {\"s\":\"x\"}\n\n";
    let upstream = Upstream::start("text/event-stream", vec![blocks.to_owned()]).await;
    source(&relay, "sse", &upstream, json!({})).await;
    counts(&relay, json!({"events": 4, "repeats": 0, "reused_ids": 1})).await;
    assert_eq!(relay.get("/v1/sources/up").await["resume_token"], "1");

    // The subject comes out of what the pointer finds, which is in the data; so other data with the same subject is told by them.
    let lines = "{\"id\":7,\"s\":\"a\"}\n{\"id\":7,\"s\":\"b\"}\n{\"id\":7,\"s\":\"b\"}\n";
    let upstream = Upstream::ndjson(&[lines]).await;
    source(&relay, "ndjson", &upstream, json!({"id": "/id", "subject": "/s"})).await;
    eventually("all of the lines", async || (data(&relay).await.len() == 6).then_some(())).await;
}

#[tokio::test]
async fn what_was_kept_under_another_id_is_known_after_a_restart_too() {
    let mut relay = Relay::start().await;
    let long = "x".repeat(254);
    let again: &[_] = &[("1", "\"b\""), (&long, "\"d\"")];
    let upstream = Upstream::sse(&[&[("1", "\"a\""), ("1", "\"b\""), (&long, "\"c\""), (&long, "\"d\"")], again]).await;
    source(&relay, "sse", &upstream, json!({})).await;
    counts(&relay, json!({"events": 4, "repeats": 2, "reused_ids": 2})).await;
    let before = stored(&relay, "in").await;
    assert_eq!(before[1].1, format!("1~{}", before[1].0));
    assert_eq!(before[3].1.len(), 255);
    assert!(before[3].1.ends_with(&format!("~{}", before[3].0)), "{}", before[3].1);
    for is_kill in [true, false] {
        if is_kill {
            relay.kill9().await;
        } else {
            assert_eq!(relay.terminate().await, Some(0));
        }
        relay.restart().await;
        counts(&relay, json!({"events": 0, "repeats": 2, "reused_ids": 0})).await;
        assert_eq!(stored(&relay, "in").await, before);
    }
}

#[tokio::test]
async fn a_source_may_leave_out_what_comes_under_a_known_id() {
    let relay = Relay::start().await;
    let upstream = Upstream::ndjson(&["{\"id\":1,\"n\":1}\n{\"id\":1,\"n\":2}\n{\"id\":1,\"n\":1}\n{\"id\":2,\"n\":3}\n"]).await;
    source(&relay, "ndjson", &upstream, json!({"id": "/id", "on_reused_id": "drop"})).await;
    counts(&relay, json!({"events": 2, "repeats": 1, "reused_ids": 1})).await;
    assert_eq!(data(&relay).await, [json!({"id": 1, "n": 1}), json!({"id": 2, "n": 3})]);
    let notice = eventually("the notice", async || told(&relay).await.first().cloned()).await;
    assert_eq!((&notice["id"], &notice["seq"], &notice["earlier_seq"]), (&json!("1"), &Value::Null, &json!(1)));
    let shown = relay.get("/v1/sources/up").await;
    assert_eq!(shown["settings"]["on_reused_id"], "drop");
    relay.must("PATCH", "/v1/sources/up", json!({"settings": {"on_reused_id": null}})).await;
    assert_eq!(relay.get("/v1/sources/up").await["settings"]["on_reused_id"], "keep");
    let (status, problem) = relay.ask("PATCH", "/v1/sources/up", Some(&json!({"settings": {"on_reused_id": "loose"}}))).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/settings/on_reused_id")), "{problem}");
}

#[tokio::test]
async fn a_sender_of_webhooks_is_known_by_its_id_alone() {
    let relay = Relay::start().await;
    let settings = json!({"verify": {"scheme": "none"}, "id": "/id"});
    let body = json!({"protocol": "webhook", "topic": "in", "settings": settings});
    relay.must("PUT", "/v1/sources/up", body).await;
    for (data, accepted) in [(json!({"id": 1, "try": 1}), 1), (json!({"id": 1, "try": 2}), 0), (json!({"id": 2}), 1)] {
        let answer = relay.must("POST", "/v1/sources/up/webhook", data).await;
        assert_eq!(answer["accepted"], accepted);
    }
    counts(&relay, json!({"events": 2, "repeats": 1, "reused_ids": 0})).await;
    assert!(relay.get("/v1/sources/up").await["settings"].get("on_reused_id").is_none());
    relay.must("PATCH", "/v1/sources/up", json!({"settings": {"type": "/type"}})).await;
    let (status, problem) = relay.ask("PATCH", "/v1/sources/up", Some(&json!({"settings": {"on_reused_id": "keep"}}))).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/settings/on_reused_id")), "{problem}");
}

#[tokio::test]
async fn the_ids_of_another_upstream_are_not_those_of_the_one_before() {
    let mut relay = Relay::start().await;
    let blocks: &[_] = &[("1", "\"a\""), ("2", "\"b\""), ("3", "\"c\"")];
    let upstream = Upstream::sse(&[blocks]).await;
    source(&relay, "sse", &upstream, json!({})).await;
    counts(&relay, json!({"events": 3})).await;
    eventually("the position", async || (relay.get("/v1/sources/up").await["resume_token"] == "3").then_some(())).await;
    // One says the very same, then one that says something else; each once by PUT and once by PATCH.
    let other: &[_] = &[("1", "\"d\""), ("2", "\"b\""), ("3", "\"f\"")];
    for (n, blocks) in [blocks, other].into_iter().enumerate() {
        let next = Upstream::sse(&[blocks, blocks]).await;
        if n == 0 {
            source(&relay, "sse", &next, json!({})).await;
        } else {
            relay.must("PATCH", "/v1/sources/up", json!({"url": next.url})).await;
        }
        let total = 3 * (n + 2);
        counts(&relay, json!({"events": total, "repeats": 3 * (n + 1), "reused_ids": 0, "gaps": 0})).await;
        let stored = stored(&relay, "in").await;
        let ids: Vec<&str> = stored[total - 3..].iter().map(|(_, id, _)| id.as_str()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
        assert_eq!(
            stored[total - 3..].iter().map(|(.., data)| format!("\"{}\"", data.as_str().unwrap())).collect::<Vec<_>>(),
            blocks.iter().map(|(_, data)| *data).collect::<Vec<_>>()
        );
        assert!(!next.heads.lock().unwrap()[0].contains("last-event-id"), "it is asked from its own beginning");
        assert!(next.heads.lock().unwrap()[1].contains("last-event-id: 3"), "and its own position is kept");
    }
    // A restart changes none of that, nor does any other change.
    relay.kill9().await;
    relay.restart().await;
    counts(&relay, json!({"events": 0, "repeats": 3, "reused_ids": 0})).await;
    relay.must("PATCH", "/v1/sources/up", json!({"settings": {"idle_timeout": "80s"}})).await;
    counts(&relay, json!({"events": 0, "repeats": 6, "reused_ids": 0})).await;
    assert_eq!(relay.get("/v1/sources/up").await["resume_token"], "3");
}

#[tokio::test]
async fn a_position_that_no_event_carries_is_not_stored_for_another_upstream() {
    let mut relay = Relay::start().await;
    let answer = |events: &str, next: &str| format!("{{\"events\":{events},\"next\":\"{next}\"}}");
    let answers = vec![answer("[1]", "a"), answer("[]", "b"), answer("[]", "c"), String::new()];
    let upstream = Upstream::start("application/json", answers).await;
    let settings = json!({"items": "/events", "cursor": "/next", "cursor_param": "after", "min_interval": "100ms"});
    source(&relay, "long-poll", &upstream, settings).await;
    let asks = |upstream: &Upstream, what: &str| upstream.heads.lock().unwrap().iter().any(|head| head.contains(what));
    // The position c is known, and not worth to be stored yet.
    eventually("the last question", async || asks(&upstream, "after=c").then_some(())).await;
    let next = Upstream::start("application/json", vec![String::new()]).await;
    relay.must("PATCH", "/v1/sources/up", json!({"url": next.url})).await;
    eventually("a question to the other", async || asks(&next, "get /feed").then_some(())).await;
    relay.kill9().await;
    relay.restart().await;
    eventually("another", async || (next.heads.lock().unwrap().len() >= 2).then_some(())).await;
    assert!(!asks(&next, "after="), "{:?}", next.heads.lock().unwrap());
}

#[tokio::test]
async fn an_upstream_cannot_purge_what_another_said_under_the_same_id() {
    let relay = Relay::start().await;
    let settings = json!({"profile": "twitter", "id": "/id_str"});
    let one = Upstream::ndjson(&["{\"id_str\":\"7\",\"text\":\"a\"}\r\n"]).await;
    source(&relay, "ndjson", &one, settings).await;
    counts(&relay, json!({"events": 1})).await;
    let delete = "{\"delete\":{\"status\":{\"id_str\":\"7\"}}}\r\n";
    let other = Upstream::ndjson(&[&[delete, "{\"id_str\":\"7\",\"text\":\"b\"}\r\n", delete].concat()]).await;
    relay.must("PATCH", "/v1/sources/up", json!({"url": other.url})).await;
    let purged = eventually("both notices", async || {
        let page = relay.get("/v1/topics/hookcast.ops/events?limit=1000").await;
        let said: Vec<Value> =
            page["events"].as_array().unwrap().iter().filter(|event| event["type"] == "source.delete").cloned().collect();
        (said.len() == 2).then(|| said.iter().map(|event| event["data"]["purged"].clone()).collect::<Vec<_>>())
    })
    .await;
    let events = stored(&relay, "in").await;
    assert_eq!(purged, [Value::Null, json!(events[1].0)]);
    assert_eq!(events[0].2["text"], "a");
}
