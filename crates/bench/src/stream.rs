//! Streams with a thousand clients: one event at a time, a steady rate and full speed beside nginx with nchan, read by the same
//! clients in the same run; and what a client costs in memory while it is idle.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Server};
use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::pace::Pace;
use crate::peer;
use crate::receiver::now_us;
use crate::wire::Connection;

/// A row beside the peer, at full speed; its words are to be added.
const BESIDE_PEER: Row = Row { what: "", against: "nginx + nchan", unit: "/s", target: Target::Processor(10.0) };

/// A row about the memory of a client, the second one.
const RESIDENT: Row = Row { what: "the same after a burst", against: "", unit: "KiB", target: Target::AtMost(13.0) };

/// The next event once every client has the last one.
pub(crate) const SINGLE: Experiment = Experiment {
    name: "stream-single",
    subject: Subject::Stream,
    rows: &[Row { what: "1,000 SSE clients, one event at a time", target: Target::Processor(1.0), ..BESIDE_PEER }],
    run: |terms| Box::pin(beside_peer(terms, "sse", single)),
};

/// Time from send to receipt at [`RATE`] events a second.
pub(crate) const DELAY: Experiment = Experiment {
    name: "stream-delay",
    rows: &[Row { what: "1,000 SSE clients, 50 events/s, p99", unit: "ms", target: Target::AtMost(1.3), ..BESIDE_PEER }],
    run: |terms| Box::pin(beside_peer(terms, "sse", delay)),
    ..SINGLE
};

/// A producer that sends as much as the clients take.
pub(crate) const FULL: Experiment = Experiment {
    name: "stream-full",
    rows: &[Row { what: "1,000 SSE clients, full speed", ..BESIDE_PEER }],
    run: |terms| Box::pin(beside_peer(terms, "sse", full)),
    ..SINGLE
};

/// The same as lines of JSON; the peer goes on with server-sent events.
pub(crate) const FULL_NDJSON: Experiment = Experiment {
    name: "stream-full-ndjson",
    rows: &[Row { what: "1,000 NDJSON clients, full speed", ..BESIDE_PEER }],
    run: |terms| Box::pin(beside_peer(terms, "ndjson", full)),
    ..SINGLE
};

/// The same over `WebSockets`; the peer goes on with server-sent events.
pub(crate) const FULL_WS: Experiment = Experiment {
    name: "stream-full-ws",
    rows: &[Row { what: "1,000 WebSocket clients, full speed", ..BESIDE_PEER }],
    run: |terms| Box::pin(beside_peer(terms, "ws", full)),
    ..SINGLE
};

/// Memory.
pub(crate) const IDLE: Experiment = Experiment {
    name: "stream-idle",
    rows: &[Row { what: "resident a further idle SSE client", ..RESIDENT }, RESIDENT],
    run: |terms| Box::pin(idle(terms, "sse")),
    ..SINGLE
};

/// Memory of `WebSockets`.
pub(crate) const IDLE_WS: Experiment = Experiment {
    name: "stream-idle-ws",
    rows: &[Row { what: "resident a further idle WebSocket client", ..RESIDENT }, RESIDENT],
    run: |terms| Box::pin(idle(terms, "ws")),
    ..SINGLE
};

/// Clients of every row but the last.
const CLIENTS: u64 = 1_000;
/// Clients whose memory is measured, on top of [`CLIENTS`].
const FURTHER_CLIENTS: u64 = 4_000;
/// Events a second of the delay.
const RATE: u32 = 50;
/// Events that may be published and not yet received by everybody.
const AHEAD_MAX: u64 = 4_000;
/// Connections of the producer where a request carries one event.
const PRODUCERS: usize = 8;
/// Time for the system to account for what just happened.
const SETTLE: Duration = Duration::from_secs(1);
/// What warms connections and clients up.
const WARM_UP_EVENTS: u64 = 20;

/// One event of about 140 bytes, a tick of a market, sent now.
fn event(number: u64) -> String {
    event_sent(number, now_us())
}

fn event_sent(number: u64, sent_us: u64) -> String {
    format!(
        "{{\"number\":{number},\"sent_us\":{sent_us:016},\"symbol\":\"HOOK\",\"price\":102.44,\"size\":1200,\"venue\":\"XLON\",\
         \"side\":\"buy\",\"conditions\":[\"regular\"]}}"
    )
}

/// What clients got.
struct Got {
    /// Events a second or a delay, as the row has it.
    figure: f64,
    /// Events, all clients together.
    received: u64,
    /// Events published.
    sent: u64,
}

/// Measures the peer, then the relay with streams of a format.
async fn beside_peer<F>(terms: Terms, format: &'static str, measure: F) -> anyhow::Result<Findings>
where
    F: AsyncFn(&mut Crowd, Terms) -> anyhow::Result<Got>,
{
    let mut limit = None;
    if terms.want_limit() {
        let Some(module) = peer::module() else {
            return Ok(Findings::Skipped(String::from("needs nginx with nchan: apt-get install nginx-light libnginx-mod-nchan")));
        };
        let (figure, cost, _) = read(Server::peer(&module).await?, format, Terms { work: None, ..terms }, &measure).await?;
        limit = Some((figure, cost.cpu_us));
    }
    let (figure, cost, resident_bytes) = read(Server::relay(terms).await?, format, terms, &measure).await?;
    Ok(Findings::Measured(vec![Reading::costing(figure, cost, limit).with_resident(resident_bytes)]))
}

/// The figure of one server, what an event that a client received cost it, and its memory.
async fn read<F>(server: Server, format: &'static str, terms: Terms, measure: &F) -> anyhow::Result<(f64, Cost, u64)>
where
    F: AsyncFn(&mut Crowd, Terms) -> anyhow::Result<Got>,
{
    let mut crowd = Crowd::gather(server, format, CLIENTS).await?;
    for number in 0..WARM_UP_EVENTS {
        crowd.publish(&event(number)).await?;
    }
    crowd.wait(WARM_UP_EVENTS).await?;
    terms.both_ready().await;
    let before = crowd.server.usage();
    let got = measure(&mut crowd, terms).await?;
    let cost = Cost { cpu_us: crowd.server.usage().since(&before) / got.received as f64, work: got.sent };
    let resident_bytes = crowd.server.resident_bytes();
    crowd.disperse().await;
    Ok((got.figure, cost, resident_bytes))
}

/// Events received a second, all clients together.
async fn single(crowd: &mut Crowd, terms: Terms) -> anyhow::Result<Got> {
    crowd.reset("/reset").await?;
    let (began, mut sent) = (Instant::now(), 0);
    while terms.go_on(began, sent).await {
        crowd.publish(&event(sent)).await?;
        sent += 1;
        crowd.wait(sent).await?;
    }
    let received = sent * crowd.clients;
    Ok(Got { figure: received as f64 / began.elapsed().as_secs_f64(), received, sent })
}

/// 99th percentile of the time from send to receipt in milliseconds.
async fn delay(crowd: &mut Crowd, terms: Terms) -> anyhow::Result<Got> {
    crowd.reset("/reset?timed").await?;
    let pace = Pace::from_now(RATE);
    // What is due does not wait for another measurement's turn.
    let events = terms.work.unwrap_or_else(|| pace.events(terms.duration));
    for number in 0..events {
        let sent_us = pace.wait(number).await;
        crowd.publish(&event_sent(number, sent_us)).await?;
    }
    let stats = crowd.wait(events).await?;
    Ok(Got { figure: stats.p99_us as f64 / 1000.0, received: stats.received, sent: events })
}

/// Events received a second, all clients together.
async fn full(crowd: &mut Crowd, terms: Terms) -> anyhow::Result<Got> {
    const LOOK_EVERY: Duration = Duration::from_millis(1);
    crowd.reset("/reset").await?;
    let (began, published, everywhere) = (Instant::now(), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let batch = crowd.server.batch();
    let producers = if batch == 1 { PRODUCERS } else { 1 };
    let mut tasks = Vec::new();
    for _ in 0..producers {
        let (published, everywhere, path) = (Rc::clone(&published), Rc::clone(&everywhere), crowd.server.publish_path());
        let mut intake = Connection::open(crowd.server.address()).await?;
        tasks.push(tokio::task::spawn_local(async move {
            while terms.go_on(began, published.get()).await {
                let from = published.get();
                if from > everywhere.get() + AHEAD_MAX {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                published.set(from + batch);
                let lines: Vec<String> = (from..from + batch).map(event).collect();
                let kind = if batch == 1 { "application/json" } else { "application/x-ndjson" };
                intake.call("POST", path, kind, lines.join("\n").as_bytes()).await?;
            }
            anyhow::Ok(())
        }));
    }
    while tasks.iter().any(|task| !task.is_finished()) {
        everywhere.set(crowd.stats().await?.received / crowd.clients);
        tokio::time::sleep(LOOK_EVERY).await;
    }
    for task in tasks {
        task.await??;
    }
    let stats = crowd.wait(published.get()).await?;
    let figure = stats.received as f64 / began.elapsed().as_secs_f64();
    Ok(Got { figure, received: stats.received, sent: published.get() })
}

async fn idle(terms: Terms, format: &'static str) -> anyhow::Result<Findings> {
    let kib = |bytes: u64, base: u64| bytes.saturating_sub(base) as f64 / 1024.0 / FURTHER_CLIENTS as f64;
    let burst = Terms { duration: SETTLE, work: None, ..terms };
    let mut crowd = Crowd::gather(Server::relay(terms).await?, format, CLIENTS).await?;
    full(&mut crowd, burst).await?;
    tokio::time::sleep(SETTLE).await;
    let base = crowd.server.resident_bytes();
    crowd.grow(FURTHER_CLIENTS).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = crowd.server.resident_bytes();
    full(&mut crowd, burst).await?;
    tokio::time::sleep(SETTLE).await;
    let after = crowd.server.resident_bytes();
    crowd.disperse().await;
    Ok(Findings::Measured(vec![Reading::absolute(kib(idle, base)), Reading::absolute(kib(after, base))]))
}
