//! The protocols a recording can be served by: one file and one row of [`PROTOCOLS`] each.

use bytes::BytesMut;

use super::recording::Record;
use super::{json_seq, length, long_poll, multipart, ndjson, raw, sse, websocket};

/// Every protocol, by the words that sources use.
pub(super) const PROTOCOLS: &[Protocol] = &[
    ndjson::PROTOCOL,
    sse::PROTOCOL,
    json_seq::PROTOCOL,
    length::PROTOCOL,
    raw::PROTOCOL,
    multipart::PROTOCOL,
    websocket::PROTOCOL,
    long_poll::PROTOCOL,
];

/// How events go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// One endless body.
    Body,
    /// Messages on a connection that left HTTP behind.
    WebSocket,
    /// A few in each answer.
    LongPoll,
}

/// One protocol.
pub(super) struct Protocol {
    /// The word in `--protocol`.
    pub(super) name: &'static str,
    /// The `Content-Type` of what it sends.
    pub(super) content_type: &'static str,
    pub(super) way: Way,
    /// Appends an event as number `n` of the stream.
    pub(super) write: fn(&Record, u64, &mut BytesMut),
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The protocol of that name.
pub(super) fn parse(name: &str) -> Result<&'static Protocol, String> {
    let names = || PROTOCOLS.iter().map(|protocol| protocol.name).collect::<Vec<_>>().join(", ");
    PROTOCOLS.iter().find(|protocol| protocol.name == name).ok_or_else(|| format!("allowed: {}", names()))
}

/// Appends data as one line without its end: line ends can only stand between tokens of JSON, where a space means the same.
pub(super) fn put_line(data: &[u8], out: &mut BytesMut) {
    out.extend(data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
}
