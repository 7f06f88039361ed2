//! A POST as the bytes that go out: header lines that are made once and sent often.
//!
//! Owns what may stand in a header line, and the order of the parts. Must not know what the headers mean.
//! Spec: RFC 9112 §3, §5; RFC 9110 §5.5.

use super::{HeaderName, PreparedTarget};
use bytes::Bytes;
use std::fmt;

/// A body up to this size goes out in one write with its head; a larger one is not copied. One write can be one segment, and a
/// request that is one segment survives an endpoint whose accept queue is full: of several, the later may reach it first, and
/// are answered with a reset.
const COPIED_BODY_BYTES_MAX: usize = 48 * 1024;

/// Header lines as they stand on the wire. Whatever is added, they stay lines: a value is never able to end its own.
#[derive(Clone, Default)]
pub struct HeaderLines(Vec<u8>);

impl HeaderLines {
    /// No lines yet, and room for `bytes` of them.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a line; a value with control bytes is left out, its name stays.
    pub fn push(&mut self, name: &HeaderName, value: impl AsRef<[u8]>) {
        self.push_written(name, |line| line.extend_from_slice(value.as_ref()));
    }

    /// Adds a line with a number.
    pub fn push_number(&mut self, name: &HeaderName, value: impl itoa::Integer) {
        self.push(name, itoa::Buffer::new().format(value));
    }

    /// Adds a line whose value `write` appends, under the same rule.
    pub fn push_written(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        let start = self.0.len();
        write(&mut self.0);
        if !is_value(&self.0[start..]) {
            self.0.truncate(start);
        }
        self.0.extend_from_slice(b"\r\n");
    }

    /// The lines.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether `bytes` may be the value of a header.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    // Without an early end many bytes are looked at in one step.
    let is_bad = |byte: u8| u8::from((byte < b' ' && byte != b'\t') || byte == 0x7f);
    bytes.iter().fold(0, |bad, &byte| bad | is_bad(byte)) == 0
}

/// Values may be secret.
impl fmt::Debug for HeaderLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderLines({} bytes)", self.0.len())
    }
}

/// One POST. `host` and `content-length` are set here; no other name may stand in two of the `lines`.
#[derive(Debug)]
pub struct PostRequest<'a> {
    /// Where to.
    pub target: &'a PreparedTarget,
    /// Headers, one part behind the other.
    pub lines: &'a [&'a HeaderLines],
    /// The body, sent with its length.
    pub body: &'a Bytes,
}

impl PostRequest<'_> {
    /// Appends the request to `out`; gives the body that has to follow it, empty if it is there already.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Bytes {
        out.extend_from_slice(&self.target.start);
        for lines in self.lines {
            out.extend_from_slice(&lines.0);
        }
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(self.body.len()).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        if self.body.len() > COPIED_BODY_BYTES_MAX {
            return self.body.clone();
        }
        out.extend_from_slice(self.body);
        Bytes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: HeaderName = HeaderName::from_static("ce-id");

    #[test]
    fn lines_stand_one_behind_the_other() {
        let mut lines = HeaderLines::default();
        lines.push(&NAME, "a\tb");
        lines.push_number(&HeaderName::from_static("hookcast-attempt"), 7_u32);
        assert_eq!(lines.as_bytes(), b"ce-id: a\tb\r\nhookcast-attempt: 7\r\n");
    }

    #[test]
    fn debug_output_shows_no_value() {
        let mut lines = HeaderLines::default();
        lines.push(&NAME, "secret");
        assert!(!format!("{lines:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn no_value_makes_a_second_line(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut lines = HeaderLines::default();
            lines.push(&NAME, &value);
            let odd = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
            let kept: &[u8] = if value.iter().any(odd) { b"" } else { &value };
            prop_assert_eq!(lines.as_bytes(), [b"ce-id: ", kept, b"\r\n"].concat());
        }
    }
}
