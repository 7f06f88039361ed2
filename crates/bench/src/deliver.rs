//! Deliveries a second beside the same POST sent in a bare loop.

use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::Stage;

/// One subscription.
pub(crate) const ONE: Experiment = Experiment {
    name: "deliver-1",
    subject: Subject::Deliver,
    rows: &[Row { what: "deliveries, 1 subscription", against: "bare POST loop", unit: "/s", target: Target::Processor(0.35) }],
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
        target: Target::Processor(0.50),
    }],
    run: |terms| run(10, terms),
};

fn run(subscriptions: u64, terms: Terms) -> Run {
    Box::pin(async move {
        let stage = Stage::set(&terms.scene(subscriptions)).await?;
        let load::Delivered { rate, cost, request } = load::deliver(&stage, subscriptions, terms).await?;
        let (_, highest) = stage.relay.resident_bytes();
        stage.relay.stop().await;
        let mut limit = None;
        if terms.want_limit() {
            limit = Some(load::bare_loop(stage.receiver.address, &request, terms.duration).await?);
        }
        stage.receiver.stop().await;
        Ok(Findings::Measured(vec![Reading::costing(rate, cost, limit).with_resident(highest)]))
    })
}
