//! `hookcast bench`: how much the relay costs over the bare POST, measured in one run on this machine.
//!
//! Producer, relay and receiver are processes of their own on loopback, the relay stores on disk with full durability. Times
//! mean nothing on a shared machine; the ratios to the limit measured beside them do.

#![allow(clippy::cast_precision_loss, reason = "counts become rates for people")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

mod load;
mod process;
mod receiver;
mod wire;

use super::directory::TemporaryDirectory;
use process::Role;
use wire::Connection;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Deliveries a second with 1 and with 10 subscriptions an event, against a bare POST loop.
    Deliver(DeliverArgs),
    /// Time from send to receipt at a moderate rate, one subscription.
    Latency(LatencyArgs),
    /// The receiver of a benchmark; started by the others.
    #[command(hide = true)]
    Receiver,
}

#[derive(Debug, Args)]
struct DeliverArgs {
    /// Length of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Pairs of limit and relay; the median ratio counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pairs: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct LatencyArgs {
    /// Length of the measurement.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Events a second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// One measurement of deliveries beside its limit.
#[derive(Clone, Debug, Serialize)]
struct DeliverRow {
    subscriptions: u64,
    deliveries_per_second: f64,
    limit_per_second: f64,
    ratio: f64,
    relay_cpu_us_per_delivery: f64,
    relay_resident_mib: f64,
}

/// One measurement of delays.
#[derive(Clone, Debug, Serialize)]
struct LatencyRow {
    rate: u32,
    events: u64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs a benchmark.
///
/// # Errors
/// When a process does not start, or events do not arrive.
pub async fn run(arguments: BenchArgs) -> anyhow::Result<()> {
    match arguments.bench {
        Bench::Deliver(arguments) => deliver(&arguments).await,
        Bench::Latency(arguments) => latency(&arguments).await,
        Bench::Receiver => receiver::serve(SocketAddr::from(([127, 0, 0, 1], 0))).await,
    }
}

/// Prints a line of the result.
#[allow(clippy::print_stdout, reason = "the output of the command")]
pub(super) fn say(line: &str) {
    println!("{line}");
}

async fn deliver(arguments: &DeliverArgs) -> anyhow::Result<()> {
    let duration = Duration::from_secs(arguments.seconds);
    let mut rows = Vec::new();
    for subscriptions in [1, 10] {
        let mut pairs = Vec::new();
        for _ in 0..arguments.pairs {
            pairs.push(deliver_pair(subscriptions, duration).await?);
        }
        pairs.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
        rows.push(pairs[pairs.len() / 2].clone());
    }
    if arguments.json {
        say(&serde_json::to_string(&rows)?);
        return Ok(());
    }
    say("subscriptions  deliveries/s   bare loop/s   ratio   relay CPU us/delivery   relay MiB");
    for row in &rows {
        say(&format!(
            "{:>13}  {:>12.0}  {:>12.0}  {:>6.3}  {:>22.1}  {:>10.1}",
            row.subscriptions,
            row.deliveries_per_second,
            row.limit_per_second,
            row.ratio,
            row.relay_cpu_us_per_delivery,
            row.relay_resident_mib
        ));
    }
    Ok(())
}

async fn deliver_pair(subscriptions: u64, duration: Duration) -> anyhow::Result<DeliverRow> {
    let stage = Stage::set(subscriptions).await?;
    let mut control = Connection::open(stage.receiver.address).await?;
    // One batch first: warm connections, and the receiver learns what a request looks like.
    load::produce(stage.relay.address, stage.receiver.address, subscriptions, Duration::ZERO.max(Duration::from_millis(300)))
        .await?;
    let request = load::stats(&mut control).await?.newest_request.into_bytes();
    control.call("POST", "/reset", "text/plain", b"").await?;
    let cpu_before = stage.relay.cpu_us();
    let (published, took) = load::produce(stage.relay.address, stage.receiver.address, subscriptions, duration).await?;
    let cpu_us = stage.relay.cpu_us() - cpu_before;
    let (_, resident) = stage.relay.resident_bytes();
    let receiver = stage.receiver.address;
    stage.relay.stop().await;
    let answered = load::bare_loop(receiver, request, duration).await?;
    stage.receiver.stop().await;
    let deliveries = (published * subscriptions) as f64;
    let (rate, limit) = (deliveries / took.as_secs_f64(), answered as f64 / duration.as_secs_f64());
    Ok(DeliverRow {
        subscriptions,
        deliveries_per_second: rate,
        limit_per_second: limit,
        ratio: rate / limit,
        relay_cpu_us_per_delivery: cpu_us as f64 / deliveries,
        relay_resident_mib: resident as f64 / (1024.0 * 1024.0),
    })
}

async fn latency(arguments: &LatencyArgs) -> anyhow::Result<()> {
    let stage = Stage::set(1).await?;
    let mut control = Connection::open(stage.receiver.address).await?;
    load::produce_paced(stage.relay.address, arguments.rate, Duration::from_secs(1)).await?;
    control.call("POST", "/reset?timed", "text/plain", b"").await?;
    let events = load::produce_paced(stage.relay.address, arguments.rate, Duration::from_secs(arguments.seconds)).await?;
    let mut stats = load::stats(&mut control).await?;
    while stats.received < events {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stats = load::stats(&mut control).await?;
    }
    stage.relay.stop().await;
    stage.receiver.stop().await;
    let row =
        LatencyRow { rate: arguments.rate, events, p50_ms: stats.p50_us as f64 / 1000.0, p99_ms: stats.p99_us as f64 / 1000.0 };
    if arguments.json {
        say(&serde_json::to_string(&row)?);
    } else {
        say("events/s   events   send to receipt p50 ms   p99 ms");
        say(&format!("{:>8}  {:>7}  {:>22.2}  {:>7.2}", row.rate, row.events, row.p50_ms, row.p99_ms));
    }
    Ok(())
}

/// A relay and a receiver in a directory of their own.
struct Stage {
    receiver: Role,
    relay: Role,
    _directory: TemporaryDirectory,
}

impl Stage {
    async fn set(subscriptions: u64) -> anyhow::Result<Self> {
        let directory = TemporaryDirectory::make("hookcast-bench")?;
        let receiver = Role::start(&["bench", "receiver"], directory.path()).await?;
        std::fs::write(directory.path().join("config.toml"), CONFIG)?;
        let relay = Role::start(&["serve", "--config", "config.toml"], directory.path()).await?;
        let mut control = Connection::open(relay.address).await?;
        for number in 0..subscriptions {
            let body = serde_json::json!({
                "id": format!("bench-{number}"), "url": format!("http://{}/hook", receiver.address), "topics": ["bench"],
                "max_in_flight": (128 / subscriptions).max(16),
            });
            control.call("POST", "/v1/subscriptions", "application/json", body.to_string().as_bytes()).await?;
        }
        Ok(Self { receiver, relay, _directory: directory })
    }
}

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[storage]
url = "sqlite://hookcast.db"
[history]
attempts = "failures"
[network]
allow = ["127.0.0.0/8"]
allow_http = true
"#;
