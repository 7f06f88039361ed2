//! Python programs of `tests/tools`, with libraries that are not ours: asked with a JSON list, answering with one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::process::Stdio;

use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::PATIENCE;

/// The answers of `tests/tools/{program}`, in the order of the questions.
pub(crate) async fn ask(program: &str, questions: &[impl Serialize]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/tools/py/bin/python");
    assert!(python.exists(), "the Python libraries that tests ask are not installed: run `make tools` first");
    let mut child = Command::new(python)
        .arg(root.join("tests/tools").join(program))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(questions).unwrap()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("answers in time").unwrap();
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), questions.len());
    answers
}
