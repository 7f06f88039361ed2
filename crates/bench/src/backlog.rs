//! Catching up: one subscription with a long backlog, and very many that lag at once.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::arrivals::Arrivals;
use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::load::{self, BATCH_EVENTS};
use crate::process::Role;
use crate::receiver::now_us;
use crate::stage::{Stage, config};
use crate::usage::Usage;
use crate::wire::Connection;

/// One subscription that was paused while events went by.
pub(crate) const BACKLOG: Experiment = Experiment {
    name: "backlog",
    subject: Subject::Backlog,
    rows: &[Row {
        what: "deliveries out of a backlog of 200,000 events",
        against: "live, the same subscription",
        unit: "/s",
        target: Target::Processor(0.9),
    }],
    run: |terms| Box::pin(backlog_run(terms)),
};

/// Very many subscriptions from the beginning of the log.
pub(crate) const LAGGING: Experiment = Experiment {
    name: "lagging",
    subject: Subject::Backlog,
    rows: &[Row {
        what: "log reads, 10,000 subscriptions pass 100,000 events",
        against: "1 subscription",
        unit: "",
        target: Target::AtMost(3.0),
    }],
    run: |terms| Box::pin(lagging_run(terms)),
};

const BACKLOG_EVENTS: u64 = 200_000;
const LAGGING_EVENTS: u64 = 100_000;
const LAGGING_SIZE: u64 = 10_000;

async fn backlog_run(terms: Terms) -> anyhow::Result<Findings> {
    let stage = Stage::set(&terms.scene(1)).await?;
    let (relay, receiver) = (stage.relay.address, stage.receiver.address);
    let mut control = Connection::open(receiver).await?;
    let live_terms = if terms.want_limit() { terms } else { Terms { duration: Duration::ZERO, work: None, ..terms } };
    let live = load::deliver(&stage, 1, live_terms).await?;

    // Two connections, each opened when it is used: the relay ends one on which nothing comes for some seconds.
    let mut rest = Connection::open(relay).await?;
    rest.call("POST", "/v1/subscriptions/bench-0/pause", "application/json", b"").await?;
    control.call("POST", "/reset", "text/plain", b"").await?;
    publish(relay, "bench", BACKLOG_EVENTS).await?;
    let mut rest = Connection::open(relay).await?;
    let (before, began) = (stage.relay.usage(), Instant::now());
    rest.call("POST", "/v1/subscriptions/bench-0/resume", "application/json", b"").await?;
    Arrivals::deliveries(BACKLOG_EVENTS).all(&mut control).await?;
    let drained = BACKLOG_EVENTS as f64 / began.elapsed().as_secs_f64();
    let cost = Cost { cpu_us: stage.relay.usage().since(&before) / BACKLOG_EVENTS as f64, work: BACKLOG_EVENTS };
    let (_, highest) = stage.relay.resident_bytes();
    stage.relay.stop().await;
    stage.receiver.stop().await;
    let limit = terms.want_limit().then_some((live.rate, live.cost.cpu_us));
    Ok(Findings::Measured(vec![Reading::costing(drained, cost, limit).with_resident(highest)]))
}

async fn lagging_run(terms: Terms) -> anyhow::Result<Findings> {
    let Stage { relay, receiver, directory } = Stage::set(&terms.scene(0)).await?;
    let mut control = Connection::open(receiver.address).await?;
    publish(relay.address, "noise", LAGGING_EVENTS).await?;
    // The last event is for everybody, so whoever got it has passed the whole log.
    publish(relay.address, "end", 1).await?;
    relay.stop().await;
    let (one, relay) = catch_up(terms, 1, "o", &mut control, receiver.address, directory.path()).await?;
    relay.stop().await;
    let (all, relay) = catch_up(terms, LAGGING_SIZE, "a", &mut control, receiver.address, directory.path()).await?;
    let cost = Cost { cpu_us: relay.usage().since(&Usage::default()) / LAGGING_SIZE as f64, work: LAGGING_SIZE };
    let (_, highest) = relay.resident_bytes();
    relay.stop().await;
    receiver.stop().await;
    anyhow::ensure!(one > 0, "one subscription came through the log without reading it");
    let reading = Reading { cost: Some(cost), ..Reading::ratio(all as f64, one as f64) };
    Ok(Findings::Measured(vec![reading.with_resident(highest)]))
}

/// Starts a relay whose configuration has `count` new subscriptions from the beginning of the log, and waits until all of them
/// are through. Gives how often it read pages of the log for that.
async fn catch_up(
    terms: Terms,
    count: u64,
    name: &str,
    control: &mut Connection,
    receiver: SocketAddr,
    directory: &Path,
) -> anyhow::Result<(u64, Role)> {
    // Terse, because a configuration file has at most 1 MiB.
    let declared = (0..count).map(|number| {
        format!("[[subscriptions]]\nid=\"{name}{number}\"\nurl=\"http://{receiver}/hook\"\ntopics=[\"end\"]\nfrom=\"earliest\"\n")
    });
    std::fs::write(directory.join("config.toml"), format!("{}{}", config("failures"), declared.collect::<String>()))?;
    control.call("POST", "/reset", "text/plain", b"").await?;
    let relay = terms.serve(directory).await?;
    Arrivals::deliveries(count).all(control).await?;
    let reads = log_reads(&mut Connection::open(relay.address).await?).await?;
    Ok((reads, relay))
}

/// Publishes so many events in batches, as fast as they are taken.
pub(crate) async fn publish(relay: SocketAddr, topic: &str, events: u64) -> anyhow::Result<()> {
    let mut intake = Connection::open(relay).await?;
    let path = format!("/v1/topics/{topic}/events");
    let mut batch = String::new();
    let mut published = 0;
    while published < events {
        batch.clear();
        let to = events.min(published + BATCH_EVENTS as u64);
        for number in published..to {
            batch.push_str(&load::event(number, now_us()));
            batch.push('\n');
        }
        intake.call("POST", &path, "application/x-ndjson", batch.as_bytes()).await?;
        published = to;
    }
    Ok(())
}

/// How often the relay has read pages of its log, by its metrics.
async fn log_reads(rest: &mut Connection) -> anyhow::Result<u64> {
    let metrics = String::from_utf8(rest.call("GET", "/metrics", "text/plain", b"").await?)?;
    let value = metrics.lines().find_map(|line| line.strip_prefix("hookcast_log_reads_total "));
    Ok(value.context("the relay counts its reads of the log")?.trim().parse()?)
}
