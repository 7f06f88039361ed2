//! The time from send to receipt at a steady rate, one subscription, with the commit in between.

use std::time::Duration;

use super::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use super::load;
use super::stage::{Scene, Stage};
use super::wire::Connection;

/// 200 events a second.
pub(super) const CALM: Experiment = Experiment {
    name: "latency-200",
    subject: Subject::Latency,
    rows: &[
        Row { what: "send to receipt at 200/s, p50", against: "", unit: "ms", target: Target::AtMost(0.5) },
        Row { what: "send to receipt at 200/s, p99", against: "", unit: "ms", target: Target::AtMost(1.5) },
    ],
    run: |terms| run(200, terms),
};

/// What is sent before the measurement, so that connections are open.
const WARM_UP: Duration = Duration::from_secs(1);
/// How often the receiver is asked whether everything arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn run(rate: u32, terms: Terms) -> Run {
    Box::pin(async move {
        let stage = Stage::set(&Scene::new(1)).await?;
        let mut control = Connection::open(stage.receiver.address).await?;
        load::produce_paced(stage.relay.address, rate, WARM_UP).await?;
        control.call("POST", "/reset?timed", "text/plain", b"").await?;
        let events = load::produce_paced(stage.relay.address, rate, terms.duration).await?;
        let mut stats = load::stats(&mut control).await?;
        while stats.received < events {
            tokio::time::sleep(LOOK_EVERY).await;
            stats = load::stats(&mut control).await?;
        }
        stage.relay.stop().await;
        stage.receiver.stop().await;
        let in_ms = |delay_us: u64| Reading::absolute(delay_us as f64 / 1000.0);
        Ok(Findings::Measured(vec![in_ms(stats.p50_us), in_ms(stats.p99_us)]))
    })
}
