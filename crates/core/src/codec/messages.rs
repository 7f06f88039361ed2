//! JSON messages that end with CR LF and may hold a bare LF, as the streams of Twitter do; blank lines are keep-alives.
//!
//! A bare LF ends a message too when the message is complete there, so that a copy of such a stream with other line ends reads
//! the same.

use bytes::{Buf, Bytes, BytesMut};

use super::Frame;
use super::lines::Line;
use super::ndjson::{judge, last};
use super::nesting::Nesting;

/// Reads messages from chunks while holding at most one message and one byte over the cap.
#[derive(Debug)]
pub struct MessageDecoder {
    held: BytesMut,
    nesting: Nesting,
    skipping: bool,
    message_bytes_max: usize,
}

impl MessageDecoder {
    /// A decoder that skips messages longer than `message_bytes_max`.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), nesting: Nesting::default(), skipping: false, message_bytes_max }
    }

    /// The next message that ends inside `chunk`; `None` when the chunk is used up.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<Frame> {
        let mut seen = 0;
        while let Some(offset) = memchr::memchr(b'\n', &chunk[seen..]) {
            let at = seen + offset;
            self.look_at(&chunk[seen..at], at);
            let before = if at > 0 { chunk.get(at - 1) } else { self.held.last() };
            if self.skipping || before == Some(&b'\r') || !self.nesting.is_inside() {
                let part = chunk.split_to(at);
                chunk.advance(1);
                return Some(judge(self.take(part)));
            }
            seen = at + 1;
        }
        self.look_at(&chunk[seen..], chunk.len());
        if !self.skipping {
            self.held.extend_from_slice(chunk);
        }
        chunk.clear();
        None
    }

    /// The end of the stream; `clean` says that the other side meant to end it here.
    pub fn finish(&mut self, clean: bool) -> Option<Frame> {
        let line = self.take(Bytes::new());
        last(judge(line), clean)
    }

    /// Looks at more bytes of the message, which has `unheld` bytes beside those that are held.
    fn look_at(&mut self, bytes: &[u8], unheld: usize) {
        self.nesting.look_at(bytes);
        if self.held.len() + unheld > self.message_bytes_max + 1 {
            self.held = BytesMut::new();
            self.skipping = true;
        }
    }

    fn take(&mut self, part: Bytes) -> Line {
        self.nesting = Nesting::default();
        if std::mem::take(&mut self.skipping) {
            return Line::TooLong;
        }
        let mut message = part;
        if !self.held.is_empty() {
            self.held.extend_from_slice(&message);
            message = std::mem::take(&mut self.held).freeze();
        }
        if message.last() == Some(&b'\r') {
            message.truncate(message.len() - 1);
        }
        if message.len() > self.message_bytes_max { Line::TooLong } else { Line::Whole(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::SkipReason;
    use crate::codec::cut::{any_cutting, frames_of};
    use proptest::prelude::*;

    fn frames(pieces: &[&[u8]]) -> Vec<Frame> {
        let mut decoder = MessageDecoder::new(12);
        let mut frames = frames_of(pieces, |chunk| decoder.next(chunk));
        assert!(decoder.held.len() <= 13);
        frames.extend(decoder.finish(true));
        frames
    }

    fn record(text: &'static str) -> Frame {
        Frame::Record(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_bare_line_feed_ends_only_what_is_complete() {
        assert_eq!(frames(&[b"{\"a\":\n1}\r\n[2]\r\n"]), [record("{\"a\":\n1}"), record("[2]")]);
        assert_eq!(
            frames(&[b"[1]\n\n\r\n[2]\n3"]),
            [record("[1]"), Frame::KeepAlive, Frame::KeepAlive, record("[2]"), record("3")]
        );
        assert_eq!(
            frames(&[b"nope\n[2]\r\n"]),
            [Frame::Skipped(SkipReason::BadJson, Bytes::from_static(b"nope")), record("[2]"),]
        );
    }

    #[test]
    fn broken_and_long_messages_are_skipped_alone() {
        let bad = Frame::Skipped(SkipReason::BadJson, Bytes::from_static(b"{\"a\":"));
        assert_eq!(frames(&[b"{\"a\":\r\n1\r\n"]), [bad, record("1")]);
        let long = Frame::Skipped(SkipReason::LineTooLong, Bytes::new());
        assert_eq!(frames(&[b"[1234567890123]\r\n1\r\n"]), [long, record("1")]);
        let cut = Frame::Skipped(SkipReason::Partial, Bytes::from_static(b"[1"));
        assert_eq!(frames(&[b"[1"]), [cut]);
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(text in "[\r\n\"{}1 ]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6)) {
            let pieces = any_cutting(text.as_bytes(), cuts);
            prop_assert_eq!(frames(&pieces), frames(&[text.as_bytes()]));
        }
    }
}
