//! `sse`: a block an event, its position as the id, its data or its JSON form as the data.
//!
//! An event stream is UTF-8, so data that is neither JSON nor text is sent in base64. A heartbeat carries the position
//! scanned so far: a reader of rare events resumes there and not at its last event.
//!
//! Spec: HTML, "Server-sent events".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

use super::{Envelope, Format, Notice, Prologue, Style, plain, write_padding};
use hookcast_core::codec::{cloudevents, sse};
use hookcast_core::model::event::DataForm;
use hookcast_core::model::{Event, Seq};

/// Shortest pause before a reader comes back that we ask for.
const RETRY_MS_MIN: u32 = 1_000;
/// How far readers are spread, so that they do not all come back at once.
const RETRY_MS_SPREAD: u32 = 4_000;

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "sse",
    media_type: "text/event-stream",
    aliases: &[],
    has_envelope: true,
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
    let retry_ms = RETRY_MS_MIN + prologue.spread % RETRY_MS_SPREAD;
    // Something at once: readers and what stands in between know that it has begun.
    out.extend_from_slice(format!("retry: {retry_ms}\n: hookcast\n").as_bytes());
    write_padding(out, prologue, b":\n");
    out.extend_from_slice(b"\n");
}

fn write_event(out: &mut BytesMut, event: &Event, style: &Style) {
    let fields = event.fields();
    let id = event.seq().to_string();
    if style.envelope == Envelope::CloudEvents {
        let mut form = BytesMut::with_capacity(fields.data.len() + 512);
        cloudevents::write_event(&mut form, event);
        sse::write_block(out, Some(&id), Some(fields.kind), &form);
    } else if fields.form == DataForm::Binary {
        sse::write_block(out, Some(&id), Some(fields.kind), STANDARD.encode(fields.data).as_bytes());
    } else {
        sse::write_block(out, Some(&id), Some(fields.kind), fields.data);
    }
}

fn write_heartbeat(out: &mut BytesMut, scanned: Seq) {
    sse::write_heartbeat(out, scanned);
}

fn write_notice(out: &mut BytesMut, notice: &Notice, style: &Style) {
    let id = notice.seq().to_string();
    if style.envelope == Envelope::CloudEvents {
        let mut form = BytesMut::new();
        notice.write_json_form(&mut form);
        sse::write_block(out, Some(&id), Some(notice.kind()), &form);
    } else {
        sse::write_block(out, Some(&id), Some(notice.kind()), notice.data().as_bytes());
    }
}
