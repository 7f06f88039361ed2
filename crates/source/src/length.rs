//! The protocol `length`: JSON messages, each behind its length in bytes, as Twitter's streams send with `delimited=length`.
//!
//! There is no position to resume from. Where a length should stand and none does, the connection is given up.

use bytes::Bytes;

use super::reconnect::Ending;
use super::stream::{Framing, Part, StreamSource, is_json_or_unnamed, nothing_to_send};
use super::twitter::Profiled;
use super::{Protocol, record_bytes_max};
use hookcast_core::codec::length::LengthDecoder;
use hookcast_core::model::ResumeToken;
use hookcast_core::model::source::own::profile::Profile;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "length",
    check: |_| Ok(()),
    open: |spec| {
        let message_bytes_max = record_bytes_max(&spec.settings);
        let framing = Length { decoder: LengthDecoder::new(message_bytes_max), message_bytes_max };
        match spec.settings.own.profile() {
            None => Box::new(StreamSource(framing)),
            Some(Profile::Twitter) => Box::new(StreamSource(Profiled(framing))),
        }
    },
};

struct Length {
    decoder: LengthDecoder,
    message_bytes_max: usize,
}

impl Framing for Length {
    fn accept(&self) -> &'static str {
        "application/json, */*;q=0.1"
    }

    fn reads(&self, media_type: Option<&str>) -> bool {
        is_json_or_unnamed(media_type)
    }

    fn no_content(&self) -> Ending {
        nothing_to_send()
    }

    fn begin(&mut self, _: Option<&ResumeToken>) {
        self.decoder = LengthDecoder::new(self.message_bytes_max);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        let frame = self.decoder.next(chunk)?;
        Some(frame.map_or_else(|fault| Part::Broken("framing", fault.to_string()), Part::of))
    }

    fn finish(&mut self, _: bool) -> Option<Part> {
        self.decoder.finish().map(Part::of)
    }
}
