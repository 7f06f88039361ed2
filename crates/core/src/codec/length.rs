//! Messages behind their length: decimal digits and CR LF, then that many bytes; blank lines are keep-alives.
//!
//! The CR LF that ends a message is part of its length; a sender that leaves it out sends what reads as a keep-alive. Where a
//! length should stand and none does, there is no way to find the next message: that is a fault, and the stream is given up.

use bytes::{Buf, Bytes, BytesMut};

use super::{Frame, SkipReason, json};

/// Longest message that may be announced, in bytes; one over the decoder's own cap is skipped.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 30;
/// Digits of that, and a CR.
const LENGTH_LINE_BYTES_MAX: usize = 11;

/// What stands where a length should is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no length where one should be")]
pub struct LengthFault;

/// Reads messages from chunks while holding at most one message.
#[derive(Debug)]
pub struct LengthDecoder {
    held: BytesMut,
    /// Bytes of the message that have not come; `None` = a length comes next.
    missing: Option<usize>,
    skipping: bool,
    message_bytes_max: usize,
}

impl LengthDecoder {
    /// A decoder that skips messages longer than `message_bytes_max`, the CR LF at their end included.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), missing: None, skipping: false, message_bytes_max }
    }

    /// The next message that is complete inside `chunk`; `None` when the chunk is used up.
    ///
    /// # Errors
    /// [`LengthFault`], after which the rest of the stream means nothing.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<Result<Frame, LengthFault>> {
        loop {
            let Some(missing) = self.missing else {
                match self.length(chunk)? {
                    Err(fault) => return Some(Err(fault)),
                    Ok(0) => return Some(Ok(Frame::KeepAlive)),
                    Ok(length) => {
                        self.missing = Some(length);
                        self.skipping = length > self.message_bytes_max;
                    }
                }
                continue;
            };
            let part = chunk.split_to(missing.min(chunk.len()));
            let is_complete = part.len() == missing;
            if !is_complete {
                self.missing = Some(missing - part.len());
                if !self.skipping {
                    self.held.extend_from_slice(&part);
                }
                return None;
            }
            self.missing = None;
            return Some(Ok(self.completed(part)));
        }
    }

    /// The end of the stream: what is left of a message that is not complete.
    pub fn finish(&mut self) -> Option<Frame> {
        let rest = std::mem::take(&mut self.held).freeze();
        self.missing.take().map(|_| Frame::Skipped(SkipReason::Partial, rest))
    }

    /// A line with a length, 0 for a blank one; `None` when the chunk ends before it does.
    fn length(&mut self, chunk: &mut Bytes) -> Option<Result<usize, LengthFault>> {
        let end = memchr::memchr(b'\n', chunk);
        let part = chunk.split_to(end.unwrap_or(chunk.len()));
        if self.held.len() + part.len() > LENGTH_LINE_BYTES_MAX {
            return Some(Err(LengthFault));
        }
        self.held.extend_from_slice(&part);
        end?;
        chunk.advance(1);
        let line = std::mem::take(&mut self.held);
        Some(parse_length(line.strip_suffix(b"\r").unwrap_or(&line)))
    }

    fn completed(&mut self, part: Bytes) -> Frame {
        let held = std::mem::take(&mut self.held);
        if std::mem::take(&mut self.skipping) {
            return Frame::Skipped(SkipReason::EventTooLarge, Bytes::new());
        }
        let mut message = part;
        if !held.is_empty() {
            let mut whole = held;
            whole.extend_from_slice(&message);
            message = whole.freeze();
        }
        let length = message.strip_suffix(b"\n").map_or(message.len(), |rest| rest.strip_suffix(b"\r").unwrap_or(rest).len());
        message.truncate(length);
        if message.iter().all(u8::is_ascii_whitespace) {
            return Frame::KeepAlive;
        }
        match json::check(&message) {
            Ok(_) => Frame::Record(message),
            Err(fault) => Frame::Skipped(fault.into(), message),
        }
    }
}

fn parse_length(line: &[u8]) -> Result<usize, LengthFault> {
    if line.is_empty() {
        return Ok(0);
    }
    if !line.iter().all(u8::is_ascii_digit) {
        return Err(LengthFault);
    }
    let length = std::str::from_utf8(line).ok().and_then(|digits| digits.parse::<u64>().ok());
    let length = length.filter(|length| *length <= MESSAGE_BYTES_MAX).ok_or(LengthFault)?;
    usize::try_from(length).map_err(|_| LengthFault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::cut::{any_cutting, frames_of};
    use proptest::prelude::*;

    fn frames(pieces: &[&[u8]]) -> Vec<Result<Frame, LengthFault>> {
        let mut decoder = LengthDecoder::new(16);
        let mut frames: Vec<Result<Frame, LengthFault>> = Vec::new();
        for piece in pieces {
            let mut chunk = Bytes::copy_from_slice(piece);
            while let Some(frame) = decoder.next(&mut chunk) {
                frames.push(frame);
                assert!(decoder.held.len() <= 16);
                if frame_is_fault(frames.last()) {
                    return frames;
                }
            }
        }
        frames.extend(decoder.finish().map(Ok));
        frames
    }

    fn frame_is_fault(frame: Option<&Result<Frame, LengthFault>>) -> bool {
        matches!(frame, Some(Err(_)))
    }

    #[allow(clippy::unnecessary_wraps, reason = "compared with what a decoder gives")]
    fn record(text: &'static str) -> Result<Frame, LengthFault> {
        Ok(Frame::Record(Bytes::from_static(text.as_bytes())))
    }

    #[allow(clippy::unnecessary_wraps, reason = "compared with what a decoder gives")]
    fn skipped(reason: SkipReason, text: &'static str) -> Result<Frame, LengthFault> {
        Ok(Frame::Skipped(reason, Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn lengths_count_bytes_and_the_line_end() {
        assert_eq!(frames(&["9\r\n[\"\u{20ac}\"]\r\n".as_bytes()]), [record("[\"\u{20ac}\"]")]);
        assert_eq!(frames(&[b"1\r\n7\r\n3\r\n8\r\n"]), [record("7"), Ok(Frame::KeepAlive), record("8")]);
        assert_eq!(frames(&[b"\r\n\n6\r\n{\n\n}\r\n"]), [Ok(Frame::KeepAlive), Ok(Frame::KeepAlive), record("{\n\n}")]);
    }

    #[test]
    fn what_is_no_length_ends_the_stream_with_a_fault() {
        for body in [&b"x\r\n"[..], b"-1\r\n", b"1 \r\n", b"99999999999\r\n", b"1073741825\r\n", b"{\"text\":\"no length\"}"] {
            assert_eq!(frames(&[body]), [Err(LengthFault)], "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(frames(&[b"3\r\n1\r\nnine\r\n"]), [record("1"), Err(LengthFault)]);
    }

    #[test]
    fn bad_long_and_cut_messages_are_skipped_alone() {
        assert_eq!(frames(&[b"3\r\n{\r\n3\r\n1\r\n"]), [skipped(SkipReason::BadJson, "{"), record("1")]);
        let long = [b"20\r\n", &[b'x'; 20][..], b"3\r\n1\r\n"].concat();
        assert_eq!(frames(&[&long]), [skipped(SkipReason::EventTooLarge, ""), record("1")]);
        assert_eq!(frames(&[b"9\r\n[1,2"]), [skipped(SkipReason::Partial, "[1,2")]);
        assert_eq!(frames(&[b"3\r\n1\r\n12"]), [record("1")]);
    }

    #[test]
    fn the_pieces_of_a_message_are_put_together() {
        let pieces: Vec<&[u8]> = b"5\r\n[1]\r\n\r\n3\r\n7\r\n".chunks(1).collect();
        let mut decoder = LengthDecoder::new(16);
        let frames = frames_of(&pieces, |chunk| decoder.next(chunk));
        assert_eq!(frames, [record("[1]"), Ok(Frame::KeepAlive), record("7")]);
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(text in "([0-9]{1,2}\r\n|[1\\[\\]a]{0,9}|\r\n){0,9}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let pieces = any_cutting(text.as_bytes(), cuts);
            prop_assert_eq!(frames(&pieces), frames(&[text.as_bytes()]));
        }
    }
}
