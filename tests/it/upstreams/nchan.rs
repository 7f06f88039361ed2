//! nginx with the nchan module as the upstream.

use std::process::Command;

use serde_json::json;

use super::support::*;
use crate::support::Relay;

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// Path under `/read`, and the subscriber of nchan behind it.
const SUBSCRIBERS: [(&str, &str); 4] =
    [("sse", "eventsource"), ("websocket", "websocket"), ("raw", "http-raw-stream"), ("multipart", "http-multipart")];

/// nginx in a folder of its own.
struct Nchan {
    server: Tool,
    _folder: tempfile::TempDir,
    client: reqwest::Client,
}

impl Nchan {
    async fn start() -> Self {
        assert!(std::path::Path::new(MODULE).exists(), "nchan is not installed: run `make tools` first");
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let locations: String = SUBSCRIBERS
            .iter()
            .map(|(path, subscriber)| {
                format!(
                    "location ~ ^/read/{path}/(\\w+)$ {{ nchan_subscriber {subscriber}; nchan_channel_id $1; \
                     nchan_subscriber_first_message oldest; }}\n"
                )
            })
            .collect();
        let config = format!(
            "load_module {MODULE};\ndaemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;\n\
             scgi_temp_path s; keepalive_requests 1000000; nchan_shared_memory_size 32M;\n\
             server {{ listen 127.0.0.1:{port};\n{locations}\
             location ~ ^/publish/(\\w+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 10000;\n\
             nchan_message_timeout 10m; }} }} }}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-p", ".", "-e", "stderr", "-c", "nginx.conf"]).current_dir(folder.path());
        let server = Tool::listening(&mut command, port).await;
        Self { server, _folder: folder, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn publish(&self, channel: &str, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let url = format!("http://{}/publish/{channel}", self.server.address());
            let request = self.client.post(url).header("content-type", "application/json").body(format!("{{\"n\":{n}}}"));
            let answer = request.send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.status());
        }
    }
}

/// A thousand events, cut in the middle; the gaps that were noticed.
async fn a_thousand(protocol: &str, scheme: &str, settings: serde_json::Value) -> (Relay, u64) {
    let (nchan, relay) = (Nchan::start().await, Relay::start().await);
    let wire = Wire::to(nchan.server.address(), &[]).await;
    // Its parts have no length: the newest is whole only once the next one begins.
    let known = |made: u64| made - u64::from(protocol == "multipart");
    let all = async |made: u64| {
        let known = known(made);
        let got = numbers(&relay, "up", usize::try_from(known).unwrap()).await;
        assert_eq!(got, (0..known).collect::<Vec<_>>(), "{protocol}");
    };
    nchan.publish("c", 0..250).await;
    read_from(&relay, "up", protocol, &format!("{scheme}://{}/read/{protocol}/c", wire.address), settings).await;
    all(250).await;
    nchan.publish("c", 250..500).await;
    wire.cut();
    nchan.publish("c", 500..750).await;
    all(750).await;
    nchan.publish("c", 750..1000).await;
    all(1000).await;
    let gaps = source(&relay, "up").await["counts"]["gaps"].as_u64().unwrap();
    (relay, gaps)
}

#[tokio::test]
#[ignore = "needs nchan"]
async fn event_streams_of_nchan_go_on_where_they_were_cut() {
    let (relay, gaps) = a_thousand("sse", "http", json!({})).await;
    assert_eq!(gaps, 0);
    assert_eq!(source(&relay, "up").await["counts"]["events"], 1000, "nothing came twice");
}

#[tokio::test]
#[ignore = "needs nchan"]
async fn websockets_of_nchan_begin_anew_and_are_taken_once() {
    // It says no position over WebSocket, but sends its history again.
    let (_relay, gaps) = a_thousand("websocket", "ws", json!({"id": "/n"})).await;
    assert_eq!(gaps, 1);
}

#[tokio::test]
#[ignore = "needs nchan"]
async fn raw_streams_of_nchan_begin_anew_and_are_taken_once() {
    let settings = json!({"id": "/n", "content_type": "application/json"});
    let (_relay, gaps) = a_thousand("raw", "http", settings).await;
    assert_eq!(gaps, 1);
}

#[tokio::test]
#[ignore = "needs nchan"]
async fn parts_of_nchan_begin_anew_and_are_taken_once() {
    let (_relay, gaps) = a_thousand("multipart", "http", json!({"id": "/n"})).await;
    assert_eq!(gaps, 1);
}
