//! How many bytes the server may read from one connection before it has answered what it read.
//!
//! The server asks for more until its buffer is full, makes requests of all that is there, and wakes itself without end when the
//! buffer is full while enough requests wait. So what is sent behind a request stays in the socket, but for a few; only bodies
//! are read as fast as they are wanted. Counts, and knows neither sockets nor heads. Pure.

use std::cell::Cell;

use super::heads::BodyEnd;

/// Most bytes that are read ahead of their answers: half of what the server's buffer may hold. Requests cost a hundred times as much.
pub(super) const AHEAD_MAX: usize = 64 * 1024;
/// So many of them are read again at once, unless a body is waited for.
const WORTH_READING: u64 = AHEAD_MAX as u64 / 4;

/// What may be read.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes that may be read.
    left: Cell<u64>,
    /// Whether a request is with the handlers, or its answer not written.
    is_busy: Cell<bool>,
    /// Whether the request under way has a body of known length.
    has_body: Cell<bool>,
    /// Whether a handler waits for more of a body whose length is not known.
    wants_body: Cell<bool>,
    /// Whether the server wanted to read and was not let.
    is_held: Cell<bool>,
    /// Whether something came while a request was under way.
    is_more: Cell<bool>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: Cell::new(AHEAD_MAX as u64),
            is_busy: Cell::default(),
            has_body: Cell::default(),
            wants_body: Cell::default(),
            is_held: Cell::default(),
            is_more: Cell::default(),
        }
    }
}

impl Allowance {
    /// A request is handed to the handlers, whose head has at least so many bytes: it was read ahead and is so no more, as what was
    /// read of its body. The server reads on before it has answered all, because it takes leave of a client the body of whose last
    /// request did not come whole before.
    pub(super) fn begin(&self, body: BodyEnd, head_bytes: impl FnOnce() -> u64) {
        self.is_busy.set(true);
        self.wants_body.set(false);
        let left = self.left.get();
        let head = if left < AHEAD_MAX as u64 / 2 { head_bytes() } else { 0 };
        let body = if let BodyEnd::After(bytes) = body { bytes } else { 0 };
        self.has_body.set(body > 0);
        self.left.set(left.saturating_add(head).saturating_add(body));
    }

    /// The answer to it is written, or nobody waits for it any more.
    pub(super) fn end(&self) {
        self.is_busy.set(false);
        self.wants_body.set(false);
    }

    /// Whether a handler waits for more of a body of unknown length.
    pub(super) fn want_body(&self, wants: bool) {
        self.wants_body.set(wants);
    }

    /// How much may be read now.
    pub(super) fn left(&self) -> usize {
        usize::try_from(self.left.get()).unwrap_or(usize::MAX)
    }

    /// So much was read.
    pub(super) fn read(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes as u64));
        self.is_more.set(self.is_more.get() || (self.is_busy.get() && bytes > 0));
    }

    /// The server wanted to read and was not let.
    pub(super) fn hold(&self) {
        self.is_held.set(true);
    }

    /// The server had a turn, in which it made requests of what it could. Whether it is to have another at once, because it may
    /// read now what it was not let before, or left requests in its buffer because too many waited.
    pub(super) fn goes_on(&self) -> bool {
        let is_busy = self.is_busy.get();
        if !is_busy {
            // Nothing of what was read is left but, at most, the beginning of something.
            self.left.set(AHEAD_MAX as u64);
        } else if self.wants_body.get() {
            self.left.set(self.left.get().max(AHEAD_MAX as u64));
        }
        let enough = if self.has_body.get() { 1 } else { WORTH_READING };
        let may_read = self.left.get() >= enough && self.is_held.take();
        may_read | (!is_busy && self.is_more.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = AHEAD_MAX;

    /// Reads as long as it may and there is something; what was read.
    fn turn(allowance: &Allowance, there: usize) -> usize {
        let mut read = 0;
        while read < there {
            let most = allowance.left().min(there - read).min(5000);
            if most == 0 {
                allowance.hold();
                break;
            }
            allowance.read(most);
            read += most;
        }
        read
    }

    #[test]
    fn what_is_behind_a_request_is_left_until_it_is_answered() {
        let allowance = Allowance::default();
        assert_eq!(turn(&allowance, 100 * MOST), MOST);
        allowance.begin(BodyEnd::None, || 0);
        assert!(!allowance.goes_on(), "not while it is under way");
        assert_eq!(turn(&allowance, MOST), 0);
        allowance.end();
        // The next of those that wait.
        allowance.begin(BodyEnd::None, || 100);
        assert!(!allowance.goes_on(), "for so few");
        allowance.end();
        allowance.begin(BodyEnd::None, || MOST as u64 / 2);
        assert!(allowance.goes_on());
        assert_eq!(turn(&allowance, MOST), MOST / 2 + 100, "as much as is with the handlers");
        allowance.end();
        assert!(allowance.goes_on());
        assert_eq!(turn(&allowance, 100), 100);
        allowance.begin(BodyEnd::None, || 0);
        allowance.end();
        assert!(!allowance.goes_on(), "nothing was held");
    }

    #[test]
    fn a_body_is_read_to_its_end_wherever_it_begins_and_little_behind_it() {
        let body = 10 * MOST;
        for (before, ahead) in [(100, 100), (MOST - 1, MOST), (5000, 9000)] {
            let allowance = Allowance::default();
            assert_eq!(turn(&allowance, ahead), ahead);
            allowance.begin(BodyEnd::After(body as u64), || 0);
            allowance.goes_on();
            let read = ahead + turn(&allowance, usize::MAX);
            assert!((before + body..=MOST + body).contains(&read), "{read}");
            assert!(!allowance.goes_on());
            allowance.end();
            assert!(allowance.goes_on());
            assert_eq!(turn(&allowance, usize::MAX), MOST, "an endless body that nobody wanted");
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_read_as_long_as_it_is_wanted() {
        let allowance = Allowance::default();
        turn(&allowance, usize::MAX);
        allowance.begin(BodyEnd::Chunked, || 0);
        assert!(!allowance.goes_on());
        allowance.want_body(true);
        assert!(allowance.goes_on());
        assert_eq!(turn(&allowance, usize::MAX), MOST);
        assert!(allowance.goes_on());
        assert_eq!(turn(&allowance, usize::MAX), MOST);
        allowance.want_body(false);
        assert!(!allowance.goes_on());
        allowance.end();
        assert!(allowance.goes_on(), "the rest of it is thrown away");
    }

    #[test]
    fn what_came_while_too_much_waited_is_looked_at_again() {
        let allowance = Allowance::default();
        turn(&allowance, 100);
        allowance.begin(BodyEnd::None, || 0);
        assert!(!allowance.goes_on());
        turn(&allowance, 100);
        assert!(!allowance.goes_on());
        allowance.end();
        assert!(allowance.goes_on());
        assert!(!allowance.goes_on(), "once");
    }
}
