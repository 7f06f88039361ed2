//! What one rendering may still make and look at, in bytes and in time. Counts on the thread that renders; knows neither
//! values nor templates.
//!
//! The engine counts instructions only: one of them can compare two lists or double a text. So everything whose cost grows
//! with a value takes its share from here before it is done, and what was not there is never made. Time is looked at after
//! every [`LOOK_BYTES`], so it costs nothing where little is done.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of work after which the time is looked at.
const LOOK_BYTES: u64 = 64 * 1024;
/// Filters that call filters that call filters.
const CALLS_NESTED_MAX: u32 = 8;

/// What one rendering gets.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// Bytes that it makes or looks at, all in all.
    pub bytes: u64,
    /// Time that it takes.
    pub time: Duration,
    /// The time that this thread worked so far.
    pub clock: fn() -> Duration,
    /// Set when nobody waits for the result any more.
    pub stopped: Option<Arc<AtomicBool>>,
}

/// Why a rendering may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It made or looked at too much.
    Bytes,
    /// It took too long.
    Time,
    /// Nobody waits for it any more.
    Unwanted,
}

/// What is looked at now and then.
struct Watch {
    clock: fn() -> Duration,
    time: Duration,
    /// Known from the first look on: what is small never asks for the time.
    end: Option<Duration>,
    stopped: Option<Arc<AtomicBool>>,
}

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static UNTIL_LOOK: Cell<u64> = const { Cell::new(LOOK_BYTES) };
    static STOP: Cell<Option<Stop>> = const { Cell::new(None) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Begins a rendering on this thread.
pub(super) fn begin(allowance: &Allowance) {
    let Allowance { bytes, time, clock, stopped } = allowance.clone();
    let is_unwanted = stopped.as_ref().is_some_and(|stopped| stopped.load(Ordering::Relaxed));
    LEFT.set(bytes);
    UNTIL_LOOK.set(LOOK_BYTES);
    STOP.set(is_unwanted.then_some(Stop::Unwanted));
    CALLS.set(0);
    WATCH.set(Some(Watch { clock, time, end: None, stopped }));
}

/// Ends it; gives why it had to, if it had to, and what of its bytes is left.
pub(super) fn end() -> (Option<Stop>, u64) {
    WATCH.set(None);
    (STOP.get(), LEFT.get())
}

/// Takes so many bytes; `false` when there are not so many left or the time is over, and from then on.
pub(super) fn spend(bytes: u64) -> bool {
    if STOP.get().is_some() {
        return false;
    }
    let Some(left) = LEFT.get().checked_sub(bytes) else {
        STOP.set(Some(Stop::Bytes));
        return false;
    };
    LEFT.set(left);
    if let Some(until) = UNTIL_LOOK.get().checked_sub(bytes) {
        UNTIL_LOOK.set(until);
    } else {
        UNTIL_LOOK.set(LOOK_BYTES);
        STOP.set(WATCH.with_borrow_mut(|watch| watch.as_mut().and_then(look)));
    }
    STOP.get().is_none()
}

fn look(watch: &mut Watch) -> Option<Stop> {
    if watch.stopped.as_ref().is_some_and(|stopped| stopped.load(Ordering::Relaxed)) {
        return Some(Stop::Unwanted);
    }
    let now = (watch.clock)();
    (now >= *watch.end.get_or_insert(now + watch.time)).then_some(Stop::Time)
}

/// Whether the rendering has to end.
pub(super) fn is_over() -> bool {
    STOP.get().is_some()
}

/// Does what may call itself; `None` when it did so too often.
pub(super) fn nested<T>(run: impl FnOnce() -> T) -> Option<T> {
    let calls = CALLS.get();
    if calls >= CALLS_NESTED_MAX {
        return None;
    }
    CALLS.set(calls + 1);
    let made = run();
    CALLS.set(calls);
    Some(made)
}
