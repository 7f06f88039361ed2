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
        let load::Delivered { rate, cost, .. } = load::deliver(&stage, RECEIVERS, terms).await?;
        stage.relay.stop().await;
        stage.receiver.stop().await;
        let limit = (RECEIVERS * IN_FLIGHT) as f64 * 1000.0 / DELAY_MS as f64;
        Ok(Findings::Measured(vec![Reading { cost: Some(cost), ..Reading::ratio(rate, limit) }]))
    })
}
