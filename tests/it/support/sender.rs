//! Webhooks sent and signed by Python libraries that are not ours (`tests/tools/send.py`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::PATIENCE;

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// One message to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Message(Value);

impl Message {
    pub(crate) fn new(url: &str, sender: &str, secret: &str, body: &[u8]) -> Self {
        Self(json!({"url": url, "sender": sender, "secret": secret, "body": base64(body)}))
    }

    pub(crate) fn headers(mut self, headers: Value) -> Self {
        self.0["headers"] = headers;
        self
    }

    /// Signed so many seconds ago.
    pub(crate) fn age(mut self, seconds: i64) -> Self {
        self.0["age"] = seconds.into();
        self
    }

    /// Another body than the one that is signed.
    pub(crate) fn sending(mut self, body: &[u8]) -> Self {
        self.0["sent"] = base64(body).into();
        self
    }
}

/// Sends them, one behind the other: `{"status","headers","body"}` each.
pub(crate) async fn send(messages: &[Message]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/tools/py/bin/python");
    assert!(python.exists(), "the libraries that send webhooks are not installed: run `make tools` first");
    let mut child = Command::new(python)
        .arg(root.join("tests/tools/send.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let messages: Vec<&Value> = messages.iter().map(|message| &message.0).collect();
    stdin.write_all(&serde_json::to_vec(&messages).unwrap()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("answers in time").unwrap();
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), messages.len());
    answers
}

/// `Stripe-Signature` by its definition.
pub(crate) fn stripe_signature(secret: &str, at: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={digits}")
}
