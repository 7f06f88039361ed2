//! A log that cannot be written, or that nobody reads, stops nothing; what is missing is counted and told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs::File;
use std::io::{PipeReader, Read as _};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::{Child, Command};

use crate::support::{Answer, PATIENCE, Receiver, eventually};

/// A relay whose streams are what a test gives it.
struct Relay {
    directory: tempfile::TempDir,
    child: Child,
    url: String,
    client: reqwest::Client,
}

impl Relay {
    /// Starts one whose standard output and standard error are `out` and `err`; shell words behind `exec` may close them.
    async fn start(out: Stdio, err: Stdio, redirections: &str) -> Self {
        Self::start_at("debug,sqlx=info,hyper=info,h2=info", out, err, redirections).await
    }

    async fn start_at(level: &str, out: Stdio, err: Stdio, redirections: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\n[storage]\nurl = \"sqlite://hookcast.db\"\n[network]\nallow = [\"127.0.0.0/8\"]\n"
        );
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec \"$0\" serve --config config.toml {redirections}"), env!("CARGO_BIN_EXE_hookcast")])
            .current_dir(directory.path())
            .env_clear()
            .env("HOOKCAST_LOG", level)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        let mut relay = Self { directory, child: command.spawn().unwrap(), url: format!("http://127.0.0.1:{port}"), client };
        let health = relay.client.get(format!("{}/healthz", relay.url));
        tokio::select! {
            () = eventually("its health", async || health.try_clone().unwrap().send().await.ok().map(|_| ())) => {}
            status = relay.child.wait() => panic!("it ended at its start: {status:?}"),
        }
        relay
    }

    async fn ask(&self, method: &str, path: &str, body: serde_json::Value) -> u16 {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url)).json(&body);
        request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}")).status().as_u16()
    }

    async fn lines_left_out(&self) -> u64 {
        let text = self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("hookcast_log_lines_left_out_total "));
        line.map_or(0, |number| number.parse().unwrap())
    }

    /// Changes, each of which is a line of the log, publishes, deliveries, health; then a stop while a request is under way.
    async fn does_all_it_should(mut self, receiver: &Receiver) -> Self {
        let body = json!({"id": "a", "url": receiver.url(), "topics": ["t"], "description": "x".repeat(200)});
        assert_eq!(self.ask("POST", "/v1/subscriptions", body).await, 201);
        for n in 0..2_500 {
            let path = if n % 2 == 0 { "/v1/subscriptions/a/pause" } else { "/v1/subscriptions/a/resume" };
            assert_eq!(self.ask("POST", path, json!({})).await, 200, "change {n}");
        }
        for _ in 0..20 {
            assert_eq!(self.ask("GET", "/healthz", json!({})).await, 200);
            assert_eq!(self.ask("POST", "/v1/topics/t/events", json!({"n": 1})).await, 202);
        }
        receiver.sees(20).await;
        receiver.change(|_, _| Answer::ok().when_released());
        assert_eq!(self.ask("POST", "/v1/topics/t/events", json!({"n": 2})).await, 202);
        eventually("an open request", async || (receiver.open() == 1).then_some(())).await;
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        eventually("intake shut", async || self.client.get(format!("{}/healthz", self.url)).send().await.is_err().then_some(()))
            .await;
        receiver.release(1);
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("an end in time").unwrap();
        assert_eq!(status.code(), Some(0), "it drains and ends as ever");
        self
    }
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[tokio::test]
async fn a_full_disk_under_the_log_stops_nothing() {
    let receiver = Receiver::start().await;
    let relay = Relay::start(full(), full(), "").await;
    assert_eq!(relay.ask("PUT", "/v1/subscriptions/b", json!({"url": receiver.url(), "topics": ["b"]})).await, 201);
    eventually("lines that are counted", async || (relay.lines_left_out().await > 0).then_some(())).await;
    relay.does_all_it_should(&receiver).await;
}

#[tokio::test]
async fn a_reader_of_the_log_that_is_gone_stops_nothing() {
    let receiver = Receiver::start().await;
    let (reader, writer) = std::io::pipe().unwrap();
    let relay = Relay::start(writer.try_clone().unwrap().into(), writer.into(), "").await;
    drop(reader);
    relay.does_all_it_should(&receiver).await;
}

#[tokio::test]
async fn closed_streams_stop_nothing() {
    let receiver = Receiver::start().await;
    Relay::start(Stdio::null(), Stdio::null(), ">&- 2>&-").await.does_all_it_should(&receiver).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let receiver = Receiver::start().await;
    let (reader, writer) = std::io::pipe().unwrap();
    let relay = Relay::start(writer.try_clone().unwrap().into(), writer.into(), "").await;
    relay.does_all_it_should(&receiver).await;
    drop(reader);
}

/// Reads until `wanted` was read.
fn read_until(reader: &mut PipeReader, wanted: &str) -> String {
    let (mut text, mut some) = (Vec::new(), vec![0; 65536]);
    while !String::from_utf8_lossy(&text).contains(wanted) {
        let read = reader.read(&mut some).unwrap();
        assert!(read > 0, "the log ended without {wanted:?}");
        text.extend_from_slice(&some[..read]);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_log_that_is_read_again_says_how_much_is_missing() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let relay = Relay::start_at("trace", Stdio::null(), writer.into(), "").await;
    let body = json!({"id": "a", "url": "https://example.com/x", "topics": ["t"]});
    assert_eq!(relay.ask("POST", "/v1/subscriptions", body).await, 201);
    eventually("lines that are left out", async || {
        for action in ["pause", "resume"].into_iter().cycle().take(50) {
            assert_eq!(relay.ask("POST", &format!("/v1/subscriptions/a/{action}"), json!({})).await, 200);
        }
        (relay.lines_left_out().await > 10).then_some(())
    })
    .await;
    let reading = tokio::task::spawn_blocking(move || (read_until(&mut reader, "lines are missing here"), reader));
    let (text, mut reader) = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    let is_whole = |line: &str| line.is_empty() || line.starts_with("20");
    assert!(text.lines().all(is_whole), "whole lines: {:?}", text.lines().find(|line| !is_whole(line)));
    assert_eq!(relay.ask("POST", "/v1/subscriptions/a/pause", json!({})).await, 200);
    let reading = tokio::task::spawn_blocking(move || read_until(&mut reader, "pause"));
    tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert!(relay.directory.path().join("hookcast.db").exists());
}

#[tokio::test]
async fn other_commands_do_not_panic_without_a_place_for_their_words() {
    for arguments in [&["check", "--config", "none.toml"][..], &["subs", "list", "--url", "http://127.0.0.1:1"], &["nonsense"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookcast"));
        command.args(arguments).env_clear().stdin(Stdio::null()).stdout(full()).stderr(full()).kill_on_drop(true);
        let status = tokio::time::timeout(PATIENCE, command.status()).await.expect("an end in time").unwrap();
        assert!(status.code().is_some_and(|code| code != 0 && code != 101), "{arguments:?}: {status}");
    }
}
