//! Publishing from outside: every form, every refusal, and what is kept.

use hookcast_core::model::Seq;
use hookcast_http::HttpLimits;
use serde_json::{Value, json};

use crate::api::{Seen, see};
use crate::edge::{Edge, Options};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

impl Edge {
    fn to_topic(&self, content_type: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url("/v1/topics/t.a/events")).body(body);
        if content_type.is_empty() { request } else { request.header("content-type", content_type) }
    }

    async fn publish(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Seen {
        see(self.to_topic(content_type, body)).await
    }

    async fn data(&self, seq: u64) -> Vec<u8> {
        self.state.follow.get(Seq(seq)).await.unwrap().unwrap().data().to_vec()
    }

    fn head(&self) -> u64 {
        self.state.follow.head().0
    }
}

#[tokio::test]
async fn any_content_type_is_kept_byte_for_byte() {
    let edge = Edge::start(Options::default()).await;
    let rows: &[(&str, &[u8])] = &[
        (JSON, b"{\n \"a\" : 1.0 }"),
        ("text/plain", b"{not json"),
        ("application/json; charset=utf-16", b"\xff\xfe{\x00}\x00"),
        ("image/png", b"\x89PNG\r\n\x00"),
        ("application/x-www-form-urlencoded", b"a=1&b=2"),
        ("", b"plain"),
        (JSON, b"\"\\ud83d\\ude00\""),
        ("text/plain", b""),
    ];
    for (index, (content_type, body)) in rows.iter().enumerate() {
        let seen = edge.publish(content_type, body.to_vec()).await;
        let seq = index as u64 + 1;
        assert_eq!(seen.status, 202, "{content_type}");
        let id = seen.body["events"][0]["id"].as_str().unwrap();
        assert_eq!(seen.body, json!({"accepted":1,"duplicates":0,"events":[{"id":id,"seq":seq,"duplicate":false}]}));
        assert_eq!(edge.data(seq).await, *body, "{content_type}");
        let form = edge.call("GET", &format!("/v1/events/{seq}"), None).await;
        assert_eq!(form.header("content-type"), STRUCTURED);
        let kept = if content_type.is_empty() { "application/octet-stream" } else { content_type };
        assert_eq!(
            (&form.body["datacontenttype"], &form.body["id"], &form.body["seq"], &form.body["type"], &form.body["source"]),
            (&json!(kept), &json!(id), &json!(seq.to_string()), &json!("message"), &json!("/publish"))
        );
    }
    let topics = edge.call("GET", "/v1/topics", None).await.body;
    let first = &topics["items"][0];
    assert_eq!(
        (&first["topic"], &first["events"], &first["first_seq"], &first["last_seq"]),
        (&json!("t.a"), &json!(8), &json!(1), &json!(8))
    );
}

#[tokio::test]
async fn cloudevents_headers_become_attributes() {
    let edge = Edge::start(Options::default()).await;
    let request = edge.to_topic("text/plain", "x");
    let request = request.header("ce-specversion", "1.0").header("ce-id", "a%20b").header("ce-type", "com.example.t");
    let request = request.header("ce-source", "/s").header("ce-subject", "%E2%82%AC").header("ce-time", "2026-01-02T03:04:05Z");
    let request = request.header("ce-myext", "v").header("ce-topic", "other").header("ce-seq", "99").header("hookcast-hops", "8");
    let seen = see(request).await;
    assert_eq!(seen.body["events"], json!([{ "id": "a b", "seq": 1, "duplicate": false }]));
    let expected = json!({
        "specversion": "1.0", "id": "a b", "source": "/s", "type": "com.example.t", "subject": "€", "time": "2026-01-02T03:04:05Z",
        "topic": "t.a", "seq": "1", "datacontenttype": "text/plain", "myext": "v", "data": "x",
    });
    assert_eq!(edge.call("GET", "/v1/events/1", None).await.body, expected);
    let fields = edge.state.follow.get(Seq(1)).await.unwrap().unwrap();
    assert_eq!((fields.fields().hops, fields.fields().own_id), (8, true));
}

#[tokio::test]
async fn structured_events_and_batches_keep_the_slices_of_their_data() {
    let edge = Edge::start(Options::default()).await;
    let one = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data": {"n" : 1.50 }, "topic":"forged","seq":"77"}"#;
    assert_eq!(edge.publish(STRUCTURED, one).await.status, 202);
    assert_eq!(edge.data(1).await, br#"{"n" : 1.50 }"#);
    let two = json!([
        { "specversion": "1.0", "id": "2", "source": "/s", "type": "t", "data_base64": "AAEC" },
        { "specversion": "1.0", "id": "3", "source": "/s", "type": "t", "datacontenttype": "text/plain", "data": "é" },
    ]);
    let seen = edge.publish(BATCH, two.to_string()).await;
    assert_eq!((seen.status, &seen.body["accepted"]), (202, &json!(2)));
    assert_eq!((edge.data(2).await, edge.data(3).await), (vec![0, 1, 2], "é".as_bytes().to_vec()));

    let rows = [
        (STRUCTURED, "{", 400, "invalid_json", ""),
        (STRUCTURED, "[]", 422, "invalid_cloudevent", ""),
        (STRUCTURED, r#"{"specversion":"1.0","source":"/s","type":"t"}"#, 422, "invalid_cloudevent", "/id"),
        (STRUCTURED, r#"{"specversion":"0.3","id":"9","source":"/s","type":"t"}"#, 422, "invalid_cloudevent", "/specversion"),
        (STRUCTURED, r#"{"specversion":"1.0","id":"9\n","source":"/s","type":"t"}"#, 422, "invalid_event", "/id"),
        (BATCH, "[]", 422, "empty_batch", ""),
        (
            BATCH,
            r#"[{"specversion":"1.0","id":"9","source":"/s","type":"t"},{"id":1}]"#,
            422,
            "invalid_cloudevent",
            "/1/specversion",
        ),
    ];
    for (content_type, body, status, slug, pointer) in rows {
        let seen = edge.publish(content_type, body).await;
        assert_eq!(seen.verdict(), (status, slug), "{body}");
        if !pointer.is_empty() {
            assert_eq!(seen.body["errors"][0]["pointer"], pointer, "{body}");
        }
    }
    assert_eq!(edge.head(), 3, "a refused request leaves nothing");
}

#[tokio::test]
async fn every_line_of_ndjson_is_an_event() {
    let limits = HttpLimits { batch_events: 3, event_bytes: 100, ..HttpLimits::default() };
    let edge = Edge::start(Options { limits, ..Options::default() }).await;
    let body = "{\"a\": 1}\r\n\n  \t\n[2]\n\"three\"";
    let seen = see(edge.to_topic(NDJSON, body).header("idempotency-key", "K").header("ce-type", "row")).await;
    let ids: Vec<_> = seen.body["events"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect();
    assert_eq!((seen.status, ids), (202, vec![json!("K-0"), json!("K-1"), json!("K-2")]));
    assert_eq!((edge.data(1).await, edge.data(3).await), (b"{\"a\": 1}".to_vec(), b"\"three\"".to_vec()));
    assert_eq!(edge.call("GET", "/v1/events/2", None).await.body["type"], "row");
    let again = see(edge.to_topic(NDJSON, body).header("idempotency-key", "K").header("ce-type", "row")).await;
    assert_eq!((again.status, &again.body["accepted"], &again.body["duplicates"]), (202, &json!(0), &json!(3)));

    let refused = edge.publish(NDJSON, "{}\n\n{oops\n").await;
    assert_eq!(refused.verdict(), (422, "invalid_line"));
    assert!(refused.body["detail"].as_str().unwrap().contains("line 3"));
    assert_eq!(edge.publish(NDJSON, "").await.verdict(), (422, "empty_batch"));
    assert_eq!(edge.publish(NDJSON, " \n\n").await.verdict(), (422, "empty_batch"));
    assert_eq!(edge.publish(NDJSON, "1\n2\n3\n4").await.verdict(), (413, "batch_too_large"));
    assert_eq!(edge.publish(NDJSON, format!("1\n\"{}\"", "x".repeat(100))).await.verdict(), (413, "payload_too_large"));
    assert_eq!(edge.publish(NDJSON, b"\"\xff\"".to_vec()).await.verdict(), (422, "invalid_line"));
    let long = see(edge.to_topic(NDJSON, "1").header("idempotency-key", "k".repeat(255))).await;
    assert_eq!(long.verdict(), (422, "idempotency_key"));
    assert_eq!(edge.head(), 3, "a refused request leaves nothing");
}

#[tokio::test]
async fn odd_requests_are_refused_by_kind() {
    let edge = Edge::start(Options::default()).await;
    assert_eq!(edge.publish("text/plain", vec![b'x'; 1_048_576]).await.status, 202);
    assert_eq!(edge.publish("text/plain", vec![b'x'; 1_048_577]).await.verdict(), (413, "payload_too_large"));
    assert_eq!(edge.publish(JSON, "{oops").await.verdict(), (400, "invalid_json"));
    assert_eq!(edge.publish(JSON, "").await.verdict(), (400, "invalid_json"));
    let with = |name: &'static str, value: String| see(edge.to_topic("text/plain", "x").header(name, value));
    assert_eq!(with("content-encoding", "gzip".into()).await.verdict(), (415, "content_encoding"));
    assert_eq!(with("idempotency-key", "a".repeat(256)).await.verdict(), (422, "idempotency_key"));
    assert_eq!(with("idempotency-key", String::new()).await.verdict(), (422, "idempotency_key"));
    assert_eq!(with("ce-type", "%0a".into()).await.verdict(), (422, "invalid_event"));
    assert_eq!(with("ce-id", "%ff".into()).await.verdict(), (422, "invalid_cloudevent"));
    assert_eq!(with("ce-specversion", "0.3".into()).await.verdict(), (422, "invalid_cloudevent"));
    let looped = with("hookcast-hops", "9".into()).await;
    assert_eq!((looped.verdict(), looped.header("webhook-delivery")), ((422, "loop_detected"), "abort"));
    assert_eq!(with("hookcast-hops", "300".into()).await.verdict(), (422, "loop_detected"));
    assert_eq!(with("hookcast-hops", "x".into()).await.verdict(), (422, "invalid_event"));
    for (topic, status, slug) in
        [("hookcast.x", 403, "own_topic"), ("hookcast", 403, "own_topic"), ("a..b", 422, "topic"), ("a.*", 422, "topic")]
    {
        let seen = edge.call("POST", &format!("/v1/topics/{topic}/events"), json!(1)).await;
        assert_eq!(seen.verdict(), (status, slug), "{topic}");
    }
    assert_eq!(edge.head(), 1);
}

#[tokio::test]
async fn one_key_is_stored_once_however_often_it_comes_at_the_same_time() {
    let edge = Edge::start(Options::default()).await;
    let all = (0..50).map(|_| see(edge.to_topic(JSON, "{\"n\":1}").header("idempotency-key", "k")));
    let all = futures_util::future::join_all(all).await;
    assert!(
        all.iter().all(|seen| seen.status == 202 && seen.body["events"][0]["seq"] == 1 && seen.body["events"][0]["id"] == "k")
    );
    assert_eq!(all.iter().filter(|seen| seen.body["duplicates"] == 0).count(), 1);
    assert_eq!(edge.head(), 1);
    let other = see(edge.to_topic(JSON, "{\"n\":2}").header("idempotency-key", "k")).await;
    assert_eq!(other.verdict(), (409, "idempotency_mismatch"));
    let both = see(edge.to_topic(JSON, "1").header("idempotency-key", "k").header("ce-id", "j")).await;
    assert_eq!(both.verdict(), (422, "idempotency_key"));
    assert_eq!(edge.head(), 1);
}

#[tokio::test]
async fn the_json_test_suite_is_judged_as_json_and_kept_as_text() {
    use base64::Engine as _;
    let suite: Vec<Value> = serde_json::from_str(include_str!("../data/json/json-test-suite.json")).unwrap();
    let edge = Edge::start(Options::default()).await;
    let mut counts = [0; 3];
    for file in &suite {
        let name = file["name"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(file["base64"].as_str().unwrap()).unwrap();
        let seen = edge.publish(JSON, bytes.clone()).await;
        match &name[..2] {
            "n_" => assert_eq!(seen.verdict(), (400, "invalid_json"), "{name}"),
            "y_" => assert_eq!(seen.status, 202, "{name}"),
            _ => assert!(matches!(seen.status, 202 | 400), "{name}"),
        }
        counts[["n_", "y_", "i_"].iter().position(|kind| name.starts_with(kind)).unwrap()] += 1;
        if seen.status == 202 {
            assert_eq!(edge.data(edge.head()).await, bytes, "{name}");
        }
        assert_eq!(edge.publish("text/plain", bytes.clone()).await.status, 202, "{name}");
        assert_eq!(edge.data(edge.head()).await, bytes, "{name}");
    }
    assert_eq!(counts, [145, 72, 27]);
    for deep in ["[".repeat(100_000), "[{\"\":".repeat(50_000)] {
        assert_eq!(edge.publish(JSON, deep).await.verdict(), (400, "invalid_json"));
    }
}
