//! `length`: how many bytes follow, a line end, the JSON form and its line end, which counts; a line end into silence.
//!
//! Spec: Twitter's streaming API, `delimited=length`.

use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Prologue, Style, plain, write_padding};
use hookcast_core::codec::cloudevents;
use hookcast_core::model::{Event, Seq};

const LINE_END: &[u8] = b"\r\n";
/// Room for what stands around the data of most events.
const AROUND_BYTES: usize = 512;

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "length",
    media_type: "application/json",
    aliases: &[],
    has_envelope: false,
    // Who asks for JSON and takes anything else means one document, not this.
    yields: true,
    gap_ends: false,
    head: plain,
    opening: write_opening,
    event: write_event,
    heartbeat: write_heartbeat,
    notice: write_notice,
    closing: |_| {},
};

fn write_opening(out: &mut BytesMut, prologue: &Prologue<'_>) {
    write_padding(out, prologue, LINE_END);
}

fn write_event(out: &mut BytesMut, event: &Event, _: &Style) {
    let mut form = BytesMut::with_capacity(event.fields().data.len() + AROUND_BYTES);
    cloudevents::write_event(&mut form, event);
    write_counted(out, &form);
}

fn write_heartbeat(out: &mut BytesMut, _: Seq) {
    out.put_slice(LINE_END);
}

fn write_notice(out: &mut BytesMut, notice: &Notice, _: &Style) {
    let mut form = BytesMut::new();
    notice.write_json_form(&mut form);
    write_counted(out, &form);
}

fn write_counted(out: &mut BytesMut, form: &[u8]) {
    out.put_slice((form.len() + LINE_END.len()).to_string().as_bytes());
    out.put_slice(LINE_END);
    out.put_slice(form);
    out.put_slice(LINE_END);
}
