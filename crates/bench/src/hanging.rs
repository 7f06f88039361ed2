//! Endpoints that hang until the time-out, each with a backlog, beside healthy ones: what the healthy ones lose by it.
//!
//! Two relays, with and without them, are measured one after the other. The backlog is a fifth of what the contract names, which makes no difference:
//! a backlog is a distance, and ten time-outs open a circuit.

use crate::arrivals::Arrivals;
use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::pace;
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::Connection;

/// Ten of a hundred endpoints never answer.
pub(crate) const HANGING: Experiment = Experiment {
    name: "hanging",
    subject: Subject::Deliver,
    rows: &[
        Row { what: "90 endpoints beside 10 that hang", against: "without these", unit: "/s", target: Target::Processor(0.9) },
        Row {
            what: "p99 of 90 endpoints beside 10 that hang",
            against: "max(2x, +100 ms)",
            unit: "ms",
            target: Target::AtMost(1.0),
        },
    ],
    run,
};

const HEALTHY: u64 = 90;
const HANGING_ONES: u64 = 10;
const BACKLOG: u64 = 2_000;
/// Events a second while delays are measured.
const CALM_RATE: u32 = 10;

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let bare = if terms.want_limit() { Some(Stage::set(&terms.scene(HEALTHY)).await?) } else { None };
        let beside = Stage::set(&terms.scene(HEALTHY)).await?;
        let mut control = Connection::open(beside.relay.address).await?;
        for number in 0..HANGING_ONES {
            let body = serde_json::json!({
                "id": format!("hanging-{number}"), "url": format!("http://{}/hang", beside.receiver.address),
                "topics": ["stuck"], "timeout": "2s",
            });
            control.call("POST", "/v1/subscriptions", "application/json", body.to_string().as_bytes()).await?;
        }
        for first in (0..BACKLOG).step_by(load::BATCH_EVENTS) {
            let events: String =
                (first..first + load::BATCH_EVENTS as u64).map(|number| load::event(number, now_us()) + "\n").collect();
            control.call("POST", "/v1/topics/stuck/events", "application/x-ndjson", events.as_bytes()).await?;
        }
        let mut found = Vec::new();
        for stage in bare.iter().chain([&beside]) {
            let (relay, receiver) = (stage.relay.address, stage.receiver.address);
            let mut seen = Connection::open(receiver).await?;
            seen.call("POST", "/reset?timed", "text/plain", b"").await?;
            let events = pace::publish(relay, CALM_RATE, terms.duration).await?;
            let p99_ms = Arrivals::deliveries(events * HEALTHY).all(&mut seen).await?.p99_us as f64 / 1000.0;
            found.push((load::deliver(stage, HEALTHY, terms).await?, p99_ms));
        }
        for stage in bare.into_iter().chain([beside]) {
            stage.relay.stop().await;
            stage.receiver.stop().await;
        }
        let Some((beside, p99)) = found.pop() else { anyhow::bail!("no relay was measured") };
        let Some((bare, bare_p99)) = found.pop() else {
            return Ok(Findings::Measured(vec![Reading::costing(beside.rate, beside.cost, None)]));
        };
        Ok(Findings::Measured(vec![
            Reading::costing(beside.rate, beside.cost, Some((bare.rate, bare.cost.cpu_us))),
            Reading::ratio(p99, (bare_p99 * 2.0).max(bare_p99 + 100.0)),
        ]))
    })
}
