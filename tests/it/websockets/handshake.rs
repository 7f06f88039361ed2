//! Who becomes a WebSocket and who does not.

use serde_json::json;

use super::wire::{HANDSHAKE, OURS, Socket};
use crate::support::Relay;

#[tokio::test]
async fn a_proper_handshake_is_answered_and_carries_events() {
    let relay = Relay::start().await;
    let seq = relay.publish("t", "{\"n\":\"ä\"}").await;
    let mut socket = Socket::open(&relay, "t/stream?since=earliest&format=ws", HANDSHAKE).await;
    assert_eq!(socket.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(socket.header("upgrade"), Some("websocket"));
    assert_eq!(socket.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(socket.header("sec-websocket-protocol"), None);
    assert_eq!(socket.header("sec-websocket-extensions"), None);
    assert_eq!(socket.header("transfer-encoding"), None);
    let event = socket.event().await;
    assert_eq!(
        (&event["seq"], &event["data"], &event["specversion"]),
        (&json!(seq.to_string()), &json!({"n": "ä"}), &json!("1.0"))
    );
    let large = format!("\"{}\"", "x".repeat(200_000));
    relay.publish("t", large.clone()).await;
    assert_eq!(socket.event().await["data"].to_string(), large);
    let ours = Socket::open(&relay, "t/stream", OURS).await;
    assert_eq!(ours.header("sec-websocket-protocol"), Some("hookcast.v1"));
    let other = HANDSHAKE.to_owned() + "sec-websocket-protocol: chat, mqtt\r\nsec-websocket-extensions: permessage-deflate\r\n";
    let other = Socket::open(&relay, "t/stream", &other).await;
    assert_eq!((other.header("sec-websocket-protocol"), other.header("sec-websocket-extensions")), (None, None));
}

#[tokio::test]
async fn what_is_refused_is_a_problem_and_ends_the_connection() {
    let relay = Relay::start().await;
    let old = HANDSHAKE.replace("version: 13", "version: 8");
    let lost = HANDSHAKE.replace("upgrade: websocket\r\n", "");
    let keyless = HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    let foreign = HANDSHAKE.to_owned() + "origin: https://evil.example\r\n";
    for (query, headers, status) in [
        ("", old.as_str(), 426),
        ("", &lost, 426),
        ("?format=ws", "", 426),
        ("", &keyless, 400),
        ("", &foreign, 403),
        ("?format=sse", HANDSHAKE, 406),
        ("?since=yesterday", HANDSHAKE, 422),
        ("?last_event_id=-1", HANDSHAKE, 400),
    ] {
        let mut socket = Socket::ask(&relay, &format!("t/stream{query}"), headers).await;
        assert_eq!(socket.status(), status, "{query} {headers}: {}", socket.head);
        assert_eq!(socket.header("content-type"), Some("application/problem+json"));
        if status == 426 {
            assert_eq!(socket.header("sec-websocket-version"), Some("13"));
            assert_eq!(socket.header("upgrade"), Some("websocket"));
        }
        // What follows on a handshake need not be HTTP: it is not taken for a request.
        socket.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        if headers.contains("upgrade: websocket") {
            assert_eq!(socket.rest().await.matches("HTTP/1.1").count(), 0, "{query} {headers}");
        }
    }
}

#[tokio::test]
async fn a_token_its_topics_and_its_seat_count_as_for_every_stream() {
    let relay = Relay::start().await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]})).await;
    let root = made["token"].as_str().unwrap();
    let wanted = json!({"name": "a", "scopes": ["stream"], "topics": ["acme.**"], "limits": {"streams": 1}});
    let (status, made) = relay.ask_as(root, "POST", "/v1/tokens", Some(&wanted)).await;
    assert_eq!(status, 201, "{made}");
    let bearer = format!("authorization: Bearer {}\r\n", made["token"].as_str().unwrap());
    assert_eq!(Socket::ask(&relay, "acme.x/stream", HANDSHAKE).await.status(), 401);
    assert_eq!(Socket::ask(&relay, "other/stream", &(HANDSHAKE.to_owned() + &bearer)).await.status(), 403);
    // With tokens the gate looks at no origin: the handshake does.
    let foreign = format!("{HANDSHAKE}{bearer}origin: https://evil.example\r\n");
    assert_eq!(Socket::ask(&relay, "acme.x/stream", &foreign).await.status(), 403);
    let same = format!("{HANDSHAKE}{bearer}origin: http://localhost\r\n");
    let mut first = Socket::open(&relay, "acme.x/stream", &same).await;
    assert_eq!(Socket::ask(&relay, "acme.x/stream", &(HANDSHAKE.to_owned() + &bearer)).await.status(), 429);
    let id = made["id"].as_str().unwrap();
    assert_eq!(relay.ask_as(root, "DELETE", &format!("/v1/tokens/{id}"), None).await.0, 200);
    assert_eq!(first.close().await.code(), Some(1008), "revoked");
    first.part().await;
}
