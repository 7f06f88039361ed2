//! Credentials and trust towards endpoints: basic, client credentials, client certificates, roots of a subscription's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::net_fault::FaultServer;
use crate::net_tls::{Authority, TlsEndpoint};
use crate::support::{Answer, Receiver, Relay, eventually};

const SECRET: &str = "cl1ent-s3cret/of+the:tests";

/// A token endpoint: the n-th answer is `answers(n)`, a status and a body.
fn token_endpoint(answers: impl Fn(usize) -> (u16, String) + Send + Sync + 'static) -> FaultServer {
    let given = AtomicUsize::new(0);
    FaultServer::start(move |mut peer| {
        while peer.request().is_some() {
            let (status, body) = answers(given.fetch_add(1, Ordering::SeqCst));
            let head = format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            peer.send(head + &body);
        }
    })
}

fn grant(token: &str, life_s: u64) -> (u16, String) {
    (200, json!({"access_token": token, "token_type": "Bearer", "expires_in": life_s}).to_string())
}

fn oauth2(server: &FaultServer) -> Value {
    json!({"auth": {"oauth2": {"token_url": server.url(), "client_id": "relay & co", "client_secret": SECRET, "scopes": ["a", "b"]}},
        "retry": {"max_attempts": 2, "schedule": ["1h"]}, "timeout": "10s"})
}

/// A token is asked for as RFC 6749 says: form, Basic of the encoded id and secret.
fn check_token_request(request: &str) {
    let lower = request.to_ascii_lowercase();
    assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(lower.contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=a+b"), "{request}");
    let basic = base64::engine::general_purpose::STANDARD.encode("relay+%26+co:cl1ent-s3cret%2Fof%2Bthe%3Atests");
    assert!(request.contains(&format!("Basic {basic}\r\n")), "{request}");
}

#[tokio::test]
async fn basic_credentials_are_shown_and_never_told() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let auth = json!({"auth": {"basic": {"username": "me", "password": "pa%ss:word"}}});
    relay.subscribe("a", receiver.url(), "t", auth).await;
    relay.publish("t", "{}").await;
    let delivery = receiver.sees(1).await.remove(0);
    let encoded = base64::engine::general_purpose::STANDARD.encode("me:pa%ss:word");
    assert_eq!(delivery.header("authorization"), format!("Basic {encoded}"));
    delivery.verify();
    let shown = relay.get("/v1/subscriptions/a").await;
    assert_eq!(shown["auth"], json!({"basic": {"username": "me"}}));
    let log = relay.log();
    assert!(!log.contains(&encoded) && !log.contains("ss:word"), "{log}");
}

#[tokio::test]
async fn different_credentials_have_different_connections() {
    let relay = Relay::start_with("[delivery]\nlanes = 1\n").await;
    let receiver = Receiver::start().await;
    for id in ["a", "b"] {
        let auth = json!({"auth": {"basic": {"username": id, "password": "p"}}});
        relay.subscribe(id, receiver.url(), "t", auth).await;
    }
    for n in 1..=3 {
        relay.publish("t", "{}").await;
        receiver.sees(2 * n).await;
    }
    assert_eq!(receiver.connections(), 2, "one for each, kept");
}

#[tokio::test]
async fn one_token_is_fetched_for_all_and_kept() {
    let relay = Relay::start_with("[delivery]\nlanes = 1\n").await;
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let tokens = token_endpoint(move |n| {
        let _ = told.lock().unwrap().recv();
        grant(&format!("token-{n}"), 3600)
    });
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", oauth2(&tokens)).await;
    relay.subscribe("b", receiver.url(), "t", oauth2(&tokens)).await;
    relay.publish_numbers("t", 0..20).await;
    for id in ["a", "b"] {
        eventually("somebody who waits for a token", async || {
            let status = relay.get(&format!("/v1/subscriptions/{id}/status")).await;
            (status["in_flight"].as_u64() > Some(1)).then_some(())
        })
        .await;
    }
    drop(go_on);
    let seen = receiver.sees(40).await;
    assert!(seen.iter().all(|delivery| delivery.header("authorization") == "Bearer token-0"));
    assert_eq!(tokens.requests().len(), 1);
    check_token_request(&tokens.requests()[0]);
    let log = relay.log();
    assert!(!log.contains("token-0") && !log.contains(SECRET) && !log.contains("cl1ent"), "{log}");
}

#[tokio::test]
async fn who_knows_a_clients_name_only_is_not_shown_its_token() {
    let relay = Relay::start_with("[delivery]\nlanes = 1\n").await;
    let tokens = token_endpoint(|n| if n == 0 { grant("mine", 3600) } else { (401, r#"{"error":"invalid_client"}"#.into()) });
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", oauth2(&tokens)).await;
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("a", seq, "delivered").await;
    let mut other = oauth2(&tokens);
    other["auth"]["oauth2"]["client_secret"] = json!("guessed");
    relay.subscribe("b", receiver.url(), "t", other).await;
    let seq = relay.publish("t", "{}").await;
    let view = relay.delivery_becomes("b", seq, "retrying").await;
    let attempt = &view["attempts"][0];
    assert_eq!((&attempt["error"], &attempt["status"]), (&json!("auth"), &Value::Null), "{view}");
    assert_eq!(attempt["response"], "the token endpoint answered 401 invalid_client");
    assert_eq!(relay.delivery("a", seq).await["state"], "delivered");
    assert!(receiver.seen().iter().all(|delivery| delivery.header("hookcast-subscription") == "a"));
}

#[tokio::test]
async fn a_token_near_its_end_is_replaced() {
    let relay = Relay::start().await;
    let tokens = token_endpoint(|n| grant(&format!("token-{n}"), u64::from(n > 0) * 3600));
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", oauth2(&tokens)).await;
    for n in 0..3 {
        relay.publish("t", "{}").await;
        receiver.sees(n + 1).await;
    }
    let shown = receiver.of_each(|delivery| delivery.header("authorization").to_owned());
    assert_eq!(shown, ["Bearer token-0", "Bearer token-1", "Bearer token-1"]);
}

#[tokio::test]
async fn a_refused_token_is_fetched_anew_once() {
    let relay = Relay::start().await;
    let tokens = token_endpoint(|n| grant(&format!("token-{n}"), 3600));
    // Accepts the second token only.
    let receiver = Receiver::with(|delivery, _| {
        Answer::status(if delivery.header("authorization") == "Bearer token-1" { 200 } else { 401 })
    })
    .await;
    relay.subscribe("a", receiver.url(), "t", oauth2(&tokens)).await;
    let seq = relay.publish("t", "{}").await;
    let view = relay.delivery_becomes("a", seq, "delivered").await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].id(), seen[0].attempt()), (seen[1].id(), seen[1].attempt()), "both are the first attempt: {view}");
    assert_eq!(tokens.requests().len(), 2);
    // Whoever takes none is not asked for ever.
    receiver.change(|_, _| Answer::status(401));
    let seq = relay.publish("t", "{}").await;
    let view = relay.delivery_becomes("a", seq, "retrying").await;
    assert_eq!(view["attempts"][0]["status"], 401, "{view}");
    assert_eq!((receiver.count(), tokens.requests().len()), (4, 3));
}

#[tokio::test]
async fn a_token_endpoint_that_fails_is_an_outcome_with_a_word() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let cases: [(&str, FaultServer, &str); 6] = [
        ("broken", token_endpoint(|_| (200, "{}".into())), "the token endpoint answered something that is no token"),
        ("refusing", token_endpoint(|_| (500, "secret words".into())), "the token endpoint answered 500"),
        (
            "redirecting",
            FaultServer::answering("HTTP/1.1 302 x\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n"),
            "the token endpoint answered 302",
        ),
        ("endless", token_endpoint(|_| (200, "x".repeat(100_000))), "the token endpoint answered more than 64 KiB"),
        ("odd", token_endpoint(|_| grant("a b", 60)), "the token endpoint gave a token that cannot stand in a header"),
        ("closing", FaultServer::start(drop), "the token endpoint cannot be used: eof"),
    ];
    for (id, server, _) in &cases {
        relay.subscribe(id, receiver.url(), "t", oauth2(server)).await;
    }
    let silent = FaultServer::start(|mut peer| {
        peer.wait_for_close();
    });
    let mut brief = oauth2(&silent);
    brief["timeout"] = json!("1s");
    relay.subscribe("silent", receiver.url(), "t", brief).await;
    let seq = relay.publish("t", "{}").await;
    let told = |view: &Value| view["attempts"][0]["response"].as_str().unwrap_or_default().to_owned();
    for (id, _, wanted) in &cases {
        let view = relay.delivery_becomes(id, seq, "retrying").await;
        assert_eq!(view["attempts"][0]["error"], "auth", "{id}: {view}");
        assert!(told(&view) == *wanted || (*id == "closing" && told(&view).ends_with("reset")), "{id}: {view}");
    }
    let view = relay.delivery_becomes("silent", seq, "retrying").await;
    assert_eq!(told(&view), "the token endpoint did not answer in time");
    assert_eq!(receiver.count(), 0, "nothing is sent without its token");
}

#[tokio::test]
async fn a_token_endpoint_passes_the_gate() {
    let relay = Relay::start_strict().await;
    let url = "https://hook.example.com/";
    let auth = |token_url: &str| json!({"oauth2": {"token_url": token_url, "client_id": "a", "client_secret": "b"}});
    for token_url in ["http://169.254.169.254/token", "https://10.0.0.1/", "ftp://id.example.com/"] {
        let body = json!({"url": url, "topics": ["t"], "auth": auth(token_url)});
        let (status, answer) = relay.ask("POST", "/v1/subscriptions", Some(&body)).await;
        assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!("/auth/oauth2/token_url")), "{token_url}: {answer}");
    }
}

#[tokio::test]
async fn a_client_certificate_and_roots_of_its_own_open_an_endpoint() {
    let relay = Relay::start_with("[delivery]\nlanes = 1\n").await;
    let authority = Authority::new();
    let endpoint = TlsEndpoint::start(authority.server_for_clients("127.0.0.1")).await;
    let (cert_pem, key_pem) = authority.client("relay");
    let mtls = json!({"mtls": {"cert_pem": cert_pem, "key_pem": key_pem}});
    let retry = json!({"max_attempts": 2, "schedule": ["1h"]});
    let url = endpoint.url("127.0.0.1");
    let both = json!({"auth": mtls, "ca_pem": authority.pem(), "retry": retry});
    relay.subscribe("known", &url, "t", both).await;
    relay.subscribe("stranger", &url, "t", json!({"ca_pem": authority.pem(), "retry": retry})).await;
    relay.subscribe("distrusting", &url, "t", json!({"auth": mtls, "retry": retry})).await;
    let other = Authority::new();
    relay.subscribe("elsewhere", &url, "t", json!({"auth": mtls, "ca_pem": other.pem(), "retry": retry})).await;
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("known", seq, "delivered").await;
    // The one that is let in lends its connection to nobody.
    for id in ["distrusting", "elsewhere", "stranger"] {
        let view = relay.delivery_becomes(id, seq, "retrying").await;
        let error = view["attempts"][0]["error"].as_str().unwrap();
        // With TLS 1.3 an endpoint says only after the handshake that it misses a certificate.
        assert!(error == "tls" || (id == "stranger" && matches!(error, "protocol" | "reset" | "eof")), "{id}: {view}");
    }
    assert_eq!(endpoint.served(), ["CN=relay"]);
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("known", seq, "delivered").await;
    assert_eq!(endpoint.handshakes(), 1, "the connection is kept for its own");
    let shown = relay.get("/v1/subscriptions/known").await;
    assert_eq!(shown["auth"], json!({"mtls": {"cert_pem": cert_pem}}));
    let key_line = key_pem.lines().nth(1).unwrap();
    assert!(!relay.log().contains(key_line) && !shown.to_string().contains(key_line));
    // A new certificate is another identity.
    let (cert_pem, key_pem) = authority.client("successor");
    let patch = json!({"auth": {"mtls": {"cert_pem": cert_pem, "key_pem": key_pem}}});
    relay.must("PATCH", "/v1/subscriptions/known", patch).await;
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("known", seq, "delivered").await;
    assert_eq!(endpoint.served().last().unwrap(), "CN=successor");
}

#[tokio::test]
async fn a_token_endpoint_behind_roots_of_its_own_is_trusted_too() {
    let relay = Relay::start().await;
    let authority = Authority::new();
    let (status, body) = grant("t0ken", 3600);
    let answer = format!("HTTP/1.1 {status} OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let tokens = TlsEndpoint::answering(authority.server("127.0.0.1"), answer).await;
    let receiver = Receiver::start().await;
    let auth = json!({"oauth2": {"token_url": tokens.url("127.0.0.1"), "client_id": "a", "client_secret": "b"}});
    relay.subscribe("a", receiver.url(), "t", json!({"auth": auth, "ca_pem": authority.pem()})).await;
    relay.publish("t", "{}").await;
    assert_eq!(receiver.sees(1).await[0].header("authorization"), "Bearer t0ken");
}

#[tokio::test]
async fn a_ping_shows_credentials_too() {
    let relay = Relay::start().await;
    let tokens = token_endpoint(|_| grant("t0ken", 3600));
    let receiver = Receiver::start().await;
    relay.subscribe("a", receiver.url(), "t", oauth2(&tokens)).await;
    let answer = relay.must("POST", "/v1/subscriptions/a/ping", json!({})).await;
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(receiver.sees(1).await[0].header("authorization"), "Bearer t0ken");
}

#[tokio::test]
async fn failing_token_endpoints_open_the_circuit() {
    let relay = Relay::start().await;
    let tokens = Arc::new(token_endpoint(|_| (503, String::new())));
    let receiver = Receiver::start().await;
    let mut more = oauth2(&tokens);
    more["retry"] = json!({"max_attempts": 50, "schedule": ["10ms"], "jitter": 0.0});
    more["max_in_flight"] = json!(1);
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish_numbers("t", 0..30).await;
    relay.status_becomes("a", json!({"circuit": "open", "in_flight": 0})).await;
    let asked = tokens.requests().len();
    assert!((10..20).contains(&asked), "{asked}");
    eventually("an attempt with its reason", async || {
        let status = relay.status("a").await;
        (status["last_attempt"]["error"] == "auth").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_definition_repeats_no_secret() {
    let relay = Relay::start_strict().await;
    let authority = Authority::new();
    let (cert_pem, key_pem) = authority.client("relay");
    let key_line = key_pem.lines().nth(1).unwrap().to_owned();
    let oauth2 = |token_url: &str, secret: &str| json!({"auth": {"oauth2": {"token_url": token_url, "client_id": "a", "client_secret": secret}}});
    for more in [
        json!({"auth": {"basic": {"username": "a:b", "password": SECRET}}}),
        json!({"auth": {"basic": {"username": "a", "password": format!("{SECRET}\n")}}}),
        json!({"auth": {"basic": {"username": "a", "password": [SECRET]}}}),
        json!({"auth": {"basic": {"username": "a", "password": SECRET}, "mtls": {"cert_pem": cert_pem, "key_pem": key_pem}}}),
        oauth2("http://10.0.0.1/", SECRET),
        oauth2("https://id.example.com/", &format!("{SECRET}\u{7f}")),
        json!({"auth": {"mtls": {"cert_pem": [cert_pem], "key_pem": key_pem}}}),
        json!({"auth": {"mtls": {"cert_pem": "x".repeat(70_000), "key_pem": key_pem}}}),
        json!({"signature": {"scheme": "hub", "secret": format!("{SECRET} with spaces")}}),
        json!({"signature": {"scheme": "standard-ed25519", "secret": SECRET}}),
    ] {
        let mut body = json!({"url": "https://hook.example.com/", "topics": ["t"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = relay.ask("POST", "/v1/subscriptions", Some(&body)).await;
        assert!(matches!(status, 400 | 422), "{body}: {answer}");
        let text = answer.to_string();
        assert!(!text.contains("cl1ent") && !text.contains(&key_line), "{text}");
    }
    assert!(!relay.log().contains("cl1ent") && !relay.log().contains(&key_line));
}
