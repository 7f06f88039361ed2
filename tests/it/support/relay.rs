//! The program as a process of its own, in a directory that outlives its restarts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{PATIENCE, SECRET, eventually, says};

/// A running relay; killed when dropped.
pub(crate) struct Relay {
    directory: tempfile::TempDir,
    child: Option<Child>,
    /// More keys of `[server]`.
    server: String,
    tcp: String,
    /// Whether it bears to have its files held from growing.
    is_holdable: bool,
    /// Where it listens, without a slash at the end.
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
}

impl Relay {
    /// Starts one with the defaults of the tests.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts one with more configuration: sections other than `server`, `storage` and `network`.
    pub(crate) async fn start_with(more: &str) -> Self {
        Self::start_served("", more).await
    }

    /// Starts one with more keys of `[server]`, and more sections.
    pub(crate) async fn start_served(server: &str, more: &str) -> Self {
        Self::start_configured(server, &format!("[network]\nallow = [\"127.0.0.0/8\"]\n{more}")).await
    }

    /// Starts one that may dial no more than anybody's.
    pub(crate) async fn start_strict() -> Self {
        Self::start_configured("", "").await
    }

    /// Starts one whose files can be held from growing.
    #[cfg(target_os = "linux")]
    pub(crate) async fn start_holdable() -> Self {
        let mut relay = Self::prepare("");
        relay.is_holdable = true;
        relay.configure("");
        relay.restart().await;
        relay
    }

    /// Lets it write to no file at `bytes` or behind, as a disk that fails does; `None` = everywhere.
    #[cfg(target_os = "linux")]
    pub(crate) fn hold(&self, bytes: Option<u64>) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        let limit = rustix::process::Rlimit { current: bytes, maximum: None };
        assert!(self.is_holdable);
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
    }

    async fn start_configured(server: &str, sections: &str) -> Self {
        let mut relay = Self::prepare(server);
        relay.write_config(sections);
        relay.restart().await;
        relay
    }

    fn prepare(server: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (tcp, url) = (String::new(), String::new());
        Self { directory, child: None, server: server.to_owned(), tcp, is_holdable: false, url, client }
    }

    /// Writes another configuration for the next start.
    pub(crate) fn configure(&self, more: &str) {
        self.write_config(&format!("[network]\nallow = [\"127.0.0.0/8\"]\n{more}"));
    }

    fn write_config(&self, sections: &str) {
        let server = format!("[server]\nlisten = \"127.0.0.1:0\"\n{}\n", self.server);
        let storage = "[storage]\nurl = \"sqlite://data/hookcast.db\"\n";
        std::fs::write(self.directory.path().join("config.toml"), format!("{server}{storage}{sections}")).unwrap();
    }

    /// Starts the process again on the same data.
    pub(crate) async fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut child = self.command().spawn().unwrap();
        if let Some(mut log) = child.stderr.take() {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log.txt")).unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::fs::File::from_std(file)).await });
        }
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("an address in time").unwrap();
        let line = line.unwrap_or_else(|| panic!("no address; its log: {}", self.log()));
        line[line.find("http://").unwrap()..].trim_end_matches('/').clone_into(&mut self.url);
        if self.server.contains("tcp_listen") {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("an address in time").unwrap().unwrap();
            line.rsplit_once("tcp://").unwrap().1.clone_into(&mut self.tcp);
        }
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        if !self.is_holdable {
            return command(self.directory.path());
        }
        let mut command = Command::new("sh");
        // A write that goes too far is an error then and no signal. Its log must not be a file, which would be held as well.
        command.args(["-c", "trap '' 25; exec \"$0\" serve --config config.toml", env!("CARGO_BIN_EXE_hookcast")]);
        command.current_dir(self.directory.path()).env_clear().env("HOOKCAST_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Where it listens without HTTP: address and port.
    pub(crate) fn tcp(&self) -> &str {
        &self.tcp
    }

    /// Another command in its directory: exit code, standard output, standard error.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookcast"));
        command.args(arguments).current_dir(self.directory.path()).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// A request with a token; `Null` for an answer without a body.
    pub(crate) async fn ask_as(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Another process on the same data: its exit code.
    pub(crate) async fn second_process(&self) -> Option<i32> {
        let mut child = command(self.directory.path()).spawn().unwrap();
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("an end in time").unwrap().code()
    }

    /// Ends it as a power switch would.
    pub(crate) async fn kill9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().await.unwrap();
    }

    /// Sends it a signal: `TERM`, `INT`.
    pub(crate) async fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().await.unwrap();
        assert!(done.success());
    }

    /// Waits for its end; the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let status = tokio::time::timeout(PATIENCE + Duration::from_secs(10), child.wait()).await;
        status.expect("an end in time").unwrap().code()
    }

    /// Asks it to stop; the exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM").await;
        self.ended().await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Everything it wrote to standard error so far, over all restarts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }

    /// Waits until the log says so.
    pub(crate) async fn log_says(&self, text: &str) {
        says(|| self.log(), text).await;
    }

    /// A request; `Null` for an answer without a body.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// What a GET shows.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask("GET", path, None).await;
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    /// A request that must succeed.
    pub(crate) async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, value) = self.ask(method, path, Some(&body)).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {value}");
        value
    }

    /// Makes a subscription to everything under `topics` with the tests' secret, then the fields of `more`.
    pub(crate) async fn subscribe(&self, id: &str, url: &str, topics: &str, more: Value) -> Value {
        let mut body = json!({"id": id, "url": url, "topics": [topics],
            "signature": {"scheme": "standard", "secret": SECRET}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.must("POST", "/v1/subscriptions", body).await
    }

    /// Publishes one JSON event; its seq.
    pub(crate) async fn publish(&self, topic: &str, data: impl Into<String>) -> u64 {
        let url = format!("{}/v1/topics/{topic}/events", self.url);
        let request = self.client.post(url).header("content-type", "application/json").body(data.into());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        let answer: Value = response.json().await.unwrap();
        answer["events"][0]["seq"].as_u64().unwrap()
    }

    /// Publishes `{"n":from}` … `{"n":to - 1}` in batches; the seqs.
    pub(crate) async fn publish_numbers(&self, topic: &str, numbers: std::ops::Range<u64>) -> Vec<u64> {
        let mut seqs = Vec::new();
        let numbers: Vec<u64> = numbers.collect();
        for batch in numbers.chunks(1000) {
            let body: String = batch.iter().map(|n| format!("{{\"n\":{n}}}\n")).collect();
            let url = format!("{}/v1/topics/{topic}/events", self.url);
            let response = self.client.post(url).header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
            assert_eq!(response.status(), 202);
            let answer: Value = response.json().await.unwrap();
            seqs.extend(answer["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()));
        }
        seqs
    }

    /// Publishes these lines, each an event, in batches.
    pub(crate) async fn publish_lines(&self, topic: &str, lines: &[String]) {
        for batch in lines.chunks(500) {
            let url = format!("{}/v1/topics/{topic}/events", self.url);
            let request = self.client.post(url).header("content-type", "application/x-ndjson").body(batch.join("\n"));
            assert_eq!(request.send().await.unwrap().status(), 202);
        }
    }

    /// Waits until so many streams and long polls are open.
    pub(crate) async fn wait_for_streams(&self, count: u64) {
        let open = format!("hookcast_streams_open {count}");
        eventually("as many streams as wanted", async || {
            let text = self.client.get(format!("{}/metrics", self.url)).send().await.ok()?.text().await.ok()?;
            text.lines().any(|line| line == open).then_some(())
        })
        .await;
    }

    /// Sees to it that everything which the lane of a subscription has decided by now is saved.
    pub(crate) async fn saved(&self, id: &str) {
        // To count what is lost, the relay first saves what it knows.
        let count = json!({"from": {"seq": 1}, "to": {"seq": 1}, "only": "failed", "dry_run": true});
        self.must("POST", &format!("/v1/subscriptions/{id}/replay"), count).await;
    }

    pub(crate) async fn status(&self, id: &str) -> Value {
        self.get(&format!("/v1/subscriptions/{id}/status")).await
    }

    /// Waits until the status of a subscription has these members.
    pub(crate) async fn status_becomes(&self, id: &str, wanted: Value) -> Value {
        let last = RefCell::new(Value::Null);
        let waiting = eventually("the wanted status", async || {
            let status = self.status(id).await;
            last.replace(status.clone());
            wanted.as_object().unwrap().iter().all(|(name, value)| &status[name] == value).then_some(status)
        });
        // Before the wait itself gives up, which could not say what it saw.
        let seen = tokio::time::timeout(PATIENCE / 30 * 29, waiting).await;
        seen.unwrap_or_else(|_| panic!("{id}: wanted {wanted}, last {}", last.borrow()))
    }

    /// Where one delivery stands.
    pub(crate) async fn delivery(&self, id: &str, seq: u64) -> Value {
        self.get(&format!("/v1/subscriptions/{id}/deliveries/{seq}")).await
    }

    /// Waits until one delivery is in this state.
    pub(crate) async fn delivery_becomes(&self, id: &str, seq: u64, state: &str) -> Value {
        eventually(&format!("delivery {seq} of {id} {state}"), async || {
            let view = self.delivery(id, seq).await;
            (view["state"] == state).then_some(view)
        })
        .await
    }
}

fn command(directory: &Path) -> Command {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("log.txt")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookcast"));
    command
        .args(["serve", "--config", "config.toml"])
        .current_dir(directory)
        .env_clear()
        .env("HOOKCAST_LOG", "debug,sqlx=info,hyper=info,h2=info")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    command
}
