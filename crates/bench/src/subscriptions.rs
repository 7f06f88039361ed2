//! Very many subscriptions: what a sleeping one takes, how fast a relay with them starts, what matching among them costs.

use std::time::{Duration, Instant};

use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::many::{self, Rounds, SHARING};
use crate::process::Role;
use crate::stage::Stage;
use crate::wire::Connection;

/// A hundred thousand of them.
pub(crate) const CROWD: Experiment = Experiment {
    name: "crowd",
    subject: Subject::Subscriptions,
    rows: &[
        Row {
            what: "deliveries, always to the same 10 of 100,000",
            against: "10 subscriptions",
            unit: "/s",
            target: Target::Processor(0.8),
        },
        Row {
            what: "deliveries, to all 100,000 in turn, 10 an event",
            against: "10 subscriptions",
            unit: "/s",
            target: Target::Processor(0.8),
        },
        Row { what: "start with 100,000 subscriptions to ready", against: "", unit: "s", target: Target::AtMost(3.0) },
        Row { what: "idle subscription, resident (100,000)", against: "", unit: "KiB", target: Target::AtMost(4.0) },
    ],
    run: |terms| Box::pin(crowd_run(terms)),
};

const CROWD_SIZE: u64 = 100_000;
/// Events a request: few, so that many topics have their turn.
const BATCH_EVENTS: u64 = 10;
/// Longest run of deliveries: what costs here is the crowd, not the time.
const DURATION_MAX: Duration = Duration::from_secs(3);
/// How long it may take until each of them had a delivery.
const ONCE_MAX: Duration = Duration::from_mins(1);
/// Until a relay has let go what a burst needed: connections, prepared addresses, pages of the allocator.
const CALM: Duration = Duration::from_secs(7);

async fn crowd_run(terms: Terms) -> anyhow::Result<Findings> {
    let duration = terms.duration.min(DURATION_MAX);
    let rounds = Rounds { topics: CROWD_SIZE / SHARING, batch: BATCH_EVENTS, duration, events_max: u64::MAX };
    let few = Stage::set(&terms.scene(0)).await?;
    many::subscribe(few.relay.address, few.receiver.address, 0..SHARING, many::listener).await?;
    let limit = deliver(&few.relay, &few, rounds).await?;
    let limit_of_same = deliver(&few.relay, &few, Rounds { topics: 1, ..rounds }).await?;
    tokio::time::sleep(CALM).await;
    let (resident_of_few, _) = few.relay.resident_bytes();
    few.relay.stop().await;
    few.receiver.stop().await;

    let many = Stage::set(&terms.scene(0)).await?;
    // The first ten one after the other, so that they are spread over the lanes as the ten beside them are.
    many::subscribe(many.relay.address, many.receiver.address, 0..SHARING, many::member).await?;
    many::subscribe(many.relay.address, many.receiver.address, SHARING..CROWD_SIZE, many::member).await?;
    let Stage { receiver, relay, directory } = many;
    relay.stop().await;
    let began = Instant::now();
    let relay = terms.serve(directory.path()).await?;
    Connection::open(relay.address).await?.call("GET", "/readyz", "text/plain", b"").await?;
    let started = began.elapsed();
    let many = Stage { receiver, relay, directory };
    // Each has something delivered once, so that what is measured as idle is not what was never used.
    let once = Rounds { batch: 1, duration: ONCE_MAX, events_max: rounds.topics, ..rounds };
    many::publish(many.relay.address, many.receiver.address, once).await?;
    let turns = deliver(&many.relay, &many, rounds).await?;
    let same = deliver(&many.relay, &many, Rounds { topics: 1, ..rounds }).await?;
    let (_, highest) = many.relay.resident_bytes();
    tokio::time::sleep(CALM).await;
    let (resident, _) = many.relay.resident_bytes();
    many.relay.stop().await;
    many.receiver.stop().await;
    let each_kib = resident.saturating_sub(resident_of_few) as f64 / 1024.0 / (CROWD_SIZE - SHARING) as f64;
    let reading =
        |(rate, cpu_us), limit| Reading::costing(rate, Cost { cpu_us, work: CROWD_SIZE }, Some(limit)).with_resident(highest);
    let (same, turns) = (reading(same, limit_of_same), reading(turns, limit));
    Ok(Findings::Measured(vec![same, turns, Reading::absolute(started.as_secs_f64()), Reading::absolute(each_kib)]))
}

/// Deliveries a second and the relay's processor time for each, in microseconds.
async fn deliver(relay: &Role, stage: &Stage, rounds: Rounds) -> anyhow::Result<(f64, f64)> {
    let warm_up = Rounds { duration: Duration::from_millis(300), ..rounds };
    many::publish(relay.address, stage.receiver.address, warm_up).await?;
    let before = relay.usage();
    let (published, took) = many::publish(relay.address, stage.receiver.address, rounds).await?;
    let deliveries = (published * SHARING) as f64;
    Ok((deliveries / took.as_secs_f64(), relay.usage().since(&before) / deliveries))
}
