//! Very many subscriptions: what a sleeping one takes, how fast a relay with them starts, what matching among them costs.

use std::time::{Duration, Instant};

use super::crowd::{self, Rounds, SHARING};
use super::experiment::{Experiment, Findings, Reading, Row, Subject, Target, Terms};
use super::process::Role;
use super::stage::{Scene, Stage};
use super::wire::Connection;

/// A hundred thousand of them.
pub(super) const CROWD: Experiment = Experiment {
    name: "crowd",
    subject: Subject::Subscriptions,
    rows: &[
        Row {
            what: "deliveries, 100,000 subscriptions, 10 an event",
            against: "10 subscriptions",
            unit: "/s",
            target: Target::AtLeast(0.8),
        },
        Row { what: "start with 100,000 subscriptions to ready", against: "", unit: "s", target: Target::AtMost(3.0) },
        Row { what: "idle subscription, resident (100,000)", against: "", unit: "KiB", target: Target::AtMost(4.0) },
    ],
    run: |terms| Box::pin(crowd_run(terms)),
};

/// Ten thousand, each of which had a delivery.
pub(super) const IDLE: Experiment = Experiment {
    name: "idle",
    subject: Subject::Subscriptions,
    rows: &[Row { what: "idle subscription, resident (10,000)", against: "", unit: "KiB", target: Target::AtMost(4.0) }],
    run: |_| Box::pin(idle_run()),
};

const CROWD_SIZE: u64 = 100_000;
const IDLE_SIZE: u64 = 10_000;
/// Events a request: few, so that many topics have their turn.
const BATCH_EVENTS: u64 = 10;
/// Longest run of deliveries: what costs here is the crowd, not the time.
const DURATION_MAX: Duration = Duration::from_secs(3);
/// Until a relay has let go what a burst needed: connections, prepared addresses, pages of the allocator.
const CALM: Duration = Duration::from_secs(7);

async fn crowd_run(terms: Terms) -> anyhow::Result<Findings> {
    let duration = terms.duration.min(DURATION_MAX);
    let rounds = Rounds { topics: CROWD_SIZE / SHARING, batch: BATCH_EVENTS, duration, events_max: u64::MAX };
    let few = Stage::set(&Scene::new(0)).await?;
    crowd::subscribe(few.relay.address, SHARING, crowd::listener, few.receiver.address).await?;
    let (limit, _) = deliver(&few.relay, &few, rounds).await?;
    tokio::time::sleep(CALM).await;
    let (resident_of_few, _) = few.relay.resident_bytes();
    few.relay.stop().await;
    few.receiver.stop().await;

    let many = Stage::set(&Scene::new(0)).await?;
    crowd::subscribe(many.relay.address, CROWD_SIZE, crowd::member, many.receiver.address).await?;
    let Stage { relay, receiver, directory } = many;
    relay.stop().await;
    let began = Instant::now();
    let relay = Role::start(&["serve", "--config", "config.toml"], directory.path()).await?;
    Connection::open(relay.address).await?.call("GET", "/readyz", "text/plain", b"").await?;
    let started = began.elapsed();
    let many = Stage { relay, receiver, directory };
    let (rate, cpu_us) = deliver(&many.relay, &many, rounds).await?;
    let (_, highest) = many.relay.resident_bytes();
    tokio::time::sleep(CALM).await;
    let (resident, _) = many.relay.resident_bytes();
    many.relay.stop().await;
    many.receiver.stop().await;
    let each_kib = resident.saturating_sub(resident_of_few) as f64 / 1024.0 / (CROWD_SIZE - SHARING) as f64;
    let deliveries = Reading {
        relay_cpu_us: Some(cpu_us),
        relay_resident_mib: Some(highest as f64 / (1024.0 * 1024.0)),
        ..Reading::ratio(rate, limit)
    };
    Ok(Findings::Measured(vec![deliveries, Reading::absolute(started.as_secs_f64()), Reading::absolute(each_kib)]))
}

/// Deliveries a second and the relay's processor time for each, in microseconds.
async fn deliver(relay: &Role, stage: &Stage, rounds: Rounds) -> anyhow::Result<(f64, f64)> {
    let warm_up = Rounds { duration: Duration::from_millis(300), ..rounds };
    crowd::publish(relay.address, stage.receiver.address, warm_up).await?;
    let cpu_before = relay.cpu_us();
    let (published, took) = crowd::publish(relay.address, stage.receiver.address, rounds).await?;
    let deliveries = (published * SHARING) as f64;
    Ok((deliveries / took.as_secs_f64(), (relay.cpu_us() - cpu_before) as f64 / deliveries))
}

async fn idle_run() -> anyhow::Result<Findings> {
    let once =
        |size: u64| Rounds { topics: size / SHARING, batch: 1, duration: Duration::from_mins(1), events_max: size / SHARING };
    let stage = Stage::set(&Scene::new(0)).await?;
    let (relay, receiver) = (stage.relay.address, stage.receiver.address);
    // What the first deliveries need at all is not the subscriptions' share: as many for ten subscriptions.
    crowd::subscribe(relay, SHARING, crowd::listener, receiver).await?;
    crowd::publish(relay, receiver, once(IDLE_SIZE)).await?;
    let mut rest = Connection::open(relay).await?;
    for number in 0..SHARING {
        rest.call("DELETE", &format!("/v1/subscriptions/crowd-{number}"), "text/plain", b"").await?;
    }
    tokio::time::sleep(CALM).await;
    let (before, _) = stage.relay.resident_bytes();
    crowd::subscribe(relay, IDLE_SIZE, crowd::member, receiver).await?;
    crowd::publish(relay, receiver, once(IDLE_SIZE)).await?;
    tokio::time::sleep(CALM).await;
    let (after, highest) = stage.relay.resident_bytes();
    stage.relay.stop().await;
    stage.receiver.stop().await;
    let each_kib = after.saturating_sub(before) as f64 / 1024.0 / IDLE_SIZE as f64;
    let resident = Some(highest as f64 / (1024.0 * 1024.0));
    Ok(Findings::Measured(vec![Reading { relay_resident_mib: resident, ..Reading::absolute(each_kib) }]))
}
