//! Batches: which waiting events go out together, which failed ones again, and the body they make. Pure.
//!
//! A batch is cut once; while the process lives it is retried as it was, under the same `webhook-id`, which names its events. Every event of a failed
//! batch has an exception of its own, so that lists, redrive and retention know nothing of batches; after a restart those
//! whose first failure and due time are the same were one batch.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::{BufMut as _, BytesMut};

use super::bodies::Body;
use super::parcel::Parcel;
use super::window::{QUEUE_BYTES_MAX, QUEUE_MAX};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Batch, BatchFormat};
use hookcast_core::model::{Event, Seq};

/// What became of an event of a batch when it was posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sent {
    /// It went out with the others.
    #[default]
    Posted,
    /// It did not fit.
    Left,
    /// Nobody has it any more.
    Gone,
}

/// One event of a batch; whoever posts it fills in what had to be read.
#[derive(Debug)]
pub struct Member {
    /// Which event.
    pub seq: Seq,
    parcel: OnceCell<Rc<Parcel>>,
    sent: Cell<Sent>,
}

impl Member {
    /// An event, with what is known of it.
    #[must_use]
    pub fn new(seq: Seq, parcel: Option<Rc<Parcel>>) -> Self {
        Self { seq, parcel: parcel.map_or_else(OnceCell::new, OnceCell::from), sent: Cell::default() }
    }

    /// The event, once it is known.
    #[must_use]
    pub fn parcel(&self) -> Option<&Rc<Parcel>> {
        self.parcel.get()
    }

    /// Takes the event that was read.
    pub fn fill(&self, event: Event) -> &Rc<Parcel> {
        self.parcel.get_or_init(|| Rc::new(Parcel::new(event)))
    }

    /// What became of it.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.sent.get()
    }

    /// Notes what became of it.
    pub fn mark(&self, sent: Sent) {
        self.sent.set(sent);
    }

    /// Its event, for what is remembered of a failure.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        self.parcel.get().map(|parcel| parcel.event().clone())
    }
}

/// Events that go out together, rising; at least one.
#[derive(Debug)]
pub struct Gathered {
    /// How they were gathered.
    pub terms: Batch,
    /// The events.
    pub members: Vec<Member>,
    /// Whether they were posted under an id of first and last position alone, as builds before had it, which they keep.
    pub has_old_id: bool,
}

impl Gathered {
    /// Whether every event of it goes out.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.members.iter().all(|member| member.sent() == Sent::Posted)
    }

    /// Members with this fate.
    pub fn with(&self, sent: Sent) -> impl DoubleEndedIterator<Item = &Member> {
        self.members.iter().filter(move |member| member.sent() == sent)
    }
}

/// The body of a batch as it grows.
#[derive(Debug)]
pub struct BatchBody {
    terms: Batch,
    events: usize,
    bytes: BytesMut,
    seqs: Vec<Seq>,
    hops: u8,
}

impl BatchBody {
    /// An empty one, for about so many events.
    #[must_use]
    pub fn new(terms: Batch, events: usize) -> Self {
        Self { terms, events, bytes: BytesMut::new(), seqs: Vec::with_capacity(events), hops: 0 }
    }

    /// Adds an event; `false` when it does not fit. The first always does.
    pub fn add(&mut self, parcel: &Parcel) -> bool {
        let (json, seq) = (parcel.json(), parcel.event().seq());
        if !self.seqs.is_empty() && self.bytes.len() + json.len() + 2 > self.terms.max_bytes as usize {
            return false;
        }
        if self.seqs.is_empty() {
            // Events of one subscription are alike in size; growing by doubling would copy the body again and again.
            let likely = (json.len() + json.len() / 16 + 2) * self.events;
            self.bytes.reserve(likely.min(self.terms.max_bytes as usize + 2).max(json.len() + 2));
        }
        let is_lines = self.terms.format == BatchFormat::Ndjson;
        match (is_lines, !self.seqs.is_empty()) {
            (true, _) => {}
            (false, false) => self.bytes.put_u8(b'['),
            (false, true) => self.bytes.put_u8(b','),
        }
        self.bytes.put_slice(json);
        if is_lines {
            self.bytes.put_u8(b'\n');
        }
        self.seqs.push(seq);
        self.hops = self.hops.max(parcel.hops());
        true
    }

    /// The body; `None` without an event.
    #[must_use]
    pub fn finish(mut self) -> Option<Body> {
        if self.seqs.is_empty() {
            return None;
        }
        if self.terms.format != BatchFormat::Ndjson {
            self.bytes.put_u8(b']');
        }
        Some(Body::new(self.terms.format, self.seqs, self.hops, self.bytes.freeze()))
    }
}

/// Bytes of a body that events of these JSON forms make, at most: brackets, and a separator each.
const FRAME_BYTES: usize = 1;

/// The batches of one subscription.
#[derive(Debug)]
pub struct Batching {
    /// How events are gathered.
    pub terms: Batch,
    /// Failed batches that wait, by a name of their own: the first event.
    groups: HashMap<Seq, Vec<Seq>>,
    /// Groups that grow, by when their events failed first and are due.
    forming: HashMap<(Timestamp, Timestamp), Seq>,
    counted: Counted,
}

/// What was counted of the events that wait.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    first: Seq,
    since: Timestamp,
    events: usize,
    bytes: usize,
    is_full: bool,
}

impl Batching {
    /// None gathered yet.
    #[must_use]
    pub fn new(terms: Batch) -> Box<Self> {
        let (groups, forming) = (HashMap::new(), HashMap::new());
        Box::new(Self { terms, groups, forming, counted: Counted::default() })
    }

    /// Events and bytes that may wait in memory: two batches, so that the second is there when the first goes.
    #[must_use]
    pub fn queue_max(&self) -> (usize, usize) {
        let bytes = (2 * self.terms.max_bytes as usize).max(QUEUE_BYTES_MAX);
        ((2 * self.terms.max_events as usize).max(QUEUE_MAX), bytes)
    }

    /// Counts what waits: how many events the next batch has, and when it goes out at the latest; at once, when it is full.
    ///
    /// `has_come` says that there is nothing behind them yet: then the first one's arrival counts, else the time since it
    /// came up here, so that a backlog makes full batches.
    pub fn count<'a>(
        &mut self,
        waiting: usize,
        events: impl Iterator<Item = (Seq, &'a Rc<Parcel>)>,
        has_come: bool,
        now: Timestamp,
    ) -> Option<(usize, Timestamp)> {
        let mut events = events.peekable();
        let (first, parcel) = events.peek()?;
        if self.counted.first != *first {
            self.counted = Counted { first: *first, since: now, bytes: FRAME_BYTES, ..Counted::default() };
        } else if self.counted.events > waiting {
            self.counted = Counted { first: *first, since: self.counted.since, bytes: FRAME_BYTES, ..Counted::default() };
        }
        let counted = &mut self.counted;
        let since = if has_come { parcel.event().arrived_at().min(counted.since) } else { counted.since };
        for (_, parcel) in events.skip(counted.events) {
            if counted.is_full {
                break;
            }
            let bytes = parcel.json().len() + 1;
            if counted.events > 0 && counted.bytes + bytes > self.terms.max_bytes as usize {
                counted.is_full = true;
                break;
            }
            counted.events += 1;
            counted.bytes += bytes;
            counted.is_full = counted.events >= self.terms.max_events as usize;
        }
        Some((counted.events, if counted.is_full { now } else { since.plus(self.terms.max_wait) }))
    }

    /// Adds a failed event to the group that failed and is due with it; gives the group.
    pub fn join(&mut self, since: Timestamp, due_at: Timestamp, seq: Seq) -> Seq {
        let name = *self.forming.entry((since, due_at)).or_insert(seq);
        let group = self.groups.entry(name).or_default();
        if group.len() < self.terms.max_events as usize {
            group.push(seq);
            return name;
        }
        self.forming.insert((since, due_at), seq);
        self.groups.insert(seq, vec![seq]);
        seq
    }

    /// The groups that grew are whole.
    pub fn close(&mut self) {
        if !self.forming.is_empty() {
            self.forming = HashMap::new();
        }
    }

    /// The same on a clock that was moved by `by_ms`.
    pub fn shift(&mut self, by_ms: i64) {
        self.close();
        self.counted.since.0 = self.counted.since.0.saturating_add(by_ms);
    }

    /// Takes a group out; `seq` alone, when it is of none.
    pub fn take(&mut self, group: Seq, seq: Seq) -> Vec<Seq> {
        let mut members = self.groups.remove(&group).unwrap_or_default();
        if !members.contains(&seq) {
            members.push(seq);
        }
        members.sort_unstable();
        members
    }

    /// Keeps those of a group that did not go; gives its new name.
    pub fn keep(&mut self, members: Vec<Seq>) -> Option<Seq> {
        let name = *members.first()?;
        self.groups.entry(name).or_default().extend(members);
        Some(name)
    }

    /// The failed batches that wait, by their names; they are kept no longer.
    #[must_use]
    pub fn into_groups(self) -> HashMap<Seq, Vec<Seq>> {
        self.groups
    }

    /// Forgets events behind `to`.
    pub fn forget_after(&mut self, to: Seq) {
        self.close();
        self.groups.retain(|_, members| {
            members.retain(|seq| *seq <= to);
            !members.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
