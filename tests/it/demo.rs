//! The demo as a separate process: it must lose nothing, verify everything, and leave nothing behind.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(90);

fn start(temporary: &std::path::Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hookcast"))
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", temporary)
        .env_remove("HOOKCAST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The numbers of the summary, the last line.
fn summary(output: &str) -> Vec<(String, u64)> {
    let line = output.lines().last().unwrap();
    line.split(' ').map(|part| part.split_once('=').unwrap()).map(|(name, n)| (name.to_owned(), n.parse().unwrap())).collect()
}

fn judge(output: &std::process::Output, temporary: &std::path::Path) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*complaints), (Some(0), ""), "{text}");
    let summary = summary(&text);
    let names: Vec<&str> = summary.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["events", "delivered", "verified", "retried", "lost"]);
    let numbers: Vec<u64> = summary.iter().map(|(_, number)| *number).collect();
    assert!(numbers[0] > 0 && numbers[3] > 0, "{text}");
    assert_eq!((numbers[1], numbers[2], numbers[4]), (numbers[0] * 3, numbers[0] * 3, 0), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("events=")).count(), 1);
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0, "something is left behind");
}

#[tokio::test]
async fn everything_arrives_verified_and_nothing_is_left_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let child = start(temporary.path(), &["--seconds", "3"]);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    judge(&output, temporary.path());
}

#[tokio::test]
async fn an_interrupt_ends_it_with_the_summary() {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

    let temporary = tempfile::tempdir().unwrap();
    let mut child = start(temporary.path(), &[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let talk = async {
        while !text.contains(" lag ") || text.lines().last().is_some_and(|line| line.contains("retried      0")) {
            assert_ne!(lines.read_line(&mut text).await.unwrap(), 0, "{text}");
        }
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
        lines.read_to_string(&mut text).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    judge(&std::process::Output { stdout: text.into_bytes(), ..output }, temporary.path());
}

/// `hookcast demo | head -n 1`
#[tokio::test]
async fn nothing_is_left_behind_when_nobody_reads_any_more() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    let temporary = tempfile::tempdir().unwrap();
    let mut child = start(temporary.path(), &[]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert!(line.starts_with("hookcast demo"), "{line}");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "something is left behind");
}
