//! Whether an endpoint is worth trying. Pure: results and times go in, permission comes out.
//!
//! Closed: everything goes. Open, after ten failures in a row or 90 % of the last fifty: only probes go, one at a time, at
//! growing distances. Half open, after a probe that succeeded: as many at a time as have succeeded; ten close it.

use std::time::Duration;

use hookcast_core::clock::Timestamp;

/// Failures in a row that open the circuit.
const IN_A_ROW: u32 = 10;
/// Results that the failure share is taken over.
const RECENT: u32 = 50;
/// Failures among them that open the circuit.
const RECENT_FAILURES: u32 = 45;
/// Successes that close it.
const TO_CLOSE: u32 = 10;
/// Distance of the first probe.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// Distance that probes grow to.
const PROBE_AFTER_MAX: Duration = Duration::from_mins(5);

/// What may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Up to this many at a time.
    UpTo(u32),
    /// Nothing before then; then one probe.
    ProbeAt(Timestamp),
}

/// The words of the status answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { probe_at: Timestamp, distance: Duration },
    HalfOpen { successes: u32, distance: Duration },
}

/// The circuit of one endpoint.
#[derive(Clone, Debug)]
pub struct Circuit {
    state: State,
    in_a_row: u32,
    /// One bit a result, newest lowest, set = failure.
    recent: u64,
    seen: u32,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: State::Closed, in_a_row: 0, recent: 0, seen: 0 }
    }
}

impl Circuit {
    /// `closed`, `open` or `half_open`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
        }
    }

    /// Whether the endpoint answered badly last.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.in_a_row > 0 || self.state != State::Closed
    }

    /// Whether only probes go out.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// What may go out now, with `in_flight_max` as the limit of a healthy endpoint.
    #[must_use]
    pub fn permit(&self, in_flight_max: u32) -> Permit {
        match self.state {
            State::Closed => Permit::UpTo(in_flight_max),
            State::HalfOpen { successes, .. } => Permit::UpTo(successes.clamp(1, in_flight_max)),
            State::Open { probe_at, .. } => Permit::ProbeAt(probe_at),
        }
    }

    /// Takes note of a result; `chance` is uniform in `0.0..1.0` and spreads the probes by ±20 %.
    pub fn record(&mut self, failed: bool, now: Timestamp, chance: f64) {
        self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
        self.recent = (self.recent << 1 | u64::from(failed)) & ((1 << RECENT) - 1);
        self.seen = (self.seen + 1).min(RECENT);
        self.state = match (self.state, failed) {
            (State::Closed, true) if self.is_bad() => open(now, PROBE_AFTER, chance),
            // Sent before it opened: what goes out before the probe is no probe, and tells nothing new.
            (State::Open { probe_at, .. }, true) if now < probe_at => self.state,
            (State::Open { distance, .. } | State::HalfOpen { distance, .. }, true) => {
                open(now, (distance * 2).min(PROBE_AFTER_MAX), chance)
            }
            (State::Open { distance, .. }, false) => State::HalfOpen { successes: 1, distance },
            (State::HalfOpen { successes, .. }, false) if successes + 1 >= TO_CLOSE => {
                self.recent = 0;
                self.seen = 0;
                State::Closed
            }
            (State::HalfOpen { successes, distance }, false) => State::HalfOpen { successes: successes + 1, distance },
            (State::Closed, _) => State::Closed,
        };
    }

    /// A probe came to nothing that tells of the endpoint: the next one is as far away as it was.
    pub fn put_off(&mut self, now: Timestamp, chance: f64) {
        if let State::Open { probe_at, distance } = self.state
            && probe_at <= now
        {
            self.state = open(now, distance, chance);
        }
    }

    /// Whether everything goes out.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The same on a clock that was moved by `by_ms`.
    pub fn shift(&mut self, by_ms: i64) {
        if let State::Open { probe_at, .. } = &mut self.state {
            probe_at.0 = probe_at.0.saturating_add(by_ms);
        }
    }

    fn is_bad(&self) -> bool {
        self.in_a_row >= IN_A_ROW || (self.seen == RECENT && self.recent.count_ones() >= RECENT_FAILURES)
    }
}

fn open(now: Timestamp, distance: Duration, chance: f64) -> State {
    State::Open { probe_at: now.plus(distance.mul_f64(0.8 + 0.4 * chance)), distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(results: &[bool]) -> Circuit {
        let mut circuit = Circuit::default();
        for failed in results {
            circuit.record(*failed, Timestamp(0), 0.5);
        }
        circuit
    }

    #[test]
    fn ten_failures_in_a_row_open_it() {
        assert_eq!(after(&[true; 9]).word(), "closed");
        let open = after(&[true; 10]);
        assert_eq!(open.word(), "open");
        assert_eq!(open.permit(16), Permit::ProbeAt(Timestamp(30_000)));
    }

    #[test]
    fn nine_of_ten_failures_over_fifty_open_it() {
        let mut results: Vec<bool> = (0..50).map(|index| index % 10 != 0).collect();
        assert_eq!(after(&results).word(), "open");
        results[5] = false;
        assert_eq!(after(&results).word(), "closed");
    }

    #[test]
    fn probes_move_apart_up_to_five_minutes() {
        let mut circuit = after(&[true; 10]);
        let mut now = 30_000;
        for distance in [60_000, 120_000, 240_000, 300_000, 300_000] {
            circuit.record(true, Timestamp(now), 0.5);
            now += distance;
            assert_eq!(circuit.permit(16), Permit::ProbeAt(Timestamp(now)));
        }
    }

    #[test]
    fn failures_of_what_was_in_flight_do_not_move_the_probe() {
        let circuit = after(&[true; 40]);
        assert_eq!(circuit.permit(16), Permit::ProbeAt(Timestamp(30_000)));
    }

    #[test]
    fn a_probe_that_tells_nothing_puts_the_next_one_off_and_one_that_is_not_due_does_not() {
        let mut circuit = after(&[true; 10]);
        circuit.put_off(Timestamp(29_999), 0.5);
        assert_eq!(circuit.permit(16), Permit::ProbeAt(Timestamp(30_000)));
        circuit.put_off(Timestamp(30_000), 0.5);
        assert_eq!(circuit.permit(16), Permit::ProbeAt(Timestamp(60_000)));
        let mut closed = Circuit::default();
        closed.put_off(Timestamp(0), 0.5);
        assert!(closed.is_closed());
    }

    #[test]
    fn one_success_half_opens_and_ten_close() {
        let mut circuit = after(&[true; 10]);
        circuit.record(false, Timestamp(0), 0.5);
        assert_eq!((circuit.word(), circuit.permit(16)), ("half_open", Permit::UpTo(1)));
        for _ in 0..8 {
            circuit.record(false, Timestamp(0), 0.5);
        }
        assert_eq!((circuit.word(), circuit.permit(16)), ("half_open", Permit::UpTo(9)));
        circuit.record(false, Timestamp(0), 0.5);
        assert_eq!(circuit.word(), "closed");
    }

    #[test]
    fn a_failure_while_half_open_opens_it_again() {
        let mut circuit = after(&[true; 10]);
        circuit.record(false, Timestamp(0), 0.5);
        circuit.record(true, Timestamp(0), 0.5);
        assert_eq!(circuit.word(), "open");
    }
}
