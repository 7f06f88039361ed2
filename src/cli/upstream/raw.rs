//! Data and a line end, of a type that says nothing.

use super::ndjson;
use super::protocol::{Protocol, Way};

pub(super) const PROTOCOL: Protocol =
    Protocol { name: "raw", content_type: "application/octet-stream", way: Way::Body, write: ndjson::PROTOCOL.write };
