//! Upstreams that are not ours: Python's own server with recorded earthquakes, and nchan.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{data, shown, shows, source, stored, stores};
use crate::support::{PATIENCE, Relay, eventually, for_a_while};

/// How many earthquakes the recording has.
const QUAKES: u64 = 100;
const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn quakes() -> PathBuf {
    root().join("tests/data/polls/quakes.ndjson")
}

/// The recorded earthquakes, oldest first.
fn recorded() -> Vec<Value> {
    let text = std::fs::read_to_string(quakes()).unwrap();
    text.lines().rev().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `tests/tools/polled.py`; ends when dropped.
struct Polled {
    _child: Child,
    url: String,
    client: reqwest::Client,
}

impl Polled {
    async fn start() -> Self {
        let mut child = Command::new("python3")
            .arg(root().join("tests/tools/polled.py"))
            .arg(quakes())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { _child: child, url: format!("http://127.0.0.1:{port}"), client }
    }

    async fn release(&self, count: u64) {
        let answer = self.client.post(format!("{}/release?n={count}", self.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// How often `path` was answered with `status`.
    async fn seen(&self, path: &str, status: &str) -> u64 {
        let seen: Value = self.client.get(format!("{}/seen", self.url)).send().await.unwrap().json().await.unwrap();
        seen[path][status].as_u64().unwrap_or(0)
    }

    async fn sees(&self, path: &str, status: &str, times: u64) {
        eventually("answers", async || (self.seen(path, status).await >= times).then_some(())).await;
    }
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_long_poll_loses_and_repeats_nothing_over_kills() {
    let mut relay = Relay::start().await;
    let polled = Polled::start().await;
    let settings = json!({"items": "/events", "cursor": "/next", "cursor_param": "after", "min_interval": "100ms"});
    source(&relay, "long-poll", &format!("{}/long?wait=1", polled.url), settings).await;
    for part in 1..=4 {
        polled.release(QUAKES / 4).await;
        if part < 4 {
            // Somewhere in the middle of it.
            eventually("some of it", async || (stored(&relay, "up.events").await > (part - 1) * QUAKES / 4).then_some(())).await;
        }
        relay.kill9().await;
        relay.restart().await;
    }
    stores_exactly(&relay, QUAKES).await;
    assert_eq!(data(&relay).await, recorded());
    assert_eq!(shown(&relay).await["resume_token"], QUAKES.to_string());
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_position_without_events_outlives_a_restart() {
    let mut relay = Relay::start().await;
    let polled = Polled::start().await;
    let settings = json!({"items": "/none", "cursor": "/next", "cursor_param": "after", "min_interval": "100ms"});
    polled.release(3).await;
    source(&relay, "long-poll", &format!("{}/long?wait=1", polled.url), settings).await;
    shows(&relay, "a position", |shown| shown["resume_token"] == "3").await;
    eventually("its storing", async || (polled.seen("/long", "200").await >= 2).then_some(())).await;
    relay.kill9().await;
    relay.restart().await;
    assert_eq!(shown(&relay).await["resume_token"], "3");
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_polled_list_gives_what_is_new_and_costs_nothing_while_it_stays() {
    let mut relay = Relay::start().await;
    let polled = Polled::start().await;
    polled.release(30).await;
    let settings = json!({"items": "/features", "id": "/id", "order": "newest_first", "interval": "1s"});
    source(&relay, "poll", &format!("{}/list.json", polled.url), settings).await;
    stores_exactly(&relay, 30).await;
    polled.sees("/list.json", "304", 1).await;
    relay.kill9().await;
    polled.release(30).await;
    relay.restart().await;
    stores_exactly(&relay, 60).await;
    relay.kill9().await;
    relay.restart().await;
    let (full, unchanged) = (polled.seen("/list.json", "200").await, polled.seen("/list.json", "304").await);
    polled.sees("/list.json", "304", unchanged + 1).await;
    assert_eq!(polled.seen("/list.json", "200").await, full, "the validator outlived the restart");
    polled.release(QUAKES).await;
    stores_exactly(&relay, QUAKES).await;
    assert_eq!(data(&relay).await, recorded());
}

#[tokio::test]
#[ignore = "needs python3"]
async fn lists_without_ids_are_told_apart_by_content_inside_and_outside_of_the_window() {
    // A window of repeats that holds a single id: what was there the last time is remembered by the source itself.
    let mut relay = Relay::start_with("[dedupe]\nmax_ids = 1\n").await;
    let polled = Polled::start().await;
    polled.release(50).await;
    let settings = json!({"items": "/features", "order": "newest_first", "interval": "1s"});
    source(&relay, "poll", &format!("{}/list.json", polled.url), settings).await;
    stores_exactly(&relay, 50).await;
    polled.release(10).await;
    stores_exactly(&relay, 60).await;
    relay.terminate().await;
    polled.release(QUAKES).await;
    relay.restart().await;
    stores_exactly(&relay, QUAKES).await;
    assert_eq!(data(&relay).await, recorded());
}

#[tokio::test]
#[ignore = "needs python3"]
async fn feeds_become_json_oldest_first() {
    for path in ["/feed.atom", "/feed.rss"] {
        let relay = Relay::start().await;
        let polled = Polled::start().await;
        polled.release(20).await;
        source(&relay, "poll", &format!("{}{path}", polled.url), json!({"interval": "1s"})).await;
        stores_exactly(&relay, 20).await;
        polled.release(QUAKES).await;
        stores_exactly(&relay, QUAKES).await;
        let found = data(&relay).await;
        for (item, quake) in found.iter().zip(recorded()) {
            let id = quake["id"].as_str().unwrap();
            assert!(item["id"].as_str().unwrap().ends_with(id), "{item}");
            assert_eq!((&item["title"], &item["link"]), (&quake["properties"]["title"], &quake["properties"]["url"]), "{path}");
            assert!(item["published"].is_string() || item["updated"].is_string());
        }
        let (_, event) = relay.ask("GET", "/v1/events/1", None).await;
        assert_eq!(event["id"], found[0]["id"], "an entry's id is the event's");
    }
}

#[tokio::test]
#[ignore = "needs python3"]
async fn pages_are_followed_by_their_links() {
    let mut relay = Relay::start().await;
    let polled = Polled::start().await;
    polled.release(35).await;
    let settings = json!({"next": "link", "id": "/id", "min_interval": "100ms"});
    source(&relay, "long-poll", &format!("{}/pages", polled.url), settings).await;
    stores_exactly(&relay, 35).await;
    relay.kill9().await;
    polled.release(QUAKES).await;
    relay.restart().await;
    stores_exactly(&relay, QUAKES).await;
    assert_eq!(data(&relay).await, recorded());
    assert!(shown(&relay).await["resume_token"].as_str().unwrap().ends_with("/pages?page=10"));
}

/// nginx with the nchan module: a publisher at `/pub`, a long-polling subscriber at `/sub`.
struct Nchan {
    _directory: tempfile::TempDir,
    _child: Child,
    url: String,
    client: reqwest::Client,
}

impl Nchan {
    async fn start() -> Self {
        assert!(Path::new(NCHAN).exists(), "nginx with nchan is not installed: run `make tools` first");
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = directory.path().display();
        let config = format!(
            "load_module {NCHAN};\ndaemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 64; }}\nhttp {{\n access_log off;\n client_body_temp_path {at}/body;\n proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/fastcgi;\n uwsgi_temp_path {at}/uwsgi;\n scgi_temp_path {at}/scgi;\n\
             server {{\n listen 127.0.0.1:{port};\n location /pub {{ nchan_publisher; nchan_channel_id test; nchan_message_buffer_length 1000; }}\n\
             location /sub {{ nchan_subscriber longpoll; nchan_channel_id test; nchan_subscriber_timeout 2; }}\n }}\n}}\n"
        );
        std::fs::write(directory.path().join("nginx.conf"), config).unwrap();
        let child = Command::new("nginx")
            .args(["-p", &at.to_string(), "-c", "nginx.conf"])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        eventually("nginx", async || client.get(format!("{url}/")).send().await.ok().map(drop)).await;
        Self { _directory: directory, _child: child, url, client }
    }

    async fn publish(&self, text: String) {
        let answer = self.client.post(format!("{}/pub", self.url)).body(text).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

#[tokio::test]
#[ignore = "needs nchan"]
async fn nchan_is_followed_by_the_headers_it_gives() {
    let mut relay = Relay::start().await;
    let nchan = Nchan::start().await;
    let numbers = |range: std::ops::Range<u64>| range.map(|n| json!({"n": n}).to_string());
    for text in numbers(0..20) {
        nchan.publish(text).await;
    }
    source(&relay, "long-poll", &format!("{}/sub", nchan.url), json!({"position": "headers"})).await;
    stores_exactly(&relay, 20).await;
    for text in numbers(20..40) {
        nchan.publish(text).await;
    }
    stores_exactly(&relay, 40).await;
    // Silence longer than the server holds a request.
    for_a_while(Duration::from_millis(2500)).await;
    relay.kill9().await;
    for text in numbers(40..60) {
        nchan.publish(text).await;
    }
    relay.restart().await;
    stores_exactly(&relay, 60).await;
    assert_eq!(data(&relay).await, (0..60).map(|n| json!({"n": n})).collect::<Vec<_>>());
    let token = shown(&relay).await["resume_token"].as_str().unwrap().to_owned();
    assert!(token.contains("\"etag\"") && token.contains("\"modified\""), "{token}");
}

/// Waits for that many events and sees that there are no more of them.
async fn stores_exactly(relay: &Relay, events: u64) {
    stores(relay, events).await;
    assert_eq!(stored(relay, "up.events").await, events);
}
