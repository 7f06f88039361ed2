//! One life of a subscription: what was promised to its endpoint, what that took, and what must not reach it.
//!
//! Owns the rules for one endpoint. Must not know what else happens in the relay.

use std::collections::{BTreeMap, BTreeSet};

use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::{PatternList, Seq};
use tokio::time::{Duration, Instant};

use crate::truth::{Receipt, Stored};

/// In place of when something was taken: the process that knew of it died before it was saved.
const FORGOTTEN: u64 = u64::MAX;
/// How long after an answer that says so a subscription may still begin a request.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// One life of a subscription: an id that is removed and made again has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life(pub(crate) usize);

/// How many requests of a life may be open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alone {
    /// As many as its bound says.
    No,
    /// One.
    Always,
    /// One a key.
    ByKey,
}

/// What somebody does to the cursor or to single events of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The cursor moves somewhere.
    Cursor,
    /// What is behind this is posted once more.
    Again(Seq),
    /// A job posts these, both ends inclusive.
    Job(Seq, Seq),
}

/// Whether a life must receive nothing more.
#[derive(Debug, Default)]
struct Silence {
    /// Since somebody was told so; `None` when somebody may have ended it.
    since: Option<Instant>,
    /// Told to an earlier process.
    is_old: bool,
    /// What may end it: begun so far, and under way.
    begun: u64,
    under_way: u32,
}

/// What is known of one life.
#[derive(Debug)]
pub(crate) struct LifeState {
    pub(crate) partition: u16,
    pub(crate) alone: Alone,
    pub(crate) bound: usize,
    /// Whether its events come in their order.
    pub(crate) keeps_order: bool,
    /// All that it ever chose.
    choices: Vec<SubscriptionRecord>,
    /// Where it starts.
    starts_after: Seq,
    /// The last in order of each line that is ordered.
    last_taken: BTreeMap<String, Seq>,
    /// Moves of the cursor that are under way.
    moving: u32,
    /// Requests that were open when it had moved.
    old: BTreeSet<usize>,
    /// Whether its cursor ever went back.
    went_back: bool,
    /// Whether somebody may have passed events over.
    pub(crate) was_moved: bool,
    /// What may be posted although it was taken, and what jobs post, which is in no order.
    again: Vec<(Seq, Seq)>,
    by_jobs: Vec<(Seq, Seq)>,
    silence: Silence,
    pub(crate) open: BTreeSet<usize>,
    /// Answers that were good, by position: the place of the first end.
    taken: BTreeMap<Seq, u64>,
}

fn covers(ranges: &[(Seq, Seq)], seq: Seq) -> bool {
    ranges.iter().any(|(from, to)| (*from..=*to).contains(&seq))
}

/// Whether an event is one of these, by the simulation's own reading of a definition.
pub(crate) fn is_chosen(event: &Stored, topics: &PatternList, types: &[String], has_filter: bool) -> bool {
    let filter = !has_filter || event.data["p"] == true;
    topics.matches(&event.topic) && (types.is_empty() || types.contains(&event.kind)) && filter
}

/// Whether a definition wants an event where it judges all of them.
fn chooses(record: &SubscriptionRecord, event: &Stored) -> bool {
    is_chosen(event, &record.spec.topics, &record.spec.types, record.spec.filter.is_some())
}

impl LifeState {
    /// One that begins with this definition.
    pub(crate) fn new(record: SubscriptionRecord, alone: Alone, bound: usize) -> Self {
        Self {
            partition: u16::MAX,
            alone,
            bound,
            keeps_order: true,
            starts_after: record.starts_after,
            choices: vec![record],
            last_taken: BTreeMap::new(),
            moving: 0,
            old: BTreeSet::new(),
            went_back: false,
            was_moved: false,
            again: Vec::new(),
            by_jobs: Vec::new(),
            silence: Silence::default(),
            open: BTreeSet::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A process begins: what ended in the one before and is not among the `saved` is forgotten, and happens again.
    pub(crate) fn restart<'a>(&mut self, saved: u64, line_of: impl Fn(Seq) -> &'a str) {
        self.taken.values_mut().filter(|end| **end >= saved).for_each(|end| *end = FORGOTTEN);
        self.last_taken.clear();
        if !self.went_back {
            let known = self.taken.iter().filter(|(seq, end)| **end != FORGOTTEN && !covers(&self.by_jobs, **seq));
            self.last_taken.extend(known.map(|(seq, _)| (line_of(*seq).to_owned(), *seq)));
        }
        self.moving = 0;
        self.silence.is_old |= self.silence.since.is_some();
        self.silence.since = None;
        self.silence.under_way = 0;
    }

    /// Its definition may change to this: what holds from now on is the weaker of both.
    pub(crate) fn redefine(&mut self, record: SubscriptionRecord, alone: Alone, bound: usize, is_same_order: bool) {
        if self.alone != alone {
            self.alone = Alone::No;
        }
        self.bound = self.bound.max(bound);
        self.keeps_order &= is_same_order;
        self.choices.push(record);
    }

    /// Somebody begins to reach into it.
    pub(crate) fn reach(&mut self, reach: Reach) {
        match reach {
            Reach::Cursor => {}
            Reach::Again(after) => {
                self.again.push((after.next(), Seq(u64::MAX)));
                self.went_back = true;
            }
            Reach::Job(from, to) => {
                self.again.push((from, to));
                self.by_jobs.push((from, to));
                return;
            }
        }
        (self.moving, self.was_moved) = (self.moving + 1, true);
    }

    /// A move of the cursor was answered.
    pub(crate) fn moved(&mut self) {
        self.moving = self.moving.saturating_sub(1);
        self.last_taken.clear();
        self.old.extend(&self.open);
    }

    /// Something begins that may end its silence; gives the number to end that with.
    pub(crate) fn stir(&mut self) {
        self.silence = Silence { begun: self.silence.begun + 1, under_way: self.silence.under_way + 1, ..Silence::default() };
    }

    /// That is over.
    pub(crate) fn stirred(&mut self) {
        self.silence.under_way = self.silence.under_way.saturating_sub(1);
    }

    /// So much of that had begun.
    pub(crate) fn stirs(&self) -> u64 {
        self.silence.begun
    }

    /// Somebody was told that it receives nothing more, who began when so much had begun.
    pub(crate) fn silence(&mut self, begun: u64) {
        if self.silence.begun == begun && self.silence.under_way == 0 {
            self.silence.since = Some(Instant::now());
        }
    }

    /// Whether an event was ever taken.
    pub(crate) fn is_taken(&self, seq: Seq) -> bool {
        self.taken.contains_key(&seq)
    }

    /// What speaks against a request that arrives, beside others that are open.
    pub(crate) fn objections(&self, events: &[&Stored], others: &[&Receipt]) -> Vec<String> {
        let seqs: Vec<Seq> = events.iter().map(|event| event.seq).collect();
        let mut wrong = Vec::new();
        let is_silent = self.silence.is_old || self.silence.since.is_some_and(|since| since.elapsed() > SILENT_AFTER);
        if is_silent {
            wrong.push(format!("received {seqs:?} although it is paused or gone"));
        }
        let lines: BTreeSet<&str> = events.iter().filter_map(|event| event.key()).collect();
        let is_beside = match self.alone {
            Alone::No => false,
            Alone::Always => !others.is_empty(),
            Alone::ByKey => others.iter().flat_map(|other| &other.keys).any(|key| lines.contains(key.as_str())),
        };
        if is_beside {
            let open: Vec<_> = others.iter().map(|other| &other.seqs).collect();
            wrong.push(format!("received {seqs:?} while {open:?} was open"));
        }
        if others.len() >= self.bound {
            wrong.push(format!("received {seqs:?} beside {} others, at most {} may be open", others.len(), self.bound));
        }
        for event in events {
            let seq = event.seq;
            if !self.choices.iter().any(|record| chooses(record, event)) {
                wrong.push(format!("received {seq}, which it never wanted"));
            }
            if covers(&self.again, seq) {
                continue;
            }
            if seq <= self.starts_after {
                wrong.push(format!("received {seq}, and starts behind {}", self.starts_after));
            }
            if self.taken.get(&seq).is_some_and(|end| *end != FORGOTTEN) {
                wrong.push(format!("received {seq} again, although it was taken, and that is not forgotten"));
            }
            if others.iter().any(|other| other.seqs.contains(&seq)) {
                wrong.push(format!("received {seq} while it was open"));
            }
        }
        wrong
    }

    /// An event of a request was taken, as the `end`th of all; says what is wrong with its order.
    pub(crate) fn take(&mut self, place: usize, event: &Stored, end: u64) -> Option<String> {
        let seq = event.seq;
        let is_new = self.taken.get(&seq).is_none_or(|end| *end == FORGOTTEN);
        self.taken.insert(seq, end);
        let line = match self.alone {
            Alone::No => return None,
            Alone::Always => "",
            Alone::ByKey => event.key()?,
        };
        if !is_new || !self.keeps_order || self.moving > 0 || self.old.contains(&place) || covers(&self.by_jobs, seq) {
            return None;
        }
        let last = self.last_taken.insert(line.to_owned(), seq).filter(|last| *last > seq)?;
        Some(format!("took {seq} behind {last}"))
    }

    /// The line in which an event stands.
    pub(crate) fn line_of(alone: Alone, event: &Stored) -> &str {
        if alone == Alone::ByKey { event.key().unwrap_or_default() } else { "" }
    }
}
