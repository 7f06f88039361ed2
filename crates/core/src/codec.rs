//! Framings of streams and forms of events, in both directions and without I/O: bytes in, records out, and back.
//!
//! Every decoder takes whatever pieces the network cut and gives the same records for any cutting; a chunk is handed in as
//! `&mut Bytes` and is used up from the front. Nothing in here reads a clock, opens a connection or knows what is done with
//! a record. `lines` and `nesting` are the ground floor; `ndjson`, `sse`, `json_seq`, `length`, `messages` and `multipart` are
//! framings, `cloudevents` the forms of one event, `gzip` the content coding, `json` and `pointer` judge and search JSON
//! without building it, `websocket` frames and messages of either side.

pub mod cloudevents;
pub mod gzip;
pub mod json;
pub mod json_seq;
pub mod length;
pub mod lines;
pub mod messages;
pub mod multipart;
pub mod ndjson;
pub mod pointer;
pub mod sse;
pub mod websocket;

#[cfg(test)]
mod cut;
mod nesting;

use bytes::Bytes;

/// Why a record of a stream was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Not JSON.
    BadJson,
    /// Not UTF-8.
    BadUtf8,
    /// JSON nested deeper than [`json::DEPTH_MAX`].
    TooDeep,
    /// A line longer than the cap.
    LineTooLong,
    /// An event of several lines that is longer than the cap.
    EventTooLarge,
    /// The stream ended inside it.
    Partial,
    /// A webhook that nothing proves to be from its sender.
    BadSignature,
}

impl SkipReason {
    /// Every reason, in the order of [`SkipReason::index`].
    pub const ALL: [Self; 7] =
        [Self::BadJson, Self::BadUtf8, Self::TooDeep, Self::LineTooLong, Self::EventTooLarge, Self::Partial, Self::BadSignature];

    /// The word used in the API, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadUtf8 => "bad_utf8",
            Self::TooDeep => "too_deep",
            Self::LineTooLong => "line_too_long",
            Self::EventTooLarge => "event_too_large",
            Self::Partial => "partial",
            Self::BadSignature => "bad_signature",
        }
    }

    /// Its place in [`SkipReason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a decoder of one-record framings found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A complete, valid record, byte for byte.
    Record(Bytes),
    /// A sign of life without content.
    KeepAlive,
    /// A record that was left out, and as much of it as was still at hand.
    Skipped(SkipReason, Bytes),
}
