//! Reads events out of chunks of an event stream, holding at most one block within the cap.
//!
//! An event's own id is the value of the `id:` line in its block. The last event id, which stays in force for later blocks
//! without one, is the resume token only. It moves when a block ends, not before: a block the stream ended in never was.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::SkipReason;

/// Bytes a block may have over the cap on its data: field names, an id, a type.
pub const BLOCK_OVERHEAD_BYTES: usize = 1024;
/// Largest reconnection time that is understood, in milliseconds; larger ones are cut to it.
pub const RETRY_MS_MAX: u64 = 86_400_000;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How much of an overlong line is kept: a byte order mark and what tells a comment from a field.
const LINE_START_BYTES: usize = 4;

/// What stands in an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SseItem {
    /// A dispatched event.
    Event(SseEvent),
    /// A comment line, without the colon.
    Comment(Bytes),
    /// The reconnection time was set.
    Retry(Duration),
    /// An event was over the cap and is gone.
    Skipped(SkipReason),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event:` line; `None` = `message`.
    pub kind: Option<String>,
    /// The data lines joined by LF, in UTF-8.
    pub data: Bytes,
    /// Value of the block's own `id:` line; an empty one is `None`.
    pub id: Option<Arc<str>>,
    /// The last event id in force after this event; empty = none.
    pub last_event_id: Arc<str>,
}

/// The decoder.
#[derive(Debug)]
pub struct SseDecoder {
    held: BytesMut,
    /// The line at hand is over the cap; its beginning is still in `held`.
    overlong: bool,
    /// A CR ended the last line: an LF right behind it belongs to it.
    after_cr: bool,
    first_line: bool,
    block: Block,
    last_event_id: Arc<str>,
    event_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Block {
    data: Data,
    kind: Option<String>,
    id: Option<Arc<str>>,
    bytes: usize,
    too_large: bool,
}

#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(line) => line.len(),
            Self::Many(lines) => lines.len(),
        }
    }

    fn push(&mut self, line: Bytes) {
        match self {
            Self::None => *self = Self::One(line),
            Self::One(first) => {
                let mut lines = BytesMut::with_capacity((first.len() + line.len() + 1).max(128));
                lines.extend_from_slice(first);
                lines.extend_from_slice(b"\n");
                lines.extend_from_slice(&line);
                *self = Self::Many(lines);
            }
            Self::Many(lines) => {
                lines.extend_from_slice(b"\n");
                lines.extend_from_slice(&line);
            }
        }
    }

    /// The data in UTF-8: what is not becomes U+FFFD, as the specification's decoder has it.
    fn into_text(self) -> Option<Bytes> {
        let bytes = match self {
            Self::None => return None,
            Self::One(line) => line,
            Self::Many(lines) => lines.freeze(),
        };
        match String::from_utf8_lossy(&bytes) {
            std::borrow::Cow::Borrowed(_) => Some(bytes),
            std::borrow::Cow::Owned(mended) => Some(mended.into()),
        }
    }
}

impl SseDecoder {
    /// A decoder for a new connection.
    ///
    /// Events whose data is longer than `event_bytes_max`, or whose block is more than [`BLOCK_OVERHEAD_BYTES`] longer, are
    /// skipped. `last_event_id` is what was sent as `Last-Event-ID`, empty for nothing.
    #[must_use]
    pub fn new(event_bytes_max: usize, last_event_id: &str) -> Self {
        Self {
            held: BytesMut::new(),
            overlong: false,
            after_cr: false,
            first_line: true,
            block: Block::default(),
            last_event_id: last_event_id.into(),
            event_bytes_max,
        }
    }

    /// The last event id in force; empty = none.
    #[must_use]
    pub fn last_event_id(&self) -> &Arc<str> {
        &self.last_event_id
    }

    /// The next item that is complete inside `chunk`; `None` when the chunk is used up.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<SseItem> {
        loop {
            if self.after_cr && !chunk.is_empty() {
                self.after_cr = false;
                if chunk[0] == b'\n' {
                    chunk.advance(1);
                }
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', chunk) else {
                self.hold(chunk);
                chunk.clear();
                return None;
            };
            let line = if self.held.is_empty() && end <= self.block_bytes_max() {
                chunk.split_to(end)
            } else {
                self.hold(&chunk[..end]);
                chunk.advance(end);
                std::mem::take(&mut self.held).freeze()
            };
            self.after_cr = chunk[0] == b'\r';
            chunk.advance(1);
            let overlong = std::mem::take(&mut self.overlong);
            if let Some(item) = self.line(line, overlong) {
                return Some(item);
            }
        }
    }

    fn block_bytes_max(&self) -> usize {
        self.event_bytes_max.saturating_add(BLOCK_OVERHEAD_BYTES)
    }

    fn hold(&mut self, part: &[u8]) {
        if self.overlong {
            return;
        }
        if self.held.len() + part.len() > self.block_bytes_max() {
            self.held = self.held.iter().chain(part).copied().take(LINE_START_BYTES).collect();
            self.overlong = true;
        } else {
            self.held.extend_from_slice(part);
        }
    }

    fn line(&mut self, mut line: Bytes, overlong: bool) -> Option<SseItem> {
        if std::mem::take(&mut self.first_line) && line.starts_with(BYTE_ORDER_MARK) {
            line.advance(BYTE_ORDER_MARK.len());
        }
        if line.first() == Some(&b':') {
            line.advance(1);
            return Some(SseItem::Comment(if overlong { Bytes::new() } else { line }));
        }
        if line.is_empty() && !overlong {
            return self.end_block();
        }
        self.block.bytes = self.block.bytes.saturating_add(line.len() + 1);
        if overlong || self.block.bytes > self.block_bytes_max() {
            self.block.too_large = true;
            self.block.data = Data::None;
            if overlong {
                return None;
            }
        }
        let (name, value) = match memchr::memchr(b':', &line) {
            None => (line, Bytes::new()),
            Some(colon) => {
                let mut value = line.split_off(colon);
                value.advance(if value.get(1) == Some(&b' ') { 2 } else { 1 });
                (line, value)
            }
        };
        self.field(&name, value)
    }

    fn field(&mut self, name: &[u8], value: Bytes) -> Option<SseItem> {
        match name {
            b"data" if !self.block.too_large => {
                if self.block.data.len() + value.len() + 1 > self.event_bytes_max + 1 {
                    self.block.too_large = true;
                    self.block.data = Data::None;
                } else {
                    self.block.data.push(value);
                }
            }
            b"event" => self.block.kind = (!value.is_empty()).then(|| String::from_utf8_lossy(&value).into_owned()),
            b"id" if memchr::memchr(0, &value).is_none() => {
                self.block.id = Some(String::from_utf8_lossy(&value).into());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let milliseconds = std::str::from_utf8(&value).ok().and_then(|digits| digits.parse().ok());
                return Some(SseItem::Retry(Duration::from_millis(milliseconds.unwrap_or(RETRY_MS_MAX).min(RETRY_MS_MAX))));
            }
            _ => {}
        }
        None
    }

    fn end_block(&mut self) -> Option<SseItem> {
        let block = std::mem::take(&mut self.block);
        if let Some(id) = &block.id {
            self.last_event_id = Arc::clone(id);
        }
        if block.too_large {
            return Some(SseItem::Skipped(SkipReason::EventTooLarge));
        }
        Some(SseItem::Event(SseEvent {
            kind: block.kind,
            data: block.data.into_text()?,
            id: block.id.filter(|id| !id.is_empty()),
            last_event_id: Arc::clone(&self.last_event_id),
        }))
    }
}
