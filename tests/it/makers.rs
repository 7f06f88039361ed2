//! Who made a token: what ids and names cannot buy, what ends with a token and what stays.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;

use hookcast_http::auth::TokenEntry;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{PATIENCE, Relay, eventually};

const ALL: [&str; 4] = ["read", "publish", "stream", "manage"];
const ADMIN: &str = "hc_admin_0123456789abcdef0123456789abcdef";

/// A token: its id, and what is shown.
#[derive(Clone, Debug)]
struct Made {
    id: String,
    token: String,
}

fn made(answer: &(u16, Value)) -> Made {
    assert_eq!(answer.0, 201, "{}", answer.1);
    let text = |name: &str| answer.1[name].as_str().unwrap().to_owned();
    Made { id: text("id"), token: text("token") }
}

/// The first token of a relay that asked for none.
async fn first(relay: &Relay) -> Made {
    made(&relay.ask("POST", "/v1/tokens", Some(&json!({"name": "root", "scopes": ALL}))).await)
}

/// A token made by another, limited to some topics unless there are none.
async fn make(relay: &Relay, maker: &Made, name: &str, topics: &[&str]) -> Made {
    let mut body = json!({"name": name, "scopes": ALL});
    if !topics.is_empty() {
        body["topics"] = json!(topics);
    }
    made(&relay.ask_as(&maker.token, "POST", "/v1/tokens", Some(&body)).await)
}

/// Maker by id of every token that the caller sees.
async fn makers(relay: &Relay, token: &str) -> BTreeMap<String, String> {
    let (status, list) = relay.ask_as(token, "GET", "/v1/tokens?limit=1000", None).await;
    assert_eq!(status, 200, "{list}");
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(|item| (text(item, "id"), text(item, "made_by"))).collect()
}

async fn is_in_force(relay: &Relay, token: &Made) -> bool {
    match relay.ask_as(&token.token, "GET", "/v1/subscriptions", None).await.0 {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

fn slug(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["type"].as_str().unwrap_or_default().trim_start_matches("/problems/"))
}

fn sha256(token: &str) -> String {
    TokenEntry::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of `[auth]`.
fn declared(name: &str, token: &str, topics: &[&str]) -> String {
    format!("{{ name = \"{name}\", sha256 = \"{}\", scopes = {}, topics = {} }}", sha256(token), json!(ALL), json!(topics))
}

fn auth(lines: &[String]) -> String {
    format!("[auth]\ntokens = [{}]\n", lines.join(", "))
}

/// Puts tokens into a database as an earlier build did: chosen ids, makers as bare words. `(id, maker, made at, topics)`; the
/// token itself is `hc_<id>`.
async fn store_earlier(relay: &Relay, rows: &[(&str, &str, i64, &[&str])]) {
    let options = SqliteConnectOptions::new().filename(relay.path("data/hookcast.db"));
    let mut conn = options.connect().await.unwrap();
    for (id, maker, at, topics) in rows {
        let record = json!({"id": id, "name": format!("name-of-{id}"), "sha256": sha256(&format!("hc_{id}")), "scopes": ALL,
            "topics": topics, "limits": {}, "made_by": maker, "created_at": at});
        let sql = "INSERT OR REPLACE INTO tokens (id, record) VALUES (?, ?)";
        sqlx::query(sql).bind(*id).bind(record.to_string()).execute(&mut conn).await.unwrap();
    }
    sqlx::Connection::close(conn).await.unwrap();
}

fn earlier(id: &str) -> Made {
    Made { id: id.to_owned(), token: format!("hc_{id}") }
}

#[tokio::test]
async fn the_relay_makes_every_id_itself() {
    let relay = Relay::start().await;
    let chosen = json!({"id": "root", "name": "root", "scopes": ALL});
    let refused = relay.ask("POST", "/v1/tokens", Some(&chosen)).await;
    assert_eq!((slug(&refused), &refused.1["errors"][0]["pointer"]), ((422, "unknown_field"), &json!("/id")), "{}", refused.1);
    let root = first(&relay).await;
    let again = make(&relay, &root, "root", &[]).await;
    for token in [&root, &again] {
        let random = token.id.strip_prefix("tok_").unwrap_or_else(|| panic!("an id as the relay makes them: {}", token.id));
        assert!(random.len() == 22 && random.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{}", token.id);
    }
    assert_ne!(root.id, again.id);
    for taken in [&again.id, "local", "admin", "operator", "tok_0123456789012345678901"] {
        let chosen = json!({"id": taken, "name": "evil", "scopes": ALL});
        assert_eq!(
            slug(&relay.ask_as(&root.token, "POST", "/v1/tokens", Some(&chosen)).await),
            (422, "unknown_field"),
            "{taken}"
        );
    }
}

#[tokio::test]
async fn no_name_makes_anybody_a_maker() {
    let mut relay = Relay::start().await;
    let root = first(&relay).await;
    let ops = make(&relay, &root, "ops", &[]).await;
    let tenant = make(&relay, &root, "tenant", &["beta.**"]).await;
    for name in ["operator", "local", "admin", "config", "root", root.id.as_str(), tenant.id.as_str(), "ops"] {
        let evil = make(&relay, &tenant, name, &["beta.**"]).await;
        assert_eq!(makers(&relay, &evil.token).await, BTreeMap::new(), "{name}");
        for victim in [&root, &ops, &tenant, &evil] {
            let path = format!("/v1/tokens/{}", victim.id);
            for method in ["GET", "DELETE"] {
                assert_eq!(slug(&relay.ask_as(&evil.token, method, &path, None).await), (404, "not_found"), "{name} {path}");
            }
        }
    }
    let seen = makers(&relay, &root.token).await;
    assert_eq!((seen[&root.id].as_str(), &seen[&ops.id], &seen[&tenant.id]), ("operator", &root.id, &root.id));
    relay.kill9().await;
    relay.restart().await;
    assert_eq!(makers(&relay, &root.token).await, seen, "the same after a start");
    assert_eq!(makers(&relay, &tenant.token).await.len(), 8);
}

const TENANT: &[&str] = &["acme.**"];
const SHOP: &[&str] = &["beta.**"];

/// What an earlier build stored: id, maker, made at, topics; then the maker that is right.
const ROWS: [(&str, &str, i64, &[&str], &str); 16] = [
    ("root", "local", 1_000, &[], "operator"),
    ("ops", "admin", 1_000, &[], "operator"),
    ("a", "root", 2_000, TENANT, "root"),
    ("a1", "a", 3_000, TENANT, "a"),
    // Made by tenants who chose ids that stand for others.
    ("local", "a", 4_000, TENANT, "a"),
    ("admin", "a", 4_000, TENANT, "a"),
    ("operator", "a", 4_000, TENANT, "a"),
    ("x", "operator", 4_500, TENANT, "operator"),
    // Its maker is revoked; somebody took the id later.
    ("old-child", "reused", 2_500, TENANT, "operator"),
    ("reused", "a", 4_000, TENANT, "a"),
    ("lost", "revoked-long-ago", 2_500, TENANT, "operator"),
    // An [auth] token of a name that a tenant took, and could never have made this.
    ("wide", "renamed", 5_000, &[], "operator"),
    ("renamed", "a", 4_000, TENANT, "a"),
    ("by-name", "name-of-a", 5_000, TENANT, "operator"),
    ("of-boss", "boss", 5_000, TENANT, "boss"),
    ("of-shop", "shop", 5_000, SHOP, "shop"),
];

/// What earlier builds stored: only a present token that was there first, and could have made it, is a maker.
#[tokio::test]
async fn makers_of_earlier_builds_are_present_tokens_or_the_operator() {
    let mut relay = Relay::start_with(&auth(&[declared("boss", ADMIN, &[]), declared("shop", "hc_shop_token", SHOP)])).await;
    relay.terminate().await;
    store_earlier(&relay, &ROWS.map(|(id, maker, at, topics, _)| (id, maker, at, topics))).await;
    relay.restart().await;
    for round in 0..2 {
        let seen = makers(&relay, ADMIN).await;
        for (id, _, _, _, maker) in ROWS {
            assert_eq!((id, seen[id].as_str()), (id, maker), "start {round}");
        }
        for taker in ["local", "admin", "operator", "reused", "renamed"] {
            assert_eq!(makers(&relay, &format!("hc_{taker}")).await, BTreeMap::new(), "{taker}");
            let revoke = relay.ask_as(&format!("hc_{taker}"), "DELETE", "/v1/tokens/root", None).await;
            assert_eq!(slug(&revoke), (404, "not_found"), "{taker}");
        }
        // The tokens themselves work as before, under their old ids.
        for (id, ..) in ROWS {
            assert!(is_in_force(&relay, &earlier(id)).await, "{id}");
        }
        assert_eq!(makers(&relay, "hc_shop_token").await.into_keys().collect::<Vec<_>>(), ["of-shop"]);
        relay.kill9().await;
        relay.restart().await;
    }
    // An id that nobody has any more is nobody's for ever, whoever is called so later.
    relay.terminate().await;
    relay.configure(&auth(&[declared("boss", ADMIN, &[]), declared("store", "hc_shop_token", SHOP)]));
    relay.restart().await;
    assert_eq!(makers(&relay, ADMIN).await["of-shop"], "operator", "its maker has another name now");
    relay.terminate().await;
    relay.configure(&auth(&[declared("boss", ADMIN, &[]), declared("shop", "hc_other_token", SHOP)]));
    relay.restart().await;
    assert_eq!(makers(&relay, "hc_other_token").await, BTreeMap::new());
    assert!(is_in_force(&relay, &earlier("of-shop")).await, "and it was not ended");
    let (status, revoked) = relay.ask_as(ADMIN, "DELETE", "/v1/tokens/a", None).await;
    let mut revoked: Vec<&str> = revoked["revoked"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!((status, revoked.remove(0)), (200, "a"));
    revoked.sort_unstable();
    assert_eq!(revoked, ["a1", "admin", "local", "operator", "renamed", "reused"]);
}

#[tokio::test]
async fn a_revoked_token_takes_along_what_it_made_and_no_more() {
    let mut relay = Relay::start().await;
    let root = first(&relay).await;
    let parent = make(&relay, &root, "parent", &["acme.**"]).await;
    let child = make(&relay, &parent, "child", &["acme.**"]).await;
    let sibling = make(&relay, &parent, "sibling", &["acme.**"]).await;
    let grandchild = make(&relay, &child, "grandchild", &["acme.*"]).await;
    let other = make(&relay, &root, "other", &["acme.**"]).await;
    let stream = |token: &Made, more: String| {
        let request = relay.client.get(format!("{}/v1/topics/acme.x/stream{more}", relay.url));
        let request = if more.contains("ticket") { request } else { request.bearer_auth(&token.token) };
        async move { request.send().await.unwrap() }
    };
    let ticket = |token: Made| {
        let relay = &relay;
        async move {
            let (status, made) =
                relay.ask_as(&token.token, "POST", "/v1/stream-tickets", Some(&json!({"topics": "acme.x"}))).await;
            assert_eq!(status, 201, "{made}");
            made["ticket"].as_str().unwrap().to_owned()
        }
    };
    let (used, unused) = (ticket(grandchild.clone()).await, ticket(grandchild.clone()).await);
    let ends = [
        stream(&grandchild, String::new()).await,
        stream(&child, "?limit=5".into()).await,
        stream(&child, format!("?ticket={used}")).await,
    ];
    let mut stays = stream(&other, String::new()).await;
    let poll = relay.client.get(format!("{}/v1/topics/acme.x/events?wait=120", relay.url)).bearer_auth(&sibling.token).send();
    let poll = tokio::spawn(poll);
    eventually("every stream is open", async || {
        let text =
            relay.client.get(format!("{}/metrics", relay.url)).bearer_auth(&root.token).send().await.ok()?.text().await.ok()?;
        text.lines().any(|line| line == "hookcast_streams_open 5").then_some(())
    })
    .await;

    let (status, answer) = relay.ask_as(&root.token, "DELETE", &format!("/v1/tokens/{}", parent.id), None).await;
    assert_eq!(status, 200, "{answer}");
    let revoked: Vec<&str> = answer["revoked"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(revoked[0], parent.id, "its own id first");
    let mut below = revoked[1..].to_vec();
    below.sort_unstable();
    let mut wanted = [child.id.as_str(), sibling.id.as_str(), grandchild.id.as_str()];
    wanted.sort_unstable();
    assert_eq!(below, wanted);
    for token in [&parent, &child, &sibling, &grandchild] {
        assert!(!is_in_force(&relay, token).await, "{}", token.id);
    }
    for stream in ends {
        assert_eq!(stream.status(), 200);
        let end = tokio::time::timeout(PATIENCE / 3, stream.bytes()).await;
        assert!(end.expect("an end before a heartbeat").is_ok(), "a clean one");
    }
    tokio::time::timeout(PATIENCE, poll).await.expect("the long poll ends with its token").unwrap().unwrap();
    assert_eq!(stream(&child, format!("?ticket={unused}")).await.status(), 401);
    assert_eq!(stream(&child, format!("?ticket={used}")).await.status(), 401);
    // What others have goes on, and what they made stays.
    assert!(is_in_force(&relay, &root).await && is_in_force(&relay, &other).await);
    assert_eq!(relay.ask_as(&root.token, "POST", "/v1/topics/acme.x/events", Some(&json!(7))).await.0, 202);
    let chunk = tokio::time::timeout(PATIENCE, stays.chunk()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&chunk).contains("\"data\":7"));
    assert_eq!(slug(&relay.ask_as(&root.token, "DELETE", &format!("/v1/tokens/{}", parent.id), None).await), (404, "not_found"));
    relay.kill9().await;
    relay.restart().await;
    let left: Vec<String> = makers(&relay, &root.token).await.into_keys().collect();
    let mut wanted = vec![root.id.clone(), other.id.clone()];
    wanted.sort_unstable();
    assert_eq!(left, wanted, "also after a start");
}

#[tokio::test]
async fn children_that_are_kept_are_those_of_whoever_kept_them() {
    let relay = Relay::start().await;
    let root = first(&relay).await;
    let boss = make(&relay, &root, "boss", &["acme.**"]).await;
    let parent = make(&relay, &boss, "parent", &["acme.**"]).await;
    let child = make(&relay, &parent, "child", &["acme.**"]).await;
    let grandchild = make(&relay, &child, "grandchild", &["acme.**"]).await;
    let revoke = |maker: &Made, id: &str, more: &str| {
        let (token, path) = (maker.token.clone(), format!("/v1/tokens/{id}{more}"));
        let relay = &relay;
        async move { relay.ask_as(&token, "DELETE", &path, None).await }
    };
    assert_eq!(slug(&revoke(&boss, &parent.id, "?keep_children=maybe").await), (422, "keep_children"));
    assert_eq!(slug(&revoke(&boss, &parent.id, "?keep=true").await), (422, "unknown_parameter"));
    assert_eq!(revoke(&boss, &parent.id, "?keep_children=true").await, (200, json!({"revoked": [parent.id]})));
    assert!(!is_in_force(&relay, &parent).await);
    assert!(is_in_force(&relay, &child).await && is_in_force(&relay, &grandchild).await);
    assert_eq!(makers(&relay, &boss.token).await, BTreeMap::from([(child.id.clone(), boss.id.clone())]));
    assert_eq!(makers(&relay, &child.token).await, BTreeMap::from([(grandchild.id.clone(), child.id.clone())]));

    // One that ends a token above itself does not become its own maker.
    let above = make(&relay, &root, "above", &[]).await;
    let between = make(&relay, &above, "between", &[]).await;
    let below = make(&relay, &between, "below", &[]).await;
    let beside = make(&relay, &above, "beside", &[]).await;
    assert_eq!(revoke(&below, &above.id, "?keep_children=true").await, (200, json!({"revoked": [above.id]})));
    let seen = makers(&relay, &root.token).await;
    assert_eq!((&seen[&between.id], &seen[&below.id], &seen[&beside.id]), (&root.id, &between.id, &below.id));
    // One that ends itself leaves what it made to its maker.
    assert_eq!(revoke(&between, &between.id, "?keep_children=true").await, (200, json!({"revoked": [between.id]})));
    assert_eq!(makers(&relay, &root.token).await[&below.id], root.id);
    // And without keeping, it ends itself with all of its own.
    let (status, answer) = revoke(&below, &root.id, "?keep_children=false").await;
    assert_eq!((status, &answer["revoked"][0]), (200, &json!(root.id)), "{answer}");
    for token in [&root, &boss, &child, &grandchild, &below, &beside] {
        assert!(!is_in_force(&relay, token).await, "{}", token.id);
    }
}

/// Earlier builds let ids be taken again, so that tokens may be each other's makers.
#[tokio::test]
async fn makers_in_a_ring_end_together() {
    let mut relay = Relay::start_with(&auth(&[declared("boss", ADMIN, &[])])).await;
    relay.terminate().await;
    let topics: &[&str] = &["acme.**"];
    let rows: [(&str, &str, i64, &[&str]); 5] = [
        ("a", "c", 1_000, topics),
        ("b", "a", 1_000, topics),
        ("c", "b", 1_000, topics),
        ("self", "self", 1_000, topics),
        ("d", "c", 1_001, topics),
    ];
    store_earlier(&relay, &rows).await;
    relay.restart().await;
    let (status, answer) = relay.ask_as(ADMIN, "DELETE", "/v1/tokens/b", None).await;
    let revoked = answer["revoked"].as_array().unwrap();
    assert_eq!((status, &revoked[0]), (200, &json!("b")), "{answer}");
    for id in ["c", "d"] {
        assert!(revoked.contains(&json!(id)), "{answer}");
    }
    assert_eq!(makers(&relay, "hc_self").await, BTreeMap::new(), "nobody made itself");
    assert_eq!(relay.ask_as(ADMIN, "DELETE", "/v1/tokens/self", None).await, (200, json!({"revoked": ["self"]})));
}

/// Whoever makes tokens while theirs is revoked is too late or too early, never beside it.
#[tokio::test]
async fn nothing_made_beside_a_revocation_stays() {
    let relay = Relay::start().await;
    let root = first(&relay).await;
    for _ in 0..8 {
        let parent = make(&relay, &root, "parent", &["acme.**"]).await;
        let body = json!({"name": "late", "scopes": ALL, "topics": ["acme.**"]});
        let path = format!("/v1/tokens/{}", parent.id);
        let making = (0..8).map(|_| relay.ask_as(&parent.token, "POST", "/v1/tokens", Some(&body)));
        let making = futures_util::future::join_all(making);
        let (made, (status, answer)) = tokio::join!(making, relay.ask_as(&root.token, "DELETE", &path, None));
        assert_eq!(status, 200, "{answer}");
        for (status, made) in made {
            match status {
                201 => assert!(answer["revoked"].as_array().unwrap().contains(&made["id"]), "{made} beside {answer}"),
                _ => assert_eq!(status, 401, "{made}"),
            }
        }
    }
    assert_eq!(makers(&relay, &root.token).await.len(), 1);
}

#[tokio::test]
async fn an_end_that_nobody_asked_for_ends_nobody_else() {
    let tenant = "hc_tenant_of_the_configuration";
    let mut relay = Relay::start_with(&auth(&[declared("boss", ADMIN, &[]), declared("tenant", tenant, &["acme.**"])])).await;
    let of_tenant = make(&relay, &Made { id: "tenant".into(), token: tenant.into() }, "child", &["acme.**"]).await;
    let soon = hookcast_core::clock::Clock::now(&hookcast_core::clock::SystemClock).plus(std::time::Duration::from_secs(3));
    let body = json!({"name": "short", "scopes": ["manage", "read"], "expires_at": soon.to_string()});
    let short = made(&relay.ask_as(ADMIN, "POST", "/v1/tokens", Some(&body)).await);
    let body = json!({"name": "of-short", "scopes": ["read"], "expires_at": soon.to_string()});
    made(&relay.ask_as(&short.token, "POST", "/v1/tokens", Some(&body)).await);
    assert_eq!(makers(&relay, tenant).await, BTreeMap::from([(of_tenant.id.clone(), "tenant".to_owned())]));
    eventually("the end of a token", async || (!is_in_force(&relay, &short).await).then_some(())).await;
    assert!(is_in_force(&relay, &of_tenant).await);
    relay.terminate().await;
    relay.configure(&auth(&[declared("boss", ADMIN, &[])]));
    relay.restart().await;
    assert!(is_in_force(&relay, &of_tenant).await, "its maker left the configuration");
    assert_eq!(makers(&relay, ADMIN).await[&of_tenant.id], "operator");
}

/// Whether an id is somebody else's, and what is wrong with a request beside that, is told by no difference between the ways.
#[tokio::test]
async fn ids_of_others_answer_alike_by_every_way() {
    let relay = Relay::start().await;
    let root = first(&relay).await;
    let tenant = make(&relay, &root, "tenant", &["beta.**"]).await;
    let subscription =
        |topic: &str| json!({"id": "taken", "url": "https://example.com/hook", "topics": [topic], "enabled": false});
    let source = |topic: &str| json!({"name": "taken", "protocol": "sse", "url": "https://up.example.com/", "topic": topic, "enabled": false});
    assert_eq!(relay.ask_as(&root.token, "POST", "/v1/subscriptions", Some(&subscription("acme.x"))).await.0, 201);
    assert_eq!(relay.ask_as(&root.token, "POST", "/v1/sources", Some(&source("acme.x"))).await.0, 201);
    let mut details = Vec::new();
    for (list, good, wide, broken) in [
        ("/v1/subscriptions", subscription("beta.x"), subscription("acme.x"), json!({"id": "taken", "url": 7, "nonsense": 1})),
        ("/v1/sources", source("beta.x"), source("acme.x"), json!({"name": "taken", "protocol": "none", "nonsense": 1})),
    ] {
        for body in [good, wide, broken] {
            for (method, path) in [("POST", list.to_owned()), ("PUT", format!("{list}/taken"))] {
                let answer = relay.ask_as(&tenant.token, method, &path, Some(&body)).await;
                assert_eq!(slug(&answer), (404, "not_found"), "{method} {path} {body}: {}", answer.1);
                details.push(answer.1.to_string());
            }
        }
    }
    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    // Its own are named.
    for (list, body) in [
        ("/v1/subscriptions", json!({"id": "own", "url": "https://example.com/", "topics": ["beta.x"]})),
        (
            "/v1/sources",
            json!({"name": "own", "protocol": "sse", "url": "https://up.example.com/", "topic": "beta.x", "enabled": false}),
        ),
    ] {
        assert_eq!(relay.ask_as(&tenant.token, "POST", list, Some(&body)).await.0, 201);
        assert_eq!(slug(&relay.ask_as(&tenant.token, "POST", list, Some(&body)).await), (409, "already_exists"));
    }
}

#[tokio::test]
async fn definitions_say_who_made_them() {
    let mut relay =
        Relay::start_with("[[subscriptions]]\nid = \"fixed\"\nurl = \"https://example.com/\"\ntopics = [\"t\"]\n").await;
    let subscription = |id: &str| json!({"id": id, "url": "https://example.com/hook", "topics": ["acme.x"], "enabled": false});
    let source = |name: &str| json!({"name": name, "protocol": "sse", "url": "https://up.example.com/", "topic": "acme.in", "enabled": false});
    relay.must("POST", "/v1/subscriptions", subscription("open")).await;
    let root = first(&relay).await;
    let tenant = make(&relay, &root, "tenant", &["acme.**"]).await;
    assert_eq!(relay.ask_as(&tenant.token, "POST", "/v1/subscriptions", Some(&subscription("posted"))).await.0, 201);
    assert_eq!(relay.ask_as(&tenant.token, "PUT", "/v1/subscriptions/put", Some(&subscription("put"))).await.0, 201);
    assert_eq!(relay.ask_as(&tenant.token, "POST", "/v1/sources", Some(&source("posted"))).await.0, 201);
    assert_eq!(relay.ask_as(&root.token, "PUT", "/v1/sources/put", Some(&source("put"))).await.0, 201);
    // Whoever changes one has not made it.
    assert_eq!(relay.ask_as(&root.token, "PUT", "/v1/subscriptions/put", Some(&subscription("put"))).await.0, 200);
    assert_eq!(relay.ask_as(&root.token, "DELETE", &format!("/v1/tokens/{}", tenant.id), None).await.0, 200);
    relay.kill9().await;
    relay.restart().await;
    let ids = async |path: String| {
        let (status, list) = relay.ask_as(&root.token, "GET", &path, None).await;
        assert_eq!(status, 200, "{path}: {list}");
        let name = |item: &Value| item["id"].as_str().or(item["name"].as_str()).unwrap().to_owned();
        list["items"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(ids(format!("/v1/subscriptions?made_by={}", tenant.id)).await, ["posted", "put"]);
    assert_eq!(ids("/v1/subscriptions?made_by=operator".to_owned()).await, ["fixed", "open"]);
    assert_eq!(ids(format!("/v1/subscriptions?made_by={}", root.id)).await, [""; 0]);
    assert_eq!(ids(format!("/v1/sources?made_by={}", tenant.id)).await, ["posted"]);
    assert_eq!(ids(format!("/v1/sources?made_by={}", root.id)).await, ["put"]);
    let (_, shown) = relay.ask_as(&root.token, "GET", "/v1/sources/posted", None).await;
    assert_eq!(shown["made_by"], json!(tenant.id));
    let one = relay.ask_as(&root.token, "GET", &format!("/v1/subscriptions?limit=1&made_by={}", tenant.id), None).await.1;
    assert_eq!((&one["items"][0]["id"], &one["next"]), (&json!("posted"), &json!("posted")));
}
