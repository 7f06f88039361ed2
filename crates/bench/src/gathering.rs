//! Events a second in batches, and in order, each beside the same load without.

use crate::experiment::{Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::load::{self, Delivered};
use crate::stage::{Scene, Stage};

/// A hundred events a request beside one.
pub(crate) const BATCH: Experiment = Experiment {
    name: "batch",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "events in batches of 100, 10 subscriptions",
        against: "single posts",
        unit: "/s",
        target: Target::Processor(5.0),
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
        target: Target::Processor(0.7),
    }],
    run: |terms| Box::pin(async move { compare(1, (serde_json::json!({"ordering": {"key": "/page"}}), &[]), terms).await }),
};

/// Deliveries of subscriptions with these fields, to a receiver with these arguments, beside those of plain ones.
async fn compare(
    subscriptions: u64,
    (fields, receiver): (serde_json::Value, &'static [&'static str]),
    terms: Terms,
) -> anyhow::Result<Findings> {
    let mut limit = None;
    if terms.want_limit() {
        let plain = delivered(subscriptions, serde_json::json!({}), &[], terms).await?;
        limit = Some((plain.rate, plain.cost.cpu_us));
    }
    let gathered = delivered(subscriptions, fields, receiver, terms).await?;
    Ok(Findings::Measured(vec![Reading::costing(gathered.rate, gathered.cost, limit)]))
}

async fn delivered(
    subscriptions: u64,
    fields: serde_json::Value,
    receiver: &'static [&'static str],
    terms: Terms,
) -> anyhow::Result<Delivered> {
    let stage = Stage::set(&Scene { fields, receiver, ..terms.scene(subscriptions) }).await?;
    let delivered = load::deliver(&stage, subscriptions, terms).await?;
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok(delivered)
}
