//! What stands between: every kind of stream through nginx, haproxy and Varnish as they come, and what `doctor` says of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use futures_util::StreamExt as _;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, Relay};

mod doctor;

/// Events that are awaited one by one.
const EVENTS: u64 = 4;

/// Waits until a stream has brought event `n`; only then the next is published, so none of them can wait for another.
async fn one_by_one(name: &str, relay: &Relay, url: String) {
    let topic = name.replace([' ', '/'], "-");
    let opening = relay.client.get(format!("{url}&since=earliest").replace("TOPIC", &topic)).send();
    let response = tokio::time::timeout(PATIENCE, opening).await.unwrap_or_else(|_| panic!("{name}: no head")).unwrap();
    assert_eq!(response.status(), 200, "{name}");
    let (mut body, mut heard) = (response.bytes_stream(), String::new());
    for n in 0..EVENTS {
        let mark = format!("\"n\":{n}}}");
        relay.publish(&topic, format!("{{{mark}")).await;
        let waiting = async {
            while !heard.contains(&mark) {
                let piece = body.next().await.expect("the stream goes on").expect("the stream is whole");
                heard.push_str(&String::from_utf8_lossy(&piece));
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{name}: event {n} waits for the next"));
    }
}

async fn every_format(name: &str, relay: &Relay, proxy: &Proxy) {
    for format in ["ndjson", "sse", "json-seq", "length", "raw", "multipart", "html"] {
        let url = format!("{}/v1/topics/TOPIC/stream?format={format}", proxy.url);
        one_by_one(&format!("{name}/{format}"), relay, url).await;
    }
}

/// A long poll that nothing has come for is answered by the first event. To be asked before other streams are open.
async fn long_poll(name: &str, relay: &Relay, proxy: &Proxy) {
    let topic = format!("{name}-poll");
    let url = format!("{}/v1/topics/{topic}/events?since=latest&wait=20", proxy.url);
    let polling = tokio::spawn(relay.client.get(url).send());
    relay.wait_for_streams(1).await;
    relay.publish(&topic, "{\"n\":1}").await;
    let answer = tokio::time::timeout(PATIENCE, polling).await.expect("an answer in time").unwrap().unwrap();
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["events"][0]["data"]["n"], 1, "{name}");
}

/// The events of a WebSocket, one by one; `false` when the proxy does not let it pass.
async fn websocket(relay: &Relay, proxy: &Proxy, topic: &str) -> bool {
    let url = format!("{}/v1/topics/{topic}/stream?since=earliest", proxy.url).replacen("http", "ws", 1);
    let socket = tokio::net::TcpStream::connect(proxy.url.trim_start_matches("http://")).await.unwrap();
    let Ok((mut stream, _)) = tokio_tungstenite::client_async(url.into_client_request().unwrap(), socket).await else {
        return false;
    };
    for n in 0..EVENTS {
        relay.publish(topic, format!("{{\"n\":{n}}}")).await;
        let waiting = async {
            loop {
                let message = stream.next().await.expect("it goes on").expect("it is whole");
                if message.is_text() {
                    return message.into_text().unwrap();
                }
            }
        };
        let text = tokio::time::timeout(PATIENCE, waiting).await.expect("an event in time");
        assert!(text.contains(&format!("\"n\":{n}")), "{text}");
    }
    true
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_as_it_comes_passes_every_event_on_at_once() {
    let relay = Relay::start().await;
    let plain = Proxy::nginx(&relay.url, "").await;
    long_poll("nginx", &relay, &plain).await;
    every_format("nginx", &relay, &plain).await;
    assert!(!websocket(&relay, &plain, "nginx-ws-plain").await, "README says that nginx needs three lines for WebSockets");
    let upgrading = "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection \"upgrade\";";
    let upgrading = Proxy::nginx(&relay.url, upgrading).await;
    assert!(websocket(&relay, &upgrading, "nginx-ws").await);
    every_format("nginx11", &relay, &upgrading).await;
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_as_it_comes_passes_every_event_on_at_once() {
    let relay = Relay::start().await;
    let plain = Proxy::haproxy(&relay.url, "", "").await;
    long_poll("haproxy", &relay, &plain).await;
    every_format("haproxy", &relay, &plain).await;
    assert!(websocket(&relay, &plain, "haproxy-ws").await);
}

#[tokio::test]
#[ignore = "needs varnish"]
async fn varnish_as_it_comes_passes_every_event_on_at_once() {
    let relay = Relay::start().await;
    let plain = Proxy::varnish(&relay.url, "").await;
    long_poll("varnish", &relay, &plain).await;
    every_format("varnish", &relay, &plain).await;
    assert!(!websocket(&relay, &plain, "varnish-ws-plain").await, "README says that Varnish needs a few lines for WebSockets");
    let piping = Proxy::varnish(&relay.url, PIPE).await;
    assert!(websocket(&relay, &piping, "varnish-ws").await);
}

/// What the documentation of Varnish says of `WebSocket`s.
const PIPE: &str = "sub vcl_recv { if (req.http.upgrade ~ \"(?i)websocket\") { return (pipe); } }\n\
    sub vcl_pipe { if (req.http.upgrade) { set bereq.http.upgrade = req.http.upgrade; \
    set bereq.http.connection = req.http.connection; } }";
