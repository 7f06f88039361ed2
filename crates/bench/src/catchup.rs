//! One stream client that is very far behind: how fast the log is served to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::backlog::publish;
use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::process::Role;
use crate::stage::Stage;

/// A client that begins with the oldest event.
pub(crate) const CATCH_UP: Experiment = Experiment {
    name: "catch-up",
    subject: Subject::Stream,
    rows: &[Row {
        what: "an NDJSON client resumes 1,000,000 events behind",
        against: "the rows of the log as they are, to a socket",
        unit: " MB/s",
        target: Target::Processor(0.1),
    }],
    run: |terms| Box::pin(run(terms)),
};

const EVENTS: u64 = 1_000_000;
/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

async fn run(terms: Terms) -> anyhow::Result<Findings> {
    let Stage { relay, receiver, directory } = Stage::set(&terms.scene(0)).await?;
    receiver.stop().await;
    let address = relay.address;
    let events = terms.work.unwrap_or(EVENTS);
    publish(address, "bench", events).await?;
    let before = relay.usage();
    let (bytes, took) = tokio::task::spawn_blocking(move || read_all(address, events)).await??;
    let cost = Cost { cpu_us: relay.usage().since(&before) / events as f64, work: events };
    let (_, highest) = relay.resident_bytes();
    relay.stop().await;
    let mut limit = None;
    if terms.want_limit() {
        let bare = Role::own(&["bare-log", "hookcast.db"], directory.path()).await?;
        let (address, before) = (bare.address, bare.usage());
        let (bytes, took) = tokio::task::spawn_blocking(move || read_to_end(address)).await??;
        limit = Some((megabytes_a_second(bytes, took), bare.usage().since(&before) / events as f64));
        bare.stop().await;
    }
    let reading = Reading::costing(megabytes_a_second(bytes, took), cost, limit);
    Ok(Findings::Measured(vec![reading.with_resident(highest)]))
}

fn megabytes_a_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1_000_000.0 / took.as_secs_f64()
}

/// Asks, and reads to the end; gives how many bytes that were, and how long it took.
fn read_to_end(server: SocketAddr) -> anyhow::Result<(u64, Duration)> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let began = Instant::now();
    write!(socket, "GET / HTTP/1.1\r\nhost: {server}\r\n\r\n")?;
    let (mut buffer, mut bytes) = (vec![0; BUFFER_BYTES], 0);
    loop {
        let read = socket.read(&mut buffer).context("the bare log stopped")?;
        if read == 0 {
            return Ok((bytes, began.elapsed()));
        }
        bytes += read as u64;
    }
}

/// Reads until so many events came; gives how many bytes that were, and how long it took.
fn read_all(relay: SocketAddr, wanted: u64) -> anyhow::Result<(u64, Duration)> {
    let mut socket = TcpStream::connect(relay)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let began = Instant::now();
    write!(socket, "GET /v1/topics/bench/stream?since=earliest HTTP/1.1\r\nhost: {relay}\r\n\r\n")?;
    let (mut buffer, mut bytes, mut events) = (vec![0; BUFFER_BYTES], 0, 0);
    // Every event is one line that ends with the end of its form; the lines of chunks do not.
    let mut last = 0;
    while events < wanted {
        let read = socket.read(&mut buffer).context("the stream stopped")?;
        anyhow::ensure!(read > 0, "the stream ended after {events} events");
        let part = &buffer[..read];
        for at in memchr::memchr_iter(b'\n', part) {
            let before = if at == 0 { last } else { part[at - 1] };
            events += u64::from(before == b'}');
        }
        last = part[read - 1];
        bytes += read as u64;
    }
    Ok((bytes, began.elapsed()))
}
