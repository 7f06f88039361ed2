//! One event for ten thousand subscriptions: all are posted to, and what that costs in memory and at intake.

use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;
use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::Connection;
use crate::{load, many};

/// Everybody wants the same event.
pub(crate) const FANOUT: Experiment = Experiment {
    name: "fanout",
    subject: Subject::Subscriptions,
    rows: &[
        Row { what: "posted of 1 event for 10,000 subscriptions", against: "all", unit: "", target: Target::AtLeast(1.0) },
        Row { what: "answer to its publisher", against: "", unit: "ms", target: Target::AtMost(250.0) },
        Row { what: "memory at its highest, a subscription", against: "", unit: "KiB", target: Target::AtMost(32.0) },
    ],
    run,
};

const SUBSCRIPTIONS: u64 = 10_000;
/// How often the receiver is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let stage = Stage::set(&terms.scene(0)).await?;
        many::subscribe(stage.relay.address, stage.receiver.address, 0..SUBSCRIPTIONS, |number, receiver| {
            serde_json::json!({"id": format!("fan-{number}"), "url": format!("http://{receiver}/hook"), "topics": ["bench"]})
        })
        .await?;
        let mut intake = Connection::open(stage.relay.address).await?;
        let mut receiver = Connection::open(stage.receiver.address).await?;
        let (before, _) = stage.relay.resident_bytes();
        let began = Instant::now();
        let event = load::event(0, now_us());
        intake.call("POST", "/v1/topics/bench/events", "application/json", event.as_bytes()).await?;
        let answered_ms = began.elapsed().as_secs_f64() * 1000.0;
        let arrivals = Arrivals { look_every: LOOK_EVERY, ..Arrivals::deliveries(SUBSCRIPTIONS) };
        let posted = arrivals.wait(&mut receiver).await?.received;
        let (_, highest) = stage.relay.resident_bytes();
        stage.relay.stop().await;
        stage.receiver.stop().await;
        let kib = highest.saturating_sub(before) as f64 / 1024.0 / SUBSCRIPTIONS as f64;
        Ok(Findings::Measured(vec![
            Reading::ratio(posted as f64, SUBSCRIPTIONS as f64),
            Reading::absolute(answered_ms),
            Reading::absolute(kib),
        ]))
    })
}
