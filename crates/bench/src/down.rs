//! An endpoint that refuses every connection while events pass: what is written for it, and what it takes from intake.
//!
//! Two relays run side by side, one with such a subscription and one without any; they take turns, a few batches each, so that
//! whatever else the machine does hits both.

use std::time::{Duration, Instant};

use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::{Scene, Stage};
use crate::wire::Connection;

/// A subscription whose port nobody listens at.
pub(crate) const REFUSING: Experiment = Experiment {
    name: "down",
    subject: Subject::Deliver,
    rows: &[
        Row { what: "rows written for an endpoint that is down", against: "", unit: "", target: Target::AtMost(1100.0) },
        Row { what: "intake while it is down", against: "no subscription", unit: "/s", target: Target::Processor(0.95) },
    ],
    run,
};

/// Events that pass at most; after the first few, none of them makes a difference.
const EVENTS_MAX: u64 = 1_000_000;
/// Batches that one relay takes before it is the other's turn.
const TURN_BATCHES: u64 = 8;

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let url = serde_json::json!({"url": format!("http://{nobody}/hook")});
        let down = Stage::set(&Scene { fields: url, ..terms.scene(1) }).await?;
        let bare = Stage::set(&terms.scene(0)).await?;
        let (mut to_down, mut to_bare) =
            (Connection::open(down.relay.address).await?, Connection::open(bare.relay.address).await?);
        // One turn each before it counts; the first failures open the circuit meanwhile.
        let mut published = turn(&mut to_down, 0).await?.0;
        turn(&mut to_bare, 0).await?;
        let (began, first) = (Instant::now(), published);
        let (mut with, mut without) = (Duration::ZERO, Duration::ZERO);
        let (before_with, before_without) = (down.relay.usage(), bare.relay.usage());
        while began.elapsed() < terms.duration * 2 && published < EVENTS_MAX {
            without += turn(&mut to_bare, published).await?.1;
            let (behind, took) = turn(&mut to_down, published).await?;
            with += took;
            published = behind;
        }
        let events = (published - first) as f64;
        let cost = Cost { cpu_us: down.relay.usage().since(&before_with) / events, work: published - first };
        let limit_cpu_us = bare.relay.usage().since(&before_without) / events;
        let status = to_down.call("GET", "/v1/subscriptions/bench-0/status", "text/plain", b"").await?;
        let status: serde_json::Value = serde_json::from_slice(&status)?;
        let count = |field: &str| status[field].as_f64().ok_or_else(|| anyhow::anyhow!("no {field} in {status}"));
        // A row for each event that waits or is given up, and one for each attempt that failed.
        let rows = count("retrying")? + count("dead")? + count("failed_attempts_total")?;
        for stage in [down, bare] {
            stage.relay.stop().await;
            stage.receiver.stop().await;
        }
        Ok(Findings::Measured(vec![
            Reading::absolute(rows),
            Reading::costing(events / with.as_secs_f64(), cost, Some((events / without.as_secs_f64(), limit_cpu_us))),
        ]))
    })
}

/// Publishes a few batches; gives the number behind the last event, and how long it took.
async fn turn(intake: &mut Connection, first: u64) -> anyhow::Result<(u64, Duration)> {
    let mut batch = String::new();
    let mut published = first;
    let began = Instant::now();
    for _ in 0..TURN_BATCHES {
        published = load::publish_batch(intake, &mut batch, published).await?;
    }
    Ok((published, began.elapsed()))
}
