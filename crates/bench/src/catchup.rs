//! One stream client that is very far behind: how fast the log is served to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::backlog::publish;
use crate::experiment::{Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::stage::Stage;

/// A client that begins with the oldest event.
pub(crate) const CATCH_UP: Experiment = Experiment {
    name: "catch-up",
    subject: Subject::Stream,
    rows: &[Row {
        what: "an NDJSON client resumes 1,000,000 events behind",
        against: "",
        unit: "MB/s",
        target: Target::AtLeast(300.0),
    }],
    run: |terms| Box::pin(run(terms)),
};

const EVENTS: u64 = 1_000_000;

async fn run(terms: Terms) -> anyhow::Result<Findings> {
    let stage = Stage::set(&terms.scene(0)).await?;
    let address = stage.relay.address;
    publish(address, "bench", EVENTS).await?;
    let cpu_before = stage.relay.cpu_us();
    let (bytes, took) = tokio::task::spawn_blocking(move || read_all(address)).await??;
    let cpu_us = (stage.relay.cpu_us() - cpu_before) as f64 / EVENTS as f64;
    let (_, highest) = stage.relay.resident_bytes();
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok(Findings::Measured(vec![Reading {
        relay_cpu_us: Some(cpu_us),
        relay_resident_mib: Some(highest as f64 / (1024.0 * 1024.0)),
        ..Reading::absolute(bytes as f64 / 1_000_000.0 / took.as_secs_f64())
    }]))
}

/// Reads until the last event came; gives how many bytes that were, and how long it took.
fn read_all(relay: SocketAddr) -> anyhow::Result<(u64, Duration)> {
    const PATIENCE: Duration = Duration::from_secs(20);
    const BUFFER_BYTES: usize = 256 * 1024;
    let mut socket = TcpStream::connect(relay)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let began = Instant::now();
    write!(socket, "GET /v1/topics/bench/stream?since=earliest HTTP/1.1\r\nhost: {relay}\r\n\r\n")?;
    let (mut buffer, mut bytes, mut events) = (vec![0; BUFFER_BYTES], 0, 0);
    // Every event is one line that ends with the end of its form; the lines of chunks do not.
    let mut last = 0;
    while events < EVENTS {
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
