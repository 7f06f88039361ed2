//! What one server worker knows of its streams: the rings, how far the log was scanned for them, and its two tasks.
//!
//! Everything in here belongs to one thread. The feeder and the wheel run while there are clients and end without them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use tokio::sync::Semaphore;

use super::ring::{Encoding, Ring, Selection};
use super::wheel::{self, Wheel};
use super::{Egress, feeder};
use hookcast_core::filter::{Facts, Filters, Verdict};
use hookcast_core::model::{Event, Seq, Topic};

/// Reads of the log at once for the streams of one worker: deliveries need the readers too.
const LOADS_MAX: usize = 4;
/// Topics whose rings are remembered.
const MEMO_TOPICS_MAX: usize = 4_096;

thread_local! {
    /// The workers of this thread that somebody uses: one, unless tests run several relays on it.
    static OF_THREAD: RefCell<Vec<Weak<State>>> = const { RefCell::new(Vec::new()) };
}

/// The streams of one worker.
pub(super) struct State {
    /// What tells its tasks from those of others.
    number: usize,
    pub(super) egress: Egress,
    pub(super) wheel: Wheel,
    /// Turns at reading the log.
    pub(super) loads: Semaphore,
    rings: RefCell<HashMap<Selection, Rc<Ring>>>,
    memo: RefCell<HashMap<Topic, Rc<[Rc<Ring>]>>>,
    scanned: Cell<Seq>,
    ring_bytes: Cell<usize>,
    tick: Cell<u64>,
    clients: Cell<usize>,
    feeding: Cell<bool>,
    turning: Cell<bool>,
    closing: Cell<bool>,
    spread: Cell<u32>,
    filters: RefCell<Filters>,
    sent_events: Cell<u64>,
    sent_bytes: Cell<u64>,
}

impl State {
    /// The streams of this thread: all doors of a worker share its rings.
    pub(super) fn of_thread(egress: &Egress) -> Rc<Self> {
        OF_THREAD.with_borrow_mut(|known| {
            known.retain(|state| state.strong_count() > 0);
            let shared = known.iter().filter_map(Weak::upgrade).find(|state| state.egress.is(egress));
            shared.unwrap_or_else(|| {
                let state = Rc::new(Self::new(egress.clone()));
                known.push(Rc::downgrade(&state));
                state
            })
        })
    }

    fn new(egress: Egress) -> Self {
        let closing = Cell::new(egress.is_closing());
        // Without random bytes readers only come back less spread out.
        let spread = Cell::new(getrandom::u32().unwrap_or_default());
        Self {
            number: egress.next_worker(),
            egress,
            wheel: Wheel::default(),
            loads: Semaphore::new(LOADS_MAX),
            rings: RefCell::default(),
            memo: RefCell::default(),
            scanned: Cell::default(),
            ring_bytes: Cell::default(),
            tick: Cell::default(),
            clients: Cell::default(),
            feeding: Cell::default(),
            turning: Cell::default(),
            closing,
            spread,
            filters: RefCell::default(),
            sent_events: Cell::default(),
            sent_bytes: Cell::default(),
        }
    }

    /// The ring of a selection, for one more client; starts the tasks.
    pub(super) fn join(self: &Rc<Self>, selection: Selection, encoding: Encoding) -> Rc<Ring> {
        self.clients.set(self.clients.get() + 1);
        if !self.feeding.replace(true) {
            self.scanned.set(self.egress.follow().head());
            self.start_feeder();
        }
        if !self.turning.replace(true) {
            let turning = Rc::clone(self);
            let turn = async move || wheel::run(&turning).await;
            self.egress.supervisor().restarted(format!("stream-clock-{}", self.number), turn).spawn_local();
        }
        if let Some(ring) = self.rings.borrow().get(&selection) {
            return Rc::clone(ring);
        }
        let ring = Rc::new(Ring::new(selection.clone(), encoding, self.scanned.get()));
        self.rings.borrow_mut().insert(selection, Rc::clone(&ring));
        self.memo.borrow_mut().clear();
        ring
    }

    fn start_feeder(self: &Rc<Self>) {
        let (feeding, last, mut is_again) = (Rc::clone(self), Rc::clone(self), false);
        let feed = async move || {
            if std::mem::replace(&mut is_again, true) {
                feeder::begin_anew(&feeding).await;
            }
            feeder::run(&feeding).await;
        };
        let task = self.egress.supervisor().restarted(format!("stream-feeder-{}", self.number), feed);
        task.then(async move || feeder::end(&last).await).spawn_local();
    }

    /// One client less; the last takes the ring along.
    pub(super) fn leave(&self, ring: &Ring) {
        self.clients.set(self.clients.get() - 1);
        if ring.sleepers.is_empty() {
            self.rings.borrow_mut().remove(&ring.selection);
            self.memo.borrow_mut().clear();
            self.ring_bytes.set(self.ring_bytes.get() - ring.counted.get());
            if ring.selection.filter.is_some() {
                self.filters.borrow_mut().sweep();
            }
        }
        if self.clients.get() == 0 {
            self.flush_counts();
        }
    }

    /// The rings that want a topic.
    pub(super) fn rings_for(&self, topic: &Topic) -> Rc<[Rc<Ring>]> {
        let mut memo = self.memo.borrow_mut();
        if let Some(known) = memo.get(topic) {
            return Rc::clone(known);
        }
        if memo.len() >= MEMO_TOPICS_MAX {
            memo.clear();
        }
        let rings: Rc<[_]> = self.rings.borrow().values().filter(|ring| ring.wants_topic(topic.as_str())).cloned().collect();
        memo.insert(topic.clone(), Rc::clone(&rings));
        rings
    }

    /// Whether a ring wants an event by its filter. One that fails on it skips it, and is counted.
    pub(super) fn passes<'e>(&self, ring: &Ring, event: &'e Event, facts: &mut Option<Facts<'e>>) -> bool {
        let Some(filter) = &ring.selection.filter else { return true };
        match self.filters.borrow_mut().judge(filter, facts.get_or_insert_with(|| Facts::of(event))) {
            Verdict::Wanted => true,
            Verdict::NotWanted => false,
            Verdict::Failed(_) => {
                metrics::counter!("hookcast_stream_filter_errors_total").increment(1);
                false
            }
        }
    }

    pub(super) fn all_rings(&self) -> Vec<Rc<Ring>> {
        self.rings.borrow().values().cloned().collect()
    }

    /// Brings a ring that grew back inside its limit and, with the others, inside the worker's.
    pub(super) fn settle(&self, ring: &Ring) {
        let settings = self.egress.settings();
        let others = self.ring_bytes.get() - ring.counted.get();
        ring.shrink(settings.ring_bytes_max.min(settings.worker_bytes_max.saturating_sub(others)));
        ring.counted.set(ring.bytes());
        self.ring_bytes.set(others + ring.bytes());
    }

    /// How far the log was scanned for all rings.
    pub(super) fn scanned(&self) -> Seq {
        self.scanned.get()
    }

    pub(super) fn set_scanned(&self, seq: Seq) {
        self.scanned.set(seq);
    }

    pub(super) fn has_clients(&self) -> bool {
        self.clients.get() > 0
    }

    pub(super) fn tick(&self) -> u64 {
        self.tick.get()
    }

    pub(super) fn next_tick(&self) -> u64 {
        self.tick.set(self.tick.get() + 1);
        self.tick.get()
    }

    pub(super) fn feeder_stopped(&self) {
        self.feeding.set(false);
    }

    pub(super) fn wheel_stopped(&self) {
        self.turning.set(false);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub(super) fn close(&self) {
        self.closing.set(true);
    }

    /// A number that differs from client to client.
    pub(super) fn next_spread(&self) -> u32 {
        let next = self.spread.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.spread.set(next);
        next >> 8
    }

    /// Counts what a client was handed; shown at the next tick.
    pub(super) fn count_sent(&self, events: u64, bytes: usize) {
        self.sent_events.set(self.sent_events.get() + events);
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    pub(super) fn flush_counts(&self) {
        self.egress.count_sent(self.sent_events.take(), self.sent_bytes.take());
    }
}
