//! How much work one judgement may still do. A count on the thread that judges; knows neither values nor expressions.
//!
//! The library that evaluates has no budget of its own, so everything whose cost grows with the event takes its share from
//! here: loops by the step, texts by their length, comparisons of lists and objects by their size.

use std::cell::Cell;

/// Steps of one judgement; a step is about what the evaluation of one operator costs, some 100 ns.
pub const STEPS_MAX: u64 = 30_000;

/// Bytes of a text that are looked at in one step.
pub(super) const BYTES_A_STEP: usize = 512;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static SPENT_ALL: Cell<bool> = const { Cell::new(false) };
}

/// Begins a judgement.
pub(super) fn begin() {
    LEFT.set(STEPS_MAX);
    SPENT_ALL.set(false);
}

/// Takes so many steps; `false` when there are not so many left, and from then on.
pub(super) fn spend(steps: usize) -> bool {
    let left = LEFT.get().checked_sub(steps as u64).filter(|_| !SPENT_ALL.get());
    match left {
        Some(left) => LEFT.set(left),
        None => SPENT_ALL.set(true),
    }
    left.is_some()
}

/// Whether more was asked for than there was.
pub(super) fn is_exhausted() -> bool {
    SPENT_ALL.get()
}
