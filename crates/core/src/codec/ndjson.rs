//! Newline-delimited JSON: one JSON text a line, blank lines are keep-alives, both line ends.
//!
//! The last line of a stream needs no line end, but counts only after a clean end and if it parses: otherwise nobody can
//! tell a short record from a cut one.

use bytes::{BufMut, Bytes};

use super::lines::{Line, LineDecoder};
use super::{Frame, SkipReason, json};
use crate::model::Event;

/// Reads records from chunks.
#[derive(Debug)]
pub struct NdjsonDecoder {
    lines: LineDecoder,
}

impl NdjsonDecoder {
    /// A decoder that skips lines longer than `line_bytes_max`.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self { lines: LineDecoder::new(line_bytes_max) }
    }

    /// The next line that ends inside `chunk`; `None` when the chunk is used up.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<Frame> {
        self.lines.next(chunk).map(judge)
    }

    /// The end of the stream; `clean` says that the other side meant to end it here.
    pub fn finish(&mut self, clean: bool) -> Option<Frame> {
        last(judge(self.lines.finish()?), clean)
    }
}

/// What the end of a stream makes of what stood behind the last line end.
pub(super) fn last(frame: Frame, clean: bool) -> Option<Frame> {
    match frame {
        Frame::KeepAlive => None,
        Frame::Record(line) if clean => Some(Frame::Record(line)),
        Frame::Record(line) | Frame::Skipped(SkipReason::BadJson | SkipReason::BadUtf8, line) => {
            Some(Frame::Skipped(SkipReason::Partial, line))
        }
        skipped @ Frame::Skipped(..) => Some(skipped),
    }
}

/// What a line is: a record, a keep-alive, or something to leave out.
pub(super) fn judge(line: Line) -> Frame {
    match line {
        Line::TooLong => Frame::Skipped(SkipReason::LineTooLong, Bytes::new()),
        Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => Frame::KeepAlive,
        Line::Whole(line) => match json::check(&line) {
            Ok(_) => Frame::Record(line),
            Err(fault) => Frame::Skipped(fault.into(), line),
        },
    }
}

/// Appends one event as a line: its JSON form and LF.
pub fn write_event(out: &mut impl BufMut, event: &Event) {
    super::cloudevents::write_event(out, event);
    out.put_u8(b'\n');
}

/// Appends the keep-alive: an empty line.
pub fn write_keep_alive(out: &mut impl BufMut) {
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(body: &[u8], clean: bool) -> Vec<Frame> {
        let mut decoder = NdjsonDecoder::new(64);
        let mut chunk = Bytes::copy_from_slice(body);
        let mut frames: Vec<Frame> = std::iter::from_fn(|| decoder.next(&mut chunk)).collect();
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
    fn a_bad_line_is_skipped_alone() {
        let body = b"{\"a\":1}\nnot json\n{\"a\":1}{\"a\":2}\n42\n";
        assert_eq!(
            frames(body, true),
            [
                record("{\"a\":1}"),
                skipped(SkipReason::BadJson, "not json"),
                skipped(SkipReason::BadJson, "{\"a\":1}{\"a\":2}"),
                record("42"),
            ]
        );
    }

    #[test]
    fn the_last_line_counts_only_after_a_clean_end() {
        assert_eq!(frames(b"1\n{\"a\":2}", true), [record("1"), record("{\"a\":2}")]);
        assert_eq!(frames(b"1\n{\"a\":2}", false), [record("1"), skipped(SkipReason::Partial, "{\"a\":2}")]);
        assert_eq!(frames(b"1\n{\"a\":", true), [record("1"), skipped(SkipReason::Partial, "{\"a\":")]);
        assert_eq!(frames(b"1\n  ", true), [record("1")]);
    }

    #[test]
    fn blank_lines_are_keep_alives() {
        assert_eq!(frames(b"\n\r\n 1\n", true), [Frame::KeepAlive, Frame::KeepAlive, record(" 1")]);
    }
}
