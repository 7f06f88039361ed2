//! The protocol `multipart`: an event a part, no position to resume from. The type of a part is the type of its event.

use bytes::Bytes;

use super::reconnect::{Ending, EndingClass};
use super::record::Record;
use super::stream::{Framing, Part, StreamSource, nothing_to_send};
use super::{Protocol, record_bytes_max};
use hookcast_core::codec::json;
use hookcast_core::codec::multipart::{MultipartDecoder, PartItem, boundary_of};
use hookcast_core::model::ResumeToken;
use hookcast_core::model::event::is_json_type;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "multipart",
    check: |_| Ok(()),
    open: |spec| {
        let part_bytes_max = record_bytes_max(&spec.settings);
        let says_json = spec.settings.content_type.as_deref().is_some_and(is_json_type);
        let decoder = MultipartDecoder::new("", part_bytes_max);
        Box::new(StreamSource(Multipart { decoder, boundary: String::new(), part_bytes_max, says_json }))
    },
};

/// The type of a part that names none. Spec: RFC 2046 §5.1.
const DEFAULT_TYPE: &str = "text/plain";

struct Multipart {
    decoder: MultipartDecoder,
    boundary: String,
    part_bytes_max: usize,
    says_json: bool,
}

impl Multipart {
    fn part(&self, item: PartItem) -> Part {
        match item {
            PartItem::Skipped(reason) => Part::Skipped(reason, Bytes::new()),
            PartItem::Part { data, .. } if data.is_empty() => Part::KeepAlive,
            PartItem::Part { content_type, data } => {
                let content_type = content_type.unwrap_or_else(|| DEFAULT_TYPE.to_owned());
                let is_json = (self.says_json || is_json_type(&content_type)) && json::check(&data).is_ok();
                Part::Record(Record { data, is_json, content_type: Some(content_type), ..Record::default() })
            }
        }
    }
}

impl Framing for Multipart {
    fn accept(&self) -> &'static str {
        "multipart/x-mixed-replace, multipart/mixed;q=0.9, multipart/*;q=0.5"
    }

    fn reads(&self, media_type: Option<&str>) -> bool {
        media_type.is_some_and(|name| name.starts_with("multipart/"))
    }

    fn opened(&mut self, content_type: Option<&str>) -> Result<(), Ending> {
        let boundary = content_type.and_then(boundary_of);
        self.boundary = boundary.ok_or_else(|| {
            Ending::new(EndingClass::Failed, "boundary", "the upstream's content type names no usable boundary")
        })?;
        Ok(())
    }

    fn no_content(&self) -> Ending {
        nothing_to_send()
    }

    fn begin(&mut self, _: Option<&ResumeToken>) {
        self.decoder = MultipartDecoder::new(&self.boundary, self.part_bytes_max);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        let item = self.decoder.next(chunk)?;
        Some(item.map_or_else(|fault| Part::Broken("framing", fault.to_string()), |item| self.part(item)))
    }

    fn finish(&mut self, _: bool) -> Option<Part> {
        self.decoder.finish().map(|item| self.part(item))
    }
}
