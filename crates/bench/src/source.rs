//! Intake from one upstream beside the log's own rate: what reading, judging and queueing cost a source.

use std::time::{Duration, Instant};

use crate::experiment::{Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::load;
use crate::process::{self, Role};
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::Connection;

/// One NDJSON upstream that sends as fast as it is read, nobody subscribed.
pub(crate) const NDJSON: Experiment = Experiment {
    name: "source-ndjson",
    subject: Subject::Publish,
    rows: &[Row {
        what: "events from one NDJSON upstream, durable",
        against: "SQLite alone, the same rows of 64 events",
        unit: "/s",
        target: Target::AtLeast(0.5),
    }],
    run: |terms| Box::pin(ndjson(terms)),
};

/// Events of the recording that the upstream serves over and over.
const RECORDED: u64 = 10_000;
/// What is read before a measurement.
const WARM_UP: Duration = Duration::from_millis(500);

async fn ndjson(terms: Terms) -> anyhow::Result<Findings> {
    let Stage { relay, receiver, directory } = Stage::set(&terms.scene(0)).await?;
    receiver.stop().await;
    let recording: String = (0..RECORDED).map(|number| load::event(number, now_us()) + "\n").collect();
    std::fs::write(directory.path().join("recording.ndjson"), recording)?;
    let arguments = ["upstream", "recording.ndjson", "--protocol", "ndjson", "--rate", "0", "--loop", "--listen", "127.0.0.1:0"];
    let upstream = Role::start(terms.relay, &arguments, directory.path(), &[]).await?;
    let mut control = Connection::open(relay.address).await?;
    let source = serde_json::json!({
        "name": "bench", "protocol": "ndjson", "url": format!("http://{}/", upstream.address), "topic": "bench",
    });
    control.call("POST", "/v1/sources", "application/json", source.to_string().as_bytes()).await?;
    tokio::time::sleep(WARM_UP).await;
    let (before, began, cpu_before) = (stored(&mut control).await?, Instant::now(), relay.cpu_us());
    tokio::time::sleep(terms.duration).await;
    let (after, took, cpu_us) = (stored(&mut control).await?, began.elapsed(), relay.cpu_us() - cpu_before);
    let (_, resident) = relay.resident_bytes();
    relay.stop().await;
    upstream.stop().await;
    let events = (after - before) as f64;
    anyhow::ensure!(events > 0.0, "nothing came from the upstream");
    let seconds = terms.duration.as_secs_f64().to_string();
    let bare = process::report(&["bare-storage", "pages", &seconds], directory.path()).await?;
    let reading = Reading::ratio(events / took.as_secs_f64(), bare.trim().parse()?);
    Ok(Findings::Measured(vec![Reading {
        relay_cpu_us: Some(cpu_us as f64 / events),
        relay_resident_mib: Some(resident as f64 / (1024.0 * 1024.0)),
        ..reading
    }]))
}

/// Events that the source has brought into the log.
async fn stored(control: &mut Connection) -> anyhow::Result<u64> {
    let answer = control.call("GET", "/v1/sources/bench", "application/json", b"").await?;
    let source: serde_json::Value = serde_json::from_slice(&answer)?;
    source["counts"]["events"].as_u64().ok_or_else(|| anyhow::anyhow!("the relay does not count the source's events"))
}
