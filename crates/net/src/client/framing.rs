//! Where one HTTP/1.1 response ends, independent of the HTTP client that reads it.
//!
//! Owns the rules that keep one answer apart from the next: interim responses (1xx) are skipped and never answers, a length and
//! a transfer coding together are refused, a body without a length ends with the connection, and bytes behind the end are
//! withheld. Sans-I/O and pure; must not know sockets, nor what is done with an answer.
//! Spec: RFC 9112 §2.2, §6, §7.1; RFC 9110 §15.2.

mod chunk;

use chunk::{Chunk, Step, next_chunk};
use std::borrow::Cow;

/// Largest response head, with all interim responses before it.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Interim responses before the real one.
const INTERIM_MAX: usize = 8;
/// Shortest prefix that holds the status code: `HTTP/1.1 200`.
const STATUS_END: usize = 12;

/// Why the bytes are no response to our request; each is a protocol failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
    #[error("the answer has a malformed status line")]
    StatusLine,
    #[error("the endpoint switched protocols")]
    Switching,
    #[error("too many interim responses")]
    Interim,
    #[error("the response head is larger than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("the response has both a length and a transfer coding, or one of them twice")]
    LengthConflict,
    #[error("the response's length cannot be read")]
    Length,
    #[error("the response uses an unknown transfer coding")]
    Coding,
    #[error("the response head is malformed: {0}")]
    Head(httparse::Error),
}

/// Who takes a response, part by part, as it arrives.
pub(super) trait Taker {
    /// The whole head of the final response, without control bytes.
    fn head(&mut self, head: &[u8]) -> Result<(), Fault>;
    /// More of its body, without the marks of a transfer coding.
    fn body(&mut self, data: &[u8]);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No response is due.
    Idle,
    Head,
    Length(u64),
    Chunked(Chunk),
    UntilEof,
    Done,
}

/// Follows one response after the other on a connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    held: Vec<u8>,
    /// Up to here `held` was searched for the end of a head.
    searched: usize,
    interim: usize,
    /// The connection must not carry another request.
    last: bool,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self { state: State::Idle, held: Vec::new(), searched: 0, interim: 0, last: false }
    }

    /// A request goes out now; what comes from here on answers it.
    pub(super) fn begin(&mut self) {
        debug_assert!(!self.is_reading(), "one request at a time");
        self.state = State::Head;
        self.interim = 0;
    }

    /// Whether a response is due or under way.
    pub(super) fn is_reading(&self) -> bool {
        !matches!(self.state, State::Idle | State::Done)
    }

    /// Whether the connection may be used again, should this response be read to its end.
    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    /// Takes bytes from the wire and hands on what belongs to the response.
    pub(super) fn feed(&mut self, data: &[u8], sink: &mut impl Taker) -> Result<(), Fault> {
        if self.state != State::Head {
            self.body(data, sink);
            return Ok(());
        }
        if self.held.is_empty() {
            return match self.find_head(data, 0)? {
                Found::Complete { start, end } => self.take(&data[start..end], &data[end..], sink),
                Found::Partial { start } => {
                    self.held.extend_from_slice(&data[start..]);
                    self.searched = self.held.len();
                    self.check_size()
                }
            };
        }
        self.held.extend_from_slice(data);
        let mut held = std::mem::take(&mut self.held);
        match self.find_head(&held, self.searched.saturating_sub(3))? {
            Found::Complete { start, end } => self.take(&held[start..end], &held[end..], sink),
            Found::Partial { start } => {
                held.drain(..start);
                self.searched = held.len();
                self.held = held;
                self.check_size()
            }
        }
    }

    /// Hands a whole head on, and what came behind it.
    fn take(&mut self, head: &[u8], behind: &[u8], sink: &mut impl Taker) -> Result<(), Fault> {
        self.read_head(head)?;
        sink.head(&without_odd_bytes(head))?;
        self.body(behind, sink);
        Ok(())
    }

    fn check_size(&self) -> Result<(), Fault> {
        if self.held.len() > HEAD_BYTES_MAX { Err(Fault::HeadTooLarge) } else { Ok(()) }
    }

    /// Finds the first final head in `bytes`; its end cannot lie before `from`.
    fn find_head(&mut self, bytes: &[u8], from: usize) -> Result<Found, Fault> {
        let (mut start, mut from) = (0, from);
        loop {
            let head = &bytes[start..];
            check_prefix(head)?;
            let Some(end) = head_end(head, from) else {
                return Ok(Found::Partial { start });
            };
            match status_of(&head[..end])? {
                101 => return Err(Fault::Switching),
                100..=199 => {
                    self.interim += 1;
                    if self.interim > INTERIM_MAX {
                        return Err(Fault::Interim);
                    }
                    start += end;
                    from = 0;
                }
                _ if end > HEAD_BYTES_MAX => return Err(Fault::HeadTooLarge),
                _ => {
                    return Ok(Found::Complete { start, end: start + end });
                }
            }
        }
    }

    /// Reads a final head and sets what follows.
    fn read_head(&mut self, head: &[u8]) -> Result<(), Fault> {
        let facts = Facts::read(head)?;
        let kept_by_default = head[7] != b'0';
        self.last = self.last || facts.ends || !(kept_by_default || facts.keep_alive);
        self.state = match (facts.status, facts.length, facts.chunked) {
            (204 | 304, ..) | (_, Some(0), _) => State::Done,
            (_, Some(length), _) => State::Length(length),
            (_, None, true) => State::Chunked(Chunk::Size { value: 0, digits: 0 }),
            (_, None, false) => State::UntilEof,
        };
        self.last |= self.state == State::UntilEof;
        Ok(())
    }

    /// Hands on what of `data` belongs to the body.
    fn body(&mut self, data: &[u8], sink: &mut impl Taker) {
        let taken = match &mut self.state {
            State::UntilEof => {
                sink.body(data);
                data.len()
            }
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                sink.body(&data[..taken]);
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                taken
            }
            State::Chunked(_) => self.chunks(data, sink),
            State::Idle | State::Head | State::Done => 0,
        };
        // Bytes behind the end belong to nobody: not to this answer, and never to the next one.
        if taken < data.len() {
            self.last = true;
        }
    }

    fn chunks(&mut self, data: &[u8], sink: &mut impl Taker) -> usize {
        let mut at = 0;
        while at < data.len() {
            let State::Chunked(chunk) = self.state else {
                break;
            };
            if let Chunk::Data(left) = chunk {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(data.len() - at);
                sink.body(&data[at..at + taken]);
                at += taken;
                let left = left - taken as u64;
                self.state = State::Chunked(if left == 0 { Chunk::DataCr } else { Chunk::Data(left) });
                continue;
            }
            match next_chunk(chunk, data[at]) {
                Step::Go(next) => self.state = State::Chunked(next),
                Step::End => self.state = State::Done,
                Step::Broken => {
                    // Trailers or garbage: nobody can say where this answer ends, so the connection ends with it.
                    self.last = true;
                    self.state = State::Done;
                    return data.len();
                }
            }
            at += 1;
        }
        at
    }
}

enum Found {
    Complete { start: usize, end: usize },
    Partial { start: usize },
}

/// Refuses other protocols at the first byte that differs, not when a buffer is full.
fn check_prefix(bytes: &[u8]) -> Result<(), Fault> {
    const PREFIX: &[u8] = b"HTTP/1.";
    let n = bytes.len().min(PREFIX.len());
    if bytes[..n] == PREFIX[..n] { Ok(()) } else { Err(Fault::NotHttp) }
}

/// The length of the head at the start of `bytes`, its empty line included.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(offset) = memchr::memchr(b'\n', &bytes[at..]) {
        let lf = at + offset;
        match &bytes[lf + 1..] {
            [b'\n', ..] => return Some(lf + 2),
            [b'\r', b'\n', ..] => return Some(lf + 3),
            _ => at = lf + 1,
        }
    }
    None
}

fn status_of(head: &[u8]) -> Result<u16, Fault> {
    match head.get(7..STATUS_END) {
        Some([b'0' | b'1', b' ', a, b, c]) if [a, b, c].iter().all(|d| d.is_ascii_digit()) => {
            Ok(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => Err(Fault::StatusLine),
    }
}

/// Control bytes the HTTP parser would refuse the whole answer for; the status still decides.
fn is_odd(byte: u8) -> bool {
    (byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n')) || byte == 0x7f
}

fn without_odd_bytes(head: &[u8]) -> Cow<'_, [u8]> {
    if head.iter().any(|byte| is_odd(*byte)) {
        head.iter().map(|byte| if is_odd(*byte) { b'?' } else { *byte }).collect()
    } else {
        Cow::Borrowed(head)
    }
}

#[derive(Default)]
struct Facts {
    status: u16,
    length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
    /// `close` or `upgrade`: nothing may follow on this connection.
    ends: bool,
}

impl Facts {
    fn read(head: &[u8]) -> Result<Self, Fault> {
        let mut facts = Self { status: status_of(head)?, ..Self::default() };
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            // Only four names matter; their first letters sort most headers out at once.
            if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U')) {
                continue;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let (name, value) = (line[..colon].trim_ascii_end(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                facts.set_length(value)?;
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                facts.set_coding(value, head[7] == b'0')?;
            } else if name.eq_ignore_ascii_case(b"connection") {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    facts.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    facts.ends |= option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"upgrade");
                }
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                facts.ends = true;
            }
        }
        if facts.chunked && facts.length.is_some() {
            return Err(Fault::LengthConflict);
        }
        Ok(facts)
    }

    fn set_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.length.is_some() {
            return Err(Fault::LengthConflict);
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        self.length = Some(length.ok_or(Fault::Length)?);
        Ok(())
    }

    fn set_coding(&mut self, value: &[u8], http_10: bool) -> Result<(), Fault> {
        if self.chunked {
            return Err(Fault::LengthConflict);
        }
        if http_10 || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::Coding);
        }
        self.chunked = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
