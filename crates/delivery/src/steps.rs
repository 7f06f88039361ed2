//! Notices when the wall clock was moved, so that nobody waits an hour for what is due in a second, and nothing that is due in an
//! hour goes out at once. Pure but for its memory: both clocks come in as arguments.

use std::cell::Cell;
use std::time::Duration;

use hookcast_core::clock::Timestamp;

/// Smallest move that counts; less is the drift of two clocks.
const STEP_MIN_MS: i64 = 1_000;
/// Two looks that are no farther apart than this, and in order, are not compared with the other clock.
const SMOOTH_MS: i64 = 500;

/// What was seen of the wall clock.
#[derive(Debug, Default)]
pub(super) struct Steps {
    seen: Cell<Timestamp>,
    /// The wall clock when the steady one was at its beginning.
    beginning: Cell<Option<i64>>,
}

impl Steps {
    /// Whether the wall clock moved on as clocks do since it was last seen; cheap.
    pub(super) fn is_smooth(&self, now: Timestamp) -> bool {
        let passed = now.0.saturating_sub(self.seen.replace(now).0);
        (0..SMOOTH_MS).contains(&passed)
    }

    /// By how much the wall clock was moved since the last look, in milliseconds; `steady` is the age of a clock that never is.
    pub(super) fn look(&self, now: Timestamp, steady: Duration) -> i64 {
        let beginning = now.0.saturating_sub(i64::try_from(steady.as_millis()).unwrap_or(i64::MAX));
        let moved = self.beginning.replace(Some(beginning)).map_or(0, |before| beginning.saturating_sub(before));
        if moved.saturating_abs() < STEP_MIN_MS { 0 } else { moved }
    }

    /// Sees to it that the next look compares.
    pub(super) fn look_again(&self) {
        self.seen.set(Timestamp(i64::MIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_750_000_000_000;

    #[test]
    fn time_that_passes_is_no_step_and_a_moved_clock_is_one() {
        let steps = Steps::default();
        let steady = Duration::from_millis;
        assert!(!steps.is_smooth(Timestamp(START)));
        assert_eq!(steps.look(Timestamp(START), steady(5)), 0);
        assert!(steps.is_smooth(Timestamp(START + 20)));
        // A long silence.
        assert!(!steps.is_smooth(Timestamp(START + 60_000)));
        assert_eq!(steps.look(Timestamp(START + 60_000), steady(60_005)), 0);
        for (step, age) in [(HOUR, 60_010), (-HOUR, 60_020), (10 * 365 * 24 * HOUR, 60_030)] {
            let before = START + i64::try_from(age).unwrap() - 10;
            assert!(!steps.is_smooth(Timestamp(before + step)));
            assert!((steps.look(Timestamp(before + step), steady(age)) - step).abs() <= 10);
            // And back again.
            steps.look(Timestamp(before), steady(age));
        }
    }

    #[test]
    fn clocks_that_drift_apart_are_followed_without_a_word() {
        let steps = Steps::default();
        steps.look(Timestamp(START), Duration::ZERO);
        for second in 1..10_000 {
            let wall = Timestamp(START + second * 1_010);
            assert_eq!(steps.look(wall, Duration::from_secs(second.unsigned_abs())), 0);
        }
    }
}
