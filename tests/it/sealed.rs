//! Definitions sealed in the database: nothing on the disk shows a secret, and keys can be changed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::{Receiver, Relay, SECRET};

/// A header value and a password, as bytes that are looked for in every file.
const HEADER: &str = "Bearer s3cret-header-value-of-the-tests";
const PASSWORD: &str = "s3cret-password-of-the-tests";

fn key(n: u8) -> String {
    STANDARD.encode((n..n + 32).collect::<Vec<_>>())
}

fn with_key(n: u8) -> String {
    format!("[secrets]\nkey = \"{}\"\n", key(n))
}

/// Everything that must not be found: the texts, the key bytes, and both as base64.
fn needles() -> Vec<Vec<u8>> {
    let raw = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let texts = [HEADER.as_bytes(), PASSWORD.as_bytes(), SECRET.strip_prefix("whsec_").unwrap().as_bytes(), &raw];
    let mut needles: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
    needles.extend(texts.iter().map(|text| STANDARD.encode(text).trim_end_matches('=').as_bytes().to_vec()));
    needles.extend((1..3).map(|n| key(n).into_bytes()));
    needles.extend((1..3).map(|n| STANDARD.decode(key(n)).unwrap()));
    needles
}

/// Every file of the relay but its configuration, and how often a needle is in it.
fn found(relay: &Relay) -> Vec<String> {
    let mut found = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(relay.path("data")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.extend(std::fs::read_dir(relay.path(".")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    for path in files.iter().filter(|path| !path.ends_with("config.toml")) {
        let bytes = std::fs::read(path).unwrap();
        for needle in needles() {
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(format!("{}: {:?}", path.display(), String::from_utf8_lossy(&needle)));
            }
        }
    }
    found
}

async fn fill(relay: &Relay, receiver: &Receiver) {
    let more = json!({"headers": {"Authorization": HEADER}});
    relay.subscribe("a", receiver.url(), "t", more).await;
    let auth = json!({"basic": {"username": "u", "password": PASSWORD}});
    relay.subscribe("b", "https://example.com/", "other", json!({"auth": auth})).await;
    let source = json!({"name": "up", "protocol": "sse", "topic": "feed", "url": "https://up.example.com/", "enabled": false,
        "headers": {"Authorization": HEADER}});
    relay.must("POST", "/v1/sources", source).await;
    // Old copies of records must not stay behind either.
    for n in 0..20 {
        relay.must("PATCH", "/v1/subscriptions/a", json!({"description": format!("{n} {}", "x".repeat(10 * n))})).await;
        relay.must("PATCH", "/v1/sources/up", json!({"settings": {"idle_timeout": format!("{}s", 10 + n)}})).await;
    }
}

async fn delivers(relay: &Relay, receiver: &Receiver) {
    let before = receiver.seen().len();
    let seq = relay.publish("t", "{}").await;
    relay.delivery_becomes("a", seq, "delivered").await;
    let seen = receiver.seen();
    let last = &seen[before];
    assert_eq!(last.header("authorization"), HEADER);
    last.verify();
}

#[tokio::test]
async fn no_file_shows_a_secret() {
    let receiver = Receiver::start().await;
    let mut relay = Relay::start_with(&with_key(1)).await;
    fill(&relay, &receiver).await;
    delivers(&relay, &receiver).await;
    let metrics = relay.client.get(format!("{}/metrics", relay.url)).send().await.unwrap().text().await.unwrap();
    assert!(!metrics.contains("s3cret"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", relay.pid())).unwrap();
    let core: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4], "0", "no core file of a process that holds secrets");
    relay.kill9().await;
    assert_eq!(found(&relay), [""; 0], "database, WAL and log of a killed relay");
    relay.restart().await;
    delivers(&relay, &receiver).await;
    assert_eq!(relay.terminate().await, Some(0));
    assert_eq!(found(&relay), [""; 0]);
}

#[tokio::test]
async fn what_was_stored_in_the_clear_is_sealed_without_a_trace() {
    let receiver = Receiver::start().await;
    let mut relay = Relay::start().await;
    fill(&relay, &receiver).await;
    assert_eq!(relay.terminate().await, Some(0));
    assert!(relay.log().contains("stored in the clear"), "it is said at the start");
    assert!(!found(&relay).is_empty(), "else what follows would mean nothing");
    relay.configure(&with_key(1));
    relay.restart().await;
    delivers(&relay, &receiver).await;
    relay.kill9().await;
    assert_eq!(found(&relay), [""; 0]);
}

#[tokio::test]
async fn another_key_or_none_stops_the_start_and_changes_nothing() {
    let receiver = Receiver::start().await;
    let mut relay = Relay::start_with(&with_key(1)).await;
    fill(&relay, &receiver).await;
    assert_eq!(relay.terminate().await, Some(0));
    let before = std::fs::read(relay.path("data/hookcast.db")).unwrap();
    let id = hookcast_log::seal::MasterKey::parse(&key(1)).unwrap().id().to_owned();
    for config in [with_key(2), String::new()] {
        relay.configure(&config);
        assert_eq!(relay.second_process().await, Some(78));
        assert!(relay.log().contains("master_key_mismatch") && relay.log().contains(&id));
        assert!(std::fs::read(relay.path("data/hookcast.db")).unwrap() == before, "no byte was changed");
    }
}

#[tokio::test]
async fn keys_are_changed_one_after_the_other() {
    let receiver = Receiver::start().await;
    let mut relay = Relay::start_with(&with_key(1)).await;
    fill(&relay, &receiver).await;
    relay.configure(&format!("{}previous_keys = [\"{}\"]\n", with_key(2), key(1)));
    let (code, _, problem) = relay.run(&["rekey"]).await;
    assert_eq!(code, Some(75), "not while it runs: {problem}");
    relay.terminate().await;
    relay.restart().await;
    delivers(&relay, &receiver).await;
    relay.must("PATCH", "/v1/subscriptions/b", json!({"description": "sealed anew"})).await;
    relay.terminate().await;
    let (code, said, problem) = relay.run(&["rekey"]).await;
    assert_eq!((code, said.starts_with("2 definitions")), (Some(0), true), "{said} {problem}");
    relay.configure(&with_key(2));
    relay.restart().await;
    delivers(&relay, &receiver).await;
    assert_eq!(found(&relay), [""; 0]);
}

#[tokio::test]
async fn a_key_is_judged_before_anything_is_opened() {
    let relay = Relay::start().await;
    let file = relay.path("master.key");
    std::fs::write(&file, format!("{}\n", key(1))).unwrap();
    let name = file.display();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (config, slug) in [
        (format!("[secrets]\nkey = \"{}\"\n", STANDARD.encode([7; 31])), "[master_key]"),
        ("[secrets]\nkey = \"not base64\"\n".to_owned(), "[master_key]"),
        (format!("[secrets]\nkey_file = \"{name}\"\n"), "[secret_permissions]"),
        (format!("[secrets]\nkey_file = \"{name}.gone\"\n"), "[master_key]"),
        (format!("[secrets]\nkey = \"{}\"\nkey_file = \"{name}\"\n", key(1)), "[conflict]"),
        (format!("[secrets]\nprevious_keys = [\"{}\"]\n", key(1)), "[master_key]"),
    ] {
        relay.configure(&config);
        let (code, _, problem) = relay.run(&["check"]).await;
        assert!(code == Some(78) && problem.contains(slug) && !problem.contains(&key(1)), "{config}: {code:?} {problem}");
    }
    relay.configure(&format!("[secrets]\nkey_file = \"{name}\"\nany_permissions = true\n"));
    assert_eq!(relay.run(&["check"]).await.0, Some(0));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    relay.configure(&format!("[secrets]\nkey_file = \"{name}\"\n"));
    let (code, _, said) = relay.run(&["check"]).await;
    assert!(code == Some(0) && !said.contains("in the clear"), "{said}");
    // In the file and in the environment.
    relay.configure(&with_key(1));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hookcast"));
    command.arg("check").current_dir(relay.path(".")).env_clear().env("HOOKCAST__SECRETS__KEY", key(2));
    let output = command.output().unwrap();
    let problem = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(78) && problem.contains("[conflict]") && !problem.contains(&key(2)), "{problem}");
}
