//! One line an event.

use super::protocol::{Protocol, Way, put_line};

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "ndjson",
    content_type: "application/x-ndjson",
    way: Way::Body,
    write: |record, _, out| {
        put_line(&record.data, out);
        out.extend_from_slice(b"\n");
    },
};
