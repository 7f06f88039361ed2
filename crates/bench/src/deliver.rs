//! Deliveries a second beside the same POST sent in a bare loop.

use std::time::Duration;

use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::Stage;
use crate::wire::Connection;

/// One subscription.
pub(crate) const ONE: Experiment = Experiment {
    name: "deliver-1",
    subject: Subject::Deliver,
    rows: &[Row { what: "deliveries, 1 subscription", against: "bare POST loop", unit: "/s", target: Target::AtLeast(0.35) }],
    run: |terms| run(1, terms),
};

/// Ten subscriptions an event.
pub(crate) const TEN: Experiment = Experiment {
    name: "deliver-10",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "deliveries, 10 subscriptions an event",
        against: "bare POST loop",
        unit: "/s",
        target: Target::AtLeast(0.50),
    }],
    run: |terms| run(10, terms),
};

/// What one batch before the measurement is for: warm connections, and the receiver learns what a request looks like.
const WARM_UP: Duration = Duration::from_millis(300);

fn run(subscriptions: u64, terms: Terms) -> Run {
    Box::pin(async move {
        let stage = Stage::set(&terms.scene(subscriptions)).await?;
        let mut control = Connection::open(stage.receiver.address).await?;
        load::produce(stage.relay.address, stage.receiver.address, subscriptions, WARM_UP).await?;
        let request = load::stats(&mut control).await?.newest_request.into_bytes();
        control.call("POST", "/reset", "text/plain", b"").await?;
        let cpu_before = stage.relay.cpu_us();
        let (published, took) = load::produce(stage.relay.address, stage.receiver.address, subscriptions, terms.duration).await?;
        let cpu_us = stage.relay.cpu_us() - cpu_before;
        let (_, resident) = stage.relay.resident_bytes();
        let receiver = stage.receiver.address;
        stage.relay.stop().await;
        let answered = load::bare_loop(receiver, request, terms.duration).await?;
        stage.receiver.stop().await;
        let deliveries = (published * subscriptions) as f64;
        let reading = Reading::ratio(deliveries / took.as_secs_f64(), answered as f64 / terms.duration.as_secs_f64());
        Ok(Findings::Measured(vec![Reading {
            relay_cpu_us: Some(cpu_us as f64 / deliveries),
            relay_resident_mib: Some(resident as f64 / (1024.0 * 1024.0)),
            ..reading
        }]))
    })
}
