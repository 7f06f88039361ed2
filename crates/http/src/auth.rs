//! Who may do what: bearer tokens with scopes and topics, and what is asked of requests when there are no tokens.
//!
//! Tokens are known by their SHA-256 only and are read from the `Authorization` header only. Without tokens the relay trusts
//! its own machine: only a `Host` that means this relay is answered, and pages of other sites are refused (DNS rebinding,
//! cross-site requests). Proxy headers are never believed. Knows no endpoint. What a token has in use is counted in [`usage`].

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{self, Problem};
use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::administration::TokenLimits;
use hookcast_core::model::{PatternList, Topic, TopicPattern};

pub(super) mod guesses;
pub(super) mod origin;
pub mod tickets;
pub mod usage;

use guesses::Guesses;
use tickets::{Ticket, Tickets};
use usage::{Seat, Usage};

/// Longest token that is looked at; a longer one is refused unread.
pub const TOKEN_BYTES_MAX: usize = 512;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Look at definitions, state and events.
    Read = 1,
    /// Publish events.
    Publish = 2,
    /// Follow streams.
    Stream = 4,
    /// Change definitions, move cursors, redrive.
    Manage = 8,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Publish, Self::Stream, Self::Manage];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Stream => "stream",
            Self::Manage => "manage",
        }
    }

    /// The scope of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }
}

/// One token as the relay knows it.
#[derive(Clone, Debug)]
pub struct TokenEntry {
    /// Its id when it was made over REST; one of the configuration has none.
    pub id: Option<String>,
    /// For people and logs.
    pub name: String,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The only topics it sees and touches; empty = all.
    pub topics: Vec<TopicPattern>,
    /// Not valid from then on.
    pub expires_at: Option<Timestamp>,
    /// What it may have in use.
    pub limits: TokenLimits,
}

/// A token in force and what it has in use.
#[derive(Debug)]
struct Held {
    entry: TokenEntry,
    usage: Arc<Usage>,
}

/// Who does something that administration is asked to remember; left with the request by [`Auth::require`].
#[derive(Clone, Debug)]
pub(super) struct Actor(pub(super) String);

/// Who acts on a relay that asks for no tokens.
pub(super) const LOCAL: &str = "local";

impl TokenEntry {
    /// The digest under which a token is known.
    #[must_use]
    pub fn digest(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
    }
}

/// What [`Auth`] is made from.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    /// The tokens; empty = none is asked for.
    pub tokens: Vec<TokenEntry>,
    /// Names besides the loopback ones that a `Host` may have while there are no tokens, with or without a port.
    pub hosts: Vec<String>,
}

/// The judge of requests.
#[derive(Debug)]
pub struct Auth {
    /// Whether tokens are asked for; never taken back, so that taking the last token away does not open the relay.
    is_guarded: AtomicBool,
    tokens: RwLock<Arc<[Arc<Held>]>>,
    hosts: Vec<String>,
    guesses: Guesses,
    tickets: Tickets,
    clock: Arc<dyn Clock>,
}

/// Who asks; only made by [`Auth::require`] and [`Auth::require_stream`].
#[derive(Clone, Debug)]
pub struct Caller {
    /// Nobody in particular when tokens are not asked for.
    held: Option<Arc<Held>>,
    /// What was shown in place of the token.
    ticket: Option<Arc<Ticket>>,
}

impl Auth {
    /// Takes the settings.
    #[must_use]
    pub fn new(settings: AuthSettings, clock: Arc<dyn Clock>) -> Self {
        let is_guarded = AtomicBool::new(!settings.tokens.is_empty());
        let tokens = RwLock::new(settings.tokens.into_iter().map(|entry| held(entry, &[])).collect());
        Self { is_guarded, tokens, hosts: settings.hosts, guesses: Guesses::default(), tickets: Tickets::default(), clock }
    }

    /// Whether tokens are asked for.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.is_guarded.load(Ordering::Acquire)
    }

    /// Puts other tokens in force at once; without effect on a relay that runs without tokens.
    pub fn replace_tokens(&self, tokens: Vec<TokenEntry>) {
        if self.has_tokens() {
            let mut present = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
            let next: Arc<[Arc<Held>]> = tokens.into_iter().map(|entry| held(entry, &present)).collect();
            for gone in present.iter().filter(|held| !next.iter().any(|other| Arc::ptr_eq(&other.usage, &held.usage))) {
                gone.usage.end();
            }
            *present = next;
        }
    }

    /// Puts these tokens in force and asks for tokens from now on.
    pub fn guard(&self, tokens: Vec<TokenEntry>) {
        self.is_guarded.store(true, Ordering::Release);
        self.replace_tokens(tokens);
    }

    /// Refuses what a relay without tokens must not answer: a foreign `Host`, a page of another site.
    ///
    /// # Errors
    /// `host_not_allowed`, `cross_site`.
    pub fn admit(&self, headers: &HeaderMap, is_navigation_allowed: bool) -> Result<(), Problem> {
        if self.has_tokens() { Ok(()) } else { origin::check(headers, &self.hosts, is_navigation_allowed) }
    }

    /// Finds out who asks and whether the scope is theirs.
    ///
    /// # Errors
    /// `unauthorized`, `too_many_requests` after too many bad tokens from one address, `scope`.
    pub fn require(&self, request: &HttpRequest, scope: Scope) -> Result<Caller, Problem> {
        if !self.has_tokens() {
            if scope == Scope::Manage {
                request.extensions_mut().insert(Actor(LOCAL.to_owned()));
            }
            return Ok(Caller { held: None, ticket: None });
        }
        let token = bearer(request.headers()).ok_or_else(|| unauthorized("send `Authorization: Bearer <token>`"))?;
        let held = self.holder(token, request.peer_addr().map(|address| address.ip()))?;
        remember(request, scope, &held.entry);
        allowed(held, scope)
    }

    /// Refuses a caller that was let in once and would not be let in now: its token was revoked or ran out, or tokens are asked
    /// for since.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn still(&self, caller: &Caller) -> Result<(), Problem> {
        match &caller.held {
            Some(held) if held.usage.is_over(self.clock.now()) => Err(unauthorized("the token is no longer valid")),
            None if self.has_tokens() => Err(unauthorized("send `Authorization: Bearer <token>`")),
            _ => Ok(()),
        }
    }

    /// Refuses a token or ticket that is not known, and counts it.
    fn guessed(&self, request: &HttpRequest, detail: &'static str) -> Problem {
        self.guessed_by(request.peer_addr().map(|address| address.ip()), detail)
    }

    fn guessed_by(&self, peer: Option<IpAddr>, detail: &'static str) -> Problem {
        match self.guesses.note(peer, self.clock.now()) {
            Some(wait_s) => {
                Problem::new(problem::TOO_MANY_REQUESTS, "too many unknown tokens came from this address").retry_after(wait_s)
            }
            None => unauthorized(detail),
        }
    }

    /// [`Auth::require`] where there are no headers: finds out whose token it is that `peer` sent.
    ///
    /// # Errors
    /// As [`Auth::require`].
    pub fn require_token(&self, token: Option<&[u8]>, peer: Option<IpAddr>, scope: Scope) -> Result<Caller, Problem> {
        if !self.has_tokens() {
            return Ok(Caller { held: None, ticket: None });
        }
        allowed(self.holder(token.ok_or_else(|| unauthorized("this relay asks for a token"))?, peer)?, scope)
    }

    /// Who holds a token; a bad one is counted.
    fn holder(&self, token: &[u8], peer: Option<IpAddr>) -> Result<Arc<Held>, Problem> {
        let known = Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner));
        let held = find(token, &known, self.clock.now());
        held.ok_or_else(|| self.guessed_by(peer, "the token is not known, or no longer valid"))
    }
}

fn allowed(held: Arc<Held>, scope: Scope) -> Result<Caller, Problem> {
    if held.entry.scopes.contains(&scope) {
        return Ok(Caller { held: Some(held), ticket: None });
    }
    let detail = format!("the token `{}` lacks the scope `{}`", held.entry.name, scope.word());
    Err(Problem::new(problem::SCOPE, detail))
}

/// A token in force, with what it has in use already if it was in force before.
fn held(entry: TokenEntry, present: &[Arc<Held>]) -> Arc<Held> {
    let is_same = |held: &&Arc<Held>| {
        let known = &held.entry;
        known.sha256 == entry.sha256 && known.limits == entry.limits && known.expires_at == entry.expires_at
    };
    let before = present.iter().find(is_same);
    let usage = before.map_or_else(|| Arc::new(Usage::new(entry.limits, entry.expires_at)), |held| Arc::clone(&held.usage));
    Arc::new(Held { entry, usage })
}

/// Leaves with a request who acts, if it is about administration.
fn remember(request: &HttpRequest, scope: Scope, token: &TokenEntry) {
    if scope == Scope::Manage {
        // Names of tokens that were made need not be the only ones of their kind.
        let name = token.id.as_ref().map_or_else(|| token.name.clone(), |id| format!("{}/{id}", token.name));
        request.extensions_mut().insert(Actor(name));
    }
}

fn unauthorized(detail: &'static str) -> Problem {
    Problem::new(problem::UNAUTHORIZED, detail).header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// The bearer token of a request with exactly one `Authorization` header; empty when it holds something else.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return Some(b"");
    }
    let (scheme, token) = value.split_at(value.iter().position(|b| *b == b' ').unwrap_or(value.len()));
    Some(if scheme.eq_ignore_ascii_case(b"bearer") { token.trim_ascii() } else { b"" })
}

/// Looks at every entry, so that the time taken says nothing about which one matched.
fn find(token: &[u8], known: &[Arc<Held>], now: Timestamp) -> Option<Arc<Held>> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let digest: [u8; 32] = Sha256::digest(token).into();
    let mut found = None;
    for held in known {
        if bool::from(held.entry.sha256.ct_eq(&digest)) {
            found = Some(held);
        }
    }
    found.filter(|held| held.entry.expires_at.is_none_or(|end| now < end)).cloned()
}

impl Caller {
    /// Whether only some topics are theirs.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.ticket.is_some() || self.held.as_ref().is_some_and(|held| !held.entry.topics.is_empty())
    }

    /// The token, if tokens are asked for.
    #[must_use]
    pub fn token(&self) -> Option<&TokenEntry> {
        self.held.as_ref().map(|held| &held.entry)
    }

    /// What it has in use, when there is a limit to that.
    #[must_use]
    pub fn usage(&self) -> Option<&Arc<Usage>> {
        self.held.as_ref().filter(|held| held.entry.limits != TokenLimits::default()).map(|held| &held.usage)
    }

    /// A place for a stream; `None` when tokens are not asked for.
    ///
    /// # Errors
    /// `token_limit`
    pub fn seat(&self, clock: &Arc<dyn Clock>) -> Result<Option<Seat>, Problem> {
        let Some(held) = &self.held else { return Ok(None) };
        let seat = held.usage.seat()?;
        Ok(Some(seat.under(self.ticket.as_ref().map(|ticket| ticket.enter(Arc::clone(clock))))))
    }

    /// The only topics that are theirs; empty = all. A ticket never reaches further than its token.
    fn topics(&self) -> &[TopicPattern] {
        if let Some(ticket) = &self.ticket {
            return ticket.topics().patterns();
        }
        self.held.as_ref().map_or(&[], |held| &held.entry.topics)
    }

    /// Whether a topic is theirs.
    #[must_use]
    pub fn reaches(&self, topic: &str) -> bool {
        !self.is_limited() || self.topics().iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether everything that the patterns choose is theirs.
    #[must_use]
    pub fn covers(&self, patterns: &PatternList) -> bool {
        let theirs = self.topics();
        !self.is_limited() || patterns.patterns().iter().all(|wanted| theirs.iter().any(|pattern| pattern.covers(wanted)))
    }

    /// Refuses a topic that is not theirs.
    ///
    /// # Errors
    /// `topic_not_allowed`.
    pub fn touch(&self, topic: &Topic) -> Result<(), Problem> {
        if self.reaches(topic.as_str()) { Ok(()) } else { Err(self.too_wide()) }
    }

    /// Refuses patterns that choose more than what is theirs.
    ///
    /// # Errors
    /// `topic_not_allowed`.
    pub fn follow(&self, patterns: &PatternList) -> Result<(), Problem> {
        if self.covers(patterns) { Ok(()) } else { Err(self.too_wide()) }
    }

    /// Refuses what only a caller of all topics may see.
    ///
    /// # Errors
    /// `topic_not_allowed`.
    pub fn unlimited(&self) -> Result<(), Problem> {
        if self.is_limited() { Err(self.too_wide()) } else { Ok(()) }
    }

    fn too_wide(&self) -> Problem {
        let theirs = self.topics().iter().map(TopicPattern::as_str).collect::<Vec<_>>().join(", ");
        Problem::new(
            problem::TOPIC_NOT_ALLOWED,
            format!("this {} reaches only: {theirs}", if self.ticket.is_some() { "ticket" } else { "token" }),
        )
    }
}

#[cfg(test)]
mod tests;
