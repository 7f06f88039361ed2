//! A chunk as HTTP/1.1 writes it: made once from pieces that lie in a row, shared by everybody who sends it.
//!
//! Knows nothing of events.

use std::io::Write as _;
use std::ops::Range;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// What ends a chunked body.
const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");
const LINE_END: &[u8] = b"\r\n";
/// Room for the length in hexadecimal digits and the line end behind it.
const HEAD_BYTES: usize = 8 + LINE_END.len();

/// How a stream lies on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// As chunks of HTTP/1.1.
    Chunked,
    /// As it is: HTTP/1.0, WebSocket, plain TCP.
    Bare,
}

impl Wrapping {
    /// What ends the body, besides the end of the connection.
    pub(super) fn last(self) -> Bytes {
        match self {
            Self::Chunked => LAST_CHUNK,
            Self::Bare => Bytes::new(),
        }
    }

    /// These bytes as they go out.
    pub(super) fn around(self, bytes: Bytes) -> Bytes {
        match self {
            Self::Chunked => Chunk::around(std::iter::once(&*bytes)).bytes,
            Self::Bare => bytes,
        }
    }
}

/// A whole chunk, with its length in front and its line end behind. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    bytes: Bytes,
    head_bytes: usize,
}

/// Collects what a chunk carries, with room for its head.
#[derive(Debug, Default)]
pub(super) struct ChunkBuilder {
    bytes: BytesMut,
}

impl ChunkBuilder {
    /// Where the next bytes are to be appended.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        if self.bytes.is_empty() {
            self.bytes.put_bytes(0, HEAD_BYTES);
        }
        &mut self.bytes
    }

    /// Bytes that were appended.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(HEAD_BYTES)
    }

    /// The chunk; the builder begins anew with nothing kept aside. An empty chunk has no bytes at all: as a chunk it would be the last.
    pub(super) fn finish(&mut self) -> Chunk {
        let length = self.len();
        let mut bytes = std::mem::take(&mut self.bytes);
        if length == 0 {
            return Chunk::default();
        }
        bytes.put_slice(LINE_END);
        let mut digits = [0u8; HEAD_BYTES];
        let mut room = &mut digits[..];
        write!(room, "{length:X}\r\n").expect("invariant: a chunk is below 4 GiB");
        let head_bytes = HEAD_BYTES - room.len();
        bytes[HEAD_BYTES - head_bytes..HEAD_BYTES].copy_from_slice(&digits[..head_bytes]);
        bytes.advance(HEAD_BYTES - head_bytes);
        Chunk { bytes: bytes.freeze(), head_bytes }
    }
}

impl Chunk {
    /// One chunk around these pieces.
    pub(super) fn around<'a>(pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let length: usize = pieces.clone().map(<[u8]>::len).sum();
        let mut builder = ChunkBuilder { bytes: BytesMut::with_capacity(HEAD_BYTES + length + LINE_END.len()) };
        for piece in pieces {
            builder.room().put_slice(piece);
        }
        builder.finish()
    }

    /// All of it, as it goes out.
    pub(super) fn wrapped(self, wrapping: Wrapping) -> Bytes {
        match wrapping {
            Wrapping::Chunked => self.bytes,
            Wrapping::Bare => self.slice(0..self.len()),
        }
    }

    /// A part of what it carries.
    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(self.head_bytes + range.start..self.head_bytes + range.end)
    }

    /// What it carries.
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[self.head_bytes..self.head_bytes + self.len()]
    }

    /// Bytes that it carries.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.head_bytes + LINE_END.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_how_long_it_is_and_gives_back_what_it_carries() {
        let chunk = Chunk::around([&b"abc"[..], b"", b"0123456789abcdef"].into_iter());
        assert_eq!(chunk.clone().wrapped(Wrapping::Chunked), "13\r\nabc0123456789abcdef\r\n");
        assert_eq!(chunk.payload(), b"abc0123456789abcdef");
        assert_eq!(chunk.clone().wrapped(Wrapping::Bare), "abc0123456789abcdef");
        assert_eq!(chunk.slice(1..5), "bc01");
        assert_eq!(chunk.len(), 19);
    }

    #[test]
    fn nothing_is_no_chunk() {
        let chunk = ChunkBuilder::default().finish();
        assert_eq!((chunk.len(), chunk.payload()), (0, &b""[..]));
        assert!(chunk.wrapped(Wrapping::Chunked).is_empty());
    }
}
