//! Streams with a thousand clients: one event at a time, a steady rate and full speed beside nginx with nchan, read by the same
//! clients in the same run; and what a client costs in memory while it is idle.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Server};
use crate::experiment::{Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::peer;
use crate::receiver::now_us;
use crate::wire::Connection;

/// What the peer's rows are held against.
const PEER: &str = "nginx + nchan";

/// The next event once every client has the last one.
pub(crate) const SINGLE: Experiment = Experiment {
    name: "stream-single",
    subject: Subject::Stream,
    rows: &[Row { what: "1,000 SSE clients, one event at a time", against: PEER, unit: "/s", target: Target::AtLeast(1.1) }],
    run: |terms| Box::pin(beside_peer(terms, "sse", single)),
};

/// Time from send to receipt at [`RATE`] events a second.
pub(crate) const DELAY: Experiment = Experiment {
    name: "stream-delay",
    subject: Subject::Stream,
    rows: &[Row { what: "1,000 SSE clients, 50 events/s, p99", against: PEER, unit: "ms", target: Target::AtMost(1.3) }],
    run: |terms| Box::pin(beside_peer(terms, "sse", delay)),
};

/// A producer that sends as much as the clients take.
pub(crate) const FULL: Experiment = Experiment {
    name: "stream-full",
    subject: Subject::Stream,
    rows: &[Row { what: "1,000 SSE clients, full speed", against: PEER, unit: "/s", target: Target::AtLeast(10.0) }],
    run: |terms| Box::pin(beside_peer(terms, "sse", full)),
};

/// The same as lines of JSON; the peer goes on with server-sent events.
pub(crate) const FULL_NDJSON: Experiment = Experiment {
    name: "stream-full-ndjson",
    subject: Subject::Stream,
    rows: &[Row { what: "1,000 NDJSON clients, full speed", against: PEER, unit: "/s", target: Target::AtLeast(10.0) }],
    run: |terms| Box::pin(beside_peer(terms, "ndjson", full)),
};

/// The same over `WebSockets`; the peer goes on with server-sent events.
pub(crate) const FULL_WS: Experiment = Experiment {
    name: "stream-full-ws",
    subject: Subject::Stream,
    rows: &[Row { what: "1,000 WebSocket clients, full speed", against: PEER, unit: "/s", target: Target::AtLeast(10.0) }],
    run: |terms| Box::pin(beside_peer(terms, "ws", full)),
};

/// Memory.
pub(crate) const IDLE: Experiment = Experiment {
    name: "stream-idle",
    subject: Subject::Stream,
    rows: &[
        Row { what: "resident a further idle SSE client", against: "", unit: "KiB", target: Target::AtMost(13.0) },
        Row { what: "the same after a burst", against: "", unit: "KiB", target: Target::AtMost(13.0) },
    ],
    run: |terms| Box::pin(idle(terms, "sse")),
};

/// Memory of `WebSockets`.
pub(crate) const IDLE_WS: Experiment = Experiment {
    name: "stream-idle-ws",
    subject: Subject::Stream,
    rows: &[
        Row { what: "resident a further idle WebSocket client", against: "", unit: "KiB", target: Target::AtMost(13.0) },
        Row { what: "the same after a burst", against: "", unit: "KiB", target: Target::AtMost(13.0) },
    ],
    run: |terms| Box::pin(idle(terms, "ws")),
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

/// One event of about 140 bytes, a tick of a market.
fn event(number: u64) -> String {
    format!(
        "{{\"number\":{number},\"sent_us\":{:016},\"symbol\":\"HOOK\",\"price\":102.44,\"size\":1200,\"venue\":\"XLON\",\
         \"side\":\"buy\",\"conditions\":[\"regular\"]}}",
        now_us()
    )
}

/// Measures the relay with streams of a format, then the peer.
async fn beside_peer<F>(terms: Terms, format: &'static str, measure: F) -> anyhow::Result<Findings>
where
    F: AsyncFn(&mut Crowd, Duration) -> anyhow::Result<(f64, u64)>,
{
    let Some(module) = peer::module() else {
        return Ok(Findings::Skipped(String::from("needs nginx with nchan: apt-get install nginx-light libnginx-mod-nchan")));
    };
    let mut found = Vec::new();
    for server in [Server::relay(terms).await?, Server::peer(&module).await?] {
        let mut crowd = Crowd::gather(server, format, CLIENTS).await?;
        for number in 0..WARM_UP_EVENTS {
            crowd.publish(&event(number)).await?;
        }
        crowd.wait(WARM_UP_EVENTS).await?;
        let cpu_before = crowd.server.cpu_us();
        let (figure, received) = measure(&mut crowd, terms.duration).await?;
        let cpu_us = (crowd.server.cpu_us() - cpu_before) as f64 / received as f64;
        found.push((figure, cpu_us, crowd.server.resident_bytes()));
        crowd.disperse().await;
    }
    let ((figure, cpu_us, resident_bytes), (limit, ..)) = (found[0], found[1]);
    Ok(Findings::Measured(vec![Reading {
        relay_cpu_us: Some(cpu_us),
        relay_resident_mib: Some(resident_bytes as f64 / (1024.0 * 1024.0)),
        ..Reading::ratio(figure, limit)
    }]))
}

/// Events received a second, all clients together, and how many.
async fn single(crowd: &mut Crowd, duration: Duration) -> anyhow::Result<(f64, u64)> {
    crowd.reset("/reset").await?;
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < duration {
        crowd.publish(&event(sent)).await?;
        sent += 1;
        crowd.wait(sent).await?;
    }
    let received = sent * crowd.clients;
    Ok((received as f64 / began.elapsed().as_secs_f64(), received))
}

/// 99th percentile of the time from send to receipt in milliseconds, and how many events were received.
async fn delay(crowd: &mut Crowd, duration: Duration) -> anyhow::Result<(f64, u64)> {
    crowd.reset("/reset?timed").await?;
    let (began, mut sent) = (Instant::now(), 0u32);
    while began.elapsed() < duration {
        let due = f64::from(sent) / f64::from(RATE);
        if let Some(wait) = Duration::from_secs_f64(due).checked_sub(began.elapsed()) {
            tokio::time::sleep(wait).await;
        }
        crowd.publish(&event(u64::from(sent))).await?;
        sent += 1;
    }
    let stats = crowd.wait(u64::from(sent)).await?;
    Ok((stats.p99_us as f64 / 1000.0, stats.received))
}

/// Events received a second, all clients together, and how many.
async fn full(crowd: &mut Crowd, duration: Duration) -> anyhow::Result<(f64, u64)> {
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
            while began.elapsed() < duration {
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
    Ok((stats.received as f64 / began.elapsed().as_secs_f64(), stats.received))
}

async fn idle(terms: Terms, format: &'static str) -> anyhow::Result<Findings> {
    let kib = |bytes: u64, base: u64| bytes.saturating_sub(base) as f64 / 1024.0 / FURTHER_CLIENTS as f64;
    let mut crowd = Crowd::gather(Server::relay(terms).await?, format, CLIENTS).await?;
    full(&mut crowd, SETTLE).await?;
    tokio::time::sleep(SETTLE).await;
    let base = crowd.server.resident_bytes();
    crowd.grow(FURTHER_CLIENTS).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = crowd.server.resident_bytes();
    full(&mut crowd, SETTLE).await?;
    tokio::time::sleep(SETTLE).await;
    let after = crowd.server.resident_bytes();
    crowd.disperse().await;
    Ok(Findings::Measured(vec![Reading::absolute(kib(idle, base)), Reading::absolute(kib(after, base))]))
}
