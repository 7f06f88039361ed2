//! Many receivers that take their time: what is in flight must stay in flight, one slow endpoint beside the other.

use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::{Scene, Stage};
use crate::wire::Connection;

/// Fifty receivers that answer after 50 ms.
pub(crate) const FIFTY: Experiment = Experiment {
    name: "slow",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "50 receivers answering after 50 ms, 16 in flight",
        against: "in flight / delay",
        unit: "/s",
        target: Target::AtLeast(0.9),
    }],
    run,
};

const RECEIVERS: u64 = 50;
const IN_FLIGHT: u64 = 16;
const DELAY_MS: u64 = 50;

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let stage = Stage::set(&Scene { receiver: &["--delay-ms", "50", "--addresses", "50"], ..terms.scene(0) }).await?;
        let mut control = Connection::open(stage.relay.address).await?;
        let port = stage.receiver.address.port();
        for number in 1..=RECEIVERS {
            let body = serde_json::json!({
                "id": format!("slow-{number}"), "url": format!("http://127.0.0.{number}:{port}/hook"), "topics": ["bench"],
                "max_in_flight": IN_FLIGHT,
            });
            control.call("POST", "/v1/subscriptions", "application/json", body.to_string().as_bytes()).await?;
        }
        let cpu_before = stage.relay.cpu_us();
        let rate = load::steady_rate(stage.relay.address, stage.receiver.address, RECEIVERS, terms.duration).await?;
        let arrived = load::stats(&mut Connection::open(stage.receiver.address).await?).await?.received;
        let cpu_us = (stage.relay.cpu_us() - cpu_before) as f64 / arrived as f64;
        stage.relay.stop().await;
        stage.receiver.stop().await;
        let limit = (RECEIVERS * IN_FLIGHT) as f64 * 1000.0 / DELAY_MS as f64;
        Ok(Findings::Measured(vec![Reading { relay_cpu_us: Some(cpu_us), ..Reading::ratio(rate, limit) }]))
    })
}
