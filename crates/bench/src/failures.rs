//! Deliveries a second while some POSTs fail, beside the same load with none failing: a waiting retry holds no slot.

use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::{Scene, Stage};
use crate::wire::Connection;

/// One POST in a hundred is answered with 500.
pub(crate) const ONE_PERCENT: Experiment = Experiment {
    name: "failures",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "deliveries, 1 % answered 500 (retry 200 ms)",
        against: "none failing",
        unit: "/s",
        target: Target::AtLeast(0.9),
    }],
    run,
};

/// Subscriptions an event.
const SUBSCRIPTIONS: u64 = 10;

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let (failing, relay_cpu_us) = rate(&["--fail-every", "100"], terms).await?;
        let (sound, _) = rate(&[], terms).await?;
        Ok(Findings::Measured(vec![Reading { relay_cpu_us: Some(relay_cpu_us), ..Reading::ratio(failing, sound) }]))
    })
}

/// Deliveries a second to a receiver with these arguments, and what one costs the relay.
async fn rate(receiver: &'static [&'static str], terms: Terms) -> anyhow::Result<(f64, f64)> {
    let retry = serde_json::json!({"retry": {"schedule": ["200ms"]}});
    let stage = Stage::set(&Scene { receiver, fields: retry, ..terms.scene(SUBSCRIPTIONS) }).await?;
    let rate = load::steady_rate(stage.relay.address, stage.receiver.address, SUBSCRIPTIONS, terms.duration).await?;
    let arrived = load::stats(&mut Connection::open(stage.receiver.address).await?).await?.received;
    let cpu_us = stage.relay.cpu_us() as f64 / arrived as f64;
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok((rate, cpu_us))
}
