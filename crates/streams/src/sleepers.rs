//! The places of a ring's clients: who sleeps, who is to be woken, whose heartbeat or end is due.
//!
//! A client has one place from its beginning to its end and no timer of its own: the wheel turns for all of them. Time is
//! counted in ticks of the wheel.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::history::Loaded;
use hookcast_core::model::Seq;

/// After this many clients others get a turn.
const WAKES_A_TURN: u32 = 64;

/// The places of all clients of one ring.
#[derive(Default)]
pub(super) struct Sleepers {
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<usize>>,
    taken: Cell<usize>,
}

/// When a client has to be looked at, in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Longest silence.
    pub(super) heartbeat: u64,
    /// When it ends; `u64::MAX` = never.
    pub(super) end: u64,
}

/// A client that can be served where it sleeps.
pub(super) trait Served {
    /// Takes what there is; `false` when it has to be woken to go on.
    fn serve(&self) -> bool;
}

struct Place {
    waker: Option<Waker>,
    served: Option<Rc<dyn Served>>,
    parked: bool,
    /// Rises when the place changes hands.
    holder: u64,
    schedule: Schedule,
    last_sent: u64,
    heartbeat_due: bool,
    ended: bool,
    loaded: Load,
}

/// What the log reader has for a client.
#[derive(Default)]
pub(super) enum Load {
    /// Nothing was asked.
    #[default]
    None,
    /// It is being read.
    Waiting,
    /// Here is what stands behind this position.
    Ready(Seq, Rc<Loaded>),
}

/// What the wheel does with a client next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// It is gone or will be.
    Drop,
    /// Look again at this tick.
    At(u64),
}

impl Sleepers {
    /// Gives a client its place and the number that tells it from earlier holders.
    pub(super) fn enter(&self, schedule: Schedule, now: u64) -> (usize, u64) {
        let mut places = self.places.borrow_mut();
        self.taken.set(self.taken.get() + 1);
        if let Some(at) = self.free.borrow_mut().pop() {
            let place = &mut places[at];
            place.schedule = schedule;
            place.last_sent = now;
            return (at, place.holder);
        }
        places.push(Place {
            waker: None,
            served: None,
            parked: false,
            holder: 0,
            schedule,
            last_sent: now,
            heartbeat_due: false,
            ended: false,
            loaded: Load::None,
        });
        (places.len() - 1, 0)
    }

    /// Takes the place back. What it held is dropped here and now.
    pub(super) fn leave(&self, at: usize) {
        let mut places = self.places.borrow_mut();
        let place = &mut places[at];
        let old = (place.waker.take(), place.served.take(), std::mem::take(&mut place.loaded));
        place.parked = false;
        place.heartbeat_due = false;
        place.ended = false;
        place.holder += 1;
        drop(places);
        drop(old);
        self.free.borrow_mut().push(at);
        self.taken.set(self.taken.get() - 1);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.get() == 0
    }

    /// The client found nothing and sleeps.
    pub(super) fn park(&self, at: usize, waker: &Waker) {
        let mut places = self.places.borrow_mut();
        let place = &mut places[at];
        place.parked = true;
        if !place.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            let old = place.waker.replace(waker.clone());
            // Dropping a waker may drop its task, and with it a client of this very list.
            drop(places);
            drop(old);
        }
    }

    /// From now on the client is served where it sleeps, or no longer.
    pub(super) fn set_served(&self, at: usize, served: Option<Rc<dyn Served>>) {
        let old = std::mem::replace(&mut self.places.borrow_mut()[at].served, served);
        drop(old);
    }

    /// The client handed something out at this tick.
    pub(super) fn sent(&self, at: usize, now: u64) {
        let place = &mut self.places.borrow_mut()[at];
        place.last_sent = now;
        place.heartbeat_due = false;
    }

    pub(super) fn is_ended(&self, at: usize) -> bool {
        self.places.borrow()[at].ended
    }

    pub(super) fn is_heartbeat_due(&self, at: usize) -> bool {
        self.places.borrow()[at].heartbeat_due
    }

    /// What was read for the client; a finished load is taken out.
    pub(super) fn take_load(&self, at: usize) -> Load {
        let place = &mut self.places.borrow_mut()[at];
        let next = if matches!(place.loaded, Load::Waiting) { Load::Waiting } else { Load::None };
        std::mem::replace(&mut place.loaded, next)
    }

    /// The client waits for the log.
    pub(super) fn await_load(&self, at: usize) -> u64 {
        let place = &mut self.places.borrow_mut()[at];
        place.loaded = Load::Waiting;
        place.holder
    }

    /// Hands over what was read, if the client is still the one that asked.
    pub(super) fn deliver(&self, at: usize, holder: u64, after: Seq, loaded: &Rc<Loaded>) {
        let place = &mut self.places.borrow_mut()[at];
        if place.holder == holder {
            place.loaded = Load::Ready(after, Rc::clone(loaded));
            place.wake();
        }
    }

    /// Whether the client that asked is still there.
    pub(super) fn is_held_by(&self, at: usize, holder: u64) -> bool {
        self.places.borrow()[at].holder == holder
    }

    /// Sees whether a heartbeat or the end is due at `now`.
    pub(super) fn beat(&self, at: usize, holder: u64, now: u64) -> Beat {
        let place = &mut self.places.borrow_mut()[at];
        let Schedule { heartbeat, end } = place.schedule;
        if place.holder != holder {
            Beat::Drop
        } else if now >= end {
            place.ended = true;
            place.wake();
            Beat::Drop
        } else if now >= place.last_sent + heartbeat {
            place.heartbeat_due = true;
            place.wake();
            Beat::At(end.min(now + heartbeat))
        } else {
            Beat::At(end.min(place.last_sent + heartbeat))
        }
    }

    /// Ends a client at once, if it is still there.
    pub(super) fn end(&self, at: usize, holder: u64, now: u64) {
        {
            let place = &mut self.places.borrow_mut()[at];
            if place.holder == holder {
                place.schedule.end = now;
            }
        }
        self.beat(at, holder, now);
    }

    /// Serves all who sleep or wakes them, and lets others run now and then.
    pub(super) async fn wake_all(&self) {
        let mut looked = 0;
        for at in 0.. {
            // The list may grow or change while others run; who came since has looked for himself.
            let served = match self.places.borrow().get(at) {
                None => break,
                Some(place) if !place.parked => continue,
                Some(place) => place.served.clone(),
            };
            if !served.is_some_and(|served| served.serve())
                && let Some(place) = self.places.borrow_mut().get_mut(at)
            {
                place.wake();
            }
            looked += 1;
            if looked % WAKES_A_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Place {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.as_ref().filter(|_| self.parked) {
            waker.wake_by_ref();
        }
        self.parked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Schedule = Schedule { heartbeat: 15, end: u64::MAX };

    #[test]
    fn a_heartbeat_is_due_only_into_silence() {
        let sleepers = Sleepers::default();
        let (at, holder) = sleepers.enter(DAY, 100);
        assert_eq!(sleepers.beat(at, holder, 110), Beat::At(115));
        sleepers.sent(at, 112);
        assert_eq!(sleepers.beat(at, holder, 115), Beat::At(127));
        assert!(!sleepers.is_heartbeat_due(at));
        assert_eq!(sleepers.beat(at, holder, 127), Beat::At(142));
        assert!(sleepers.is_heartbeat_due(at));
        sleepers.sent(at, 127);
        assert!(!sleepers.is_heartbeat_due(at));
    }

    #[test]
    fn the_end_comes_before_the_next_heartbeat() {
        let sleepers = Sleepers::default();
        let (at, holder) = sleepers.enter(Schedule { heartbeat: 15, end: 105 }, 100);
        assert_eq!(sleepers.beat(at, holder, 101), Beat::At(105));
        assert_eq!(sleepers.beat(at, holder, 105), Beat::Drop);
        assert!(sleepers.is_ended(at));
    }

    struct Counting(Cell<u32>, bool);

    impl Served for Counting {
        fn serve(&self) -> bool {
            self.0.set(self.0.get() + 1);
            self.1
        }
    }

    #[tokio::test]
    async fn who_is_served_where_it_sleeps_goes_on_sleeping() {
        let sleepers = Sleepers::default();
        for (is_enough, calls) in [(true, 2), (false, 1)] {
            let (at, _) = sleepers.enter(DAY, 0);
            let served = Rc::new(Counting(Cell::new(0), is_enough));
            sleepers.set_served(at, Some(Rc::clone(&served) as Rc<dyn Served>));
            sleepers.wake_all().await;
            assert_eq!(served.0.get(), 0, "it does not sleep yet");
            sleepers.park(at, Waker::noop());
            sleepers.wake_all().await;
            sleepers.wake_all().await;
            assert_eq!(served.0.get(), calls, "who was woken is no longer served");
            sleepers.leave(at);
            assert_eq!(Rc::strong_count(&served), 1);
        }
    }

    #[test]
    fn a_place_that_changed_hands_is_not_the_same_client() {
        let sleepers = Sleepers::default();
        let (at, first) = sleepers.enter(Schedule { heartbeat: 1, end: 101 }, 100);
        assert_eq!(sleepers.beat(at, first, 200), Beat::Drop);
        sleepers.leave(at);
        assert!(sleepers.is_empty());
        let (again, second) = sleepers.enter(DAY, 200);
        assert_eq!(again, at);
        assert_ne!(first, second);
        assert!(!sleepers.is_ended(at), "the end of the first is not the end of the second");
        assert_eq!(sleepers.beat(at, first, 300), Beat::Drop);
        assert!(!sleepers.is_held_by(at, first));
        assert!(!sleepers.is_heartbeat_due(at));
    }
}
