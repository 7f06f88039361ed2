//! The wall clock of a simulated relay: it goes with virtual time, and steps when it is told to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use hookcast_core::clock::{Clock, Timestamp};
use tokio::time::Instant;

/// When the simulation begins.
const BEGIN: Timestamp = Timestamp(1_800_000_000_000);

/// The clock of all processes of one simulation.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// What it showed when the present process began, and when that was.
    began: Mutex<Option<Instant>>,
    at_begin: AtomicI64,
    /// By how much it was moved.
    moved_ms: AtomicI64,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self { began: Mutex::default(), at_begin: AtomicI64::new(BEGIN.0), moved_ms: AtomicI64::new(0) }
    }

    /// A process begins, with virtual time of its own.
    pub(crate) fn begin(&self) {
        *self.began.lock().unwrap() = Some(Instant::now());
    }

    /// The process ends; the next begins a while later.
    pub(crate) fn end(&self, pause_ms: i64) {
        self.at_begin.fetch_add(self.elapsed_ms() + pause_ms, Ordering::Relaxed);
        *self.began.lock().unwrap() = None;
    }

    /// Moves it.
    pub(crate) fn step(&self, by_ms: i64) {
        self.moved_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> i64 {
        let began = *self.began.lock().unwrap();
        began.map_or(0, |began| i64::try_from(began.elapsed().as_millis()).unwrap())
    }

    /// Time that went by, whatever the clock shows.
    pub(crate) fn true_ms(&self) -> i64 {
        self.at_begin.load(Ordering::Relaxed) - BEGIN.0 + self.elapsed_ms()
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGIN.0 + self.true_ms() + self.moved_ms.load(Ordering::Relaxed))
    }
}
