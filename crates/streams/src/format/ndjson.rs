//! `ndjson`: one line an event, the JSON form; an empty line into silence.

use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Style, plain, write_padding};
use hookcast_core::codec::cloudevents;
use hookcast_core::model::{Event, Seq};

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "ndjson",
    media_type: "application/x-ndjson",
    aliases: &["application/ndjson", "application/jsonl", "application/x-jsonlines"],
    has_envelope: false,
    yields: false,
    gap_ends: false,
    head: plain,
    opening: |out, prologue| write_padding(out, prologue, b"\n"),
    event: write_event,
    heartbeat: write_heartbeat,
    notice: write_notice,
    closing: |_| {},
};

fn write_event(out: &mut BytesMut, event: &Event, _: &Style) {
    cloudevents::write_event(out, event);
    out.put_u8(b'\n');
}

fn write_heartbeat(out: &mut BytesMut, _: Seq) {
    out.put_u8(b'\n');
}

fn write_notice(out: &mut BytesMut, notice: &Notice, _: &Style) {
    notice.write_json_form(out);
    out.put_u8(b'\n');
}
