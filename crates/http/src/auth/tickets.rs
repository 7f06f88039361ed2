//! Tickets: what a page shows in a URL because it can set no header, in place of the token of whoever made the ticket.
//!
//! A ticket opens streams of its own topics and nothing else, for the first time soon after it was made, then for as long as
//! streams are open under it and a little longer. It is known by its SHA-256 only, in memory only, and ends with its token.
//! Every rule takes the time as an argument; only the end of a stream reads the clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpRequest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::{Auth, Caller, Held, Scope, unauthorized};
use crate::problem::{self, Problem};
use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::PatternList;

/// Tickets at once; of more, the oldest that nobody has used yet goes.
pub const TICKETS_MAX: usize = 20_000;
/// Time in which a ticket has to be used for the first time.
pub const FIRST_USE: Duration = Duration::from_secs(30);
/// Time after its last stream ended in which the next has to begin.
pub const REUSE: Duration = Duration::from_mins(1);
/// Longest life of a ticket, and of the streams under it.
pub const LIFETIME: Duration = Duration::from_hours(12);

/// What tickets begin with, so that a leaked one is found.
const PREFIX: &str = "hct_";
const RANDOM_BYTES: usize = 32;
/// Longest text that is looked at; a longer one is refused unread.
const TICKET_BYTES_MAX: usize = 64;

type Digest = [u8; 32];

/// The tickets of the relay, by their SHA-256.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<HashMap<Digest, Arc<Ticket>>>);

/// One ticket.
#[derive(Debug)]
pub(super) struct Ticket {
    topics: PatternList,
    held: Arc<Held>,
    made_at: Timestamp,
    usage: Mutex<Usage>,
}

/// How a ticket has been used.
#[derive(Debug, Default)]
struct Usage {
    /// Streams open under it.
    open: u32,
    /// When the last of them ended.
    ended_at: Option<Timestamp>,
}

/// The place of one stream under its ticket; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    ticket: Arc<Ticket>,
    clock: Arc<dyn Clock>,
}

impl Ticket {
    pub(super) fn topics(&self) -> &PatternList {
        &self.topics
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        now >= self.made_at.plus(LIFETIME) || self.held.usage.is_over(now)
    }

    /// Whether nobody has used it so far.
    fn is_fresh(&self) -> bool {
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.open == 0 && usage.ended_at.is_none()
    }

    /// Whether another stream may begin under it.
    fn opens(&self, now: Timestamp) -> bool {
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let until = match (usage.open, usage.ended_at) {
            (0, None) => self.made_at.plus(FIRST_USE),
            (0, Some(ended_at)) => ended_at.plus(REUSE),
            _ => Timestamp(i64::MAX),
        };
        drop(usage);
        now < until && !self.has_ended(now)
    }

    /// A place for one stream.
    pub(super) fn enter(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Pass {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).open += 1;
        Pass { ticket: Arc::clone(self), clock }
    }

    fn leave(&self, now: Timestamp) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.open = usage.open.saturating_sub(1);
        usage.ended_at = Some(now);
    }
}

impl Pass {
    /// Whether the stream has to end.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.ticket.has_ended(now)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.ticket.leave(self.clock.now());
    }
}

impl Tickets {
    /// Makes a ticket out of random bytes.
    fn make(&self, held: &Arc<Held>, topics: PatternList, random: [u8; RANDOM_BYTES], now: Timestamp) -> Result<String, Problem> {
        let text = text_of(random);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TICKETS_MAX {
            make_room(&mut known, held, now)?;
        }
        let ticket = Ticket { topics, held: Arc::clone(held), made_at: now, usage: Mutex::default() };
        known.insert(digest(&text), Arc::new(ticket));
        Ok(text)
    }

    /// The ticket of this text, if a stream may begin under it.
    fn find(&self, text: &str, now: Timestamp) -> Option<Arc<Ticket>> {
        if text.len() > TICKET_BYTES_MAX {
            return None;
        }
        let key = digest(text);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&key)?.opens(now) {
            return known.get(&key).cloned();
        }
        known.remove(&key);
        None
    }
}

/// Drops what opens nothing any more; else the oldest that was never used, of the same token first, so that whoever makes too
/// many takes them from himself.
fn make_room(known: &mut HashMap<Digest, Arc<Ticket>>, held: &Arc<Held>, now: Timestamp) -> Result<(), Problem> {
    known.retain(|_, ticket| ticket.opens(now));
    if known.len() < TICKETS_MAX {
        return Ok(());
    }
    let is_other = |ticket: &Ticket| !Arc::ptr_eq(&ticket.held.usage, &held.usage);
    let fresh = known.iter().filter(|(_, ticket)| ticket.is_fresh());
    let oldest = fresh.min_by_key(|(_, ticket)| (is_other(ticket), ticket.made_at)).map(|(key, _)| *key);
    if oldest.and_then(|key| known.remove(&key)).is_some() {
        return Ok(());
    }
    let detail = format!("{TICKETS_MAX} tickets are in use; come back when streams have ended");
    Err(Problem::new(problem::TOO_MANY_REQUESTS, detail).retry_after(30))
}

fn text_of(random: [u8; RANDOM_BYTES]) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

fn digest(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}

impl Auth {
    /// Makes a ticket for these topics in the name of a caller that has shown a token; gives it and the time until which it has
    /// to be used for the first time. Where no tokens are asked for, it is a text that nobody asks for.
    ///
    /// # Errors
    /// `too_many_requests` when [`TICKETS_MAX`] are in use.
    pub fn make_ticket(
        &self,
        caller: &Caller,
        topics: PatternList,
        random: [u8; RANDOM_BYTES],
    ) -> Result<(String, Timestamp), Problem> {
        let now = self.clock.now();
        let text = match &caller.held {
            Some(held) => self.tickets.make(held, topics, random, now)?,
            None => text_of(random),
        };
        Ok((text, now.plus(FIRST_USE)))
    }

    /// Finds out who wants to follow streams: by the ticket, if one is given, else by the token of the request.
    ///
    /// # Errors
    /// As [`Auth::require`]; `unauthorized` for a ticket that is not known or has ended.
    pub fn require_stream(&self, request: &HttpRequest, ticket: Option<&str>) -> Result<Caller, Problem> {
        let Some(text) = ticket.filter(|_| self.has_tokens()) else { return self.require(request, Scope::Stream) };
        match self.tickets.find(text, self.clock.now()) {
            Some(ticket) => Ok(Caller { held: Some(Arc::clone(&ticket.held)), ticket: Some(ticket) }),
            None => Err(self.guessed(request, "the ticket is not known, or it has ended; ask for another one")),
        }
    }
}

impl Caller {
    /// Refuses a caller that shows no ticket where tokens are asked for: what is made for pages of other sites must not be opened
    /// by what a browser or a proxy adds by itself.
    ///
    /// # Errors
    /// `unauthorized`
    pub fn must_have_ticket(&self) -> Result<(), Problem> {
        if self.held.is_some() && self.ticket.is_none() {
            return Err(unauthorized("this form needs a ticket: `POST /v1/stream-tickets`, then `?ticket=`"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
