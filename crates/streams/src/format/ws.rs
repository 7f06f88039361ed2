//! `ws`: one text message an event, the JSON form, as a whole frame of a server; a ping into silence.
//!
//! Frames of a server are not masked, so that all clients share them. A ping carries the position scanned so far, in decimal
//! digits, and comes back with the pong.
//!
//! Spec: RFC 6455, section 5.

use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Style, plain};
use hookcast_core::codec::cloudevents;
use hookcast_core::codec::websocket::{Opcode, write_frame};
use hookcast_core::model::{Event, Seq};

/// The row of this format. Without a slash its media type is none that `Accept` could name: an upgrade asks for it.
pub(super) const FORMAT: Format = Format {
    name: "ws",
    media_type: "websocket",
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
    write_frame(out, Opcode::Text, |out| cloudevents::write_event(out, event));
}

fn write_heartbeat(out: &mut BytesMut, scanned: Seq) {
    write_frame(out, Opcode::Ping, |out| out.put_slice(scanned.to_string().as_bytes()));
}

fn write_notice(out: &mut BytesMut, notice: &Notice, _: &Style) {
    write_frame(out, Opcode::Text, |out| notice.write_json_form(out));
}
