//! A decimal length and a line end before each event, as Twitter's streams had it; the line end behind it is counted.

use super::protocol::{Protocol, Way, put_line};

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "length",
    content_type: "application/json",
    way: Way::Body,
    write: |record, _, out| {
        out.extend_from_slice(format!("{}\r\n", record.data.len() + 2).as_bytes());
        put_line(&record.data, out);
        out.extend_from_slice(b"\r\n");
    },
};
