//! Sources over the API, health and metrics, and what a panic looks like.

use serde_json::json;

use crate::api::see;
use crate::edge::{Edge, Options};

#[tokio::test]
async fn a_source_lives_from_creation_to_deletion() {
    let edge = Edge::start(Options::default()).await;
    let definition = json!({ "name": "running", "protocol": "sse", "url": "https://up.example/", "topic": "t", "headers": {"authorization": "Bearer x"} });
    let created = edge.call("POST", "/v1/sources", definition.clone()).await;
    assert_eq!((created.status, created.header("location")), (201, "/v1/sources/running"));
    assert_eq!((&created.body["state"], &created.body["counts"]["events"]), (&json!("connected"), &json!(3)));
    assert!(!created.body.to_string().contains("Bearer"));
    assert_eq!(edge.call("POST", "/v1/sources", definition).await.verdict(), (409, "already_exists"));
    assert_eq!(edge.call("PATCH", "/v1/sources/running", json!({ "topic": "u" })).await.body["topic"], "u");
    assert_eq!(
        edge.call("PATCH", "/v1/sources/running", json!({ "protocol": "carrier-pigeon" })).await.verdict(),
        (422, "protocol")
    );
    let stale = edge.client.delete(edge.url("/v1/sources/running")).header("if-match", created.header("etag"));
    assert_eq!(see(stale).await.verdict(), (412, "precondition_failed"));
    let stopped =
        edge.call("PUT", "/v1/sources/other", json!({ "protocol": "ndjson", "url": "https://up.example/", "topic": "v" })).await;
    assert_eq!((stopped.status, &stopped.body["state"]), (201, &json!("stopped")));
    let list = edge.call("GET", "/v1/sources?limit=1", None).await.body;
    assert_eq!((&list["items"][0]["name"], &list["next"]), (&json!("other"), &json!("other")));
    assert_eq!(edge.call("POST", "/v1/sources/running/restart", None).await.status, 202);
    assert_eq!(edge.behind.calls(), ["restart running"]);
    assert_eq!(edge.call("DELETE", "/v1/sources/running", None).await.status, 204);
    assert_eq!(edge.call("GET", "/v1/sources/running", None).await.status, 404);
}

#[tokio::test]
async fn the_operator_sees_health_metrics_and_what_problems_mean() {
    let edge = Edge::start(Options::default()).await;
    assert_eq!(edge.call("GET", "/healthz", None).await.body["status"], "ok");
    assert_eq!(edge.call("GET", "/readyz", None).await.body["status"], "ready");
    assert_eq!(edge.call("GET", "/metrics", None).await.body, "hookcast_up 1\n");
    assert!(edge.call("GET", "/problems/storage_full", None).await.body.as_str().unwrap().contains("507"));
}

#[tokio::test]
async fn readyz_names_whatever_reports_that_it_cannot_go_on() {
    let edge = Edge::start(Options::default()).await;
    edge.state.readiness.report("/task/lane-1", "it ended");
    edge.state.readiness.report("/storage/wal", "it is gone");
    let seen = edge.call("GET", "/readyz", None).await;
    assert_eq!(seen.verdict(), (503, "not_ready"));
    let errors = json!([{"pointer": "/storage/wal", "detail": "it is gone"}, {"pointer": "/task/lane-1", "detail": "it ended"}]);
    assert_eq!(seen.body["errors"], errors);
    edge.state.readiness.heal("/storage/wal");
    edge.state.readiness.heal("/task/lane-1");
    assert_eq!(edge.call("GET", "/readyz", None).await.status, 200);
}

#[tokio::test]
async fn a_panic_is_a_problem_without_internals_and_the_worker_lives_on() {
    let edge = Edge::start(Options::default()).await;
    edge.call("PUT", "/v1/subscriptions/panics", json!({ "url": "https://example.com/hook", "topics": ["t"] })).await;
    for _ in 0..3 {
        let seen = edge.call("POST", "/v1/subscriptions/panics/ping", None).await;
        assert_eq!(seen.verdict(), (500, "internal"));
        assert!(!seen.body.to_string().contains("secret"));
    }
    assert_eq!(edge.call("GET", "/healthz", None).await.status, 200);
}

#[actix_rt::test(system = "crate::support::System")]
async fn pages_of_configured_origins_may_call_and_no_others() {
    let edge = Edge::start(Options::default()).await;
    let preflight = |origin: &'static str| {
        let request = edge.client.request(reqwest::Method::OPTIONS, edge.url("/v1/topics/a/stream"));
        request.header("origin", origin).header("access-control-request-method", "GET").send()
    };
    let allowed = preflight("https://pages.example").await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://pages.example");
    for origin in ["https://evil.example", "null"] {
        let refused = preflight(origin).await.unwrap();
        assert!(!refused.headers().contains_key("access-control-allow-origin"), "{origin}");
    }
}
