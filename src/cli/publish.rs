//! `hookcast publish`: one event from the command line or a file, or one a line of standard input.
//!
//! Each request has an `Idempotency-Key`, so a repeat after a broken connection stores nothing twice.

use std::io::{BufRead as _, Read as _};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use url::Url;

use super::client::{Place, failed, refusal};
use super::{Exit, RelayArgs, output};

/// Longest event read from standard input or a file, in bytes.
const EVENT_BYTES_MAX: u64 = 64 << 20;
/// Most lines in one request.
const BATCH_LINES_MAX: usize = 500;
/// Most bytes of lines in one request, beyond which no further line is added.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Pause in the lines after which a request goes out.
const LINGER: Duration = Duration::from_millis(2);
/// Times a request is sent before it is given up.
const TRIES_MAX: u32 = 6;
/// Longest pause before a request is sent again.
const PAUSE_MAX: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const LINES: &str = "application/x-ndjson";

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Topic to publish to, such as orders.created.
    topic: String,
    /// The event's data, or @FILE; without it one event a line of standard input.
    #[arg(long)]
    data: Option<String>,
    /// Content type of --data; without it JSON if it parses, else text, else octets.
    #[arg(long, requires = "data")]
    content_type: Option<String>,
    /// Id of the event of --data; a repeat is not stored.
    #[arg(long, requires = "data")]
    id: Option<String>,
    #[command(flatten)]
    relay: RelayArgs,
}

/// Where events go.
struct Desk {
    relay: Place,
    url: Url,
}

pub(super) async fn run(args: PublishArgs) -> Result<(), Exit> {
    let relay = Place::relay(&args.relay)?;
    let url = relay.at(&["v1", "topics", &args.topic, "events"]);
    let desk = Desk { relay, url };
    match args.data {
        Some(given) => {
            let body = match given.strip_prefix('@') {
                Some(path) => read_file(path)?,
                None => Bytes::from(given),
            };
            let content_type = args.content_type.unwrap_or_else(|| guess_type(&body).to_owned());
            let key = args.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
            desk.send(body, &content_type, &key).await
        }
        None => publish_lines(&desk).await,
    }
}

fn read_file(path: &str) -> Result<Bytes, Exit> {
    let unreadable = |error: std::io::Error| failed(format!("cannot read {path}: {error}"));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(unreadable)?.take(EVENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > EVENT_BYTES_MAX {
        return Err(failed(format!("{path} is larger than 64 MiB")));
    }
    Ok(Bytes::from(bytes))
}

fn guess_type(body: &[u8]) -> &'static str {
    if is_json(body) {
        JSON
    } else if std::str::from_utf8(body).is_ok() {
        TEXT
    } else {
        "application/octet-stream"
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(body).is_ok()
}

/// Sends what has arrived as soon as nothing more follows: lines in a burst share requests, a lone line is hardly held back.
async fn publish_lines(desk: &Desk) -> Result<(), Exit> {
    let (sender, mut lines) = mpsc::channel(BATCH_LINES_MAX);
    std::thread::spawn(move || read_lines(&sender));
    let mut held = None;
    loop {
        let next = match held.take() {
            Some(line) => Some(Ok(line)),
            None => lines.recv().await,
        };
        let Some(line) = next else { return Ok(()) };
        let line: Vec<u8> = line?;
        if !is_json(&line) {
            desk.send(Bytes::from(line), TEXT, &uuid::Uuid::now_v7().to_string()).await?;
            continue;
        }
        let mut batch = line;
        let mut count = 1;
        while count < BATCH_LINES_MAX && batch.len() < BATCH_BYTES_MAX {
            match tokio::time::timeout(LINGER, lines.recv()).await {
                Ok(Some(Ok(line))) if is_json(&line) => {
                    batch.push(b'\n');
                    batch.extend_from_slice(&line);
                    count += 1;
                }
                Ok(Some(Ok(other))) => {
                    held = Some(other);
                    break;
                }
                Ok(Some(Err(exit))) => return Err(exit),
                Ok(None) | Err(_) => break,
            }
        }
        desk.send(Bytes::from(batch), LINES, &uuid::Uuid::now_v7().to_string()).await?;
    }
}

/// Reads standard input to its end, blank lines skipped; ends early when nobody takes lines any more.
fn read_lines(sender: &mpsc::Sender<Result<Vec<u8>, Exit>>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = input.by_ref().take(EVENT_BYTES_MAX + 1).read_until(b'\n', &mut line);
        let item = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 > EVENT_BYTES_MAX => Err(failed("a line of standard input is longer than 64 MiB")),
            Ok(_) => Ok(line.trim_ascii().to_vec()),
            Err(error) => Err(failed(format!("cannot read standard input: {error}"))),
        };
        let is_over = item.is_err();
        if item.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        if sender.blocking_send(item).is_err() || is_over {
            return;
        }
    }
}

impl Desk {
    /// Sends one request, again while the relay cannot be reached or asks to wait, and prints what was accepted.
    async fn send(&self, body: Bytes, content_type: &str, key: &str) -> Result<(), Exit> {
        let headers = [("content-type", content_type), ("idempotency-key", key)];
        let mut pause = Duration::from_millis(250);
        for attempt in 1.. {
            let problem = match self.relay.post(&self.url, &headers, body.clone()).await {
                Ok(answer) if answer.status == 202 => return report(&answer.body),
                Ok(answer) if !matches!(answer.status, 429 | 503) => return Err(failed(refusal(answer.status, &answer.body))),
                Ok(answer) => {
                    let asked = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                    pause = pause.max(Duration::from_secs(asked.unwrap_or(0)));
                    refusal(answer.status, &answer.body)
                }
                Err(error) => format!("cannot reach the relay at {}: {error}", self.relay.url()),
            };
            if attempt == TRIES_MAX {
                return Err(failed(problem));
            }
            tokio::time::sleep(pause.min(PAUSE_MAX)).await;
            pause *= 2;
        }
        Ok(())
    }
}

/// One line an event: its position and id.
fn report(body: &[u8]) -> Result<(), Exit> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    for event in answer["events"].as_array().into_iter().flatten() {
        let repeat = if event["duplicate"] == true { " duplicate" } else { "" };
        output::say(&format!("{} {}{repeat}", event["seq"], event["id"].as_str().unwrap_or_default()))?;
    }
    Ok(())
}
