//! JSON text sequences. Spec: RFC 7464 §2.2.

use super::protocol::{Protocol, Way};

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "json-seq",
    content_type: "application/json-seq",
    way: Way::Body,
    write: |record, _, out| {
        for part in [&[0x1e][..], &record.data, b"\n"] {
            out.extend_from_slice(part);
        }
    },
};
