//! sse-starlette under uvicorn, and a server of HTTP/1.0.

use serde_json::json;

use super::support::*;
use crate::support::Relay;

#[tokio::test]
#[ignore = "needs python"]
async fn sse_starlette_goes_on_behind_the_last_event_id() {
    let server = Tool::python("sse_upstream.py", &["1000"]);
    let relay = Relay::start().await;
    let cuts = [1000 + random_below(10_000), 1000 + random_below(10_000)];
    let wire = Wire::to(server.address(), &cuts).await;
    read_from(&relay, "up", "sse", &format!("http://{}/events", wire.address), json!({})).await;
    assert_eq!(numbers(&relay, "up", 1000).await, (1..=1000).collect::<Vec<_>>(), "cut after {cuts:?} bytes");
    let shown = source(&relay, "up").await;
    assert_eq!((&shown["counts"]["gaps"], &shown["counts"]["reconnects"]), (&json!(0), &json!(2)), "{cuts:?}: {shown}");
    assert_eq!(shown["counts"]["events"], 1000, "nothing came twice");
    assert_eq!(shown["resume_token"], "1000");
    let first = &events(&relay, "up", 1).await[0];
    assert_eq!((&first["type"], &first["id"]), (&json!("count"), &json!("1")));
}

#[tokio::test]
#[ignore = "needs python"]
async fn lines_over_http_1_0_end_with_the_connection() {
    let server = Tool::python("ndjson_upstream.py", &["1000"]);
    let relay = Relay::start().await;
    let cut = 500 + random_below(8000);
    let wire = Wire::to(server.address(), &[cut]).await;
    read_from(&relay, "up", "ndjson", &format!("http://{}/lines", wire.address), json!({"id": "/n"})).await;
    assert_eq!(numbers(&relay, "up", 1000).await, (1..=1000).collect::<Vec<_>>(), "cut after {cut} bytes");
    let gaps = source(&relay, "up").await["counts"]["gaps"].as_u64().unwrap();
    assert!(gaps >= 1, "it has no position: each reconnect may have missed something");
}
