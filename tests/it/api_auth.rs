//! Tokens, scopes and tenants from outside; and what a relay without tokens refuses.

use hookcast_core::model::TopicPattern;
use hookcast_core::model::administration::TokenLimits;
use hookcast_http::auth::{AuthSettings, Scope, TokenEntry};
use serde_json::json;

use crate::api::{Seen, see};
use crate::edge::{Edge, Options};

const ADMIN: &str = "hc_admin_0123456789abcdef0123456789abcdef";
const PUBLISHER: &str = "hc_publisher_0123456789abcdef0123456789ab";
const READER: &str = "hc_reader_0123456789abcdef0123456789abcde";
const TENANT: &str = "hc_tenant_0123456789abcdef0123456789abcde";
const EP: &str = "https://example.com/hook";

fn token(token: &str, scopes: &[Scope], topics: &[&str]) -> TokenEntry {
    TokenEntry {
        id: None,
        limits: TokenLimits::default(),
        name: token[3..8].to_owned(),
        sha256: TokenEntry::digest(token),
        scopes: scopes.to_vec(),
        topics: topics.iter().map(|text| TopicPattern::parse(text).unwrap()).collect(),
        expires_at: None,
    }
}

async fn guarded() -> Edge {
    let tokens = vec![
        token(ADMIN, &Scope::ALL, &[]),
        token(PUBLISHER, &[Scope::Publish], &[]),
        token(READER, &[Scope::Read], &[]),
        token(TENANT, &Scope::ALL, &["acme.**"]),
    ];
    Edge::start(Options { auth: AuthSettings { tokens, hosts: Vec::new() }, ..Options::default() }).await
}

impl Edge {
    async fn as_(&self, token: &str, method: &str, path: &str, body: Option<serde_json::Value>) -> Seen {
        let request = self.client.request(method.parse().unwrap(), self.url(path)).bearer_auth(token);
        see(if let Some(body) = body { request.json(&body) } else { request }).await
    }
}

/// Every route that must not answer strangers, with a scope that opens it.
const ROUTES: &[(&str, &str, &str)] = &[
    ("POST", "/v1/topics/t/events", PUBLISHER),
    ("GET", "/v1/topics/t/stream?format=nonsense", ADMIN),
    ("GET", "/v1/topics/t/events", ADMIN),
    ("POST", "/v1/stream-tickets", ADMIN),
    ("GET", "/v1/topics", READER),
    ("GET", "/v1/events/1", READER),
    ("GET", "/v1/subscriptions", READER),
    ("POST", "/v1/subscriptions", ADMIN),
    ("GET", "/v1/subscriptions/a", READER),
    ("PUT", "/v1/subscriptions/a", ADMIN),
    ("PATCH", "/v1/subscriptions/a", ADMIN),
    ("DELETE", "/v1/subscriptions/a", ADMIN),
    ("POST", "/v1/subscriptions/a/pause", ADMIN),
    ("POST", "/v1/subscriptions/a/resume", ADMIN),
    ("POST", "/v1/subscriptions/a/ping", ADMIN),
    ("POST", "/v1/subscriptions/a/seek", ADMIN),
    ("POST", "/v1/subscriptions/a/secret/rotate", ADMIN),
    ("POST", "/v1/subscriptions/a/dead-letters/redrive", ADMIN),
    ("GET", "/v1/subscriptions/a/status", READER),
    ("GET", "/v1/subscriptions/a/dead-letters", READER),
    ("POST", "/v1/subscriptions/a/replay", ADMIN),
    ("POST", "/v1/subscriptions/a/skip", ADMIN),
    ("GET", "/v1/subscriptions/a/jobs", READER),
    ("GET", "/v1/subscriptions/a/jobs/job_0000000000001234", READER),
    ("DELETE", "/v1/subscriptions/a/jobs/job_0000000000001234", ADMIN),
    ("GET", "/v1/subscriptions/a/attempts", READER),
    ("GET", "/v1/subscriptions/a/undelivered", READER),
    ("GET", "/v1/subscriptions/a/deliveries/1", READER),
    ("GET", "/v1/sources", READER),
    ("POST", "/v1/sources", ADMIN),
    ("GET", "/v1/sources/a", READER),
    ("PUT", "/v1/sources/a", ADMIN),
    ("PATCH", "/v1/sources/a", ADMIN),
    ("DELETE", "/v1/sources/a", ADMIN),
    ("POST", "/v1/sources/a/restart", ADMIN),
    ("GET", "/v1/tokens", ADMIN),
    ("POST", "/v1/tokens", ADMIN),
    ("GET", "/v1/tokens/a", ADMIN),
    ("DELETE", "/v1/tokens/a", ADMIN),
    ("GET", "/v1/audit", ADMIN),
    ("GET", "/v1/subscriptions/a?secrets=true", ADMIN),
    ("GET", "/metrics", READER),
];

#[tokio::test]
async fn no_route_answers_without_its_scope() {
    let edge = guarded().await;
    for (method, path, opener) in ROUTES {
        let bare = edge.call(method, path, None).await;
        assert_eq!(bare.verdict(), (401, "unauthorized"), "{method} {path}");
        assert_eq!(bare.header("www-authenticate"), "Bearer");
        for other in [PUBLISHER, READER] {
            let seen = edge.as_(other, method, path, None).await;
            let is_open = *opener == other;
            assert_eq!(seen.verdict() == (403, "scope"), !is_open, "{method} {path} {other}: {:?}", seen.verdict());
        }
        let opened = edge.as_(opener, method, path, None).await;
        assert!(!matches!(opened.status, 401 | 403), "{method} {path}: {:?}", opened.verdict());
    }
    for path in ["/healthz", "/readyz", "/problems/scope"] {
        assert_eq!(edge.call("GET", path, None).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn only_the_authorization_header_carries_a_token() {
    let edge = guarded().await;
    let get = |path: &str| edge.client.get(edge.url(path));
    assert_eq!(see(get("/v1/subscriptions").header("authorization", format!("bearer {ADMIN}"))).await.status, 200);
    assert_eq!(see(get(&format!("/v1/subscriptions?access_token={ADMIN}"))).await.status, 401);
    assert_eq!(see(get("/v1/subscriptions").header("cookie", format!("token={ADMIN}"))).await.status, 401);
    for wrong in [format!("{ADMIN}x"), "x".repeat(ADMIN.len()), "a".repeat(10_240)] {
        assert_eq!(edge.as_(&wrong, "GET", "/v1/subscriptions", None).await.status, 401);
    }
    edge.state.auth.replace_tokens(vec![token(READER, &[Scope::Read], &[])]);
    assert_eq!(edge.as_(ADMIN, "GET", "/v1/subscriptions", None).await.status, 401, "revoked");
}

#[tokio::test]
async fn guessing_from_one_address_is_slowed_down() {
    let edge = guarded().await;
    for _ in 0..20 {
        assert_eq!(edge.as_("wrong", "GET", "/v1/topics", None).await.status, 401);
    }
    let forwarded = edge.client.get(edge.url("/v1/topics")).bearer_auth("wrong").header("x-forwarded-for", "192.0.2.1");
    let seen = see(forwarded).await;
    assert_eq!(seen.verdict(), (429, "too_many_requests"));
    assert!(!seen.header("retry-after").is_empty());
    assert_eq!(edge.as_(ADMIN, "GET", "/v1/topics", None).await.status, 200);
}

#[tokio::test]
async fn a_tenant_sees_and_touches_only_its_topics() {
    let edge = guarded().await;
    for (id, topics) in [("ours", "acme.orders"), ("theirs", "other.orders"), ("wide", "**")] {
        let made =
            edge.as_(ADMIN, "PUT", &format!("/v1/subscriptions/{id}"), Some(json!({ "url": EP, "topics": [topics] }))).await;
        assert_eq!(made.status, 201);
    }
    for (name, topic) in [("ours", "acme.in"), ("theirs", "other.in")] {
        let source = json!({ "protocol": "sse", "url": "https://up.example/", "topic": topic });
        assert_eq!(edge.as_(ADMIN, "PUT", &format!("/v1/sources/{name}"), Some(source)).await.status, 201);
    }
    for topic in ["acme.x", "other.x"] {
        edge.as_(ADMIN, "POST", &format!("/v1/topics/{topic}/events"), Some(json!(1))).await;
    }
    for list in ["/v1/subscriptions", "/v1/subscriptions?limit=1", "/v1/sources", "/v1/topics"] {
        let seen = edge.as_(TENANT, "GET", list, None).await;
        assert_eq!(seen.body["items"].as_array().unwrap().len(), 1, "{list}: {}", seen.body);
        assert!(seen.body["next"].is_null(), "{list}");
    }
    for (path, status) in [
        ("/v1/subscriptions/ours", 200),
        ("/v1/subscriptions/theirs", 404),
        ("/v1/subscriptions/wide", 404),
        ("/v1/subscriptions/wide/status", 404),
        ("/v1/sources/ours", 200),
        ("/v1/sources/theirs", 404),
        ("/v1/events/1", 200),
        ("/v1/events/2", 404),
        ("/metrics", 403),
    ] {
        assert_eq!(edge.as_(TENANT, "GET", path, None).await.status, status, "{path}");
    }
    let put = |topics: &'static str| json!({ "url": EP, "topics": [topics] });
    for (method, path, body, verdict) in [
        ("POST", "/v1/topics/other.x/events", json!(1), (403, "topic_not_allowed")),
        ("POST", "/v1/topics/acme.x/events", json!(1), (202, "")),
        ("PUT", "/v1/subscriptions/theirs", put("acme.a"), (404, "not_found")),
        ("PUT", "/v1/subscriptions/new", put("*.orders"), (403, "topic_not_allowed")),
        ("PUT", "/v1/subscriptions/new", put("acme.**"), (201, "")),
        ("PATCH", "/v1/subscriptions/new", json!({ "topics": ["acme.a", "**"] }), (403, "topic_not_allowed")),
        ("PATCH", "/v1/sources/ours", json!({ "topic": "other.in" }), (403, "topic_not_allowed")),
    ] {
        assert_eq!(edge.as_(TENANT, method, path, Some(body)).await.verdict(), verdict, "{method} {path}");
    }
}

#[tokio::test]
async fn without_tokens_only_this_machine_and_its_own_pages_are_served() {
    let auth = AuthSettings { tokens: Vec::new(), hosts: vec!["relay.example".to_owned()] };
    let edge = Edge::start(Options { auth, ..Options::default() }).await;
    let own = format!("http://{}", edge.address);
    let rows: &[(&[(&str, &str)], (u16, &str))] = &[
        (&[], (200, "")),
        (&[("host", "localhost:1")], (200, "")),
        (&[("host", "relay.example")], (200, "")),
        (&[("host", "evil.example.test")], (403, "host_not_allowed")),
        (&[("origin", &own)], (200, "")),
        (&[("origin", "https://evil.example.test")], (403, "cross_site")),
        (&[("origin", "null")], (403, "cross_site")),
        (&[("sec-fetch-site", "cross-site")], (403, "cross_site")),
        (&[("sec-fetch-site", "same-origin")], (200, "")),
    ];
    for (headers, verdict) in rows {
        for path in ["/v1/subscriptions", "/healthz"] {
            let request =
                headers.iter().fold(edge.client.get(edge.url(path)), |request, (name, value)| request.header(*name, *value));
            assert_eq!(see(request).await.verdict(), *verdict, "{headers:?}");
        }
    }
}
