//! The endpoints: each life of a subscription has one, whose mood the script changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookcast_net::fetch::{HeaderMap, HeaderName, HeaderValue, Method};
use hookcast_net::peers::{Answered, Broken, Exchange, Peers, Posted};
use hookcast_net::target::Target;
use serde_json::Value;

use crate::lives::Life;
use crate::truth::Truth;

const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");
const WEBHOOK_DELIVERY: HeaderName = HeaderName::from_static("webhook-delivery");

/// What an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes everything soon.
    Well,
    /// Takes everything, after a second.
    Slow,
    /// Answers so.
    Fails(u16),
    /// Fails now and then.
    Moody,
    /// Answers nothing.
    Hangs,
    /// Breaks the connection.
    Breaks,
    /// Asks for a pause.
    Busy,
    /// Wants this event no more.
    Aborts,
    /// Says that it wants nothing more.
    Leaves,
}

impl Mood {
    pub(crate) const ALL: [Self; 11] = [
        Self::Well,
        Self::Well,
        Self::Slow,
        Self::Fails(500),
        Self::Fails(400),
        Self::Moody,
        Self::Hangs,
        Self::Breaks,
        Self::Busy,
        Self::Aborts,
        Self::Leaves,
    ];

    /// Its word in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Slow => "slow",
            Self::Fails(_) => "fails",
            Self::Moody => "moody",
            Self::Hangs => "hangs",
            Self::Breaks => "breaks",
            Self::Busy => "busy",
            Self::Aborts => "aborts",
            Self::Leaves => "leaves",
        }
    }
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    moods: BTreeMap<Life, Mood>,
    /// Whether who is asked for consent agrees.
    agrees: bool,
}

/// All endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    state: Arc<Mutex<State>>,
    truth: Arc<Truth>,
}

impl Ends {
    pub(crate) fn new(seed: u64, truth: Arc<Truth>) -> Self {
        let state = State { random: fastrand::Rng::with_seed(seed), moods: BTreeMap::new(), agrees: true };
        Self { state: Arc::new(Mutex::new(state)), truth }
    }

    pub(crate) fn set(&self, life: Life, mood: Mood) {
        self.state.lock().unwrap().moods.insert(life, mood);
    }

    pub(crate) fn agree(&self, agrees: bool) {
        self.state.lock().unwrap().agrees = agrees;
    }

    /// What becomes of a request, and when.
    fn fate(&self, life: Life) -> (u64, Fate) {
        let mut state = self.state.lock().unwrap();
        let mood = state.moods.get(&life).copied().unwrap_or(Mood::Well);
        let random = &mut state.random;
        let soon = random.u64(..20);
        match mood {
            Mood::Well => (soon, Fate::answer(200)),
            Mood::Slow => (1000 + soon, Fate::answer(202)),
            Mood::Fails(status) => (soon, Fate::answer(status)),
            Mood::Moody if random.u8(..10) < 3 => (soon, Fate::answer(503)),
            Mood::Moody => (soon, Fate::answer(204)),
            Mood::Hangs => (3_600_000, Fate::answer(200)),
            Mood::Breaks => (soon, Fate::Broken(if random.bool() { Broken::Reset } else { Broken::Eof })),
            Mood::Busy => (soon, Fate::Answer { status: 429, retry_after: Some("2"), directive: None }),
            Mood::Aborts => (soon, Fate::Answer { status: 422, retry_after: None, directive: Some("abort") }),
            Mood::Leaves if random.bool() => (soon, Fate::answer(410)),
            Mood::Leaves => (soon, Fate::Answer { status: 200, retry_after: None, directive: Some("disable") }),
        }
    }
}

enum Fate {
    Answer { status: u16, retry_after: Option<&'static str>, directive: Option<&'static str> },
    Broken(Broken),
}

impl Fate {
    fn answer(status: u16) -> Self {
        Self::Answer { status, retry_after: None, directive: None }
    }
}

/// A request that is open; when the relay gives it up, it is over.
struct Open {
    place: usize,
    truth: Arc<Truth>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.truth.leave(self.place, 0);
    }
}

impl Peers for Ends {
    fn post(&self, posted: Posted) -> Exchange<Result<Answered, Broken>> {
        let life = life_of(&posted.url);
        let place = self.truth.arrive(life, &numbers(&posted));
        let open = Open { place, truth: Arc::clone(&self.truth) };
        let (after_ms, fate) = self.fate(life);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            match fate {
                Fate::Answer { status, retry_after, directive } => {
                    open.truth.leave(open.place, status);
                    let mut headers = HeaderMap::new();
                    headers.extend(retry_after.map(|after| (RETRY_AFTER, HeaderValue::from_static(after))));
                    headers.extend(directive.map(|word| (WEBHOOK_DELIVERY, HeaderValue::from_static(word))));
                    Ok(Answered { status, headers, body: Vec::new() })
                }
                Fate::Broken(how) => Err(how),
            }
        })
    }

    fn ask(&self, method: &Method, target: &Target) -> Exchange<Answered> {
        let agrees = self.state.lock().unwrap().agrees;
        let challenge = target.url().query_pairs().find(|(name, _)| name == "challenge").map(|(_, value)| value.into_owned());
        let is_options = *method == Method::OPTIONS;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if !agrees {
                return Answered { status: 403, ..Answered::default() };
            }
            let mut headers = HeaderMap::new();
            if is_options {
                headers.insert("webhook-allowed-origin", HeaderValue::from_static("*"));
                headers.insert("webhook-allowed-rate", HeaderValue::from_static("6000"));
            }
            Answered { status: 200, headers, body: challenge.unwrap_or_default().into_bytes() }
        })
    }
}

/// The life is the last part of the path.
fn life_of(url: &str) -> Life {
    let path = url.split('?').next().unwrap_or_default();
    Life(path.rsplit('/').next().and_then(|life| life.parse().ok()).expect("a life in the path"))
}

/// The numbers of the events in a body.
fn numbers(posted: &Posted) -> Vec<u64> {
    let text = std::str::from_utf8(&posted.body).expect("text");
    let documents: Vec<Value> = serde_json::Deserializer::from_str(text).into_iter().map(|one| one.expect("JSON")).collect();
    let items = documents.into_iter().flat_map(|document| match document {
        Value::Array(items) => items,
        other => vec![other],
    });
    items.map(|item| item["n"].as_u64().or(item["data"]["n"].as_u64()).expect("a number")).collect()
}
