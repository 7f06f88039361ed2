//! What it costs to remember every attempt: deliveries a second beside failures only, and the bytes of a success on disk.

use std::time::Duration;

use crate::bare;
use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::{Scene, Stage};
use crate::wire::Connection;

/// The same load with `history.attempts` as `all` and as `failures`.
pub(crate) const HISTORY: Experiment = Experiment {
    name: "history",
    subject: Subject::Deliver,
    rows: &[
        Row { what: "deliveries, every attempt remembered", against: "failures only", unit: "/s", target: Target::AtLeast(0.9) },
        Row { what: "history on disk, a success", against: "", unit: "B", target: Target::AtMost(20.0) },
    ],
    run,
};

/// Subscriptions an event.
const SUBSCRIPTIONS: u64 = 10;
/// Until the last save is through.
const CALM: Duration = Duration::from_millis(1500);

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let (with, bytes, relay_cpu_us) = rate(terms, "all").await?;
        let (without, _, _) = rate(terms, "failures").await?;
        let rate = Reading { relay_cpu_us: Some(relay_cpu_us), ..Reading::ratio(with, without) };
        Ok(Findings::Measured(vec![rate, Reading::absolute(bytes)]))
    })
}

/// Deliveries a second, bytes of history an attempt, and what a delivery costs the relay in processor time.
async fn rate(terms: Terms, attempts: &'static str) -> anyhow::Result<(f64, f64, f64)> {
    let stage = Stage::set(&Scene { attempts, ..terms.scene(SUBSCRIPTIONS) }).await?;
    let rate = load::steady_rate(stage.relay.address, stage.receiver.address, SUBSCRIPTIONS, terms.duration).await?;
    let arrived = load::stats(&mut Connection::open(stage.receiver.address).await?).await?.received as f64;
    let cpu_us = stage.relay.cpu_us() as f64 / arrived;
    tokio::time::sleep(CALM).await;
    let Stage { receiver, relay, directory } = stage;
    relay.stop().await;
    receiver.stop().await;
    let (bytes, successes) = bare::history_size(&directory.path().join("hookcast.db")).await?;
    Ok((rate, bytes as f64 / successes.max(1) as f64, cpu_us))
}
