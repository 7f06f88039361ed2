//! What is written to disk for an event: with a hundred subscriptions hardly more than with one.

use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::load;
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::Connection;

/// The same events at the same pace for a hundred subscriptions and for one.
pub(crate) const BYTES: Experiment = Experiment {
    name: "bytes",
    subject: Subject::Subscriptions,
    rows: &[Row {
        what: "bytes written an event, 100 subscriptions",
        against: "1 subscription",
        unit: "B",
        target: Target::AtMost(1.05),
    }],
    run: |terms| Box::pin(bytes_run(terms)),
};

const SUBSCRIPTIONS: u64 = 100;
/// Events a second; a hundred times as many deliveries must fit.
const RATE: u64 = 400;
/// Requests a second.
const REQUESTS: u64 = 20;
/// Shortest run, so that much more is written than what a start costs.
const DURATION_MIN: Duration = Duration::from_secs(4);
/// Until the last save is through.
const CALM: Duration = Duration::from_millis(1500);

async fn bytes_run(terms: Terms) -> anyhow::Result<Findings> {
    let duration = terms.duration.max(DURATION_MIN);
    let (one, _) = write(terms, 1, duration).await?;
    let (all, cost) = write(terms, SUBSCRIPTIONS, duration).await?;
    Ok(Findings::Measured(vec![Reading { cost: Some(cost), ..Reading::ratio(all, one) }]))
}

/// Bytes written an event, and what it cost.
async fn write(terms: Terms, subscriptions: u64, duration: Duration) -> anyhow::Result<(f64, Cost)> {
    let stage = Stage::set(&terms.scene(subscriptions)).await?;
    let mut control = Connection::open(stage.receiver.address).await?;
    let mut intake = Connection::open(stage.relay.address).await?;
    let warm_up = publish(&mut intake, Duration::from_millis(500)).await?;
    Arrivals::deliveries(warm_up * subscriptions).all(&mut control).await?;
    tokio::time::sleep(CALM).await;
    control.call("POST", "/reset", "text/plain", b"").await?;
    let (written, usage) = (stage.relay.written_bytes(), stage.relay.usage());
    let events = publish(&mut intake, duration).await?;
    Arrivals::deliveries(events * subscriptions).all(&mut control).await?;
    tokio::time::sleep(CALM).await;
    let written = stage.relay.written_bytes().saturating_sub(written);
    let cost = Cost { cpu_us: stage.relay.usage().since(&usage) / events as f64, work: events };
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok((written as f64 / events as f64, cost))
}

/// Publishes at [`RATE`] in [`REQUESTS`] requests a second; gives how many events.
async fn publish(intake: &mut Connection, duration: Duration) -> anyhow::Result<u64> {
    let requests = u64::try_from(duration.as_millis())? * REQUESTS / 1000;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(REQUESTS)?);
    let mut number = 0;
    for _ in 0..requests {
        ticks.tick().await;
        let mut batch = String::new();
        for _ in 0..RATE / REQUESTS {
            batch.push_str(&load::event(number, now_us()));
            batch.push('\n');
            number += 1;
        }
        intake.call("POST", "/v1/topics/bench/events", "application/x-ndjson", batch.as_bytes()).await?;
    }
    Ok(number)
}
