//! Elements of a JSON list, each followed by a comma: for answers that end, not offered by name.

use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Style, plain};
use hookcast_core::codec::cloudevents;
use hookcast_core::model::Event;

/// The row of this format; it stands in no table.
pub(super) const FORMAT: Format = Format {
    name: "list",
    media_type: "application/json",
    aliases: &[],
    has_envelope: false,
    yields: false,
    gap_ends: false,
    head: plain,
    opening: |_, _| {},
    event: write_event,
    heartbeat: |_, _| {},
    notice: write_notice,
    closing: |_| {},
};

fn write_event(out: &mut BytesMut, event: &Event, _: &Style) {
    cloudevents::write_event(out, event);
    out.put_u8(b',');
}

fn write_notice(out: &mut BytesMut, notice: &Notice, _: &Style) {
    notice.write_json_form(out);
    out.put_u8(b',');
}
