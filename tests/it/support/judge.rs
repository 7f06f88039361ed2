//! Deliveries judged by Python libraries that are not ours (`tests/tools`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Delivery, PATIENCE};

/// What is asked of a delivery: the library, and the secret or public key that the receiver has.
pub(crate) fn question(library: &str, delivery: &Delivery, secret: &str) -> Value {
    let body = base64::engine::general_purpose::STANDARD.encode(&delivery.body);
    json!({"library": library, "headers": delivery.headers, "body": body, "secret": secret})
}

/// The answers, in the order of the questions: `{"ok", …}`.
pub(crate) async fn judge(questions: &[Value]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/tools/py/bin/python");
    assert!(python.exists(), "the libraries that judge deliveries are not installed: run `make tools` first");
    let mut child = Command::new(python)
        .arg(root.join("tests/tools/judge.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(questions).unwrap()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("a judgement in time").unwrap();
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), questions.len());
    answers
}

/// Fails unless every question is answered as wanted.
pub(crate) async fn all_judged(questions: &[(Value, bool)]) {
    let asked: Vec<Value> = questions.iter().map(|(question, _)| question.clone()).collect();
    for ((question, wanted), answer) in questions.iter().zip(judge(&asked).await) {
        assert_eq!(answer["ok"], *wanted, "{question}: {answer}");
    }
}
