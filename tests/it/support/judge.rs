//! Deliveries judged by Python libraries that are not ours (`tests/tools`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Delivery, python};

/// What is asked of a delivery: the library, and the secret or public key that the receiver has.
pub(crate) fn question(library: &str, delivery: &Delivery, secret: &str) -> Value {
    let body = base64::engine::general_purpose::STANDARD.encode(&delivery.body);
    json!({"library": library, "headers": delivery.headers, "body": body, "secret": secret})
}

/// The answers, in the order of the questions: `{"ok", …}`.
pub(crate) async fn judge(questions: &[Value]) -> Vec<Value> {
    python::ask("judge.py", questions).await
}

/// Fails unless every question is answered as wanted.
pub(crate) async fn all_judged(questions: &[(Value, bool)]) {
    let asked: Vec<Value> = questions.iter().map(|(question, _)| question.clone()).collect();
    for ((question, wanted), answer) in questions.iter().zip(judge(&asked).await) {
        assert_eq!(answer["ok"], *wanted, "{question}: {answer}");
    }
}
