//! A small file system under the database: what is left alone, what is said of it, and that it heals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{PATIENCE, eventually, says};

const MIB: u64 = 1024 * 1024;

/// A relay whose data is on a file system of its own, which nobody but it and its children see.
struct Relay {
    directory: tempfile::TempDir,
    child: Child,
    url: String,
    client: reqwest::Client,
}

impl Relay {
    async fn start(size: &str, storage: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[storage]\nurl = \"sqlite://data/hookcast.db\"\n{storage}\n[network]\nallow = [\"127.0.0.0/8\"]\n"
        );
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let log = std::fs::File::create(directory.path().join("log.txt")).unwrap();
        let script = format!("mount -t tmpfs -o size={size} tmpfs data && exec \"$0\" serve --config config.toml");
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_hookcast")])
            .current_dir(directory.path())
            .env("HOOKCAST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("an address in time").unwrap().unwrap();
        let url = line[line.find("http://").unwrap()..].trim_end_matches('/').to_owned();
        Self { directory, child, url, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url)).json(&json!({"n": 1}));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn publish(&self) -> (u16, Value) {
        self.ask("POST", "/v1/topics/t/events").await
    }

    async fn gauge(&self, name: &str) -> u64 {
        let text = self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{name}"));
        line.parse().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log.txt")).unwrap()
    }

    /// A path on its file system, as seen from outside.
    fn inside(&self, name: &str) -> PathBuf {
        let data = self.directory.path().join("data").join(name);
        PathBuf::from(format!("/proc/{}/root{}", self.child.id().unwrap(), data.display()))
    }
}

#[tokio::test]
#[ignore = "needs mount"]
async fn a_small_disk_is_used_and_its_reserve_is_said() {
    for (size, reserve) in [("40m", 16 * MIB), ("200m", 20 * MIB)] {
        let relay = Relay::start(size, "").await;
        assert_eq!(relay.ask("GET", "/readyz").await.0, 200, "{}", relay.log());
        assert_eq!(relay.publish().await.0, 202);
        assert_eq!(relay.gauge("hookcast_storage_reserve_bytes").await, reserve);
        assert!(relay.gauge("hookcast_storage_free_bytes").await > reserve);
        let log = relay.log();
        let said = log.lines().find(|line| line.contains("reserve_bytes=")).unwrap_or_else(|| panic!("{log}"));
        assert!(said.contains(&format!("reserve_bytes={reserve}")) && said.contains("free_bytes="), "{said}");
    }
}

#[tokio::test]
#[ignore = "needs mount"]
async fn a_disk_that_fills_refuses_with_both_numbers_and_heals() {
    let relay = Relay::start("64m", "").await;
    assert_eq!(relay.publish().await.0, 202);
    std::fs::write(relay.inside("filler"), vec![1; 44 * 1024 * 1024]).unwrap();
    let (status, problem) = eventually("a refusal", async || {
        let answer = relay.publish().await;
        (answer.0 != 202).then_some(answer)
    })
    .await;
    assert_eq!((status, &problem["type"]), (507, &json!("/problems/storage_full")), "{problem}");
    assert_eq!(problem["reserve_bytes"], 16 * MIB, "{problem}");
    assert!(problem["free_bytes"].as_u64().unwrap() < 16 * MIB, "{problem}");
    let (status, ready) = relay.ask("GET", "/readyz").await;
    assert_eq!((status, &ready["reserve_bytes"]), (507, &json!(16 * MIB)), "{ready}");
    says(|| relay.log(), "events are refused (507)").await;
    std::fs::remove_file(relay.inside("filler")).unwrap();
    eventually("room again", async || (relay.publish().await.0 == 202).then_some(())).await;
    says(|| relay.log(), "the disk has room again").await;
}

#[tokio::test]
#[ignore = "needs mount"]
async fn a_start_below_the_reserve_is_a_warning() {
    for (reserve, bytes) in [("\"1GiB\"", 1024 * MIB), ("\"90%\"", 36 * MIB)] {
        // Whatever is free of 40 MiB once its own files are there, 90 % of it are not.
        let relay = Relay::start("40m", &format!("reserve = {reserve}")).await;
        eventually("a refusal", async || (relay.publish().await.0 == 507).then_some(())).await;
        let log = relay.log();
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(&format!("reserve_bytes={bytes}"))), "{log}");
    }
    for reserve in ["0", "\"0\"", "\"1B\""] {
        let relay = Relay::start("40m", &format!("reserve = {reserve}")).await;
        std::fs::write(relay.inside("filler"), vec![1; 24 * 1024 * 1024]).unwrap();
        assert_eq!(relay.publish().await.0, 202, "{reserve}: {}", relay.log());
    }
}
