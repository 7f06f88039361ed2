//! Server-sent events with ids, resumed by `Last-Event-ID`.

use super::protocol::{Protocol, Way};
use hookcast_core::codec::sse::write_block;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "sse",
    content_type: "text/event-stream",
    way: Way::Body,
    write: |record, n, out| write_block(out, Some(&n.to_string()), record.kind.as_deref(), &record.data),
};
