//! Tickets from outside: what they open, what they do not, and when they end; limits of a token; what other origins may see.

use std::time::Duration;

use futures_util::StreamExt as _;
use hookcast_core::model::TopicPattern;
use hookcast_core::model::administration::TokenLimits;
use hookcast_http::auth::{AuthSettings, Scope, TokenEntry};
use serde_json::{Value, json};

use crate::api::see;
use crate::edge::{Edge, Options};
use crate::support::{PATIENCE, Relay, eventually};

const READER: &str = "hc_reader_0123456789abcdef0123456789abcde";
const TENANT: &str = "hc_tenant_0123456789abcdef0123456789abcde";
const LOOKER: &str = "hc_looker_0123456789abcdef0123456789abcde";
const PAGE: &str = "https://pages.example";
const BROWSER: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)");

fn token(token: &str, scopes: &[Scope], topics: &[&str], streams: Option<u32>) -> TokenEntry {
    TokenEntry {
        id: None,
        limits: TokenLimits { streams, ..TokenLimits::default() },
        name: token[3..9].to_owned(),
        sha256: TokenEntry::digest(token),
        scopes: scopes.to_vec(),
        topics: topics.iter().map(|text| TopicPattern::parse(text).unwrap()).collect(),
        expires_at: None,
    }
}

fn tokens(streams: Option<u32>) -> Vec<TokenEntry> {
    vec![
        token(READER, &[Scope::Stream], &[], streams),
        token(TENANT, &Scope::ALL, &["acme.**"], None),
        token(LOOKER, &[Scope::Read], &[], None),
    ]
}

async fn guarded(streams: Option<u32>) -> Edge {
    Edge::start(Options { auth: AuthSettings { tokens: tokens(streams), hosts: Vec::new() }, ..Options::default() }).await
}

impl Edge {
    async fn ticket(&self, token: &str, topics: &str) -> String {
        let request = self.client.post(self.url("/v1/stream-tickets")).bearer_auth(token).json(&json!({"topics": topics}));
        let made = see(request).await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!(made.header("cache-control"), "no-store");
        assert!(made.body["expires_at"].as_str().unwrap().ends_with('Z'));
        let ticket = made.body["ticket"].as_str().unwrap().to_owned();
        assert!(ticket.starts_with("hct_") && ticket.len() == 47, "256 bits: {ticket}");
        ticket
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let seen = see(self.client.get(self.url(path))).await;
        (seen.status, seen.slug)
    }
}

/// The status of a WebSocket handshake.
async fn upgrade(edge: &Edge, path_and_query: &str) -> u16 {
    let request = edge.client.get(edge.url(&format!("/v1/topics/{path_and_query}")));
    let request = request.header("connection", "upgrade").header("upgrade", "websocket").header("sec-websocket-version", "13");
    let response = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").send().await.unwrap();
    response.status().as_u16()
}

#[tokio::test]
async fn a_ticket_opens_every_way_of_reading_and_nothing_else() {
    let edge = guarded(None).await;
    let ticket = edge.ticket(TENANT, "acme.a.*,acme.b").await;
    for path in [
        "acme.a.*/events?",
        "acme.a.x,acme.b/events?limit=1&",
        "acme.b/events?callback=f&",
        "acme.b/stream?limit=1&max_duration=1ms&",
    ] {
        let response = edge.client.get(edge.url(&format!("/v1/topics/{path}ticket={ticket}"))).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
    let conduit = format!("/v1/topics/acme.b/stream?format=conduit&heartbeat=1s&ticket={ticket}");
    assert_eq!(edge.client.get(edge.url(&conduit)).send().await.unwrap().text().await.unwrap(), "null");
    assert_eq!(upgrade(&edge, &format!("acme.b/stream?ticket={ticket}")).await, 101);
    assert_eq!(upgrade(&edge, &format!("acme.c/stream?ticket={ticket}")).await, 403);
    assert_eq!(upgrade(&edge, "acme.b/stream?ticket=hct_wrong").await, 401);
    for path in [
        "acme.**/events?",
        "acme.c/events?",
        "**/stream?",
        "acme.a.**/stream?",
        "acme.b,other/events?",
        "acme.c/stream?format=conduit&",
    ] {
        let refused = edge.get(&format!("/v1/topics/{path}ticket={ticket}")).await;
        assert_eq!(refused, (403, "topic_not_allowed".to_owned()), "{path}");
    }
    for path in ["/v1/topics", "/v1/subscriptions", "/v1/tokens", "/metrics", "/v1/events/1"] {
        assert_eq!(edge.get(&format!("{path}?ticket={ticket}")).await.0, 401, "{path}");
        let as_bearer = see(edge.client.get(edge.url(path)).bearer_auth(&ticket)).await;
        assert_eq!(as_bearer.verdict(), (401, "unauthorized"), "{path}");
    }
    let publish = edge.client.post(edge.url(&format!("/v1/topics/acme.b/events?ticket={ticket}"))).body("x");
    assert_eq!(see(publish).await.verdict(), (401, "unauthorized"));
    let again = edge.client.post(edge.url(&format!("/v1/stream-tickets?ticket={ticket}"))).json(&json!({"topics": "acme.b"}));
    assert_eq!(see(again).await.verdict(), (401, "unauthorized"), "a ticket makes no ticket");
}

#[tokio::test]
async fn a_ticket_is_made_by_who_may_stream_for_topics_that_are_theirs() {
    let edge = guarded(None).await;
    let ask = async |token: &str, body: Value| {
        let seen = see(edge.client.post(edge.url("/v1/stream-tickets")).bearer_auth(token).json(&body)).await;
        (seen.status, seen.slug)
    };
    assert_eq!(ask(LOOKER, json!({"topics": "a"})).await, (403, "scope".to_owned()));
    assert_eq!(ask(TENANT, json!({"topics": "**"})).await, (403, "topic_not_allowed".to_owned()));
    assert_eq!(ask(TENANT, json!({"topics": "acme.x,other"})).await, (403, "topic_not_allowed".to_owned()));
    assert_eq!(ask("hc_nobody", json!({"topics": "a"})).await, (401, "unauthorized".to_owned()));
    assert_eq!(ask(READER, json!({})).await, (422, "missing_field".to_owned()));
    assert_eq!(ask(READER, json!({"topics": "a..b"})).await, (422, "topics".to_owned()));
    assert_eq!(ask(READER, json!({"topics": "a", "ttl": "1d"})).await, (422, "unknown_field".to_owned()));
    let bare = see(edge.client.post(edge.url("/v1/stream-tickets")).json(&json!({"topics": "a"}))).await;
    assert_eq!(bare.verdict(), (401, "unauthorized"));
    let got = see(edge.client.get(edge.url("/v1/stream-tickets")).bearer_auth(READER)).await;
    assert_eq!((got.verdict(), got.header("allow")), ((405, "method_not_allowed"), "POST"), "they are not listed");
    let wrong = format!("/v1/topics/a/events?ticket=hct_{}", "a".repeat(43));
    assert_eq!(edge.get(&wrong).await, (401, "unauthorized".to_owned()));
    let beside = see(edge.client.get(edge.url(&wrong)).bearer_auth(READER)).await;
    assert_eq!(beside.verdict(), (401, "unauthorized"), "a good token does not make a wrong ticket good");
}

#[tokio::test]
async fn a_script_and_a_page_need_a_ticket_once_there_are_tokens() {
    let edge = guarded(None).await;
    let path = edge.url("/v1/topics/a/events?callback=f");
    assert_eq!(see(edge.client.get(&path).bearer_auth(READER)).await.verdict(), (401, "unauthorized"));
    assert_eq!(see(edge.client.get(&path)).await.verdict(), (401, "unauthorized"));
    let page = edge.url("/v1/topics/a/stream?format=html&limit=1&max_duration=1ms");
    assert_eq!(see(edge.client.get(&page).bearer_auth(READER)).await.verdict(), (401, "unauthorized"));
    let ticket = edge.ticket(READER, "a").await;
    assert_eq!(edge.client.get(format!("{page}&ticket={ticket}")).send().await.unwrap().status(), 200);
    let script = edge.client.get(format!("{path}&ticket={ticket}")).send().await.unwrap();
    assert_eq!(script.headers()["content-type"], "application/javascript; charset=utf-8");
    assert_eq!(script.headers()["x-content-type-options"], "nosniff");
    assert_eq!(script.headers()["content-disposition"], "attachment; filename=\"events.js\"");
    assert_eq!(script.text().await.unwrap(), "/**/f({\"events\":[],\"next\":\"0\",\"done\":true});");
}

/// Without tokens the relay is its machine's: a page of another site must not read it by the one kind of request that a browser
/// lets every page make and read.
#[tokio::test]
async fn without_tokens_no_page_of_another_site_reads_a_script() {
    let edge = Edge::start(Options::default()).await;
    let made = see(edge.client.post(edge.url("/v1/stream-tickets")).json(&json!({"topics": "a"}))).await;
    assert_eq!(made.status, 201);
    let ticket = made.body["ticket"].as_str().unwrap();
    let own = format!("http://{}/page", edge.address);
    let ask = async |headers: &[(&str, &str)]| {
        let path = edge.url(&format!("/v1/topics/a/events?callback=f&ticket={ticket}"));
        let request = headers.iter().fold(edge.client.get(path), |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&[]).await, 200);
    assert_eq!(
        ask(&[BROWSER, ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")]).await,
        200
    );
    assert_eq!(ask(&[BROWSER, ("referer", &own)]).await, 200);
    for site in ["cross-site", "same-site"] {
        assert_eq!(
            ask(&[BROWSER, ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")]).await,
            403
        );
    }
    assert_eq!(ask(&[BROWSER]).await, 403, "an old browser that hides where the page is from");
    assert_eq!(ask(&[BROWSER, ("referer", "http://evil.example/")]).await, 403);
    assert_eq!(ask(&[("host", "evil.example")]).await, 403, "a name that was bent to this machine");
}

/// A stream that is open keeps the ticket; its token, once revoked, ends both.
#[tokio::test]
async fn a_ticket_serves_again_and_ends_with_its_token() {
    let edge = guarded(None).await;
    let ticket = edge.ticket(READER, "a.*").await;
    let url = edge.url(&format!("/v1/topics/a.b/stream?format=sse&heartbeat=1s&ticket={ticket}"));
    for _ in 0..3 {
        assert_eq!(edge.client.get(&url).send().await.unwrap().status(), 200, "a reader whose connection was cut comes back");
    }
    let open = edge.client.get(&url).send().await.unwrap();
    let waiting = tokio::spawn(edge.client.get(edge.url(&format!("/v1/topics/a.b/events?wait=120&ticket={ticket}"))).send());
    let mut body = open.bytes_stream();
    tokio::time::timeout(PATIENCE, body.next()).await.unwrap();
    edge.state.auth.replace_tokens(tokens(None).split_off(1));
    let end = async { while body.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the stream ends with the token");
    tokio::time::timeout(PATIENCE, waiting).await.expect("and so does who waits").unwrap().unwrap();
    assert_eq!(edge.get(&format!("/v1/topics/a.b/events?ticket={ticket}")).await.0, 401);
}

/// Row `101st connection of one token` of the table of bad inputs: the token says how many it may have.
#[tokio::test]
async fn the_connection_beyond_the_limit_of_a_token_is_told_to_come_back() {
    let edge = guarded(Some(100)).await;
    let ticket = edge.ticket(READER, "a").await;
    let mut open = Vec::new();
    for n in 0..100 {
        let request = if n % 2 == 0 {
            edge.client.get(edge.url("/v1/topics/a/stream")).bearer_auth(READER)
        } else {
            edge.client.get(edge.url(&format!("/v1/topics/a/stream?ticket={ticket}")))
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    for path in ["stream", "stream?format=conduit", "events", "events?wait=120"] {
        let refused = see(edge.client.get(edge.url(&format!("/v1/topics/a/{path}"))).bearer_auth(READER)).await;
        assert_eq!(refused.verdict(), (429, "token_limit"), "{path}");
        assert_ne!(refused.header("retry-after"), "");
    }
    let other = see(edge.client.get(edge.url("/v1/topics/acme.a/events")).bearer_auth(TENANT)).await;
    assert_eq!(other.status, 200, "only this token is full");
    open.truncate(99);
    eventually("a place that was given back", async || {
        let again = see(edge.client.get(edge.url("/v1/topics/a/events")).bearer_auth(READER)).await;
        (again.status == 200).then_some(())
    })
    .await;
}

/// Rows about `Origin`: only configured origins are named in answers, `null` never.
#[tokio::test]
async fn only_pages_of_configured_origins_may_read_answers() {
    let edge = guarded(None).await;
    let ticket = edge.ticket(READER, "a").await;
    let allowed = |response: &reqwest::Response| {
        response.headers().get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    for path in ["events?", "events?callback=f&", "stream?", "stream?format=sse&", "stream?format=conduit&heartbeat=1s&"] {
        let url = edge.url(&format!("/v1/topics/a/{path}ticket={ticket}"));
        for (origin, expected) in
            [(PAGE, Some(PAGE)), ("null", None), ("https://evil.example", None), ("https://pages.example.evil", None)]
        {
            let response = edge.client.get(&url).header("origin", origin).send().await.unwrap();
            assert_eq!(allowed(&response).as_deref(), expected, "{path} {origin}");
        }
    }
    for (path, method) in [("/v1/stream-tickets", "POST"), ("/v1/topics/a/events", "GET"), ("/v1/topics/a/stream", "GET")] {
        for (origin, expected) in [(PAGE, Some(PAGE)), ("null", None), ("https://evil.example", None)] {
            let request = edge.client.request(reqwest::Method::OPTIONS, edge.url(path)).header("origin", origin);
            let request = request.header("access-control-request-method", method);
            let response = request.header("access-control-request-headers", "authorization,content-type").send().await.unwrap();
            assert_eq!(allowed(&response).as_deref(), expected, "{path} {origin}");
        }
    }
    let exposed =
        edge.client.get(edge.url(&format!("/v1/topics/a/events?ticket={ticket}"))).header("origin", PAGE).send().await.unwrap();
    assert!(exposed.headers()["access-control-expose-headers"].to_str().unwrap().contains("hookcast-next"));
}

/// A relay that writes down all it can still writes no ticket, and a restart ends them.
#[tokio::test]
async fn a_ticket_is_written_nowhere_and_does_not_outlive_the_process() {
    let mut relay = Relay::start().await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]})).await;
    let token = made["token"].as_str().unwrap().to_owned();
    let (status, made) = relay.ask_as(&token, "POST", "/v1/stream-tickets", Some(&json!({"topics": "a"}))).await;
    assert_eq!(status, 201);
    let ticket = made["ticket"].as_str().unwrap().to_owned();
    let path = format!("/v1/topics/a/events?ticket={ticket}");
    assert_eq!(relay.ask("GET", &path, None).await.0, 200);
    assert_eq!(relay.ask("GET", &format!("/v1/topics/b/events?ticket={ticket}"), None).await.0, 403);
    let (_, acts) = relay.ask_as(&token, "GET", "/v1/audit", None).await;
    assert!(!acts.to_string().contains(&ticket));
    relay.terminate().await;
    for name in ["data/hookcast.db", "data/hookcast.db-wal", "log.txt"] {
        let bytes = std::fs::read(relay.path(name)).unwrap_or_default();
        assert!(!bytes.windows(ticket.len()).any(|window| window == ticket.as_bytes()), "{name}");
    }
    relay.restart().await;
    assert_eq!(relay.ask("GET", &path, None).await.0, 401);
    assert_eq!(relay.ask_as(&token, "GET", "/v1/topics/a/events", None).await.0, 200);
    tokio::time::timeout(Duration::from_secs(30), relay.terminate()).await.unwrap();
}
