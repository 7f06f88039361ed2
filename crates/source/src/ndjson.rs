//! The protocol `ndjson`: a JSON text a line, no position to resume from.
//!
//! Every reconnect leaves a gap, unless the upstream sends its history again; `settings.id` then removes the repeats.

use bytes::Bytes;

use super::reconnect::Ending;
use super::stream::{Framing, Part, StreamSource, is_json_or_unnamed, nothing_to_send};
use super::twitter::{Messages, Profiled};
use super::{Protocol, record_bytes_max};
use hookcast_core::codec::ndjson::NdjsonDecoder;
use hookcast_core::model::ResumeToken;
use hookcast_core::model::source::own::profile::Profile;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "ndjson",
    check: |_| Ok(()),
    open: |spec| {
        let line_bytes_max = record_bytes_max(&spec.settings);
        match spec.settings.own.profile() {
            None => Box::new(StreamSource(Ndjson::new(line_bytes_max))),
            Some(Profile::Twitter) => Box::new(StreamSource(Profiled(Messages::new(line_bytes_max)))),
        }
    },
};

/// What is asked for.
pub(super) const ACCEPT: &str = "application/x-ndjson, application/jsonl, application/json;q=0.9, */*;q=0.1";

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
        ACCEPT
    }

    fn reads(&self, media_type: Option<&str>) -> bool {
        is_json_or_unnamed(media_type)
    }

    fn no_content(&self) -> Ending {
        nothing_to_send()
    }

    fn begin(&mut self, _: Option<&ResumeToken>) {
        self.decoder = NdjsonDecoder::new(self.line_bytes_max);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        self.decoder.next(chunk).map(Part::of)
    }

    fn finish(&mut self, clean: bool) -> Option<Part> {
        self.decoder.finish(clean).map(Part::of)
    }
}
