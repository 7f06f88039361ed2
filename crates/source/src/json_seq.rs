//! The protocol `json-seq`: JSON text sequences, no position to resume from. Spec: RFC 7464.

use bytes::Bytes;

use super::reconnect::Ending;
use super::stream::{Framing, Part, StreamSource, is_json_or_unnamed, nothing_to_send};
use super::{Protocol, record_bytes_max};
use hookcast_core::codec::json_seq::JsonSeqDecoder;
use hookcast_core::model::ResumeToken;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "json-seq",
    check: |_| Ok(()),
    open: |spec| {
        let text_bytes_max = record_bytes_max(&spec.settings);
        Box::new(StreamSource(JsonSeq { decoder: JsonSeqDecoder::new(text_bytes_max), text_bytes_max }))
    },
};

struct JsonSeq {
    decoder: JsonSeqDecoder,
    text_bytes_max: usize,
}

impl Framing for JsonSeq {
    fn accept(&self) -> &'static str {
        "application/json-seq, application/geo+json-seq;q=0.9, */*;q=0.1"
    }

    fn reads(&self, media_type: Option<&str>) -> bool {
        is_json_or_unnamed(media_type)
    }

    fn no_content(&self) -> Ending {
        nothing_to_send()
    }

    fn begin(&mut self, _: Option<&ResumeToken>) {
        self.decoder = JsonSeqDecoder::new(self.text_bytes_max);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        self.decoder.next(chunk).map(Part::of)
    }

    fn finish(&mut self, clean: bool) -> Option<Part> {
        self.decoder.finish(clean).map(Part::of)
    }
}
