//! JSON forms with a NUL behind each, which no JSON text holds; a lone NUL into silence. For connections without HTTP only.

use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Style, plain};
use hookcast_core::codec::cloudevents;
use hookcast_core::model::{Event, Seq};

/// The format, which no request over HTTP can name.
pub(super) const FORMAT: Format = Format {
    name: "nul",
    media_type: "application/octet-stream",
    aliases: &[],
    has_envelope: false,
    yields: false,
    gap_ends: false,
    head: plain,
    opening: |_, _| {},
    event: write_event,
    heartbeat: write_heartbeat,
    notice: write_notice,
    closing: |_| {},
};

fn write_event(out: &mut BytesMut, event: &Event, _: &Style) {
    cloudevents::write_event(out, event);
    out.put_u8(0);
}

fn write_heartbeat(out: &mut BytesMut, _: Seq) {
    out.put_u8(0);
}

fn write_notice(out: &mut BytesMut, notice: &Notice, _: &Style) {
    notice.write_json_form(out);
    out.put_u8(0);
}
