//! JSON text sequences: each text stands behind a record separator and ends with a line feed.
//!
//! A text is given out at the line feed that completes it, not only at the next separator, so that a slow stream is read as it
//! is sent. What is cut short is left out as partial, and reading goes on at the next separator; numbers and words count only
//! with something behind them, because nobody can tell a short one from a cut one. Spec: RFC 7464.

use bytes::{Buf, Bytes, BytesMut};

use super::nesting::Nesting;
use super::{Frame, SkipReason, json};

/// What begins a text.
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// Reads texts from chunks while holding at most one text.
#[derive(Debug)]
pub struct JsonSeqDecoder {
    held: BytesMut,
    place: Place,
    nesting: Nesting,
    text_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Inside a text, which may not have begun yet.
    Text,
    /// Behind a complete text, or before the first separator: only white space belongs here.
    Between,
    /// In what is left out until the next separator, for this reason.
    Skipping(SkipReason),
}

impl JsonSeqDecoder {
    /// A decoder that skips texts longer than `text_bytes_max`.
    #[must_use]
    pub fn new(text_bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), place: Place::Between, nesting: Nesting::default(), text_bytes_max }
    }

    /// The next text that is known to be complete inside `chunk`; `None` when the chunk is used up.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<Frame> {
        // How much of the chunk was looked at and belongs to the text that is being read.
        let mut seen = 0;
        while let Some(offset) = memchr::memchr2(RECORD_SEPARATOR, b'\n', &chunk[seen..]) {
            let at = seen + offset;
            self.look_at(&chunk[seen..at], at);
            let is_separator = chunk[at] == RECORD_SEPARATOR;
            let ends = is_separator || (self.place == Place::Text && self.nesting.is_complete());
            if !ends {
                seen = at + 1;
                continue;
            }
            let text = self.take(chunk, at);
            let frame = if is_separator { self.separated(&text) } else { Some(self.completed(&text)) };
            if frame.is_some() {
                return frame;
            }
            seen = 0;
        }
        self.look_at(&chunk[seen..], chunk.len());
        if self.place == Place::Text {
            self.held.extend_from_slice(chunk);
        }
        chunk.clear();
        None
    }

    /// The end of the stream; `clean` says that the other side meant to end it here.
    pub fn finish(&mut self, clean: bool) -> Option<Frame> {
        let text = std::mem::take(&mut self.held).freeze();
        match self.separated(&text)? {
            Frame::Record(text) if !clean => Some(Frame::Skipped(SkipReason::Partial, text)),
            frame => Some(frame),
        }
    }

    /// Looks at more bytes of what is being read, which has `unheld` bytes beside those that are held.
    fn look_at(&mut self, bytes: &[u8], unheld: usize) {
        match self.place {
            Place::Text => {
                self.nesting.look_at(bytes);
                if self.held.len() + unheld > self.text_bytes_max {
                    self.held = BytesMut::new();
                    self.place = Place::Skipping(SkipReason::EventTooLarge);
                }
            }
            Place::Between if !bytes.iter().all(u8::is_ascii_whitespace) => self.place = Place::Skipping(SkipReason::BadJson),
            Place::Between | Place::Skipping(_) => {}
        }
    }

    /// Takes what was read of the chunk, and the byte behind it.
    fn take(&mut self, chunk: &mut Bytes, at: usize) -> Bytes {
        let part = chunk.split_to(at);
        chunk.advance(1);
        if self.place != Place::Text {
            return Bytes::new();
        }
        if self.held.is_empty() {
            return part;
        }
        self.held.extend_from_slice(&part);
        std::mem::take(&mut self.held).freeze()
    }

    /// A text ended with its line feed.
    fn completed(&mut self, text: &Bytes) -> Frame {
        self.place = Place::Between;
        judge(trimmed(text))
    }

    /// A separator, or the end, came behind this.
    fn separated(&mut self, text: &Bytes) -> Option<Frame> {
        let nesting = std::mem::take(&mut self.nesting);
        match std::mem::replace(&mut self.place, Place::Text) {
            Place::Skipping(reason) => Some(Frame::Skipped(reason, Bytes::new())),
            Place::Between => None,
            Place::Text => {
                let whole = trimmed(text);
                if whole.is_empty() {
                    return None;
                }
                let ends_visibly = nesting.is_closed() || text.last().is_some_and(u8::is_ascii_whitespace);
                Some(match judge(whole) {
                    Frame::Record(whole) if ends_visibly => Frame::Record(whole),
                    Frame::Record(cut) | Frame::Skipped(SkipReason::BadJson | SkipReason::BadUtf8, cut) => {
                        Frame::Skipped(SkipReason::Partial, cut)
                    }
                    other => other,
                })
            }
        }
    }
}

fn judge(text: Bytes) -> Frame {
    match json::check(&text) {
        Ok(_) => Frame::Record(text),
        Err(fault) => Frame::Skipped(fault.into(), text),
    }
}

fn trimmed(text: &Bytes) -> Bytes {
    let inner = text.trim_ascii();
    if inner.is_empty() { Bytes::new() } else { text.slice_ref(inner) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::cut::{any_cutting, frames_of};
    use proptest::prelude::*;

    fn frames(body: &[u8], clean: bool) -> Vec<Frame> {
        let mut decoder = JsonSeqDecoder::new(64);
        let mut frames = frames_of(&[body], |chunk| decoder.next(chunk));
        frames.extend(decoder.finish(clean));
        frames
    }

    fn record(text: &'static str) -> Frame {
        Frame::Record(Bytes::from_static(text.as_bytes()))
    }

    fn skipped(reason: SkipReason, text: &'static str) -> Frame {
        Frame::Skipped(reason, Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn texts_are_read_at_their_line_feed_even_when_they_have_others_inside() {
        let mut decoder = JsonSeqDecoder::new(64);
        let mut chunk = Bytes::from_static(b"\x1e{\"a\":\n[1]}\n");
        assert_eq!(decoder.next(&mut chunk), Some(record("{\"a\":\n[1]}")));
        assert_eq!(frames(b"\x1e1\n\x1e\"a\\\"b\"\n\x1enull\n", true), [record("1"), record("\"a\\\"b\""), record("null")]);
    }

    #[test]
    fn what_was_cut_short_is_left_out_and_the_next_text_read() {
        let partial = |text| skipped(SkipReason::Partial, text);
        assert_eq!(frames(b"\x1e{\"a\":1\x1e{\"a\":2}\n", true), [partial("{\"a\":1"), record("{\"a\":2}")]);
        assert_eq!(frames(b"\x1e12\x1e{\"a\":1}\n", true), [partial("12"), record("{\"a\":1}")]);
        assert_eq!(frames(b"\x1e{\"a\":1}\x1e2\n", true), [record("{\"a\":1}"), record("2")]);
        assert_eq!(frames(b"\x1e{\"a\":1}", true), [record("{\"a\":1}")]);
        assert_eq!(frames(b"\x1e{\"a\":1}", false), [partial("{\"a\":1}")]);
        assert_eq!(frames(b"\x1e{\"a\"", true), [partial("{\"a\"")]);
        assert_eq!(frames(b"\x1e12", true), [partial("12")]);
    }

    #[test]
    fn pairs_of_separators_are_nothing_and_what_is_no_text_is_counted() {
        assert_eq!(frames(b"\x1e\n\x1e\x1e \n\x1e1\n\x1e\n", true), [record("1")]);
        assert_eq!(frames(b"tail\"}\n\x1e1\n", true), [skipped(SkipReason::BadJson, ""), record("1")]);
        assert_eq!(frames(b"\x1e1\n2\n\x1e3\n", true), [record("1"), skipped(SkipReason::BadJson, ""), record("3")]);
        assert_eq!(frames(b"\x1enope\n\x1e3\n", true), [skipped(SkipReason::BadJson, "nope"), record("3")]);
    }

    #[test]
    fn a_text_over_the_cap_is_skipped_alone() {
        let body = [b"\x1e\"", &[b'x'; 100][..], b"\"\n\x1e1\n"].concat();
        assert_eq!(frames(&body, true), [skipped(SkipReason::EventTooLarge, ""), record("1")]);
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(text in "[\x1e\x1e\n\"\\\\{}1a ]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let read = |pieces: &[&[u8]]| {
                let mut decoder = JsonSeqDecoder::new(12);
                let mut frames = frames_of(pieces, |chunk| decoder.next(chunk));
                assert!(decoder.held.len() <= 12);
                frames.extend(decoder.finish(true));
                frames
            };
            let pieces = any_cutting(text.as_bytes(), cuts);
            prop_assert_eq!(read(&pieces), read(&[text.as_bytes()]));
        }
    }
}
