//! Events at a steady rate: when each is due, and how late it goes out.
//!
//! A delay is measured from when an event was due. Measured from when it was sent, a relay that takes nothing for a while would delay
//! only the events that are on their way then, and none of those that have to wait for them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::load::event;
use crate::receiver::now_us;
use crate::wire::Connection;

/// What a timer may be late by, which is nobody's delay.
const TIMER: Duration = Duration::from_millis(2);

/// A steady rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    began: Instant,
    /// Events a second.
    rate: u32,
}

impl Pace {
    /// So many events a second from now on.
    pub(crate) fn from_now(rate: u32) -> Self {
        Self { began: Instant::now(), rate }
    }

    /// How many events are due within this time.
    pub(crate) fn events(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_micros() * u128::from(self.rate) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// Waits until an event is due, the first at once; gives the time of sending that it is to carry (see [`sent_us`]).
    pub(crate) async fn wait(&self, number: u64) -> u64 {
        let due = Duration::from_secs_f64(number as f64 / f64::from(self.rate));
        if let Some(wait) = due.checked_sub(self.began.elapsed()) {
            tokio::time::sleep(wait).await;
        }
        sent_us(now_us(), self.began.elapsed().saturating_sub(due))
    }
}

/// When an event that is so late should have been sent, as far as its lateness is more than a timer's; in microseconds since the
/// epoch.
fn sent_us(now_us: u64, late: Duration) -> u64 {
    now_us.saturating_sub(u64::try_from(late.saturating_sub(TIMER).as_micros()).unwrap_or(u64::MAX))
}

/// What an answer may take without the next event having to wait for a connection.
const ANSWER_MS: u32 = 50;
/// How long the last events may be late.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publishes every event that is due within `duration` at `rate` a second, however late; gives how many.
///
/// # Errors
/// When the relay refuses one, or has not taken them all half a minute later.
pub(crate) async fn publish(relay: SocketAddr, rate: u32, duration: Duration) -> anyhow::Result<u64> {
    let opening = (0..connections(rate)).map(|_| Connection::open(relay));
    let intakes = futures_util::future::try_join_all(opening).await?;
    publish_on(intakes, Pace::from_now(rate), duration, PATIENCE).await
}

/// Connections that keep the rate for as long as answers take no longer than [`ANSWER_MS`].
fn connections(rate: u32) -> u32 {
    (rate * ANSWER_MS).div_ceil(1000)
}

async fn publish_on(intakes: Vec<Connection>, pace: Pace, duration: Duration, patience: Duration) -> anyhow::Result<u64> {
    let (events, next, taken) = (pace.events(duration), Cell::new(0), Cell::new(0));
    let (next, taken) = (&next, &taken);
    // Whoever is free takes the event that is due next.
    let publishers = intakes.into_iter().map(|mut intake| async move {
        while next.get() < events {
            let number = next.replace(next.get() + 1);
            let body = event(number, pace.wait(number).await);
            intake.call("POST", "/v1/topics/bench/events", "application/json", body.as_bytes()).await?;
            taken.set(taken.get() + 1);
        }
        anyhow::Ok(())
    });
    let done = tokio::time::timeout(duration + patience, futures_util::future::try_join_all(publishers)).await;
    let (rate, late) = (pace.rate, patience);
    done.map_err(|_| anyhow::anyhow!("the relay took {} of {events} events at {rate}/s, {late:?} late", taken.get()))??;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::receiver::SENT_MARK;
    use crate::wire;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// A connection, and the other side of it.
    async fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = Connection::open(listener.local_addr().unwrap()).await.unwrap();
        (connection, listener.accept().await.unwrap().0)
    }

    /// A pace that has been going for so long.
    fn for_ms(rate: u32, ms: u64) -> Pace {
        Pace { began: Instant::now().checked_sub(Duration::from_millis(ms)).unwrap(), rate }
    }

    #[test]
    fn lateness_counts_and_a_timer_does_not() {
        let sent_us = |late_ms| sent_us(1_000_000, Duration::from_millis(late_ms));
        assert_eq!([0, 1, 2, 3, 500].map(sent_us), [1_000_000, 1_000_000, 1_000_000, 999_000, 502_000]);
    }

    #[test]
    fn a_rate_has_the_connections_that_it_takes() {
        assert_eq!([10, 200, 5_000].map(connections), [1, 10, 250]);
    }

    #[tokio::test]
    async fn what_waits_for_an_answer_to_others_is_sent_as_of_when_it_was_due() {
        let (intake, mut relay) = connected().await;
        let bodies = Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = Rc::clone(&bodies);
        let relaying = async move {
            let mut buffer = bytes::BytesMut::new();
            while relay.read_buf(&mut buffer).await.unwrap() > 0 {
                if let Some((head_bytes, body_bytes)) = wire::message_length(&buffer)
                    && buffer.len() == head_bytes + body_bytes
                {
                    seen.borrow_mut().push(buffer.split());
                    relay.write_all(b"HTTP/1.1 202 Accepted\r\n\r\n").await.unwrap();
                }
            }
        };
        // The last of them was due long ago, the first a second before it.
        let before_us = now_us();
        let publishing = publish_on(vec![intake], for_ms(10, 60_000), Duration::from_secs(1), PATIENCE);
        let (published, ()) = tokio::join!(publishing, relaying);
        let sent_us = |body: &bytes::BytesMut| -> u64 {
            let at = wire::find(body, SENT_MARK).unwrap() + SENT_MARK.len();
            std::str::from_utf8(&body[at..at + 16]).unwrap().parse().unwrap()
        };
        let sent_us: Vec<u64> = bodies.borrow().iter().map(sent_us).collect();
        assert_eq!((published.unwrap(), sent_us.len()), (10, 10), "what is late is published all the same");
        assert!(sent_us.iter().all(|sent_us| *sent_us < before_us - 50_000_000), "{sent_us:?} at {before_us}");
    }

    #[tokio::test]
    async fn a_relay_that_does_not_take_the_rate_is_told() {
        let (intake, _silent) = connected().await;
        let published = publish_on(vec![intake], for_ms(1000, 10), Duration::from_millis(10), Duration::ZERO).await;
        let told = published.unwrap_err().to_string();
        assert!(told.starts_with("the relay took 0 of 10 events at 1000/s"), "{told}");
    }
}
