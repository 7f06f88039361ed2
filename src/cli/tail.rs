//! `hookcast tail`: the events of a topic pattern on standard output, one JSON line each, through broken connections.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;

use super::client::{Place, failed, refusal};
use super::{Exit, RelayArgs, output};
use hookcast_core::clock::{Clock as _, SystemClock};
use hookcast_core::codec::lines::{Line, LineDecoder};
use hookcast_net::fetch::{FetchResponse, Method};

/// Silence after which the connection is given up; the relay sends a heartbeat every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Longest line that is printed.
const LINE_BYTES_MAX: usize = 128 << 20;
/// Shortest and longest pause between connections.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Topics: `*` is one token, `**` the rest; several are joined by commas.
    pattern: String,
    /// Where to begin: latest, earliest, a position, a time, or a duration such as 10m.
    #[arg(long, default_value = "latest")]
    since: String,
    /// Event types, joined by commas.
    #[arg(long)]
    types: Option<String>,
    /// End after this many events.
    #[arg(long)]
    limit: Option<u64>,
    #[command(flatten)]
    relay: RelayArgs,
}

/// The part of an event that a resumption needs.
#[derive(Deserialize)]
struct Position {
    #[serde(default)]
    seq: Option<String>,
}

pub(super) async fn run(args: TailArgs) -> Result<(), Exit> {
    let relay = Place::relay(&args.relay)?;
    let mut last_seq: Option<u64> = None;
    let mut since = args.since.clone();
    let mut printed = 0;
    let mut pause = PAUSE.0;
    let begun_at = SystemClock.now();
    loop {
        let mut url = relay.at(&["v1", "topics", &args.pattern, "stream"]);
        url.query_pairs_mut().append_pair("format", "ndjson").append_pair("since", &since);
        if let Some(types) = &args.types {
            url.query_pairs_mut().append_pair("types", types);
        }
        let resume = last_seq.map(|seq| seq.to_string());
        let headers: Vec<_> = resume.iter().map(|seq| ("last-event-id", seq.as_str())).collect();
        match relay.open(Method::GET, &url, &headers, Bytes::new()).await {
            Ok(mut response) if response.status == 200 => {
                pause = PAUSE.0;
                if print(&mut response, &mut last_seq, &mut printed, args.limit).await? {
                    return Ok(());
                }
                // Nothing came yet, so there is no position to go on from: the time is.
                if last_seq.is_none() && since == "latest" {
                    since = begun_at.to_string();
                }
            }
            Ok(mut response) => {
                let body = response.body.next_chunk().await.and_then(Result::ok).unwrap_or_default();
                if !matches!(response.status, 408 | 429 | 500..) {
                    return Err(failed(refusal(response.status, &body)));
                }
                output::complain(&refusal(response.status, &body));
            }
            Err(error) => output::complain(&format!("cannot reach the relay at {}: {error}", relay.url())),
        }
        tokio::time::sleep(pause.mul_f64(fastrand::f64().mul_add(0.5, 0.5))).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Prints the lines of one connection; true when the limit is reached.
async fn print(
    response: &mut FetchResponse,
    last_seq: &mut Option<u64>,
    printed: &mut u64,
    limit: Option<u64>,
) -> Result<bool, Exit> {
    let mut lines = LineDecoder::new(LINE_BYTES_MAX);
    while let Ok(Some(Ok(mut chunk))) = tokio::time::timeout(SILENCE_MAX, response.body.next_chunk()).await {
        while let Some(line) = lines.next(&mut chunk) {
            let Line::Whole(line) = line else {
                output::complain("an event longer than 128 MiB was left out");
                continue;
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            output::say_bytes(&line)?;
            let seq = serde_json::from_slice::<Position>(&line).ok().and_then(|position| position.seq?.parse().ok());
            *last_seq = seq.or(*last_seq);
            *printed += 1;
            if limit.is_some_and(|limit| *printed >= limit) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
