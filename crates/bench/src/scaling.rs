//! How the relay's cost grows: its processor time at three sizes of one thing while everything else stays as it is.
//!
//! Processor time, not the clock: it changes little with what else the machine does.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::arrivals::Arrivals;
use crate::experiment::Terms;
use crate::load::BATCH_EVENTS;
use crate::receiver::now_us;
use crate::say::say;
use crate::stage::Stage;
use crate::wire::Connection;

/// Longest wait for one measurement.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One thing that grows.
struct Dimension {
    name: &'static str,
    /// What the cost is divided by.
    per: &'static str,
    sizes: [u64; 3],
    /// What stays as it is, with the size in its place.
    load: fn(u64) -> Load,
}

/// What one measurement does.
#[derive(Clone, Copy, Debug)]
struct Load {
    events: u64,
    payload_bytes: usize,
    /// Subscriptions to the topic.
    subscriptions: u64,
    /// Subscriptions to other topics.
    others: u64,
    topics: u64,
    clients: u64,
    /// Whether everything is published before anything is delivered.
    backlog: bool,
}

const USUAL: Load =
    Load { events: 20_000, payload_bytes: 600, subscriptions: 1, others: 0, topics: 1, clients: 0, backlog: false };

const DIMENSIONS: &[Dimension] = &[
    Dimension { name: "events", per: "event", sizes: [10_000, 40_000, 160_000], load: |size| Load { events: size, ..USUAL } },
    Dimension {
        name: "matching subscriptions",
        per: "event",
        sizes: [1, 10, 100],
        load: |size| Load { subscriptions: size, events: 5_000, ..USUAL },
    },
    Dimension {
        name: "other subscriptions",
        per: "event",
        sizes: [100, 1_000, 10_000],
        load: |size| Load { others: size, ..USUAL },
    },
    Dimension { name: "topics", per: "event", sizes: [10, 100, 1_000], load: |size| Load { topics: size, ..USUAL } },
    Dimension {
        name: "stream clients",
        per: "event",
        sizes: [10, 100, 1_000],
        load: |size| Load { clients: size, subscriptions: 0, events: 5_000, ..USUAL },
    },
    Dimension {
        name: "backlog",
        per: "event",
        sizes: [10_000, 40_000, 160_000],
        load: |size| Load { events: size, backlog: true, ..USUAL },
    },
    Dimension {
        name: "payload bytes",
        per: "event",
        sizes: [200, 2_000, 20_000],
        load: |size| Load { payload_bytes: usize::try_from(size).unwrap_or(usize::MAX), events: 10_000, ..USUAL },
    },
];

#[derive(Debug, Serialize)]
struct Growth {
    what: &'static str,
    sizes: [u64; 3],
    relay_cpu_us: [f64; 3],
    per: &'static str,
    /// Slope of the logarithm of the cost over the logarithm of the size: 0 = does not grow, 1 = grows as the size does.
    slope: f64,
}

/// Measures every dimension and prints the costs with their slopes.
///
/// # Errors
/// When a process does not start, or events do not arrive; what was found before it has been printed.
pub(crate) async fn run(terms: Terms, json: bool) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let done = find(terms, json, &mut found).await;
    if json {
        say(&serde_json::to_string(&found)?);
    }
    done
}

async fn find(terms: Terms, json: bool, found: &mut Vec<Growth>) -> anyhow::Result<()> {
    if !json {
        say("what grows               sizes                        relay CPU us / event            log-log slope");
    }
    for dimension in DIMENSIONS {
        let mut costs = [0.0; 3];
        for (cost, size) in costs.iter_mut().zip(dimension.sizes) {
            *cost = measure(terms, (dimension.load)(size)).await.with_context(|| format!("{} {size}", dimension.name))?;
        }
        let slope = slope(dimension.sizes.map(|size| size as f64), costs);
        if !json {
            let sizes = dimension.sizes.map(|size| size.to_string()).join(" / ");
            let costs = costs.map(|cost| format!("{cost:.1}")).join(" / ");
            say(&format!("{:<24} {sizes:<28} {costs:<31} {slope:.2}", dimension.name));
        }
        found.push(Growth { what: dimension.name, sizes: dimension.sizes, relay_cpu_us: costs, per: dimension.per, slope });
    }
    Ok(())
}

/// The relay's processor time for one event of `load`, in microseconds.
async fn measure(terms: Terms, load: Load) -> anyhow::Result<f64> {
    let stage = Stage::set(&terms.scene(0)).await?;
    subscribe(&stage, load).await?;
    let clients = listen(&stage, load).await?;
    let mut control = Connection::open(stage.receiver.address).await?;
    // The first events open connections and warm caches; they are not counted.
    publish(&stage, Load { events: 1_000.max(load.topics), ..load }, 0).await?;
    let warm = 1_000.max(load.topics);
    received(&mut control, if load.backlog { 0 } else { warm * load.subscriptions }).await?;
    let mut before = stage.relay.usage();
    publish(&stage, load, warm).await?;
    if load.backlog {
        before = stage.relay.usage();
        let mut admin = Connection::open(stage.relay.address).await?;
        for number in 0..load.subscriptions {
            admin.call("POST", &format!("/v1/subscriptions/to-{number}/resume"), "application/json", b"").await?;
        }
    }
    received(&mut control, (warm + load.events) * load.subscriptions).await?;
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await???;
    }
    let cost = stage.relay.usage().since(&before) / load.events as f64;
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok(cost)
}

async fn subscribe(stage: &Stage, load: Load) -> anyhow::Result<()> {
    let mut admin = Connection::open(stage.relay.address).await?;
    let to = (0..load.subscriptions).map(|number| (format!("to-{number}"), String::from("bench.*")));
    let other = (0..load.others).map(|number| (format!("other-{number}"), format!("other.{number}")));
    for (id, topic) in to.chain(other) {
        let body = serde_json::json!({
            "id": id, "url": format!("http://{}/hook", stage.receiver.address), "topics": [topic], "max_in_flight": 64,
        });
        admin.call("POST", "/v1/subscriptions", "application/json", body.to_string().as_bytes()).await?;
        if load.backlog {
            admin.call("POST", &format!("/v1/subscriptions/{id}/pause"), "application/json", b"").await?;
        }
    }
    Ok(())
}

/// A client of a stream that reads up to the last event.
type Client = tokio::task::JoinHandle<anyhow::Result<()>>;

async fn listen(stage: &Stage, load: Load) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..load.clients {
        let mut stream = Connection::open(stage.relay.address).await?;
        stream.send(b"GET /v1/topics/bench.*/stream?format=sse HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await?;
        stream.read_past(b"HTTP/1.1 200 OK\r\n").await?;
        clients.push(tokio::task::spawn_local(async move { stream.read_past(LAST).await }));
    }
    Ok(clients)
}

/// What only the last event holds.
const LAST: &[u8] = b"this is the last one";

/// Publishes the events in batches, smaller ones when they go to many topics.
async fn publish(stage: &Stage, load: Load, first: u64) -> anyhow::Result<()> {
    let mut intake = Connection::open(stage.relay.address).await?;
    let batch_events = if load.topics > 1 { 20 } else { (BATCH_EVENTS as u64).min(1_000_000 / load.payload_bytes as u64) };
    let end = first + load.events;
    let mut next = first;
    while next < end {
        let upto = (next + batch_events).min(end);
        let mut batch = String::new();
        for number in next..upto {
            let filling = load.payload_bytes.saturating_sub(60);
            let last = if first > 0 && number + 1 == end { std::str::from_utf8(LAST)? } else { "" };
            let sent_us = now_us();
            writeln!(batch, "{{\"number\":{number},\"sent_us\":{sent_us:016},\"text\":\"{last}{:x<filling$}\"}}", "")?;
        }
        let topic = format!("/v1/topics/bench.{}/events", next / batch_events % load.topics);
        intake.call("POST", &topic, "application/x-ndjson", batch.as_bytes()).await?;
        next = upto;
    }
    Ok(())
}

async fn received(control: &mut Connection, wanted: u64) -> anyhow::Result<()> {
    let arrivals = Arrivals { patience: PATIENCE, look_every: LOOK_EVERY, ..Arrivals::deliveries(wanted) };
    arrivals.all(control).await.map(drop)
}

/// Slope of the straight line closest to the logarithms.
fn slope(sizes: [f64; 3], costs: [f64; 3]) -> f64 {
    let (x, y) = (sizes.map(f64::ln), costs.map(f64::ln));
    let mean = |of: [f64; 3]| of.iter().sum::<f64>() / 3.0;
    let (x_mean, y_mean) = (mean(x), mean(y));
    let both: f64 = x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let spread: f64 = x.iter().map(|x| (x - x_mean).powi(2)).sum();
    both / spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_stays_has_slope_zero_and_one_that_follows_has_one() {
        let near = |slope: f64, wanted: f64| (slope - wanted).abs() < 1e-9;
        assert!(near(slope([1.0, 10.0, 100.0], [5.0, 5.0, 5.0]), 0.0));
        assert!(near(slope([1.0, 10.0, 100.0], [2.0, 20.0, 200.0]), 1.0));
        assert!(near(slope([1.0, 4.0, 16.0], [3.0, 6.0, 12.0]), 0.5));
    }
}
