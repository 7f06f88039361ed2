//! Intake from one upstream beside the log's own rate: what reading, judging and queueing cost a source.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::load;
use crate::process::Role;
use crate::publish;
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::{self, Connection};

/// One NDJSON upstream that sends as fast as it is read, nobody subscribed.
pub(crate) const NDJSON: Experiment = Experiment {
    name: "source-ndjson",
    subject: Subject::Publish,
    rows: &[Row {
        what: "events from one NDJSON upstream, durable",
        against: "SQLite alone, the same rows of 64 events",
        unit: "/s",
        target: Target::Processor(0.4),
    }],
    run: |terms| Box::pin(ndjson(terms)),
};

/// Events of the recording that the upstream serves over and over.
const RECORDED: u64 = 10_000;
/// How often the relay is asked what it has.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is read before a measurement.
const WARM_UP: Duration = Duration::from_millis(500);

async fn ndjson(terms: Terms) -> anyhow::Result<Findings> {
    let Stage { relay, receiver, directory } = Stage::set(&terms.scene(0)).await?;
    receiver.stop().await;
    let recording: String = (0..RECORDED).map(|number| load::event(number, now_us()) + "\n").collect();
    std::fs::write(directory.path().join("recording.ndjson"), recording)?;
    let upstream = Role::own(&["upstream", "recording.ndjson"], directory.path()).await?;
    let mut control = Connection::open(relay.address).await?;
    let source = serde_json::json!({
        "name": "bench", "protocol": "ndjson", "url": format!("http://{}/", upstream.address), "topic": "bench",
    });
    control.call("POST", "/v1/sources", "application/json", source.to_string().as_bytes()).await?;
    tokio::time::sleep(WARM_UP).await;
    let (before, began, usage) = (stored(&mut control).await?, Instant::now(), relay.usage());
    let mut events = 0;
    // The upstream does not wait, so neither does this.
    while terms.alone().go_on(began, events).await {
        tokio::time::sleep(LOOK_EVERY).await;
        events = stored(&mut control).await? - before;
    }
    let (took, cpu_us) = (began.elapsed(), relay.usage().since(&usage));
    let (_, highest) = relay.resident_bytes();
    relay.stop().await;
    upstream.stop().await;
    anyhow::ensure!(events > 0, "nothing came from the upstream");
    let mut limit = None;
    if terms.want_limit() {
        limit = Some(publish::bare_storage("pages", terms.duration, directory.path()).await?);
    }
    let cost = Cost { cpu_us: cpu_us / events as f64, work: events };
    let reading = Reading::costing(events as f64 / took.as_secs_f64(), cost, limit);
    Ok(Findings::Measured(vec![reading.with_resident(highest)]))
}

/// Events that the source has brought into the log.
async fn stored(control: &mut Connection) -> anyhow::Result<u64> {
    let answer = control.call("GET", "/v1/sources/bench", "application/json", b"").await?;
    let source: serde_json::Value = serde_json::from_slice(&answer)?;
    source["counts"]["events"].as_u64().ok_or_else(|| anyhow::anyhow!("the relay does not count the source's events"))
}

/// Serves a recording of lines over and over to whoever connects; prints the bound address.
pub(crate) async fn serve(recording: &Path) -> anyhow::Result<()> {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n";
    let recording = std::fs::read(recording)?;
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    crate::say::say(&format!("serving on http://{}", listener.local_addr()?));
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut head = BytesMut::new();
        while wire::message_length(&head).is_none() && stream.read_buf(&mut head).await? > 0 {}
        let mut sent = stream.write_all(HEAD).await;
        // One reader at a time, until it goes.
        while sent.is_ok() {
            sent = stream.write_all(&recording).await;
        }
    }
}
