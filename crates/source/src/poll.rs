//! The protocol `poll`: asks every so often, for a list, a feed or one value; and the work that `long-poll` shares with it.
//!
//! What is new in a list is told by the ids and data of its items, or by their ids alone where the definition drops what comes
//! under a known id; an unchanged answer costs nothing. `pace` says
//! when to ask again, `position` how far the upstream is, `list` what an answer holds, `feed` reads RSS and Atom, `answer` bodies.

mod answer;
mod feed;
mod known;
mod list;
mod pace;
mod position;

use std::time::Duration;

use async_trait::async_trait;
use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use tokio::time::Instant;

use self::known::Known;
use self::list::{Item, List, Pointers, hash_id};
use self::pace::{Came, Pace};
use self::position::{BadNext, Cursors, Position};
use super::connection::{UpstreamRequest, UpstreamResponse, media_type, refusal, retry_after};
use super::reconnect::{Ending, EndingClass};
use super::record::Record;
use super::request::{asking, with_parameters};
use super::watch::Turn;
use super::{Protocol, Session, SettingsError, Source, record_bytes_max, runner};
use hookcast_core::codec::SkipReason;
use hookcast_core::model::source::own::OwnSettings;
use hookcast_core::model::source::own::poll::{NextPage, PollSettings};
use hookcast_core::model::source::{OnReusedId, SourceSpec};

pub(super) const PROTOCOL: Protocol = Protocol { name: "poll", check, open: |spec| Box::new(Poller::new(spec, false)) };

const ACCEPT: &str =
    "application/json, application/atom+xml, application/rss+xml, application/xml;q=0.9, text/xml;q=0.9, */*;q=0.5";
/// Shortest distance of two stored positions without events.
const POSITION_STORED_EVERY: Duration = Duration::from_mins(1);
/// Shortest distance of two alarms about one source.
const ALARM_EVERY: Duration = Duration::from_mins(1);

/// What the definition's own grammar cannot know.
pub(super) fn check(spec: &SourceSpec) -> Result<(), SettingsError> {
    match &spec.settings.own {
        OwnSettings::Poll(settings) if settings.next.is_some() && spec.settings.method == "POST" => {
            Err(SettingsError { pointer: "/settings/next", problem: "needs the method GET".to_owned() })
        }
        _ => Ok(()),
    }
}

/// Asks one upstream again and again.
pub(super) struct Poller {
    settings: PollSettings,
    pointers: Pointers,
    /// Whether an item of a list that says something else is handed on, though its id was there.
    keeps_changes: bool,
    item_bytes_max: usize,
    pace: Pace,
    position: Position,
    cursors: Cursors,
    /// When a position was last stored that no event carried.
    stored_at: Option<Instant>,
    is_stored: bool,
    told_at: Option<Instant>,
}

impl Poller {
    /// A reader of a spec that passed the check.
    pub(super) fn new(spec: &SourceSpec, is_long: bool) -> Self {
        let settings = match &spec.settings.own {
            OwnSettings::Poll(settings) => settings.clone(),
            _ => PollSettings::new(is_long),
        };
        Self {
            pointers: Pointers::of(&settings, spec.settings.id.as_deref()),
            keeps_changes: spec.settings.on_reused_id == OnReusedId::Keep,
            item_bytes_max: record_bytes_max(&spec.settings),
            pace: Pace::new(settings.is_long, settings.every),
            settings,
            position: Position::default(),
            cursors: Cursors::default(),
            stored_at: None,
            is_stored: true,
            told_at: None,
        }
    }

    /// One request and everything that follows from its answer: how long to wait before the next.
    async fn round(&mut self, session: &mut Session) -> Result<Duration, Ending> {
        let began = Instant::now();
        let request = self.request(session.spec());
        let page = request.url.clone();
        let mut response = session.exchange(request).await?;
        let asked = retry_after(&response.headers, session.now()).unwrap_or_default();
        let status = response.status.as_u16();
        let is_timeout = self.settings.is_long && matches!(status, 408 | 504);
        let (came, fresh) = if is_timeout {
            if began.elapsed() >= pace::HELD_AFTER {
                welcome(session).await;
            }
            (Came::TimedOut, Duration::ZERO)
        } else if matches!(status, 204 | 304) {
            welcome(session).await;
            (Came::Nothing, self.freshness(&response.headers, 0))
        } else {
            if let Some(ending) = refusal(response.status, &response.headers, session.now()) {
                return Err(ending);
            }
            let body = answer::body(session, &mut response, self.settings.body_bytes_max).await?;
            let kind = media_type(&response.headers);
            let list = self.pointers.read(&body, kind.as_deref(), !self.settings.is_long);
            let list = list.map_err(|fault| Ending::new(EndingClass::Failed, fault.slug(), fault.to_string()))?;
            let fresh = self.freshness(&response.headers, list.ttl_min);
            let next = self.behind(&list, &response, &page, &body)?;
            welcome(session).await;
            (self.take(session, list, next).await?, fresh)
        };
        Ok(self.pace.wait(came, began.elapsed(), asked.max(fresh), runner::random_u64()))
    }

    fn freshness(&self, headers: &HeaderMap, ttl_min: u32) -> Duration {
        if self.settings.is_long {
            return Duration::ZERO;
        }
        pace::fresh_for(headers).max(Duration::from_secs(60 * u64::from(ttl_min)))
    }

    fn request(&self, spec: &SourceSpec) -> UpstreamRequest {
        let mut request = asking(spec, ACCEPT, self.position.told());
        request.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(next) = &self.position.next {
            request.url.clone_from(next);
        }
        if let (Some(name), Some(cursor)) = (&self.settings.cursor_param, &self.position.cursor) {
            request.url = with_parameters(&request.url, std::iter::once((name.as_str(), cursor.clone())));
        }
        for (name, validator) in [(IF_NONE_MATCH, &self.position.etag), (IF_MODIFIED_SINCE, &self.position.modified)] {
            if let Some(value) = validator.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
                request.headers.insert(name, value);
            }
        }
        request
    }

    /// The position behind an answer; nothing of the answer is taken when that cannot be kept.
    fn behind(&self, list: &List, response: &UpstreamResponse, page: &str, body: &[u8]) -> Result<Position, Ending> {
        let mut next = self.position.clone();
        if list.cursor.is_some() {
            next.cursor.clone_from(&list.cursor);
        }
        let reference = match &self.settings.next {
            Some(NextPage::Link) => position::link_next(&response.headers),
            _ => list.next.clone(),
        };
        if let Some(reference) = reference {
            next.next = Some(position::next_url(page, &reference).map_err(|bad| match bad {
                BadNext::OtherOrigin => {
                    let detail = "the next page lies at another origin, which is not asked";
                    Ending::new(EndingClass::Stop, "cross_origin_next", detail)
                }
                BadNext::Malformed => Ending::new(EndingClass::Failed, "bad_next", "the next page has no usable URL"),
            })?);
        }
        if self.settings.by_headers {
            next.take_validators(&response.headers);
            if next.cursor != self.position.cursor {
                // They belong to what the old cursor asks for.
                (next.etag, next.modified) = (None, None);
            }
        }
        if !self.settings.is_long {
            next.body = Some(hash_id(&list::body_hash(body), ""));
        }
        next.token(&self.settings).map_err(|()| {
            let detail = "the upstream's cursor is too long or holds control characters";
            Ending::new(EndingClass::Failed, "bad_cursor", detail)
        })?;
        Ok(next)
    }

    /// Hands the items of an answer on that are new, the position with the last of them.
    async fn take(&mut self, session: &mut Session, list: List, mut next: Position) -> Result<Came, Ending> {
        if let (Some(cursor), last) = (next.cursor.as_deref(), self.position.cursor.as_deref())
            && self.cursors.goes_back(last, cursor)
        {
            self.alarm(session, last.unwrap_or_default().to_owned(), cursor.to_owned()).await;
        }
        let mut items = list.items;
        if !self.settings.is_long {
            if list.is_many && !items.is_empty() {
                next.known = Known::of(&items, self.keeps_changes);
            }
            if next.body == self.position.body {
                items.clear();
            } else if list.is_many {
                items.retain(|item| !self.position.known.holds_item(item));
            }
        }
        items.retain(|item| {
            let fits = item.data.len() <= self.item_bytes_max;
            if !fits {
                session.skipped(SkipReason::EventTooLarge, item.data.clone());
            }
            fits
        });
        let scope = self.settings.is_long.then(|| self.scope(&next)).flatten();
        let has_scope = scope.is_some() || (!self.settings.is_long && list.is_many);
        let scope = scope.unwrap_or_default();
        let token = next.token(&self.settings).unwrap_or_default();
        let (had_items, moved) = (!items.is_empty(), next != self.position);
        let end = items.len().saturating_sub(1);
        for (index, item) in items.into_iter().enumerate() {
            let mut record = self.record(item, has_scope.then_some(&*scope));
            record.resume = token.clone().filter(|_| index == end);
            session.record(record);
            if session.is_full() {
                session.flush().await?;
            }
        }
        session.moved(token);
        session.flush().await?;
        self.is_stored = had_items || (self.is_stored && !moved);
        self.position = next;
        self.store(session, false).await;
        Ok(match (had_items, moved) {
            (true, true) => Came::Further,
            (true, false) => Came::Events,
            (false, _) => Came::Nothing,
        })
    }

    /// What the ids of an answer's items belong to, when they have none of their own: two answers with one position are one.
    fn scope(&self, next: &Position) -> Option<String> {
        if self.settings.by_headers {
            return next.etag.clone().or_else(|| next.modified.clone());
        }
        next.told().map(str::to_owned)
    }

    fn record(&self, item: Item, scope: Option<&str>) -> Record {
        let id = match (item.id, scope) {
            (Some(id), _) if list::is_id(&id) => Some(id),
            (Some(_), _) => Some(hash_id(&item.hash, "")),
            (None, Some(scope)) if !self.pointers.finds_id(&item.data, item.is_json) => Some(hash_id(&item.hash, scope)),
            _ => None,
        };
        Record { data: item.data, is_json: item.is_json, id, ..Record::default() }
    }

    /// Stores a position that no event carries: at once when it is the first, later now and then, and at the end.
    async fn store(&mut self, session: &mut Session, is_end: bool) {
        let is_due = self.stored_at.is_none_or(|at| at.elapsed() >= POSITION_STORED_EVERY);
        if !self.is_stored && (is_due || is_end) {
            session.store_position().await;
            self.is_stored = true;
            self.stored_at = Some(Instant::now());
        }
    }

    async fn alarm(&mut self, session: &mut Session, from: String, to: String) {
        if self.told_at.is_some_and(|at| at.elapsed() < ALARM_EVERY) {
            return;
        }
        self.told_at = Some(Instant::now());
        let detail = format!("the upstream's cursor went back from {from:.80} to {to:.80}");
        session.alarm("cursor_went_back", detail, Turn::CursorWentBack { from, to }).await;
    }
}

/// The upstream gave a good answer.
async fn welcome(session: &mut Session) {
    if !session.is_connected() {
        session.connected().await;
    }
}

#[async_trait]
impl Source for Poller {
    async fn run(&mut self, session: &mut Session) -> Ending {
        self.position = Position::of(session.resume(), &self.settings);
        let ending = loop {
            match self.round(session).await {
                Ok(wait) if session.wait(wait).await => {}
                Ok(_) => break Ending::cancelled(),
                Err(ending) => break ending,
            }
        };
        self.store(session, true).await;
        ending
    }
}
