//! `json-seq`: a record separator, the JSON form and a line end an event; two separators into silence.
//!
//! A reader takes separators in a row for one, so silence is no record.
//!
//! Spec: RFC 7464.

use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Prologue, Style, plain, write_padding};
use hookcast_core::codec::cloudevents;
use hookcast_core::model::{Event, Seq};

const SEPARATOR: u8 = 0x1E;
const SILENCE: &[u8] = &[SEPARATOR, SEPARATOR];

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "json-seq",
    media_type: "application/json-seq",
    aliases: &[],
    has_envelope: false,
    yields: false,
    gap_ends: false,
    head: plain,
    opening: write_opening,
    event: write_event,
    heartbeat: write_heartbeat,
    notice: write_notice,
    closing: |_| {},
};

fn write_opening(out: &mut BytesMut, prologue: &Prologue<'_>) {
    write_padding(out, prologue, SILENCE);
}

fn write_event(out: &mut BytesMut, event: &Event, _: &Style) {
    out.put_u8(SEPARATOR);
    cloudevents::write_event(out, event);
    out.put_u8(b'\n');
}

fn write_heartbeat(out: &mut BytesMut, _: Seq) {
    out.put_slice(SILENCE);
}

fn write_notice(out: &mut BytesMut, notice: &Notice, _: &Style) {
    out.put_u8(SEPARATOR);
    notice.write_json_form(out);
    out.put_u8(b'\n');
}
