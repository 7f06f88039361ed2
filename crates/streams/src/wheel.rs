//! One clock for all streams of a worker: it turns once a tick and looks only at those whose time may have come.
//!
//! It keeps who to look at and when; what is due is the sleepers' business.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::counts::Allowance;
use super::ring::Ring;
use super::sleepers::Beat;
use super::worker::State;
use hookcast_core::clock::Timestamp;
use hookcast_supervise::catch;

/// Ticks of one turn; what lies further ahead goes round again.
const BUCKETS: usize = 512;
/// After this many clients the woken ones get a turn.
const LOOKS_A_TURN: usize = 64;

/// Who to look at, by tick.
pub(super) struct Wheel {
    buckets: RefCell<Vec<Vec<Entry>>>,
    /// Those whose allowance can end.
    watched: RefCell<Vec<Watched>>,
}

struct Watched {
    ring: Weak<Ring>,
    place: usize,
    holder: u64,
    allowance: Weak<dyn Allowance>,
}

struct Entry {
    ring: Weak<Ring>,
    place: usize,
    holder: u64,
    due: u64,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { buckets: RefCell::new((0..BUCKETS).map(|_| Vec::new()).collect()), watched: RefCell::default() }
    }
}

impl Wheel {
    /// Looks at this client at the tick `due`, and from then on as long as it is there.
    pub(super) fn add(&self, ring: &Rc<Ring>, place: usize, holder: u64, due: u64) {
        self.put(Entry { ring: Rc::downgrade(ring), place, holder, due });
    }

    /// Ends this client when its allowance is over.
    pub(super) fn watch(&self, ring: &Rc<Ring>, place: usize, holder: u64, allowance: Weak<dyn Allowance>) {
        self.watched.borrow_mut().push(Watched { ring: Rc::downgrade(ring), place, holder, allowance });
    }

    /// Ends those whose allowance is over, and forgets those that have gone.
    fn end_those_over(&self, tick: u64, now: Timestamp) {
        self.watched.borrow_mut().retain(|watched| {
            let Some(allowance) = watched.allowance.upgrade() else { return false };
            let is_over = allowance.is_over(now);
            if is_over && let Some(ring) = watched.ring.upgrade() {
                ring.sleepers.end(watched.place, watched.holder, tick);
            }
            !is_over
        });
    }

    fn has_watched(&self) -> bool {
        !self.watched.borrow().is_empty()
    }

    fn put(&self, entry: Entry) {
        self.buckets.borrow_mut()[bucket(entry.due)].push(entry);
    }

    /// Looks at everyone whose time has come.
    async fn turn(&self, now: u64) {
        let entries = std::mem::take(&mut self.buckets.borrow_mut()[bucket(now)]);
        for (looked, mut entry) in entries.into_iter().enumerate() {
            if entry.due > now {
                self.put(entry);
                continue;
            }
            let Some(ring) = entry.ring.upgrade() else { continue };
            // Whoever cannot be looked at is left out; the others of this turn are not.
            let beat = catch(|| ring.sleepers.beat(entry.place, entry.holder, now)).unwrap_or_else(|panic| {
                panic.tell("stream", "this stream gets no heartbeat any more");
                Beat::Drop
            });
            if let Beat::At(due) = beat {
                entry.due = due.max(now + 1);
                self.put(entry);
            }
            if looked % LOOKS_A_TURN == LOOKS_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn bucket(due: u64) -> usize {
    usize::try_from(due % BUCKETS as u64).unwrap_or_default()
}

/// Turns the wheel as long as there are clients.
pub(super) async fn run(worker: &State) {
    let mut ticks = tokio::time::interval(worker.egress.settings().tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    while worker.has_clients() && !worker.is_closing() {
        ticks.tick().await;
        let now = worker.next_tick();
        if worker.wheel.has_watched() {
            worker.wheel.end_those_over(now, worker.egress.now());
        }
        worker.wheel.turn(now).await;
        worker.flush_counts();
    }
    worker.wheel_stopped();
}
