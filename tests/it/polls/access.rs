//! What a request to an upstream carries: parameters, credentials, trust of the source's own.

use serde_json::{Value, json};

use super::{error_of, shown, shows, source_with, stores};
use crate::net_fault::FaultServer;
use crate::net_tls::{Authority, TlsEndpoint};
use crate::support::{Relay, eventually};

const SECRET: &str = "s3cret-of-the-tests";

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

#[tokio::test]
async fn parameters_headers_and_bodies_carry_the_position() {
    let relay = Relay::start().await;
    let server = FaultServer::start(|mut peer| {
        if peer.request().is_some() {
            peer.send(answer("200 OK", &format!(r#"{{"events":[{0}],"next":"a&{0}"}}"#, peer.number)));
        }
    });
    let settings = json!({"items": "/events", "cursor": "/next", "method": "POST", "body": r#"{"after":"{resume}"}"#});
    let more = json!({"query": {"after": "{resume}", "key": SECRET}, "headers": {"x-after": "v {resume}"}});
    source_with(&relay, "long-poll", &server.url(), settings, more).await;
    eventually("three requests", async || (server.requests().len() >= 3).then_some(())).await;
    let requests = server.requests();
    assert!(requests[0].starts_with(&format!("POST /hook?x=1&key={SECRET} HTTP/1.1\r\n")), "{}", requests[0]);
    assert!(requests[0].ends_with("\r\n\r\n{\"after\":\"\"}") && header(&requests[0], "x-after").is_none());
    assert!(requests[1].starts_with(&format!("POST /hook?x=1&after=a%260&key={SECRET} HTTP/1.1\r\n")), "{}", requests[1]);
    assert!(requests[1].ends_with("\r\n\r\n{\"after\":\"a&0\"}"));
    assert_eq!(header(&requests[1], "x-after"), Some("v a&0"));
    let shown = shown(&relay).await;
    assert_eq!(shown["query_names"], json!(["after", "key"]));
    assert!(!shown.to_string().contains(SECRET) && !relay.log().contains(SECRET));
}

#[tokio::test]
async fn fixed_credentials_are_shown_to_streams_and_polls_and_never_told() {
    for (protocol, auth, expected) in [
        ("sse", json!({"bearer": SECRET}), format!("Bearer {SECRET}")),
        ("poll", json!({"basic": {"username": "me", "password": SECRET}}), "Basic bWU6czNjcmV0LW9mLXRoZS10ZXN0cw==".to_owned()),
    ] {
        let relay = Relay::start().await;
        let server = FaultServer::answering(answer("200 OK", "[]"));
        source_with(&relay, protocol, &server.url(), json!({}), json!({"auth": auth})).await;
        eventually("a request", async || (!server.requests().is_empty()).then_some(())).await;
        assert_eq!(header(&server.requests()[0], "authorization"), Some(&*expected), "{protocol}");
        let shown = shown(&relay).await;
        assert!(!shown.to_string().contains(SECRET) && shown["auth"].is_object(), "{shown}");
        assert!(!relay.log().contains(SECRET) && !relay.log().contains(&expected));
    }
}

#[tokio::test]
async fn a_token_is_held_and_asked_for_again_once_it_is_refused() {
    let relay = Relay::start().await;
    let tokens = FaultServer::start(|mut peer| {
        if peer.request().is_some() {
            let grant = json!({"access_token": format!("t{}", peer.number), "token_type": "Bearer", "expires_in": 3600});
            peer.send(answer("200 OK", &grant.to_string()));
        }
    });
    // The first token is good for two requests.
    let server = FaultServer::start(|mut peer| {
        let Some(request) = peer.request() else { return };
        let is_old = header(&request, "authorization") == Some("Bearer t0");
        let is_refused = if is_old { peer.number >= 2 } else { peer.number >= 6 };
        peer.send(if is_refused { answer("401 Unauthorized", "") } else { answer("200 OK", &format!("[{}]", peer.number)) });
    });
    let oauth2 = json!({"oauth2": {"token_url": tokens.url(), "client_id": "me", "client_secret": SECRET, "scopes": ["read"]}});
    let settings = json!({"min_interval": "100ms"});
    source_with(&relay, "long-poll", &server.url(), settings, json!({"auth": oauth2})).await;
    let found = shows(&relay, "the refusal", |shown| error_of(shown) == "auth").await;
    stores(&relay, 5).await;
    let shown: Vec<String> =
        server.requests().iter().map(|request| header(request, "authorization").unwrap()[7..].to_owned()).collect();
    // A new one is tried once at 401; refused itself, it makes the source wait.
    assert_eq!(shown, ["t0", "t0", "t0", "t1", "t1", "t1", "t1", "t2"]);
    assert_eq!(tokens.connections(), 3);
    assert!(tokens.requests()[0].ends_with("grant_type=client_credentials&scope=read"));
    assert!(!found.to_string().contains(SECRET) && !relay.log().contains(SECRET) && !relay.log().contains("Bearer t"));
}

#[tokio::test]
async fn a_source_trusts_and_shows_what_it_was_told_to() {
    let relay = Relay::start().await;
    let authority = Authority::new();
    let endpoint = TlsEndpoint::answering(authority.server_for_clients("127.0.0.1"), answer("200 OK", "[1]")).await;
    let (cert_pem, key_pem) = authority.client("relay");
    let mtls = json!({"mtls": {"cert_pem": cert_pem, "key_pem": key_pem}});
    let url = endpoint.url("127.0.0.1");
    for more in
        [json!({"ca_pem": authority.pem()}), json!({"auth": mtls}), json!({"auth": mtls, "ca_pem": Authority::new().pem()})]
    {
        source_with(&relay, "poll", &url, json!({}), more).await;
        shows(&relay, "a failure", |shown| shown["state"] == "backoff").await;
        relay.ask("DELETE", "/v1/sources/up", None).await;
    }
    assert!(endpoint.served().is_empty());
    source_with(&relay, "poll", &url, json!({}), json!({"auth": mtls, "ca_pem": authority.pem()})).await;
    stores(&relay, 1).await;
    assert_eq!(endpoint.served(), ["CN=relay"]);
    assert!(!shown(&relay).await.to_string().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn definitions_with_credentials_that_cannot_be_used_are_refused() {
    let relay = Relay::start().await;
    let body = |more: Value| {
        let mut body = json!({"protocol": "poll", "url": "https://example.com/", "topic": "t"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, pointer) in [
        (json!({"ca_pem": "no certificate"}), "/ca_pem"),
        (json!({"auth": {"mtls": {"cert_pem": "a", "key_pem": SECRET}}}), "/auth/mtls/key_pem"),
        (
            json!({"auth": {"oauth2": {"token_url": "http://10.0.0.1/", "client_id": "a", "client_secret": SECRET}}}),
            "/auth/oauth2/token_url",
        ),
        (json!({"auth": {"bearer": "a", "basic": {"username": "a", "password": "b"}}}), "/auth"),
        (json!({"settings": {"cursor_param": "a"}}), "/settings/cursor_param"),
        (json!({"settings": {"interval": "500ms"}}), "/settings/interval"),
        (json!({"settings": {"next": "link"}}), "/settings/next"),
        (json!({"protocol": "long-poll", "settings": {"next": "link", "cursor": "/c"}}), "/settings/position"),
        (json!({"protocol": "long-poll", "settings": {"next": "page"}}), "/settings/next"),
    ] {
        let (status, problem) = relay.ask("POST", "/v1/sources", Some(&body(more.clone()))).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!(pointer)), "{more}: {problem}");
        assert!(!problem.to_string().contains(SECRET));
    }
}
