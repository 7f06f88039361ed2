//! The receiver of a benchmark: answers every POST with 200 as cheaply as it can and keeps the time from send to receipt.
//!
//! It runs as a process of its own. `GET /stats` answers what it saw since the last `POST /reset`. On request it fails some of the
//! POSTs, takes its time for an answer, stands at several addresses, or is down until the next reset; it never answers `/hang`.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::wire;
use hookcast_core::clock::{Clock as _, SystemClock};

/// What marks the send time in an event: microseconds since the epoch, sixteen digits.
pub(crate) const SENT_MARK: &[u8] = b"\"sent_us\":";
const SENT_DIGITS: usize = 16;
/// Delays that are kept one by one.
const DELAYS_MAX: usize = 4_000_000;
/// The answer to every POST.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The answer to a POST that is to fail.
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// The answer to a POST that is refused.
const REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

/// How a receiver behaves.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ReceiverArgs {
    /// Answer every n-th POST with 500; 0 = none.
    #[arg(long, default_value_t = 0)]
    fail_every: u64,
    /// Answer every POST with 400.
    #[arg(long)]
    refuse: bool,
    /// Answer POSTs after so many milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Count the lines of bodies, for batches of NDJSON.
    #[arg(long)]
    lines: bool,
    /// Stand at 127.0.0.1, 127.0.0.2 and so on, at one port.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=254))]
    addresses: u8,
}

/// What a receiver saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReceiverStats {
    /// POSTs answered with 200.
    pub(crate) received: u64,
    /// POSTs answered with 500.
    pub(crate) failed: u64,
    /// Those of them that were timed.
    pub(crate) timed: u64,
    /// Median of the time from send to receipt.
    pub(crate) p50_us: u64,
    /// 99th percentile of it.
    pub(crate) p99_us: u64,
    /// Most of the timed ones in any second.
    pub(crate) peak: u64,
    /// The head of the newest request, to be sent again by the bare loop.
    pub(crate) newest_request: String,
}

#[derive(Debug, Default)]
struct Seen {
    received: u64,
    failed: u64,
    delays_us: Vec<u32>,
    came_at_us: Vec<u64>,
    is_down: bool,
    newest: Vec<u8>,
    timed: bool,
}

/// Serves until the process ends; prints the first address.
pub(crate) async fn serve(behaviour: ReceiverArgs) -> anyhow::Result<()> {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut port = 0;
    let mut listeners = Vec::new();
    for last in 1..=behaviour.addresses {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    crate::say::say(&format!("receiving on http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    let accepting: Vec<_> =
        listeners.into_iter().map(|listener| tokio::task::spawn_local(accept(listener, Rc::clone(&seen), behaviour))).collect();
    for task in accepting {
        task.await??;
    }
    Ok(())
}

async fn accept(listener: TcpListener, seen: Rc<RefCell<Seen>>, behaviour: ReceiverArgs) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let seen = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            let _ = receive(stream, &seen, behaviour).await;
        });
    }
}

async fn receive(mut stream: TcpStream, seen: &RefCell<Seen>, behaviour: ReceiverArgs) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        while let Some((head_bytes, body_bytes)) = wire::message_length(&buffer) {
            let whole = head_bytes + body_bytes;
            if buffer.len() < whole {
                buffer.reserve(whole - buffer.len());
                break;
            }
            if buffer.starts_with(b"POST /hang") {
                buffer.advance(whole);
            } else if behaviour.refuse && buffer.starts_with(b"POST /hook") {
                seen.borrow_mut().failed += 1;
                buffer.advance(whole);
                stream.write_all(REFUSED).await?;
            } else if buffer.starts_with(b"POST /hook") {
                let fails = note(&mut seen.borrow_mut(), &buffer[..whole], head_bytes, behaviour);
                buffer.advance(whole);
                if behaviour.delay_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
                }
                stream.write_all(if fails { FAILED } else { OK }).await?;
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

/// Counts a POST; says whether it is to fail.
fn note(seen: &mut Seen, request: &[u8], head_bytes: usize, behaviour: ReceiverArgs) -> bool {
    let ReceiverArgs { fail_every, lines, .. } = behaviour;
    if seen.is_down {
        seen.failed += 1;
        return true;
    }
    if fail_every > 0 && (seen.received + seen.failed) % fail_every == fail_every - 1 {
        seen.failed += 1;
        return true;
    }
    let is_first = seen.received == 0;
    // One after the other, so that the compiler counts many at once.
    seen.received += if lines { request[head_bytes..].iter().map(|byte| u64::from(*byte == b'\n')).sum() } else { 1 };
    if is_first {
        seen.newest = request.to_vec();
    }
    if seen.timed && seen.came_at_us.len() < DELAYS_MAX {
        seen.came_at_us.push(now_us());
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
    false
}

fn control(seen: &mut Seen, head: &[u8]) -> Vec<u8> {
    if head.starts_with(b"POST /reset") {
        *seen = Seen { timed: wire::find(head, b"timed").is_some(), ..Seen::default() };
        return OK.to_vec();
    }
    if head.starts_with(b"POST /down") {
        seen.is_down = true;
        return OK.to_vec();
    }
    seen.delays_us.sort_unstable();
    let quantile = |part: usize| seen.delays_us.get(seen.delays_us.len() * part / 100).map_or(0, |delay| u64::from(*delay));
    let stats = ReceiverStats {
        received: seen.received,
        failed: seen.failed,
        timed: seen.delays_us.len() as u64,
        p50_us: quantile(50),
        p99_us: quantile(99),
        peak: peak(&seen.came_at_us),
        newest_request: String::from_utf8_lossy(&seen.newest).into_owned(),
    };
    let body = serde_json::to_vec(&stats).unwrap_or_default();
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// Most of these times, which rise, in any second.
fn peak(came_at_us: &[u64]) -> u64 {
    let (mut from, mut most) = (0, 0);
    for (to, at) in came_at_us.iter().enumerate() {
        while came_at_us[from] + 1_000_000 <= *at {
            from += 1;
        }
        most = most.max(to + 1 - from);
    }
    most as u64
}

/// Microseconds since the epoch.
#[allow(clippy::disallowed_methods, reason = "delays are measured in microseconds, finer than a Timestamp")]
pub(crate) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or_else(|_| SystemClock.now().0.unsigned_abs() * 1000, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}
