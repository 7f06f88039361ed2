//! What it costs to remember every attempt: deliveries a second beside failures only, and the bytes of a success on disk.

use std::time::Duration;

use crate::bare;
use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::folder::Folder;
use crate::load::{self, Delivered};
use crate::stage::{Scene, Stage};

/// The same load with `history.attempts` as `all` and as `failures`.
pub(crate) const HISTORY: Experiment = Experiment {
    name: "history",
    subject: Subject::Deliver,
    rows: &[
        Row {
            what: "deliveries, every attempt remembered",
            against: "failures only",
            unit: "/s",
            target: Target::Processor(0.9),
        },
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
        if !terms.want_limit() {
            let Delivered { rate, cost, .. } = delivered(terms, "all").await?.0;
            return Ok(Findings::Measured(vec![Reading::costing(rate, cost, None)]));
        }
        let (without, _) = delivered(terms, "failures").await?;
        let (with, directory) = delivered(terms, "all").await?;
        let (bytes, successes) = bare::history_size(&directory.path().join("hookcast.db")).await?;
        let cost = Reading::costing(with.rate, with.cost, Some((without.rate, without.cost.cpu_us)));
        Ok(Findings::Measured(vec![cost, Reading::absolute(bytes as f64 / successes.max(1) as f64)]))
    })
}

/// Deliveries of a relay that remembers these attempts, and the directory that it leaves once everything is saved.
async fn delivered(terms: Terms, attempts: &'static str) -> anyhow::Result<(Delivered, Folder)> {
    let stage = Stage::set(&Scene { attempts, ..terms.scene(SUBSCRIPTIONS) }).await?;
    let delivered = load::deliver(&stage, SUBSCRIPTIONS, terms).await?;
    if terms.want_limit() {
        tokio::time::sleep(CALM).await;
    }
    let Stage { receiver, relay, directory } = stage;
    relay.stop().await;
    receiver.stop().await;
    Ok((delivered, directory))
}
