//! Where requests begin and end among the bytes of one connection, as far as it takes to know whether the head of one is
//! waited for.
//!
//! The server waits for ever, for a head and for the next request. It says when a request begins and when its answer is out, not
//! how many bytes it took for it: those are counted here. Knows neither sockets nor time. Pure.

use memchr::memchr_iter;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// There is none.
    None,
    /// It has so many bytes.
    After(u64),
    /// Its last chunk is marked.
    Chunked,
}

/// What is waited for on a connection; the number tells one wait from those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The end of a head: of the first from the beginning of the connection, of a later one from its first byte.
    Head(u32),
    /// Another request, of which nothing is there.
    Request(u32),
    /// That the socket takes more of an answer, while there is more.
    Taking(u32),
}

/// What has come on one connection.
#[derive(Debug, Default)]
pub(super) struct Heads {
    place: Place,
    /// Whether a request is with the handlers, or its answer not written.
    is_busy: bool,
    has_begun: bool,
    /// How the body of the request under way ends.
    body: Option<BodyEnd>,
    /// Bytes behind the last head whose end was seen.
    behind: u64,
    /// The last bytes, as long as they may belong to the end of a head.
    last: [u8; 3],
    /// Counts what was waited for.
    waits: u32,
    is_waiting: bool,
}

/// To what the next byte belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Head,
    /// Something behind a head: a body, or what was sent before its answer.
    Behind,
    /// The same, but where it began was not seen, because several requests came in one piece.
    BehindSomething,
}

impl Heads {
    /// Bytes were read.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.place {
            Place::Head => {
                if !self.is_busy && !self.is_waiting {
                    self.wait();
                }
                if let Some(end) = self.end_of_head(bytes) {
                    self.place = Place::Behind;
                    self.behind = (bytes.len() - end) as u64;
                }
            }
            Place::Behind | Place::BehindSomething => self.behind = self.behind.saturating_add(bytes.len() as u64),
        }
        self.keep_last(bytes);
    }

    /// A request is handed to the handlers.
    pub(super) fn begin(&mut self, body: BodyEnd) {
        if self.place == Place::Head {
            self.place = Place::BehindSomething;
        }
        (self.is_busy, self.has_begun, self.is_waiting) = (true, true, false);
        self.body = Some(body);
    }

    /// The answer to it is written, or nobody waits for it any more.
    pub(super) fn end(&mut self) {
        let Some(body) = self.body.take() else { return };
        self.is_busy = false;
        self.waits = self.waits.wrapping_add(1);
        let place = std::mem::take(&mut self.place);
        let is_more = match (place, body) {
            (Place::Behind, BodyEnd::None) => self.behind > 0,
            (Place::Behind, BodyEnd::After(bytes)) => self.behind > bytes,
            // Where that body ends cannot be told; the time for idle connections is for what is behind it.
            (_, BodyEnd::After(_)) => return,
            (_, BodyEnd::None | BodyEnd::Chunked) => self.behind > 0 && !self.ends_as_a_head(),
        };
        if is_more {
            self.wait();
        } else {
            (self.behind, self.last) = (0, [0; 3]);
        }
    }

    /// What is waited for; `None` while a request is under way.
    pub(super) fn waiting(&self) -> Option<Wait> {
        match () {
            () if self.is_busy => None,
            // From its beginning, whether there are bytes or not.
            () if !self.has_begun => Some(Wait::Head(0)),
            () if self.is_waiting => Some(Wait::Head(self.waits)),
            () => Some(Wait::Request(self.waits)),
        }
    }

    /// Whether a request was answered and none is under way.
    pub(super) fn is_between(&self) -> bool {
        self.has_begun && !self.is_busy
    }

    fn wait(&mut self) {
        self.is_waiting = true;
        self.waits = self.waits.wrapping_add(1);
    }

    /// Where the first empty line in these bytes ends, in view of those before them.
    fn end_of_head(&self, bytes: &[u8]) -> Option<usize> {
        let before = |back: usize, at: usize| if at >= back { bytes[at - back] } else { self.last[3 + at - back] };
        let ends = |at: &usize| {
            let one = before(1, *at);
            one == b'\n' || (one == b'\r' && before(2, *at) == b'\n')
        };
        memchr_iter(b'\n', bytes).find(ends).map(|at| at + 1)
    }

    fn ends_as_a_head(&self) -> bool {
        self.last[1..] == *b"\n\n" || self.last == *b"\n\r\n"
    }

    fn keep_last(&mut self, bytes: &[u8]) {
        match bytes {
            [.., a, b, c] => self.last = [*a, *b, *c],
            _ => {
                for byte in bytes {
                    self.last = [self.last[1], self.last[2], *byte];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// Whether the end of a head is waited for that is not the first.
    fn waits_for_a_head(heads: &Heads) -> bool {
        matches!(heads.waiting(), Some(Wait::Head(1..)))
    }

    #[test]
    fn a_head_is_waited_for_from_its_first_byte_to_its_last() {
        let mut heads = Heads::default();
        let first = heads.waiting();
        assert_eq!(first, Some(Wait::Head(0)));
        heads.read(b"GET /");
        assert_eq!(heads.waiting(), first, "the first from the beginning");
        heads.read(b" HTTP/1.1\r\n\r\n");
        heads.begin(BodyEnd::None);
        assert_eq!(heads.waiting(), None);
        heads.end();
        let idle = heads.waiting().unwrap();
        assert!(matches!(idle, Wait::Request(_)));
        heads.read(b"\r");
        let second = heads.waiting();
        assert!(waits_for_a_head(&heads));
        heads.read(b"\nGET / HTTP");
        assert_eq!(heads.waiting(), second, "one wait, however many bytes");
        heads.read(b"/1.1\r\n\r\n");
        heads.begin(BodyEnd::None);
        assert_eq!(heads.waiting(), None);
        heads.read(b"G");
        assert_eq!(heads.waiting(), None, "not while an answer is made");
        heads.end();
        assert!(waits_for_a_head(&heads) && heads.waiting() != second);
        heads.read(b"ET / HTTP/1.1\r\n\r\n");
        heads.begin(BodyEnd::None);
        heads.end();
        assert!(matches!(heads.waiting(), Some(wait @ Wait::Request(_)) if wait != idle), "another time without a request");
    }

    fn request() -> impl Strategy<Value = (String, BodyEnd)> {
        let eol = prop_oneof![Just("\r\n"), Just("\n")];
        let body = prop_oneof![
            Just(None),
            "[a\r\n]{0,12}".prop_map(|text| Some((false, text))),
            "[a\r\n]{1,12}".prop_map(|text| Some((true, text)))
        ];
        (eol, body).prop_map(|(eol, body)| {
            let head = format!("POST / HTTP/1.1{eol}host: a{eol}{eol}");
            match body {
                None => (head, BodyEnd::None),
                Some((false, text)) => (format!("{head}{text}"), BodyEnd::After(text.len() as u64)),
                Some((true, text)) => (format!("{head}{:x}\r\n{text}\r\n0\r\n\r\n", text.len()), BodyEnd::Chunked),
            }
        })
    }

    proptest! {
        /// One after the other, however they are cut: what is behind an answer is known.
        #[test]
        fn what_is_behind_an_answer_is_seen(
            requests in prop::collection::vec(request(), 1..4),
            cut in 1..40_usize,
            half in prop::option::of("[GP][a-z /:\r]{0,20}"),
        ) {
            let mut heads = Heads::default();
            let count = requests.len();
            for (n, (text, body)) in requests.into_iter().enumerate() {
                let behind = half.as_deref().filter(|_| n + 1 == count).unwrap_or_default();
                let text = format!("{text}{behind}");
                let head = text.find("\r\n\r\n").map(|at| at + 4).into_iter().chain(text.find("\n\n").map(|at| at + 2)).min().unwrap();
                let mut read = 0;
                for piece in text.as_bytes().chunks(cut) {
                    heads.read(piece);
                    read += piece.len();
                    if read >= head && heads.body.is_none() {
                        prop_assert!(n == 0 || waits_for_a_head(&heads));
                        heads.begin(body);
                    }
                    prop_assert_eq!(waits_for_a_head(&heads), read < head && n > 0);
                    prop_assert_eq!(heads.waiting().is_none(), read >= head);
                }
                heads.end();
                prop_assert_eq!(waits_for_a_head(&heads), !behind.is_empty());
            }
        }

        /// In one piece: nothing is waited for when nothing is there, and bytes that come later are.
        #[test]
        fn requests_in_one_piece_leave_no_wait(requests in prop::collection::vec(request(), 1..5)) {
            let mut heads = Heads::default();
            heads.read(requests.iter().map(|(text, _)| text.as_str()).collect::<String>().as_bytes());
            for (_, body) in &requests {
                heads.begin(*body);
                prop_assert_eq!(heads.waiting(), None);
                heads.end();
            }
            prop_assert!(matches!(heads.waiting(), Some(Wait::Request(_))));
            heads.read(&GET.as_bytes()[..5]);
            prop_assert!(waits_for_a_head(&heads));
        }
    }
}
