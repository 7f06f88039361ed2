//! Events a second in batches, and in order, each beside the same load without.

use crate::experiment::{Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::load;
use crate::stage::{Scene, Stage};
use crate::wire::Connection;

/// A hundred events a request beside one.
pub(crate) const BATCH: Experiment = Experiment {
    name: "batch",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "events in batches of 100, 10 subscriptions",
        against: "single posts",
        unit: "/s",
        target: Target::AtLeast(8.0),
    }],
    run: |terms| {
        Box::pin(async move {
            let batch = serde_json::json!({"batch": {"max_events": 100, "max_bytes": 1_048_576, "max_wait": "100ms",
                "format": "ndjson"}, "max_in_flight": 16});
            compare(10, (batch, &["--lines"]), terms).await
        })
    },
};

/// In order by a key that has a thousand values.
pub(crate) const ORDERED: Experiment = Experiment {
    name: "ordered",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "deliveries in order by key, 1,000 keys",
        against: "unordered",
        unit: "/s",
        target: Target::AtLeast(0.7),
    }],
    run: |terms| Box::pin(async move { compare(1, (serde_json::json!({"ordering": {"key": "/page"}}), &[]), terms).await }),
};

/// The rate of subscriptions with these fields, to a receiver with these arguments, beside that of plain ones.
async fn compare(
    subscriptions: u64,
    (fields, receiver): (serde_json::Value, &'static [&'static str]),
    terms: Terms,
) -> anyhow::Result<Findings> {
    let (measured, relay_cpu_us) = rate(subscriptions, fields, receiver, terms).await?;
    let (plain, _) = rate(subscriptions, serde_json::json!({}), &[], terms).await?;
    Ok(Findings::Measured(vec![Reading { relay_cpu_us: Some(relay_cpu_us), ..Reading::ratio(measured, plain) }]))
}

async fn rate(
    subscriptions: u64,
    fields: serde_json::Value,
    receiver: &'static [&'static str],
    terms: Terms,
) -> anyhow::Result<(f64, f64)> {
    let stage = Stage::set(&Scene { fields, receiver, ..terms.scene(subscriptions) }).await?;
    let rate = load::steady_rate(stage.relay.address, stage.receiver.address, subscriptions, terms.duration).await?;
    let arrived = load::stats(&mut Connection::open(stage.receiver.address).await?).await?.received;
    let cpu_us = stage.relay.cpu_us() as f64 / arrived.max(1) as f64;
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok((rate, cpu_us))
}
