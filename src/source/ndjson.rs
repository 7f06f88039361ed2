//! The protocol `ndjson`: a JSON text a line, no position to resume from.
//!
//! Every reconnect leaves a gap, unless the upstream sends its history again; `settings.id` then removes the repeats.

use bytes::Bytes;

use super::reconnect::{Ending, EndingClass};
use super::record::Record;
use super::stream::{Framing, Part, StreamSource};
use super::{Protocol, record_bytes_max};
use crate::codec::Frame;
use crate::codec::ndjson::NdjsonDecoder;
use crate::model::ResumeToken;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "ndjson",
    check: |_| Ok(()),
    open: |spec| Box::new(StreamSource(Ndjson::new(record_bytes_max(&spec.settings)))),
};

struct Ndjson {
    decoder: NdjsonDecoder,
    line_bytes_max: usize,
}

impl Ndjson {
    fn new(line_bytes_max: usize) -> Self {
        Self { decoder: NdjsonDecoder::new(line_bytes_max), line_bytes_max }
    }
}

impl Framing for Ndjson {
    fn accept(&self) -> &'static str {
        "application/x-ndjson, application/jsonl, application/json;q=0.9, */*;q=0.1"
    }

    /// Servers name this format in a dozen ways or not at all; what it surely is not is refused.
    fn reads(&self, media_type: Option<&str>) -> bool {
        media_type.is_none_or(|name| name.contains("json") || matches!(name, "text/plain" | "application/octet-stream" | ""))
    }

    fn no_content(&self) -> Ending {
        Ending::new(EndingClass::Failed, "empty", "the upstream has nothing to send (204)")
    }

    fn begin(&mut self, _: Option<&ResumeToken>) {
        self.decoder = NdjsonDecoder::new(self.line_bytes_max);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        self.decoder.next(chunk).map(part_of)
    }

    fn finish(&mut self, clean: bool) -> Option<Part> {
        self.decoder.finish(clean).map(part_of)
    }
}

fn part_of(frame: Frame) -> Part {
    match frame {
        Frame::Record(data) => Part::Record(Record { data, is_json: true, ..Record::default() }),
        Frame::KeepAlive => Part::KeepAlive,
        Frame::Skipped(reason, head) => Part::Skipped(reason, head),
    }
}
