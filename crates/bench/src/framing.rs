//! How the clients of a benchmark tell where an event of a stream ends: as little work as there can be, the same for all servers.

use memchr::memmem::Finder;

/// What ends a record: an empty line for server-sent events, a closed object for lines of JSON.
const SSE_END: &[u8] = b"\n\n";
const LINE_END: &[u8] = b"}\n";
/// First byte of a whole text of a server.
const TEXT: u8 = 0x81;

/// One stream that is read.
#[derive(Clone)]
pub(crate) enum Framing {
    /// Records that end with two known bytes.
    Marked {
        /// Finds them.
        end: Box<Finder<'static>>,
        /// Whether the first of them was the last that came.
        is_open: bool,
    },
    /// Frames of a WebSocket.
    Frames(Frames),
}

/// Where in a frame one is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    head: Vec<u8>,
    left: u64,
    is_text: bool,
}

impl Framing {
    /// The framing of a stream at this path.
    pub(crate) fn of(path: &str) -> Self {
        if path.contains("format=ws") {
            return Self::Frames(Frames::default());
        }
        let end = if path.contains("ndjson") || path.contains("json-seq") { LINE_END } else { SSE_END };
        Self::Marked { end: Box::new(Finder::new(end)), is_open: false }
    }

    /// The headers that ask for it, besides `Host`.
    pub(crate) fn headers(&self) -> &'static str {
        match self {
            Self::Marked { .. } => "accept: text/event-stream\r\n",
            Self::Frames(_) => {
                "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
        }
    }

    /// How many events end in what came next.
    pub(crate) fn count(&mut self, got: &[u8]) -> u64 {
        match self {
            Self::Marked { end, is_open } => {
                let mark = end.needle();
                let across = u64::from(*is_open && got.first() == mark.last());
                *is_open = got.last() == mark.first() && !got.ends_with(mark);
                across + end.find_iter(got).count() as u64
            }
            Self::Frames(frames) => frames.count(got),
        }
    }
}

impl Frames {
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut texts = 0;
        loop {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            bytes = &bytes[skipped..];
            self.left -= skipped as u64;
            if self.left == 0 && std::mem::take(&mut self.is_text) {
                texts += 1;
            }
            let [next, rest @ ..] = bytes else { return texts };
            self.head.push(*next);
            bytes = rest;
            if let Some(length) = length(&self.head) {
                (self.left, self.is_text) = (length, self.head[0] == TEXT);
                self.head.clear();
            }
        }
    }
}

/// Bytes that a frame of a server carries, once its head is whole.
fn length(head: &[u8]) -> Option<u64> {
    let (short, rest) = (*head.get(1)?, &head[2..]);
    match short {
        126 => Some(u64::from(u16::from_be_bytes(rest.try_into().ok()?))),
        127 => Some(u64::from_be_bytes(rest.try_into().ok()?)),
        short => Some(u64::from(short)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use hookcast_core::codec::websocket::{Opcode, write_frame};

    /// The events that are counted when so many bytes come at a time.
    fn counted(path: &str, bytes: &[u8], piece: usize) -> u64 {
        let mut framing = Framing::of(path);
        bytes.chunks(piece).map(|piece| framing.count(piece)).sum()
    }

    #[test]
    fn events_are_counted_however_they_are_cut() {
        let mut frames = BytesMut::new();
        for length in [5, 125, 126, 70_000] {
            write_frame(&mut frames, Opcode::Text, |out| out.extend_from_slice(&vec![b'x'; length]));
            write_frame(&mut frames, Opcode::Ping, |out| out.extend_from_slice(b"7"));
        }
        for piece in [1, 2, 3, 1000, 100_000] {
            assert_eq!(counted("/stream?format=ws", &frames, piece), 4, "{piece}");
            assert_eq!(counted("/stream?format=sse", b"id: 1\ndata: a\n\ndata: b\n\n", piece), 2, "{piece}");
            assert_eq!(counted("/stream?format=ndjson", b"{\"n\":1}\n\n{\"n\":2}\n", piece), 2, "{piece}");
        }
    }
}
