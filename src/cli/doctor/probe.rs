//! Looks at a relay from outside: asks, and notes what came when. Judges nothing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, http};

use crate::cli::client::{Place, refusal};
use hookcast_core::clock::{Clock as _, SystemClock, Timestamp};
use hookcast_net::fetch::{FetchBody, FetchError, FetchResponse, HeaderMap, Method};

/// How long heartbeats a second apart are watched.
pub(super) const BEATS_WATCHED: Duration = Duration::from_secs(5);
/// Longest wait for the head of a stream, which the relay sends at once.
const HEAD_PATIENCE: Duration = Duration::from_secs(6);
/// Longest wait for a WebSocket's first ping; one a second is asked for.
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// The seconds that a long poll is asked to wait.
pub(super) const POLL_SECONDS: u64 = 2;
/// How often delays are measured; the shortest counts, for machines that do other things too.
const DELAYS: usize = 4;
/// Most of an answer that is read for what it says.
const ANSWER_BYTES_MAX: usize = 4096;

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) health: Result<Head, String>,
    pub(super) delay: Option<Delay>,
    pub(super) streams: Vec<(&'static str, Result<Beats, String>)>,
    pub(super) idle: Result<Idle, String>,
    pub(super) resume: Result<u16, String>,
    pub(super) poll: Result<Poll, String>,
    pub(super) socket: Upgrade,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The machine's own time when it came.
    pub(super) at: Timestamp,
}

/// A stream with a heartbeat a second.
#[derive(Debug)]
pub(super) struct Beats {
    pub(super) headers: HeaderMap,
    /// From the request to the head of the answer.
    pub(super) head_after: Duration,
    /// When something came, from the request on.
    pub(super) arrivals: Vec<Duration>,
    /// Whether the stream ended by itself.
    pub(super) ended: bool,
}

/// The shortest of some answers of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delay {
    /// Until a whole short answer was there.
    pub(super) answer: Duration,
    /// Until the head of a stream was there.
    pub(super) stream: Duration,
}

/// A silent stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Idle {
    pub(super) watched: Duration,
    /// When it ended, if it did.
    pub(super) ended_after: Option<Duration>,
}

/// A long poll of a silent topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Poll {
    pub(super) status: u16,
    pub(super) after: Duration,
}

/// What became of a request to go on as WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// It did, and a ping came.
    Alive,
    /// It did, and nothing came.
    Silent,
    /// It was answered as if it had not asked.
    Ignored(u16),
    /// It was refused, or broke.
    Failed(String),
}

impl Seen {
    /// Headers of whatever was answered: those who stand between put their names there.
    pub(super) fn headers(&self) -> Vec<&HeaderMap> {
        let streams = self.streams.iter().filter_map(|(_, beats)| beats.as_ref().ok().map(|beats| &beats.headers));
        self.health.as_ref().ok().map(|head| &head.headers).into_iter().chain(streams).collect()
    }
}

/// Looks at everything at the same time; takes a little longer than `watch`, and no less than heartbeats are watched.
pub(super) async fn all(place: &Place, topic: &str, watch: Duration) -> Seen {
    let (health, delay, ndjson, sse, idle, resume, poll, socket) = tokio::join!(
        health(place),
        delay(place, topic),
        beats(place, topic, "ndjson"),
        beats(place, topic, "sse"),
        idle(place, topic, watch),
        resume(place, topic),
        poll(place, topic),
        upgrade(place, topic),
    );
    Seen { health, delay, streams: vec![("ndjson", ndjson), ("sse", sse)], idle, resume, poll, socket }
}

fn stream_url(place: &Place, topic: &str, query: &str) -> url::Url {
    let mut url = place.at(&["v1", "topics", topic, "stream"]);
    url.set_query(Some(query));
    url
}

fn said(error: &FetchError) -> String {
    error.to_string()
}

/// Opens a stream, and does not wait for a head that somebody keeps until the body is long enough.
async fn open(place: &Place, url: &url::Url, headers: &[(&str, &str)]) -> Result<FetchResponse, String> {
    let opening = timeout(HEAD_PATIENCE, place.open(Method::GET, url, headers, Bytes::new()));
    let late = |_| format!("its head did not come within {} s: somebody gathers the answer", HEAD_PATIENCE.as_secs());
    opening.await.map_err(late)?.map_err(|error| said(&error))
}

async fn health(place: &Place) -> Result<Head, String> {
    let answer = place.send(Method::GET, &place.at(&["healthz"]), &[], Bytes::new()).await.map_err(|error| said(&error))?;
    if answer.status != 200 {
        return Err(refusal(answer.status, &answer.body));
    }
    Ok(Head { status: answer.status, headers: answer.headers, at: SystemClock.now() })
}

/// Compares what ends with what goes on: those who wait for more to send keep the latter a little. `None` when either fails.
async fn delay(place: &Place, topic: &str) -> Option<Delay> {
    let mut shortest = Delay { answer: Duration::MAX, stream: Duration::MAX };
    let url = stream_url(place, topic, "format=ndjson");
    for _ in 0..DELAYS {
        let begun = Instant::now();
        health(place).await.ok()?;
        shortest.answer = shortest.answer.min(begun.elapsed());
        let begun = Instant::now();
        open(place, &url, &[]).await.ok()?;
        shortest.stream = shortest.stream.min(begun.elapsed());
    }
    Some(shortest)
}

async fn beats(place: &Place, topic: &str, format: &str) -> Result<Beats, String> {
    let url = stream_url(place, topic, &format!("format={format}&heartbeat=1s"));
    let begun = Instant::now();
    // Browsers and most libraries ask for it, so those between feel free to.
    let headers = [("accept-encoding", "gzip")];
    let mut response = open(place, &url, &headers).await?;
    let head_after = begun.elapsed();
    if response.status != 200 {
        return Err(refused(response.status, &mut response.body).await);
    }
    let (mut arrivals, mut ended) = (Vec::new(), false);
    let until = Instant::now() + BEATS_WATCHED;
    while let Ok(piece) = timeout_at(until, response.body.next_chunk()).await {
        if !matches!(piece, Some(Ok(_))) {
            ended = true;
            break;
        }
        arrivals.push(begun.elapsed());
    }
    Ok(Beats { headers: response.headers, head_after, arrivals, ended })
}

async fn refused(status: u16, body: &mut FetchBody) -> String {
    let mut kept = Vec::new();
    let _ = timeout(BEATS_WATCHED, body.gather(ANSWER_BYTES_MAX, &mut kept)).await;
    refusal(status, &kept)
}

/// A stream whose heartbeats are far apart says nothing; whoever cuts silence, cuts it.
async fn idle(place: &Place, topic: &str, watched: Duration) -> Result<Idle, String> {
    let url = stream_url(place, topic, "format=ndjson&heartbeat=5m");
    let mut response = open(place, &url, &[]).await?;
    if response.status != 200 {
        return Err(refused(response.status, &mut response.body).await);
    }
    let begun = Instant::now();
    let until = begun + watched;
    while let Ok(piece) = timeout_at(until, response.body.next_chunk()).await {
        if !matches!(piece, Some(Ok(_))) {
            return Ok(Idle { watched, ended_after: Some(begun.elapsed()) });
        }
    }
    Ok(Idle { watched, ended_after: None })
}

/// A position that is none is refused by the relay, if the header reaches it.
async fn resume(place: &Place, topic: &str) -> Result<u16, String> {
    let url = stream_url(place, topic, "format=ndjson&max_duration=1s");
    let headers = [("last-event-id", "nowhere")];
    place.open(Method::GET, &url, &headers, Bytes::new()).await.map(|response| response.status).map_err(|error| said(&error))
}

async fn poll(place: &Place, topic: &str) -> Result<Poll, String> {
    let mut url = place.at(&["v1", "topics", topic, "events"]);
    url.set_query(Some(&format!("since=latest&wait={POLL_SECONDS}")));
    let begun = Instant::now();
    let answer = place.send(Method::GET, &url, &[], Bytes::new()).await.map_err(|error| said(&error))?;
    Ok(Poll { status: answer.status, after: begun.elapsed() })
}

async fn upgrade(place: &Place, topic: &str) -> Upgrade {
    let url = stream_url(place, topic, "heartbeat=1s");
    let failed = |error: String| Upgrade::Failed(error);
    // The scheme of the address only says where to connect, which the socket has done already.
    let address = url.as_str().replacen("http", "ws", 1);
    let mut request = match address.into_client_request() {
        Ok(request) => request,
        Err(error) => return failed(error.to_string()),
    };
    for (name, value) in place.headers() {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    let socket = match place.socket(&url).await {
        Ok(socket) => socket,
        Err(error) => return failed(error.to_string()),
    };
    match timeout(PING_PATIENCE, tokio_tungstenite::client_async(request, socket)).await {
        Err(_) => failed("no answer in time".to_owned()),
        Ok(Err(WsError::Http(response))) if response.status() == http::StatusCode::OK => Upgrade::Ignored(200),
        Ok(Err(WsError::Http(response))) => {
            failed(refusal(response.status().as_u16(), response.body().as_deref().unwrap_or_default()))
        }
        Ok(Err(error)) => failed(error.to_string()),
        Ok(Ok((mut stream, _))) => {
            let waiting = async { while !matches!(stream.next().await, Some(Ok(Message::Ping(_)) | Err(_)) | None) {} };
            if timeout(PING_PATIENCE, waiting).await.is_ok() { Upgrade::Alive } else { Upgrade::Silent }
        }
    }
}
