//! Databases of earlier versions: opened, everything in them told as their own version told it, and deliveries go on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{Answer, Delivery, Receiver, Relay, eventually};

/// Nothing is too old for a test that runs for years; and what the databases refer to.
const CONFIGURATION: &str = "[retention]\nmax_age = \"36500d\"\ndead_letters_max_age = \"36500d\"\n[history]\nmax_age = \"36500d\"\n\
                             [limit_groups.partners]\nper_second = 50\nmax_in_flight = 4\n";

fn unpacked(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/databases/{name}.gz", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A relay on one of the databases, and what its own version said of it.
async fn opened(name: &str, more: &str) -> (Relay, Value) {
    let mut relay = Relay::start_with(&format!("{CONFIGURATION}{more}")).await;
    assert_eq!(relay.terminate().await, Some(0));
    std::fs::write(relay.path("data/hookcast.db"), unpacked(&format!("{name}.db"))).unwrap();
    relay.restart().await;
    (relay, serde_json::from_slice(&unpacked(&format!("{name}.json"))).unwrap())
}

/// What of `wanted` is not in `found` or is another there; members that came later may be there, too.
fn differences(wanted: &Value, found: &Value, at: &str, differ: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(members)) => {
            for (name, value) in wanted {
                let found = members.get(name).unwrap_or(&Value::Null);
                differences(value, found, &format!("{at}/{name}"), differ);
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                differences(wanted, found, &format!("{at}/{index}"), differ);
            }
        }
        _ if wanted == found => {}
        _ => differ.push(format!("{at}: {found} instead of {wanted}")),
    }
}

/// A list in an order that does not depend on who made it.
fn sorted(list: &Value, keys: &[&str]) -> Value {
    let mut items = list.as_array().unwrap().clone();
    items.sort_by_key(|item| keys.iter().map(|key| format!("{:>24}", item[key].to_string())).collect::<String>());
    Value::Array(items)
}

struct Opened {
    relay: Relay,
    token: String,
    differ: Vec<String>,
}

impl Opened {
    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.relay.ask_as(&self.token, "GET", path, None).await;
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, value) = self.relay.ask_as(&self.token, method, path, Some(&body)).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {value}");
        value
    }

    async fn status_becomes(&self, id: &str, wanted: Value) {
        let seen = std::cell::RefCell::new(Value::Null);
        let what = format!("{id} {wanted}");
        let waiting = eventually(&what, async || {
            let status = self.get(&format!("/v1/subscriptions/{id}/status")).await;
            let is_so = wanted.as_object().unwrap().iter().all(|(name, value)| &status[name] == value);
            seen.replace(status);
            is_so.then_some(())
        });
        let done = tokio::time::timeout(std::time::Duration::from_secs(25), waiting).await;
        done.unwrap_or_else(|_| panic!("{id}: wanted {wanted}, last {}", seen.borrow()));
    }

    fn compare(&mut self, wanted: &Value, found: &Value, at: &str) {
        differences(wanted, found, at, &mut self.differ);
    }

    async fn compare_subscription(&mut self, id: &str, wanted: &Value, gaps: &BTreeSet<String>) {
        let at = format!("/v1/subscriptions/{id}");
        let mut definition = wanted["definition"].clone();
        if id == "declared" {
            // It is declared no more, which is a change.
            for name in ["declared", "revision", "updated_at"] {
                definition.as_object_mut().unwrap().remove(name);
            }
        }
        let found = self.get(&format!("{at}?secrets=true")).await;
        self.compare(&definition, &found, &at);
        let status = self.get(&format!("{at}/status")).await;
        for name in ["state", "reason", "retrying", "dead"] {
            self.compare(&wanted["status"][name], &status[name], &format!("{at}/status/{name}"));
        }
        for (list, keys) in
            [("undelivered", &["seq"][..]), ("dead-letters", &["seq"]), ("attempts", &["at", "seq", "n"]), ("jobs", &["job"])]
        {
            let path = if list == "jobs" { format!("{at}/jobs") } else { format!("{at}/{list}?limit=1000") };
            let found = self.get(&path).await;
            let wanted = sorted(&wanted[list.replace('-', "_")], keys);
            self.compare(&wanted, &sorted(&found["items"], keys), &format!("{at}/{list}"));
        }
        for (seq, wanted) in wanted["deliveries"].as_object().unwrap() {
            let path = format!("{at}/deliveries/{seq}");
            if gaps.contains(seq) {
                // The earlier version did not know that no event ever stood there.
                let (status, _) = self.relay.ask_as(&self.token, "GET", &path, None).await;
                self.compare(&json!(404), &json!(status), &path);
            } else if wanted["reason"] == "skipped" {
                let found = self.get(&path).await;
                self.compare(&json!("skipped"), &found["state"], &path);
            } else if ["retrying", "dead", "pending", "expired"].iter().any(|state| wanted["state"] == *state) {
                // Of what was passed without a row, later versions may know more.
                let found = self.get(&path).await;
                self.compare(wanted, &found, &path);
            }
        }
    }

    /// Everything that the earlier version said; fails with all that is told otherwise now.
    async fn compare_all(&mut self, wanted: &Value) {
        let told = wanted["events"].as_array().unwrap().iter().filter(|event| event["type"] == "hookcast.gap");
        let gaps = told.map(|gap| gap["seq"].as_str().unwrap().to_owned()).collect();
        for (id, one) in wanted["subscriptions"].as_object().unwrap() {
            self.compare_subscription(id, one, &gaps).await;
        }
        for (name, one) in wanted["sources"].as_object().unwrap() {
            let mut one = one.clone();
            if name == "declared" {
                for name in ["declared", "revision", "updated_at"] {
                    one.as_object_mut().unwrap().remove(name);
                }
            }
            let found = self.get(&format!("/v1/sources/{name}")).await;
            self.compare(&one, &found, &format!("/v1/sources/{name}"));
        }
        let events = self.get("/v1/topics/**,hookcast.**/events?limit=1000").await;
        self.compare(&wanted["events"], &events["events"], "events");
        let topics = self.get("/v1/topics").await;
        self.compare(&sorted(&wanted["topics"], &["topic"]), &sorted(&topics["items"], &["topic"]), "topics");
        let acts = self.get("/v1/audit?limit=1000").await;
        let acts: BTreeMap<String, &Value> =
            acts["items"].as_array().unwrap().iter().map(|act| (act["id"].to_string(), act)).collect();
        for act in wanted["audit"].as_array().unwrap() {
            let found = acts.get(&act["id"].to_string()).copied().unwrap_or(&Value::Null);
            self.compare(act, found, &format!("audit/{}", act["id"]));
        }
        assert!(self.differ.is_empty(), "{} differences:\n{}", self.differ.len(), self.differ.join("\n"));
    }

    /// Gives a subscription another endpoint and lets it go on.
    async fn goes_on_at(&self, receiver: &Receiver, id: &str) {
        let url = format!("{}/{id}", receiver.url());
        self.must("PATCH", &format!("/v1/subscriptions/{id}"), json!({"url": url, "enabled": true})).await;
        if self.get(&format!("/v1/subscriptions/{id}")).await["state"] == "paused" {
            self.must("POST", &format!("/v1/subscriptions/{id}/resume"), json!({})).await;
        }
    }
}

/// How many requests came to the endpoint of each subscription.
fn counts(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for path in receiver.of_each(|delivery| delivery.path.clone()) {
        *counts.entry(path.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

/// Whether a batch has an id as 0.1.0 made them.
fn keeps_its_id(batch: &Delivery) {
    let place = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_str().unwrap().to_owned();
    let places: Vec<String> = batch.text().lines().map(place).collect();
    let ends = format!("_{}-{}_retrying-batch", places[0], places[places.len() - 1]);
    assert!(batch.id().ends_with(&ends) && batch.id().matches('_').count() == 3, "{}", batch.id());
}

#[tokio::test]
async fn everything_in_a_database_of_0_1_0_is_told_and_goes_on() {
    let (relay, wanted) = opened("everything", "").await;
    let token = wanted["secret_tokens"]["first"].as_str().unwrap().to_owned();
    let mut opened = Opened { relay, token, differ: Vec::new() };
    opened.compare_all(&wanted).await;

    // Retries, batches that failed, what was in flight, a job, what was paused: all of it goes, and under the same ids.
    let receiver = Receiver::with(|_, _| Answer::ok()).await;
    let waiting = ["retrying", "retrying-strict", "retrying-key", "retrying-batch", "in-flight", "skipped", "paused", "late"];
    for id in waiting {
        opened.goes_on_at(&receiver, id).await;
    }
    for id in waiting {
        opened.status_becomes(id, json!({"lag": 0, "retrying": 0, "in_flight": 0})).await;
    }
    let log = wanted["subscriptions"]["none"]["attempts"].as_array().unwrap().len();
    assert!(log > 0);
    let counted = counts(&receiver);
    for (id, requests) in [("retrying", 3), ("retrying-strict", 3), ("retrying-key", 3), ("retrying-batch", 1), ("skipped", 1)] {
        assert_eq!(counted.get(id), Some(&requests), "{id}: {counted:?}");
    }
    assert!(
        receiver
            .seen()
            .iter()
            .all(|delivery| delivery.id().starts_with("msg_") && delivery.is_signed_with(crate::support::SECRET))
    );
    let seen = receiver.seen();
    keeps_its_id(seen.iter().find(|delivery| delivery.path.ends_with("/retrying-batch")).unwrap());
    for id in ["dead", "dead-some", "dead-batch"] {
        opened.goes_on_at(&receiver, id).await;
        opened.must("POST", &format!("/v1/subscriptions/{id}/dead-letters/redrive"), json!({"all": true})).await;
        opened.status_becomes(id, json!({"dead": 0})).await;
    }

    // Each kind takes the next event.
    let takers = [
        "none",
        "strict",
        "blocks",
        "key",
        "batch-json-array",
        "batch-ndjson",
        "batch-cloudevents",
        "filter",
        "one-type",
        "template",
        "structured",
        "signed-hub",
        "signed-stripe",
        "signed-ed25519",
        "signed-twice",
        "signed-not",
        "basic",
        "limited",
        "headers",
        "declared",
        "disabled",
    ];
    for id in takers {
        opened.goes_on_at(&receiver, id).await;
    }
    let before = counts(&receiver);
    let answer = opened.must("POST", "/v1/topics/orders.eu/events", json!({"customer": "eve", "total": 50})).await;
    let seq = answer["events"][0]["seq"].as_u64().unwrap();
    assert!(seq > 3 << 32, "it goes on behind its jumps: {seq}");
    for id in takers {
        opened.status_becomes(id, json!({"lag": 0, "in_flight": 0})).await;
        assert!(counts(&receiver).get(id) > before.get(id), "{id}");
    }
    let template = receiver.seen().into_iter().rfind(|delivery| delivery.path.ends_with("/template")).unwrap();
    assert_eq!(template.text(), format!("{{\"text\": \"eve\", \"seq\": {seq}}}"));
    let headers = receiver.seen().into_iter().rfind(|delivery| delivery.path.ends_with("/headers")).unwrap();
    assert_eq!((headers.header("x-tenant"), headers.header("authorization")), ("acme", "Bearer of-the-receiver"));
}

#[tokio::test]
async fn tokens_of_0_1_0_open_what_they_opened() {
    let (relay, wanted) = opened("everything", "").await;
    let token = |name: &str| wanted["secret_tokens"][name].as_str().unwrap().to_owned();
    assert_eq!(relay.ask("GET", "/v1/subscriptions", None).await.0, 401, "it was closed for good");
    for (name, method, path, body, status) in [
        ("first", "GET", "/v1/subscriptions/none", Value::Null, 200),
        ("tenant", "GET", "/v1/subscriptions/none", Value::Null, 404),
        ("tenant", "GET", "/v1/subscriptions/of-tenant", Value::Null, 200),
        ("limited", "POST", "/v1/topics/acme.a/events", json!({}), 202),
        ("reader", "POST", "/v1/topics/acme.a/events", json!({}), 403),
        ("reader", "GET", "/v1/subscriptions/of-tenant", Value::Null, 200),
        ("by-admin", "POST", "/v1/topics/acme.a/events", json!({}), 202),
        ("by-admin", "POST", "/v1/topics/orders.eu/events", json!({}), 403),
    ] {
        let body = (!body.is_null()).then_some(&body);
        let (found, problem) = relay.ask_as(&token(name), method, path, body).await;
        assert_eq!(found, status, "{name}: {method} {path}: {problem}");
    }
    let (_, listed) = relay.ask_as(&token("first"), "GET", "/v1/tokens", None).await;
    let listed = sorted(&listed["items"], &["id"]);
    let mut kept = sorted(&wanted["tokens"], &["id"]);
    kept.as_array_mut().unwrap().retain(|one| one["declared"] == false);
    for one in kept.as_array_mut().unwrap() {
        // Makers that were no tokens are the operator.
        if ["local", "admin"].iter().any(|name| one["made_by"] == *name) {
            one.as_object_mut().unwrap().remove("made_by");
        }
    }
    let mut differ = Vec::new();
    differences(&kept, &listed, "tokens", &mut differ);
    assert!(differ.is_empty(), "{differ:?}");
}

#[tokio::test]
async fn definitions_sealed_by_0_1_0_open_with_their_keys() {
    let keys = "[secrets]\nkey = \"ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\"\n\
                previous_keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"]\n";
    let (relay, wanted) = opened("sealed", keys).await;
    let mut opened = Opened { relay, token: String::new(), differ: Vec::new() };
    opened.compare_all(&wanted).await;
    let receiver = Receiver::start().await;
    opened.goes_on_at(&receiver, "headers").await;
    opened.must("POST", "/v1/topics/orders.eu/events", json!({"customer": "eve", "total": 50})).await;
    let delivery = receiver.sees(1).await.remove(0);
    assert_eq!(delivery.header("authorization"), "Bearer of-the-receiver");
    delivery.verify();
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_with_the_version_it_needs() {
    let mut relay = Relay::start().await;
    relay.publish("t", "{}").await;
    assert_eq!(relay.terminate().await, Some(0));
    let path = relay.path("data/hookcast.db");
    let later = async |sql: &'static str| {
        let mut conn = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::query(sql).execute(&mut conn).await.unwrap();
        sqlx::Connection::close(conn).await.unwrap();
    };
    later("INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', TRUE, x'00', 1)").await;
    later("UPDATE meta SET value = '7.3.1' WHERE name = 'written_by'").await;
    let before = std::fs::read(&path).unwrap();
    for arguments in [&["serve"][..], &["restore", "--force", "data/hookcast.db"], &["rekey", "--config", "keyed.toml"]] {
        let keyed =
            "[storage]\nurl = \"sqlite://data/hookcast.db\"\n[secrets]\nkey = \"ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\"\n";
        std::fs::write(relay.path("keyed.toml"), keyed).unwrap();
        std::fs::set_permissions(relay.path("keyed.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let (code, _, said) = relay.run(arguments).await;
        assert_eq!(code, Some(78), "{arguments:?}: {said}");
        assert!(said.contains("has schema 9999") && said.contains("hookcast 7.3.1 or later is needed"), "{arguments:?}: {said}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{arguments:?}: nothing was changed");
    }
}
