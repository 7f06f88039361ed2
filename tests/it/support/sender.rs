//! Webhooks sent and signed by Python libraries that are not ours (`tests/tools/send.py`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::python;

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
    let messages: Vec<&Value> = messages.iter().map(|message| &message.0).collect();
    python::ask("send.py", &messages).await
}

/// `Stripe-Signature` by its definition.
pub(crate) fn stripe_signature(secret: &str, at: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={digits}")
}
