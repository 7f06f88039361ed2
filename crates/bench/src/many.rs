//! Many subscriptions: how they are made, and how events for all of them are published.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::arrivals;
use crate::load;
use crate::receiver::now_us;
use crate::wire::Connection;

/// Connections over which subscriptions are made: whoever waits for the disk is stored together with others.
const MAKERS: u64 = 256;
/// Connections over which events are published.
const PRODUCERS: u64 = 64;
/// Subscriptions that want the same topic.
pub(crate) const SHARING: u64 = 10;
/// Events that may be published and not yet received by everybody: what ten subscriptions may have in flight must not be held
/// against what a hundred thousand may.
const AHEAD_MAX: u64 = 200;
/// How long everything may take to arrive.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the receiver is asked.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Makes subscriptions with these numbers over REST; `body` says what the numbered one looks like.
///
/// # Errors
/// When the relay refuses one.
pub(crate) async fn subscribe(
    relay: SocketAddr,
    receiver: SocketAddr,
    numbers: Range<u64>,
    body: fn(u64, SocketAddr) -> serde_json::Value,
) -> anyhow::Result<()> {
    let numbers = std::cell::RefCell::new(numbers);
    let numbers = &numbers;
    let makers = (0..MAKERS).map(|_| async move {
        let mut connection = Connection::open(relay).await?;
        loop {
            let Some(number) = numbers.borrow_mut().next() else { return anyhow::Ok(()) };
            let body = body(number, receiver).to_string();
            connection.call("POST", "/v1/subscriptions", "application/json", body.as_bytes()).await?;
        }
    });
    futures_util::future::try_join_all(makers).await.map(drop)
}

/// The numbered subscription of a crowd: ten of them want each topic `crowd.<n>`.
pub(crate) fn member(number: u64, receiver: SocketAddr) -> serde_json::Value {
    serde_json::json!({
        "id": format!("crowd-{number}"), "url": format!("http://{receiver}/hook"),
        "topics": [format!("crowd.{}", number / SHARING)], "max_in_flight": 16,
    })
}

/// One of ten subscriptions that want every topic of a crowd.
pub(crate) fn listener(number: u64, receiver: SocketAddr) -> serde_json::Value {
    serde_json::json!({
        "id": format!("crowd-{number}"), "url": format!("http://{receiver}/hook"), "topics": ["crowd.*"], "max_in_flight": 16,
    })
}

/// What is published to a crowd.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    /// Topics, gone through in turn.
    pub(crate) topics: u64,
    /// Events a request.
    pub(crate) batch: u64,
    /// How long it goes on.
    pub(crate) duration: Duration,
    /// Most events in all.
    pub(crate) events_max: u64,
}

/// Publishes to the topics of a crowd in turn, never far ahead of the receiver; then waits until everything was received ten
/// times. Gives how many events were published and how long it all took.
///
/// # Errors
/// When events do not arrive in time.
pub(crate) async fn publish(relay: SocketAddr, receiver: SocketAddr, rounds: Rounds) -> anyhow::Result<(u64, Duration)> {
    let began = Instant::now();
    let mut control = Connection::open(receiver).await?;
    let earlier = arrivals::stats(&mut control).await?.received;
    let (arrived, sent) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let (arrived, sent) = (&arrived, &sent);
    let producers = (0..PRODUCERS).map(|_| async move {
        let mut intake = Connection::open(relay).await?;
        let mut text = String::new();
        while began.elapsed() < rounds.duration && sent.get() < rounds.events_max {
            if sent.get() > arrived.get() / SHARING + AHEAD_MAX {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let first = sent.get();
            sent.set(first + rounds.batch);
            text.clear();
            for number in first..first + rounds.batch {
                text.push_str(&load::event(number, now_us()));
                text.push('\n');
            }
            let path = format!("/v1/topics/crowd.{}/events", first / rounds.batch % rounds.topics);
            intake.call("POST", &path, "application/x-ndjson", text.as_bytes()).await?;
        }
        anyhow::Ok(())
    });
    let looking = async {
        loop {
            arrived.set(arrivals::stats(&mut control).await?.received - earlier);
            let is_over = began.elapsed() >= rounds.duration || sent.get() >= rounds.events_max;
            if is_over && arrived.get() >= sent.get() * SHARING {
                return anyhow::Ok(());
            }
            if began.elapsed() > rounds.duration + PATIENCE {
                return Err(arrivals::lost(arrived.get(), sent.get() * SHARING, rounds.duration + PATIENCE));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::try_join!(futures_util::future::try_join_all(producers), looking)?;
    Ok((sent.get(), began.elapsed()))
}
