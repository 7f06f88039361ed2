//! What a definition may say, what GET shows of it, and who may have it.

use serde_json::{Value, json};

use super::{TEXT_SECRET, source, stored};
use crate::support::sender::{Message, send};
use crate::support::{Relay, SECRET, eventually};

const NEXT: &str = "the secret that comes next";

fn slug(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["type"].as_str().unwrap_or_default().trim_start_matches("/problems/"))
}

/// What a POST of a source with these settings is answered.
async fn tried(relay: &Relay, settings: Value) -> (u16, Value) {
    let body = json!({"name": "try", "protocol": "webhook", "topic": "in", "settings": settings});
    let answer = relay.ask("POST", "/v1/sources", Some(&body)).await;
    if answer.0 == 201 {
        assert_eq!(relay.ask("DELETE", "/v1/sources/try", None).await.0, 204);
    }
    answer
}

#[tokio::test]
async fn a_definition_says_how_senders_prove_themselves() {
    let relay = Relay::start().await;
    let four: Vec<&str> = vec![TEXT_SECRET; 4];
    for (settings, wanted) in [
        (json!({}), (422, "missing_field")),
        (json!({"verify": {}}), (422, "missing_field")),
        (json!({"verify": {"scheme": "none"}}), (201, "")),
        (json!({"verify": {"scheme": "none", "secret": TEXT_SECRET}}), (422, "secret")),
        (json!({"verify": {"scheme": "github"}}), (422, "missing_field")),
        (json!({"verify": {"scheme": "github", "secret": "short"}}), (422, "secret")),
        (json!({"verify": {"scheme": "github", "secret": four[..3]}}), (201, "")),
        (json!({"verify": {"scheme": "github", "secret": four}}), (422, "secret")),
        (json!({"verify": {"scheme": "github", "secret": []}}), (422, "secret")),
        (json!({"verify": {"scheme": "github", "secret": 7}}), (400, "wrong_type")),
        (json!({"verify": {"scheme": "github", "secret": TEXT_SECRET, "header": "x-other"}}), (422, "header")),
        (json!({"verify": {"scheme": "hub", "secret": TEXT_SECRET, "header": "x other"}}), (422, "header")),
        (json!({"verify": {"scheme": "token", "secret": TEXT_SECRET}}), (422, "missing_field")),
        (json!({"verify": {"scheme": "token", "secret": TEXT_SECRET, "header": "Authorization"}}), (201, "")),
        (json!({"verify": {"scheme": "standard-ed25519", "secret": SECRET}}), (422, "secret")),
        (json!({"verify": {"scheme": "slack", "secret": TEXT_SECRET, "tolerance": "2h"}}), (422, "tolerance")),
        (json!({"verify": {"scheme": "slack", "secret": TEXT_SECRET, "surprise": 1}}), (422, "unknown_field")),
        (json!({"verify": {"scheme": "slack", "secret": TEXT_SECRET}, "method": "POST"}), (422, "method")),
        (json!({"verify": {"scheme": "slack", "secret": TEXT_SECRET}, "delimiter": "lf"}), (422, "unknown_field")),
        (json!({"verify": {"scheme": "slack", "secret": TEXT_SECRET}, "verify_token": "short"}), (422, "verify_token")),
    ] {
        let answer = tried(&relay, settings.clone()).await;
        assert_eq!(slug(&answer), wanted, "{settings}: {}", answer.1);
    }
    // What may be a secret in the wrong place is not repeated.
    let answer = tried(&relay, json!({"verify": {"scheme": TEXT_SECRET, "secret": TEXT_SECRET}})).await;
    assert_eq!(slug(&answer), (422, "signature"));
    assert!(!answer.1.to_string().contains(TEXT_SECRET), "{}", answer.1);
    let called = json!({"name": "try", "protocol": "webhook", "topic": "in", "url": "https://example.com/",
        "settings": {"verify": {"scheme": "none"}}});
    assert_eq!(slug(&relay.ask("POST", "/v1/sources", Some(&called)).await), (422, "url"));
    // It sends no request that could carry something.
    for (name, value) in [("headers", json!({"x-a": "1"})), ("query", json!({"a": "1"}))] {
        let mut carrying =
            json!({"name": "try", "protocol": "webhook", "topic": "in", "settings": {"verify": {"scheme": "none"}}});
        carrying[name] = value;
        assert_eq!(slug(&relay.ask("POST", "/v1/sources", Some(&carrying)).await), (422, name));
    }
    let dialled = json!({"name": "try", "protocol": "sse", "topic": "in"});
    assert_eq!(slug(&relay.ask("POST", "/v1/sources", Some(&dialled)).await), (422, "missing_field"), "others need a URL");
}

#[tokio::test]
#[ignore = "needs python"]
async fn secrets_are_never_shown_stay_through_a_patch_and_can_be_rotated() {
    let mut relay = Relay::start().await;
    let url =
        source(&relay, "a", json!({"scheme": "github", "secret": TEXT_SECRET}), json!({"verify_token": "the token of hubs"}))
            .await;
    let shown = relay.get("/v1/sources/a").await;
    assert_eq!(shown["settings"]["verify"], json!({"scheme": "github", "tolerance": "5m"}));
    assert_eq!((&shown["path"], &shown.get("url")), (&json!("/v1/sources/a/webhook"), &None));
    let text = shown.to_string() + &relay.get("/v1/sources").await.to_string();
    assert!(!text.contains(TEXT_SECRET) && !text.contains("the token of hubs"), "{text}");
    let one = |n: u32, secret: &str| Message::new(&url, "github", secret, format!("{{\"n\":{n}}}").as_bytes());
    let statuses = async |messages: &[Message]| -> Vec<u64> {
        send(messages).await.iter().map(|answer| answer["status"].as_u64().unwrap()).collect()
    };
    relay.must("PATCH", "/v1/sources/a", json!({"settings": {"subject": "/n"}})).await;
    assert_eq!(statuses(&[one(1, TEXT_SECRET), one(1, NEXT)]).await, [200, 401]);
    relay.must("PATCH", "/v1/sources/a", json!({"settings": {"verify": {"secret": [NEXT, TEXT_SECRET]}}})).await;
    assert_eq!(statuses(&[one(2, TEXT_SECRET), one(3, NEXT)]).await, [200, 200], "both during the rotation");
    relay.must("PATCH", "/v1/sources/a", json!({"settings": {"verify": {"secret": NEXT}}})).await;
    assert_eq!(statuses(&[one(4, TEXT_SECRET), one(5, NEXT)]).await, [401, 200], "in force at once");
    assert_eq!(
        relay
            .ask("GET", "/v1/sources/a/webhook?hub.mode=subscribe&hub.challenge=x&hub.verify_token=the%20token%20of%20hubs", None)
            .await
            .0,
        200
    );
    let stored = stored(&relay).await;
    assert_eq!(stored.iter().map(|event| &event["subject"]).collect::<Vec<_>>(), ["1", "2", "3", "5"]);
    // Nothing is dialled, so starting again is nothing, too.
    assert_eq!(relay.ask("POST", "/v1/sources/a/restart", None).await.0, 202);
    eventually("it stands again", async || (relay.get("/v1/sources/a").await["state"] == "connected").then_some(())).await;
    assert_eq!(statuses(&[one(6, NEXT)]).await, [200]);
    relay.terminate().await;
    relay.restart().await;
    let url = format!("{}/v1/sources/a/webhook", relay.url);
    let again = Message::new(&url, "github", NEXT, b"{\"n\":7}");
    assert_eq!(statuses(std::slice::from_ref(&again)).await, [200]);
    eventually("it stands", async || (relay.get("/v1/sources/a").await["state"] == "connected").then_some(())).await;
    assert_eq!(relay.get("/v1/sources/a").await["gaps"], json!([]), "who calls tries again, so nothing is missed");
    relay.must("PATCH", "/v1/sources/a", json!({"enabled": false})).await;
    assert_eq!(statuses(std::slice::from_ref(&again)).await, [404]);
    relay.must("PATCH", "/v1/sources/a", json!({"enabled": true})).await;
    assert_eq!(relay.ask("DELETE", "/v1/sources/a", None).await.0, 204);
    assert_eq!(statuses(std::slice::from_ref(&again)).await, [404]);
    source(&relay, "a", json!({"scheme": "github", "secret": TEXT_SECRET}), json!({})).await;
    assert_eq!(statuses(&[again]).await, [401], "another source of the same name");
    assert!(!relay.log().contains(NEXT) && !relay.log().contains(TEXT_SECRET));
}

#[tokio::test]
#[ignore = "needs python"]
async fn ids_and_types_are_where_the_definition_says() {
    let relay = Relay::start().await;
    let by_header = json!({"id_header": "X-Event-Id", "type_header": "X-Event-Type"});
    let token = json!({"scheme": "token", "secret": TEXT_SECRET, "header": "Authorization"});
    let one = source(&relay, "one", token.clone(), by_header).await;
    let two =
        source(&relay, "two", token, json!({"id": "/meta/id", "type": "/meta/kind", "content_type": "application/vnd.a+json"}))
            .await;
    let body = br#"{"meta":{"id":"m1","kind":"k1"}}"#;
    let bearer = format!("Bearer {TEXT_SECRET}");
    let headers = |value: &str| json!({"authorization": value, "x-event-id": "h1", "x-event-type": "t1"});
    let answers = send(&[
        Message::new(&one, "plain", "", body).headers(headers(&bearer)),
        Message::new(&two, "plain", "", body).headers(headers(TEXT_SECRET)),
        Message::new(&two, "plain", "", body).headers(headers("Bearer of bad news, all of it")),
        Message::new(&two, "plain", "", body),
    ])
    .await;
    assert_eq!(answers.iter().map(|answer| &answer["status"]).collect::<Vec<_>>(), [200, 200, 401, 401], "{answers:?}");
    let events = stored(&relay).await;
    assert_eq!([&events[0]["id"], &events[0]["type"]], ["h1", "t1"]);
    assert_eq!([&events[1]["id"], &events[1]["type"]], ["m1", "k1"]);
    assert_eq!(events[1]["datacontenttype"], "application/vnd.a+json");
}

#[tokio::test]
#[ignore = "needs python"]
async fn a_signature_is_the_credential_and_without_one_a_token_is() {
    let relay = Relay::start().await;
    let made = relay.must("POST", "/v1/tokens", json!({"name": "root", "scopes": ["read", "publish", "stream", "manage"]})).await;
    let root = made["token"].as_str().unwrap().to_owned();
    let token = async |scopes: Value, topics: Value| {
        let body = json!({"name": "t", "scopes": scopes, "topics": topics});
        let (status, made) = relay.ask_as(&root, "POST", "/v1/tokens", Some(&body)).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    };
    for (name, verify) in [("signed", json!({"scheme": "github", "secret": TEXT_SECRET})), ("open", json!({"scheme": "none"}))] {
        let body = json!({"name": name, "protocol": "webhook", "topic": "acme.in", "settings": {"verify": verify}});
        assert_eq!(relay.ask_as(&root, "POST", "/v1/sources", Some(&body)).await.0, 201);
    }
    let url = format!("{}/v1/sources/signed/webhook", relay.url);
    let answers =
        send(&[Message::new(&url, "github", TEXT_SECRET, b"{}"), Message::new(&url, "github", "another secret!!", b"{}")]).await;
    assert_eq!(answers.iter().map(|answer| &answer["status"]).collect::<Vec<_>>(), [200, 401]);
    let open = "/v1/sources/open/webhook";
    assert_eq!(relay.ask("POST", open, Some(&json!({}))).await.0, 401);
    assert_eq!(relay.ask("GET", &format!("{open}?challenge=a"), None).await.0, 401);
    let reader = token(json!(["read"]), json!(["**"])).await;
    let theirs = token(json!(["read", "publish"]), json!(["acme.**"])).await;
    let foreign = token(json!(["read", "publish"]), json!(["other.**"])).await;
    assert_eq!(slug(&relay.ask_as(&reader, "POST", open, Some(&json!({}))).await), (403, "scope"));
    assert_eq!(slug(&relay.ask_as(&foreign, "POST", open, Some(&json!({}))).await), (403, "topic_not_allowed"));
    assert_eq!(relay.ask_as(&theirs, "POST", open, Some(&json!({}))).await.0, 200);
    assert_eq!(relay.ask_as(&foreign, "GET", "/v1/sources/signed", None).await.0, 404);
    assert_eq!(relay.ask_as(&foreign, "GET", "/v1/sources", None).await.1["items"], json!([]));
    assert_eq!(relay.ask_as(&theirs, "GET", "/v1/sources", None).await.1["items"].as_array().unwrap().len(), 2);
    // Webhooks are no acts of administration.
    let acts = relay.ask_as(&root, "GET", "/v1/audit", None).await.1;
    assert!(acts["items"].as_array().unwrap().iter().all(|act| act["action"] != "webhook"), "{acts}");
}

#[tokio::test]
#[ignore = "needs python"]
async fn a_source_of_webhooks_is_sealed_and_may_be_declared() {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode((7..39).collect::<Vec<u8>>());
    let declared = format!(
        "[secrets]\nkey = \"{key}\"\n[[sources]]\nname = \"a\"\nprotocol = \"webhook\"\ntopic = \"in\"\n\
         [sources.settings.verify]\nscheme = \"slack\"\nsecret = [\"{TEXT_SECRET}\"]\ntolerance = \"10m\"\n"
    );
    let mut relay = Relay::start_with(&declared).await;
    let url = format!("{}/v1/sources/a/webhook", relay.url);
    let answers = send(&[Message::new(&url, "slack", TEXT_SECRET, b"{}").age(500)]).await;
    assert_eq!(answers[0]["status"], 200);
    relay.terminate().await;
    for entry in std::fs::read_dir(relay.path("data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(TEXT_SECRET.len()).any(|window| window == TEXT_SECRET.as_bytes()));
    }
}
