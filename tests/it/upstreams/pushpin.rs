//! pushpin as the upstream: it holds streams for an origin that knows nothing of connections.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::support::*;
use crate::support::{Relay, eventually};

/// pushpin, the zurl that asks its origin, and the origin.
struct Pushpin {
    server: Tool,
    origin: Tool,
    zurl: std::process::Child,
    _folder: tempfile::TempDir,
    client: reqwest::Client,
}

impl Drop for Pushpin {
    fn drop(&mut self) {
        let _ = self.zurl.kill();
        let _ = self.zurl.wait();
    }
}

impl Pushpin {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        let [port, control, push, sub, command] = std::array::from_fn(|_| free_port());
        let origin = Tool::python("grip_upstream.py", &[&control.to_string()]);
        let zurl = format!(
            "[General]\nin_spec=ipc://{at}/zurl-in\nin_stream_spec=ipc://{at}/zurl-in-stream\nout_spec=ipc://{at}/zurl-out\n\
             in_req_spec=ipc://{at}/zurl-req\nipc_file_mode=660\ndefpolicy=allow\nmax_open_requests=100\nbuffer_size=200000\n\
             timeout=600\nin_hwm=1000\nout_hwm=1000\n"
        );
        let pushpin = format!(
            "[global]\ninclude={{libdir}}/internal.conf\nrundir={at}\nipc_prefix=pp-\nport_offset=0\n\
             [runner]\nservices=condure,pushpin-proxy,pushpin-handler\nhttp_port={port}\nlogdir={at}\nlog_level=0\n\
             client_buffer_size=8192\nclient_maxconn=50\ncondure_bin=condure\nzurl_bin=zurl\n\
             [proxy]\nroutesfile={at}/routes\nzurl_out_specs=ipc://{at}/zurl-in\n\
             zurl_out_stream_specs=ipc://{at}/zurl-in-stream\nzurl_in_specs=ipc://{at}/zurl-out\nupdates_check=off\n\
             [handler]\npush_in_spec=tcp://127.0.0.1:{push}\npush_in_sub_specs=tcp://127.0.0.1:{sub}\n\
             push_in_http_addr=127.0.0.1\npush_in_http_port={control}\npush_in_http_max_headers_size=10000\n\
             push_in_http_max_body_size=1000000\nstats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats\n\
             command_spec=tcp://127.0.0.1:{command}\nmessage_rate=2500\nmessage_hwm=25000\nmessage_wait=5000\n\
             connection_subscription_max=20\nsubscription_linger=60\n"
        );
        for (name, text) in [("zurl.conf", zurl), ("pushpin.conf", pushpin), ("routes", format!("* {}\n", origin.address()))] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut asking = Command::new("zurl");
        asking.arg(format!("--config={at}/zurl.conf")).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let zurl = asking.spawn().unwrap_or_else(|error| panic!("{error}: run `make tools` first"));
        // Its runner ends its children when it is told to, not when it is killed.
        let mut serving = Command::new("pushpin");
        serving.arg(format!("--config={at}/pushpin.conf")).arg("-m");
        let server = Tool::listening(&mut serving, port).await.gently();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        // It listens before zurl and it have found each other, and what was asked by then may never be answered.
        let asked = || client.get(format!("http://{}/sse", server.address())).timeout(Duration::from_secs(1)).send();
        eventually("an answer through pushpin", async || asked().await.is_ok_and(|answer| answer.status() == 200).then_some(()))
            .await;
        Self { server, origin, zurl, _folder: folder, client }
    }

    /// Makes events up to number `last`.
    async fn make(&self, last: u64) {
        let answer = self.client.post(format!("http://{}/add/{last}", self.origin.address())).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

#[tokio::test]
#[ignore = "needs pushpin, python"]
async fn streams_that_pushpin_holds_are_read_over_a_cut() {
    let (pushpin, relay) = (Pushpin::start().await, Relay::start().await);
    let wire = Wire::to(pushpin.server.address(), &[]).await;
    pushpin.make(100).await;
    read_from(&relay, "sse", "sse", &format!("http://{}/sse", wire.address), json!({})).await;
    read_from(&relay, "lines", "ndjson", &format!("http://{}/ndjson", wire.address), json!({"id": "/n"})).await;
    let all = |last: u64| (1..=last).collect::<Vec<_>>();
    for name in ["sse", "lines"] {
        assert_eq!(numbers(&relay, name, 100).await, all(100), "{name}");
    }
    pushpin.make(500).await;
    wire.cut();
    for name in ["sse", "lines"] {
        eventually("a source that came back", async || {
            let shown = source(&relay, name).await;
            (shown["counts"]["reconnects"].as_u64() >= Some(1) && shown["state"] == "connected").then_some(())
        })
        .await;
    }
    for name in ["sse", "lines"] {
        assert_eq!(numbers(&relay, name, 500).await, all(500), "{name}");
    }
    pushpin.make(1000).await;
    for name in ["sse", "lines"] {
        assert_eq!(numbers(&relay, name, 1000).await, all(1000), "{name}");
    }
    let counts = source(&relay, "sse").await["counts"].clone();
    assert_eq!((&counts["events"], &counts["gaps"]), (&json!(1000), &json!(0)), "it goes on behind the last event id");
    assert!(source(&relay, "lines").await["counts"]["gaps"].as_u64() >= Some(1), "lines have no position");
}
