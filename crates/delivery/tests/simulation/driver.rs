//! Who runs next: every lane and the script are seats that are polled one at a time, in an order that the seed says.
//!
//! Owns the seats of one process and what is left of its life. Knows nothing of deliveries.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use hookcast_delivery::LaneBegin;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::faults::Faults;

/// Says that a seat wants to be polled.
#[derive(Default)]
struct Bell {
    is_rung: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.is_rung.store(true, Ordering::Relaxed);
        if let Some(driver) = &*self.driver.lock().unwrap() {
            driver.wake_by_ref();
        }
    }
}

struct Seat {
    set: LocalSet,
    bell: Arc<Bell>,
}

/// The lanes of a process.
#[derive(Clone, Default)]
pub(crate) struct Seats(Rc<RefCell<Vec<Seat>>>);

impl Seats {
    /// Gives a lane a seat.
    pub(crate) fn add(&self, lane: LaneBegin) {
        let set = LocalSet::new();
        set.spawn_local(async move { lane.spawn_local() });
        let bell = Arc::new(Bell::default());
        bell.is_rung.store(true, Ordering::Relaxed);
        self.0.borrow_mut().push(Seat { set, bell });
    }
}

/// How a process goes on.
pub(crate) struct Driver {
    pub(crate) seats: Seats,
    pub(crate) random: fastrand::Rng,
    /// Polls until the process is killed, if it is.
    pub(crate) left: Rc<Cell<Option<u64>>>,
    /// Who may end it at once.
    pub(crate) faults: Arc<Faults>,
    /// The time of the last poll, and polls since it went on.
    pub(crate) moment: (Instant, u32),
}

/// Polls without any time going by that are believed never to end.
const STUCK: u32 = 2_000_000;

impl Driver {
    /// Runs the lanes and `script` until that is over; `None` when the process was killed before.
    pub(crate) async fn run<T>(&mut self, script: impl Future<Output = T>) -> Option<T> {
        let own = LocalSet::new();
        let mut script = pin!(own.run_until(script));
        let bell = Arc::new(Bell::default());
        bell.is_rung.store(true, Ordering::Relaxed);
        poll_fn(|cx| self.poll(cx, &bell, script.as_mut())).await
    }

    fn poll<T>(&mut self, cx: &Context<'_>, own: &Arc<Bell>, mut script: Pin<&mut impl Future<Output = T>>) -> Poll<Option<T>> {
        *own.driver.lock().unwrap() = Some(cx.waker().clone());
        loop {
            let rung: Vec<usize> = {
                let seats = self.seats.0.borrow();
                let rung = |bell: &Arc<Bell>| bell.is_rung.load(Ordering::Relaxed);
                let lanes = seats.iter().enumerate().filter(|(_, seat)| rung(&seat.bell)).map(|(index, _)| index + 1);
                rung(own).then_some(0).into_iter().chain(lanes).collect()
            };
            if rung.is_empty() {
                return Poll::Pending;
            }
            let now = Instant::now();
            self.moment = if self.moment.0 == now { (now, self.moment.1 + 1) } else { (now, 0) };
            assert!(self.moment.1 < STUCK, "it goes on for ever without any time going by");
            if let Some(left) = self.left.get() {
                let Some(less) = left.checked_sub(1) else { return Poll::Ready(None) };
                self.left.set(Some(less));
            }
            let chosen = rung[self.random.usize(..rung.len())];
            if let Some(index) = chosen.checked_sub(1) {
                // Out of its place while it is polled: it may not give out seats meanwhile, but the script does.
                let seats = self.seats.0.borrow_mut();
                let seat = &seats[index];
                let bell = Arc::clone(&seat.bell);
                bell.is_rung.store(false, Ordering::Relaxed);
                *bell.driver.lock().unwrap() = Some(cx.waker().clone());
                let waker = Waker::from(bell);
                drop(seats);
                self.poll_seat(index, &waker);
            } else {
                own.is_rung.store(false, Ordering::Relaxed);
                let waker = Waker::from(Arc::clone(own));
                if let Poll::Ready(done) = script.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Poll::Ready(Some(done));
                }
            }
            if self.faults.takes_life() {
                return Poll::Ready(None);
            }
            // Tasks beside the lanes have their turn, too.
            if self.random.bool() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn poll_seat(&self, index: usize, waker: &Waker) {
        let mut set = std::mem::take(&mut self.seats.0.borrow_mut()[index].set);
        let _ = Pin::new(&mut set).poll(&mut Context::from_waker(waker));
        self.seats.0.borrow_mut()[index].set = set;
    }
}
