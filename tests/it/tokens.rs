//! Tokens made over REST: who may make which, when they count, what they may have.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Relay, eventually, in_time};

const URL: &str = "https://example.com/hook";

/// A relay with its first token.
async fn guarded() -> (Relay, String) {
    let relay = Relay::start().await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]})).await;
    let token = made["token"].as_str().unwrap().to_owned();
    (relay, token)
}

async fn make(relay: &Relay, maker: &str, body: Value) -> (String, String) {
    let (status, made) = relay.ask_as(maker, "POST", "/v1/tokens", Some(&body)).await;
    assert_eq!(status, 201, "{made}");
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

fn slug(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["type"].as_str().unwrap_or_default().trim_start_matches("/problems/"))
}

#[tokio::test]
async fn the_first_token_closes_the_door_behind_it_for_good() {
    let mut relay = Relay::start().await;
    let weak = json!({"name": "root", "scopes": ["read"]});
    assert_eq!(slug(&relay.ask("POST", "/v1/tokens", Some(&weak)).await), (422, "first_token"));
    assert_eq!(relay.ask("GET", "/v1/subscriptions", None).await.0, 200);
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["manage", "read"]})).await;
    let first = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    let token = made["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("hc_") && token.len() > 40);
    assert_eq!(relay.ask("GET", "/v1/subscriptions", None).await.0, 401);
    assert_eq!(relay.ask("POST", "/v1/tokens", Some(&weak)).await.0, 401);
    let (status, shown) = relay.ask_as(&token, "GET", "/v1/tokens", None).await;
    assert_eq!((status, shown["items"].as_array().unwrap().len()), (200, 1));
    assert!(!shown.to_string().contains(&token) && shown["items"][0].get("token").is_none(), "shown once: {shown}");
    assert_eq!(shown["items"][0]["made_by"], "operator");

    relay.kill9().await;
    relay.restart().await;
    assert_eq!(relay.ask("GET", "/v1/subscriptions", None).await.0, 401);
    assert_eq!(relay.ask_as(&token, "GET", "/v1/subscriptions", None).await.0, 200);
    // The token itself is nowhere on the disk.
    for name in ["data/hookcast.db", "data/hookcast.db-wal", "log.txt"] {
        let bytes = std::fs::read(relay.path(name)).unwrap_or_default();
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()), "{name}");
    }
    assert_eq!(relay.ask_as(&token, "DELETE", &first, None).await.0, 200);
    assert_eq!(relay.ask_as(&token, "GET", "/v1/subscriptions", None).await.0, 401, "revoked at once");
    relay.terminate().await;
    relay.restart().await;
    assert_eq!(relay.ask("GET", "/v1/subscriptions", None).await.0, 401, "without tokens it does not open again");
}

#[tokio::test]
async fn a_token_makes_nothing_beyond_itself() {
    let (relay, root) = guarded().await;
    let (tenant_id, tenant) =
        make(&relay, &root, json!({"name": "acme", "scopes": ["read", "publish", "manage"], "topics": ["acme.**"]})).await;
    for (body, wanted) in [
        (json!({"name": "a", "scopes": ["read"], "topics": ["acme.a.*"]}), (201, "")),
        (json!({"name": "a", "scopes": ["read"]}), (403, "topic_not_allowed")),
        (json!({"name": "a", "scopes": ["read"], "topics": ["acme.a", "**"]}), (403, "topic_not_allowed")),
        (json!({"name": "a", "scopes": ["stream"], "topics": ["acme.a"]}), (403, "scope")),
        (json!({"name": "a", "scopes": [], "topics": []}), (422, "scope")),
        (json!({"id": tenant_id, "name": "a", "scopes": ["read"], "topics": ["acme.a"]}), (422, "unknown_field")),
        (
            json!({"name": "a", "scopes": ["read"], "topics": ["acme.a"], "expires_at": "2001-01-01T00:00:00Z"}),
            (422, "expires_at"),
        ),
    ] {
        let answer = relay.ask_as(&tenant, "POST", "/v1/tokens", Some(&body)).await;
        assert_eq!(slug(&answer), wanted, "{body}: {}", answer.1);
    }
    // It sees what it made, and neither itself nor others.
    let (_, list) = relay.ask_as(&tenant, "GET", "/v1/tokens", None).await;
    let names: Vec<&str> = list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a"]);
    for method in ["GET", "DELETE"] {
        let answer = relay.ask_as(&tenant, method, &format!("/v1/tokens/{tenant_id}"), None).await;
        assert_eq!(slug(&answer), (404, "not_found"), "{method}");
    }
    let reader = json!({"name": "r", "scopes": ["read"]});
    let (_, reader) = make(&relay, &root, reader).await;
    assert_eq!(slug(&relay.ask_as(&reader, "GET", "/v1/tokens", None).await), (403, "scope"));
    // One with an end makes none that outlive it, one with limits none at all.
    let (_, short) = make(&relay, &root, json!({"name": "s", "scopes": ["manage"], "expires_at": "2999-01-01T00:00:00Z"})).await;
    let outlive = json!({"name": "o", "scopes": ["manage"]});
    assert_eq!(slug(&relay.ask_as(&short, "POST", "/v1/tokens", Some(&outlive)).await), (422, "expires_at"));
    let (_, small) = make(&relay, &root, json!({"name": "l", "scopes": ["manage"], "limits": {"sources": 1}})).await;
    assert_eq!(slug(&relay.ask_as(&small, "POST", "/v1/tokens", Some(&outlive)).await), (429, "token_limit"));
}

/// A PUT of what is there is asked for, which is removed and replaced by another before the body comes.
#[tokio::test]
async fn what_was_there_when_a_request_began_is_no_room_for_another_once_it_went() {
    let (relay, root) = guarded().await;
    let one = json!({"name": "one", "scopes": ["read", "manage"], "topics": ["acme.**"], "limits": {"subscriptions": 1}});
    let (_, tenant) = make(&relay, &root, one).await;
    let body = json!({"url": URL, "topics": ["acme.a"]});
    assert_eq!(relay.ask_as(&tenant, "PUT", "/v1/subscriptions/a", Some(&body)).await.0, 201);
    let text = body.to_string();
    let head = format!(
        "PUT /v1/subscriptions/a HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {tenant}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        text.len()
    );
    let mut slow = TcpStream::connect(relay.url.trim_start_matches("http://")).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut goes_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    in_time(slow.read_exact(&mut goes_on)).await.unwrap();
    assert!(goes_on.starts_with(b"HTTP/1.1 100 "), "the relay waits for the body");
    assert_eq!(relay.ask_as(&tenant, "DELETE", "/v1/subscriptions/a", None).await.0, 204);
    assert_eq!(relay.ask_as(&tenant, "PUT", "/v1/subscriptions/b", Some(&body)).await.0, 201);
    slow.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    in_time(slow.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("token_limit"), "{answer}");
}

/// A PUT is repeated before the first one is answered, as after a time that ran out.
#[tokio::test]
async fn a_repeat_needs_no_room_for_another() {
    let (relay, root) = guarded().await;
    let scopes = json!(["read", "manage"]);
    let one = json!({"name": "one", "scopes": scopes, "topics": ["acme.**"], "limits": {"subscriptions": 1, "sources": 1}});
    let (_, tenant) = make(&relay, &root, one).await;
    let subscription = json!({"url": URL, "topics": ["acme.a"]});
    let source = json!({"url": URL, "topic": "acme.a", "protocol": "sse", "enabled": false});
    for (path, body) in [("subscriptions", subscription), ("sources", source)] {
        for n in 0..5 {
            let path = format!("/v1/{path}/n{n}");
            let put = || relay.ask_as(&tenant, "PUT", &path, Some(&body));
            let mut answers: Vec<u16> = join_all((0..4).map(|_| put())).await.into_iter().map(|(status, _)| status).collect();
            answers.sort_unstable();
            assert_eq!(answers, [200, 200, 200, 201], "{path}");
            assert_eq!(relay.ask_as(&tenant, "DELETE", &path, None).await.0, 204);
        }
    }
}

#[tokio::test]
async fn declared_tokens_are_shown_and_stay() {
    let admin = "hc_admin_0123456789abcdef0123456789abcdef";
    let sha256: String = hookcast_http::auth::TokenEntry::digest(admin).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = format!("[auth]\ntokens = [{{ name = \"ops\", sha256 = \"{sha256}\", scopes = [\"manage\", \"read\"] }}]\n");
    let relay = Relay::start_with(&config).await;
    let (_, list) = relay.ask_as(admin, "GET", "/v1/tokens", None).await;
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["declared"]), (&json!("ops"), &json!(true)));
    assert_eq!(slug(&relay.ask_as(admin, "DELETE", "/v1/tokens/ops", None).await), (409, "declared"));
}

#[tokio::test]
async fn limits_of_a_token_hold() {
    let (relay, root) = guarded().await;
    let limits = json!({"subscriptions": 2, "sources": 1, "streams": 1, "publish_per_second": 10});
    let scopes = json!(["read", "publish", "stream", "manage"]);
    let (_, tenant) =
        make(&relay, &root, json!({"name": "acme", "scopes": scopes, "topics": ["acme.**"], "limits": limits})).await;
    let body = |topic: &str| json!({"url": URL, "topics": [topic]});
    // Ten at once: two get through.
    let all = (0..10).map(|n| {
        let (relay, tenant, body) = (&relay, &tenant, body("acme.a"));
        async move { relay.ask_as(tenant, "PUT", &format!("/v1/subscriptions/s{n}"), Some(&body)).await }
    });
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 2);
    assert!(answers.iter().filter(|(status, _)| *status != 201).all(|answer| slug(answer) == (429, "token_limit")));
    // What others have beside it does not count, and what is there may be changed.
    assert_eq!(relay.ask_as(&root, "POST", "/v1/subscriptions", Some(&body("other.a"))).await.0, 201);
    let (_, list) = relay.ask_as(&tenant, "GET", "/v1/subscriptions", None).await;
    let id = list["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(relay.ask_as(&tenant, "PUT", &format!("/v1/subscriptions/{id}"), Some(&body("acme.b"))).await.0, 200);
    assert_eq!(relay.ask_as(&tenant, "DELETE", &format!("/v1/subscriptions/{id}"), None).await.0, 204);
    assert_eq!(relay.ask_as(&tenant, "POST", "/v1/subscriptions", Some(&body("acme.c"))).await.0, 201);

    let source = |name: &str| json!({"name": name, "protocol": "sse", "url": "https://up.example.com/", "topic": "acme.in", "enabled": false});
    assert_eq!(relay.ask_as(&tenant, "POST", "/v1/sources", Some(&source("one"))).await.0, 201);
    assert_eq!(slug(&relay.ask_as(&tenant, "POST", "/v1/sources", Some(&source("two"))).await), (429, "token_limit"));

    let stream = || relay.client.get(format!("{}/v1/topics/acme.x/stream", relay.url)).bearer_auth(&tenant).send();
    let open = stream().await.unwrap();
    assert_eq!(open.status(), 200);
    let refused = stream().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    drop(open);
    eventually("a place for a stream", async || (stream().await.unwrap().status() == 200).then_some(())).await;

    // A whole request fits once, then the rate holds.
    let lines: String = (0..1000).map(|n| format!("{n}\n")).collect();
    let publish = |body: String| {
        let request = relay.client.post(format!("{}/v1/topics/acme.x/events", relay.url)).bearer_auth(&tenant);
        request.header("content-type", "application/x-ndjson").body(body).send()
    };
    assert_eq!(publish(lines.clone()).await.unwrap().status(), 202);
    let refused = publish(lines).await.unwrap();
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((90..=101).contains(&wait), "{wait}");
    assert_eq!(relay.ask_as(&root, "POST", "/v1/topics/acme.x/events", Some(&json!(1))).await.0, 202, "others publish on");
}

#[tokio::test]
async fn streams_end_with_their_token() {
    let (relay, root) = guarded().await;
    let scopes = json!(["stream"]);
    let (id, revoked) = make(&relay, &root, json!({"name": "a", "scopes": scopes})).await;
    let (_, kept) = make(&relay, &root, json!({"name": "b", "scopes": scopes})).await;
    let soon = hookcast_core::clock::Clock::now(&hookcast_core::clock::SystemClock).plus(std::time::Duration::from_secs(3));
    let (_, expiring) = make(&relay, &root, json!({"name": "c", "scopes": scopes, "expires_at": soon.to_string()})).await;
    let open = |token: String, more: &'static str| {
        let request = relay.client.get(format!("{}/v1/topics/t/stream{more}", relay.url)).bearer_auth(token);
        async move { request.send().await.unwrap() }
    };
    let endless = open(revoked.clone(), "").await;
    let limited = open(revoked, "?limit=5").await;
    let of_others = open(kept, "").await;
    let to_expire = open(expiring, "?format=sse").await;
    assert_eq!(relay.ask_as(&root, "DELETE", &format!("/v1/tokens/{id}"), None).await.0, 200);
    for stream in [endless, limited, to_expire] {
        assert_eq!(stream.status(), 200);
        let end = tokio::time::timeout(crate::support::PATIENCE / 3, stream.bytes()).await;
        assert!(end.expect("an end before a heartbeat").is_ok(), "a clean one");
    }
    // Others see nothing of it.
    relay.ask_as(&root, "POST", "/v1/topics/t/events", Some(&json!(7))).await;
    let mut of_others = of_others;
    let chunk = tokio::time::timeout(crate::support::PATIENCE, of_others.chunk()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&chunk).contains("\"data\":7"));
}

#[tokio::test]
async fn the_command_makes_tokens_for_file_and_relay() {
    let relay = Relay::start().await;
    let (code, token, line) = relay.run(&["token", "new", "acme", "--scope", "publish", "--topic", "acme.**"]).await;
    assert_eq!(code, Some(0), "{line}");
    let line = line.lines().find(|line| line.starts_with('{')).unwrap();
    relay.configure(&format!("[auth]\ntokens = [{line}]\n"));
    let mut relay = relay;
    relay.terminate().await;
    relay.restart().await;
    assert_eq!(relay.ask_as(token.trim(), "POST", "/v1/topics/acme.x/events", Some(&json!(1))).await.0, 202);
    assert_eq!(relay.ask_as(token.trim(), "POST", "/v1/topics/other/events", Some(&json!(1))).await.0, 403);
    let other = Relay::start().await;
    let (code, token, problem) = other.run(&["token", "new", "root", "--remote", "--url", &other.url]).await;
    assert_eq!(code, Some(0), "{problem}");
    assert_eq!(other.ask_as(token.trim(), "GET", "/v1/tokens", None).await.0, 200);
}
