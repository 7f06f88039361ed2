//! The desks of one lane and who is next: matching, ready queue, timers, unsaved changes. No I/O; time is an argument.
//!
//! Everything here is called from the lane's one thread between two awaits. It does not read the log, post or save.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::desk::Desk;
use super::job::{Effect, Job, Next};
use super::journal::Journal;
use super::limits::{Bell, LimitBook, Pass};
use super::matcher::{Matcher, Place};
use super::notice::Notice;
use super::parcel::Parcel;
use super::sieve::Sieve;
use super::window::{Position, Progress};
use hookcast_core::clock::Timestamp;
use hookcast_core::filter::Facts;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Event, ExceptionState, Jumps, Outcome, Page, Seq};
use hookcast_log::storage::Lease;

mod changing;
mod effects;
mod feeding;
mod health;
mod letters;
mod recovery;
mod timing;

/// Bytes of events that may wait in one lane; more stay in the log.
pub const LANE_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Part of the slots, as a divisor, that endpoints which fail may hold together.
pub const SUSPECT_SHARE: u32 = 4;

/// A job and whose it is.
#[derive(Debug)]
pub struct Assignment {
    /// The desk.
    pub place: Place,
    /// Its incarnation, to notice when the place was given to another.
    pub ordinal: Ordinal,
    /// The definition to deliver by.
    pub record: Arc<SubscriptionRecord>,
    /// The attempt.
    pub job: Job,
    /// Whether the endpoint was failing when the job was given out.
    pub is_suspect: bool,
    /// What it holds of shared limits until it ends.
    pub pass: RefCell<Option<Box<Pass>>>,
}

/// All desks of a lane.
#[derive(Debug)]
pub struct Floor {
    desks: Vec<Option<Box<Desk>>>,
    free: Vec<Place>,
    by_ordinal: HashMap<Ordinal, Place>,
    matcher: Matcher,
    ready: VecDeque<Place>,
    /// When desks are looked at again; at most one entry a desk.
    timers: BTreeSet<(Timestamp, Place)>,
    /// Desks that differ from "at the frontier", by partition.
    busy: HashMap<u16, Vec<Place>>,
    /// Desks that may want to be fed from the log, each once.
    hungry: Vec<Place>,
    leases: HashMap<u16, (Lease, u64)>,
    waiting_bytes: usize,
    suspects_in_flight: u32,
    suspects_max: u32,
    /// Subscriptions with recovery jobs.
    replaying: Vec<Ordinal>,
    /// Deliveries that succeeded, did not die since, and may be dead letters.
    recovered: BTreeSet<(Ordinal, Seq)>,
    /// Dead letters that are counted unless they were some before, and retries that are not if they were none.
    doubtful: BTreeMap<(Ordinal, Seq), ExceptionState>,
    /// Subscriptions whose dead letters are to be counted anew.
    miscounted: BTreeSet<Ordinal>,
    /// Which of them is the first to be counted; the lowest, unless said.
    count_from: Option<Ordinal>,
    /// What desks want by the content of events.
    pub sieve: Sieve,
    /// Unsaved changes.
    pub journal: Journal,
    /// What is to be said of deliveries.
    pub notices: Vec<Notice>,
    /// Desks whose order needs keys that have to be read.
    pub unsorted: Vec<Ordinal>,
    /// Whether a desk let events stand aside, or waits to be sorted, since this was taken.
    pub has_moved: bool,
    /// Where the lane's reader stands.
    pub scanned: Seq,
    /// Attempts that ended so far.
    pub settled: u64,
    /// Deliveries for which there was no room among those that may be dead letters, since this was taken.
    pub left_listed: u64,
    /// Whether storage does not answer what is looked up of dead letters, which was said.
    pub is_unreadable: bool,
    /// Whether what storage has of dead letters was found damaged, which was said.
    pub is_damaged: bool,
    book: Arc<LimitBook>,
    bell: Arc<Bell>,
    /// Where there are no events, and never were.
    jumps: Jumps,
}

impl Floor {
    /// An empty floor whose reader stands at `scanned`, with room for `slots` attempts.
    #[must_use]
    pub fn new(scanned: Seq, slots: u32) -> Self {
        Self {
            desks: Vec::new(),
            free: Vec::new(),
            by_ordinal: HashMap::new(),
            matcher: Matcher::default(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            busy: HashMap::new(),
            hungry: Vec::new(),
            leases: HashMap::new(),
            waiting_bytes: 0,
            suspects_in_flight: 0,
            suspects_max: (slots / SUSPECT_SHARE).max(1),
            replaying: Vec::new(),
            recovered: BTreeSet::new(),
            doubtful: BTreeMap::new(),
            miscounted: BTreeSet::new(),
            count_from: None,
            sieve: Sieve::default(),
            journal: Journal::default(),
            notices: Vec::new(),
            unsorted: Vec::new(),
            has_moved: false,
            scanned,
            settled: 0,
            left_listed: 0,
            is_unreadable: false,
            is_damaged: false,
            book: Arc::default(),
            bell: Arc::default(),
            jumps: Jumps::NONE,
        }
    }

    /// Tells it where the log has no events, and never had any.
    pub fn pass_over(&mut self, jumps: &Jumps) {
        self.jumps.clone_from(jumps);
    }

    /// Takes a partition into this lane.
    pub fn hold(&mut self, lease: Lease, taken_in: u64) {
        self.leases.insert(lease.partition, (lease, taken_in));
    }

    /// The desk of a subscription, to look at.
    #[must_use]
    pub fn desk(&self, ordinal: Ordinal) -> Option<&Desk> {
        self.desks.get(*self.by_ordinal.get(&ordinal)?)?.as_deref()
    }

    /// Changes the desk of a subscription. Whatever was changed: afterwards it is asked for work, fed and saved as its state
    /// then wants, so that nobody who changes one can leave it asleep.
    pub fn change<T>(&mut self, ordinal: Ordinal, change: impl FnOnce(&mut Desk) -> T) -> Option<T> {
        let place = *self.by_ordinal.get(&ordinal)?;
        let changed = change(self.desks.get_mut(place)?.as_deref_mut()?);
        self.rouse(place);
        Some(changed)
    }

    /// The desk of a subscription for changes that leave it neither more nor less to do.
    fn desk_mut(&mut self, ordinal: Ordinal) -> Option<&mut Desk> {
        let place = *self.by_ordinal.get(&ordinal)?;
        self.desks.get_mut(place)?.as_deref_mut()
    }

    /// Number of desks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_ordinal.len()
    }

    /// Whether there is no desk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_ordinal.is_empty()
    }

    /// Sets up a desk that goes on from `progress`; events of its holes are offered by [`Floor::reopen`].
    pub fn add(&mut self, record: Arc<SubscriptionRecord>, progress: &Progress) -> Place {
        let position = if progress.base >= self.scanned {
            Position::Riding { not_before: progress.base }
        } else {
            Position::Lagging(progress.base)
        };
        let ordinal = record.ordinal;
        let place = self.free.pop().unwrap_or_else(|| {
            self.desks.push(None);
            self.desks.len() - 1
        });
        let mut desk = Box::new(Desk::new(record, position));
        desk.look_back(self.scanned);
        self.matcher.insert(place, desk.patterns());
        desk.limit(&self.book, &self.bell, None);
        self.desks[place] = Some(desk);
        self.by_ordinal.insert(ordinal, place);
        if let Some((_, taken_in)) = self.leases.get_mut(&ordinal.partition()) {
            *taken_in = (*taken_in).max(ordinal.0);
        }
        self.rouse(place);
        place
    }

    /// Offers events again that were in flight when the process ended; rising.
    pub fn reopen(&mut self, place: Place, events: Vec<Event>) {
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        for event in events {
            desk.window.offer_again(event.seq(), Rc::new(Parcel::new(event)));
        }
        self.rouse(place);
    }

    /// Removes a desk; attempts in flight end without effect.
    pub fn remove(&mut self, ordinal: Ordinal) {
        let Some(place) = self.by_ordinal.remove(&ordinal) else { return };
        if let Some(desk) = self.desks[place].take() {
            self.waiting_bytes -= desk.window.waiting_bytes();
            if let Some(at) = desk.wakes_at {
                self.timers.remove(&(at, place));
            }
            self.matcher.remove(place, desk.patterns());
        }
        self.busy.entry(ordinal.partition()).or_default().retain(|other| *other != place);
        self.ready.retain(|other| *other != place);
        self.hungry.retain(|other| *other != place);
        self.replaying.retain(|other| *other != ordinal);
        self.recovered.retain(|(other, _)| *other != ordinal);
        self.doubtful.retain(|(other, _), _| *other != ordinal);
        self.miscounted.remove(&ordinal);
        self.free.push(place);
        self.journal.forget(ordinal);
    }

    /// Offers a page of the lane's reader to every desk that rides with it. Gives how many deliveries it made.
    pub fn scan(&mut self, page: &Arc<Page>) -> usize {
        let mut offered = 0;
        let matching: Vec<Rc<[Place]>> = page.topics().iter().map(|topic| self.matcher.matching(topic)).collect();
        if matching.iter().any(|places| !places.is_empty()) {
            for event in page.events_after(self.scanned) {
                let index = u32::try_from(event.seq().0 - page.first().0).unwrap_or(u32::MAX);
                let places = Rc::clone(&matching[page.topic_index_at(index)]);
                if !places.is_empty() {
                    offered += self.offer(&event, &places);
                }
            }
        }
        self.scanned = page.last().max(self.scanned);
        offered
    }

    fn offer(&mut self, event: &Event, places: &[Place]) -> usize {
        let seq = event.seq();
        let mut offered = 0;
        // Most events wait nowhere when those they are for lag.
        let mut parcel: Option<Rc<Parcel>> = None;
        let mut kind = None;
        let mut facts = None;
        for &place in places {
            let Some(desk) = self.desks[place].as_deref_mut() else { continue };
            let Position::Riding { not_before } = desk.window.position() else { continue };
            if seq <= not_before {
                continue;
            }
            if !desk.wants(event, || kind.get_or_insert_with(|| event.fields().kind)) {
                continue;
            }
            if desk.filter_at(seq).is_some() && !self.sieve.passes(desk, facts.get_or_insert_with(|| Facts::of(event))) {
                continue;
            }
            if !desk.is_active() || !desk.has_room(self.waiting_bytes) {
                desk.window.set_position(Position::Lagging(seq.prev()));
                self.note_hunger(place);
            } else {
                let parcel = parcel.get_or_insert_with(|| Rc::new(Parcel::new(event.clone())));
                desk.window.offer(seq, Rc::clone(parcel), parcel.weight());
                self.waiting_bytes += parcel.weight();
                offered += 1;
            }
            self.mark_busy(place);
            self.make_ready(place);
        }
        offered
    }

    /// The next attempt to make.
    pub fn next(&mut self, now: Timestamp) -> Option<Assignment> {
        if self.journal.is_full() {
            return None;
        }
        while let Some(place) = self.ready.pop_front() {
            let suspects_full = self.suspects_in_flight >= self.suspects_max;
            let Some(desk) = self.desks[place].as_deref_mut() else { continue };
            desk.is_ready = false;
            let is_suspect = desk.circuit().is_suspect();
            if is_suspect && suspects_full {
                // Looked at again soon: other failing endpoints hold the share that such endpoints have together.
                desk.step_aside();
                let at = Timestamp(now.0 + 100);
                self.wake_at(place, at);
                continue;
            }
            let bytes_before = desk.window.waiting_bytes();
            let next = desk.next(now);
            self.waiting_bytes -= bytes_before - desk.window.waiting_bytes();
            if desk.keeps_order() {
                self.attend(place);
            }
            let Some(desk) = self.desks[place].as_deref_mut() else { continue };
            match next {
                Next::Job(job) => {
                    let (ordinal, record) = (desk.ordinal(), Arc::clone(&desk.record));
                    let pass = RefCell::new(desk.pass.take());
                    self.suspects_in_flight += u32::from(is_suspect);
                    self.make_ready(place);
                    return Some(Assignment { place, ordinal, record, job, is_suspect, pass });
                }
                Next::WaitUntil(at) => {
                    desk.step_aside();
                    self.wake_at(place, at);
                }
                Next::Nothing => desk.step_aside(),
            }
        }
        None
    }

    /// Takes in the outcome of an attempt; says whether the subscription must be disabled.
    pub fn settle(
        &mut self,
        assignment: &Assignment,
        event: Option<Event>,
        outcome: &Outcome,
        times: (Timestamp, Timestamp),
        chance: f64,
    ) -> Effect {
        self.suspects_in_flight -= u32::from(assignment.is_suspect);
        self.settled += 1;
        drop(assignment.pass.take());
        let Some(desk) = self.desks.get_mut(assignment.place).and_then(Option::as_deref_mut) else { return Effect::default() };
        if desk.ordinal() != assignment.ordinal {
            return Effect::default();
        }
        let was_open = desk.circuit().is_open();
        let (mut effect, notice) = desk.settle_in_force(assignment, outcome, times, chance);
        let opened = !was_open && desk.circuit().is_open();
        self.notices.extend(notice);
        let doubtful = desk.take_doubtful();
        if !outcome.is_success() {
            self.mark_busy(assignment.place);
            self.doubt(assignment.ordinal, doubtful);
        }
        for (mut of_member, event) in std::mem::take(&mut effect.rest) {
            self.remember(assignment, &mut of_member, event);
        }
        self.remember(assignment, &mut effect, event);
        self.note_success(assignment, outcome, times.0);
        self.journal.touch(assignment.ordinal);
        if opened {
            // What waits is in the log as well; an endpoint that takes nothing must not keep the lane's memory.
            self.rewind(assignment.place);
            self.mark_busy(assignment.place);
        }
        self.make_ready(assignment.place);
        self.note_hunger(assignment.place);
        effect
    }
}

#[cfg(test)]
mod tests;
