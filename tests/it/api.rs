//! The REST API from outside: definitions, operations on them, lists, problems.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Exception, ExceptionState, Seq};
use hookcast_http::HttpLimits;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::edge::{Edge, Options};

const EP: &str = "https://example.com/hook";

/// Status, last part of a problem's type (empty for none), headers and body.
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) slug: String,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn verdict(&self) -> (u16, &str) {
        (self.status, &self.slug)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn see(request: reqwest::RequestBuilder) -> Seen {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).as_ref()));
    let is_problem = headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
    let slug = if is_problem { body["type"].as_str().unwrap().strip_prefix("/problems/").unwrap() } else { "" }.to_owned();
    if is_problem {
        assert_eq!(body["status"], status);
        assert!(!body["detail"].as_str().unwrap().is_empty() && !body["title"].as_str().unwrap().is_empty());
    }
    Seen { status, slug, headers, body }
}

impl Edge {
    pub(crate) async fn call(&self, method: &str, path: &str, body: impl Into<Option<Value>>) -> Seen {
        let mut request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path));
        if let Some(body) = body.into() {
            request = request.json(&body);
        }
        see(request).await
    }
}

#[tokio::test]
async fn a_subscription_lives_from_creation_to_deletion() {
    let edge = Edge::start(Options::default()).await;
    let created =
        edge.call("POST", "/v1/subscriptions", json!({ "id": "a", "url": EP, "topics": ["t.*"], "headers": {"x-a": "s"} })).await;
    assert_eq!(created.verdict(), (201, ""));
    assert_eq!(created.header("location"), "/v1/subscriptions/a");
    assert!(created.body["signature"]["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!((&created.body["state"], &created.body["enabled"]), (&json!("active"), &json!(true)));

    let shown = edge.call("GET", "/v1/subscriptions/a", None).await;
    assert_eq!(shown.header("etag"), created.header("etag"));
    assert_eq!(shown.body["signature"], json!({ "scheme": "standard" }));
    assert_eq!(shown.body["header_names"], json!(["x-a"]));
    assert!(!shown.body.to_string().contains("whsec_"));

    let again = edge.call("POST", "/v1/subscriptions", json!({ "id": "a", "url": EP, "topics": ["t"] })).await;
    assert_eq!(again.verdict(), (409, "already_exists"));

    let stale = edge.client.put(edge.url("/v1/subscriptions/a")).header("if-match", "\"1-99\"");
    assert_eq!(see(stale.json(&json!({ "url": EP, "topics": ["t"] }))).await.verdict(), (412, "precondition_failed"));
    let put = edge.client.put(edge.url("/v1/subscriptions/a")).header("if-match", created.header("etag"));
    let put = see(put.json(&json!({ "url": EP, "topics": ["t.*"] }))).await;
    assert_eq!(put.verdict(), (200, ""));
    assert_ne!(put.header("etag"), created.header("etag"));
    assert_eq!(put.body["header_names"], json!([]), "PUT without headers removes them");
    let kept = edge.state.registry.get("a").unwrap();
    assert_eq!(kept.spec.signatures[0].keys[0].secret.expose(), created.body["signature"]["secret"].as_str().unwrap());

    let patched = edge.call("PATCH", "/v1/subscriptions/a", json!({ "description": "d", "enabled": false })).await;
    assert_eq!((patched.status, &patched.body["state"], &patched.body["reason"]), (200, &json!("disabled"), &json!("manual")));
    assert_eq!(edge.call("POST", "/v1/subscriptions/a/resume", None).await.verdict(), (409, "disabled"));
    let patched = edge.call("PATCH", "/v1/subscriptions/a", json!({ "enabled": true })).await;
    assert_eq!((&patched.body["state"], &patched.body["description"]), (&json!("failing"), &json!("d")));
    assert_eq!(edge.call("PATCH", "/v1/subscriptions/a", json!({ "from": "earliest" })).await.verdict(), (422, "from"));

    let paused = edge.call("POST", "/v1/subscriptions/a/pause", None).await;
    assert_eq!(paused.body["state"], "paused");
    assert_eq!(edge.call("POST", "/v1/subscriptions/a/resume", None).await.body["state"], "failing");

    assert_eq!(edge.call("DELETE", "/v1/subscriptions/a", None).await.status, 204);
    assert_eq!(edge.call("DELETE", "/v1/subscriptions/a", None).await.verdict(), (404, "not_found"));
    assert_eq!(edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["t"] })).await.status, 201);
    assert_ne!(edge.state.registry.get("a").unwrap().ordinal, kept.ordinal, "made again, it starts anew");
}

#[tokio::test]
async fn malformed_bodies_are_refused_by_kind() {
    let edge = Edge::start(Options::default()).await;
    let deep = "[".repeat(100_000);
    let rows: &[(&[u8], u16, &str)] = &[
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"{\"url\":\"https://e.example/\",}", 400, "invalid_json"),
        (b"{\"a\":NaN}", 400, "invalid_json"),
        (b"\xef\xbb\xbf{\"url\":\"https://e.example/\"}", 400, "invalid_json"),
        (b"{\"url\":\"https://e.example/\",\"url\":\"https://evil.example.test/\"}", 400, "duplicate_key"),
        (deep.as_bytes(), 400, "invalid_json"),
        (b"{\"rate\":1e400}", 400, "invalid_json"),
        (b"{\"name\":\"\\ud800\"}", 400, "invalid_json"),
        (b"{\"name\":\"\xff\"}", 400, "invalid_utf8"),
        (b"{\"url\":\"https://e.example/\",\"topics\":[\"a\"],\"description\":\"\\u0000\"}", 422, "control_character"),
        (b"{\"nmae\":\"typo\"}", 422, "unknown_field"),
        (b"[]", 400, "wrong_type"),
        (b"{\"url\":[\"https://e.example/\"]}", 400, "wrong_type"),
        (b"{\"rate_limit\":{\"per_second\":-1}}", 422, "rate_limit"),
        (b"{\"rate_limit\":1.5}", 400, "wrong_type"),
        (b"{\"rate_limit\":\"10\"}", 400, "wrong_type"),
        (b"{\"rate_limit\":{\"per_second\":18446744073709551616}}", 400, "out_of_range"),
        (b"{\"timeout\":\"1h\"}", 422, "timeout"),
        (b"{\"types\":[\"\"]}", 422, "event_type"),
        (b"{\"types\":[\"a b\"]}", 422, "event_type"),
        (b"{\"types\":[\"a..b\"]}", 422, "event_type"),
        (b"{\"types\":[\"a\\nb\"]}", 422, "event_type"),
        (b"{\"retry\":{\"schedule\":[]}}", 422, "retry_schedule"),
        (b"{\"retry\":{\"schedule\":[\"-5s\"]}}", 422, "retry_schedule"),
        (b"{\"id\":\"a.b\"}", 422, "id"),
        (b"{\"id\":\"evt\\n1\"}", 422, "id"),
        (b"{\"url\":\"http://plain.example/\",\"topics\":[\"a\"]}", 422, "https_required"),
        (b"{\"url\":\"https://e.example/\",\"topics\":[\"a\"],\"from\":{\"seq\":99}}", 422, "from"),
        (b"{\"url\":\"https://e.example/\",\"topics\":[\"a\"],\"signature\":{\"secret\":\"whsec_%%%\"}}", 422, "secret"),
    ];
    for (body, status, slug) in rows {
        let seen = see(edge.client.post(edge.url("/v1/subscriptions")).body(body.to_vec())).await;
        assert_eq!(seen.verdict(), (*status, *slug), "{}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }
    for (field, text) in [("description", "x".repeat(257)), ("types", "a".repeat(257))] {
        let value = if field == "types" { json!([text]) } else { json!(text) };
        let seen = edge.call("POST", "/v1/subscriptions", json!({ "url": EP, "topics": ["a"], field: value })).await;
        assert_eq!(seen.status, 422, "{field}");
    }
    assert!(edge.state.registry.is_empty());
    let large = see(edge.client.post(edge.url("/v1/subscriptions")).body(vec![b' '; 300_000])).await;
    assert_eq!(large.verdict(), (413, "payload_too_large"));
    let zipped = edge.client.post(edge.url("/v1/subscriptions")).header("content-encoding", "gzip").body("{}");
    assert_eq!(see(zipped).await.verdict(), (415, "content_encoding"));
}

#[tokio::test]
async fn lists_go_page_by_page_and_refuse_odd_parameters() {
    let edge = Edge::start(Options::default()).await;
    for id in ["a", "b", "c"] {
        edge.call("PUT", &format!("/v1/subscriptions/{id}"), json!({ "url": EP, "topics": ["t"] })).await;
    }
    let first = edge.call("GET", "/v1/subscriptions?limit=2", None).await;
    let ids = |seen: &Seen| seen.body["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect::<Vec<_>>();
    assert_eq!((ids(&first), &first.body["next"]), (vec![json!("a"), json!("b")], &json!("b")));
    let second = edge.call("GET", "/v1/subscriptions?limit=2&after=b", None).await;
    assert_eq!((ids(&second), &second.body["next"]), (vec![json!("c")], &Value::Null));
    for (query, slug) in [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=abc", "limit"),
        ("cursor=AAAA", "cursor"),
        ("after=%2e%2e", "after"),
        ("color=red", "unknown_parameter"),
    ] {
        assert_eq!(edge.call("GET", &format!("/v1/subscriptions?{query}"), None).await.verdict(), (422, slug), "{query}");
    }
}

#[tokio::test]
async fn odd_paths_find_nothing_and_wrong_methods_say_what_is_allowed() {
    let edge = Edge::start(Options::default()).await;
    let long = "a".repeat(5000);
    for path in [
        "/v1/subscriptions/%2e%2e%2fadmin",
        "/v1/subscriptions/'%20OR%201=1--",
        "/v1/subscriptions/%00",
        &format!("/v1/subscriptions/{long}"),
        "/v1",
        "/v1/subscriptions/",
        "/v1/events/0",
        "/v1/events/1",
        "/v1/events/+1",
        "/v1/events/99999999999999999999",
        "/problems/nonsense",
        "/v1/sources/none",
    ] {
        assert_eq!(edge.call("GET", path, None).await.verdict(), (404, "not_found"), "{path}");
    }
    let seen = edge.call("DELETE", "/v1/subscriptions", None).await;
    assert_eq!((seen.verdict(), seen.header("allow")), ((405, "method_not_allowed"), "GET, HEAD, POST"));
    assert_eq!(edge.call("GET", "/v1/subscriptions/a/ping", None).await.status, 405);
    assert_eq!(edge.call("TRACE", "/", None).await.status, 405);
    assert_eq!(edge.call("GET", &format!("/{}", "a".repeat(9000)), None).await.verdict(), (414, "target_too_long"));
    let head = edge.client.head(edge.url("/healthz")).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.headers().get("server").is_none());
}

#[tokio::test]
async fn operations_reach_the_running_side() {
    let edge = Edge::start(Options::default()).await;
    edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["t"] })).await;
    for data in 0..3 {
        edge.client.post(edge.url("/v1/topics/t/events")).body(data.to_string()).send().await.unwrap();
    }
    assert_eq!(edge.call("POST", "/v1/subscriptions/a/ping", None).await.body["outcome"], "failure");
    let status = edge.call("GET", "/v1/subscriptions/a/status", None).await.body;
    assert_eq!((&status["state"], &status["circuit"], &status["lag"]), (&json!("failing"), &json!("half_open"), &json!(2)));
    assert_eq!(status["last_attempt"]["at"], "2023-11-14T22:13:20.123Z");
    assert!(status["oldest_undelivered_age_s"].as_u64().unwrap() > 1_000_000);
    assert_eq!(edge.call("GET", "/v1/subscriptions/a", None).await.body["state"], "failing");

    for (to, status) in [
        (json!("latest"), 200),
        (json!("earliest"), 200),
        (json!({ "seq": 2 }), 200),
        (json!({ "seq": 5 }), 422),
        (json!("middle"), 422),
        (Value::Null, 422),
    ] {
        assert_eq!(edge.call("POST", "/v1/subscriptions/a/seek", json!({ "to": to })).await.status, status, "{to}");
    }
    let redriven = edge.call("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({ "all": true })).await;
    assert_eq!((redriven.status, &redriven.body["events"]), (202, &json!(2)));
    edge.call("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({ "seqs": [3, 4] })).await;
    for wrong in [
        json!({}),
        json!({ "all": false }),
        json!({ "all": true, "seqs": [1] }),
        json!({ "seqs": [0] }),
        json!({ "seqs": ["1"] }),
    ] {
        assert_eq!(edge.call("POST", "/v1/subscriptions/a/dead-letters/redrive", wrong.clone()).await.status, 422, "{wrong}");
    }
    let expected = ["ping a", "seek a 3", "seek a 0", "seek a 1", "redrive a Failed 1-3", "redrive a Seqs([Seq(3), Seq(4)]) 3-4"];
    assert_eq!(edge.behind.calls(), expected);

    let delivery = edge.call("GET", "/v1/subscriptions/a/deliveries/7", None).await.body;
    assert_eq!((&delivery["state"], &delivery["next_attempt_at"]), (&json!("retrying"), &json!("2023-11-14T22:13:25.000Z")));
    assert_eq!(delivery["attempts"][0]["status"], 500);
    assert_eq!(edge.call("GET", "/v1/subscriptions/a/deliveries/8", None).await.verdict(), (404, "not_found"));
}

#[tokio::test]
async fn failures_are_listed_by_position() {
    let edge = Edge::start(Options::default()).await;
    edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["t"] })).await;
    let exception = |seq, state| Exception {
        ordinal: Ordinal(1),
        seq: Seq(seq),
        state,
        attempts: 2,
        sent: 3,
        due_at: Timestamp(2000),
        since: Timestamp(1000),
        reason: "status_500".to_owned(),
        has_old_batch_id: false,
    };
    *edge.behind.exceptions.lock().unwrap() =
        [(1, ExceptionState::Dead), (2, ExceptionState::Retry), (4, ExceptionState::Dead), (5, ExceptionState::Dead)]
            .map(|(seq, state)| exception(seq, state))
            .to_vec();
    let dead = edge.call("GET", "/v1/subscriptions/a/dead-letters?limit=2", None).await.body;
    let seqs =
        |page: &Value| page["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((seqs(&dead), &dead["next"]), (vec![1, 4], &json!(4)));
    assert_eq!(dead["items"][0]["dead_at"], "1970-01-01T00:00:02.000Z");
    let rest = edge.call("GET", "/v1/subscriptions/a/dead-letters?limit=2&after=4", None).await.body;
    assert_eq!((seqs(&rest), &rest["next"]), (vec![5], &Value::Null));
    let undelivered = edge.call("GET", "/v1/subscriptions/a/undelivered?limit=3", None).await.body;
    assert_eq!((seqs(&undelivered), &undelivered["next"]), (vec![1, 2, 4], &json!(4)));
    assert_eq!(undelivered["items"][1]["state"], "retrying");
    assert_eq!(edge.call("GET", "/v1/subscriptions/a/dead-letters?after=x", None).await.verdict(), (422, "after"));
}

#[tokio::test]
async fn a_change_of_topics_takes_effect_where_its_lane_says_and_is_remembered() {
    let edge = Edge::start(Options::default()).await;
    edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["t"] })).await;
    *edge.behind.cursor.lock().unwrap() = Seq(6);
    let dry = edge.call("PATCH", "/v1/subscriptions/a?dry_run=true", json!({ "topics": ["u"] })).await;
    assert!(dry.body.get("effective_from").is_none(), "{}", dry.body);
    let changed = edge.call("PATCH", "/v1/subscriptions/a", json!({ "topics": ["u"] })).await;
    assert_eq!(changed.body["effective_from"], 7);
    edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["v"] })).await;
    let described = edge.call("PATCH", "/v1/subscriptions/a", json!({ "description": "same topics" })).await;
    assert!(described.body.get("effective_from").is_none(), "{}", described.body);
    assert_eq!(edge.call("GET", "/v1/subscriptions/a", None).await.body["effective_from"], 7);
    let again = edge.call("PATCH", "/v1/subscriptions/a", json!({ "description": "same topics" })).await;
    assert_eq!((again.status, again.header("etag")), (200, described.header("etag")), "nothing changed");
    let revisions = edge.state.registry.get("a").unwrap().revisions.clone();
    let seen: Vec<_> = revisions.iter().map(|revision| (revision.from_seq.0, revision.topics.to_string())).collect();
    assert_eq!(seen, [(1, "t".to_owned()), (7, "v".to_owned())]);
}

#[tokio::test]
async fn a_rotation_shows_the_new_secret_once_and_keeps_the_old_for_a_while() {
    let edge = Edge::start(Options::default()).await;
    let created = edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["t"] })).await;
    let rotated = edge.call("POST", "/v1/subscriptions/a/secret/rotate", json!({ "overlap": "1h" })).await;
    assert_eq!(rotated.status, 200);
    let secret = rotated.body["signature"]["secret"].as_str().unwrap();
    assert_ne!(secret, created.body["signature"]["secret"].as_str().unwrap());
    assert!(rotated.body["old_expires_at"].as_str().unwrap().ends_with('Z'));
    let keys = edge.state.registry.get("a").unwrap().spec.signatures[0].keys.clone();
    assert_eq!((keys.len(), keys[0].secret.expose(), keys[0].expires_at), (2, secret, None));
    assert!(keys[1].expires_at.is_some());
    assert_eq!(edge.call("POST", "/v1/subscriptions/a/secret/rotate", None).await.status, 200, "the body is optional");
    for (body, slug) in [
        (json!({ "secret": "whsec_AAAA" }), "secret"),
        (json!({ "overlap": "x" }), "overlap"),
        (json!({ "a": 1 }), "unknown_field"),
    ] {
        assert_eq!(edge.call("POST", "/v1/subscriptions/a/secret/rotate", body).await.verdict(), (422, slug));
    }
    for _ in 0..7 {
        assert_eq!(edge.call("POST", "/v1/subscriptions/a/secret/rotate", None).await.status, 200);
    }
    let eleventh = edge.call("POST", "/v1/subscriptions/a/secret/rotate", None).await;
    assert_eq!(eleventh.verdict(), (429, "too_many_keys"));
    assert!(eleventh.header("retry-after").parse::<u32>().unwrap() > 3500);
}

#[tokio::test]
async fn what_the_configuration_declares_is_changed_there() {
    let edge = Edge::start(Options::default()).await;
    edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["t"] })).await;
    let record = edge.state.registry.get("a").unwrap();
    let declared = SubscriptionRecord { declared: true, ..SubscriptionRecord::clone(&record) };
    edge.state.registry.put(declared, record.revision).await.unwrap();
    for (method, path, body) in [
        ("PUT", "/v1/subscriptions/a", Some(json!({ "url": EP, "topics": ["u"] }))),
        ("PATCH", "/v1/subscriptions/a", Some(json!({ "description": "d" }))),
        ("DELETE", "/v1/subscriptions/a", None),
        ("POST", "/v1/subscriptions/a/secret/rotate", None),
    ] {
        assert_eq!(edge.call(method, path, body).await.verdict(), (409, "declared"), "{method} {path}");
    }
    assert_eq!(edge.call("PATCH", "/v1/subscriptions/a", json!({ "enabled": false })).await.body["state"], "disabled");
    assert_eq!(edge.call("PATCH", "/v1/subscriptions/a", json!({ "enabled": true })).await.body["state"], "failing");
    assert_eq!(edge.call("POST", "/v1/subscriptions/a/pause", None).await.status, 200);
}

#[tokio::test]
async fn there_are_only_as_many_subscriptions_as_allowed() {
    let limits = HttpLimits { subscriptions: 1, ..HttpLimits::default() };
    let edge = Edge::start(Options { limits, ..Options::default() }).await;
    assert_eq!(edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["t"] })).await.status, 201);
    assert_eq!(
        edge.call("POST", "/v1/subscriptions", json!({ "url": EP, "topics": ["t"] })).await.verdict(),
        (429, "too_many_subscriptions")
    );
    assert_eq!(edge.call("PUT", "/v1/subscriptions/a", json!({ "url": EP, "topics": ["u"] })).await.status, 200);
}
