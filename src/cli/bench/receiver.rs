//! The receiver of a benchmark: answers every POST with 200 as cheaply as it can and keeps the time from send to receipt.
//!
//! It runs as a process of its own. `GET /stats` answers what it saw since the last `POST /reset`.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Buf as _, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::wire;
use crate::clock::{Clock as _, SystemClock};

/// What marks the send time in an event: microseconds since the epoch, sixteen digits.
pub(super) const SENT_MARK: &[u8] = b"\"sent_us\":";
const SENT_DIGITS: usize = 16;
/// Delays that are kept one by one.
const DELAYS_MAX: usize = 4_000_000;
/// The answer to every POST.
pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What a receiver saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ReceiverStats {
    /// POSTs answered.
    pub(super) received: u64,
    /// Those of them that were timed.
    pub(super) timed: u64,
    /// Median of the time from send to receipt.
    pub(super) p50_us: u64,
    /// 99th percentile of it.
    pub(super) p99_us: u64,
    /// Its processor time since it started.
    pub(super) cpu_us: u64,
    /// The head of the newest request, to be sent again by the bare loop.
    pub(super) newest_request: String,
}

#[derive(Debug, Default)]
struct Seen {
    received: u64,
    delays_us: Vec<u32>,
    newest: Vec<u8>,
    timed: bool,
}

/// Serves on `address` until the process ends; prints the bound address.
pub(super) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    super::say(&format!("receiving on http://{}", listener.local_addr()?));
    let seen = Rc::new(RefCell::new(Seen::default()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let seen = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            let _ = receive(stream, &seen).await;
        });
    }
}

async fn receive(mut stream: TcpStream, seen: &RefCell<Seen>) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        while let Some((head_bytes, body_bytes)) = wire::message_length(&buffer) {
            let whole = head_bytes + body_bytes;
            if buffer.len() < whole {
                break;
            }
            if buffer.starts_with(b"POST /hook") {
                note(&mut seen.borrow_mut(), &buffer[..whole], head_bytes);
                buffer.advance(whole);
                stream.write_all(OK).await?;
            } else {
                let answer = control(&mut seen.borrow_mut(), &buffer[..head_bytes]);
                buffer.advance(whole);
                stream.write_all(&answer).await?;
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

fn note(seen: &mut Seen, request: &[u8], head_bytes: usize) {
    seen.received += 1;
    if seen.received == 1 {
        seen.newest = request.to_vec();
    }
    if seen.timed && seen.delays_us.len() < DELAYS_MAX {
        let body = &request[head_bytes..];
        if let Some(at) = wire::find(body, SENT_MARK)
            && let Some(digits) = body.get(at + SENT_MARK.len()..at + SENT_MARK.len() + SENT_DIGITS)
            && let Some(sent_us) = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u64>().ok())
        {
            seen.delays_us.push(u32::try_from(now_us().saturating_sub(sent_us)).unwrap_or(u32::MAX));
        }
    }
}

fn control(seen: &mut Seen, head: &[u8]) -> Vec<u8> {
    if head.starts_with(b"POST /reset") {
        *seen = Seen { timed: wire::find(head, b"timed").is_some(), ..Seen::default() };
        return OK.to_vec();
    }
    seen.delays_us.sort_unstable();
    let quantile = |part: usize| seen.delays_us.get(seen.delays_us.len() * part / 100).map_or(0, |delay| u64::from(*delay));
    let stats = ReceiverStats {
        received: seen.received,
        timed: seen.delays_us.len() as u64,
        p50_us: quantile(50),
        p99_us: quantile(99),
        cpu_us: super::process::own_cpu_us(),
        newest_request: String::from_utf8_lossy(&seen.newest).into_owned(),
    };
    let body = serde_json::to_vec(&stats).unwrap_or_default();
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// Microseconds since the epoch.
#[allow(clippy::disallowed_methods, reason = "delays are measured in microseconds, finer than a Timestamp")]
pub(super) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or_else(|_| SystemClock.now().0.unsigned_abs() * 1000, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}
