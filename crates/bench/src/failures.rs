//! Deliveries a second while some POSTs fail, beside the same load with none failing: a waiting retry holds no slot.

use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load::{self, Delivered};
use crate::stage::{Scene, Stage};

/// One POST in a hundred is answered with 500.
pub(crate) const ONE_PERCENT: Experiment = Experiment {
    name: "failures",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "deliveries, 1 % answered 500 (retry 200 ms)",
        against: "none failing",
        unit: "/s",
        target: Target::Processor(0.9),
    }],
    run,
};

/// Subscriptions an event.
const SUBSCRIPTIONS: u64 = 10;

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let mut limit = None;
        if terms.want_limit() {
            let sound = delivered(&[], terms).await?;
            limit = Some((sound.rate, sound.cost.cpu_us));
        }
        let failing = delivered(&["--fail-every", "100"], terms).await?;
        Ok(Findings::Measured(vec![Reading::costing(failing.rate, failing.cost, limit)]))
    })
}

/// Deliveries to a receiver with these arguments.
async fn delivered(receiver: &'static [&'static str], terms: Terms) -> anyhow::Result<Delivered> {
    let retry = serde_json::json!({"retry": {"schedule": ["200ms"]}});
    let stage = Stage::set(&Scene { receiver, fields: retry, ..terms.scene(SUBSCRIPTIONS) }).await?;
    let delivered = load::deliver(&stage, SUBSCRIPTIONS, terms).await?;
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok(delivered)
}
