//! What is to arrive at a receiver: it is waited for, and what does not come is told as lost.

use std::time::{Duration, Instant};

use crate::receiver::ReceiverStats;
use crate::wire::Connection;

/// How long everything may take to arrive.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the receiver is asked.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the receiver has seen.
pub(crate) async fn stats(control: &mut Connection) -> anyhow::Result<ReceiverStats> {
    Ok(serde_json::from_slice(&control.call("GET", "/stats", "text/plain", b"").await?)?)
}

/// So many of what a receiver counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    /// How many are to come, since the receiver counts anew.
    pub(crate) wanted: u64,
    /// What is counted.
    pub(crate) of: fn(&ReceiverStats) -> u64,
    /// How long they may take.
    pub(crate) patience: Duration,
    /// How often the receiver is asked, which costs it something.
    pub(crate) look_every: Duration,
}

impl Arrivals {
    /// So many deliveries that the receiver takes.
    pub(crate) fn deliveries(wanted: u64) -> Self {
        Self { wanted, of: |stats| stats.received, patience: PATIENCE, look_every: LOOK_EVERY }
    }

    /// Waits until they are there, no longer than the patience; gives what the receiver has seen then.
    ///
    /// # Errors
    /// When the receiver does not answer.
    pub(crate) async fn wait(&self, control: &mut Connection) -> anyhow::Result<ReceiverStats> {
        let began = Instant::now();
        loop {
            let stats = stats(control).await?;
            if (self.of)(&stats) >= self.wanted || began.elapsed() >= self.patience {
                return Ok(stats);
            }
            tokio::time::sleep(self.look_every).await;
        }
    }

    /// The same, and each of them must be there.
    ///
    /// # Errors
    /// When some are not, which speaks against the relay, or the receiver does not answer.
    pub(crate) async fn all(&self, control: &mut Connection) -> anyhow::Result<ReceiverStats> {
        let stats = self.wait(control).await?;
        let arrived = (self.of)(&stats);
        anyhow::ensure!(arrived >= self.wanted, lost(arrived, self.wanted, self.patience));
        Ok(stats)
    }
}

/// What is said of a relay whose deliveries do not all arrive.
pub(crate) fn lost(arrived: u64, wanted: u64, patience: Duration) -> anyhow::Error {
    anyhow::anyhow!("the relay lost deliveries or held them back: {arrived} of {wanted} arrived within {patience:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A receiver that has seen three deliveries, and sees no more.
    async fn after_three() -> Connection {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = Connection::open(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let body = serde_json::to_string(&ReceiverStats { received: 3, ..ReceiverStats::default() }).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            while stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        connection
    }

    #[tokio::test]
    async fn a_relay_that_loses_deliveries_is_told_as_one() {
        let mut control = after_three().await;
        let arrivals = |wanted| Arrivals { patience: Duration::ZERO, ..Arrivals::deliveries(wanted) };
        assert_eq!(arrivals(3).all(&mut control).await.unwrap().received, 3);
        let told = arrivals(4).all(&mut control).await.unwrap_err().to_string();
        assert_eq!(told, "the relay lost deliveries or held them back: 3 of 4 arrived within 0ns");
        assert_eq!(arrivals(4).wait(&mut control).await.unwrap().received, 3, "a row may say how many came");
    }
}
