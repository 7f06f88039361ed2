//! Every endpoint is down and comes back: nothing is lost, and what waited does not come as a storm.
//!
//! The ten minutes of the contract are shortened to the length of a measurement; what follows does not depend on them, since a
//! circuit that is open tries again after half a minute at the earliest. The receiver sees what network and scheduler make of
//! the times of sending, so that its peak is given 5 %.

use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::{Scene, Stage};
use crate::wire::Connection;

/// Twenty subscriptions to one host that is down.
pub(crate) const OUTAGE: Experiment = Experiment {
    name: "outage",
    subject: Subject::Backlog,
    rows: &[
        Row { what: "most in any second after an outage", against: "rate + burst", unit: "", target: Target::AtMost(1.05) },
        Row { what: "delivered after an outage", against: "published", unit: "", target: Target::AtLeast(1.0) },
    ],
    run,
};

const SUBSCRIPTIONS: u64 = 20;
const RATE: u64 = 1_000;
const BURST: u64 = 100;
/// The first probes are due after 36 s at the latest.
const PATIENCE: Duration = Duration::from_mins(3);
/// How often the receiver is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let config = "[delivery]\nper_host_per_second = 1000\nper_host_burst = 100\n";
        let fields = serde_json::json!({"retry": {"max_attempts": 100, "schedule": ["1s", "2s", "5s"]}});
        let stage = Stage::set(&Scene { fields, config, ..terms.scene(SUBSCRIPTIONS) }).await?;
        let mut receiver = Connection::open(stage.receiver.address).await?;
        receiver.call("POST", "/down", "text/plain", b"").await?;
        let (mut intake, mut published, mut batch) = (Connection::open(stage.relay.address).await?, 0, String::new());
        for _ in 0..4 {
            published = load::publish_batch(&mut intake, &mut batch, published).await?;
            tokio::time::sleep(terms.duration / 4).await;
        }
        receiver.call("POST", "/reset?timed", "text/plain", b"").await?;
        let wanted = published * SUBSCRIPTIONS;
        let arrivals = Arrivals { patience: PATIENCE, look_every: LOOK_EVERY, ..Arrivals::deliveries(wanted) };
        let seen = arrivals.wait(&mut receiver).await?;
        stage.relay.stop().await;
        stage.receiver.stop().await;
        Ok(Findings::Measured(vec![
            Reading::ratio(seen.peak as f64, (RATE + BURST) as f64),
            Reading::ratio(seen.received as f64, wanted as f64),
        ]))
    })
}
