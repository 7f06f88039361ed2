//! The loads of a benchmark: the bare loop that sets the limit, and the producer that feeds the relay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::arrivals::{self, Arrivals};
use crate::experiment::{Cost, Terms};
use crate::receiver::{OK, now_us};
use crate::stage::Stage;
use crate::usage::Usage;
use crate::wire::Connection;

/// Connections of the bare loop.
pub(crate) const LOOP_CONNECTIONS: usize = 64;
/// Events in one batch of the producer.
pub(crate) const BATCH_EVENTS: usize = 500;
/// Events that may be published and not yet received by everybody.
const AHEAD_MAX: u64 = 8 * BATCH_EVENTS as u64;

/// What is sent before a measurement, so that connections are open and caches filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// Posts `request` over and over on every connection for `duration`; gives how many were answered in a second, and the processor
/// time of this process for each.
pub(crate) async fn bare_loop(receiver: SocketAddr, request: &[u8], duration: Duration) -> anyhow::Result<(f64, f64)> {
    post_over_and_over(receiver, request, WARM_UP).await?;
    let (before, began) = (Usage::own(), Instant::now());
    let answered = post_over_and_over(receiver, request, duration).await? as f64;
    Ok((answered / began.elapsed().as_secs_f64(), Usage::own().since(&before) / answered))
}

async fn post_over_and_over(receiver: SocketAddr, request: &[u8], duration: Duration) -> anyhow::Result<u64> {
    let end = Instant::now() + duration;
    let mut tasks = Vec::new();
    for _ in 0..LOOP_CONNECTIONS {
        let request = request.to_vec();
        tasks.push(tokio::task::spawn_local(async move {
            let mut connection = Connection::open(receiver).await?;
            let mut answered = 0;
            while Instant::now() < end {
                connection.exchange_known(&request, OK.len()).await?;
                answered += 1;
            }
            anyhow::Ok(answered)
        }));
    }
    let mut answered = 0;
    for task in tasks {
        answered += task.await??;
    }
    Ok(answered)
}

/// One event of about 600 bytes with its send time.
pub(crate) fn event(number: u64, sent_us: u64) -> String {
    const COMMENT: &str = "The quick brown fox jumps over the lazy dog and then it goes on and on about the fences, hedges and \
        gates that it has seen on the way, which fills the event up to the size that an edit of an encyclopedia has. The \
        lazy dog, however, has seen all of that before and would rather talk about the weather of the last few days, which was \
        mild for the season, with some rain in the evening hours and a moderate wind from the west that shook the apples off.";
    // A thousand pages, in no order.
    let page = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 1000;
    format!(
        "{{\"number\":{number},\"sent_us\":{sent_us:016},\"channel\":\"#en.wikipedia\",\"page\":\"Hedgehog {page:03}\",\
         \"user\":\"Somebody\",\"comment\":\"{COMMENT}\",\"delta\":36,\"isRobot\":false}}"
    )
}

/// What came of deliveries.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// Deliveries a second while events were published, without waiting for the last ones.
    pub(crate) rate: f64,
    /// What one cost the relay; the work is events published.
    pub(crate) cost: Cost,
    /// The newest request, as the receiver got it.
    pub(crate) request: Vec<u8>,
}

/// Publishes batches as the terms say, never further ahead of the receiver than a few batches, and waits until everything was
/// received. The receiver counts anew.
pub(crate) async fn deliver(stage: &Stage, subscriptions: u64, terms: Terms) -> anyhow::Result<Delivered> {
    let mut flow = Flow::open(stage.relay.address, stage.receiver.address, subscriptions).await?;
    flow.control.call("POST", "/reset", "text/plain", b"").await?;
    let began = Instant::now();
    while began.elapsed() < WARM_UP {
        flow.step().await?;
    }
    flow.drain().await?;
    terms.both_ready().await;
    let (before, first, arrived) = (stage.relay.usage(), flow.published, flow.arrived().await?);
    let began = Instant::now();
    while terms.go_on(began, flow.published - first).await {
        flow.step().await?;
    }
    let rate = (flow.arrived().await? - arrived) as f64 / began.elapsed().as_secs_f64();
    flow.drain().await?;
    let cpu_us = stage.relay.usage().since(&before);
    let work = flow.published - first;
    let request = arrivals::stats(&mut flow.control).await?.newest_request.into_bytes();
    Ok(Delivered { rate, cost: Cost { cpu_us: cpu_us / (work * subscriptions) as f64, work }, request })
}

/// How often the receiver is asked.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A producer that keeps in step with the receiver.
struct Flow {
    intake: Connection,
    control: Connection,
    subscriptions: u64,
    published: u64,
    batch: String,
}

impl Flow {
    async fn open(relay: SocketAddr, receiver: SocketAddr, subscriptions: u64) -> anyhow::Result<Self> {
        let (intake, control) = (Connection::open(relay).await?, Connection::open(receiver).await?);
        Ok(Self { intake, control, subscriptions, published: 0, batch: String::new() })
    }

    /// Waits until everything that was published has been received.
    async fn drain(&mut self) -> anyhow::Result<()> {
        Arrivals::deliveries(self.published * self.subscriptions).all(&mut self.control).await.map(drop)
    }

    async fn arrived(&mut self) -> anyhow::Result<u64> {
        Ok(arrivals::stats(&mut self.control).await?.received)
    }

    /// Publishes a batch, or waits a little when too much is on its way.
    async fn step(&mut self) -> anyhow::Result<()> {
        if self.published > self.arrived().await? / self.subscriptions + AHEAD_MAX {
            tokio::time::sleep(LOOK_EVERY).await;
            return Ok(());
        }
        self.published = publish_batch(&mut self.intake, &mut self.batch, self.published).await?;
        Ok(())
    }
}

/// Publishes one batch of events that are numbered from `published` on; gives the number behind it.
pub(crate) async fn publish_batch(intake: &mut Connection, batch: &mut String, published: u64) -> anyhow::Result<u64> {
    batch.clear();
    for number in 0..BATCH_EVENTS as u64 {
        batch.push_str(&event(published + number, now_us()));
        batch.push('\n');
    }
    intake.call("POST", "/v1/topics/bench/events", "application/x-ndjson", batch.as_bytes()).await?;
    Ok(published + BATCH_EVENTS as u64)
}
