//! `raw`: the data of an event as it is, and a line end.
//!
//! There is no place for anything else, so silence stays silent and a gap ends the response; what could not be said in the
//! body stands in its head ([`super::UNSAID_GAP`], [`super::UNSAID_RESET`]).

use bytes::{BufMut, BytesMut};

use super::{Format, Style, plain};
use hookcast_core::model::Event;

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "raw",
    media_type: "application/octet-stream",
    aliases: &[],
    has_envelope: false,
    yields: false,
    gap_ends: true,
    head: plain,
    opening: |_, _| {},
    event: write_event,
    heartbeat: |_, _| {},
    notice: |_, _, _| {},
    closing: |_| {},
};

fn write_event(out: &mut BytesMut, event: &Event, _: &Style) {
    out.put_slice(event.fields().data);
    out.put_u8(b'\n');
}
