//! The protocol `sse`: server-sent events, resumed by `Last-Event-ID`.
//!
//! Data is JSON if it parses, text otherwise. The last event id in force is the resume token of every event; it moves with
//! blocks without data too, as a relay's heartbeats are.

use std::sync::Arc;

use bytes::Bytes;

use super::reconnect::{Ending, EndingClass};
use super::record::Record;
use super::stream::{Framing, Part, StreamSource};
use super::{Protocol, record_bytes_max};
use hookcast_core::codec::json;
use hookcast_core::codec::sse::{SseDecoder, SseEvent, SseItem};
use hookcast_core::model::ResumeToken;

pub(super) const PROTOCOL: Protocol =
    Protocol { name: "sse", check: |_| Ok(()), open: |spec| Box::new(StreamSource(Sse::new(record_bytes_max(&spec.settings)))) };

struct Sse {
    decoder: SseDecoder,
    event_bytes_max: usize,
    /// The last event id that was told of.
    told: Arc<str>,
}

impl Sse {
    fn new(event_bytes_max: usize) -> Self {
        let decoder = SseDecoder::new(event_bytes_max, "");
        Self { told: Arc::clone(decoder.last_event_id()), decoder, event_bytes_max }
    }

    fn record(&mut self, event: SseEvent) -> Record {
        let resume = ResumeToken::parse(&event.last_event_id);
        // A token that cannot be kept counts as told too: there is nothing else to say about it.
        if resume.is_some() {
            self.told = event.last_event_id;
        }
        Record {
            is_json: json::check(&event.data).is_ok(),
            data: event.data,
            id: event.id.map(|id| id.to_string()),
            kind: event.kind,
            resume,
            ..Record::default()
        }
    }
}

impl Framing for Sse {
    fn accept(&self) -> &'static str {
        "text/event-stream"
    }

    fn reads(&self, media_type: Option<&str>) -> bool {
        media_type == Some("text/event-stream")
    }

    /// Spec: HTML, "Server-sent events": 204 tells a reader to stop reconnecting.
    fn no_content(&self) -> Ending {
        Ending::new(EndingClass::Stop, "no_content", "the upstream says to stop reading (204)")
    }

    fn begin(&mut self, resume: Option<&ResumeToken>) {
        self.decoder = SseDecoder::new(self.event_bytes_max, resume.map_or("", ResumeToken::as_str));
        self.told = Arc::clone(self.decoder.last_event_id());
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        match self.decoder.next(chunk) {
            Some(SseItem::Event(event)) => Some(Part::Record(self.record(event))),
            Some(SseItem::Comment(_)) => Some(Part::KeepAlive),
            Some(SseItem::Retry(delay)) => Some(Part::Retry(delay)),
            Some(SseItem::Skipped(reason)) => Some(Part::Skipped(reason, Bytes::new())),
            // The chunk is used up: time to tell of a position that moved behind the last event.
            None => {
                let last = self.decoder.last_event_id();
                if *last == self.told {
                    return None;
                }
                self.told = Arc::clone(last);
                // A position that cannot be sent back does not replace the one that can.
                match ResumeToken::parse(last) {
                    None if !last.is_empty() => None,
                    resume => Some(Part::Moved(resume)),
                }
            }
        }
    }

    fn finish(&mut self, _: bool) -> Option<Part> {
        // A block without its blank line never was.
        None
    }
}
