//! Streams asked for by POST: parameters in the body, and what is refused.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::support::Relay;

const FORM: &str = "application/x-www-form-urlencoded";

async fn ask(relay: &Relay, path: &str, content_type: &str, body: String) -> (u16, Vec<u8>) {
    let url = format!("{}/v1/topics/{path}", relay.url);
    let response = relay.client.post(url).header(CONTENT_TYPE, content_type).body(body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.bytes().await.unwrap().to_vec())
}

fn numbers(body: &[u8]) -> Vec<u64> {
    let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_body_asks_as_an_address_does() {
    let relay = Relay::start().await;
    relay.publish_numbers("a", 0..10).await;
    let form = "since=earliest&limit=2&filter=data.n%20%3E%205".to_owned();
    let (status, body) = ask(&relay, "a/stream", FORM, form).await;
    assert_eq!((status, numbers(&body)), (200, vec![6, 7]));
    // Longer than an address may be.
    let long = format!("data.n in [{}]", (3..1000).map(|n| n.to_string()).collect::<Vec<_>>().join(", "));
    assert!(long.len() > 4000 && long.len() < 8000);
    let numbers_wanted = format!("data.n in [{}]", (3..500).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let object = json!({"since": "earliest", "limit": 2, "filter": numbers_wanted, "types": ["message", "x"], "padding": false});
    let (status, body) = ask(&relay, "a/stream", "application/json; charset=utf-8", object.to_string()).await;
    assert_eq!((status, numbers(&body)), (200, vec![3, 4]));
    // Some here, some there, and none at all.
    let (status, body) = ask(&relay, "a/stream?limit=1", "application/json", json!({"since": 3}).to_string()).await;
    assert_eq!((status, numbers(&body)), (200, vec![3]));
    let (status, body) = ask(&relay, "a/stream?limit=1&since=4", "text/plain", String::new()).await;
    assert_eq!((status, numbers(&body)), (200, vec![4]));
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(["limit=1", "&since=5"].map(Ok::<_, std::io::Error>)));
    let request = relay.client.post(format!("{}/v1/topics/a/stream", relay.url)).header(CONTENT_TYPE, FORM).body(chunked);
    assert_eq!(numbers(&request.send().await.unwrap().bytes().await.unwrap()), [5]);
}

#[tokio::test]
async fn a_body_that_asks_for_something_else_is_refused() {
    let relay = Relay::start().await;
    for (path, content_type, body, status, slug) in [
        ("a/stream", FORM, "sinse=1".to_owned(), 422, "unknown_parameter"),
        ("a/stream", "application/json", "{\"sinse\":1}".to_owned(), 422, "unknown_parameter"),
        ("a/stream", FORM, "limit=1&limit=2".to_owned(), 422, "unknown_parameter"),
        ("a/stream?limit=1", FORM, "limit=1".to_owned(), 422, "unknown_parameter"),
        ("a/stream", "application/json", "{\"limit\":{}}".to_owned(), 422, "invalid_fields"),
        ("a/stream", "application/json", "[]".to_owned(), 422, "invalid_fields"),
        ("a/stream", "application/json", "{\"limit\":1".to_owned(), 400, "invalid_json"),
        ("a/stream", "application/json", "{\"limit\":1,\"limit\":2}".to_owned(), 400, "duplicate_key"),
        ("a/stream", "application/json", "{\"limit\":-1}".to_owned(), 422, "limit"),
        ("a/stream", "text/plain", "limit=1".to_owned(), 415, "media_type"),
        ("a/stream", FORM, format!("filter={}", "x".repeat(64 * 1024)), 413, "payload_too_large"),
        ("a..b/stream", FORM, String::new(), 422, "topics"),
    ] {
        let (got, answer) = ask(&relay, path, content_type, body.clone()).await;
        let problem: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((got, &problem["type"]), (status, &json!(format!("/problems/{slug}"))), "{path} {body:.80}");
    }
    let encoded = relay.client.post(format!("{}/v1/topics/a/stream", relay.url)).header("content-encoding", "gzip").body("x");
    assert_eq!(encoded.send().await.unwrap().status(), 415);
    let other = relay.client.put(format!("{}/v1/topics/a/stream", relay.url)).send().await.unwrap();
    assert_eq!((other.status().as_u16(), other.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD, POST"));
}

#[tokio::test]
async fn who_may_not_follow_may_not_by_post() {
    let relay = Relay::start().await;
    let foreign = relay.client.post(format!("{}/v1/topics/a/stream", relay.url)).header("origin", "https://evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]})).await;
    let root = made["token"].as_str().unwrap().to_owned();
    let tenant = json!({"name": "t", "scopes": ["stream"], "topics": ["acme.**"]});
    let tenant = relay.ask_as(&root, "POST", "/v1/tokens", Some(&tenant)).await.1["token"].as_str().unwrap().to_owned();
    let reader = json!({"name": "r", "scopes": ["read"]});
    let reader = relay.ask_as(&root, "POST", "/v1/tokens", Some(&reader)).await.1["token"].as_str().unwrap().to_owned();
    let body = json!({"max_duration": "1ms"});
    assert_eq!(relay.ask("POST", "/v1/topics/a/stream", Some(&body)).await.0, 401);
    assert_eq!(relay.ask_as(&reader, "POST", "/v1/topics/a/stream", Some(&body)).await.0, 403);
    assert_eq!(relay.ask_as(&tenant, "POST", "/v1/topics/a/stream", Some(&body)).await.0, 403);
    assert_eq!(relay.ask_as(&tenant, "POST", "/v1/topics/acme.x/stream", Some(&body)).await.0, 200);
}
