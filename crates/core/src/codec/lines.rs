//! Lines out of chunks: ended by LF or CR LF, or by another byte, capped, never by chunk border. What a line means is not its business.

use bytes::{Buf, Bytes, BytesMut};

/// One line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line within the cap; a slice of the chunk when it lies inside one.
    Whole(Bytes),
    /// A line over the cap; its bytes are gone.
    TooLong,
}

/// Cuts a byte stream into lines while holding at most one line and one byte over the cap.
#[derive(Debug)]
pub struct LineDecoder {
    end: u8,
    held: BytesMut,
    skipping: bool,
    line_bytes_max: usize,
}

impl LineDecoder {
    /// A decoder that skips lines longer than `line_bytes_max`, the line end not counted.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self::ended_by(b'\n', line_bytes_max)
    }

    /// The same for records that end with another byte; only a line feed may have a CR before it.
    #[must_use]
    pub fn ended_by(end: u8, line_bytes_max: usize) -> Self {
        Self { end, held: BytesMut::new(), skipping: false, line_bytes_max }
    }

    /// The next line that ends inside `chunk`; `None` when the chunk is used up.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<Line> {
        let Some(end) = memchr::memchr(self.end, chunk) else {
            self.hold(chunk);
            chunk.clear();
            return None;
        };
        if self.skipping {
            chunk.advance(end + 1);
            self.skipping = false;
            return Some(Line::TooLong);
        }
        let line = if self.held.is_empty() {
            let line = chunk.split_to(end);
            chunk.advance(1);
            line
        } else {
            // One byte more than the cap may be held for a CR, so this copy is bounded too.
            if self.held.len() + end > self.line_bytes_max + 1 {
                self.held = BytesMut::new();
                chunk.advance(end + 1);
                return Some(Line::TooLong);
            }
            self.held.extend_from_slice(&chunk[..end]);
            chunk.advance(end + 1);
            std::mem::take(&mut self.held).freeze()
        };
        Some(self.finished(line))
    }

    /// What stands after the last line end when the stream is over; `None` when nothing does.
    pub fn finish(&mut self) -> Option<Line> {
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        let rest = std::mem::take(&mut self.held).freeze();
        (!rest.is_empty()).then(|| self.finished(rest))
    }

    fn hold(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.held.len() + part.len() > self.line_bytes_max + 1 {
            self.held = BytesMut::new();
            self.skipping = true;
        } else {
            self.held.extend_from_slice(part);
        }
    }

    fn finished(&self, mut line: Bytes) -> Line {
        if self.end == b'\n' && line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if line.len() > self.line_bytes_max { Line::TooLong } else { Line::Whole(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of(pieces: &[&[u8]], line_bytes_max: usize) -> Vec<Line> {
        let mut decoder = LineDecoder::new(line_bytes_max);
        let mut lines = Vec::new();
        for piece in pieces {
            let mut chunk = Bytes::copy_from_slice(piece);
            lines.extend(std::iter::from_fn(|| decoder.next(&mut chunk)));
            assert!(chunk.is_empty());
            assert!(decoder.held.len() <= line_bytes_max + 1);
        }
        lines.extend(decoder.finish());
        lines
    }

    fn whole(text: &str) -> Line {
        Line::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn both_line_ends_and_blank_lines_are_read() {
        assert_eq!(lines_of(&[b"a\r\nb\n\n\r\nc"], 9), [whole("a"), whole("b"), whole(""), whole(""), whole("c")]);
        assert_eq!(lines_of(&[b"a\rb\n"], 9), [whole("a\rb")]);
    }

    #[test]
    fn another_end_leaves_line_ends_inside() {
        let mut decoder = LineDecoder::ended_by(0, 9);
        let mut chunk = Bytes::from_static(b"a\r\n\0\0b");
        assert_eq!(decoder.next(&mut chunk), Some(whole("a\r\n")));
        assert_eq!((decoder.next(&mut chunk), decoder.next(&mut chunk)), (Some(whole("")), None));
        assert_eq!(decoder.finish(), Some(whole("b")));
    }

    #[test]
    fn a_line_at_the_cap_passes_and_a_longer_one_is_skipped_alone() {
        assert_eq!(lines_of(&[b"abcd\r\nabcde\nx\n"], 4), [whole("abcd"), Line::TooLong, whole("x")]);
        assert_eq!(lines_of(&[b"abcde", b"fgh", b"\nx\n"], 4), [Line::TooLong, whole("x")]);
        assert_eq!(lines_of(&[b"abcdefgh"], 4), [Line::TooLong]);
    }

    #[test]
    fn a_line_inside_one_chunk_shares_its_memory() {
        let source = Bytes::from_static(b"abc\ndef\n");
        let mut chunk = source.clone();
        let Some(Line::Whole(line)) = LineDecoder::new(10).next(&mut chunk) else { panic!("a line") };
        assert_eq!(line.as_ptr(), source.as_ptr());
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(text in "[ab\r\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(lines_of(&pieces, 5), lines_of(&[bytes], 5));
        }
    }
}
