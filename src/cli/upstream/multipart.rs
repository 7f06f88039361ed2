//! A part an event, each with its length. Spec: RFC 2046 §5.1.

use super::protocol::{Protocol, Way};
use hookcast_core::codec::json;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "multipart",
    content_type: "multipart/x-mixed-replace; boundary=hookcast-part",
    way: Way::Body,
    write: |record, _, out| {
        let kind = if json::check(&record.data).is_ok() { "application/json" } else { "text/plain" };
        let head = format!("--hookcast-part\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", record.data.len());
        for part in [head.as_bytes(), &record.data, b"\r\n"] {
            out.extend_from_slice(part);
        }
    },
};
